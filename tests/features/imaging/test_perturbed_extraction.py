"""Cases measured again with perturbed masks: the same whatever else is measured, nothing twice, records that say how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from imaging_cohort import imaging_cohort, scheduler_of_this_process

from features.extracted import is_as_written, read_record
from features.imaging.case import Redrawing
from features.imaging.extraction import Extracted, extract
from features.imaging.manifest import load_manifest
from features.imaging.profiles import FeatureClass, Profile
from features.imaging.settings import Extraction, MaskSettings, PerturbationSettings
from features.imaging.tables import write_redrawn, write_tables

SMALL = Profile(
    name="small",
    classes=(
        FeatureClass(family="shape", features=("VoxelVolume", "Sphericity", "Maximum2DDiameterSlice")),
        FeatureClass(family="firstorder", features=("Mean", "Entropy")),
    ),
)
EXTRACTION = Extraction(profile=SMALL, masks=MaskSettings(disconnected="keep"))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with scheduler_of_this_process() as address:
        yield address


def ways(count: int, seed: int = 0, **changes: float) -> tuple[Redrawing, ...]:
    settings = PerturbationSettings(count=count, **changes)
    return tuple(Redrawing(settings, seed, number) for number in range(1, count + 1))


def again(manifest: Path, scheduler: str, redrawings: Sequence[Redrawing], extraction: Extraction = EXTRACTION) -> Extracted:
    read, output = load_manifest(manifest), manifest.parent / "extracted"
    found = extract(read, extraction, output / "measured", scheduler=scheduler, redrawings=redrawings)
    write_redrawn(found, read, extraction, output / "perturbed", redrawings)
    return found


def table(folder: Path, number: int) -> pd.DataFrame:
    return pd.read_parquet(folder / "extracted" / "perturbed" / f"perturbed-{number}.parquet").set_index("sample")


def test_how_a_mask_is_perturbed_does_not_depend_on_what_else_is_measured(tmp_path: Path, scheduler: str) -> None:
    again(imaging_cohort(tmp_path / "some", 3, ("T2", "ADC")), scheduler, ways(2))
    manifest = imaging_cohort(tmp_path / "more", 4, ("T2", "ADC"))
    for path in (tmp_path / "some").glob("s*"):
        (tmp_path / "more" / path.name).write_bytes(path.read_bytes())
    rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    rows[::-1].to_csv(manifest, index=False)
    again(manifest, scheduler, ways(3))
    for number in (1, 2):
        one, other = table(tmp_path / "some", number), table(tmp_path / "more", number)
        pd.testing.assert_frame_equal(one, other.loc[one.index, one.columns])


def test_each_way_each_sample_and_each_seed_perturbs_otherwise(tmp_path: Path, scheduler: str) -> None:
    manifest = imaging_cohort(tmp_path, 3)  # all with the same mask
    again(manifest, scheduler, ways(2))
    first, second = (table(tmp_path, number)["T2_original_shape_Sphericity"] for number in (1, 2))
    again(manifest, scheduler, ways(2, seed=1))
    other = table(tmp_path, 1)["T2_original_shape_Sphericity"]
    assert pd.concat([first, second, other]).nunique() == 9


def test_a_sequence_in_the_mask_of_another_is_measured_in_the_same_perturbed_mask(tmp_path: Path, scheduler: str) -> None:
    again(imaging_cohort(tmp_path, 3, ("T2", "ADC")), scheduler, ways(2))
    for number in (1, 2):
        frame = table(tmp_path, number)
        for name in ("VoxelVolume", "Sphericity"):
            np.testing.assert_array_equal(frame[f"T2_original_shape_{name}"], frame[f"ADC_original_shape_{name}"])
        assert (frame["T2_original_firstorder_Mean"] != frame["ADC_original_firstorder_Mean"]).all()


def test_the_values_are_those_of_the_perturbed_mask_drawn_by_hand(tmp_path: Path, scheduler: str) -> None:
    manifest = imaging_cohort(tmp_path, 3)
    [way] = ways(1)
    again(manifest, scheduler, [way])
    before = table(tmp_path, 1)
    for sample in before.index:
        path = tmp_path / f"{sample}_mask.nii.gz"
        sitk.WriteImage(way.redrawn(sitk.ReadImage(str(path)), sample, "T2"), str(path))
    read = load_manifest(manifest)
    found = extract(read, EXTRACTION, tmp_path / "elsewhere", scheduler=scheduler)
    write_tables(found, read, EXTRACTION, tmp_path / "drawn")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "drawn" / "features.parquet").set_index("sample"), before)


def test_nothing_is_measured_twice_and_masks_as_they_are_are_kept_apart(tmp_path: Path, scheduler: str) -> None:
    manifest = imaging_cohort(tmp_path, 3)

    def recalled(*redrawings: Redrawing) -> int:
        memory = tmp_path / "measured"
        return extract(load_manifest(manifest), EXTRACTION, memory, scheduler=scheduler, redrawings=redrawings).recalled

    assert recalled() == 0
    assert recalled(*ways(2)) == 0
    assert recalled(*ways(2)) == 6
    assert recalled(*ways(3)) == 6  # how many ways there are decides no value
    assert recalled(*ways(2, volume=0.3)) == 0
    assert recalled(*ways(2, seed=1)) == 0
    assert recalled() == 3


def test_the_record_has_the_hash_of_the_extraction_and_says_how_masks_were_perturbed(tmp_path: Path, scheduler: str) -> None:
    again(imaging_cohort(tmp_path, 3), scheduler, ways(2, seed=7, turn_degrees=3.0))
    for name in ("perturbed-2.csv", "perturbed-2.parquet"):
        path = tmp_path / "extracted" / "perturbed" / name
        record = read_record(path)
        assert record is not None
        assert record.settings_hash == EXTRACTION.hash
        assert is_as_written(path, record)
        assert record.settings["perturbation"] == {
            "shift_voxels": 0.5,
            "shift_mm": 0.0,
            "turn_degrees": 3.0,
            "volume": 0.15,
            "seed": 7,
            "number": 2,
        }


def test_tables_of_more_ways_from_before_do_not_lie_beside_those_of_now(tmp_path: Path, scheduler: str) -> None:
    manifest = imaging_cohort(tmp_path, 3)
    again(manifest, scheduler, ways(3))
    (tmp_path / "extracted" / "perturbed" / "perturbed-mine.csv").touch()
    again(manifest, scheduler, ways(2))
    there = {path.name for path in (tmp_path / "extracted" / "perturbed").glob("*.csv")}
    assert there == {"perturbed-1.csv", "perturbed-2.csv", "perturbed-mine.csv", "failures.csv", "timings.csv"}


def test_one_perturbed_mask_of_each_case_is_drawn(tmp_path: Path, scheduler: str) -> None:
    again(imaging_cohort(tmp_path, 2, ("T2", "ADC")), scheduler, ways(2))
    pictures = sorted(path.name for path in (tmp_path / "extracted" / "perturbed" / "pictures").iterdir())
    assert pictures == ["s000_ADC.png", "s000_T2.png", "s001_ADC.png", "s001_T2.png"]


def test_a_case_that_cannot_be_measured_is_listed_for_every_table_and_the_others_go_on(tmp_path: Path, scheduler: str) -> None:
    manifest = imaging_cohort(tmp_path, 3)
    (tmp_path / "s001_T2.nii.gz").unlink()
    again(manifest, scheduler, ways(2))
    listed = pd.read_csv(tmp_path / "extracted" / "perturbed" / "failures.csv")
    assert listed["table"].tolist() == ["perturbed-1", "perturbed-2"]
    assert set(listed["file"]) == {"s001_T2.nii.gz"}
    assert table(tmp_path, 2).index.tolist() == ["s000", "s002"]
