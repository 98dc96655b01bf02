"""Pairs of models on the same made-up patients, whose merits are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm

from features.bundle import CompositeCard, Estimate, ModelCard, Part
from features.table import FeatureSchema
from training.gate_measures import yardstick_of

HORIZON = 60.0


@dataclass(frozen=True)
class Rival:
    """What the gate must know of a model."""

    name: str
    version: str
    card: ModelCard
    predictions: pd.DataFrame
    schema: FeatureSchema
    internal: pd.DataFrame | None = None
    permutation_p: float | None = None

    def with_predictions(self, predictions: pd.DataFrame) -> Rival:
        return replace(self, predictions=predictions, card=card_of(predictions, horizon=self.card.horizon))


def rival(predictions: pd.DataFrame, version: str = "1", features: int = 4) -> Rival:
    names = [f"f{number}" for number in range(features)]
    return Rival("toy-hypoxia", version, card_of(predictions), predictions, FeatureSchema.of(names))


def survival_rival(predictions: pd.DataFrame, version: str = "1", horizon: float = HORIZON) -> Rival:
    return replace(rival(predictions, version), card=card_of(predictions, horizon=horizon))


def composite_rival(predictions: pd.DataFrame, version: str = "1", permutation_p: float | None = 0.01, folds: int = 5) -> Rival:
    """A composite with three repeats of its cross-validation, of which the first is the typical one."""
    rng, n = np.random.default_rng(0), len(predictions)
    repeats = [predictions.assign(repeat=number, fold=rng.permutation(n) % folds) for number in range(3)]
    internal = pd.concat(repeats, ignore_index=True)
    card = card_of(internal, horizon=HORIZON)
    parts = (Part(name="fraction", modality="imaging", source="column"), Part(name="genes", modality="genes", source="column"))
    about = {"held_out": {}, "internal": card.held_out, "held_out_patients": 0}
    composite = CompositeCard(rule="separating_line", parts=parts, words="separating line")
    card = card.model_copy(update={**about, "composite": composite})
    return Rival("toy-hypoxia", version, card, repeats[0], FeatureSchema.of(["fraction", "genes"]), internal, permutation_p)


def survival_pair(
    rng: np.random.Generator, n: int = 200, told: tuple[float, float] = (0.5, 0.5), lost: float = 0.2
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of two models of times to an event until 60 months, under proportional hazards.

    Parameters
    ----------
    told : pair of float
        Correlation of each model's score with the true log hazard, whose standard deviation is 1.5; 0 is noise.
    lost : float
        Share of patients who are lost to follow-up at a random time before the horizon.
    """
    truth = rng.normal(size=n)
    until = -np.log(rng.random(n)) / (0.01 * np.exp(1.5 * truth))
    leaving = np.where(rng.random(n) < lost, rng.uniform(1, HORIZON, size=n), HORIZON)
    time, event = np.minimum(until, leaving), until < leaving
    return tuple(predicted_risks(rng, truth, time, event, one) for one in told)  # type: ignore[return-value]


def predicted_risks(
    rng: np.random.Generator, truth: np.ndarray, time: np.ndarray, event: np.ndarray, told: float
) -> pd.DataFrame:
    score = told * truth + np.sqrt(1 - told**2) * rng.normal(size=len(truth))
    probability = 1 - np.exp(-0.6 * np.exp(1.3 * max(told, 0.1) * score))
    return pd.DataFrame(
        {
            "sample": [f"s{number}" for number in range(len(truth))],
            "patient": [f"p{number}" for number in range(len(truth))],
            "label": event.astype(int),
            "probability": probability,
            "threshold": 0.45,
            "called": probability >= 0.45,
            "repeat": 0,
            "fold": 0,
            "time": time,
        }
    )


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


def card_of(predictions: pd.DataFrame, data_hash: str = "d" * 64, horizon: float | None = None) -> ModelCard:
    yardstick = yardstick_of(horizon)
    values = {metric.name: yardstick.measure(predictions, metric.name) for metric in yardstick.metrics}
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
        horizon=horizon,
        time_unit="months" if horizon else None,
    )
