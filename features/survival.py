"""Time to an event as an endpoint: follow-up, event, competing events, and where one stops looking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from features.columns import column
from features.columns import meant as meant_by
from features.errors import InputError
from features.settings import Settings

if TYPE_CHECKING:
    from features.cohort import Labelling

Value = bool | int | float | str
# Of all events: fewer by the horizon look like times in another unit.
FEW_IN_TIME = 0.1


class SurvivalEndpoint(Settings):
    """Time to an event, seen until a horizon.

    Whoever is followed longer than the horizon counts as last seen there, without the event (administrative censoring). A
    patient with a competing event counts as last seen then: models are of the cause-specific hazard, and the run reports the
    cumulative incidence beside it. A negative time is refused.

    Parameters
    ----------
    time : str
        Column with the time to the event, or to when the patient was last seen.
    event : str
        Column that says which of the two it was.
    positive : value
        Of the event column where the event happened.
    competing : list of values
        Of the event column where something else happened that rules the event out (death of another cause).
    censored : value, optional
        Of the event column where neither happened. Only needed where the column has several other values.
    horizon : float, optional
        Time at which one stops looking, in the unit of the times; models answer the risk of the event by then. Without it,
        the longest time to an event.
    unit : str
        Of the times, for reports.
    zero_times : {"half_of_shortest", "leave_out", "refuse"}
        What becomes of a follow-up of zero: it counts as half of the shortest time above zero, the patient is left out, or
        the study stops.

    References
    ----------
    Fjeldbo et al. 2020 (progression-free survival, follow-up truncated at 60 months).
    """

    kind: Literal["survival"] = "survival"
    time: str
    event: str
    positive: Value = 1
    competing: tuple[Value, ...] = ()
    censored: Value | None = None
    horizon: float | None = Field(default=None, gt=0)
    unit: str = "months"
    zero_times: Literal["half_of_shortest", "leave_out", "refuse"] = "half_of_shortest"

    @model_validator(mode="after")
    def _time_is_not_the_event(self) -> Self:
        if self.time == self.event:
            raise ValueError(f"column {self.time!r} is named as time and as event; name one column for each")
        return self

    @model_validator(mode="after")
    def _a_value_means_one_thing(self) -> Self:
        named = [self.positive, *self.competing, *([] if self.censored is None else [self.censored])]
        meant = [meant_by(one) for one in named]
        twice = [one for one, value in zip(named, meant, strict=True) if meant.count(value) > 1]
        if twice:
            raise ValueError(
                f"value {twice[0]!r} of the event is there twice in positive, competing and censored; it cannot mean two things"
            )
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the outcome is made from."""
        return (self.time, self.event)

    def label(self, frame: pd.DataFrame) -> Labelling:
        """Times until the horizon, and 1 where the event happened by then; unknown where time or event is.

        Raises
        ------
        InputError
            A column is absent, a time is negative or no number, an event has a value that the settings do not explain, or
            no event is left.
        """
        from features.cohort import Labelling

        times, happened = self._times(frame), self._states(frame)
        known = times.notna() & happened.notna()
        times, notes = self._above_zero(times.where(known))
        event, competing = (happened == 1) & times.notna(), (happened == 2) & times.notna()
        self._refuse_no_event(frame, times, event)
        horizon, notes = self._horizon(times, event, notes)
        if self.horizon is not None:
            beyond = times > horizon
            times, event, competing = times.clip(upper=horizon), event & ~beyond, competing & ~beyond
        return Labelling(
            event.astype(float).where(times.notna()),
            self.columns,
            notes,
            times,
            competing if self.competing else None,
            horizon,
            self.unit,
        )

    def _refuse_no_event(self, frame: pd.DataFrame, times: pd.Series, event: pd.Series) -> None:
        if not event.any():
            by = f" by {self.horizon:g} {self.unit}" if self.horizon is not None else ""
            raise InputError(
                f"No row has the event{by}: with positive: {self.positive!r} it would be another value than those of "
                f"{self.event!r} ({_shown(frame[self.event])}). Set cohort.endpoint.positive to the value of the event."
            )
        if self.horizon is not None and not (event & (times <= self.horizon)).any():
            raise InputError(
                f"No row has the event by {self.horizon:g} {self.unit}, and {int(event.sum())} have it later (median follow-up "
                f"{times.median():g}). Are the times of {self.time!r} in {self.unit}? Set cohort.endpoint.horizon and unit as "
                "the times are."
            )

    def _horizon(self, times: pd.Series, event: pd.Series, notes: tuple[str, ...]) -> tuple[float, tuple[str, ...]]:
        """Where one stops looking, and what a reader must know of it."""
        if self.horizon is None:
            last = float(times[event].max())
            words = f"No horizon is set: the event is looked for until the last one, at {last:g} {self.unit}."
            return last, (*notes, words)
        seen, every = int((event & (times <= self.horizon)).sum()), int(event.sum())
        if seen < FEW_IN_TIME * every:
            words = (
                f"Only {seen} of {every} events are by {self.horizon:g} {self.unit} (median follow-up {times.median():g}): "
                f"are the times in {self.unit}?"
            )
            notes = (*notes, words)
        if self.horizon > times.max():
            words = (
                f"The horizon of {self.horizon:g} {self.unit} is beyond all follow-up (the longest is {times.max():g}): what "
                "is asked of the horizon is undefined."
            )
            notes = (*notes, words)
        return self.horizon, notes

    def _times(self, frame: pd.DataFrame) -> pd.Series:
        given = column(frame, self.time, "cohort.endpoint.time")
        times = pd.to_numeric(given, errors="coerce").astype(float)
        text = times.isna() & given.notna()
        if text.any() or np.isinf(times).any():
            bad = text if text.any() else np.isinf(times)
            raise InputError(
                f"Column {self.time!r} (cohort.endpoint.time) holds {str(given[bad].iloc[0])[:40]!r}, which is no time; "
                "give the time of follow-up as a number, or leave the cell empty."
            )
        if (times < 0).any():
            first = times[times < 0]
            raise InputError(
                f"Sample {str(first.index[0])!r} has a follow-up of {first.iloc[0]:g} in {self.time!r}; a time cannot be "
                "negative: correct its dates, or leave the cell empty."
            )
        return times

    def _states(self, frame: pd.DataFrame) -> pd.Series:
        """0 last seen without the event, 1 event, 2 competing event, NaN unknown."""
        values = column(frame, self.event, "cohort.endpoint.event")
        present = values.dropna().map(meant_by)
        states = pd.Series(0.0, index=present.index)
        states[present == meant_by(self.positive)] = 1.0
        states[present.isin([meant_by(one) for one in self.competing])] = 2.0
        others = sorted(set(map(str, values.dropna()[states == 0])))
        if self.censored is None and meant_by(self.positive) == 1.0 and [meant_by(one) for one in others] == [2.0]:
            raise InputError(
                f"Column {self.event!r} (cohort.endpoint.event) has 1 and 2, of which 2 often is the event and 1 is not; say "
                "which: positive: 2, censored: 1 (or positive: 1, censored: 2)."
            )
        meant = None if self.censored is None else meant_by(self.censored)
        unexplained = others if meant is None else sorted(set(map(str, values.dropna()[(states == 0) & (present != meant)])))
        if (meant is None and len(others) > 1) or (meant is not None and unexplained):
            raise InputError(
                f"Column {self.event!r} (cohort.endpoint.event) has values that the study does not explain "
                f"({', '.join(repr(one) for one in unexplained[:5])}); say which is positive, which are competing and which is "
                "censored, or empty the cell where it is unknown."
            )
        return states.reindex(frame.index)

    def _above_zero(self, times: pd.Series) -> tuple[pd.Series, tuple[str, ...]]:
        zero = times == 0
        if not zero.any():
            return times, ()
        count = f"{zero.sum()} sample{'s' if zero.sum() > 1 else ''}"
        if self.zero_times == "refuse" or not (times > 0).any():
            raise InputError(
                f"{count} with a follow-up of zero in {self.time!r} (first: {str(times.index[zero][0])!r}); correct the dates, "
                "or set cohort.endpoint.zero_times to half_of_shortest or leave_out."
            )
        if self.zero_times == "leave_out":
            return times.mask(zero), (f"Left out for a follow-up of zero: {count}.",)
        half = float(times[times > 0].min()) / 2
        return times.mask(zero, half), (f"A follow-up of zero counts as {half:g} {self.unit} ({count}).",)


def _shown(values: pd.Series) -> str:
    return ", ".join(repr(one) for one in sorted(set(map(str, values.dropna())))[:5]) or "none"
