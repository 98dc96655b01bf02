"""Choices that look at the outcome of clusters, and what a test is worth once they are made.

Clusters are found without the outcome. But their number may be chosen because its curves come apart best, they are numbered by
their share of events, and those that fare alike are then joined: each of these looks at the outcome, and the log-rank p of the
result is too small. So the p that counts comes from permutations of the outcome among the patients in which all of that is done
again, while the clusters stay.

The tests come from a difference of observed and expected events per cluster and its covariance. Of clusters that are joined both
are sums, so that every merging of every permutation costs a few additions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import chi2 as chi_square

from features.errors import InputError
from training.profile.clustering import Clusters
from training.progress import Progress, Silence
from training.survival.checks import check_outcome
from training.survival.curves import ROUNDING

Groups = tuple[tuple[int, ...], ...]  # clusters by number, from 1 in ascending order of their share of events
Combine = Groups | Literal["outcome"] | None

MOST_TRIED = 12  # clusters whose 2047 mergings into two groups are all tried
CELLS = 4_000_000  # deals x patients x clusters that are in memory at once: 32 MB an array
SINGULAR = 1e-10  # share of the largest eigenvalue below which one is zero
TIED = 1e-9  # relative, of p values whose sums are in another order


@dataclass(frozen=True)
class Outcome:
    """What became of patients.

    Attributes
    ----------
    time : ndarray of shape (n_patients,) or None
        Follow-up above zero; None of a binary endpoint.
    event : ndarray of shape (n_patients,), bool
        Whether the event happened at that time; of a binary endpoint, whether the patient has it.

    Raises
    ------
    InputError
        As ``check_outcome``; or the endpoint is binary and not both 0 and 1.
    """

    time: np.ndarray | None
    event: np.ndarray

    def __post_init__(self) -> None:
        if self.time is None:
            object.__setattr__(self, "event", _both_classes(np.asarray(self.event)))
            return
        time, event = check_outcome(self.time, self.event)
        object.__setattr__(self, "time", time)
        object.__setattr__(self, "event", event)

    def __len__(self) -> int:
        return len(self.event)

    def __getitem__(self, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Time and event of some patients: what a Kaplan-Meier curve takes. All times are 1 where the endpoint is binary."""
        return self.moments[own], self.event[own]

    @property
    def moments(self) -> np.ndarray:
        """The times; a binary endpoint is one moment at which all are at risk."""
        return np.ones(len(self)) if self.time is None else self.time


@dataclass(frozen=True)
class ChoiceTest:
    """Whether clusters differ in outcome by more than choices that look at the outcome bring about.

    Attributes
    ----------
    clusters : int
        How many there are.
    groups : tuple of tuple of int or None
        Which of them are joined, from 1; None where none are.
    test : {"log-rank", "chi-square"}
        Whose p is compared.
    naive_p : float
        As if number and groups had been given beforehand, without a look at the outcome: too small where there are ``reasons``.
    null : ndarray of shape (n_permutations,)
        The same in each permutation of the outcome, all choices made anew.
    reasons : tuple of str
        Which choices looked at the outcome, as clauses.
    """

    clusters: int
    groups: Groups | None
    test: Literal["log-rank", "chi-square"]
    naive_p: float
    null: np.ndarray
    reasons: tuple[str, ...]

    @property
    def p_value(self) -> float:
        """(1 + permutations with as small a p) / (1 + permutations), so never below ``floor``."""
        return (1 + int((self.null <= self.naive_p * (1 + TIED)).sum())) / (1 + len(self.null))

    @property
    def floor(self) -> float:
        """The smallest p that so many permutations can give."""
        return 1 / (1 + len(self.null))

    @property
    def exploratory(self) -> bool:
        """Whether the outcome had a say in what is compared."""
        return bool(self.reasons)

    @property
    def words(self) -> str:
        """The finding in one sentence, with its label."""
        of = f"{len(self.null)} permutations of the outcome (which can give no p below {self.floor:.2g})"
        if not self.exploratory:
            return f"The {self.test} p is {self.naive_p:.2g}, and {self.p_value:.2g} by {of}."
        return (
            f"Exploratory, since {' and '.join(self.reasons)}: the {self.test} p of {self.naive_p:.2g} does not know of that, "
            f"and is {self.p_value:.2g} where all of it is repeated in {of}."
        )


def ordered_by_events(clusters: Clusters, outcome: Outcome) -> Clusters:
    """The same clusters in ascending order of the share of patients with the event.

    Of equal shares the one that fares better comes first: the later Kaplan-Meier median (never reached is latest). Then the
    larger; then the one that came first.

    Parameters
    ----------
    clusters : Clusters
    outcome : Outcome
        Of the same patients.

    Examples
    --------
    >>> clusters = Clusters(np.array([0, 2, 4]), np.array([0, 0, 1, 1, 2, 2]), 1.0)
    >>> ordered_by_events(clusters, Outcome(np.array([3, 4, 5, 6, 1, 9]), np.array([1, 1, 1, 1, 0, 0]))).labels
    array([2, 2, 1, 1, 0, 0])
    """
    deal = np.arange(len(outcome))[None]
    return clusters.ordered(_orders(_followed(clusters, outcome, deal), clusters)[0].tolist())


def number_by_outcome(candidates: Mapping[int, Clusters], outcome: Outcome) -> int:
    """The number of clusters that differ most in outcome: with the smallest p of a log-rank test, or of chi square.

    Parameters
    ----------
    candidates : mapping of int to Clusters
        Clusters for each number; one cluster is passed over.
    outcome : Outcome

    Raises
    ------
    InputError
        No candidate has two clusters.

    Examples
    --------
    >>> halves, thirds = np.repeat([0, 1], 6), np.tile([0, 1, 2], 4)
    >>> candidates = {k: Clusters(np.arange(k), labels, 1.0) for k, labels in ((2, halves), (3, thirds))}
    >>> number_by_outcome(candidates, Outcome(np.arange(1, 13), np.ones(12)))
    2
    """
    considered = several(candidates)
    found = _chosen(considered, None, outcome, np.arange(len(outcome))[None])
    return list(considered)[int(found.number[0])]


def refuse_combination(combine: Combine, largest: int) -> None:
    """Say what is wrong with the clusters that are to be joined.

    Parameters
    ----------
    combine : tuple of tuple of int, "outcome" or None
        Groups of clusters by number from 1; "outcome" for the two groups that differ most.
    largest : int
        The highest number that there can be.

    Raises
    ------
    InputError
        There is one group or an empty one, a cluster is named twice or does not exist, or there are too many to try all groups.

    Examples
    --------
    >>> refuse_combination(((1, 2), (2, 3)), 3)
    Traceback (most recent call last):
    ...
    features.errors.InputError: combine names cluster 2 twice; name each cluster once.
    """
    if combine == "outcome" and largest > MOST_TRIED:
        raise InputError(
            f"combine: outcome tries all mergings of up to {MOST_TRIED} clusters, and there may be {largest}; "
            "ask for fewer clusters, or name the groups."
        )
    if combine is not None and combine != "outcome":
        _refuse_groups(combine, largest)


def refuse_unnamed(combine: Combine, n_clusters: int) -> None:
    """Say what is wrong with the clusters that are to be joined, once their number is known.

    Parameters
    ----------
    combine : tuple of tuple of int, "outcome" or None
    n_clusters : int

    Raises
    ------
    InputError
        As ``refuse_combination``, or a cluster is in no group.

    Examples
    --------
    >>> refuse_unnamed(((1,), (3,)), 3)
    Traceback (most recent call last):
    ...
    features.errors.InputError: combine ([[1], [3]]) leaves out cluster 2; put it into one of the groups.
    """
    refuse_combination(combine, n_clusters)
    if combine is None or combine == "outcome":
        return
    unnamed = sorted(set(range(1, n_clusters + 1)).difference(*combine))
    if unnamed:
        raise InputError(f"combine ({_as_written(combine)}) leaves out cluster {unnamed[0]}; put it into one of the groups.")


def choice_permuted(
    candidates: Mapping[int, Clusters],
    clusters: int,
    outcome: Outcome,
    *,
    by_outcome: bool,
    combine: Combine,
    permutations: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> ChoiceTest:
    """Test whether clusters differ in outcome, all choices that looked at it being made again in permutations of the outcome.

    Outcomes (time with event) are dealt to the patients anew; the clusters stay, as they never saw them. Each time the number
    with the smallest p is chosen where it was chosen so, clusters are numbered by their share of events, and joined as named, or
    to the two groups that differ most. What is compared is the smallest p that this finds, since chi squares of different
    degrees of freedom cannot be compared. Where no choice saw the outcome it is a permutation test of the overall difference.

    Parameters
    ----------
    candidates : mapping of int to Clusters
        Clusters for every number that was considered, in any order of the clusters.
    clusters : int
        How many were chosen.
    outcome : Outcome
        Of the same patients.
    by_outcome : bool
        Whether the outcome chose the number, as in ``number_by_outcome``.
    combine : tuple of tuple of int, "outcome" or None
        As in ``related``.
    permutations : int
    rng : Generator
    progress : Progress, optional

    Raises
    ------
    InputError
        There is one cluster, the groups do not name every cluster once, or they are named while the outcome chooses the number.

    References
    ----------
    Phipson & Smyth 2010, doi:10.2202/1544-6115.1585 (a permutation p is never 0).

    Examples
    --------
    >>> time = np.arange(1, 41.0)
    >>> candidates = {k: Clusters(np.arange(k), np.arange(40) // 10 % k, 1.0) for k in (2, 3, 4)}
    >>> found = choice_permuted(candidates, 4, Outcome(time, np.ones(40)), by_outcome=True, combine=None, permutations=99,
    ...                         rng=np.random.default_rng(0))
    >>> found.p_value, found.reasons
    (0.01, ('their number was chosen by outcome',))
    """
    considered = several(candidates if by_outcome else {clusters: candidates[clusters]})
    if by_outcome and combine not in (None, "outcome"):
        raise InputError(
            "combine names clusters while the outcome chooses their number; give the number of clusters, or set combine: outcome."
        )
    for own in considered.values():
        refuse_unnamed(combine, len(own.medoids))
    (progress or Silence()).stage(f"{permutations} permutations of the outcome, its choices repeated")
    seen = _chosen(considered, combine, outcome, np.arange(len(outcome))[None])
    deals = rng.permuted(np.tile(np.arange(len(outcome)), (permutations, 1)), axis=1)
    null = [_chosen(considered, combine, outcome, part).p_value for part in _in_parts(deals, max(considered))]
    number = list(considered)[int(seen.number[0])]
    return ChoiceTest(
        clusters=number,
        groups=groups_of(combine, ordered_by_events(considered[number], outcome), outcome),
        test="chi-square" if outcome.time is None else "log-rank",
        naive_p=float(seen.p_value[0]),
        null=np.concatenate([np.empty(0), *null]),
        reasons=_reasons(by_outcome and len(considered) > 1, combine, max(considered)),
    )


@dataclass(frozen=True)
class _Chosen:
    """What the choice comes to in several deals of the outcome."""

    number: np.ndarray  # (n_deals,), position among the numbers that are considered
    p_value: np.ndarray  # (n_deals,), of what is compared


@dataclass(frozen=True)
class _Followed:
    """Clusters over time in several deals of the outcome."""

    times: np.ndarray  # (n_times,), of events, ascending
    at_risk: np.ndarray  # (n_deals, n_times, n_clusters)
    events: np.ndarray  # (n_deals, n_times, n_clusters)
    binary: bool

    @property
    def medians(self) -> np.ndarray:
        """Kaplan-Meier medians, shape (n_deals, n_clusters), as ``Curve.median``: the middle of a level stretch at one half."""
        survival = np.cumprod(1 - self.events / np.maximum(self.at_risk, 1), axis=1)
        reached, below = (self._first(crossed) for crossed in (survival <= 0.5 + ROUNDING, survival < 0.5 - ROUNDING))
        return np.where(np.isinf(below), reached, (reached + below) / 2)

    def _first(self, crossed: np.ndarray) -> np.ndarray:
        return np.where(crossed.any(axis=1), self.times[crossed.argmax(axis=1)], np.inf)


@dataclass(frozen=True)
class _Scores:
    """Observed less expected events of groups, with their covariance, in several deals of the outcome."""

    difference: np.ndarray  # (n_deals, n_groups)
    variance: np.ndarray  # (n_deals, n_groups, n_groups)

    @classmethod
    def of(cls, followed: _Followed) -> _Scores:
        """Hypergeometric moments at each time of an event, summed; of one time they are those of Pearson's chi square."""
        at_risk = followed.at_risk
        n, d = at_risk[0].sum(axis=1), followed.events[0].sum(axis=1)  # the same in every deal
        spread = d * (n - d) / (n if followed.binary else np.maximum(n - 1, 1))
        variance = -np.matmul((at_risk * (spread / n**2)[:, None]).transpose(0, 2, 1), at_risk)
        variance[:, range(at_risk.shape[2]), range(at_risk.shape[2])] += (spread / n) @ at_risk
        return cls(followed.events.sum(axis=1) - (d / n) @ at_risk, variance)

    @property
    def p_value(self) -> np.ndarray:
        """Of the difference between all groups, shape (n_deals,)."""
        inverse = np.linalg.pinv(self.variance, rcond=SINGULAR, hermitian=True)
        chi2 = np.einsum("di,dij,dj->d", self.difference, inverse, self.difference)
        df = np.linalg.matrix_rank(self.variance, rtol=SINGULAR, hermitian=True)
        return np.where(df > 0, chi_square.sf(chi2, np.maximum(df, 1)), 1.0)

    def merged(self, member: np.ndarray) -> _Scores:
        """Of joined groups; ``member`` is (n_deals, n_joined, n_groups), 0 or 1."""
        difference = np.matmul(member, self.difference[:, :, None])[:, :, 0]
        return _Scores(difference, member @ self.variance @ member.transpose(0, 2, 1))

    def chi2_of_parts(self, parts: np.ndarray) -> np.ndarray:
        """Of each part of the groups, (n_parts, n_groups), against the rest: shape (n_deals, n_parts)."""
        variance = ((self.variance @ parts.T) * parts.T).sum(axis=1)
        known = variance > ROUNDING
        return np.where(known, (self.difference @ parts.T) ** 2 / np.where(known, variance, 1), 0.0)


def _both_classes(event: np.ndarray) -> np.ndarray:
    if event.ndim != 1 or not np.array_equal(np.unique(event), (0, 1)):
        raise InputError(
            "A binary endpoint must be 1 (with the event) in some patients and 0 (without) in the others; "
            "leave out those where it is unknown."
        )
    return event == 1


def several(candidates: Mapping[int, Clusters]) -> dict[int, Clusters]:
    """Candidates of two clusters or more, in the order of their number."""
    found = {number: candidates[number] for number in sorted(candidates) if number > 1}
    if not found:
        raise InputError("There is one cluster, so that there is nothing to compare; ask for two clusters or more.")
    return found


def _refuse_groups(groups: Groups, largest: int) -> None:
    named = [number for group in groups for number in group]
    twice = [number for number in named if named.count(number) > 1]
    absent = [number for number in named if not 1 <= number <= largest]
    if len(groups) < 2 or not all(groups):
        raise InputError(f"combine must name two groups of clusters or more, none of them empty (it is {_as_written(groups)}).")
    if twice:
        raise InputError(f"combine names cluster {twice[0]} twice; name each cluster once.")
    if absent:
        raise InputError(f"combine names cluster {absent[0]}, and clusters are numbered from 1 to {largest}; name one of them.")


def _as_written(groups: Groups) -> str:
    return str([list(group) for group in groups])


def _reasons(number: bool, combine: Combine, largest: int) -> tuple[str, ...]:
    joined = combine is not None and combine != "outcome" and any(len(group) > 1 for group in combine)
    said = {
        "their number was chosen by outcome": number,
        "the clusters to join were chosen by outcome": combine == "outcome" and largest > 2,
        "clusters were joined by numbers that follow from their outcome": joined,
    }
    return tuple(reason for reason, holds in said.items() if holds)


def _in_parts(deals: np.ndarray, n_clusters: int) -> Iterator[np.ndarray]:
    size = max(1, CELLS // (deals.shape[1] * n_clusters))
    return (deals[start : start + size] for start in range(0, len(deals), size))


def _followed(clusters: Clusters, outcome: Outcome, deals: np.ndarray) -> _Followed:
    """Clusters over time where the patient at ``deals[., i]`` gets the outcome of patient ``i``."""
    times, longest_first = np.unique(outcome.moments[outcome.event]), np.argsort(-outcome.moments, kind="stable")
    last = np.searchsorted(-outcome.moments[longest_first], -times, side="right") - 1  # of those at risk at each time
    member = clusters.labels[deals[:, longest_first], None] == np.arange(len(clusters.medoids))
    at_risk = np.cumsum(member, axis=1, dtype=float)[:, last]
    struck = np.cumsum(member & outcome.event[longest_first, None], axis=1, dtype=float)[:, last]
    return _Followed(times, at_risk, -np.diff(struck, axis=1, append=0), outcome.time is None)


def _orders(followed: _Followed, clusters: Clusters) -> np.ndarray:
    """Clusters in ascending order of their share of events, shape (n_deals, n_clusters)."""
    sizes = np.bincount(clusters.labels, minlength=len(clusters.medoids))
    shares = followed.events.sum(axis=1) / sizes
    return np.lexsort((np.broadcast_to(-sizes, shares.shape), -followed.medians, shares), axis=-1)


def _chosen(candidates: Mapping[int, Clusters], combine: Combine, outcome: Outcome, deals: np.ndarray) -> _Chosen:
    """Choose the number with the smallest overall p in each deal, then join, and test what is joined."""
    overall, compared = np.array([_p_values(own, combine, outcome, deals) for own in candidates.values()]).transpose(1, 0, 2)
    number = overall.argmin(axis=0)
    return _Chosen(number, compared[number, np.arange(len(deals))])


def _p_values(clusters: Clusters, combine: Combine, outcome: Outcome, deals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the difference between all clusters, and of that between the groups which they are joined to; (n_deals,) each."""
    followed = _followed(clusters, outcome, deals)
    scores = _Scores.of(followed)
    overall = scores.p_value
    if combine is None:
        return overall, overall
    if combine == "outcome":
        return overall, chi_square.sf(scores.chi2_of_parts(_parts(len(clusters.medoids))).max(axis=1), 1)
    return overall, scores.merged(_members(combine, _orders(followed, clusters))).p_value


def _parts(n_clusters: int) -> np.ndarray:
    """All parts of the clusters without the first, shape (2 ** (n_clusters - 1) - 1, n_clusters)."""
    codes = np.arange(1, 2 ** (n_clusters - 1))[:, None] >> np.arange(n_clusters - 1)
    return np.pad(codes & 1, ((0, 0), (1, 0))).astype(float)


def _members(groups: Groups, orders: np.ndarray) -> np.ndarray:
    """Which cluster is in which group where they are numbered in these orders, shape (n_deals, n_groups, n_clusters)."""
    ordered = group_of(groups)
    group = np.empty_like(orders)
    np.put_along_axis(group, orders, np.broadcast_to(ordered, orders.shape), axis=1)
    return (group[:, None, :] == np.arange(len(groups))[:, None]).astype(float)


def group_of(groups: Groups) -> np.ndarray:
    """Group of each cluster, from 0."""
    found = np.empty(sum(map(len, groups)), dtype=int)
    for position, group in enumerate(groups):
        found[np.array(group) - 1] = position
    return found


def groups_of(combine: Combine, clusters: Clusters, outcome: Outcome) -> Groups | None:
    """Groups by number; those that differ most where the outcome is to say."""
    if combine != "outcome":
        return combine
    parts = _parts(len(clusters.medoids))
    scores = _Scores.of(_followed(clusters, outcome, np.arange(len(outcome))[None]))
    best = parts[scores.chi2_of_parts(parts)[0].argmax()]
    first, second = ((np.flatnonzero(best == side) + 1).tolist() for side in (0, 1))
    return tuple(first), tuple(second)
