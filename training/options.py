"""What a search space is made of: options for a step, and hyperparameters bounded by samples and features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator

Value = float | int | str


@dataclass(frozen=True)
class Limits:
    """What bounds the hyperparameters: samples to learn from and features chosen, in the smallest inner fold."""

    samples: int
    features: int


@dataclass(frozen=True)
class Range:
    """A number between two bounds.

    Attributes
    ----------
    simpler : {"low", "high"}
        Which end gives the simpler model.
    """

    name: str
    low: float
    high: float
    simpler: Literal["low", "high"]
    log: bool = False
    whole: bool = False

    def complexity(self, value: Value) -> float:
        """0 at the simpler end, 1 at the other."""
        low, high, at = np.log([self.low, self.high, float(value)]) if self.log else (self.low, self.high, float(value))
        share = (at - low) / (high - low) if high > low else 0.0
        return float(share if self.simpler == "low" else 1 - share)


@dataclass(frozen=True)
class Choice:
    """One of a few values, the simplest first."""

    name: str
    options: tuple[Value, ...]

    def complexity(self, value: Value) -> float:
        """Position among the options."""
        return float(self.options.index(value))


Parameter = Range | Choice


def _none(limits: Limits) -> tuple[Parameter, ...]:
    return ()


@dataclass(frozen=True)
class Option:
    """One way to do one step of the pipeline.

    Attributes
    ----------
    name : str
    words : str
        As it is called in a sentence.
    build : callable
        From parameters and a random state to the scikit-learn steps.
    parameters : callable
        From limits to the hyperparameters, the most telling for simplicity first.
    """

    name: str
    words: str
    build: Callable[[Mapping[str, Any], int], list[BaseEstimator]]
    parameters: Callable[[Limits], tuple[Parameter, ...]] = _none


def tree_limits(limits: Limits) -> tuple[Parameter, ...]:
    """Depth and smallest leaf of trees."""
    return (
        Range("max_depth", 1, max(2, min(10, int(np.log2(max(limits.samples, 4))))), "low", whole=True),
        Range("min_samples_leaf", 1, max(1, limits.samples // 10), "high", whole=True),
    )
