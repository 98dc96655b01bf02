"""Which features drive an answer: SHAP values of one row at a time, exactly additive to its score."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from features.bundle import ModelBundle
from features.errors import HypoxiaError

SHOWN = 10
ADDITIVITY = 1e-6
SEED = 0
# Rows that the model scores for one explanation. A fixed number, not a time: the values must not depend on the machine.
MODEL_ROWS = 10_000

# SHAP draws its permutations from NumPy's global generator: two explanations at a time would take each other's numbers.
_generator = threading.Lock()


class ExplanationError(HypoxiaError):
    """Contributions do not add up to the model's score; they were not shown."""


@dataclass(frozen=True)
class Explanation:
    """SHAP values of one row.

    Attributes
    ----------
    base_value : float
        Mean score of the bundle's background rows.
    values : ndarray of shape (n_features,)
        What each feature adds to it; together they give the row's score.
    """

    names: tuple[str, ...]
    base_value: float
    values: np.ndarray

    def largest(self) -> list[tuple[str, float]]:
        """Features that matter most, largest first, ties in the model's order."""
        order = np.argsort(-np.abs(self.values), kind="stable")[:SHOWN]
        return [(self.names[i], float(self.values[i])) for i in order]

    def answer(self) -> dict[str, Any]:
        """As the endpoint answers it: the largest, and the rest summed."""
        shown = self.largest()
        rest = len(self.names) - len(shown)
        # What is left of the sum, not a sum of its own, so that the numbers of the answer add up too.
        left = float(self.values.sum()) - sum(value for _, value in shown) if rest else 0.0
        features = [{"feature": name, "shap": value} for name, value in shown]
        return {"base_value": self.base_value, "features": features, "rest": left, "rest_count": rest}


@dataclass(frozen=True, eq=False)
class Explainer:
    """Explains rows of one model through its whole pipeline, on the original features.

    References
    ----------
    Lundberg & Lee 2017, NeurIPS 30; Mitchell et al. 2022, JMLR 23(43) (antithetic permutation sampling).
    """

    bundle: ModelBundle

    @cached_property
    def permutations(self) -> int:
        """Permutations that are averaged, each forwards and backwards."""
        calls = (2 * len(self.bundle.schema.names) + 1) * len(self.bundle.background)
        return min(10, max(1, MODEL_ROWS // calls))

    def explain(self, row: np.ndarray) -> Explanation:
        """SHAP values of a row; the same for the same row, whatever was explained before.

        Parameters
        ----------
        row : ndarray of shape (n_features,)
            In the model's order; NaN for what is imputed. The contribution of a biomarker that a composite does without is
            what its being missing changes.

        Raises
        ------
        ExplanationError
            They do not add up to the row's score.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # as where the row was scored
            found = self._permuted(row)
            score = float(self.bundle.score(row[None, :])[0])
        values = np.asarray(found.values[0], dtype=float)
        base = float(np.ravel(found.base_values)[0])
        missed = abs(base + float(values.sum()) - score)
        if not missed <= ADDITIVITY:
            raise ExplanationError(f"SHAP values miss the model's score by {missed:.1e}; the explanation cannot be trusted.")
        return Explanation(self.bundle.schema.names, base, values)

    def explain_all(self, matrix: np.ndarray) -> Sequence[Explanation]:
        """Explanations of rows, one after the other."""
        return [self.explain(row) for row in matrix]

    def warm(self) -> None:
        """Import SHAP: seconds that the first client need not wait for."""
        self.explain(self.bundle.background[0])

    def _permuted(self, row: np.ndarray) -> Any:
        evaluations = self.permutations * (2 * len(row) + 1)
        with _generator:
            shap = load_shap()
            masker = _exact(shap)(self.bundle.background, max_samples=len(self.bundle.background))
            before = np.random.get_state()  # noqa: NPY002 - SHAP's, not ours
            try:
                explainer = shap.PermutationExplainer(self.bundle.score, masker, seed=SEED)
                return explainer(row[None, :], max_evals=evaluations, silent=True)
            finally:
                np.random.set_state(before)  # noqa: NPY002


@cache
def load_shap() -> Any:
    """SHAP, imported as it is needed here: a third of a second and a few megabytes, rather than nine seconds and forty."""
    with _uncompiled(), _without_plots():
        import shap
    return shap


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Leave as it is what numba would compile: that takes every process six seconds, and saves two milliseconds a row."""
    import numba

    compiler: Any = numba.config
    before = compiler.DISABLE_JIT
    compiler.DISABLE_JIT = True
    try:
        yield
    finally:
        compiler.DISABLE_JIT = before


@contextmanager
def _without_plots() -> Iterator[None]:
    """SHAP does without matplotlib where it must; where it need not, a list of fonts would be written to the home folder."""
    if "matplotlib" in sys.modules:
        yield
        return
    sys.modules["matplotlib"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["matplotlib"]


@cache
def _exact(shap: Any) -> Any:
    """SHAP's masker takes a value for one of the background's if it is near it, in absolute terms too: what differs, differs.

    With ``np.isclose`` a feature of the size 1e-9 never varies, and the values would not add up.
    """

    class ExactMasker(shap.maskers.Independent):  # type: ignore[misc]
        def invariants(self, row: np.ndarray) -> np.ndarray:
            return np.asarray(row == self.data)

    return ExactMasker
