"""A small model, saved and registered as training does it: what the tests of serving start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from features.bundle import Estimate, ModelBundle, ModelCard, save_bundle
from features.contract import ContractSettings, contract_of
from features.store import switch_telemetry_off
from features.table import FeatureSchema

FEATURES = ("volume", "entropy", "original_glcm_Contrast", "CA9")
NAME = "small-hypoxia"


@dataclass(frozen=True)
class Registered:
    """A model in a store of its own, and the pipeline that it must agree with."""

    uri: str
    name: str
    folder: Path
    bundle: ModelBundle

    def probabilities(self, rows: list[dict[str, float]]) -> list[float]:
        """The pipeline's own, on a matrix put together by hand."""
        matrix = np.array([[row[name] for name in FEATURES] for row in rows])
        return [float(value) for value in self.bundle.pipeline.predict_proba(matrix)[:, 1]]


def small_bundle(seed: int = 0, missing: Literal["refuse", "impute"] = "refuse") -> ModelBundle:
    """Logistic regression on 60 made-up samples of four features on very different scales."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, len(FEATURES))) * [1e4, 1.0, 50.0, 3.0]
    y = (X[:, 0] / 1e4 - X[:, 3] / 3 + rng.normal(size=60) > 0).astype(int)
    steps = [("impute", SimpleImputer()), ("scale", StandardScaler()), ("classify", LogisticRegression())]
    return ModelBundle(
        pipeline=Pipeline(steps).fit(X, y),
        schema=FeatureSchema.of(FEATURES),
        card=_card(y),
        contract=contract_of(pd.DataFrame(X, columns=FEATURES), ContractSettings(missing=missing), aliases={"CAIX": "CA9"}),
        background=rng.permuted(X[:20], axis=0),
    )


def rows_like_training(number: int, seed: int = 1) -> list[dict[str, float]]:
    """Rows of the small model's features."""
    values = np.random.default_rng(seed).normal(size=(number, len(FEATURES))) * [1e4, 1.0, 50.0, 3.0]
    return [dict(zip(FEATURES, row, strict=True)) for row in values.tolist()]


def register(
    bundle: ModelBundle,
    root: Path,
    name: str = NAME,
    alias: str | None = None,
    golden: np.ndarray | None = None,
    components: Mapping[str, Path] | None = None,
) -> Registered:
    """Save a bundle as the artifact of a run and register it, as the next version of its name."""
    switch_telemetry_off()
    from mlflow import MlflowClient

    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name("tests")
    chosen = experiment.experiment_id if experiment else client.create_experiment("tests", (root / "artifacts").as_uri())
    run = client.create_run(chosen)
    folder = Path(run.info.artifact_uri.removeprefix("file://")) / "bundle"
    save_bundle(bundle, folder, np.zeros((2, len(FEATURES))) if golden is None else golden, components)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    version = client.create_model_version(name, source=f"{run.info.artifact_uri}/bundle", run_id=run.info.run_id)
    if alias:
        client.set_registered_model_alias(name, alias, str(version.version))
    return Registered(uri, name, folder, bundle)


def _card(y: np.ndarray) -> ModelCard:
    return ModelCard(
        name=NAME,
        study="small",
        created="2026-01-01T00:00:00Z",
        endpoint="made up",
        samples=len(y),
        events=int(y.sum()),
        patients=len(y),
        held_out_patients=0,
        threshold=0.4,
        threshold_origin="made up",
        pipeline="logistic regression",
        held_out={"roc_auc": Estimate(value=None, reason="no held-out patients")},
        fingerprint="0" * 64,
        data_hash="0" * 64,
        versions={},
    )
