"""Pairs of models on the same made-up patients, with areas under the ROC curve that are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm

from features.bundle import Estimate, ModelCard
from features.table import FeatureSchema
from training.metrics import METRICS
from training.paired import measured


@dataclass(frozen=True)
class Rival:
    """What the gate must know of a model."""

    name: str
    version: str
    card: ModelCard
    predictions: pd.DataFrame
    schema: FeatureSchema

    def with_predictions(self, predictions: pd.DataFrame) -> Rival:
        return replace(self, predictions=predictions, card=card_of(predictions))


def rival(predictions: pd.DataFrame, version: str = "1", features: int = 4) -> Rival:
    names = [f"f{number}" for number in range(features)]
    return Rival("toy-hypoxia", version, card_of(predictions), predictions, FeatureSchema.of(names))


def pair(
    rng: np.random.Generator,
    n: int = 60,
    events: int = 30,
    aucs: tuple[float, float] = (0.75, 0.75),
    shared: float = 0.5,
    lesions: int = 1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of two models, binormal with the given areas; their probabilities are calibrated.

    Parameters
    ----------
    shared : float
        Correlation of the two scores within a class.
    lesions : int
        Rows per patient, which share two thirds of their variance.
    """
    label = (np.arange(n) < events).astype(int).repeat(lesions)
    common, *own = (noise(rng, n, lesions) for _ in range(3))
    return tuple(  # type: ignore[return-value]
        predicted(label, np.sqrt(shared) * common + np.sqrt(1 - shared) * one, auc, lesions)
        for one, auc in zip(own, aucs, strict=True)
    )


def noise(rng: np.random.Generator, n: int, lesions: int) -> np.ndarray:
    if lesions == 1:
        return rng.normal(size=n)
    return np.sqrt(2 / 3) * rng.normal(size=n).repeat(lesions) + np.sqrt(1 / 3) * rng.normal(size=n * lesions)


def predicted(label: np.ndarray, scatter: np.ndarray, auc: float, lesions: int = 1) -> pd.DataFrame:
    apart = np.sqrt(2) * norm.ppf(auc)
    score = scatter + apart * (label - 0.5)
    share = label.mean()
    probability = expit(max(apart, 0.3) * score + np.log(share / (1 - share)))
    return pd.DataFrame(
        {
            "sample": [f"s{number}" for number in range(len(label))],
            "patient": [f"p{number // lesions}" for number in range(len(label))],
            "label": label,
            "probability": probability,
            "threshold": 0.5,
            "called": probability >= 0.5,
            "repeat": 0,
            "fold": 0,
        }
    )


def card_of(predictions: pd.DataFrame, data_hash: str = "d" * 64) -> ModelCard:
    once = np.ones((1, len(predictions)))
    values = {metric.name: float(measured(predictions, metric.name, once)[0]) for metric in METRICS}
    return ModelCard(
        name="toy-hypoxia",
        study="toy",
        created="2026-01-01T00:00:00Z",
        endpoint="made up",
        samples=200,
        events=100,
        patients=200,
        held_out_patients=predictions["patient"].nunique(),
        threshold=0.5,
        threshold_origin="made up",
        pipeline="logistic regression",
        held_out={name: Estimate(value=None if np.isnan(value) else value, reason="undefined") for name, value in values.items()},
        fingerprint="f" * 64,
        data_hash=data_hash,
        versions={"python": "3.11"},
    )
