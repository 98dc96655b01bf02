"""Which features drive the model's answers, in the names and units of the original features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.cohort import Cohort
from features.errors import HypoxiaError
from training.recipe import FittedRecipe

ADDITIVITY = 1e-6
BACKGROUND_ROWS = 50
MODEL_CALLS = 2_000_000


@dataclass(frozen=True)
class Explanation:
    """SHAP values of held-out samples, through the whole pipeline.

    Attributes
    ----------
    values : DataFrame of shape (n_samples, n_features)
        Contribution of each feature to the probability; positive pushes towards the event.
    base_value : float
        Mean probability over the background (development samples).
    features : DataFrame of shape (n_samples, n_features)
        The values that were explained.
    probability : ndarray of shape (n_samples,)
        The model's output: ``base_value`` plus the sum of a row of ``values``.
    """

    values: pd.DataFrame
    base_value: float
    features: pd.DataFrame
    probability: np.ndarray

    def importance(self) -> pd.Series:
        """Mean absolute SHAP value per feature, largest first."""
        return self.values.abs().mean().sort_values(ascending=False, kind="stable").rename("mean_absolute_shap")


def explain(fitted: FittedRecipe, development: Cohort, held_out: Cohort, rng: np.random.Generator) -> Explanation:
    """SHAP values of the held-out samples by permutation of whole features.

    The permutation explainer sees the pipeline as one function of the original features, so that it is right whatever the
    pipeline does in between, and exactly additive.

    Raises
    ------
    HypoxiaError
        Contributions do not add up to the model's output.

    References
    ----------
    Lundberg & Lee 2017, NeurIPS 30; Mitchell et al. 2022, JMLR 23(43) (antithetic permutation sampling).
    """
    import shap

    names = list(fitted.schema.names)
    seed = int(rng.integers(2**31))
    learnt = fitted.schema.conform(development.inputs, impute=True)
    background = _background(learnt, rng)
    explained = fitted.schema.conform(held_out.inputs, impute=True).fillna(learnt.median())
    probe = shap.PermutationExplainer(
        lambda rows: fitted.pipeline.predict_proba(rows)[:, 1],
        shap.maskers.Independent(background, max_samples=len(background)),
        seed=seed,
    )
    calls_per_permutation = (2 * len(names) + 1) * len(background) * len(explained)
    permutations = int(np.clip(MODEL_CALLS // calls_per_permutation, 1, 10))
    found = probe(explained.to_numpy(), max_evals=permutations * (2 * len(names) + 1), silent=True)
    values = pd.DataFrame(found.values, index=explained.index, columns=names)
    base = float(np.ravel(found.base_values)[0])
    probability = fitted.predict(explained)
    worst = float(np.abs(base + values.sum(axis=1).to_numpy() - probability).max())
    if not worst <= ADDITIVITY:
        raise HypoxiaError(f"SHAP values miss the model's output by {worst:.1e}; the explanation cannot be trusted.")
    return Explanation(values, base, explained, probability)


def _background(features: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Up to 50 development samples, complete."""
    complete = features.fillna(features.median())
    rows = rng.permutation(len(complete))[:BACKGROUND_ROWS]
    return complete.to_numpy()[np.sort(rows)]
