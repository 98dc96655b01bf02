"""Small studies of survival and of composite scores, with their tables, as a user would write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from training.simulate import SimulationSettings, simulate_cohort

ENDPOINT: dict[str, Any] = {"kind": "survival", "time": "months", "event": "relapse", "horizon": 60}
SMALL_SEARCH: dict[str, Any] = {
    "selection": {"methods": ["cox_score", "concordance"], "top": 8, "votes": 2},
    "search": {"kind": "optuna", "trials": 2, "folds": 2},
}
FEW = {"permutations": 99, "folds": 3, "repeats": 2, "bootstrap": 50}


def followed(patients: int = 90, p: int = 12, signal: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Patients with features g00, g01, ..., the first three of which raise the hazard, age, and follow-up in months."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(patients, p))
    months = 45 * rng.exponential(size=patients) / np.exp(signal * values[:, :3].sum(axis=1) / np.sqrt(3))
    seen = rng.uniform(15, 90, size=patients)
    table = pd.DataFrame(
        {"ID": [f"s{row:03d}" for row in range(patients)], "patient": [f"p{row:03d}" for row in range(patients)]}
    )
    table["months"], table["relapse"] = np.minimum(months, seen).round(3).clip(0.1), (months <= seen).astype(int)
    table["age"] = rng.normal(60, 9, size=patients).round()
    return table.join(pd.DataFrame(values, columns=[f"g{number:02d}" for number in range(p)]))


def survival_study(folder: Path, table: pd.DataFrame, cohort: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write followed.csv and a study of its times; keys may be replaced, those of the cohort one by one."""
    table.to_csv(folder / "followed.csv", index=False)
    body = {
        "name": "followed",
        "seed": 5,
        "cohort": {
            "source": {"kind": "table", "path": "followed.csv", "sample": "ID"},
            "endpoint": ENDPOINT,
            "patient": "patient",
            "clinical": ["age"],
            **(cohort or {}),
        },
        "recipe": SMALL_SEARCH,
        "evaluation": {"bootstrap": 100, "internal": {"folds": 3, "repeats": 1}},
        "model": "relapse",
        "compute": {"workers": 1},
        **changes,
    }
    return written(folder / "followed.yaml", body)


def two_biomarkers(n: int = 90, events: float = 40, effect: float = 1.8, seed: int = 1) -> pd.DataFrame:
    """A simulated cohort: hypoxic_fraction and gene_score, each with this hazard ratio per standard deviation."""
    settings = SimulationSettings(n=n, events=events, imaging_effect=effect, gene_effect=effect)
    return simulate_cohort(settings, np.random.default_rng(seed)).table


def composite_study(folder: Path, table: pd.DataFrame, cohort: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write two.csv and a study of a separating line; keys may be replaced, those of the cohort one by one."""
    table.to_csv(folder / "two.csv", index=False)
    body = {
        "name": "two",
        "kind": "composite",
        "seed": 7,
        "cohort": {
            "source": {"kind": "table", "path": "two.csv", "sample": "patient"},
            "endpoint": {"kind": "survival", "time": "pfs_months", "event": "progressed", "horizon": 60},
            **(cohort or {}),
        },
        "imaging": {"kind": "hypoxic_fraction"},
        "genes": {"kind": "column", "column": "gene_score"},
        "composite": {"kind": "separating_line"},
        "evaluation": FEW,
        "model": "two-as-one",
        "compute": {"workers": 1},
        **changes,
    }
    return written(folder / "two.yaml", body)


def written(path: Path, body: dict[str, Any]) -> Path:
    """A study file; keys that are None are left out."""
    path.write_text(yaml.safe_dump({key: value for key, value in body.items() if value is not None}, sort_keys=False))
    return path
