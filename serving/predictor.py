"""From named numbers to a probability and a label: the same path for the endpoint and for a table scored offline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from features.contract import Novelty
from features.errors import HypoxiaError, SchemaMismatchError, did_you_mean
from features.feature import Feature
from serving.loader import LoadedModel
from serving.profile import Placement, Profile, profile_of

if TYPE_CHECKING:
    import pandas as pd

    from serving.composite import Composite
    from serving.explainer import Explainer

MOST_FAULTS = 100
# A near name is looked for among all features of the model: a row of ten thousand unknown names must not buy hours of that.
MOST_HINTS = 5
LONGEST_HINTED_NAME = 200
# No feature is of this size, whatever its unit.
LARGEST = 1e100
# Below this no pipeline in use overflows; from here on a ValueError while scoring is put down to the value.
LARGE = 1e12
# In the place of a word that the model does not know: neither a number nor a null, which could be filled.
NO_WORD = ()
TOO_LARGE = "hold a value that is too large for this model to compute with; check the units of the features"

Path = tuple[str | int, ...]
Rows = Sequence[Mapping[str, Any] | None]

_NUMBERS = frozenset({float, int})
_NUMBERS_OR_NULL = frozenset({float, int, type(None)})


@dataclass(frozen=True)
class Fault:
    """What is wrong at one place of a request: `path` leads there from the top of the body, as in a JSON pointer."""

    path: Path
    reason: str

    @property
    def row(self) -> int:
        """Row that it concerns, counted from 0; -1 if it concerns all of them."""
        return int(self.path[1]) if self.path[:1] == ("rows",) and len(self.path) > 1 else -1

    @property
    def feature(self) -> str:
        """Last step of the path: the name of the feature, where it leads to one."""
        return str(self.path[-1]) if self.path else "request"


class RowsMismatchError(SchemaMismatchError):
    """A request cannot be scored as it stands; knows where it has which faults.

    Parameters
    ----------
    found : sequence of Fault
        The first ``MOST_FAULTS`` are kept.
    """

    def __init__(self, found: Sequence[Fault]) -> None:
        self.found = list(found[:MOST_FAULTS])
        super().__init__([(fault.feature, fault.reason) for fault in self.found])


class UnlikeTrainingError(RowsMismatchError):
    """Rows are unlike what the model was trained on, and the request wants such rows refused."""


class ScoreError(HypoxiaError):
    """A model's score is no probability, and its input is not to blame."""


@dataclass(frozen=True)
class Scored:
    """What a model says about one row; `score` is the one behind the probability, if the model has one."""

    probability: float
    label: str
    threshold: float
    model: str
    version: str
    out_of_distribution: bool
    score: float | None = None


@dataclass(frozen=True)
class Reading:
    """Rows of a request as numbers, as far as they are right.

    Attributes
    ----------
    matrix : ndarray of shape (n_good, n_features)
        NaN for what is to be imputed.
    good : sequence of int
        Which rows these are.
    faults : list of Fault
        What is wrong with the others.
    """

    matrix: np.ndarray
    good: Sequence[int]
    faults: list[Fault]


@dataclass(frozen=True)
class Scores:
    """What a model says about a matrix of rows.

    Attributes
    ----------
    probability : ndarray of shape (n_rows,)
        NaN for a row with a value that is too large to compute with.
    raw : ndarray of shape (n_rows,), or None
        The score behind the probability, if the model has one.
    positive : ndarray of shape (n_rows,), bool
        Which rows are called positive.
    novelty : Novelty
        How the rows compare with the training samples.
    placed : Placement or None
        Where they lie among the clusters, of a profile model; of a row without probability it says nothing.
    """

    probability: np.ndarray
    raw: np.ndarray | None
    positive: np.ndarray
    novelty: Novelty
    placed: Placement | None = None

    @property
    def value(self) -> np.ndarray:
        """What a composite takes from the model: its score, or its probability if it has none; shape (n_rows,)."""
        return self.probability if self.raw is None else np.where(np.isnan(self.probability), np.nan, self.raw)

    @cached_property
    def probabilities(self) -> list[float]:
        """As plain numbers."""
        return self.probability.tolist()

    @cached_property
    def raws(self) -> list[float] | list[None]:
        """Scores behind the probabilities as plain numbers, or as many times None."""
        return [None] * len(self.probability) if self.raw is None else self.raw.tolist()

    @cached_property
    def positives(self) -> list[bool]:
        """Whether each row is called positive."""
        return self.positive.tolist()

    @cached_property
    def distances(self) -> list[float]:
        """Distances from the training samples, as plain numbers."""
        return self.novelty.distance.tolist()

    @cached_property
    def flagged(self) -> list[bool]:
        """Whether each row is out of distribution."""
        return self.novelty.flagged.tolist()

    @cached_property
    def outside(self) -> list[bool]:
        """Whether each row has a value outside its training range."""
        return self.novelty.is_outside.tolist()

    def unlikeness(self, row: int) -> dict[str, Any]:
        """How a row compares with the training samples, as it is answered."""
        novelty, flagged = self.novelty, self.flagged[row]
        outside = novelty.outside_range(row) if self.outside[row] else []
        return {
            "flagged": flagged,
            "distance": self.distances[row],
            "limit": novelty.limit,
            "outside_range": [{"feature": name, "side": side} for name, side in outside],
            "drivers": novelty.drivers(row) if flagged else [],
        }


@dataclass(frozen=True, eq=False)
class Predictor:
    """Scores rows with a loaded model.

    Examples
    --------
    ``Predictor(load_registered(parse_reference("song2020-hypoxia"), uri)).predict([{"volume": 1.5, "entropy": 4.2}])``
    """

    loaded: LoadedModel

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Names of the features that a row must have."""
        return self.loaded.bundle.schema.names

    @cached_property
    def aliases(self) -> Mapping[str, str]:
        """Other names under which a feature may be sent."""
        return self.loaded.bundle.contract.aliases

    @cached_property
    def threshold(self) -> float:
        """A probability at or above it is called positive."""
        return self.loaded.bundle.card.threshold

    @cached_property
    def imputes(self) -> bool:
        """Whether an explicit null is taken for a feature, unless that says otherwise, and filled as in training.

        A composite takes one if it judges a patient by the other biomarker alone.
        """
        card = self.loaded.bundle.card.composite
        return self.loaded.bundle.contract.missing == "impute" if card is None else card.missing == "alone"

    @cached_property
    def composite(self) -> Composite | None:
        """The two biomarkers and the models that give them, if the model is a composite."""
        from serving.composite import composite_of

        return composite_of(self)

    @cached_property
    def profile(self) -> Profile | None:
        """The clusters, if the model is a profile."""
        return profile_of(self.loaded.bundle)

    @cached_property
    def nullable(self) -> frozenset[str]:
        """Features that may be null."""
        features = self.loaded.bundle.schema.features
        return frozenset(feature.name for feature in features if feature.may_be_missing(self.imputes))

    @cached_property
    def levels(self) -> Mapping[str, Feature]:
        """Features that take words."""
        return {feature.name: feature for feature in self.loaded.bundle.schema.with_levels}

    def replaced(self, row: Mapping[str, Any]) -> list[str]:
        """Features of a row whose word was not seen in training, and that another stands for."""
        return [
            name for name, feature in self.levels.items() if isinstance(row.get(name), str) and row[name] not in feature.levels
        ]

    @cached_property
    def seconds(self) -> float:
        """Time that one row takes, measured on a row of the bundle's own."""
        row = self.loaded.bundle.background[:1]
        return min(self._seconds(row) for _ in range(4))

    @cached_property
    def explainer(self) -> Explainer | None:
        """Explains single rows of this model; None for a profile.

        A profile's risk is a step from cluster to cluster: SHAP values of it are noise beside what decided the cluster, which
        `Placement` answers exactly.
        """
        from serving.explainer import Explainer

        return Explainer(self.loaded.bundle) if self.profile is None else None

    def predict(self, rows: Rows) -> list[Scored]:
        """Score rows of exactly the model's features, keys in any order.

        Raises
        ------
        RowsMismatchError
            A feature is missing, unknown, sent under two names, or not a finite number; or too large to compute with.
        """
        reading = self.read(rows)
        if reading.faults:
            raise RowsMismatchError(reading.faults)
        return self._scored(self.all_scored(reading.matrix))

    def predict_table(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Score a table that has the model's features, or their aliases, among its columns.

        Parameters
        ----------
        frame : DataFrame of shape (n_samples, at least n_features)

        Returns
        -------
        DataFrame of shape (n_samples, at least 6)
            Columns ``probability, label, threshold, model, version, out_of_distribution``; then ``score`` if there is one
            behind the probability; for a composite ``part.NAME`` for each biomarker and ``missing`` for the one that was; and for
            a profile ``cluster, distance.cluster_1, ..., margin, runner_up, unlike_any_cluster``; index as in `frame`.
        """
        import pandas as pd

        read = None if self.composite is None else self.composite.read_table(frame)
        scores = self.all_scored(self.matrix_of_table(frame) if read is None else read.matrix)
        columns = ["probability", "label", "threshold", "model", "version", "out_of_distribution"]
        columns += [] if self.loaded.bundle.card.score is None else ["score"]
        rows = [[getattr(row, name) for name in columns] for row in self._scored(scores)]
        table = pd.DataFrame(rows, columns=columns, index=frame.index)
        table = table if scores.placed is None else scores.placed.beside(table)
        return table if read is None else read.beside(table)

    def matrix_of_table(self, frame: pd.DataFrame) -> np.ndarray:
        """The model's features of a table; an empty cell is NaN where the model imputes, else refused.

        A biomarker of a composite that is no column is computed from the features of its component, if these are columns.

        Raises
        ------
        SchemaMismatchError
            A feature is missing, is there twice, or has a value that is no number.
        """
        if self.composite is not None:
            return self.composite.read_table(frame).matrix
        standing_in = {other: name for other, name in self.aliases.items() if other in frame and name not in frame}
        return self.loaded.bundle.schema.conform(frame.rename(columns=standing_in), impute=self.imputes).to_numpy()

    def read(self, rows: Rows) -> Reading:
        """Rows as numbers in the model's order, and what is wrong with those that cannot be.

        Parameters
        ----------
        rows : sequence of mappings from feature name to value
            None for a row that was found wrong already.
        """
        sent, rows = rows, [self._coded(row) for row in rows] if self.levels else rows
        matrix = self._matrix(rows)
        if matrix is not None:
            return Reading(matrix, range(len(rows)), [])
        hints = _Hints(self.features)
        faults_by_row = [[] if row is None else self._faults(number, row, hints) for number, row in enumerate(sent)]
        good = [number for number, row in enumerate(rows) if row is not None and not faults_by_row[number]]
        values = [self._values(self._renamed(rows[number] or {})) for number in good]
        matrix = np.array(values, dtype=float).reshape(len(good), len(self.features))
        return Reading(matrix, good, [fault for faults in faults_by_row for fault in faults])

    def score(self, matrix: np.ndarray) -> Scores:
        """Score rows of numbers, of which each is judged by itself: a large value in one fails no other.

        Raises
        ------
        ScoreError
            The model gives something else than a probability for ordinary numbers.
        """
        try:
            probability, raw = self._computed(matrix)
        except ValueError:
            probability, raw = self._one_by_one(matrix)
        placed = self._placed(matrix, probability)
        right = (probability >= 0) & (probability <= 1)
        if raw is not None:
            right &= np.isfinite(raw)
        if placed is not None:
            right &= placed.is_finite
        if not right.all():
            if not _is_large(matrix[~right]).all():
                raise ScoreError("The model gave something else than a probability for ordinary numbers; train it again.")
            probability = np.where(right, probability, np.nan)
        return Scores(probability, raw, self._is_positive(probability, raw), self.loaded.bundle.contract.judge(matrix), placed)

    def label(self, positive: bool) -> str:
        """What a row is called."""
        card = self.loaded.bundle.card
        return card.positive_label if positive else card.negative_label

    @cached_property
    def decides(self) -> str:
        """From where on a row is called positive, in words."""
        score = self.loaded.bundle.card.score
        if score is None:
            return f"probability at or above {self.threshold:.3g}"
        return f"{score.name} at or above {score.cutoff:.4g}" + (f" {score.unit}" if score.unit else "")

    def _is_positive(self, probability: np.ndarray, raw: np.ndarray | None) -> np.ndarray:
        """A score with a cutoff of its own decides before the probability does."""
        score = self.loaded.bundle.card.score
        return probability >= self.threshold if score is None or raw is None else raw >= score.cutoff

    def _computed(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        with np.errstate(over="ignore", invalid="ignore"):
            return self.loaded.bundle.score(matrix), self.loaded.bundle.raw_score(matrix)

    def _placed(self, matrix: np.ndarray, probability: np.ndarray) -> Placement | None:
        """Where rows lie among the clusters; a row that could not be scored could not be placed either, and another stands in."""
        bundle, profile = self.loaded.bundle, self.profile
        if profile is None:
            return None
        failed = np.isnan(probability)
        with np.errstate(over="ignore", invalid="ignore"):
            assigned = bundle.assigned(np.where(failed[:, None], bundle.background[:1], matrix) if failed.any() else matrix)
        return None if assigned is None else Placement(profile, assigned)

    def _matrix(self, rows: Rows) -> np.ndarray | None:
        """The quick way, for rows in which nothing is wrong; None if anything may be."""
        try:
            values = [self._values(row) for row in rows]  # type: ignore[arg-type]
        except (KeyError, TypeError):
            return None
        width = len(self.features)
        allowed = _NUMBERS_OR_NULL if self.nullable else _NUMBERS
        if any(len(row) != width for row in rows) or not all(allowed.issuperset(map(type, row)) for row in values):  # type: ignore[arg-type]
            return None
        if self.nullable and any(row[place] is None for row in values for place in self._never_null):
            return None
        try:
            matrix = np.array(values, dtype=float)
        except OverflowError:  # a whole number of hundreds of digits
            return None
        if np.abs(matrix).max() <= LARGEST:
            return matrix
        return matrix if self.nullable and all(_fits(value) for row in values for value in row) else None

    @cached_property
    def _never_null(self) -> tuple[int, ...]:
        return tuple(place for place, name in enumerate(self.features) if name not in self.nullable)

    def _coded(self, row: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Words that the model knows as their codes; whatever else is there in their place is no number either."""
        if row is None:
            return None
        given = ((name, feature, row[name]) for name, feature in self.levels.items() if row.get(name) is not None)
        codes = {name: feature.code(value) if isinstance(value, str) else None for name, feature, value in given}
        return {**row, **{name: NO_WORD if code is None else code for name, code in codes.items()}}

    @cached_property
    def _values(self) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
        only = self.features[0]
        return itemgetter(*self.features) if len(self.features) > 1 else lambda row: (row[only],)

    def _renamed(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        return {self.aliases.get(name, name): value for name, value in row.items()}

    def _faults(self, number: int, row: Mapping[str, Any], hints: _Hints) -> list[Fault]:
        """All that is wrong with one row, as far as anybody would read on."""
        there: dict[str, str] = {}
        found: list[tuple[str, str]] = []
        for sent, value in row.items():
            name = self.aliases.get(sent, sent)
            if name in there:
                found.append((sent, f"is the same feature as {there[name]!r}, which is sent too; send one of them"))
            elif name not in self._known:
                found.append((sent, f"is not a feature of this model{hints.of(sent)}"))
            elif reason := self._why_unfit(name, value):
                found.append((sent, reason))
            there[name] = sent
            if len(found) >= MOST_FAULTS:
                break
        missing = [(name, "is missing") for name in self.features if name not in there] if len(found) < MOST_FAULTS else []
        return [Fault(("rows", number, "features", name), reason) for name, reason in (missing + found)[:MOST_FAULTS]]

    def _why_unfit(self, name: str, value: Any) -> str | None:
        if value is None:
            return None if name in self.nullable else "is null, and this model takes no missing values"
        if name not in self.levels:
            return None if _fits(value) else _why_unfit(value)
        feature = self.levels[name]
        if isinstance(value, str):
            return (
                None
                if feature.code(value) is not None
                else f"is a word that was not seen in training (seen: {_some(feature.levels)})"
            )
        return f"is not a word; send one of {_some(feature.levels)}"

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.features)

    def _one_by_one(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """NaN where the pipeline cannot compute with a large value; whatever else stops it is our fault."""
        probability, raw = np.full(len(matrix), np.nan), np.full(len(matrix), np.nan)
        has_raw = self.loaded.bundle.card.score is not None
        for number, row in enumerate(matrix):
            try:
                one, behind = self._computed(row[None, :])
            except ValueError:
                if not _is_large(row[None, :]).all():
                    raise
                continue
            probability[number] = one[0]
            raw[number] = np.nan if behind is None else behind[0]
        return probability, raw if has_raw else None

    def all_scored(self, matrix: np.ndarray) -> Scores:
        """Score rows of numbers.

        Raises
        ------
        RowsMismatchError
            One holds a value that is too large to compute with.
        """
        scores = self.score(matrix)
        failed = np.flatnonzero(np.isnan(scores.probability)).tolist()
        if failed:
            raise RowsMismatchError([Fault(("rows", number, "features"), TOO_LARGE) for number in failed])
        return scores

    def _scored(self, scores: Scores) -> list[Scored]:
        model = self.loaded
        return [
            Scored(probability, self.label(positive), self.threshold, model.name, model.version, flagged, raw)
            for probability, positive, flagged, raw in zip(
                scores.probabilities, scores.positives, scores.flagged, scores.raws, strict=True
            )
        ]

    def _seconds(self, matrix: np.ndarray) -> float:
        started = perf_counter()
        self.score(matrix)
        return perf_counter() - started


class _Hints:
    """Nearest names for a few misspelt ones."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = tuple(known)
        self._given: dict[str, str] = {}

    def of(self, name: str) -> str:
        if name not in self._given and len(self._given) < MOST_HINTS and len(name) <= LONGEST_HINTED_NAME:
            self._given[name] = did_you_mean(name, self._known)
        return self._given.get(name, "")


def _is_large(matrix: np.ndarray) -> np.ndarray:
    """Rows with a value that may be too large to compute with."""
    return np.asarray(np.abs(np.nan_to_num(matrix)).max(axis=1) >= LARGE)


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:MOST_HINTS]) + (", ..." if len(words) > MOST_HINTS else "")


def _fits(value: Any) -> bool:
    if value is None:
        return True
    if isinstance(value, bool) or not isinstance(value, (float, int, np.floating, np.integer)):
        return False
    return bool(-LARGEST <= value <= LARGEST)


def _why_unfit(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (float, int)):
        return "is not a number"
    return "is too large" if np.inf > abs(value) else "is not a finite number"
