"""Judged models of times to an event, and composites, written into a store as training writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import yaml
from recorded import SETTINGS, card_of, recorded_model, table_of
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from toy import toy_study

from features.bundle import ModelBundle, save_bundle
from features.contract import ContractSettings, contract_of
from features.outcome import survival_outcome
from features.risk import CoxRisk
from features.store import switch_telemetry_off
from features.table import FeatureSchema
from training.composite.record import record_composite
from training.composite.run import run_composite
from training.composite.study import CompositeStudy
from training.composite.train import load_biomarkers
from training.config import Study
from training.evaluation import evaluate
from training.tracking import open_store, started_run

HORIZON = 60.0
ENDPOINT = {"kind": "survival", "time": "months", "event": "status", "horizon": HORIZON}


def followed(patients: int, seed: int = 0, p: int = 5) -> pd.DataFrame:
    """Patients with a follow-up that goes beyond the horizon; f0 and f1 shorten it, age a little.

    Columns: sample, patient, months, status, age, f0...
    """
    rng = np.random.default_rng(seed)
    values, age = rng.normal(size=(patients, p)), rng.normal(60, 10, size=patients)
    until = rng.exponential(90 * np.exp(-0.9 * values[:, 0] - 0.9 * values[:, 1] - 0.02 * (age - 60)))
    leaving = rng.uniform(20, 120, size=patients)
    names = {
        "sample": [f"t{seed}s{i:03d}" for i in range(patients)],
        "patient": [f"t{seed}p{i:03d}" for i in range(patients)],
        "months": np.minimum(until, leaving).clip(0.1),
        "status": (until < leaving).astype(int),
        "age": age,
    }
    return pd.DataFrame(names).join(pd.DataFrame(values, columns=[f"f{i}" for i in range(p)]))


def survival_study(horizon: float = HORIZON, clinical: Sequence[str] = ()) -> Study:
    source = {"kind": "table", "path": "toy.csv", "sample": "sample"}
    recipe = {"selection": {"methods": ["cox_score"], "votes": 1}, "search": {"kind": "optuna", "trials": 6, "folds": 3}}
    cohort = {"source": source, "endpoint": {**ENDPOINT, "horizon": horizon}, "clinical": list(clinical)}
    return toy_study(cohort=cohort, recipe=recipe)


def recorded_survival_model(
    root: Path,
    name: str,
    features: Sequence[str],
    held_out: pd.DataFrame,
    *,
    horizon: float = HORIZON,
    clinical: Sequence[str] = (),
) -> str:
    """Fit a Cox regression on other patients, judge it on the held-out table, write and register the run; returns its id."""
    switch_telemetry_off()
    from mlflow import MlflowClient

    study, learnt, columns = survival_study(horizon, clinical), followed(150, seed=99), list(features)
    seen = [study.cohort.endpoint.label(one) for one in (learnt, held_out)]
    outcome = survival_outcome(seen[0].times.to_numpy(), seen[0].labels.to_numpy())
    pipeline = Pipeline([("scale", StandardScaler()), ("risk", CoxRisk(horizon=horizon))]).fit(
        learnt[columns].to_numpy(), outcome
    )
    threshold = float(np.median(pipeline.predict_proba(learnt[columns].to_numpy())[:, 1]))
    probability = pipeline.predict_proba(held_out[columns].to_numpy())[:, 1]
    predictions = held_out[["sample", "patient"]].assign(
        label=seen[1].labels.astype(int),
        probability=probability,
        threshold=threshold,
        called=probability >= threshold,
        repeat=0,
        fold=0,
        time=seen[1].times,
    )
    estimates = evaluate(predictions, SETTINGS, np.random.default_rng(0), horizon).estimates
    outcomes = [one.assign(Target=labels.labels) for one, labels in zip((learnt, held_out), seen, strict=True)]
    card = card_of(name, *outcomes, estimates, threshold)
    bundle = ModelBundle(
        pipeline,
        FeatureSchema.of(columns),
        card.model_copy(
            update={"horizon": horizon, "time_unit": "months", "positive_label": "high risk", "negative_label": "low risk"}
        ),
        contract_of(learnt[columns], ContractSettings()),
        learnt[columns].quantile([0.2, 0.5, 0.8]).to_numpy(),
    )
    root.mkdir(exist_ok=True)
    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("toy")
    chosen = experiment.experiment_id if experiment else client.create_experiment("toy", (root / "artifacts").as_uri())
    run = client.create_run(chosen)
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    save_bundle(bundle, folder / "bundle", learnt[columns].quantile([0.3, 0.6]).to_numpy())
    predictions.to_csv(folder / "predictions.csv", index=False)
    splits = {"train": learnt["sample"].tolist(), "test": held_out["sample"].tolist()}
    (folder / "splits.json").write_text(json.dumps({**splits, "train_patients": learnt["patient"].tolist()}))
    (folder / "study.yaml").write_text(yaml.safe_dump(study.model_dump(mode="json")))
    client.set_terminated(run.info.run_id)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    client.create_model_version(name, source=f"{run.info.artifact_uri}/bundle", run_id=run.info.run_id)
    return str(run.info.run_id)


def recorded_composite(
    root: Path, name: str, biomarkers: tuple[str, str], rule: str = "separating_line", patients: int = 120
) -> str:
    """Train a composite of two columns on patients of its own by the real procedure, cut short; returns the run's id."""
    root.mkdir(exist_ok=True)
    followed(patients, seed=50).to_csv(root / "both.csv", index=False)
    imaging, genes = ({"kind": "column", "column": column} for column in biomarkers)
    source = {"kind": "table", "path": "both.csv", "sample": "sample"}
    study = CompositeStudy.model_validate(
        {
            "kind": "composite",
            "name": "toy-composite",
            "seed": 1,
            "model": name,
            "cohort": {"source": source, "endpoint": ENDPOINT, "patient": "patient"},
            "imaging": imaging,
            "genes": genes,
            "composite": {"kind": rule},
            "evaluation": {"permutations": 99, "folds": 4, "repeats": 2, "bootstrap": 50},
        }
    )
    study._folder = root
    uri = f"sqlite:///{root / 'mlflow.db'}"
    store, measured = open_store(uri), load_biomarkers(study, uri)
    no_figures = patch("training.composite.record.composite_figures", return_value={})  # seconds, and nobody looks at them
    with no_figures, started_run(store, study, {"data_hash": measured.cohort.data_hash, "composite": rule}) as run_id:
        record_composite(store, run_id, run_composite(study, measured))
    return run_id


@cache
def survival_store(root: Path) -> Path:
    """A store with models of times to an event, composites, and a model of two classes; made once, to be read only.

    ``prognosis`` has versions that rank somewhat, rank well, are noise, and are the second again; version 2 of ``composite`` is
    of noise.
    """
    root.mkdir()
    for name, features in (("good", ["f0", "f1"]), ("half", ["f0"]), ("noise", ["f3", "f4"])):
        recorded_survival_model(root, name, features, HELD_OUT)
    recorded_survival_model(root, "short", ["f0", "f1"], HELD_OUT, horizon=36.0)
    moved = HELD_OUT.assign(months=HELD_OUT["months"] * np.where(HELD_OUT["months"] < HORIZON, 0.9, 1))
    recorded_survival_model(root, "other-times", ["f0", "f1"], moved)
    recorded_survival_model(root, "clinical", ["f0", "f1"], HELD_OUT, clinical=["age"])
    for features in (["f0"], ["f0", "f1"], ["f3", "f4"], ["f0", "f1"]):
        recorded_survival_model(root, "prognosis", features, HELD_OUT)
    recorded_model(root, "classes", ["f0", "f1"], table_of(60, seed=1))
    for biomarkers in (("f0", "f1"), ("f3", "f4")):
        recorded_composite(root, "composite", biomarkers)
    EXTERNAL.to_csv(root / "external.csv", index=False)
    return root


def store_of(factory: pytest.TempPathFactory) -> Path:
    """The same store for every test module of this process."""
    return survival_store(factory.getbasetemp() / "survival-store")


HELD_OUT, EXTERNAL = followed(120, seed=1), followed(130, seed=7)
