"""How clusters of patients fare: curves, tests and hazards, of each for itself and joined to groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency, fisher_exact
from scipy.stats.contingency import expected_freq

from features.errors import InputError
from training.profile.by_outcome import Combine, Groups, Outcome, group_of, groups_of, refuse_unnamed, several
from training.profile.clustering import Clusters
from training.survival.checks import or_note
from training.survival.cox import FEW_PATIENTS, CoxFit, HazardRatio, cox, hazard_ratio
from training.survival.curves import Curve, holm, kaplan_meier, log_rank, pairwise_log_rank
from training.survival.proportional import ProportionalHazards, proportional_hazards

FEWEST_EXPECTED = 5
COVARIATE = "clusters"
ORDERED = (
    "clusters are numbered by their share of events, so that a hazard ratio against cluster 1 is above 1 as a rule, by "
    "chance too, and the further the more clusters there are"
)


@dataclass(frozen=True)
class Difference:
    """A test of whether groups differ in outcome.

    Attributes
    ----------
    test : {"log-rank", "chi-square", "Fisher's exact"}
    statistic : float or None
        Chi square; None of the exact test.
    df : int or None
    p_value : float
        Two-sided.
    """

    test: Literal["log-rank", "chi-square", "Fisher's exact"]
    statistic: float | None
    df: int | None
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Groups of patients and how they fare.

    Attributes
    ----------
    names : tuple of str
        "cluster 1", or "clusters 1 and 2" where some are joined.
    number : ndarray of shape (n_patients,), int
        Group of each patient, from 1 in the order of ``names``.
    table : DataFrame of shape (n_groups, 6)
        By name: patients, events, share (of patients with the event), median (time by which half have had it, infinite where
        fewer have) and its lower and upper limit; the last three are missing where the endpoint is binary.
    curves : dict of str to Curve
        Kaplan-Meier's, by name; empty where the endpoint is binary.
    overall : Difference
    pairwise : DataFrame
        first, second (names), test, p_value, p_holm (corrected for the number of pairs); without numbers where neither of the two
        groups has an event, or both have nothing else.
    notes : tuple of str
        What a reader must bear in mind: small groups, and those without an event.
    """

    names: tuple[str, ...]
    number: np.ndarray
    table: pd.DataFrame
    curves: dict[str, Curve]
    overall: Difference
    pairwise: pd.DataFrame
    notes: tuple[str, ...]

    def outcomes(self, outcome: Outcome) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Time and event of each group by its name: what a Kaplan-Meier plot takes."""
        return {name: outcome[self.number == number] for number, name in enumerate(self.names, start=1)}


@dataclass(frozen=True)
class Hazards:
    """Hazard of groups over that of the first, which has the lowest cluster unless the groups were named otherwise.

    Attributes
    ----------
    ratio : HazardRatio or None
        Of two groups, above 1 where the second does worse; shrunk (Firth) where the plain one has no value. None of more groups.
    alone, adjusted : CoxFit or None
        Of the groups, and of the groups with the clinical covariates in the patients who have them all (``n``, ``events``). None
        where it cannot be estimated, and then a note says why, or where no covariates are given.
    proportional : ProportionalHazards or None
        Test of proportional hazards of the larger of the two models.
    notes : tuple of str
    """

    ratio: HazardRatio | None
    alone: CoxFit | None
    adjusted: CoxFit | None
    proportional: ProportionalHazards | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ClusterOutcome:
    """How clusters fare.

    Attributes
    ----------
    clusters : Comparison
        Each for itself.
    combined : Comparison or None
        Joined as said; None where nothing is joined.
    groups : tuple of tuple of int or None
        Which clusters are in each of the joined groups, from 1.
    hazards : Hazards or None
        Of the joined groups, or of the clusters where none are joined; None where the endpoint is binary.
    """

    clusters: Comparison
    combined: Comparison | None
    groups: Groups | None
    hazards: Hazards | None

    @property
    def compared(self) -> Comparison:
        """What the hazards are of: the joined groups, or else the clusters."""
        return self.combined or self.clusters

    @property
    def notes(self) -> tuple[str, ...]:
        """All that a reader must bear in mind, each once."""
        parts = (self.clusters, self.combined, self.hazards)
        return tuple(dict.fromkeys(note for part in parts if part is not None for note in part.notes))


def related(
    clusters: Clusters,
    outcome: Outcome,
    combine: Combine = None,
    clinical: pd.DataFrame | None = None,
    *,
    level: float = 0.95,
) -> ClusterOutcome:
    """How clusters fare, each for itself and joined to groups.

    Curves and log-rank tests of times; of a binary endpoint chi square without a correction, or Fisher's exact test where of two
    groups a cell is expected to hold fewer than five.

    Parameters
    ----------
    clusters : Clusters
        As ``ordered_by_events`` gives them.
    outcome : Outcome
        Of the same patients.
    combine : tuple of tuple of int, "outcome" or None
        Clusters that are compared as one, by number from 1; the first group is the reference of hazard ratios. With "outcome",
        the two groups of all that differ most, the one with cluster 1 first. The p is then too small: see ``choice_permuted``.
    clinical : DataFrame of shape (n_patients, n_covariates), optional
        Covariates (stage, age) that the hazards are adjusted for, in the same order of patients; none where it has no column.
    level : float
        Of the intervals.

    Raises
    ------
    InputError
        There is one cluster, the groups do not name every cluster once, or a covariate is called "clusters".

    Examples
    --------
    >>> clusters = Clusters(np.array([0, 4, 8]), np.repeat([0, 1, 2], 4), 1.0)
    >>> outcome = Outcome(np.array([9, 8, 7, 12, 11, 3, 10, 6, 1, 5, 2, 4]), np.array([0, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1]))
    >>> found = related(clusters, outcome, ((1, 2), (3,)))
    >>> found.combined.table[["patients", "events", "median"]].T.to_dict("list")
    {'clusters 1 and 2': [8.0, 3.0, 11.0], 'cluster 3': [4.0, 4.0, 3.0]}
    >>> print(found.hazards.ratio)
    14.7 (1.59 to 136)
    """
    n_clusters = len(clusters.medoids)
    several({n_clusters: clusters})
    refuse_unnamed(combine, n_clusters)
    groups = groups_of(combine, clusters, outcome)
    apart = tuple((number,) for number in range(1, n_clusters + 1))
    own = _compared(apart, clusters, outcome, level)
    combined = None if groups is None else _compared(groups, clusters, outcome, level)
    levels = [_level(group) for group in groups or apart]
    joined = groups is not None and any(len(group) > 1 for group in groups)
    hazards = None
    if outcome.time is not None:
        hazards = _hazards(combined or own, levels, outcome, clinical, level, joined=joined)
    return ClusterOutcome(own, combined, groups, hazards)


def _level(group: Sequence[int]) -> str:
    """Numbers in words.

    Examples
    --------
    >>> _level((1, 2, 4))
    '1, 2 and 4'
    """
    *most, last = map(str, group)
    return f"{', '.join(most)} and {last}" if most else last


def _compared(groups: Groups, clusters: Clusters, outcome: Outcome, level: float) -> Comparison:
    names = tuple(f"cluster{'s' if len(group) > 1 else ''} {_level(group)}" for group in groups)
    number = group_of(groups)[clusters.labels] + 1
    members = {name: outcome[number == position] for position, name in enumerate(names, start=1)}
    curves = {} if outcome.time is None else {name: kaplan_meier(*one, level=level) for name, one in members.items()}
    table = pd.DataFrame([_row(members[name][1], curves.get(name)) for name in names], index=pd.Index(names, name="group"))
    counts = np.array([[event.sum(), (~event).sum()] for _, event in members.values()])
    if outcome.time is None:
        overall, pairwise = _table_test(counts), _pairwise_table_tests(names, counts)
    else:
        overall, pairwise = _log_rank(outcome, number), _pairwise_log_rank(names, outcome, number)
    return Comparison(names, number, table, curves, overall, pairwise, _cautions(table, overall, counts))


def _row(event: np.ndarray, curve: Curve | None) -> dict[str, float]:
    median = (np.nan,) * 3 if curve is None else (curve.median.value, curve.median.lower, curve.median.upper)
    found = {"patients": len(event), "events": int(event.sum()), "share": float(event.mean())}
    return {**found, **dict(zip(("median", "median_lower", "median_upper"), median, strict=True))}


def _cautions(table: pd.DataFrame, overall: Difference, counts: np.ndarray) -> tuple[str, ...]:
    small = table.loc[table["patients"] < FEW_PATIENTS, "patients"]
    notes = [
        f"{name} has {count} patient{'' if count == 1 else 's'}, fewer than {FEW_PATIENTS}: what is said of it is unstable"
        for name, count in small.items()
    ]
    notes += [f"{name} has no event" for name in table.index[table["events"] == 0]]
    if overall.test == "chi-square" and expected_freq(counts).min() < FEWEST_EXPECTED:
        notes.append(
            f"fewer than {FEWEST_EXPECTED} events are expected in some cell: trust the permutation p before that of chi-square"
        )
    return tuple(notes)


def _log_rank(outcome: Outcome, number: np.ndarray) -> Difference:
    found = log_rank(outcome.moments, outcome.event, number)
    return Difference("log-rank", found.chi2, found.df, found.p_value)


def _pairwise_log_rank(names: Sequence[str], outcome: Outcome, number: np.ndarray) -> pd.DataFrame:
    pairs = pairwise_log_rank(outcome.moments, outcome.event, number)
    named = {column: [names[position - 1] for position in pairs[column]] for column in ("first", "second")}
    return pairs.assign(**named, test="log-rank")[["first", "second", "test", "p_value", "p_holm"]]


def _table_test(counts: np.ndarray) -> Difference:
    """Of events by group, counts of shape (n_groups, 2)."""
    if len(counts) == 2 and expected_freq(counts).min() < FEWEST_EXPECTED:
        return Difference("Fisher's exact", None, None, float(fisher_exact(counts).pvalue))
    found = chi2_contingency(counts, correction=False)
    return Difference("chi-square", float(found.statistic), int(found.dof), float(found.pvalue))


def _pairwise_table_tests(names: Sequence[str], counts: np.ndarray) -> pd.DataFrame:
    rows = []
    for first, second in combinations(range(len(names)), 2):
        pair = counts[[first, second]]
        test = _table_test(pair) if pair.sum(axis=0).all() else None
        found = {"test": None, "p_value": np.nan} if test is None else {"test": test.test, "p_value": test.p_value}
        rows.append({"first": names[first], "second": names[second], **found})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p_value"].to_numpy()))


def _hazards(
    groups: Comparison, levels: Sequence[str], outcome: Outcome, clinical: pd.DataFrame | None, level: float, *, joined: bool
) -> Hazards:
    time, event = outcome.moments, outcome.event
    own = pd.DataFrame({COVARIATE: pd.Categorical.from_codes(groups.number - 1, pd.Index(levels))})
    notes = [] if joined else [ORDERED]
    alone = or_note(notes, lambda: cox(own, time, event, level=level), "Cox regression of the groups")
    adjusted = None
    if clinical is not None and clinical.shape[1]:
        both = _joined(own, clinical)
        words = f"Cox regression of the groups with {', '.join(map(str, clinical.columns))}"
        adjusted = or_note(notes, lambda: cox(both, time, event, level=level), words)
    largest = adjusted or alone
    ratio = _named(hazard_ratio(time, event, groups.number, level=level), groups.names) if len(levels) == 2 else None
    proportional = None if largest is None else or_note(notes, lambda: _proportional(largest), "Proportional hazards")
    return Hazards(ratio, alone, adjusted, proportional, tuple(notes))


def _joined(own: pd.DataFrame, clinical: pd.DataFrame) -> pd.DataFrame:
    if COVARIATE in clinical.columns:
        raise InputError(f"A clinical column is called {COVARIATE!r}, as the groups are that it is to adjust; rename it.")
    return pd.concat([own, clinical.reset_index(drop=True)], axis=1)


def _named(ratio: HazardRatio, names: Sequence[str]) -> HazardRatio:
    """The same, its reason saying the groups by name."""
    reason = ratio.reason and re.sub(r"\bgroup (\d+)", lambda found: names[int(found[1]) - 1], ratio.reason)
    return replace(ratio, reason=reason)


def _proportional(fit: CoxFit) -> ProportionalHazards:
    columns = fit.design.columns.to_numpy()
    compared = sum(np.ptp(columns[fit.time >= at], axis=0) > 0 for at in np.unique(fit.time[fit.event]))
    if np.min(compared) < 2:
        raise InputError("Events came while all groups were followed at one time only, so nothing says whether hazards stay so.")
    return proportional_hazards(fit)
