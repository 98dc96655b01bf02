"""Small cohorts and studies for tests."""

import numpy as np
import pandas as pd

from features.cohort import Cohort
from features.table import FeatureTable
from training.config import Study


def toy_cohort(
    patients: int = 60, lesions: int = 1, p: int = 40, signal: float = 1.5, seed: int = 0, missing: float = 0.0
) -> Cohort:
    """Patients with equal numbers of lesions; features 0 to 4 differ between the classes."""
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(patients) % 2).repeat(lesions)
    values = rng.normal(size=(patients * lesions, p))
    values[:, :5] += signal * label[:, None]
    values[rng.random(values.shape) < missing] = np.nan
    names = pd.Index([f"s{i:03d}" for i in range(len(label))])
    frame = pd.DataFrame(values, index=names, columns=[f"f{i:03d}" for i in range(p)])
    owner = pd.Series([f"p{i:03d}" for i in range(patients)], name="patient").repeat(lesions)
    return Cohort(FeatureTable(frame), pd.Series(label, index=names), pd.Series(owner.to_numpy(), index=names))


def toy_study(**changes: object) -> Study:
    """A study that takes seconds; keys may be replaced."""
    body: dict[str, object] = {
        "name": "toy",
        "seed": 3,
        "cohort": {
            "source": {"kind": "table", "path": "toy.csv", "sample": "ID"},
            "endpoint": {"kind": "binary", "column": "Target"},
        },
        "recipe": {
            "selection": {"methods": ["chi2", "correlation", "logistic_regression"], "top": 10, "votes": 2},
            "search": {"kind": "optuna", "trials": 6, "folds": 3},
        },
        "evaluation": {"bootstrap": 200, "internal": {"folds": 3}},
        "model": "toy-hypoxia",
        "compute": {"workers": 1},
    }
    return Study.model_validate(body | changes)


def binormal_predictions(patients: int = 60, lesions: int = 1, seed: int = 0, folds: int = 1) -> pd.DataFrame:
    """Out-of-sample predictions whose scores are normal with means one standard deviation apart: AUC Phi(1/sqrt 2) = 0.7602.

    Lesions of one patient share two thirds of their variance.
    """
    rng = np.random.default_rng(seed)
    label = rng.permutation(np.arange(patients) % 2).repeat(lesions)
    shared = rng.normal(size=patients).repeat(lesions)
    score = np.sqrt(2 / 3) * shared + np.sqrt(1 / 3) * rng.normal(size=len(label)) + label - 0.5
    probability = 1 / (1 + np.exp(-score))
    return pd.DataFrame(
        {
            "sample": [f"s{i}" for i in range(len(label))],
            "patient": np.repeat([f"p{i}" for i in range(patients)], lesions),
            "label": label,
            "probability": probability,
            "threshold": 0.5,
            "called": probability >= 0.5,
            "repeat": 0,
            "fold": np.arange(len(label)) % folds,
        }
    )
