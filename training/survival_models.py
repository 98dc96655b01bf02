"""The search space for a survival endpoint: which models of risk are tried, declared as the classifiers are.

The penalties are on z-scores or their like: a scaler comes before every model. To add a kind: one ``Option``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from features.risk import BoostedRisk, CoxRisk
from training.options import Choice, Limits, Option, Parameter, Range, Value


def _boosted(objective: Literal["cox", "aft"], parameters: Mapping[str, Any], random_state: int) -> list[BoostedRisk]:
    return [BoostedRisk(objective=objective, random_state=random_state, **parameters)]


def _universal(limits: Limits) -> float:
    """The lasso penalty that leaves pure noise without a feature: sqrt(2 log p / n), for scores of variance 1."""
    return float(np.sqrt(2 * np.log(max(limits.features, 2)) / limits.samples))


def _growth(limits: Limits) -> tuple[Parameter, ...]:
    return (
        Range("n_estimators", 20, 200, "low", whole=True),
        Range("max_depth", 1, max(2, min(4, int(np.log2(max(limits.samples, 4))) - 2)), "low", whole=True),
        Range("learning_rate", 0.01, 0.3, "low", log=True),
        Range("subsample", 0.5, 1.0, "low"),
        Range("min_child_weight", 1, max(1, limits.samples // 10), "high", whole=True),
    )


# In order of simplicity. Every builder finds the horizon among its parameters; None: the longest time of an event.
SURVIVAL_MODELS = (
    Option(
        "ridge_cox",
        "Cox regression with a ridge penalty",
        lambda p, s: [CoxRisk(horizon=p.get("horizon"), penalty=p["penalty"])],
        lambda limits: (Range("penalty", 1e-2, 1e2, "high", log=True),),
    ),
    Option(
        "elastic_net_cox",
        "Cox regression with an elastic-net penalty",
        lambda p, s: [CoxRisk(horizon=p.get("horizon"), penalty=p["penalty"], l1_ratio=p["l1_ratio"])],
        lambda limits: (
            Range("penalty", 1e-2, max(0.05, _universal(limits)), "high", log=True),
            Range("l1_ratio", 0.1, 1.0, "high"),
        ),
    ),
    Option("boosted_cox", "gradient boosting of a Cox model", lambda p, s: _boosted("cox", p, s), _growth),
    Option(
        "boosted_failure_time",
        "gradient boosting of an accelerated failure time model",
        lambda p, s: _boosted("aft", p, s),
        lambda limits: (*_growth(limits), Choice("distribution", ("normal", "logistic"))),
    ),
)

# Model and parameters that every engine tries first, on z-scores: on small cohorts little beats a strongly shrunk linear model.
SURVIVAL_BASELINE: tuple[str, Mapping[str, Value]] = ("ridge_cox", {"penalty": 10.0})
