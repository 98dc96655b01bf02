from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from click.testing import CliRunner
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from features.errors import InputError
from features.extracted import BARRED, is_as_written, read_record
from features.imaging.brix import BrixFit, BrixSettings, brix_curve
from features.imaging.cli_perfusion import perfusion
from features.imaging.errors import ImageError
from features.imaging.perfusion import (
    FLAGS,
    PerfusionMaps,
    PerfusionSettings,
    hypoxic_fraction,
    percent_enhancement,
    perfusion_maps,
    relative_signal_increase,
    signal_enhancement_ratio,
)
from features.imaging.perfusion_study import load_series_manifest, measure_series, run_perfusion
from features.imaging.series import read_series

TIMES_S = tuple(30.0 * number for number in range(12))
SHAPE = (4, 10, 12)  # slices, rows, columns
SPACING, ORIGIN = (0.8, 1.1, 3.0), (-20.0, 15.0, 7.0)
S0 = 200.0


def image_of(values: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    return image


def tumour() -> np.ndarray:
    inside = np.zeros(SHAPE, dtype=np.uint8)
    inside[1:4, 2:8, 3:9] = 1
    return inside


def amplitudes() -> np.ndarray:
    """1 in the first slice of the tumour, 2 in the second, 3 in the third: one third is hypoxic."""
    return np.broadcast_to(np.arange(SHAPE[0], dtype=float)[:, np.newaxis, np.newaxis], SHAPE).copy()


def frames(amplitude: np.ndarray | None = None) -> np.ndarray:
    """Signal of shape (frames, slices, rows, columns); contrast arrives after 45 s."""
    amplitude = amplitudes() if amplitude is None else amplitude
    times = np.array(TIMES_S)[:, np.newaxis, np.newaxis, np.newaxis] / 60 - 0.75
    return S0 * (1 + brix_curve(times, amplitude, 3, 0.1))


def write_4d(path: Path, values: np.ndarray | None = None, times: bool = True) -> Path:
    values = frames() if values is None else values
    sitk.WriteImage(sitk.JoinSeries([image_of(frame) for frame in values]), str(path))
    if times:
        path.with_name(path.name.split(".")[0] + ".json").write_text(json.dumps({"FrameTimesStart": TIMES_S[: len(values)]}))
    return path


def write_dicom(
    folder: Path,
    values: np.ndarray,
    stamp: Callable[[FileDataset, int], None],
    prefix: str = "",
    only: Sequence[int] | None = None,
) -> Path:
    """A dynamic series, a file per slice and time; `stamp` writes into a header which time it is of."""
    folder.mkdir(exist_ok=True)
    series = generate_uid()
    for time in range(len(values)) if only is None else only:
        for place in range(SHAPE[0]):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
            dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
            dataset.SeriesInstanceUID, dataset.Modality, dataset.PatientName = series, "MR", "Secret^Name"
            dataset.Rows, dataset.Columns, dataset.PixelSpacing = SHAPE[1], SHAPE[2], [SPACING[1], SPACING[0]]
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            dataset.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + place * SPACING[2]]
            dataset.SliceThickness = SPACING[2]
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
            dataset.BitsAllocated = dataset.BitsStored = 16
            dataset.HighBit, dataset.PixelRepresentation = 15, 0
            dataset.RescaleSlope, dataset.RescaleIntercept = 0.5, 0
            dataset.PixelData = np.round(2 * values[time, place]).astype(np.uint16).tobytes()
            stamp(dataset, time)
            dataset.save_as(folder / f"{prefix}{(time * 7 + place * 3) % 97:02d}-{time}-{place}.dcm", enforce_file_format=True)
    return folder


def stamp_position(dataset: FileDataset, time: int) -> None:
    dataset.TemporalPositionIdentifier, dataset.AcquisitionTime = time + 1, f"1159{30 * time % 60:02d}"
    total = 11 * 3600 + 59 * 60 + 30 * time
    dataset.AcquisitionTime = f"{total // 3600:02d}{total // 60 % 60:02d}{total % 60:02d}.000"


def stamp_trigger(dataset: FileDataset, time: int) -> None:
    dataset.TriggerTime, dataset.AcquisitionTime = 30_000 * time, "101500"  # GE: one acquisition time for all


def stamp_midnight(dataset: FileDataset, time: int) -> None:
    total = (24 * 3600 - 60 + 30 * time) % (24 * 3600)
    dataset.AcquisitionTime = f"{total // 3600:02d}{total // 60 % 60:02d}{total % 60:02d}"


def stamp_content(dataset: FileDataset, time: int) -> None:
    total = 9 * 3600 + 30 * time
    dataset.ContentTime = f"{total // 3600:02d}{total // 60 % 60:02d}{total % 60:02d}"


def stamp_nothing(dataset: FileDataset, time: int) -> None:
    dataset.InstanceNumber = time


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two good series, one of three phases, one with a broken file."""
    write_4d(tmp_path / "a.nii.gz")
    write_4d(tmp_path / "b.nrrd", frames(np.full(SHAPE, 4.0)))
    write_4d(tmp_path / "three.nii.gz", frames()[[0, 4, 11]])
    (tmp_path / "broken.nii.gz").write_bytes(b"\x1f\x8b nothing")
    sitk.WriteImage(image_of(tumour()), str(tmp_path / "mask.nii.gz"))
    rows = [("p1", "007", "a.nii.gz"), ("p2", "008", "b.nrrd"), ("p3", "009", "three.nii.gz"), ("p4", "010", "broken.nii.gz")]
    lines = [f"{sample},{patient},DCE,{image},mask.nii.gz" for sample, patient, image in rows]
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(["sample,patient,sequence,image,mask", *lines, "p1,007,T2,a.nii.gz,mask.nii.gz"]) + "\n")
    return path


def fit_of(amplitude: Sequence[float]) -> BrixFit:
    values = np.array(amplitude, dtype=float)
    good, none = np.isfinite(values), np.zeros(len(values), dtype=bool)
    return BrixFit(values, values, values, values, ~good, none, none, values == 0, 0.0)


def maps_of(amplitude: Sequence[float]) -> PerfusionMaps:
    """Two slices, half of the voxels in each."""
    inside = np.zeros((3, 1, len(amplitude)), dtype=bool)
    inside[0, 0, : len(amplitude) // 2] = inside[2, 0, len(amplitude) // 2 :] = True
    return PerfusionMaps(inside, fit_of(amplitude), image_of(inside.astype(np.uint8)))


# Reading


@pytest.mark.parametrize("name", ["series.nii.gz", "series.nrrd", "series.mha"])
def test_a_4d_file_is_read_with_the_times_of_its_sidecar(tmp_path: Path, name: str) -> None:
    series = read_series([write_4d(tmp_path / name)])
    assert series.times_s == TIMES_S
    assert series.frames == pytest.approx(frames(), rel=1e-12)
    assert series.grid.GetSpacing() == pytest.approx(SPACING)
    assert series.grid.GetOrigin() == pytest.approx(ORIGIN)


def test_volumes_in_order_of_time_are_a_series(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.nii.gz" for number in range(12)]
    for path, values in zip(paths, frames(), strict=True):
        sitk.WriteImage(image_of(values), str(path))
    series = read_series(paths, times_s=TIMES_S)
    assert series.frames == pytest.approx(frames())
    assert series.times_s == TIMES_S


def test_time_as_components_of_a_voxel_is_a_series(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Compose([image_of(values) for values in frames()]), str(tmp_path / "vector.nrrd"))
    series = read_series([tmp_path / "vector.nrrd"])
    assert series.frames == pytest.approx(frames())
    assert series.times_s is None
    assert series.grid.GetSize() == SHAPE[::-1]


def test_the_repetition_time_of_pulses_is_not_taken_for_that_of_volumes(tmp_path: Path) -> None:
    path = write_4d(tmp_path / "a.nii.gz", times=False)
    sidecar = tmp_path / "a.json"
    sidecar.write_text(json.dumps({"RepetitionTime": 0.004}))
    assert read_series([path]).times_s is None
    sidecar.write_text(json.dumps({"RepetitionTime": 30}))
    assert read_series([path]).times_s == TIMES_S


@pytest.mark.parametrize("stamp", [stamp_position, stamp_trigger, stamp_midnight, stamp_content])
def test_a_dynamic_dicom_series_is_parted_by_time(tmp_path: Path, stamp: Callable[[FileDataset, int], None]) -> None:
    series = read_series([write_dicom(tmp_path / "dce", frames(), stamp)])
    assert series.times_s == pytest.approx(TIMES_S)
    assert series.frames == pytest.approx(np.round(2 * frames()) / 2)  # rescaled by 0.5
    assert series.grid.GetSpacing() == pytest.approx(SPACING)
    assert series.grid.GetOrigin() == pytest.approx(ORIGIN)


def test_phases_that_are_series_of_their_own_are_one_dynamic_series(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        write_dicom(tmp_path / "dce", frames()[:3], stamp_content, prefix=f"s{number}-", only=[number])
    assert read_series([tmp_path / "dce"]).times_s == pytest.approx(TIMES_S[:3])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "00-0-0.dcm").unlink(), "between 11 and 12 times"),
        (lambda folder: [file.unlink() for file in folder.glob("*-2.dcm")], "uneven distances"),
        (lambda folder: [file.unlink() for file in folder.glob("*.dcm") if file.name.split("-")[1] != "0"], "holds one volume"),
        (lambda folder: [file.unlink() for file in folder.glob("*.dcm")], "no DICOM image"),
    ],
)
def test_an_incomplete_dicom_series_is_refused(tmp_path: Path, spoil: Callable[[Path], object], said: str) -> None:
    folder = write_dicom(tmp_path / "dce", frames(), stamp_position)
    spoil(folder)
    with pytest.raises(ImageError, match=said) as raised:
        read_series([folder])
    assert "Secret" not in str(raised.value)


def test_dicom_without_any_time_is_refused(tmp_path: Path) -> None:
    folder = write_dicom(tmp_path / "dce", frames()[:3], stamp_nothing)
    with pytest.raises(ImageError, match="does not say which slice belongs to which time"):
        read_series([folder])


def test_one_volume_is_no_series(tmp_path: Path) -> None:
    sitk.WriteImage(image_of(frames()[0]), str(tmp_path / "one.nii.gz"))
    with pytest.raises(ImageError, match=r"one\.nii\.gz holds one volume"):
        read_series([tmp_path / "one.nii.gz"])


def test_volumes_on_different_grids_are_refused(tmp_path: Path) -> None:
    first, second = image_of(frames()[0]), image_of(frames()[1])
    second.SetOrigin((0.0, 0.0, 0.0))
    for name, image in (("0.nii.gz", first), ("1.nii.gz", second)):
        sitk.WriteImage(image, str(tmp_path / name))
    with pytest.raises(ImageError, match=r"1.nii.gz lies on another grid than 0.nii.gz"):
        read_series([tmp_path / "0.nii.gz", tmp_path / "1.nii.gz"])


@pytest.mark.parametrize(
    ("times", "said"),
    [(TIMES_S[:5], "12 frames but 5 times"), ((0.0, 30.0, 20.0, *TIMES_S[3:]), "do not increase .at frame 3 of 12")],
)
def test_times_that_do_not_fit_are_refused(tmp_path: Path, times: tuple[float, ...], said: str) -> None:
    with pytest.raises(ImageError, match=said):
        read_series([write_4d(tmp_path / "a.nii.gz")], times_s=times)


def test_a_sidecar_without_times_in_seconds_is_refused(tmp_path: Path) -> None:
    path = write_4d(tmp_path / "a.nii.gz")
    (tmp_path / "a.json").write_text(json.dumps({"FrameTimesStart": ["early", "late"]}))
    with pytest.raises(ImageError, match=r"a\.json beside a\.nii\.gz tells no times"):
        read_series([path])


# Maps and fractions


def test_the_signal_is_taken_relative_to_the_mean_before_contrast() -> None:
    increase = relative_signal_increase(
        np.array([[90.0, 110.0, 300.0], [0.0, 0.0, 9.0], [-5.0, 1.0, 9.0], [40.0, 40.0, 80.0]]), 2, 50
    )
    assert increase[0].tolist() == pytest.approx([-0.1, 0.1, 2.0])
    assert np.isnan(increase[1:]).all()  # zero, negative, and below the minimum of 50


def test_maps_give_the_amplitude_of_every_voxel(tmp_path: Path) -> None:
    series = read_series([write_4d(tmp_path / "a.nii.gz")])
    settings = PerfusionSettings(brix=BrixSettings(arrival=0.75))
    maps = perfusion_maps(series, image_of(tumour()), settings).images()
    inside = tumour() != 0
    found = sitk.GetArrayFromImage(maps["ABrix"])
    assert found[inside] == pytest.approx(amplitudes()[inside], rel=1e-5)  # maps are in single precision
    assert np.isnan(found[~inside]).all()
    assert sitk.GetArrayFromImage(maps["kep"])[inside] == pytest.approx(3, rel=1e-5)
    assert sitk.GetArrayFromImage(maps["flags"]).max() == 0
    assert all(
        image.GetOrigin() == pytest.approx(ORIGIN) and image.GetSpacing() == pytest.approx(SPACING) for image in maps.values()
    )


def test_a_few_voxels_without_signal_do_not_move_the_arrival(tmp_path: Path) -> None:
    values = frames()
    values[:, 2, 2:4, 3] = 1 + 40 * np.random.default_rng(0).random((12, 2))
    values[0, 2, 2:4, 3] = 0.5
    maps = perfusion_maps(read_series([write_4d(tmp_path / "a.nii.gz", values)]), image_of(tumour()), PerfusionSettings())
    assert maps.fit.arrival_min == pytest.approx(0.75, abs=0.01)


def test_minutes_taken_for_seconds_stop_the_fit(tmp_path: Path) -> None:
    minutes = tuple(time / 60 for time in TIMES_S)
    with pytest.raises(ImageError, match=r"The frames cover 5\.5 s, and nothing washes out in less than 60 s"):
        perfusion_maps(read_series([write_4d(tmp_path / "a.nii.gz")], times_s=minutes), image_of(tumour()), PerfusionSettings())


def test_unknown_times_stop_the_fit_with_the_way_out(tmp_path: Path) -> None:
    series = read_series([write_4d(tmp_path / "a.nii.gz", times=False)])
    with pytest.raises(ImageError, match="column times_s"):
        perfusion_maps(series, image_of(tumour()), PerfusionSettings())


def test_a_voxel_at_the_threshold_is_not_hypoxic() -> None:
    below = np.nextafter(1.56, 0)
    found = hypoxic_fraction(maps_of([1.56, below, 0.0, 3.0]), PerfusionSettings())
    assert found.fraction == 0.5
    assert found.slices["hypoxic"].tolist() == [1, 1]


def test_a_tumour_at_the_cutoff_is_hypoxic() -> None:
    quarter = maps_of([1.0, 2.0, 2.0, 2.0])
    assert hypoxic_fraction(quarter, PerfusionSettings(cutoff=0.25)).hypoxic
    assert not hypoxic_fraction(quarter, PerfusionSettings(cutoff=0.2500001)).hypoxic


def test_invalid_voxels_are_excluded_and_counted() -> None:
    found = hypoxic_fraction(maps_of([1.0] * 5 + [2.0] * 14 + [np.nan]), PerfusionSettings())
    assert found.fraction == pytest.approx(5 / 19)
    assert (found.voxels, found.invalid) == (20, 1)
    assert found.slices.to_dict("list") == {
        "slice": [0, 2],
        "voxels": [10, 10],
        "valid": [10, 9],
        "hypoxic": [5, 0],
        "fraction": [0.5, 0.0],
    }


def test_a_tumour_with_too_many_invalid_voxels_has_failed() -> None:
    tenth = maps_of([np.nan] + [2.0] * 9)
    assert hypoxic_fraction(tenth, PerfusionSettings()).fraction == 0
    with pytest.raises(ImageError, match=r"2 of 10 voxels of the tumour \(20 %\).*more than 10 %"):
        hypoxic_fraction(maps_of([np.nan, np.nan] + [2.0] * 8), PerfusionSettings())
    with pytest.raises(ImageError, match="4 of 4 voxels"):
        hypoxic_fraction(maps_of([np.nan] * 4), PerfusionSettings(most_invalid=0.999))


def test_slices_pool_to_the_fraction_of_the_tumour(tmp_path: Path) -> None:
    series = read_series([write_4d(tmp_path / "a.nii.gz")])
    found = hypoxic_fraction(perfusion_maps(series, image_of(tumour()), PerfusionSettings()), PerfusionSettings())
    assert found.slices["slice"].tolist() == [1, 2, 3]
    assert found.slices["fraction"].tolist() == [1, 0, 0]
    assert found.fraction == pytest.approx(1 / 3)
    assert found.slices["hypoxic"].sum() / found.slices["valid"].sum() == found.fraction


def test_published_cutoffs_are_warned_about_with_their_source() -> None:
    both, one, own = (
        PerfusionSettings().warning,
        PerfusionSettings(cutoff=0.3).warning,
        PerfusionSettings(threshold=1.2, cutoff=0.3).warning,
    )
    assert "tuned on outcome in the paper's own patients" in both and "doi:10.1016/j.ebiom.2020.102841" in both
    assert "1.56" in both and "0.27" in both
    assert "1.56" in one and "0.3 of" not in one
    assert "doi" not in own and "1.2" in own


# Percent enhancement and signal-enhancement ratio


def test_guards_of_the_ratio() -> None:
    before, early, late = np.array([50.0, 50, 50, 0, 50]), np.array([85.0, 84, 90, 10, 90]), np.array([75.0, 75, 50, 10, 130])
    assert signal_enhancement_ratio(before, early, late).tolist() == pytest.approx(
        [1.4, np.nan, np.nan, np.nan, 0.5], nan_ok=True
    )


def ucsf(data: Path, name: str) -> np.ndarray:
    path = data / "mri_dce_ucsf_breast" / f"UCSF-BR-06_{name}.nii.gz"
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(float)


def test_percent_enhancement_is_that_of_the_ucsf_map(data: Path) -> None:
    before, early, shipped = ucsf(data, "dce_phase0"), ucsf(data, "dce_phase1"), ucsf(data, "pe1")
    ours = percent_enhancement(before, early, minimum_signal=35)  # below 35 the shipped map is 0: background of this patient
    convention = np.nan_to_num(np.floor(np.maximum(ours, 0) + 1e-9))  # whole percent cut off, losses of signal are 0
    assert (shipped > 0).sum() == 151_027
    assert (convention == shipped).all()  # all 3,932,160 voxels


def test_the_enhancement_ratio_is_that_of_the_ucsf_map(data: Path) -> None:
    before, early, late, shipped = (ucsf(data, name) for name in ("dce_phase0", "dce_phase1", "dce_phase2", "ser"))
    ours = signal_enhancement_ratio(before, early, late, minimum_signal=35)
    convention = np.nan_to_num(np.minimum(np.floor(ours), 3))  # whole numbers up to 3
    there = shipped > 0
    assert there.sum() == 27_032
    assert (convention[there] == shipped[there]).all()
    assert np.isfinite(ours).sum() == 42_715
    assert (convention != shipped).sum() == 275  # of all voxels: ratios of 1 and more that the shipped map leaves out


# The study


def test_all_series_of_a_manifest_become_a_table_with_maps_and_pictures(manifest: Path, tmp_path: Path) -> None:
    loaded, cases = load_series_manifest(manifest)
    table = run_perfusion(loaded, cases, PerfusionSettings(), tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out" / "perfusion.csv", dtype={"sample": str, "patient": str}).set_index("sample")
    assert rows["patient"].to_dict() == {"p1": "007", "p2": "008", "p3": "009"}
    assert rows.loc["p1", "DCE_hypoxic_fraction"] == pytest.approx(1 / 3)
    assert rows["DCE_hypoxic"].tolist()[:2] == [1, 0]
    assert rows.loc["p2", "DCE_ABrix_median"] == pytest.approx(4, rel=1e-3)
    assert rows.loc["p1", "DCE_arrival_min"] == pytest.approx(0.75, abs=0.01)
    assert rows.loc["p1", ["DCE_voxels", "DCE_invalid_voxels"]].tolist() == [108, 0]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "perfusion.parquet").set_index("sample"), table.rows)
    assert table.slices.groupby("sample").size().to_dict() == {"p1": 3, "p2": 3}
    written = sorted(path.name for path in (tmp_path / "out" / "maps").iterdir())
    assert written == sorted(
        f"{sample}_DCE_{what}.nii.gz" for sample in ("p1", "p2") for what in ("ABrix", "flags", "kel", "kep", "r2")
    )
    pictures = sorted((tmp_path / "out" / "pictures").iterdir())
    assert [path.name for path in pictures] == ["p1_DCE.png", "p2_DCE.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    record = json.loads((tmp_path / "out" / "perfusion.json").read_text())
    assert record["settings"]["perfusion"]["threshold"] == 1.56 and record["settings"]["flags"] == FLAGS
    assert "tuned on outcome" in record["settings"]["warning"]
    assert [one["name"] for one in record["columns"]] == list(table.rows.columns[1:])


def test_the_table_says_how_it_was_made_and_which_columns_are_no_biomarkers(manifest: Path, tmp_path: Path) -> None:
    run_perfusion(*load_series_manifest(manifest), PerfusionSettings(), tmp_path / "out")
    record = read_record(tmp_path / "out" / "perfusion.csv")
    assert record is not None and is_as_written(tmp_path / "out" / "perfusion.csv", record)
    assert record.patient == "patient" and record.failures == 1  # the broken file; three phases have values
    barred = {name.removeprefix("DCE_") for name, column in record.described.items() if column.family in BARRED}
    assert barred == {"voxels", "arrival_min", *(f"{flag}_voxels" for flag in FLAGS)}
    assert record.described["DCE_kep_median"].unit == "1/min"
    run_perfusion(*load_series_manifest(manifest), PerfusionSettings(threshold=2), tmp_path / "other")
    other = read_record(tmp_path / "other" / "perfusion.csv")
    assert other is not None and other.settings_hash != record.settings_hash and other.manifest_hash == record.manifest_hash


def test_three_phases_give_enhancement_and_the_reason_for_no_fit(manifest: Path) -> None:
    case = load_series_manifest(manifest)[1][2]
    found = measure_series(case, PerfusionSettings())
    assert found.maps is None and "hypoxic_fraction" not in found.values
    assert found.failure is not None and "three.nii.gz: The series has 3 frames" in found.failure
    early, late = (frames()[number][tumour() != 0] / S0 - 1 for number in (4, 11))
    assert found.values["percent_enhancement_median"] == pytest.approx(100 * np.median(early))
    assert found.values["SER_median"] == pytest.approx(np.median(early / late))


def test_each_failure_is_listed_and_the_rest_goes_on(manifest: Path, tmp_path: Path) -> None:
    run_perfusion(*load_series_manifest(manifest), PerfusionSettings(), tmp_path / "out")
    failures = pd.read_csv(tmp_path / "out" / "failures.csv")
    assert failures["sample"].tolist() == ["p3", "p4"]
    assert failures["file"].tolist() == ["three.nii.gz", "broken.nii.gz"]
    assert failures["reason"].str.contains("percent enhancement|damaged|cannot be read").all()


def test_a_mask_in_background_fails_the_case(manifest: Path, tmp_path: Path) -> None:
    dark = frames()
    dark[:, :2] = 0
    write_4d(tmp_path / "a.nii.gz", dark)
    found = measure_series(load_series_manifest(manifest)[1][0], PerfusionSettings())
    assert found.failure is not None and "36 of 108 voxels of the tumour (33 %) have no signal before contrast" in found.failure
    assert found.values == {}


def test_dicom_and_nifti_of_one_series_give_the_same_fractions(manifest: Path, tmp_path: Path) -> None:
    whole = np.round(2 * frames()) / 2
    write_4d(tmp_path / "a.nii.gz", whole)
    write_dicom(tmp_path / "dce", whole, stamp_trigger)
    (tmp_path / "dicom.csv").write_text("sample,sequence,image,mask\np1,DCE,dce,mask.nii.gz\n")
    values = [
        measure_series(load_series_manifest(path)[1][0], PerfusionSettings()).values
        for path in (manifest, tmp_path / "dicom.csv")
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_a_study_of_which_every_case_fails_leaves_an_empty_table_and_the_reasons(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("sample,sequence,image,mask\np4,DCE,broken.nii.gz,mask.nii.gz\np5,DCE,absent.nii.gz,\n")
    table = run_perfusion(*load_series_manifest(tmp_path / "m.csv"), PerfusionSettings(), tmp_path / "out")
    assert len(table.rows) == 0 and len(pd.read_parquet(tmp_path / "out" / "perfusion.parquet")) == 0
    assert table.failures["sample"].tolist() == ["p4", "p5"] and table.record.failures == 2
    assert "absent.nii.gz is not there" in table.failures["reason"][1]


def test_a_case_without_a_mask_says_so(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("sample,sequence,image\np1,DCE,a.nii.gz\n")
    found = measure_series(load_series_manifest(tmp_path / "m.csv")[1][0], PerfusionSettings())
    assert found.failure == "a.nii.gz has no mask; name that of the tumour in the manifest."


def test_values_that_are_no_numbers_are_counted_and_do_no_harm_elsewhere(manifest: Path, tmp_path: Path) -> None:
    values = frames(np.full(SHAPE, 4.0))
    values[:, 3, 0], values[-1, 0, 9] = np.nan, np.inf  # outside of the tumour
    values[5, 2, 4, 4] = np.nan
    write_4d(tmp_path / "b.nrrd", values)
    found = measure_series(load_series_manifest(manifest)[1][1], PerfusionSettings())
    assert found.failure is None and found.picture.startswith(b"\x89PNG")
    assert (found.values["invalid_voxels"], found.values["hypoxic_fraction"]) == (1, 0)


def test_a_nifti_file_with_values_that_are_no_numbers_is_refused_not_read_as_zeros(manifest: Path, tmp_path: Path) -> None:
    values = frames()
    values[5, 2, 4, 4] = np.nan  # for which ITK gives 0
    write_4d(tmp_path / "a.nii.gz", values)
    found = measure_series(load_series_manifest(manifest)[1][0], PerfusionSettings())
    assert found.failure is not None and "1 voxels that are no finite number" in found.failure


def test_times_may_stand_in_the_manifest(tmp_path: Path) -> None:
    names = [f"{number}.nii.gz" for number in range(12)]
    for name, values in zip(names, frames(), strict=True):
        sitk.WriteImage(image_of(values), str(tmp_path / name))
    sitk.WriteImage(image_of(tumour()), str(tmp_path / "mask.nii.gz"))
    times = ";".join(f"{time:g}" for time in TIMES_S)
    path = tmp_path / "series.csv"
    path.write_text(f"sample,sequence,times_s,image,mask\np1,perf,{times},{';'.join(names)},mask.nii.gz\n")
    loaded, (case,) = load_series_manifest(path)
    assert loaded.folder == tmp_path and case.entry.times_s == TIMES_S and len(case.images) == 12
    assert measure_series(case, PerfusionSettings()).values["hypoxic_fraction"] == pytest.approx(1 / 3)
    path.write_text(f"sample,sequence,times_s,image,mask\np1,perf,soon,{';'.join(names)},mask.nii.gz\n")
    with pytest.raises(InputError, match="line 2 has 'soon' as times_s"):
        load_series_manifest(path)


def test_a_manifest_without_contrast_series_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("sample,sequence,image\np1,T2,a.nii\np1,dce1,b.nii\n")
    with pytest.raises(InputError, match="no sequence 'DCE' but T2, dce1; name the contrast series with --sequence"):
        load_series_manifest(path)
    with pytest.raises(InputError, match="did you mean 'dce1'"):
        load_series_manifest(path, "dce")
    assert len(load_series_manifest(path, "dce1")[1]) == 1


# The command


def test_the_command_says_what_it_found_and_fails_only_when_strict(manifest: Path, tmp_path: Path) -> None:
    asked = [str(manifest), "--output", str(tmp_path / "out"), "--json"]
    result = CliRunner().invoke(perfusion, asked)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert [row["sample"] for row in told["rows"]] == ["p1", "p2", "p3"]
    assert told["rows"][2]["DCE_hypoxic_fraction"] is None
    assert len(told["failures"]) == 2
    assert "hypoxic fraction 0.333 of 108 voxels, called more hypoxic" in result.stderr
    assert "tuned on outcome" in result.stderr
    assert CliRunner().invoke(perfusion, [*asked, "--strict"]).exit_code == 1


def test_the_command_takes_the_settings(manifest: Path, tmp_path: Path) -> None:
    asked = [str(manifest), "--output", str(tmp_path / "out"), "--json", "--threshold", "2.5", "--cutoff", "0.7"]
    told = json.loads(CliRunner().invoke(perfusion, [*asked, "--baseline-frames", "2", "--arrival", "0.75"]).stdout)
    assert told["rows"][0]["DCE_hypoxic_fraction"] == pytest.approx(2 / 3)
    assert told["rows"][0]["DCE_hypoxic"] == 0
    assert told["settings"]["brix"]["baseline_frames"] == 2
    assert told["warnings"] == [PerfusionSettings(threshold=2.5, cutoff=0.7).warning]


@pytest.mark.parametrize(
    ("given", "said"),
    [(["--threshold", "-1"], "--threshold cannot be -1.0"), (["--infusion-min", "2"], "add --form infusion")],
)
def test_a_setting_that_cannot_be_is_a_sentence(manifest: Path, tmp_path: Path, given: list[str], said: str) -> None:
    result = CliRunner().invoke(perfusion, [str(manifest), "--output", str(tmp_path / "out"), *given])
    assert isinstance(result.exception, InputError) and said in str(result.exception)


def test_nothing_of_a_patient_leaves_the_headers(tmp_path: Path) -> None:
    write_dicom(tmp_path / "dce", frames(), stamp_position)
    sitk.WriteImage(image_of(tumour()), str(tmp_path / "mask.nii.gz"))
    (tmp_path / "m.csv").write_text("sample,sequence,image,mask\np1,DCE,dce,mask.nii.gz\n")
    run_perfusion(*load_series_manifest(tmp_path / "m.csv"), PerfusionSettings(), tmp_path / "out")
    uid = pydicom.dcmread(next((tmp_path / "dce").iterdir())).SeriesInstanceUID.encode()
    for path in (tmp_path / "out").rglob("*.*"):
        assert b"Secret" not in path.read_bytes() and uid not in path.read_bytes()
