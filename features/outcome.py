"""A survival outcome as one array: when a patient was last seen, and whether the event happened then."""

from __future__ import annotations

import numpy as np

SURVIVAL = np.dtype([("event", np.bool_), ("time", np.float64)])


def survival_outcome(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Times and events as one structured array, as scikit-survival writes it.

    Parameters
    ----------
    time : ndarray of shape (n_samples,)
        Follow-up, above zero.
    event : ndarray of shape (n_samples,)
        1 where the event happened at that time, 0 where the patient was last seen without it (censored).

    Returns
    -------
    ndarray of shape (n_samples,), with fields ``event`` (bool) and ``time`` (float)

    Examples
    --------
    >>> survival_outcome(np.array([3.0, 5.0]), np.array([1, 0]))["event"].tolist()
    [True, False]
    """
    outcome = np.empty(len(time), dtype=SURVIVAL)
    outcome["event"], outcome["time"] = np.asarray(event).astype(bool), time
    return outcome


def is_survival(y: np.ndarray) -> bool:
    """Whether an array of outcomes is one of survival; else it holds classes."""
    return y.dtype.names is not None
