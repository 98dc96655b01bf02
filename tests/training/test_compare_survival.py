"""`hypoxia compare` on models of times to an event and on composites."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from asked import Answer, Hypoxia, ask
from recorded_survival import EXTERNAL, followed, store_of

from training.compare import Resampling, best_of, compare, load_models
from training.compare_report import as_json, by_sequence, methods
from training.horizon import calibration_by_horizon, observed_risks, reliability_by_horizon
from training.judged import load_judged, read_predictions
from training.survival.curves import kaplan_meier
from training.survival.discrimination import auc_at, brier_at, harrell_c, observed_over_expected, uno_c
from training.tracking import Store, open_store

PAIRED = {"c_index", "uno_c", "auc_at_horizon", "brier_at_horizon"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_of(tmp_path_factory)


@pytest.fixture
def store(root: Path) -> Store:
    return open_store(f"sqlite:///{root / 'mlflow.db'}")


@pytest.fixture
def hypoxia(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hypoxia:
    def run(*arguments: str) -> Answer:
        uri = f"sqlite:///{root / 'mlflow.db'}"
        return ask(monkeypatch, capsys, "compare", *arguments, "--bootstrap", "200", "--tracking-uri", uri)

    return run


def test_measures_of_survival_stand_side_by_side_with_paired_differences(hypoxia: Hypoxia, store: Store) -> None:
    found = hypoxia("good", "half", "--json").json
    first, second = found["models"]
    assert (first["horizon"], first["time_unit"]) == (60.0, "months")
    assert set(first["estimates"]) == PAIRED | {"hazard_ratio", "calibration_slope"}
    (pair,) = found["paired"]
    assert set(pair["difference"]) == PAIRED
    assert (pair["delong"], pair["p_origin"]) == (None, "bootstrap over patients")
    good, half = (load_judged(store, name).predictions for name in ("good", "half"))
    time, event = good["time"], good["label"]
    expected = {
        "c_index": [harrell_c(time, event, one["probability"]).value for one in (good, half)],
        "uno_c": [uno_c(time, event, one["probability"], tau=60.0).value for one in (good, half)],
        "auc_at_horizon": [auc_at(time, event, one["probability"], 60.0).value for one in (good, half)],
        "brier_at_horizon": [brier_at(time, event, one["probability"], 60.0).value for one in (good, half)],
    }
    for name, (of_good, of_half) in expected.items():
        assert pair["difference"][name]["value"] == pytest.approx(of_half - of_good, abs=1e-9), name
        assert first["estimates"][name]["value"] == pytest.approx(of_good, abs=1e-9), name
    assert pair["difference"]["c_index"]["upper"] < 0
    assert second["calibration"]["observed_to_expected"]["value"] == pytest.approx(
        observed_over_expected(time, event, half["probability"], 60.0).value, abs=1e-12
    )


def test_the_tables_name_the_measures_of_survival_and_none_of_classes(hypoxia: Hypoxia) -> None:
    said = hypoxia("good", "half", "noise").out
    for words in (
        "Harrell's C",
        "Uno's C",
        "AUC at the horizon",
        "Brier score at the horizon",
        "Observed / expected by 60 months",
    ):
        assert words in said
    assert "ROC AUC" not in said
    assert "DeLong" not in said
    assert "lost to follow-up" in said


def test_the_page_draws_kaplan_meier_curves_instead_of_roc_curves(hypoxia: Hypoxia, tmp_path: Path) -> None:
    page = tmp_path / "compared.html"
    assert hypoxia("good", "noise", "--html", str(page)).code == 0
    written = page.read_text()
    assert written.count("data:image/svg+xml") == 3  # two models' curves, and calibration
    assert "Kaplan-Meier, good:1" in written
    assert "ROC" not in written
    assert "http" not in written.replace("http-equiv", "").replace("https://", "http")


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (("good", "classes"), "good:1 is of times to an event and classes:1 of two classes"),
        (("classes", "good"), "good:1 is of times to an event and classes:1 of two classes"),
        (("good", "short"), "good:1 answers the risk of the event by 60 months and short:1 the risk of the event by 36 months"),
        (("good", "other-times"), "have another follow-up for other-times:1"),
        (("good", "composite:1"), "were judged on different patients"),
    ],
)
def test_models_that_answer_different_questions_are_refused_in_one_sentence(
    hypoxia: Hypoxia, models: tuple[str, str], words: str
) -> None:
    answer = hypoxia(*models)
    assert answer.code == 2
    assert words in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_composites_are_compared_out_of_fold_and_that_is_said_and_no_leak(hypoxia: Hypoxia) -> None:
    answer = hypoxia("composite:1", "composite:2", "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    assert found["same_patients"]
    assert all(one["composite"] for one in found["models"])
    assert found["paired"][0]["difference"]["c_index"]["value"] < 0
    assert any("A composite has no held-out patients (composite:1, composite:2)" in words for words in found["warnings"])
    assert not any("do not give" in words for words in found["warnings"])


def test_how_composites_were_judged_is_in_the_methods(store: Store) -> None:
    found = compare(load_models(store, ["composite:1", "composite:2"]), Resampling(count=100))
    assert "means over the folds" in methods(found)
    assert "as recorded with the models" not in methods(found)


def test_all_are_scored_on_one_table_by_the_columns_of_the_study(hypoxia: Hypoxia, root: Path) -> None:
    table = str(root / "external.csv")
    found = hypoxia("good", "composite:1", "--on", table, "--patient", "patient", "--json").json
    assert found["on"]["samples"] == 130
    assert found["models"][0]["patients_with_event"] == ((EXTERNAL["status"] == 1) & (EXTERNAL["months"] <= 60)).sum()
    assert set(found["paired"][0]["difference"]) == PAIRED
    assert not any("no held-out patients" in words for words in found["warnings"])


def test_columns_may_be_named_otherwise_on_the_command_line(hypoxia: Hypoxia, root: Path, tmp_path: Path) -> None:
    renamed = EXTERNAL.rename(columns={"months": "weeks", "status": "progressed"})
    path = tmp_path / "renamed.csv"
    renamed.assign(progressed=np.where(renamed["progressed"] == 1, "yes", "no")).to_csv(path, index=False)
    named = hypoxia(
        "good", "half", "--on", str(path), "--time", "weeks", "--label", "progressed", "--event", "yes", "--json"
    )  # fmt: skip
    assert named.code == 0, named.err
    plain = hypoxia("good", "half", "--on", str(root / "external.csv"), "--json").json
    assert named.json["paired"][0]["difference"] == plain["paired"][0]["difference"]


@pytest.mark.parametrize(
    ("models", "arguments", "words"),
    [
        (
            ("good", "half"),
            ("--on", "external.csv", "--time", "mnths"),
            "Column 'mnths' (--time) is not in external.csv",
        ),
        (("good", "half"), ("--on", "external.csv", "--label", "months"), "is named as time and as event"),
        (
            ("good", "half"),
            ("--on", "external.csv", "--event", "7"),
            "Column 'status' (--label) has values that the study does not explain",
        ),
        (("good", "half"), ("--time", "months"), "name it with --on TABLE"),
        (("classes", "classes:1"), ("--on", "external.csv", "--time", "months"), "are the same model"),
        (("good", "classes"), ("--on", "external.csv"), "have no measure in common"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_words_of_the_command_line(
    hypoxia: Hypoxia, root: Path, monkeypatch: pytest.MonkeyPatch, models: tuple[str, str], arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(root)
    answer = hypoxia(*models, *arguments)
    assert answer.code == 2
    assert words in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_patients_that_a_model_learnt_from_are_refused_or_left_out(hypoxia: Hypoxia, tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    pd.concat([EXTERNAL, followed(150, seed=99).head(5)]).to_csv(path, index=False)
    assert "5 of 135 rows" in hypoxia("good", "half", "--on", str(path)).err
    left = hypoxia("good", "half", "--on", str(path), "--learnt", "leave-out", "--json").json
    assert left["models"][0]["samples"] == 130


def test_the_best_of_several_is_corrected_by_its_c_index(store: Store) -> None:
    predictions = {name: load_judged(store, name).predictions for name in ("noise", "half", "good")}
    picked = best_of(predictions, Resampling(count=200), horizon=60.0)
    assert picked.sequence == "good"
    one = predictions["good"]
    assert picked.plain.value == pytest.approx(harrell_c(one["time"], one["label"], one["probability"]).value, abs=1e-12)
    assert picked.corrected.value <= picked.plain.value


def test_sequences_are_listed_by_the_measures_of_survival(store: Store) -> None:
    models = [
        replace(one, card=one.card.model_copy(update={"sequence": sequence}))
        for one, sequence in zip(load_models(store, ["good", "noise"]), ("ADC", "T2w"), strict=True)
    ]
    found = compare(models, Resampling(count=100))
    table = by_sequence(found)
    assert table.columns == ("sequence", "n", "events", "Harrell's C", "p", "Uno's C", "AUC(t)", "Brier(t)", "HR")
    assert table.rows[-1][0] == "ADC, best of 2"
    assert "log-rank test of the groups called" in table.notes[0]
    assert set(as_json(found)["sequences"]) == {"best", "tried", "c_index", "c_index_corrected_for_picking"}


def test_what_a_composite_is_judged_by_is_read_with_its_study(store: Store) -> None:
    found = load_judged(store, "composite:1")
    assert found.study.kind == "composite"
    assert found.horizon == 60.0
    assert found.permutation_p == pytest.approx(0.01)  # 99 permutations, none of which finds as much
    assert found.learnt_from == set(found.predictions["sample"])
    assert found.internal["repeat"].nunique() == 2


def test_times_that_are_no_follow_up_are_no_predictions(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    load_judged(store, "good").predictions.assign(time=0.0).to_csv(path, index=False)
    with pytest.raises(ValueError, match="no follow-up"):
        read_predictions(path)


def test_the_observed_risk_is_kaplan_meiers_under_every_weighting() -> None:
    rng = np.random.default_rng(0)
    time, event = rng.integers(1, 30, size=80).astype(float), rng.random(80) < 0.5
    weights = rng.multinomial(80, np.full(80, 1 / 80), size=20).astype(float)
    found = observed_risks(time, event, weights, 20.0)
    for row, risk in zip(weights.astype(int), found, strict=True):
        assert risk == pytest.approx(1 - kaplan_meier(time.repeat(row), event.repeat(row)).at(20.0).survival, abs=1e-12)
    assert np.isnan(observed_risks(time, event, np.ones((1, 80)), 31.0)[0])


def test_right_risks_are_calibrated_and_halved_ones_expect_half() -> None:
    rng = np.random.default_rng(0)
    risk = rng.uniform(0.1, 0.9, size=4000)
    until = -60 * np.log(rng.random(4000)) / -np.log1p(-risk)
    table = pd.DataFrame({"patient": np.arange(4000).astype(str), "label": (until < 60).astype(int), "probability": risk})
    table = table.assign(time=np.minimum(until, 60), called=risk > 0.5, repeat=0, fold=0)
    right = calibration_by_horizon(table, 60.0, np.random.default_rng(0), count=100)
    half = calibration_by_horizon(table.assign(probability=risk / 2), 60.0, np.random.default_rng(0), count=100)
    assert right.ratio.value == pytest.approx(1, abs=0.04)  # standard error about 0.016
    assert right.slope.value == pytest.approx(1, abs=0.06)
    assert half.ratio.value == pytest.approx(2 * right.ratio.value, abs=1e-12)
    groups = reliability_by_horizon(table, 60.0)
    assert (groups["lower"] <= groups["expected"]).all()
    assert (groups["expected"] <= groups["upper"]).all()
    lesions = pd.concat([table, table])
    assert reliability_by_horizon(lesions, 60.0)[["lower", "upper"]].isna().all(axis=None)


def test_the_same_comparison_gives_the_same_answer(hypoxia: Hypoxia) -> None:
    first, second = (json.dumps(hypoxia("good", "noise", "--json").json) for _ in range(2))
    assert first == second
