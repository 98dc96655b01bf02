"""The score of another registered model as a biomarker: out of sample for every patient, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from features.bundle import Estimate, ModelCard
from features.composite import log_odds
from features.errors import InputError
from training.evaluation import all_measures
from training.judged import RUN_ID, JudgedModel, load_judged
from training.tracking import Store, digests_of_predictions

AGREEMENT = 1e-6


@dataclass(frozen=True)
class ComponentScores:
    """Out-of-sample scores of a registered model.

    Attributes
    ----------
    name, version : str
        In the registry.
    scores : Series of shape (n_patients,)
        By patient: the mean over repeats and samples of predictions by models that had not learnt from the patient. Higher
        is more hypoxic. Log odds, each model's in standard deviations of its predictions of patients left out; or the score
        behind the probability, as it is, where the model is one score.
    centre, spread : float
        Mean and standard deviation of the registered model's log odds in its held-out patients; NaN for a score.
    bundle_folder : Path
        The model itself, for new patients.
    """

    name: str
    version: str
    card: ModelCard
    scores: pd.Series
    bundle_folder: Path
    centre: float = float("nan")
    spread: float = float("nan")

    @property
    def cutoff(self) -> float:
        """Where the registered model calls a patient positive, on the scale of the scores."""
        if self.card.score is not None:
            return self.card.score.cutoff
        return float((log_odds(np.array(self.card.threshold)) - self.centre) / self.spread)

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name}:{self.version}"


def component_scores(store: Store, reference: str) -> ComponentScores:
    """Scores of patients by a registered model that had not learnt from them.

    Patients for development have their out-of-fold predictions of the internal validation, held-out patients those of the
    final model. Never the final model's predictions of patients that it learnt from: these know the outcome.

    Parameters
    ----------
    reference : str
        ``NAME``, ``NAME:VERSION`` or ``NAME@ALIAS``.

    Raises
    ------
    InputError
        There is no such model, or some of its patients have in-sample scores only.
    """
    judged = load_judged(store, reference)
    if judged.name is None or judged.version is None or RUN_ID.fullmatch(reference):
        raise InputError(f"{reference!r} is a run; name the model whose score is wanted as NAME:VERSION.")
    if judged.card.judged_out_of_fold:
        kind = "composite" if judged.card.composite is not None else "profile"
        raise InputError(f"{judged.title} is a {kind} itself; a composite's parts are plain models.")
    _refuse_in_sample(judged)
    tables = [one for one in (judged.internal, judged.predictions) if one is not None]
    about = (judged.name, judged.version, judged.card)
    if judged.card.score is not None:
        scores = pd.concat(tables).groupby("patient")["score"].mean().rename(judged.name)
        return ComponentScores(*about, scores, judged.bundle_folder)
    scaled = pd.concat([_standardised(one) for one in tables]).groupby("patient")["scaled"].mean().rename(judged.name)
    centre, spread = _centre_and_spread(log_odds(judged.predictions["probability"].to_numpy()))
    return ComponentScores(*about, scaled, judged.bundle_folder, centre, spread)


def _standardised(predictions: pd.DataFrame) -> pd.DataFrame:
    """Log odds by patient, each model's less their mean and over their standard deviation in the patients it was judged on."""
    linear = pd.Series(log_odds(predictions["probability"].to_numpy()), index=predictions.index)
    models = linear.groupby([predictions["repeat"], predictions["fold"]])
    scaled = models.transform(lambda one: (one - _centre_and_spread(one.to_numpy())[0]) / _centre_and_spread(one.to_numpy())[1])
    return predictions[["patient"]].assign(scaled=scaled)


def _centre_and_spread(linear: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; a spread of one where all are the same."""
    spread = float(linear.std())
    return float(linear.mean()), spread if spread > 0 else 1.0


def _refuse_in_sample(judged: JudgedModel) -> None:
    """Stop at a model of which nobody can say that its scores of the patients it learnt from are out of fold."""
    internal = judged.internal
    if internal is None:
        raise InputError(
            f"{judged.title} was registered without out-of-fold predictions (evaluation.internal: null), so its scores of the "
            "patients that it learnt from are in-sample, and a composite of them would look better than it is; train it with "
            "evaluation.internal."
        )
    per_sample = internal.groupby(["repeat", "sample"]).size()
    missing = judged.learnt_from - set(internal["sample"])
    if (per_sample > 1).any() or missing or internal.groupby("repeat")["fold"].nunique().min() < 2:
        raise InputError(
            f"The out-of-fold predictions of {judged.title} are not one per development sample and repeat, from several folds, "
            "so its scores may be in-sample; train it again."
        )
    card = judged.card
    recorded = ((card.internal, internal), (card.held_out, judged.predictions))
    given = all(_are_those_of_the_card(said, table, card.horizon) and _follow_each_other(table) for said, table in recorded)
    if not given or (card.predictions or {}) != _digests_now(judged):
        raise InputError(
            f"The predictions recorded with {judged.title} are not those that its card was judged by, so its scores may be "
            "in-sample; train it again."
        )


def _digests_now(judged: JudgedModel) -> dict[str, str]:
    """Of the tables of predictions whose digests the card signs; none where it signs none."""
    return digests_of_predictions(judged.bundle_folder.parent) if judged.card.predictions else {}


def _are_those_of_the_card(said: Mapping[str, Estimate] | None, predictions: pd.DataFrame, horizon: float | None) -> bool:
    """Whether recorded predictions give every estimate of the signed card."""
    measured = all_measures(predictions, np.ones((1, len(predictions))), horizon)
    known = {name: one.value for name, one in (said or {}).items() if one.value is not None}
    agree = [name in measured and np.isclose(measured[name][0], value, AGREEMENT, AGREEMENT) for name, value in known.items()]
    return bool(agree) and all(agree)


def _follow_each_other(predictions: pd.DataFrame) -> bool:
    """Whether score and probability, where both are recorded, put the samples of each model in one order."""
    if "score" not in predictions:
        return True
    steps = [
        np.diff(one.sort_values("score", kind="stable")["probability"]) for _, one in predictions.groupby(["repeat", "fold"])
    ]
    return all((step >= -AGREEMENT).all() or (step <= AGREEMENT).all() for step in steps)
