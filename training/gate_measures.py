"""By what the gate measures a model: one yardstick for two classes, one for times to an event."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from training.calibration import slopes
from training.horizon import observed_risk
from training.metrics import METRICS, Metric
from training.paired import measured
from training.survival.metrics import SURVIVAL_METRICS


@dataclass(frozen=True)
class Yardstick:
    """Measures of one kind of model.

    Attributes
    ----------
    rank : str
        Metric by which models are compared: higher is better, 0.5 is chance.
    rank_name : str
        As it is printed.
    brier : str
        Metric of the probabilities: lower is better.
    observed : str
        What the mean probability is held against, in words.
    constant : str
        The model without information that a first version's Brier score is held against, in words.
    horizon : float or None
        Of times to an event.
    composite : bool
        Whether it is judged on the out-of-fold scores to which its risk was fitted.
    """

    rank: str
    rank_name: str
    brier: str
    observed: str
    constant: str
    horizon: float | None = None
    composite: bool = False

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What a card must say."""
        return METRICS if self.horizon is None else SURVIVAL_METRICS

    def measure(self, predictions: pd.DataFrame, metric: str) -> float:
        """One measure; NaN where it is undefined."""
        return float(measured(predictions, metric, np.ones((1, len(predictions))), self.horizon)[0])

    def without_information(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """The same patients, all with the probability that was observed."""
        return predictions.assign(probability=self._observed(predictions))

    def gap(self, predictions: pd.DataFrame) -> float | None:
        """Mean probability less what was observed; None where nobody was followed up to the horizon."""
        gap = float(predictions["probability"].mean() - self._observed(predictions))
        return None if math.isnan(gap) else gap

    def slope(self, predictions: pd.DataFrame) -> float | None:
        """Calibration slope: 1 is right, below 1 the probabilities are too extreme; None where it cannot be estimated."""
        if self.horizon is not None:
            found = self.measure(predictions, "calibration_slope")
        else:
            y, probability = predictions["label"].to_numpy(), predictions["probability"].to_numpy()
            found = float(slopes(y, probability, np.ones((1, len(predictions))))[0])
        return None if math.isnan(found) else found

    def _observed(self, predictions: pd.DataFrame) -> float:
        return float(predictions["label"].mean()) if self.horizon is None else observed_risk(predictions, self.horizon)


CLASSES = Yardstick("roc_auc", "AUC", "brier", "share of events", "a constant, the share of events,")


def yardstick_of(horizon: float | None, *, composite: bool = False) -> Yardstick:
    """What a model is measured by.

    Parameters
    ----------
    horizon : float or None
        None: a model of two classes.
    composite : bool
        See `Yardstick`.
    """
    if horizon is None:
        return CLASSES
    observed = "observed risk by the horizon (Kaplan-Meier)"
    constant = "the risk of all, by Kaplan-Meier,"
    return Yardstick("c_index", "C-index", "brier_at_horizon", observed, constant, horizon, composite)
