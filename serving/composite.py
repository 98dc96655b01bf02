"""A composite's two biomarkers: sent as values, or computed here from the features of the models that give them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from features.bundle import CompositeCard, Part
from features.errors import InputError, SchemaMismatchError, did_you_mean
from serving.loader import LoadedModel
from serving.predictor import TOO_LARGE, Fault, Path, Predictor, Reading, Scores

if TYPE_CHECKING:
    import pandas as pd

NO_COMPOSITE = "is not taken: this model is no composite; send its features under 'features'"
MOST_NAMED = 5

Features = Mapping[str, Any]
Components = Mapping[str, Features | None]


@dataclass(frozen=True)
class Vectors:
    """Features of one component, out of the rows of a request.

    Attributes
    ----------
    rows : sequence of int
        Rows of the request in which they were sent and are right.
    matrix : ndarray of shape (n_rows, n_features)
        In the component's order.
    sent : sequence of mapping
        The same as they were sent.
    """

    rows: Sequence[int]
    matrix: np.ndarray
    sent: Sequence[Features]


@dataclass(frozen=True)
class Request:
    """Rows of a request with the features of the components taken apart.

    Attributes
    ----------
    rows : sequence of mapping or None
        Values of biomarkers by name; None for a row of the wrong form.
    components : sequence of mapping or None
        Features by component, of each row; empty if none has any.
    vectors : mapping of str to Vectors
        By component; of those that were sent.
    faults : list of Fault
        What is wrong with the components.
    """

    rows: Sequence[Features | None]
    components: Sequence[Components | None]
    vectors: Mapping[str, Vectors]
    faults: list[Fault]

    def given(self, row: int) -> Components:
        """Features by component of one row, as they were sent."""
        return (self.components[row] if self.components else None) or {}

    def components_of(self, row: int) -> Mapping[str, Features]:
        """Features by component of one row, without those that are null."""
        return {name: features for name, features in self.given(row).items() if features is not None}


@dataclass(frozen=True)
class PartScores:
    """What a component says of the rows in which its features were sent.

    Attributes
    ----------
    scores : Scores
        Of a batch, in which these rows begin at `first`.
    """

    predictor: Predictor
    vectors: Vectors
    scores: Scores
    first: int = 0

    @cached_property
    def places(self) -> Mapping[int, int]:
        """Place in the batch, by row of the request."""
        return {row: self.first + place for place, row in enumerate(self.vectors.rows)}

    @cached_property
    def values(self) -> Mapping[int, float]:
        """What the composite takes, by row of the request; NaN where a feature is too large to compute with."""
        every = self.scores.value.tolist()
        return {row: every[place] for row, place in self.places.items()}

    def is_flagged(self, row: int) -> bool:
        """Whether the features of a row are unlike those that the component was trained on."""
        return row in self.places and self.scores.flagged[self.places[row]]

    def account(self, row: int) -> dict[str, Any]:
        """What was done with the features of a row, and how they compare with the training samples, as it is answered."""
        at = self.places[row] - self.first
        return {
            "imputed": [self.predictor.features[i] for i in np.flatnonzero(np.isnan(self.vectors.matrix[at]))],
            "replaced": self.predictor.replaced(self.vectors.sent[at]),
            "out_of_distribution": self.scores.unlikeness(self.places[row]),
        }


@dataclass(frozen=True)
class TableReading:
    """Biomarkers of a table.

    Attributes
    ----------
    matrix : ndarray of shape (n_samples, 2)
        NaN for a biomarker that is missing.
    flagged : ndarray of shape (n_samples,), bool
        Whether features of a component are unlike those that it was trained on.
    """

    names: tuple[str, ...]
    matrix: np.ndarray
    flagged: np.ndarray

    def beside(self, table: pd.DataFrame) -> pd.DataFrame:
        """What was answered, with the biomarkers, the one that was missing, and what is known of the components' features."""
        missing = [", ".join(name for name, gap in zip(self.names, row, strict=True) if gap) for row in np.isnan(self.matrix)]
        values = {f"part.{name}": self.matrix[:, place] for place, name in enumerate(self.names)}
        flagged = table["out_of_distribution"] | self.flagged
        return table.assign(**values, missing=missing, out_of_distribution=flagged)


@dataclass(frozen=True, eq=False)
class Composite:
    """The two biomarkers of a composite, and the models that give them.

    Attributes
    ----------
    predictor : Predictor
        Of the composite itself, which takes the two values.
    components : mapping of str to Predictor
        By biomarker, of those that a model gives.
    """

    predictor: Predictor
    card: CompositeCard
    components: Mapping[str, Predictor] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The two biomarkers, in the composite's order."""
        return self.predictor.features

    @property
    def takes_one(self) -> bool:
        """Whether a patient is judged by one biomarker alone where the other is missing."""
        return self.card.missing == "alone"

    def account(
        self, row: int, values: np.ndarray, called: Mapping[str, Any], scored: Mapping[str, PartScores]
    ) -> dict[str, Any]:
        """The two biomarkers of a row, where each comes from, and what the composite makes of them, as it is answered.

        Parameters
        ----------
        values : ndarray of shape (2,)
        called : mapping
            Score and label of the row.
        scored : mapping of str to PartScores
            What the components say, by biomarker.
        """
        score = self.predictor.loaded.bundle.card.score
        numbers = [None if np.isnan(value) else value for value in values.tolist()]
        missing = next((name for name, value in zip(self.names, numbers, strict=True) if value is None), None)
        return {
            **called,
            "cutoff": None if score is None else score.cutoff,
            "rule": self.card.rule,
            "parts": [self._part(part, row, value, scored) for part, value in zip(self.card.parts, numbers, strict=True)],
            "missing": None if missing is None else {"part": missing, "answered": self._alone(missing)},
        }

    def _part(self, part: Part, row: int, value: float | None, scored: Mapping[str, PartScores]) -> dict[str, Any]:
        by = scored.get(part.name)
        known = by is not None and row in by.places
        source = "model" if known else None if value is None else "sent"
        nothing: dict[str, Any] = {"imputed": [], "replaced": [], "out_of_distribution": None}
        return {
            **part.model_dump(include={"name", "modality", "model", "version"}),
            "value": value,
            "source": source,
            **(by.account(row) if by is not None and known else nothing),
        }

    def _alone(self, missing: str) -> str:
        other = self.names[1 - self.names.index(missing)]
        return f"by {other} alone, at its own cutpoint"

    def request(self, rows: Sequence[Features | None], components: Sequence[Components | None]) -> Request:
        """Take the features of components out of the rows of a request, and read them by the components' own rules."""
        request = Request(rows, components, {}, [])
        wanted: dict[str, tuple[list[int], list[Features]]] = {}
        for number, row in enumerate(rows):
            for name, features in request.given(number).items() if row is not None else ():
                fault = self._why_not(name, features, row or {})
                if fault is not None:
                    request.faults.append(Fault(("rows", number, "components", name), fault))
                elif features is not None:
                    numbers, sent = wanted.setdefault(name, ([], []))
                    numbers.append(number)
                    sent.append(features)
        read = {name: self._read(name, *wanted[name], request.faults) for name in self.names if name in wanted}
        return Request(rows, components, read, request.faults)

    def read(self, request: Request, scored: Mapping[str, PartScores]) -> Reading:
        """Rows of a request as the composite's own numbers, and all that is wrong with the others.

        Parameters
        ----------
        scored : mapping of str to PartScores
            By biomarker: what its component says of the rows that have its features.
        """
        faults = list(request.faults)
        faults += [
            Fault(("rows", number, "components", name), TOO_LARGE)
            for name, part in scored.items()
            for number, value in part.values.items()
            if np.isnan(value)
        ]
        faults += [fault for number, row in enumerate(request.rows) for fault in self._gap(request, number, row)]
        wrong = {fault.row for fault in faults}
        reading = self.predictor.read([self._row(request, number, scored) for number in range(len(request.rows))])
        kept = [place for place, number in enumerate(reading.good) if number not in wrong]
        return Reading(reading.matrix[kept], [reading.good[place] for place in kept], [*faults, *reading.faults])

    def read_table(self, frame: pd.DataFrame) -> TableReading:
        """The two biomarkers of a table: as columns, or from the features of their components as columns.

        Raises
        ------
        SchemaMismatchError
            A biomarker is neither; or a column is there twice, or has a value that is no number.
        InputError
            Rows have neither biomarker.
        """
        import pandas as pd

        flagged = np.zeros(len(frame), dtype=bool)
        values = {}
        for name in self.names:
            values[name], unlike = self._column(name, frame)
            flagged |= unlike
        schema = self.predictor.loaded.bundle.schema
        matrix = schema.conform(pd.DataFrame(values), impute=self.takes_one).to_numpy()
        neither = int(np.isnan(matrix).all(axis=1).sum())
        if neither:
            raise InputError(
                f"{neither} of {len(frame)} rows have neither {' nor '.join(self.names)}; leave them out, or fill one of the two."
            )
        return TableReading(self.names, matrix, flagged)

    def used_components(self, columns: Sequence[str]) -> list[Predictor]:
        """Components whose features are taken from a table, since their biomarker is no column of it."""
        return [one for name, one in self.components.items() if not self._is_there(name, columns) and _has_all(one, columns)]

    def _why_not(self, name: str, features: Features | None, row: Features) -> str | None:
        """What is wrong with a component as such, whatever its features are."""
        if name not in self.names:
            return f"is no part of this composite (its parts: {', '.join(self.names)}){did_you_mean(name, self.names)}"
        if features is None:
            return None
        if name not in self.components:
            return "has no model here that could compute it; send its value under 'features'"
        if any(row.get(key) is not None for key in self._keys(name)):
            return "is sent as a value too, under 'features'; send one of the two"
        return None

    def _keys(self, name: str) -> list[str]:
        """Names under which the value of a biomarker may be sent."""
        return [name, *(other for other, of in self.predictor.aliases.items() if of == name)]

    def _read(self, name: str, numbers: list[int], sent: list[Features], faults: list[Fault]) -> Vectors:
        reading = self.components[name].read(sent)
        faults += [Fault(_within(name, numbers, fault.path), fault.reason) for fault in reading.faults]
        return Vectors([numbers[one] for one in reading.good], reading.matrix, [sent[one] for one in reading.good])

    def _gap(self, request: Request, number: int, row: Features | None) -> Iterator[Fault]:
        """A row without either biomarker; one of them is enough where the policy says so."""
        if row is None or not self.takes_one or request.components_of(number):
            return
        if all(row.get(key) is None for name in self.names for key in self._keys(name)):
            yield Fault(("rows", number, "features"), f"have neither {' nor '.join(self.names)}; send at least one of them")

    def _row(self, request: Request, number: int, scored: Mapping[str, PartScores]) -> Features | None:
        """Both biomarkers as values; a zero where what was sent is wrong, so that the rest of the row is judged too."""
        row = request.rows[number]
        if row is None:
            return None
        given = request.components_of(number)
        filled = dict(row)
        for name in self.names:
            if any(row.get(key) is not None for key in self._keys(name)):
                continue
            if name in given:
                for key in self._keys(name):
                    filled.pop(key, None)
                value = scored[name].values.get(number, 0.0) if name in scored else 0.0
                filled[name] = 0.0 if np.isnan(value) else value
            elif self.takes_one and not any(key in row for key in self._keys(name)):
                filled[name] = None
        return filled

    def _column(self, name: str, frame: pd.DataFrame) -> tuple[pd.Series, np.ndarray]:
        """Values of a biomarker, and which rows have features unlike those that its component was trained on."""
        import pandas as pd

        unlike = np.zeros(len(frame), dtype=bool)
        columns = list(frame.columns)
        there = self._is_there(name, columns)
        if there is not None:
            return _only_column(frame, there), unlike
        component = self.components.get(name)
        if component is None or not _has_all(component, columns):
            # Also where one biomarker is enough: a column that is spelt otherwise would be a biomarker that nobody has.
            empty = "; a patient without it has an empty cell" if self.takes_one else ""
            raise SchemaMismatchError([(name, "is missing" + _so_are(component, columns) + empty)])
        # A patient without any of the features has not this biomarker; one without some of them is the component's to judge.
        known = ~_is_empty(component, frame) if self.takes_one else ~unlike
        values = np.full(len(frame), np.nan)
        if known.any():
            scores = component.all_scored(component.matrix_of_table(frame.loc[known]))
            values[known], unlike[known] = scores.value, scores.flagged
        return pd.Series(values, index=frame.index), unlike

    def _is_there(self, name: str, columns: Sequence[str]) -> str | None:
        """Column that holds the values of a biomarker, if there is one."""
        return next((key for key in self._keys(name) if key in columns), None)


def composite_of(predictor: Predictor) -> Composite | None:
    """What a predictor's model joins; None if it is no composite."""
    bundle = predictor.loaded.bundle
    card = bundle.card.composite
    if card is None:
        return None
    parts = {part.name: part for part in card.parts}
    components = {
        name: Predictor(LoadedModel(parts[name].model or name, parts[name].version or "", component))
        for name, component in bundle.components.items()
    }
    return Composite(predictor, card, components)


def refuse_components(components: Sequence[Components | None]) -> list[Fault]:
    """Faults of rows that have components though the model is no composite."""
    return [Fault(("rows", number, "components"), NO_COMPOSITE) for number, given in enumerate(components) if given is not None]


def _within(name: str, numbers: Sequence[int], path: Path) -> Path:
    """Place in the request of what is wrong with a component's features."""
    return ("rows", numbers[int(path[1])], "components", name, *path[3:])


def _sources(component: Predictor) -> dict[str, list[str]]:
    """Columns that a feature of a component can be taken from."""
    found = {name: [name] for name in component.features}
    for other, name in component.aliases.items():
        found[name].append(other)
    return found


def _lacking(component: Predictor, columns: Sequence[str]) -> list[str]:
    there = set(columns)
    return [name for name, keys in _sources(component).items() if there.isdisjoint(keys)]


def _has_all(component: Predictor, columns: Sequence[str]) -> bool:
    return not _lacking(component, columns)


def _so_are(component: Predictor | None, columns: Sequence[str]) -> str:
    if component is None:
        return ""
    lacking = _lacking(component, columns)
    shown = ", ".join(lacking[:MOST_NAMED]) + (", ..." if len(lacking) > MOST_NAMED else "")
    return f", and so are features of {component.loaded.name}, which gives it ({shown})"


def _is_empty(component: Predictor, frame: pd.DataFrame) -> np.ndarray:
    """Rows without any feature of a component, shape (n_samples,), bool."""
    keys = {key for keys in _sources(component).values() for key in keys}
    return np.asarray(frame[[column for column in frame.columns if column in keys]].isna().all(axis=1))


def _only_column(frame: pd.DataFrame, name: str) -> pd.Series:
    if list(frame.columns).count(name) > 1:
        raise SchemaMismatchError([(name, "is there twice")])
    return frame[name]
