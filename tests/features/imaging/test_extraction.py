"""Extraction of a whole manifest: nothing twice, nothing lost, one bad case alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import KilledWorker
from imaging_cohort import SHAPE, imaging_cohort, region, scheduler_of_this_process, write

from features.cohort import CohortSettings, load_cohort, load_sequences
from features.errors import InputError
from features.extracted import is_as_written, read_record
from features.imaging import extraction as module
from features.imaging.case import Case, Measured
from features.imaging.extraction import Done, Extracted, extract
from features.imaging.manifest import load_manifest
from features.imaging.planning import plan_cases, prepare
from features.imaging.profiles import find_profile
from features.imaging.settings import Extraction, MaskSettings
from features.imaging.source import ImageSource
from features.imaging.tables import write_tables
from training.cli_extract import images_of

IBSI = Extraction(profile=find_profile("ibsi", Path()))
KEEP = MaskSettings(disconnected="keep")
HALLE = Extraction(profile=find_profile("halle2024", Path()))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Workers of this process, so that the tests need not wait for new ones every time."""
    with scheduler_of_this_process() as address:
        yield address


def run(
    manifest: Path, scheduler: str, extraction: Extraction = IBSI, on_done: Callable[[Done], None] = lambda done: None
) -> Extracted:
    read = load_manifest(manifest)
    output = manifest.parent / "extracted"
    found = extract(read, extraction, output / "measured", scheduler=scheduler, on_done=on_done)
    write_tables(found, read, extraction, output)
    return found


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "extracted").glob("*.csv")) if path.name != "timings.csv"}


def test_what_was_measured_is_not_measured_again_wherever_it_lies(tmp_path: Path, scheduler: str) -> None:
    first = run(imaging_cohort(tmp_path / "here", 3), scheduler)
    assert (first.recalled, first.failures) == (0, ())
    again = run(tmp_path / "here" / "manifest.csv", scheduler)
    assert again.recalled == 3
    before = tables(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert run(tmp_path / "there" / "manifest.csv", scheduler).recalled == 3
    assert tables(tmp_path / "there") == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: write(folder / "s001_T2.nii.gz", np.random.default_rng(9).normal(size=SHAPE) + 5),
        lambda folder: write(folder / "s001_mask.nii.gz", np.roll(region(), 1, axis=2)),
    ],
    ids=["image", "mask"],
)
def test_what_changed_is_measured_again_and_nothing_else(
    tmp_path: Path, scheduler: str, change: Callable[[Path], object]
) -> None:
    manifest = imaging_cohort(tmp_path, 3)
    run(manifest, scheduler)
    change(tmp_path)
    seen: list[Done] = []
    run(manifest, scheduler, on_done=seen.append)
    assert [done.case.sample for done in seen if not done.kept] == ["s001"]
    assert [done.finished for done in seen] == [1, 2, 3]


def test_a_run_in_which_nothing_changed_is_known_as_one_until_a_file_is_touched(tmp_path: Path, scheduler: str) -> None:
    manifest, output = load_manifest(imaging_cohort(tmp_path, 2)), tmp_path / "extracted"
    assert not prepare(manifest, IBSI).is_finished(output)
    prepared = prepare(manifest, IBSI)
    found = extract(manifest, IBSI, output / "measured", scheduler=scheduler, prepared=prepared)
    write_tables(found, manifest, IBSI, output, prepared)
    assert prepare(manifest, IBSI).is_finished(output)
    assert not prepare(manifest, HALLE.model_copy(update={"profile": IBSI.profile, "masks": KEEP})).is_finished(output)
    for touched in (output / "features.csv", output / "features.json", output / "pictures" / "s001_T2.png"):
        before = touched.read_bytes()
        touched.write_bytes(before + b" ")
        assert not prepare(manifest, IBSI).is_finished(output)
        touched.write_bytes(before)
    touched.unlink()
    assert not prepare(manifest, IBSI).is_finished(output)


def test_other_settings_measure_everything_again(tmp_path: Path, scheduler: str) -> None:
    manifest = imaging_cohort(tmp_path, 2)
    run(manifest, scheduler)
    assert run(manifest, scheduler, Extraction(profile=IBSI.profile, masks=KEEP)).recalled == 0


def test_a_kept_measurement_that_is_not_whole_is_made_again(tmp_path: Path, scheduler: str) -> None:
    manifest = imaging_cohort(tmp_path, 2)
    run(manifest, scheduler)
    before = tables(tmp_path)
    kept = sorted((tmp_path / "extracted" / "measured").glob("*.json"))
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    assert run(manifest, scheduler).recalled == 1
    assert tables(tmp_path) == before


def spoil(folder: Path) -> None:
    rows = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    (folder / "s001_T2.nii.gz").write_bytes(b"\x1f\x8b not an image")
    write(folder / "s002_mask.nii.gz", np.zeros(SHAPE, dtype=np.uint8))
    (folder / "s003_T2.nii.gz").unlink()
    write(folder / "s004_mask.nii.gz", region(), spacing=(2.0, 2.0, 3.0))
    nan = np.full(SHAPE, 7.0)
    nan[4, 14, 14] = np.nan
    write(folder / "s005_T2.nii.gz", nan)
    rows.loc[rows["sample"] == "s006", "mask"] = ""
    rows.to_csv(folder / "manifest.csv", index=False)


def test_bad_cases_are_listed_with_file_and_reason_and_the_others_go_on(tmp_path: Path, scheduler: str) -> None:
    manifest = imaging_cohort(tmp_path, 8)
    spoil(tmp_path)
    found = run(manifest, scheduler)
    assert pd.read_csv(tmp_path / "extracted" / "features.csv")["sample"].tolist() == ["s000", "s007"]
    listed = pd.read_csv(tmp_path / "extracted" / "failures.csv").set_index("sample")
    files = ["s001_T2", "s002_mask", "s003_T2", "s004_mask", "s005_T2", "s006_T2"]
    assert listed["file"].tolist() == [f"{name}.nii.gz" for name in files]
    for words, reason in zip(
        ("damaged", "empty", "not there", "grid", "no finite number", "no mask"), listed["reason"], strict=True
    ):
        assert words in reason
        assert str(tmp_path) not in reason
    assert len(found.failures) == 6


def test_a_kept_failure_names_no_file_of_another_case(tmp_path: Path, scheduler: str) -> None:
    manifest = imaging_cohort(tmp_path, 2)
    write(tmp_path / "s001_mask.nii.gz", np.zeros(SHAPE, dtype=np.uint8))
    (one,) = run(manifest, scheduler).failures
    rows = manifest.read_text().replace("s001_mask", "renamed")
    manifest.write_text(rows)
    (tmp_path / "s001_mask.nii.gz").rename(tmp_path / "renamed.nii.gz")
    (other,) = run(manifest, scheduler).failures
    assert (one.file, other.file) == ("s001_mask.nii.gz", "renamed.nii.gz")
    assert "s001_mask" not in other.reason


def test_a_missing_sequence_is_a_failure_of_that_sample(tmp_path: Path, scheduler: str) -> None:
    manifest = imaging_cohort(tmp_path, 3, ("T2w", "DWI", "ADC"))
    rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    rows[~((rows["sample"] == "s001") & (rows["sequence"] == "ADC"))].to_csv(manifest, index=False)
    joint = run(manifest, scheduler, HALLE)
    assert [(one.sample, "ADC" in one.reason) for one in joint.failures] == [("s001", True)]
    each = run(manifest, scheduler)
    assert [(one.sample, one.sequence) for one in each.failures] == [("s001", "ADC")]
    frame = pd.read_csv(tmp_path / "extracted" / "features.csv", index_col="sample")
    assert frame.loc["s001"].filter(like="ADC_").isna().all()
    assert frame.loc["s001"].filter(like="DWI_").notna().all()


def test_a_joint_profile_gives_one_table_of_its_columns_and_the_others_one_of_each_sequence(
    tmp_path: Path, scheduler: str
) -> None:
    manifest = imaging_cohort(tmp_path, 2, ("T2", "b800", "ADC"))
    run(manifest, scheduler, HALLE)
    frame = pd.read_csv(tmp_path / "extracted" / "features.csv")
    assert frame.shape[1] - 2 == 293  # Halle et al. 2024, doi:10.1016/j.radonc.2024.110271
    assert not (tmp_path / "extracted" / "ADC.csv").exists()
    run(manifest, scheduler)
    names = [name for name in pd.read_csv(tmp_path / "extracted" / "b800.csv").columns if name not in ("sample", "patient")]
    assert names == [feature.name for feature in IBSI.profile.features(["b800"])]


def test_the_record_says_what_every_column_is_and_whether_the_table_was_changed(tmp_path: Path, scheduler: str) -> None:
    run(imaging_cohort(tmp_path, 2), scheduler)
    for name in ("features.csv", "features.parquet"):
        table = tmp_path / "extracted" / name
        record = read_record(table)
        assert record is not None
        assert (record.settings_hash, record.patient, record.failures) == (IBSI.hash, "patient", 0)
        assert is_as_written(table, record)
        table.write_bytes(table.read_bytes() + b" ")
        assert not is_as_written(table, record)
    entropy = record.described["T2_original_firstorder_Entropy"]
    assert (entropy.sequence, entropy.family, entropy.reference) == ("T2", "firstorder", "IBSI:TLU2")  # IBSI reference manual


def test_pictures_show_every_case_that_was_measured(tmp_path: Path, scheduler: str) -> None:
    run(imaging_cohort(tmp_path, 2, ("T2", "DWI", "ADC")), scheduler, HALLE)
    pictures = sorted((tmp_path / "extracted" / "pictures").iterdir())
    assert [path.name for path in pictures] == ["s000_T2_DWI_ADC.png", "s001_T2_DWI_ADC.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_names_that_files_cannot_have_keep_their_pictures_apart(tmp_path: Path, scheduler: str) -> None:
    manifest = imaging_cohort(tmp_path, 3)
    rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    rows.assign(sample=["a b", "a-b", "a\u00e4b"]).to_csv(manifest, index=False)
    run(manifest, scheduler)
    assert len(list((tmp_path / "extracted" / "pictures").iterdir())) == 3


def test_a_disk_that_is_full_is_named(tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(memory: Path, key: str, measured: Measured) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_keep", full)
    with pytest.raises(InputError, match="cannot be written to \\(No space left on device\\); make room"):
        run(imaging_cohort(tmp_path, 1), scheduler)


class _Failed:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def exception(self) -> Exception:
        return self._error


def test_what_nobody_foresaw_fails_alone_and_is_not_kept(tmp_path: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(case: Case, profile: object, masks: object) -> Measured:
        raise ZeroDivisionError("deep in a library")

    manifest = imaging_cohort(tmp_path, 2)
    monkeypatch.setattr(module, "measure_case", breaks)
    reasons = [one.reason for one in run(manifest, scheduler).failures]
    assert reasons == ["Not foreseen: ZeroDivisionError: deep in a library"] * 2
    monkeypatch.undo()
    assert run(manifest, scheduler).recalled == 0
    for error in (KilledWorker("task", None, 1), MemoryError()):
        failed = module._result(_Failed(error))  # type: ignore[arg-type]
        assert failed.transient
        assert "not enough memory" in str(failed.failure)


def test_an_absent_scheduler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 1)
    with pytest.raises(InputError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        run(imaging_cohort(tmp_path, 1), "tcp://127.0.0.1:1")


def test_an_unknown_sequence_is_named(tmp_path: Path) -> None:
    manifest = load_manifest(imaging_cohort(tmp_path, 1))
    with pytest.raises(InputError, match="Sequence 'T1' is not in the manifest"):
        plan_cases(manifest, Extraction(profile=IBSI.profile, sequences=("T1",)))


def settings(**changes: object) -> CohortSettings:
    source = {"kind": "images", "manifest": "manifest.csv", "profile": "ibsi", "table": "outcomes.csv"}
    return CohortSettings.model_validate({"source": {**source, **changes}, "endpoint": {"kind": "binary", "column": "hypoxic"}})


def test_a_study_reads_its_images_with_their_patients_and_hash_and_bars_what_is_no_feature(
    tmp_path: Path, scheduler: str
) -> None:
    manifest = imaging_cohort(tmp_path, 4)
    rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    rows.assign(patient=["007", "007", "7", "8"]).to_csv(manifest, index=False)
    run(manifest, scheduler)
    cohort = load_cohort(settings(), tmp_path)
    assert cohort.patients.tolist() == ["007", "007", "7", "8"]
    assert cohort.extraction_hash == IBSI.hash
    assert [feature.name for feature in cohort.table.schema.features] == [one.name for one in IBSI.profile.features(["T2"])]
    assert cohort.table.schema.features == IBSI.profile.features(["T2"])


@pytest.mark.parametrize("sequences", [("T2",), ("T2", "ADC")])
def test_each_sequence_of_the_images_may_have_a_model_of_its_own(
    tmp_path: Path, scheduler: str, sequences: tuple[str, ...]
) -> None:
    run(imaging_cohort(tmp_path, 4, sequences), scheduler)
    each = settings().model_dump() | {"sequences": {name.lower(): name for name in sequences}}
    cohorts = load_sequences(CohortSettings.model_validate(each), tmp_path)
    for name in sequences:
        cohort = cohorts[name.lower()]
        assert list(cohort.features.columns) == [feature.name for feature in IBSI.profile.features([name])]
        assert cohort.extraction_hash == IBSI.hash


def test_a_joint_profile_has_no_model_of_each_sequence(tmp_path: Path) -> None:
    each = settings(profile="halle2024").model_dump() | {"sequences": {"adc": "ADC"}}
    with pytest.raises(InputError, match="halle2024 measures its sequences together"):
        load_sequences(CohortSettings.model_validate(each), tmp_path)


def test_outcomes_may_say_whose_a_sample_is_in_a_column_of_their_own_or_in_the_same(tmp_path: Path, scheduler: str) -> None:
    run(imaging_cohort(tmp_path, 4), scheduler)
    outcomes = pd.read_csv(tmp_path / "outcomes.csv")
    outcomes.assign(PatientID=["007", "007", "7", "8"]).to_csv(tmp_path / "outcomes.csv", index=False)
    own = settings().model_copy(update={"patient": "PatientID"})
    assert load_cohort(own, tmp_path).patients.tolist() == ["007", "007", "7", "8"]
    outcomes.assign(patient=["p000", "p001", "p002", "p003"]).to_csv(tmp_path / "outcomes.csv", index=False)
    assert load_cohort(settings(), tmp_path).patients.tolist() == ["p000", "p001", "p002", "p003"]
    outcomes.assign(patient=["p000", "p000", "p002", "p003"]).to_csv(tmp_path / "outcomes.csv", index=False)
    with pytest.raises(InputError, match="Sample 's001' is of another patient in the tables of"):
        load_cohort(settings(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"profile": "full"}, "with other settings"),
        ({"masks": {"one_slice": "keep"}}, "with other settings"),
        ({"output": "x"}, "not extracted yet"),
    ],
)
def test_features_of_other_settings_are_not_taken_for_these(
    tmp_path: Path, scheduler: str, changes: dict[str, object], words: str
) -> None:
    run(imaging_cohort(tmp_path, 2), scheduler)
    with pytest.raises(InputError, match=words):
        load_cohort(settings(**changes), tmp_path)


def test_features_of_another_manifest_are_not_taken_for_these(tmp_path: Path, scheduler: str) -> None:
    run(imaging_cohort(tmp_path, 2), scheduler)
    imaging_cohort(tmp_path, 3)
    with pytest.raises(InputError, match="another manifest"):
        ImageSource(manifest="manifest.csv", profile="ibsi").read(tmp_path)


def test_tables_of_two_extractions_are_joined_by_samples_whose_patients_they_agree_on(tmp_path: Path, scheduler: str) -> None:
    manifest = imaging_cohort(tmp_path, 4, ("T2", "ADC"))
    run(manifest, scheduler)
    read = load_manifest(manifest)
    other = Extraction(profile=IBSI.profile, masks=KEEP, sequences=("ADC",))
    write_tables(extract(read, other, tmp_path / "m", scheduler=scheduler), read, other, tmp_path / "other")
    paths = ["extracted/T2.csv", "other/features.csv", "outcomes.csv"]
    source = {"kind": "table", "path": paths, "sample": "sample"}
    both = CohortSettings.model_validate({"source": source, "endpoint": {"kind": "binary", "column": "hypoxic"}})
    cohort = load_cohort(both, tmp_path)
    assert cohort.features.shape == (4, 2 * len(IBSI.profile.features(["T2"])))
    assert cohort.extraction_hash not in (None, IBSI.hash, other.hash)
    table = tmp_path / "other" / "features.csv"
    table.write_text(table.read_text().replace("p001", "p999"))
    with pytest.raises(InputError, match=r"Sample .s001. is of another patient in other/features\.csv"):
        load_cohort(both, tmp_path)


def test_diagnostics_are_no_features_in_a_table_without_its_record_either(tmp_path: Path, scheduler: str) -> None:
    profile = find_profile("bodalal4032a", tmp_path).model_copy(update={"minimum_voxels": 2, "columns": ()})
    coarse = profile.model_copy(update={"resolutions": profile.resolutions[:1], "images": profile.images[:1]})
    run(imaging_cohort(tmp_path, 4), scheduler, Extraction(profile=coarse))
    table = pd.read_csv(tmp_path / "extracted" / "features.csv")
    assert table.columns.str.contains("diagnostics_").any()
    table.merge(pd.read_csv(tmp_path / "outcomes.csv")).to_csv(tmp_path / "merged.csv", index=False)
    source = {"kind": "table", "path": "merged.csv", "sample": "sample"}
    merged = {"source": source, "endpoint": {"kind": "binary", "column": "hypoxic"}, "patient": "patient"}
    cohort = load_cohort(CohortSettings.model_validate(merged), tmp_path)
    assert not cohort.features.columns.str.contains("diagnostics").any()
    assert any("diagnostics columns" in note for note in cohort.notes)


def test_masks_of_a_manifest_are_treated_as_a_study_would_say() -> None:
    images, _, _ = images_of(Path("m.csv"), "ibsi", None, (), ("disconnected=largest", "minimum_voxels=5"))
    assert images.masks == MaskSettings(disconnected="largest", minimum_voxels=5)
    with pytest.raises(InputError, match="--masks disconnected=some is not possible"):
        images_of(Path("m.csv"), "ibsi", None, (), ("disconnected=some",))


def command(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "features.cli", "extract", str(folder / "manifest.csv"), "--profile", "ibsi", *options]


def test_killed_in_the_middle_and_started_again_the_tables_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    imaging_cohort(tmp_path / "killed", 10)
    shutil.copytree(tmp_path / "killed", tmp_path / "undisturbed")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    running = subprocess.Popen(command(tmp_path / "killed"), start_new_session=True, **quiet)  # type: ignore[call-overload]
    measured = tmp_path / "killed" / "extracted" / "measured"
    deadline = time.monotonic() + 120
    while len(list(measured.glob("*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = len(list(measured.glob("*.json")))
    assert 2 <= kept < 10
    assert not (tmp_path / "killed" / "extracted" / "features.csv").exists()
    done = subprocess.run([*command(tmp_path / "killed"), "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["measured_before"] == kept
    subprocess.run([*command(tmp_path / "undisturbed"), "--workers", "1"], check=True, **quiet)  # type: ignore[call-overload]
    assert tables(tmp_path / "killed") == tables(tmp_path / "undisturbed")


def test_the_exit_code_tells_of_failures_only_when_it_is_asked_to(tmp_path: Path) -> None:
    imaging_cohort(tmp_path, 2)
    (tmp_path / "s001_T2.nii.gz").unlink()
    lenient = subprocess.run([*command(tmp_path), "--json"], capture_output=True, text=True, check=False)
    strict = subprocess.run([*command(tmp_path, "--strict")], capture_output=True, text=True, check=False)
    assert (lenient.returncode, strict.returncode) == (0, 1)
    assert [one["file"] for one in json.loads(lenient.stdout)["failures"]] == ["s001_T2.nii.gz"]
    assert "s001" in strict.stderr
