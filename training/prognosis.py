"""What out-of-sample risks say of the outcome, and what they add to what is known of a patient anyhow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from features.errors import InputError
from training.survival.checks import or_note
from training.survival.cox import AddedValue, CoxFit, HazardRatio, added_value, cox, hazard_ratio
from training.survival.curves import LogRank, cumulative_incidence, log_rank
from training.survival.discrimination import calibration_at
from training.survival.metrics import log_minus_log
from training.survival.proportional import ProportionalHazards, proportional_hazards

SCORE = "score (per standard deviation)"
COMPETED = 2


@dataclass(frozen=True)
class Prognosis:
    """Association of predictions with time to the event, in patients that no predicting model had learnt from.

    Attributes
    ----------
    patients : DataFrame of shape (n_patients, 5)
        By patient: time, event, risk (mean over repeats and samples), score (that behind the risk where the model is one, else
        the log of minus the log of survival; standardised within each fold, then over all), called (in more than half of the
        predictions).
    alone, adjusted : CoxFit or None
        Of the score, and of the score with the clinical covariates; None where it cannot be fitted, and then a note says why.
    added : AddedValue or None
        What the score adds to the clinical covariates.
    groups : HazardRatio or None
        Of those called against the others.
    test : LogRank or None
        Of the same groups.
    proportional : ProportionalHazards or None
        Test of proportional hazards of the largest of the models.
    calibration : DataFrame or None
        Predicted risk and observed risk by the horizon, in groups of patients.
    states : dict of str to (time, state)
        By group: 1 where the event ended the follow-up, 2 where a competing event did, 0 where neither; empty where the study
        codes no competing events.
    """

    patients: pd.DataFrame
    alone: CoxFit | None
    adjusted: CoxFit | None
    added: AddedValue | None
    groups: HazardRatio | None
    test: LogRank | None
    proportional: ProportionalHazards | None
    calibration: pd.DataFrame | None
    states: dict[str, tuple[np.ndarray, np.ndarray]]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "patients": len(self.patients),
            "events": int(self.patients["event"].sum()),
            "hazard_ratio_per_sd": _row(self.alone, SCORE),
            "hazard_ratio_per_sd_adjusted": _row(self.adjusted, SCORE),
            "adjusted_model": None if self.adjusted is None else self.adjusted.table.to_dict("index"),
            "added_value": None if self.added is None else vars(self.added),
            "hazard_ratio_of_groups": None if self.groups is None else vars(self.groups),
            "log_rank_p": None if self.test is None else self.test.p_value,
            "proportional_hazards": None if self.proportional is None else self.proportional.table.to_dict("index"),
            "calibration": None if self.calibration is None else self.calibration.to_dict("records"),
            "cumulative_incidence": {name: _at_the_end(*one) for name, one in self.states.items()} or None,
            "notes": list(self.notes),
        }


def prognosis(
    predictions: pd.DataFrame, clinical: pd.DataFrame, horizon: float, *, level: float = 0.95, competing: pd.Series | None = None
) -> Prognosis:
    """Relate out-of-sample predictions to the outcome.

    Parameters
    ----------
    predictions : DataFrame
        As in ``Evaluation.predictions``, of times to an event.
    clinical : DataFrame of shape (n_patients, n_clinical)
        By patient; without columns where the study names none.
    horizon : float
    competing : Series of shape (n_patients,), bool, optional
        By patient: whether a competing event ended the follow-up.
    """
    patients = _per_patient(predictions)
    time, event = patients["time"].to_numpy(), patients["event"].to_numpy()
    score = patients[["score"]].rename(columns={"score": SCORE})
    known = clinical.reindex(patients.index)
    notes: list[str] = []
    alone = or_note(notes, lambda: cox(score, time, event, level=level))
    with_clinical = known.shape[1] > 0
    adjusted = or_note(notes, lambda: cox(score.join(known), time, event, level=level)) if with_clinical else None
    added = or_note(notes, lambda: added_value(known, score, time, event)) if with_clinical else None
    largest = adjusted or alone
    called = patients["called"].to_numpy()
    both = called.any() and not called.all()
    if not both:
        notes.append("All patients are called the same, so there are no groups to compare.")
    risk = patients["risk"].to_numpy()
    return Prognosis(
        patients=patients,
        alone=alone,
        adjusted=adjusted,
        added=added,
        groups=or_note(notes, lambda: hazard_ratio(time, event, called, level=level)) if both else None,
        test=log_rank(time, event, called) if both and event.any() else None,
        proportional=or_note(notes, lambda: _proportional(largest, time[event])) if largest else None,
        calibration=or_note(notes, lambda: calibration_at(time, event, risk, horizon)),
        states=_states(patients, competing),
        notes=tuple(dict.fromkeys(notes)),
    )


def _per_patient(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per patient; scores of different folds are brought to one scale, since models of folds differ in level."""
    risk = pd.Series(log_minus_log(predictions["probability"].to_numpy()), index=predictions.index)
    linear = predictions.get("score", risk)  # a score's direction was published, not learnt
    folds = linear.groupby([predictions["repeat"], predictions["fold"]])
    spread = folds.transform("std").replace(0.0, np.nan)
    standardised = ((linear - folds.transform("mean")) / spread).fillna(0.0)
    table = predictions.assign(score=standardised).groupby("patient", sort=False)
    patients = table.agg(
        time=("time", "max"),
        event=("label", "max"),
        risk=("probability", "mean"),
        score=("score", "mean"),
        called=("called", "mean"),
    )
    scale = patients["score"].std()
    scaled = patients["score"] / (scale if scale > 0 else 1.0)
    return patients.assign(event=patients["event"].astype(bool), called=patients["called"] >= 0.5, score=scaled)


def _proportional(fit: CoxFit, times_of_events: np.ndarray) -> ProportionalHazards:
    if len(np.unique(times_of_events)) < 2:
        raise InputError("All events came at one time, so nothing says whether hazards stay proportional.")
    return proportional_hazards(fit)


def _states(patients: pd.DataFrame, competing: pd.Series | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    if competing is None:
        return {}
    state = np.where(patients["event"], 1, np.where(competing.reindex(patients.index).fillna(False), COMPETED, 0))
    groups = {"high risk": patients["called"].to_numpy(), "low risk": ~patients["called"].to_numpy()}
    time = patients["time"].to_numpy()
    return {name: (time[group], state[group]) for name, group in groups.items() if group.any()}


def _at_the_end(time: np.ndarray, state: np.ndarray) -> float:
    """Cumulative incidence of the event by the last follow-up (Aalen and Johansen)."""
    return float(cumulative_incidence(time, state).at(float(time.max())).survival)


def _row(fit: CoxFit | None, name: str) -> dict[str, float] | None:
    if fit is None:
        return None
    return {str(key): value for key, value in fit.table.astype(float).to_dict("index")[name].items()}
