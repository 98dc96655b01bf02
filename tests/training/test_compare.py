"""`hypoxia compare`: what is put side by side, what is refused, and what is written."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from recorded import parent_run, recorded_model, table_of
from toy import binormal_predictions

from features.errors import BundleError, InputError
from training.cli_registry import compare as command
from training.compare import Resampling, best_of, compare, load_models
from training.compare_report import as_html
from training.judged import load_judged
from training.tracking import Store, open_store

HELD_OUT, EXTERNAL = table_of(60, seed=1), table_of(80, seed=7)
QUICK = ("--bootstrap", "200")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with several models; the first three were judged on the same patients."""
    folder = tmp_path_factory.mktemp("compared")
    recorded_model(folder, "one-feature", ["f2", "f0"], HELD_OUT)
    recorded_model(folder, "two-features", ["f0", "f1"], HELD_OUT, threshold=0.45)
    recorded_model(folder, "noise", ["f4", "f5"], HELD_OUT)
    recorded_model(folder, "elsewhere", ["f0", "f1"], table_of(60, seed=2))
    lesions = table_of(40, seed=3, lesions=2)
    for name, features in (("lesions-a", ["f0"]), ("lesions-b", ["f0", "f1"])):
        recorded_model(folder, name, features, lesions)
    for name, features in (("few-a", ["f0"]), ("few-b", ["f0", "f1"])):
        recorded_model(folder, name, features, HELD_OUT.head(18))
    EXTERNAL.to_csv(folder / "external.csv", index=False)
    return folder


@pytest.fixture
def store(root: Path) -> Store:
    return open_store(uri_of(root))


def uri_of(root: Path) -> str:
    return f"sqlite:///{root / 'mlflow.db'}"


def run(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, *QUICK, "--tracking-uri", uri_of(root)])


def printed(root: Path, *arguments: str) -> dict:
    done = run(root, *arguments, "--json")
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)


def refused(root: Path, *arguments: str) -> str:
    done = run(root, *arguments)
    assert isinstance(done.exception, InputError), done.output
    return str(done.exception)


def test_a_model_is_found_by_run_name_version_and_alias(root: Path, store: Store) -> None:
    first = load_judged(store, "two-features")
    MlflowClient(uri_of(root)).set_registered_model_alias("two-features", "champion", "1")
    for reference in (first.run_id, "two-features:1", "two-features@champion"):
        assert load_judged(store, reference).title == "two-features:1"
        assert load_judged(store, reference).run_id == first.run_id
    assert list(first.predictions["sample"]) == list(HELD_OUT["sample"])
    assert first.predictions["called"].dtype == bool


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("two-feature", "did you mean 'two-features'"),
        ("two-features:9", "no version 9; its versions: 1"),
        ("two-features@champoin", "no alias 'champoin'"),
        ("a" * 32, "There is no run"),
        ("a:b", "names no model"),
    ],
)
def test_an_unknown_model_is_refused_with_what_there_is(root: Path, reference: str, words: str) -> None:
    assert words in refused(root, "noise", reference)


def test_the_same_model_twice_is_no_comparison(root: Path) -> None:
    assert "are the same model (noise:1)" in refused(root, "noise", "noise:1")
    assert "nothing to compare with" in refused(root, "noise")


def test_a_version_whose_files_are_another_runs_is_refused(tmp_path: Path) -> None:
    recorded_model(tmp_path, "good", ["f0"], HELD_OUT)
    run_id = recorded_model(tmp_path, "bad", ["f1"], HELD_OUT)
    client = MlflowClient(uri_of(tmp_path))
    foreign = client.get_model_version("good", "1").source
    client.create_model_version("bad", source=foreign, run_id=run_id)
    with pytest.raises(BundleError, match="not those of its run"):
        load_judged(open_store(uri_of(tmp_path)), "bad:2")


def test_names_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    table = HELD_OUT.assign(sample=[f"{i:03d}" for i in range(60)], patient=[f"{i:04d}" for i in range(60)])
    recorded_model(tmp_path, "zeros", ["f0"], table)
    predictions = load_judged(open_store(uri_of(tmp_path)), "zeros").predictions
    assert list(predictions["sample"].head(2)) == ["000", "001"]
    assert list(predictions["patient"].head(2)) == ["0000", "0001"]


def test_the_object_says_what_is_compared(root: Path) -> None:
    found = printed(root, "one-feature", "two-features")
    first, second = found["models"]
    assert found["reference"] == "one-feature:1"
    assert found["same_patients"] is True
    assert (first["samples"], first["patients"], first["patients_with_event"]) == (60, 60, 30)
    assert first["split_hash"] == second["split_hash"]
    assert {"data_hash", "fingerprint", "seed", "versions", "extraction_hash", "run_id"} <= set(first)
    assert second["features"] == ["f0", "f1"]
    assert (second["threshold"], second["threshold_origin"]) == (0.45, "fixed in the study")
    assert len(second["estimates"]) == 9
    for estimate in (*second["estimates"].values(), second["roc_auc_delong"], *second["calibration"].values()):
        assert estimate["lower"] <= estimate["value"] <= estimate["upper"]
    assert {"threshold", "model", "treat_all", "treat_none"} == set(second["decision_curve"][0])
    assert sum(group["n"] for group in second["reliability"]) == 60


def test_metrics_are_those_that_were_recorded_with_the_model(root: Path, store: Store) -> None:
    shown = printed(root, "one-feature", "two-features")["models"][0]["estimates"]
    assert shown == {name: one.model_dump() for name, one in load_judged(store, "one-feature").card.held_out.items()}


def test_another_level_is_that_of_every_interval(root: Path) -> None:
    wide = printed(root, "one-feature", "two-features")["models"][0]["estimates"]
    narrow = printed(root, "one-feature", "two-features", "--level", "0.8")["models"][0]["estimates"]
    assert list(narrow) == list(wide)
    for name, estimate in narrow.items():
        assert estimate["level"] == 0.8
        assert estimate["value"] == pytest.approx(wide[name]["value"])
        assert estimate["upper"] - estimate["lower"] < wide[name]["upper"] - wide[name]["lower"]


def test_a_pair_has_differences_delongs_p_and_who_flips(root: Path, store: Store) -> None:
    (pair,) = printed(root, "noise", "two-features")["paired"]
    difference = pair["difference"]["roc_auc"]
    assert 0 < difference["lower"] <= difference["value"] <= difference["upper"]
    assert difference["value"] == pytest.approx(pair["delong"]["difference"])
    assert pair["p_value"] == pair["delong"]["p_value"] == pair["p_value_holm"] < 0.01
    assert pair["difference"]["brier"]["upper"] < 0
    a, b = (load_judged(store, name).predictions for name in ("noise", "two-features"))
    changed = a["called"] != b["called"]
    assert {one["sample"] for one in pair["flips"]["samples"]} == set(a.loc[changed, "sample"])
    gained = changed & (b["called"] == (b["label"] == 1))
    assert pair["flips"]["events_gained"] == (gained & (a["label"] == 1)).sum()
    assert pair["flips"]["non_events_lost"] == (changed & ~gained & (a["label"] == 0)).sum()


def test_several_challengers_are_adjusted_after_holm(root: Path) -> None:
    pairs = printed(root, "noise", "one-feature", "two-features")["paired"]
    raw = [pair["p_value"] for pair in pairs]
    assert [pair["challenger"] for pair in pairs] == ["one-feature:1", "two-features:1"]
    assert min(pair["p_value_holm"] for pair in pairs) == pytest.approx(2 * min(raw))


def test_models_of_different_patients_are_refused_with_the_way_out(root: Path) -> None:
    words = refused(root, "noise", "elsewhere")
    assert "different patients: noise:1 on 60 samples of 60 patients (30 with the event), elsewhere:1 on" in words
    assert "--on TABLE" in words
    assert "t1s" not in words


def test_scoring_all_on_one_table_makes_a_common_set(root: Path, store: Store) -> None:
    table = str(root / "external.csv")
    found = printed(root, "noise", "elsewhere", "--on", table, "--label", "Target", "--patient", "patient")
    assert found["on"]["samples"] == 80
    assert [model["samples"] for model in found["models"]] == [80, 80]
    assert found["paired"][0]["difference"]["roc_auc"]["lower"] > 0
    recorded = load_judged(store, "elsewhere").card.held_out["roc_auc"].value
    assert found["models"][1]["estimates"]["roc_auc"]["value"] != recorded
    assert 0 <= found["models"][1]["share_unlike_training"] < 0.2


def test_other_samples_of_patients_that_a_model_learnt_from_are_no_test_of_it_either(root: Path, tmp_path: Path) -> None:
    learnt = table_of(60, seed=99).head(5).assign(sample=[f"another scan {number}" for number in range(5)])
    pd.concat([EXTERNAL, learnt]).to_csv(tmp_path / "scans.csv", index=False)
    arguments = ("noise", "two-features", "--on", str(tmp_path / "scans.csv"), "--label", "Target", "--patient", "patient")
    assert "5 of 85 rows of scans.csv" in refused(root, *arguments, "--sample", "sample")


def test_rows_that_a_model_learnt_from_are_no_test_of_it(root: Path, tmp_path: Path) -> None:
    learnt = table_of(60, seed=99).head(5)
    pd.concat([EXTERNAL, learnt]).to_csv(tmp_path / "mixed.csv", index=False)
    arguments = ("noise", "two-features", "--on", str(tmp_path / "mixed.csv"), "--label", "Target")
    assert "5 of 85 rows of mixed.csv have the names of samples or patients that a model learnt from" in refused(root, *arguments)
    left_out = printed(root, *arguments, "--learnt", "leave-out")
    assert left_out["on"]["samples"] == 80
    assert any("5 samples were left out" in words for words in left_out["warnings"])
    assert printed(root, *arguments, "--learnt", "keep")["on"]["samples"] == 85


def test_the_names_of_the_rows_are_looked_for_where_the_study_had_them(root: Path, tmp_path: Path) -> None:
    learnt = table_of(60, seed=99).head(5)
    mixed = pd.concat([EXTERNAL, learnt])
    features = ["f0", "f1", "f4", "f5"]
    arguments = ("noise", "two-features", "--on", str(tmp_path / "mixed.csv"), "--label", "Target")
    mixed[[*features, "Target"]].assign(ID=mixed["sample"]).to_csv(tmp_path / "mixed.csv", index=False)
    assert "5 of 85 rows of mixed.csv have the names of samples" in refused(root, *arguments)
    mixed[[*features, "Target"]].to_csv(tmp_path / "mixed.csv", index=False)  # a measurement is no name
    found = printed(root, *arguments)
    assert any("have no names (--sample)" in words for words in found["warnings"])
    assert not any("have no names" in words for words in printed(root, *arguments, "--sample", "f0")["warnings"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--on", "external.csv"), "needs the column of the outcome"),
        (("--label", "Target"), "name it with --on TABLE"),
        (("--on", "external.csv", "--label", "Targte"), "did you mean 'Target'"),
        (("--on", "external.csv", "--label", "Target", "--patient", "patience"), "(--patient) is not in external.csv"),
        (("--on", "external.csv", "--label", "Target", "--event", "yes"), "Set --event to the value of the event"),
        (("--on", "absent.csv", "--label", "Target"), "does not exist"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_words_of_the_command_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(root)
    found = refused(root, "noise", "two-features", *arguments)
    assert words in found
    assert "cohort." not in found


def test_a_table_without_a_models_feature_is_refused(root: Path, tmp_path: Path) -> None:
    EXTERNAL.drop(columns="f1").to_csv(tmp_path / "narrow.csv", index=False)
    words = refused(root, "noise", "two-features", "--on", str(tmp_path / "narrow.csv"), "--label", "Target")
    assert "'f1' is missing" in words


def test_several_lesions_per_patient_leave_delong_out(root: Path) -> None:
    found = printed(root, "lesions-a", "lesions-b")
    (pair,) = found["paired"]
    assert pair["delong"] is None
    assert pair["p_origin"] == "bootstrap over patients"
    assert 0 < pair["p_value"] <= 1
    assert found["models"][0]["roc_auc_delong"] is None
    assert any("several samples" in words for words in found["warnings"])


def test_too_few_patients_are_marked_and_not_printed_as_numbers(root: Path) -> None:
    found = printed(root, "few-a", "few-b")
    for model in found["models"]:
        assert "18 patients, 9 with the event" in model["not_estimable"]
        assert all(estimate["value"] is None for estimate in model["estimates"].values())
        assert model["decision_curve"] is None
    (pair,) = found["paired"]
    assert pair["p_value"] is None
    assert pair["difference"]["roc_auc"]["value"] is None
    shown = run(root, "few-a", "few-b").stdout
    assert "not estimable" in shown
    assert not re.search(r"│ (ROC AUC|Brier score) .*\d\.\d", shown)


def test_equal_commands_give_equal_answers(root: Path) -> None:
    first, second = (run(root, "noise", "two-features", "--json").stdout for _ in range(2))
    assert first == second
    assert run(root, "noise", "two-features", "--json", "--seed", "1").stdout != first


def test_the_terminal_shows_header_performance_and_differences(root: Path) -> None:
    shown = run(root, "noise", "two-features").stdout
    for words in (
        "Research use only",
        "same patients",
        "data hash",
        "split hash",
        "Calibration slope",
        "Differences from noise:1",
    ):
        assert words in shown
    assert re.search(r"two-features:1 │ \+0\.\d{3} \(\+0\.\d{3} to \+0\.\d{3}\)", shown)


class Addresses(HTMLParser):
    """Every address that a page would fetch, and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [str(value) for name, value in attributes if name in {"src", "href", "srcset", "data", "poster"}]


def test_the_page_is_one_file_that_fetches_nothing(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    done = run(root, "noise", "one-feature", "two-features", "--html", str(path))
    assert done.exit_code == 0, done.exception
    page = path.read_text(encoding="utf-8")
    parsed = Addresses()
    parsed.feed(page)
    assert len(parsed.found) == 4
    assert all(address.startswith("data:image/svg+xml;base64,") for address in parsed.found)
    assert not {"script", "link", "iframe", "object"} & set(parsed.tags)
    assert "url(" not in page.split("</style>")[0]
    for words in ("Decision curve", "Reliability", "p (Holm)", "Research use only", "two-features:1", "Methods"):
        assert words in page
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_is_refused(root: Path, tmp_path: Path) -> None:
    assert "cannot be written" in refused(root, "noise", "two-features", "--html", str(tmp_path / "absent" / "x.html"))


def test_names_are_text_in_the_page(root: Path, store: Store) -> None:
    models = load_models(store, ["noise", "two-features"])
    spiked = [replace_sample(model.predictions, "<script>alert(1)</script>") for model in models]
    object.__setattr__(models[0], "predictions", spiked[0].assign(called=False))
    object.__setattr__(models[1], "predictions", spiked[1].assign(called=True))
    page = as_html(compare(models, Resampling(count=100)))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def replace_sample(predictions: pd.DataFrame, name: str) -> pd.DataFrame:
    return predictions.assign(sample=[name, *predictions["sample"].iloc[1:]])


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study of four sequences, of which one has too few patients, and its run."""
    folder = tmp_path_factory.mktemp("sequences")
    parent = parent_run(folder, ["adc", "b200", "t2", "dce"])
    judged = {"adc": (["f4"], HELD_OUT), "b200": (["f0", "f5"], HELD_OUT.iloc[:52]), "dce": (["f5"], HELD_OUT.iloc[6:])}
    judged["t2"] = (["f1"], HELD_OUT.iloc[:15])
    for name, (features, table) in judged.items():
        recorded_model(folder, f"toy-{name}", features, table, sequence=name, parent=parent)
    return folder, parent


def test_a_run_of_several_sequences_gives_a_row_each_and_the_best_corrected(sequences: tuple[Path, str]) -> None:
    root, parent = sequences
    found = printed(root, parent)
    assert [model["sequence"] for model in found["models"]] == ["adc", "b200", "dce", "t2"]
    assert [model["samples"] for model in found["models"]] == [60, 52, 54, 15]
    best = found["sequences"]
    assert (best["best"], best["tried"]) == ("b200", 3)  # t2 is not estimable, so it cannot be picked
    plain, corrected = best["roc_auc"], best["roc_auc_corrected_for_picking"]
    assert corrected["lower"] < plain["lower"]
    assert corrected["value"] <= plain["value"]
    assert found["same_patients"] is False
    assert found["paired"] == []
    shown = run(root, parent).stdout
    assert "b200, best of 3" in shown
    assert "60 / 52" in shown
    assert re.search(r"│ t2 +│ +60 / 15 │ +7 │ +not estimable", shown)


def test_models_of_sequences_may_be_named_one_by_one(sequences: tuple[Path, str]) -> None:
    root, _ = sequences
    assert printed(root, "toy-adc", "toy-dce")["sequences"]["tried"] == 2


def noise_sequences(seed: int, count: int = 9, patients: int = 36) -> dict[str, pd.DataFrame]:
    """Sequences that say nothing, on patients of whom each lacks a few."""
    rng = np.random.default_rng(seed)
    table = binormal_predictions(patients)
    return {
        f"s{number}": table.assign(probability=rng.random(patients)).drop(index=rng.choice(patients, rng.integers(0, 6), False))
        for number in range(count)
    }


def test_the_best_of_nine_sequences_of_noise_covers_one_half() -> None:
    plain, corrected, value = 0, 0, []
    for seed in range(300):
        found = best_of(noise_sequences(seed), Resampling(count=500, seed=seed))
        plain += found.plain.lower <= 0.5
        corrected += found.corrected.lower <= 0.5 <= found.corrected.upper
        value.append((found.plain.value, found.corrected.value))
    assert corrected / 300 >= 0.92
    assert plain / 300 < 0.87  # what it would be without the correction
    assert np.mean(value, axis=0)[1] - 0.5 < 0.5 * (np.mean(value, axis=0)[0] - 0.5)


def test_a_single_sequence_needs_no_correction() -> None:
    only = best_of({"adc": binormal_predictions(60)}, Resampling(count=300))
    assert (only.corrected.lower, only.corrected.upper) == pytest.approx((only.plain.lower, only.plain.upper), abs=0.01)
    assert only.corrected.value == pytest.approx(only.plain.value, abs=0.01)
