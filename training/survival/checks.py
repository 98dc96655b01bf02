"""What a survival analysis asks of its outcome and groups, checked once at the door."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pandas as pd

from features.errors import InputError

T = TypeVar("T")


def check_outcome(time: np.ndarray, event: np.ndarray, *, needs_event: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Follow-up as numbers above zero and events as booleans.

    Parameters
    ----------
    time : array-like of shape (n_patients,)
        Follow-up, in any unit.
    event : array-like of shape (n_patients,)
        1 or True where the event happened at that time, 0 or False where the patient was censored.
    needs_event : bool
        Whether somebody must have had the event.

    Returns
    -------
    time : ndarray of shape (n_patients,), float
    event : ndarray of shape (n_patients,), bool

    Raises
    ------
    InputError
        There is no patient, a time is missing, zero or negative, an event is neither 0 nor 1, or nobody had the event.

    Examples
    --------
    >>> check_outcome(np.array([3, 5]), np.array([1, 0]))
    (array([3., 5.]), array([ True, False]))
    """
    time, event = np.asarray(time, dtype=float), np.asarray(event, dtype=float)
    if time.shape != event.shape or time.ndim != 1 or not len(time):
        raise InputError(f"A survival analysis needs one time and one event per patient (got {time.shape} and {event.shape}).")
    check_times(time)
    if not np.isin(event, (0.0, 1.0)).all():
        raise InputError("The event must be 1 (happened) or 0 (censored) for every patient; leave out those where it is unknown.")
    if needs_event and not event.any():
        raise InputError(f"None of the {len(time)} patients had the event, so nothing can be said of it; follow them longer.")
    return time, event == 1


def check_times(time: np.ndarray) -> None:
    """Refuse follow-up that is missing, zero or negative.

    Raises
    ------
    InputError
        With the number of such patients, never their values.
    """
    missing, early = int((~np.isfinite(time)).sum()), int((time <= 0).sum())
    if missing:
        raise InputError(f"{missing} of {len(time)} patients have no follow-up time; leave them out.")
    if early:
        raise InputError(
            f"{early} of {len(time)} patients have a follow-up time of zero or less; mend their dates or leave them out."
        )


def check_groups(group: np.ndarray, n_patients: int, *, exactly: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Groups of patients as codes.

    Parameters
    ----------
    group : array-like of shape (n_patients,)
        Any labels; their sorted order is the order of the groups (False before True).
    exactly : int, optional
        How many groups there must be; two or more when left out.

    Returns
    -------
    labels : ndarray of shape (n_groups,)
    codes : ndarray of shape (n_patients,), int
        Position of each patient's label.

    Raises
    ------
    InputError
        A label is missing, or there are fewer than two groups or another number than asked for.
    """
    group = np.asarray(group)
    if group.shape != (n_patients,) or bool(pd.isna(group).any()):
        raise InputError(f"Each of the {n_patients} patients must be in one group; leave out those whose group is not known.")
    labels, codes = np.unique(group, return_inverse=True)
    if len(labels) < 2:
        raise InputError(f"All {n_patients} patients are in one group ({labels[0]}), so there is nothing to compare.")
    if exactly is not None and len(labels) != exactly:
        raise InputError(f"{exactly} groups can be compared here, and there are {len(labels)}; join some.")
    return labels, codes


def or_note(notes: list[str], found: Callable[[], T], words: str = "") -> T | None:
    """What a function finds, or None and a note of what the patients do not allow.

    Parameters
    ----------
    notes : list of str
        Gets the note.
    found : callable
        Raises InputError where it cannot be found.
    words : str
        What was looked for.
    """
    try:
        return found()
    except InputError as cause:
        notes.append(f"{words}: {cause}" if words else str(cause))
        return None
