"""A study of survival from its file to a judged, recorded model: the same again, nothing leaks, noise comes out as noise."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from survival_made import ENDPOINT, SMALL_SEARCH, followed, survival_study

from features.bundle import load_bundle
from features.cohort import Cohort
from features.errors import InputError
from features.signatures import find_signature
from features.table import FeatureTable
from training import evaluation
from training.config import Study, load_study
from training.evaluation import validate_internally
from training.prognosis import prognosis
from training.recipe import fit_recipe
from training.resume import UnfinishedRun
from training.run import StudyResult, draw_held_out, load_cohorts, run
from training.survival_report import survival_figures, survival_lines
from training.train import train_study
from training.workers import Workers

HERE = Workers(isolated=False)
CONFIGS = Path(__file__).parents[2] / "configs"
SIX = find_signature("fjeldbo2016").genes


def loaded(folder: Path, table: pd.DataFrame, **changes: Any) -> tuple[Study, Cohort, pd.Index]:
    study = load_study(survival_study(folder, table, **changes))
    cohort = load_cohorts(study)[""]
    return study, cohort, draw_held_out(study, {"": cohort})


def internal(study: Study, cohort: Cohort, seed: int = 0, **more: Any) -> evaluation.Evaluation:
    return validate_internally(study.recipe, cohort, study.evaluation, np.random.default_rng(seed), HERE, **more)


@dataclass(frozen=True)
class Trained:
    folder: Path
    printed: dict[str, Any]

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder}/store/mlflow.db")

    @property
    def artifacts(self) -> Path:
        return Path(self.client.get_run(self.printed["run_id"]).info.artifact_uri.removeprefix("file://"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A study of relapse with a competing event, trained and recorded."""
    folder = tmp_path_factory.mktemp("survival")
    table = followed(120, signal=1.5)
    table.loc[(table["relapse"] == 0) & (table["age"] > 65), "relapse"] = 2
    study = survival_study(folder, table, cohort={"endpoint": {**ENDPOINT, "competing": [2]}})
    return Trained(folder, train_study(load_study(study), f"sqlite:///{folder}/store/mlflow.db", 2))


def test_the_run_holds_times_and_the_card_the_horizon(trained: Trained) -> None:
    predictions = pd.read_csv(trained.artifacts / "predictions.csv", index_col="sample")
    table = pd.read_csv(trained.folder / "followed.csv", index_col="ID").loc[predictions.index]
    np.testing.assert_allclose(predictions["time"], table["months"].clip(upper=60))
    assert predictions["label"].tolist() == ((table["relapse"] == 1) & (table["months"] <= 60)).astype(int).tolist()
    assert "time" in pd.read_csv(trained.artifacts / "predictions_internal.csv").columns
    card = load_bundle(trained.artifacts / "bundle").card
    assert (card.horizon, card.time_unit) == (60, "months")
    assert (card.positive_label, card.negative_label) == ("high risk", "low risk")
    assert card.threshold_origin == "median of development out-of-fold predictions"
    assert json.loads(card.endpoint)["kind"] == "survival"


def test_the_measures_of_survival_are_printed_and_logged(trained: Trained) -> None:
    assert {"c_index", "brier_at_horizon", "hazard_ratio"} <= set(trained.printed["held_out"])
    assert "roc_auc" not in trained.printed["held_out"]
    assert "c_index_pooled" in trained.printed["internal"]
    assert trained.printed["held_out_p"]["test"] == "log-rank test of the groups called"
    metrics = trained.client.get_run(trained.printed["run_id"]).data.metrics
    assert metrics["held_out_c_index"] == trained.printed["held_out"]["c_index"]["value"]
    recorded = json.loads((trained.artifacts / "prognosis.json").read_text())
    assert set(recorded) == {"held out", "internal"}
    assert recorded["internal"]["patients"] == 90
    assert set(recorded["internal"]["cumulative_incidence"]) == {"high risk", "low risk"}
    assert metrics["internal_hazard_ratio_per_sd"] == recorded["internal"]["hazard_ratio_per_sd"]["hazard_ratio"]


def test_a_planted_effect_is_found(trained: Trained) -> None:
    assert {"g00", "g01", "g02"} <= set(trained.printed["selected_features"])
    assert trained.printed["internal"]["c_index"]["lower"] > 0.55
    recorded = json.loads((trained.artifacts / "prognosis.json").read_text())["internal"]
    assert recorded["hazard_ratio_per_sd"]["lower"] > 1.2
    assert recorded["added_value"]["p_value"] < 0.001


def test_every_figure_of_survival_is_drawn(trained: Trained) -> None:
    drawn = {path.stem: path.stat().st_size for path in (trained.artifacts / "figures").glob("*.png")}
    both = {f"{figure}_{whose}" for figure in ("kaplan_meier", "cumulative_incidence") for whose in ("held_out", "internal")}
    assert {*both, "calibration_internal", "log_minus_log", "schoenfeld"} <= set(drawn)
    assert not {"roc", "precision_recall"} & set(drawn)
    assert min(drawn.values()) > 5000


def test_the_bundle_gives_the_recorded_risks(trained: Trained) -> None:
    bundle = load_bundle(trained.artifacts / "bundle")
    predictions = pd.read_csv(trained.artifacts / "predictions.csv", index_col="sample")
    table = pd.read_csv(trained.folder / "followed.csv", index_col="ID").loc[predictions.index]
    np.testing.assert_allclose(bundle.score(bundle.schema.conform(table).to_numpy()), predictions["probability"], atol=1e-9)
    assert (predictions["called"] == (predictions["probability"] >= bundle.card.threshold)).all()


def test_the_same_study_is_the_same_again_with_one_worker_or_two(tmp_path: Path) -> None:
    study, cohort, held_out = loaded(tmp_path, followed(), recipe={"search": {"kind": "optuna", "trials": 5, "folds": 2}})
    found: list[StudyResult] = []
    for count in (1, 2):
        with Workers(count) as workers:
            found.append(run(study, cohort, held_out, workers))
    one, two = found
    assert one.fitted.schema == two.fitted.schema
    assert one.fitted.search.winner.candidate == two.fitted.search.winner.candidate
    assert one.fitted.threshold == pytest.approx(two.fitted.threshold, abs=1e-12)
    for first, second in ((one.held_out, two.held_out), (one.internal, two.internal)):
        pd.testing.assert_frame_equal(first.predictions, second.predictions, rtol=0, atol=1e-12)
        assert first.p_value == pytest.approx(second.p_value)
    assert one.held_out.estimates["c_index"] == two.held_out.estimates["c_index"]


def test_an_interrupted_study_goes_on_and_finds_what_it_would_have_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, cohort, held_out = loaded(tmp_path, followed())
    whole = internal(study, cohort)
    memory, fits = UnfinishedRun(tmp_path / "unfinished", study, cohort, held_out), []

    def fit_two_then_stop(*arguments: Any) -> Any:
        fits.append(1)
        if len(fits) == 3:
            raise KeyboardInterrupt
        return fit_recipe(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(evaluation, "fit_recipe", fit_two_then_stop)
        with pytest.raises(KeyboardInterrupt):
            internal(study, cohort, memory=memory)
        fits.extend([1])  # the one that was interrupted is made again
        resumed = internal(study, cohort, memory=memory)
    assert len(fits) == 5  # two, the interrupted one, ours, and the last
    pd.testing.assert_frame_equal(resumed.predictions, whole.predictions, check_exact=True)
    assert resumed.estimates == whole.estimates


def test_no_patient_is_on_both_sides(tmp_path: Path) -> None:
    table = followed(60)
    second = table.iloc[:20].assign(ID=lambda frame: frame["ID"] + "b", g00=lambda frame: frame["g00"] + 0.1)
    study, cohort, held_out = loaded(tmp_path, pd.concat([table, second]))
    found = run(study, cohort, held_out, HERE)
    of = cohort.patients
    assert not set(of[found.split.train]) & set(of[found.split.test])
    assert found.internal is not None
    assert found.internal.predictions.groupby("patient")["fold"].nunique().max() == 1
    assert sorted(found.internal.predictions["sample"]) == sorted(found.split.train)
    for name, one in found.prognosis.items():
        expected = of[found.split.test] if name == "held out" else of[found.split.train]
        assert len(one.patients) == expected.nunique()


def test_noise_gives_a_concordance_of_one_half(tmp_path: Path) -> None:
    found = []
    for seed in range(8):
        study, cohort, _ = loaded(tmp_path, followed(60, p=60, signal=0, seed=seed))
        found.append(internal(study, cohort, seed))
    values = [one.estimates["c_index"].value for one in found]
    assert 0.43 < np.mean(values) < 0.57  # standard error about 0.02
    assert sum(one.p_value is not None and one.p_value < 0.05 for one in found) <= 3


def test_a_fixed_risk_may_be_the_threshold_and_calling_everyone_alike_is_said(tmp_path: Path) -> None:
    study, cohort, held_out = loaded(tmp_path, followed(60), recipe={**SMALL_SEARCH, "threshold": 0.0})
    found = run(study, cohort, held_out, HERE)
    assert found.fitted.threshold == 0
    assert found.held_out.predictions["called"].all()
    assert found.held_out.p_value is None
    assert found.held_out.estimates["hazard_ratio"].value is None
    assert "All patients are called the same, so there are no groups to compare." in found.prognosis["held out"].notes
    for draw in survival_figures(found).values():
        assert draw().axes
    assert not any("hazard ratio of those called" in line for line in survival_lines(found))


def test_events_at_one_time_only_are_no_test_of_proportional_hazards() -> None:
    rng = np.random.default_rng(0)
    label = (np.arange(20) % 10 == 0).astype(int)
    risk = rng.permutation(np.linspace(0.2, 0.8, 20))
    predictions = pd.DataFrame(
        {
            "patient": [f"p{number}" for number in range(20)],
            "label": label,
            "time": np.where(label == 1, 12.0, 24.0),
            "probability": risk,
            "called": risk >= 0.5,
            "repeat": 0,
            "fold": 0,
        }
    )
    found = prognosis(predictions, pd.DataFrame(index=predictions["patient"]), 24.0)
    assert found.alone is not None
    assert found.proportional is None
    assert "All events came at one time, so nothing says whether hazards stay proportional." in found.notes


def refusal(folder: Path, **changes: Any) -> str:
    with pytest.raises(InputError) as error:
        load_study(survival_study(folder, followed(20), **changes))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_methods_for_classes_are_refused_with_their_key(tmp_path: Path) -> None:
    assert "recipe.selection.methods: 'chi2' cannot rank features for times to an event; use some of cox_score" in refusal(
        tmp_path, recipe={"selection": {"methods": ["cox_score", "chi2"]}}
    )
    assert "recipe.selection.methods: 'rfe'" in refusal(tmp_path, recipe={"selection": {"methods": ["rfe"], "votes": 1}})
    assert "recipe.selection.votes is 5, but only 4 methods vote" in refusal(tmp_path, recipe={"selection": {"votes": 5}})


def test_methods_for_times_are_refused_for_classes(tmp_path: Path) -> None:
    said = refusal(
        tmp_path,
        cohort={"endpoint": {"kind": "binary", "column": "relapse"}, "drop": ["months"]},
        recipe={"selection": {"methods": ["cox_score"]}},
    )
    assert "recipe.selection.methods: 'cox_score' cannot rank features for classes; use some of chi2" in said


def test_sensitivity_and_specificity_cannot_choose_the_threshold(tmp_path: Path) -> None:
    assert "recipe.threshold: 'youden' needs two classes" in refusal(tmp_path, recipe={"threshold": "youden"})


def test_a_signature_that_is_learnt_from_classes_is_refused_before_anything_is_learnt(tmp_path: Path) -> None:
    signature = {"signature": {"signature": "fjeldbo2016", "method": "diagonal_lda"}}
    study = load_study(survival_study(tmp_path, with_six_genes(60), recipe=signature))
    with pytest.raises(InputError, match="diagonal_lda"):
        draw_held_out(study, load_cohorts(study))


def test_too_few_genes_of_a_signature_are_refused_before_anything_is_learnt(tmp_path: Path) -> None:
    table = with_six_genes(60).drop(columns=list(SIX[:4]))
    study = load_study(survival_study(tmp_path, table, recipe={"signature": {"signature": "fjeldbo2016", "method": "votes"}}))
    with pytest.raises(InputError, match=r"2 of (the )?6 genes"):
        draw_held_out(study, load_cohorts(study))


def with_six_genes(patients: int = 90, seed: int = 0) -> pd.DataFrame:
    table = followed(patients, p=6, signal=1.0, seed=seed)
    return table.rename(columns=dict(zip([f"g{number:02d}" for number in range(6)], SIX, strict=True)))


@pytest.mark.parametrize("method", ["votes", "mean_z"])
def test_a_signatures_reference_values_are_those_of_training_patients_alone(tmp_path: Path, method: str) -> None:
    recipe = {"signature": {"signature": "fjeldbo2016", "method": method}}
    study, cohort, held_out = loaded(tmp_path, with_six_genes(), recipe=recipe)
    spoilt = cohort.features.copy()
    spoilt.loc[cohort.patients.isin(held_out).to_numpy()] += 50.0
    fitted = []
    for one in (cohort, replace(cohort, table=FeatureTable(spoilt))):
        development = one.of_patients(pd.Index(sorted(set(one.patients) - set(held_out))))
        fitted.append(fit_recipe(study.recipe, development, np.random.default_rng(0), HERE))
    np.testing.assert_array_equal(*(one.predict(cohort.inputs) for one in fitted))
    np.testing.assert_array_equal(*(one.scored(cohort.inputs) for one in fitted))
    assert fitted[0].threshold == fitted[1].threshold
    assert fitted[0].score == fitted[1].score
    if method == "votes":
        outside = cohort.patients.isin(held_out).to_numpy()
        of_training = cohort.features.loc[~outside, list(fitted[0].schema.names)].median()
        np.testing.assert_allclose(fitted[0].pipeline[0].median_, of_training, rtol=1e-12)


def test_a_signature_calls_by_its_score_and_is_related_to_the_outcome_of_every_patient(tmp_path: Path) -> None:
    study, cohort, held_out = loaded(
        tmp_path, with_six_genes(), recipe={"signature": {"signature": "fjeldbo2016", "method": "mean_z"}}
    )
    found = run(study, cohort, held_out, HERE)
    predictions = found.held_out.predictions
    assert found.fitted.score is not None
    assert (predictions["called"] == (predictions["score"] >= found.fitted.score.cutoff)).all()
    assert set(found.prognosis) == {"held out", "internal", "every patient"}
    assert len(found.prognosis["every patient"].patients) == 90
    assert found.prognosis["every patient"].alone.table["hazard_ratio"].iloc[0] > 1.2


@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")  # SurvSet's pickles name numpy's modules of old
def test_the_buffa_signature_tells_the_outcome_of_gse1992_as_strongly_as_is_known(tmp_path: Path) -> None:
    body = yaml.safe_load((CONFIGS / "gse1992_signature_survival.yaml").read_text())
    study = Study.model_validate(
        body | {"baselines": [], "evaluation": {"bootstrap": 100, "internal": {"folds": 3, "repeats": 1}}}
    )
    cohorts = load_cohorts(study)
    found = run(study, cohorts[""], draw_held_out(study, cohorts), HERE)
    alone = found.prognosis["every patient"].as_json()
    assert (alone["patients"], len(cohorts[""].features)) == (124, 124)
    assert alone["hazard_ratio_per_sd"]["hazard_ratio"] == pytest.approx(1.6, abs=0.15)  # science.md section 4
    assert alone["hazard_ratio_per_sd"]["lower"] > 1
