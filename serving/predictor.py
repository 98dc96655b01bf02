"""From named numbers to a probability and a label: the same path for the endpoint and for a table scored offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from features.errors import InputError, SchemaMismatchError
from features.table import did_you_mean
from serving.loader import LoadedModel

if TYPE_CHECKING:
    import pandas as pd

MOST_FAULTS = 100
# A near name is looked for among all features of the model: a row of ten thousand unknown names must not buy hours of that.
MOST_HINTS = 5
LONGEST_HINTED_NAME = 200
# Below this no pipeline in use overflows; from here on a ValueError while scoring is put down to the value.
LARGE = 1e12


@dataclass(frozen=True)
class Fault:
    """What is wrong with one feature of one row (counted from 0)."""

    row: int
    feature: str
    reason: str


class RowsMismatchError(SchemaMismatchError):
    """Rows do not have the model's features; knows which row has which fault.

    Parameters
    ----------
    found : list of Fault
        At most ``MOST_FAULTS``.
    """

    def __init__(self, found: list[Fault]) -> None:
        self.found = found
        super().__init__([(fault.feature, fault.reason) for fault in found])


@dataclass(frozen=True)
class Scored:
    """What a model says about one row."""

    probability: float
    label: str
    threshold: float
    model: str
    version: str


@dataclass(frozen=True)
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

    @property
    def threshold(self) -> float:
        """A probability at or above it is called positive."""
        return self.loaded.bundle.card.threshold

    def predict(self, rows: Sequence[Mapping[str, float]]) -> list[Scored]:
        """Score rows of exactly the model's features, keys in any order.

        Raises
        ------
        RowsMismatchError
            A feature is missing or unknown in some row.
        InputError
            A value is not finite, or too large to compute with.
        """
        names = frozenset(self.features)
        if any(row.keys() != names for row in rows):
            raise RowsMismatchError(self._faults(rows, names))
        return [self._called(probability) for probability in self._probabilities(self.loaded.bundle.schema.matrix(rows)).tolist()]

    def predict_table(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Score a table that has the model's features among its columns.

        Parameters
        ----------
        frame : DataFrame of shape (n_samples, at least n_features)

        Returns
        -------
        DataFrame of shape (n_samples, 5)
            Columns ``probability, label, threshold, model, version``; index as in `frame`.
        """
        import pandas as pd

        scored = [self._called(probability) for probability in self._probabilities(self._matrix(frame)).tolist()]
        columns = ["probability", "label", "threshold", "model", "version"]
        return pd.DataFrame([[getattr(row, name) for name in columns] for row in scored], columns=columns, index=frame.index)

    def _matrix(self, frame: pd.DataFrame) -> np.ndarray:
        return self.loaded.bundle.schema.conform(frame).to_numpy()

    def _called(self, probability: float) -> Scored:
        card = self.loaded.bundle.card
        label = card.positive_label if probability >= card.threshold else card.negative_label
        return Scored(probability, label, card.threshold, self.loaded.name, self.loaded.version)

    def _probabilities(self, matrix: np.ndarray) -> np.ndarray:
        too_large = "A value is too large for this model to compute with; check the units of the features."
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                probabilities = self.loaded.bundle.score(matrix)
        except ValueError as cause:
            if np.abs(matrix).max(initial=0.0) < LARGE:
                raise
            raise InputError(too_large) from cause
        if not np.isfinite(probabilities).all():
            raise InputError(too_large)
        return probabilities

    def _faults(self, rows: Sequence[Mapping[str, float]], names: frozenset[str]) -> list[Fault]:
        found: list[Fault] = []
        for number, row in enumerate(rows):
            found += [Fault(number, name, "is missing") for name in self.features if name not in row]
            found += [Fault(number, name, "is not a feature of this model") for name in row if name not in names]
            if len(found) >= MOST_FAULTS:
                break
        return self._with_hints(found[:MOST_FAULTS], names)

    def _with_hints(self, found: list[Fault], names: frozenset[str]) -> list[Fault]:
        unknown = {fault.feature: "" for fault in found if fault.feature not in names}
        for name in list(unknown)[:MOST_HINTS]:
            unknown[name] = did_you_mean(name, self.features) if len(name) <= LONGEST_HINTED_NAME else ""
        return [replace(fault, reason=fault.reason + unknown.get(fault.feature, "")) for fault in found]
