"""`hypoxia robustness`: tables of the same samples, and cases measured again with perturbed masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result
from imaging_cohort import imaging_cohort, scheduler_of_this_process, write_imaging_study

from features.cli import hypoxia
from features.errors import InputError
from features.extracted import ExtractionRecord, record_path
from features.feature import Feature
from features.robustness import RobustFilter, robustness_table
from training.remeasuring import compare_tables
from training.remeasuring_report import reached

# Six targets, four judges: Shrout & Fleiss 1979, doi:10.1037/0033-2909.86.2.420, table 2.
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)
COLUMNS = (
    Feature(name="T2_original_glcm_Contrast", sequence="T2", family="glcm"),
    Feature(name="T2_original_shape_Volume", sequence="T2", family="shape"),
    Feature(name="T2_diagnostics_Voxels", sequence="T2", family="diagnostics"),
    Feature(name="T2_echo_time_ms", sequence="T2", family="acquisition"),
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(hypoxia, ["robustness", *map(str, arguments)])


def refused(*arguments: object) -> str:
    answer = run(*arguments)
    assert isinstance(answer.exception, InputError), answer.output
    return str(answer.exception)


def extracted(path: Path, frame: pd.DataFrame, settings_hash: str = "ab" * 32) -> Path:
    """A table with the record that an extraction leaves beside it."""
    path.parent.mkdir(exist_ok=True)
    frame.to_csv(path, index_label="sample")
    record = ExtractionRecord(
        profile="made-up",
        settings_hash=settings_hash,
        settings={},
        manifest_hash="cd" * 32,
        created="2026-01-01T00:00:00Z",
        versions={},
        columns=COLUMNS,
        files={path.name: hashlib.sha256(path.read_bytes()).hexdigest()},
    )
    record_path(path).write_text(record.model_dump_json(), encoding="utf-8")
    return path


def two_readers(folder: Path, noise: float = 0.1, samples: int = 20) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(samples, 2))
    index = [f"{number:03d}" for number in range(samples)]
    first, second = (
        pd.DataFrame(truth + rng.normal(size=truth.shape) * [3, noise], index=index, columns=[one.name for one in COLUMNS[:2]])
        for _ in range(2)
    )
    rest: dict[str, Any] = {
        "T2_diagnostics_Voxels": 7,
        "T2_echo_time_ms": 80.0,
        "patient": index,
        "remark": "x",
        "age": range(20),
    }
    return first.assign(**rest), second.assign(**rest)


def test_four_judges_of_shrout_and_fleiss_get_their_correlations(tmp_path: Path) -> None:
    paths = [tmp_path / f"judge-{number}.csv" for number in range(4)]
    for path, column in zip(paths, SHROUT_FLEISS.T, strict=True):
        pd.DataFrame({"target": range(6), "score": column}).to_csv(path, index=False)
    answer = run(*paths, "--sample", "target", "--output", tmp_path / "robustness.csv", "--json")
    assert answer.exit_code == 0, answer.output
    [row] = pd.read_csv(tmp_path / "robustness.csv").to_dict("records")
    assert (row["feature"], row["n"]) == ("score", 6)
    assert row["icc_2_1"] == pytest.approx(0.29, abs=0.005)  # Shrout & Fleiss 1979, table 4
    assert row["icc_3_1"] == pytest.approx(0.71, abs=0.006)  # the same
    assert (row["lower_2_1"], row["upper_2_1"]) == pytest.approx((0.019, 0.761), abs=0.001)  # McGraw & Wong; R psych ICC
    told = json.loads(answer.stdout)
    assert (told["features"], told["samples"], told["settings_hash"], len(told["tables"])) == (1, 6, None, 4)


def test_the_record_tells_sequence_and_family_and_what_is_no_biomarker(tmp_path: Path) -> None:
    first, second = two_readers(tmp_path)
    paths = extracted(tmp_path / "first" / "features.csv", first), extracted(tmp_path / "second" / "features.csv", second)
    found = compare_tables(paths)
    names = [column.name for column in COLUMNS[:2]]
    assert found.table[["feature", "sequence", "family"]].to_numpy().tolist() == [
        [names[0], "T2", "glcm"],
        [names[1], "T2", "shape"],
    ]
    expected = robustness_table([first[names], second[names]])
    numbers = [name for name in expected.columns if name != "feature"]
    pd.testing.assert_frame_equal(found.table[numbers], expected[numbers])
    assert found.settings_hash == "ab" * 32
    assert found.notes == ()


def test_features_that_reach_are_counted_by_family_and_the_least_robust_are_named(tmp_path: Path) -> None:
    first, second = two_readers(tmp_path)
    paths = extracted(tmp_path / "first" / "features.csv", first), extracted(tmp_path / "second" / "features.csv", second)
    counts = reached(compare_tables(paths).table)
    assert counts.loc["glcm"].tolist() == [1, 0, 0, 0, 0]
    assert counts.loc["shape"].tolist() == [1, 1, 1, 1, 1]
    assert counts.loc["all"].tolist() == [2, 1, 1, 1, 1]
    answer = run(*paths, "--output", tmp_path / "robustness.csv", "--picture", tmp_path / "robustness.png")
    assert answer.exit_code == 0, answer.output
    assert "2 features, 2 measurements of 20 samples" in answer.stderr
    assert "Least robust: T2_original_glcm_Contrast" in answer.stderr
    assert answer.stdout == ""
    assert (tmp_path / "robustness.png").read_bytes().startswith(b"\x89PNG")


def test_tables_of_different_settings_are_refused(tmp_path: Path) -> None:
    first, second = two_readers(tmp_path)
    paths = extracted(tmp_path / "1" / "a.csv", first), extracted(tmp_path / "2" / "a.csv", second, settings_hash="ef" * 32)
    assert "extracted with different settings (abababababab and efefefefefef)" in refused(*paths)


def test_one_measurement_is_not_compared_with_itself(tmp_path: Path) -> None:
    first, _ = two_readers(tmp_path)
    path = extracted(tmp_path / "1" / "a.csv", first)
    assert "are the same measurement" in refused(path, path)
    first.reset_index(names="sample").to_parquet(path.with_suffix(".parquet"))
    assert "are the same measurement" in refused(path, path.with_suffix(".parquet"))
    assert "two tables or more" in refused(path)


def test_what_looks_wrong_is_said(tmp_path: Path) -> None:
    first, second = two_readers(tmp_path)
    known = extracted(tmp_path / "1" / "a.csv", first)
    known.write_text(known.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    unknown = tmp_path / "b.csv"
    second.drop(columns="age").to_csv(unknown, index_label="sample")
    notes = " ".join(compare_tables([known, unknown]).notes)
    assert "a.csv was changed after" in notes
    assert "b.csv does not say with which settings" in notes
    for frame, name in ((first, "c.csv"), (second, "d.csv")):
        frame.to_csv(tmp_path / name, index_label="sample")
    [equal] = [note for note in compare_tables([tmp_path / "c.csv", tmp_path / "d.csv"]).notes if "the same in all" in note]
    assert equal.startswith("4 columns are the same in all tables (T2_diagnostics_Voxels, T2_echo_time_ms, patient)")


def test_features_without_a_correlation_are_counted_and_null(tmp_path: Path) -> None:
    first, second = (frame.assign(T2_original_glcm_Contrast=1.5) for frame in two_readers(tmp_path))
    paths = extracted(tmp_path / "1" / "a.csv", first), extracted(tmp_path / "2" / "a.csv", second)
    answer = run(*paths, "--output", tmp_path / "robustness.csv", "--picture", tmp_path / "p.png", "--json")
    told = json.loads(answer.stdout)
    assert any("1 features have no correlation (T2_original_glcm_Contrast)" in note for note in told["notes"])
    assert [one["feature"] for one in told["least"]] == ["T2_original_shape_Volume"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.csv", "b.csv", "--shift-voxels", "1"], "--shift-voxels goes with --perturb"),
        (["a.csv", "b.csv", "--sequence", "T2"], "--sequence goes with --perturb"),
        (["a.csv", "--perturb", "study.yaml"], "name either tables"),
        (["--perturb", "manifest.csv"], "say with --profile what to measure"),
        (["--perturb", "m.csv", "--profile", "ibsi", "--shift-voxels", "0", "--turn-degrees", "0", "--volume", "0"], "all 0"),
        (["a.csv", "b.csv", "--picture", "p.pdf"], "no PNG"),
        (["a.csv", "b.csv"], "does not exist"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(arguments: list[str], words: str) -> None:
    assert words in refused(*arguments)


def test_an_absent_sample_column_is_named_by_its_option(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        pd.DataFrame({"Sample": ["x", "y", "z"], "v": [1.0, 2, 3]}).to_csv(tmp_path / name, index=False)
    words = refused(tmp_path / "a.csv", tmp_path / "b.csv")
    assert "Column 'sample' (--sample) is not in" in words
    assert "Sample" in words


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with scheduler_of_this_process() as address:
        yield address


def shapes(folder: Path) -> Path:
    """PyRadiomics parameters that measure little, fast."""
    path = folder / "little.yaml"
    path.write_text(
        yaml.safe_dump(
            {"setting": {"binWidth": 25}, "featureClass": {"firstorder": ["Mean"], "shape": ["Sphericity", "MeshVolume"]}}
        ),
        encoding="utf-8",
    )
    return path


def test_a_study_gets_perturbed_tables_robustness_and_the_lines_to_use_them(tmp_path: Path, scheduler: str) -> None:
    imaging_cohort(tmp_path, 4, ("T2", "ADC"))
    shapes(tmp_path)
    study = write_imaging_study(tmp_path, profile="little.yaml")
    arguments = ("--perturb", study, "--count", 3, "--scheduler", scheduler, "--json")
    answer = run(*arguments)
    assert answer.exit_code == 0, (answer.output, answer.exception)
    told = json.loads(answer.stdout)
    assert (told["measurements"], told["measured_before"], told["failures"]) == (4 * 2 * 3, 0, [])
    folder = tmp_path / "extracted" / "perturbed"
    table = pd.read_csv(folder / "robustness.csv")
    assert set(table["feature"]) == {
        f"{s}_original_{f}" for s in ("T2", "ADC") for f in ("firstorder_Mean", "shape_Sphericity", "shape_MeshVolume")
    }
    assert set(table["family"]) == {"firstorder", "shape"}
    assert (table["n"] == 4).all()

    pasted = yaml.safe_load(answer.stderr[answer.stderr.index("recipe:") :])
    assert pasted == told["study"]
    robust = RobustFilter.model_validate(pasted["recipe"]["robust"]).located(tmp_path)
    features = pd.Index(table["feature"])
    kept = robust.robust(robust.read(), features, pd.Index(["s000", "s001", "s002", "s003"]))
    assert kept.tolist() == table.loc[table["icc_2_1"] >= robust.minimum, "feature"].tolist()
    assert {"T2_original_firstorder_Mean", "ADC_original_firstorder_Mean"} <= set(kept)  # masks move; textures differ by sample

    before = (folder / "robustness.csv").read_bytes()
    assert json.loads(run(*arguments).stdout)["measured_before"] == 24
    assert (folder / "robustness.csv").read_bytes() == before


def test_a_manifest_is_perturbed_with_the_options_of_extraction_and_failures_are_told_once(
    tmp_path: Path, scheduler: str
) -> None:
    manifest = imaging_cohort(tmp_path, 4, ("T2", "ADC"))
    shapes(tmp_path)
    (tmp_path / "s002_T2.nii.gz").write_bytes(b"\x1f\x8b not an image")
    answer = run(
        "--perturb", manifest, "--profile", "little.yaml", "--sequence", "T2", "--output", "out", "--count", 2, "--seed", 3,
        "--turn-degrees", 10, "--scheduler", scheduler, "--json",
    )  # fmt: skip
    assert answer.exit_code == 0, (answer.output, answer.exception)
    told = json.loads(answer.stdout)
    assert [(one["sample"], one["file"], one["masks"]) for one in told["failures"]] == [("s002", "s002_T2.nii.gz", 2)]
    assert (told["samples"], told["perturbation"]["turn_degrees"], told["perturbation"]["seed"]) == (3, 10.0, 3)
    assert sum("s002_T2:" in line for line in answer.stderr.splitlines()) == 1
    assert told["study"]["recipe"]["robust"]["tables"] == [
        "out/perturbed/perturbed-1.parquet",
        "out/perturbed/perturbed-2.parquet",
    ]
    assert str(tmp_path) in told["output"]


def test_too_few_samples_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    manifest = imaging_cohort(tmp_path, 2)
    assert "2 samples, and robustness is judged on 3 or more" in refused("--perturb", manifest, "--profile", "ibsi")
    assert not (tmp_path / "extracted").exists()
