"""Judged models written into a store as training writes them, without training: what comparing starts from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from toy import toy_study

from features.bundle import Estimate, ModelBundle, ModelCard, save_bundle
from features.contract import ContractSettings, contract_of
from features.store import switch_telemetry_off
from features.table import FeatureSchema
from training.evaluation import EvaluationSettings, evaluate

SETTINGS = EvaluationSettings(bootstrap=100, internal=None)


def table_of(patients: int, seed: int = 0, lesions: int = 1, p: int = 6, signal: float = 1.0) -> pd.DataFrame:
    """Labelled samples; features 0 and 1 differ between the classes. Columns: sample, patient, Target, f0..."""
    rng = np.random.default_rng(seed)
    label = (np.arange(patients) % 2).repeat(lesions)
    values = rng.normal(size=(len(label), p))
    values[:, :2] += signal * label[:, None]
    names = {
        "sample": [f"t{seed}s{i:03d}" for i in range(len(label))],
        "patient": [f"t{seed}p{i:03d}" for i in np.arange(patients).repeat(lesions)],
        "Target": label,
    }
    return pd.DataFrame(names).join(pd.DataFrame(values, columns=[f"f{i}" for i in range(p)]))


def recorded_model(
    root: Path,
    name: str,
    features: Sequence[str],
    held_out: pd.DataFrame,
    *,
    development: pd.DataFrame | None = None,
    sequence: str | None = None,
    parent: str | None = None,
    threshold: float = 0.5,
) -> str:
    """Fit a logistic regression, judge it on the held-out table, write and register the run; returns the run's id."""
    switch_telemetry_off()
    from mlflow import MlflowClient

    learnt = table_of(60, seed=99) if development is None else development
    columns = list(features)
    steps = [("scale", StandardScaler()), ("classify", LogisticRegression())]
    pipeline = Pipeline(steps).fit(learnt[columns].to_numpy(), learnt["Target"])
    probability = pipeline.predict_proba(held_out[columns].to_numpy())[:, 1]
    predictions = held_out[["sample", "patient"]].assign(
        label=held_out["Target"], probability=probability, threshold=threshold, called=probability >= threshold, repeat=0, fold=0
    )
    estimates = evaluate(predictions, SETTINGS, np.random.default_rng(0)).estimates
    bundle = ModelBundle(
        pipeline,
        FeatureSchema.of(columns),
        card_of(name, learnt, held_out, estimates, threshold, sequence),
        contract_of(learnt[columns], ContractSettings()),
        learnt[columns].quantile([0.2, 0.5, 0.8]).to_numpy(),
    )
    root.mkdir(exist_ok=True)
    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("toy")
    chosen = experiment.experiment_id if experiment else client.create_experiment("toy", (root / "artifacts").as_uri())
    run = client.create_run(chosen, tags={"mlflow.parentRunId": parent} if parent else {})
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    save_bundle(bundle, folder / "bundle", learnt[columns].quantile([0.3, 0.6]).to_numpy())
    predictions.to_csv(folder / "predictions.csv", index=False)
    splits = {"train": learnt["sample"].tolist(), "test": held_out["sample"].tolist()}
    splits["train_patients"] = learnt["patient"].astype(str).unique().tolist()
    (folder / "splits.json").write_text(json.dumps(splits))
    (folder / "study.yaml").write_text(yaml.safe_dump(toy_study().model_dump(mode="json")))
    client.set_terminated(run.info.run_id)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    client.create_model_version(name, source=f"{run.info.artifact_uri}/bundle", run_id=run.info.run_id)
    return str(run.info.run_id)


def parent_run(root: Path, sequences: Sequence[str]) -> str:
    """The run of a study of several sequences, before its children."""
    switch_telemetry_off()
    from mlflow import MlflowClient

    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.create_experiment("toy", (root / "artifacts").as_uri())
    run = client.create_run(experiment, tags={"hypoxia.sequences": ", ".join(sequences)})
    client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def card_of(
    name: str,
    learnt: pd.DataFrame,
    held_out: pd.DataFrame,
    estimates: dict[str, Estimate],
    threshold: float,
    sequence: str | None = None,
) -> ModelCard:
    """A card that says what was judged."""
    return ModelCard(
        name=name,
        study="toy",
        sequence=sequence,
        created="2026-01-01T00:00:00Z",
        endpoint="made up",
        samples=len(learnt) + len(held_out),
        events=int(learnt["Target"].sum() + held_out["Target"].sum()),
        patients=learnt["patient"].nunique() + held_out["patient"].nunique(),
        held_out_patients=held_out["patient"].nunique(),
        threshold=threshold,
        threshold_origin="fixed in the study",
        pipeline="z-scores, then logistic regression",
        held_out=estimates,
        fingerprint="0" * 64,
        data_hash="1" * 64,
        versions={"python": "3.11", "numpy": "2"},
    )
