"""The score of a registered model as a biomarker: out of sample for every patient, or refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from survival_made import SMALL_SEARCH, composite_study, followed, survival_study

from features.bundle import load_bundle
from features.errors import InputError
from features.signatures import find_signature
from training.components import component_scores
from training.composite.study import CompositeStudy
from training.composite.train import load_biomarkers
from training.config import Study, load_study
from training.run import load_cohorts
from training.studies import read_study
from training.tracking import Store, open_store
from training.train import scores_of, train_study

CLASSES: dict[str, Any] = {"selection": {"methods": ["correlation"], "top": 6, "votes": 1}, "search": SMALL_SEARCH["search"]}
SIX = find_signature("fjeldbo2016").genes


@dataclass(frozen=True)
class Registered:
    """Models on 60 patients, ten of whom have two lesions, in one store."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/store/mlflow.db"

    @property
    def store(self) -> Store:
        return open_store(self.uri)

    def artifacts(self, name: str) -> Path:
        client = MlflowClient(self.uri, registry_uri=self.uri)
        return Path(client.get_model_version(name, "1").source.removeprefix("file://")).parent


def lesions() -> pd.DataFrame:
    """Patients with the six genes, a class that these tell, and an imaging value; ten have two lesions."""
    table = followed(60, p=6)
    table = table.rename(columns=dict(zip([f"g{number:02d}" for number in range(6)], SIX, strict=True)))
    rng = np.random.default_rng(4)
    hypoxic = table[list(SIX[:3])].sum(axis=1) + rng.normal(size=60) > 0
    table = table.assign(hypoxic=hypoxic.astype(int), fraction=rng.uniform(size=60).round(4))
    second = table.iloc[:10].assign(ID=lambda frame: frame["ID"] + "b", **{SIX[0]: lambda frame: frame[SIX[0]] + 0.3})
    return pd.concat([table, second], ignore_index=True)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    """A classifier, one that was never judged internally, and a signature's model of times."""
    made = Registered(tmp_path_factory.mktemp("components"))
    of_classes = {"endpoint": {"kind": "binary", "column": "hypoxic"}, "drop": ["months", "relapse", "fraction"]}
    internal = {"bootstrap": 100, "internal": {"folds": 3, "repeats": 2}}
    studies: list[dict[str, Any]] = [
        {"cohort": of_classes, "recipe": CLASSES, "model": "hypoxia-class", "evaluation": internal, "baselines": []},
        {"cohort": of_classes, "recipe": CLASSES, "model": "unjudged", "evaluation": {"bootstrap": 100, "internal": None}},
        {
            "cohort": {"drop": ["hypoxic", "fraction"]},
            "recipe": {"signature": {"signature": "fjeldbo2016", "method": "mean_z"}},
            "model": "six-genes",
            "evaluation": internal,
            "baselines": [],
        },
    ]
    for changes in studies:
        train_study(load_study(survival_study(made.folder, lesions(), **changes)), made.uri)
    return made


def test_scores_are_the_mean_out_of_fold_predictions_and_those_of_held_out_patients(registered: Registered) -> None:
    found = component_scores(registered.store, "hypoxia-class")
    folder = registered.artifacts("hypoxia-class")
    internal, held_out = (pd.read_csv(folder / f"{name}.csv") for name in ("predictions_internal", "predictions"))
    assert internal.groupby("sample").size().eq(2).all()  # repeats
    for table in (internal, held_out):
        linear = np.log(table["probability"] / (1 - table["probability"]))
        models = linear.groupby([table["repeat"], table["fold"]])
        table["scaled"] = (linear - models.transform("mean")) / models.transform("std", ddof=0)
    expected = {patient: rows["scaled"].mean() for table in (internal, held_out) for patient, rows in table.groupby("patient")}
    assert found.scores.to_dict() == pytest.approx(expected, abs=1e-9)
    assert len(expected) == 60
    assert (found.name, found.version, found.title) == ("hypoxia-class", "1", "hypoxia-class:1")
    shipped = (
        pd.Series(
            load_bundle(found.bundle_folder).score(
                load_bundle(found.bundle_folder).schema.conform(lesions().set_index("ID")).to_numpy()
            ),
            index=lesions()["patient"],
        )
        .groupby(level=0)
        .mean()
    )
    scaled = (np.log(shipped / (1 - shipped)) - found.centre) / found.spread
    learnt = sorted(set(internal["patient"]))
    assert np.abs(found.scores[learnt] - scaled[learnt]).max() > 0.001, "not those of the shipped model, which knows them"


def test_the_score_behind_the_probability_is_taken_where_there_is_one(registered: Registered) -> None:
    found = component_scores(registered.store, "six-genes:1")
    folder = registered.artifacts("six-genes")
    tables = [pd.read_csv(folder / f"{name}.csv") for name in ("predictions_internal", "predictions")]
    expected = pd.concat(tables).groupby("patient")["score"].mean()
    assert found.scores.to_dict() == pytest.approx(expected.to_dict(), abs=1e-12)
    assert found.card.score is not None


def test_a_model_that_was_registered_from_in_sample_scores_is_refused(registered: Registered) -> None:
    with pytest.raises(
        InputError, match=r"unjudged:1 was registered without out-of-fold predictions \(evaluation.internal: null"
    ):
        component_scores(registered.store, "unjudged")


def test_an_unknown_model_is_refused(registered: Registered) -> None:
    with pytest.raises(InputError, match="did you mean 'hypoxia-class'"):
        component_scores(registered.store, "hypoxia-clas")


def test_a_run_is_no_name_of_a_model(registered: Registered) -> None:
    client = MlflowClient(registered.uri, registry_uri=registered.uri)
    run_id = client.get_model_version("hypoxia-class", "1").run_id
    with pytest.raises(InputError, match=f"'{run_id}' is a run; name the model"):
        component_scores(registered.store, run_id)


def in_sample(table: pd.DataFrame) -> pd.DataFrame:
    """As if the model had seen the label."""
    return table.assign(probability=table["probability"] * 0.2 + table["label"] * 0.7)


def swapped(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def swap(table: pd.DataFrame) -> pd.DataFrame:
        order = table[column].sort_values().to_numpy()
        return table.assign(**{column: np.where(table["label"] == 1, order[-1], order[0])})

    return swap


def renamed(table: pd.DataFrame) -> pd.DataFrame:
    """Patients of one repeat, fold and label in another order: every estimate stays what it was."""
    found = table.copy()
    for rows in table.groupby(["repeat", "fold", "label"]).indices.values():
        found.loc[rows, ["sample", "patient"]] = table.loc[np.roll(rows, 1), ["sample", "patient"]].to_numpy()
    return found


TAMPERED: dict[str, tuple[str, str, Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "in-sample scores": ("hypoxia-class", "predictions_internal", in_sample, "not those that its card was judged by"),
    "one of a hundred": (
        "hypoxia-class",
        "predictions_internal",
        lambda table: table.assign(probability=table["probability"].where(table.index != 5, 0.999)),
        "not those that its card was judged by",
    ),
    "held out": ("hypoxia-class", "predictions", in_sample, "not those that its card was judged by"),
    "risks": ("six-genes", "predictions_internal", in_sample, "not those that its card was judged by"),
    "follow-up": (
        "six-genes",
        "predictions_internal",
        lambda table: table.assign(time=table["time"].sample(frac=1, random_state=0).to_numpy()),
        "not those that its card was judged by",
    ),
    "scores": ("six-genes", "predictions_internal", swapped("score"), "not those that its card was judged by"),
    "patients renamed": ("hypoxia-class", "predictions_internal", renamed, "not those that its card was judged by"),
    "a patient missing": (
        "hypoxia-class",
        "predictions_internal",
        lambda table: table[table["patient"] != table["patient"].iloc[0]],
        "not one per development sample and repeat",
    ),
    "one fold": ("hypoxia-class", "predictions_internal", lambda table: table.assign(fold=0), "from several folds"),
    "twice": (
        "hypoxia-class",
        "predictions_internal",
        lambda table: pd.concat([table, table.iloc[:1]]),
        "not one per development sample and repeat",
    ),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_predictions_that_were_changed_after_training_are_refused(what: str, registered: Registered, tmp_path: Path) -> None:
    model, file, change, sentence = TAMPERED[what]
    path, kept = registered.artifacts(model) / f"{file}.csv", tmp_path / "kept.csv"
    shutil.copy(path, kept)
    try:
        change(pd.read_csv(path)).to_csv(path, index=False)
        with pytest.raises(InputError, match=sentence):
            component_scores(registered.store, model)
    finally:
        shutil.copy(kept, path)
    component_scores(registered.store, model)


def test_scores_are_features_of_another_study(registered: Registered, tmp_path: Path) -> None:
    path = survival_study(
        tmp_path, lesions(), cohort={"features": [], "drop": ["hypoxic", "fraction"]}, scores={"hypoxia": "hypoxia-class:1"}
    )
    study = load_study(path)
    assert isinstance(study, Study)
    cohort = load_cohorts(study, scores_of(study, registered.uri))[""]
    scores = component_scores(registered.store, "hypoxia-class").scores
    assert list(cohort.features.columns) == ["hypoxia"]
    assert cohort.features["hypoxia"].tolist() == [scores[patient] for patient in cohort.patients]


def test_a_store_that_is_not_there_is_not_made_to_look_for_a_model(tmp_path: Path) -> None:
    study = load_study(survival_study(tmp_path, lesions(), scores={"hypoxia": "hypoxia-class"}))
    with pytest.raises(InputError, match="'hypoxia-class' is to be found in sqlite"):
        scores_of(study, f"sqlite:///{tmp_path}/nowhere/mlflow.db")
    assert not (tmp_path / "nowhere").exists()


def composite(folder: Path, table: pd.DataFrame, **changes: Any) -> CompositeStudy:
    given = {"source": {"kind": "table", "path": "two.csv", "sample": "ID"}, "patient": "patient"}
    body: dict[str, Any] = {
        "cohort": {**given, "endpoint": {"kind": "survival", "time": "months", "event": "relapse", "horizon": 60}},
        "imaging": {"kind": "column", "column": "fraction"},
        "genes": {"kind": "model", "model": "hypoxia-class"},
    }
    study = read_study(composite_study(folder, table, **(body | changes)))
    assert isinstance(study, CompositeStudy)
    return study


def test_a_composite_takes_the_scores_of_patients_who_have_one_and_says_who_has_none(
    registered: Registered, tmp_path: Path
) -> None:
    table = lesions().iloc[:60]
    strangers = table.iloc[:4].assign(ID=["x1", "x2", "x3", "x4"], patient=["q1", "q2", "q3", "q4"])
    measured = load_biomarkers(composite(tmp_path, pd.concat([table, strangers])), registered.uri)
    scores = component_scores(registered.store, "hypoxia-class").scores
    assert list(measured.cohort.features.columns) == ["fraction", "hypoxia-class"]
    np.testing.assert_allclose(measured.of_everyone()[:, 1], scores[measured.cohort.patients])
    assert "4 of 64 samples have no out-of-sample score 'hypoxia-class' and were left out." in measured.cohort.notes
    assert measured.cutoff(0) is None
    part = measured.components["genes"]
    back = measured.scale.inverse_transform([[0.0, measured.cutoff(1)]])[0, 1]
    assert back == pytest.approx(part.card.threshold, abs=1e-12), "the model's own threshold, on the scale of its scores"


def test_a_composite_of_an_unjudged_model_is_refused(registered: Registered, tmp_path: Path) -> None:
    study = composite(tmp_path, lesions().iloc[:60], genes={"kind": "model", "model": "unjudged"})
    with pytest.raises(InputError, match="without out-of-fold predictions"):
        load_biomarkers(study, registered.uri)


def test_the_cutoff_of_a_score_is_its_own(registered: Registered, tmp_path: Path) -> None:
    study = composite(tmp_path, lesions().iloc[:60], genes={"kind": "model", "model": "six-genes"})
    measured = load_biomarkers(study, registered.uri)
    card = measured.components["genes"].card
    assert card.score is not None
    assert measured.cutoff(1) == card.score.cutoff
