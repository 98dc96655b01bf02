"""Small cohorts with planted clusters of patients, and studies of their profiles as a user would write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from survival_made import written

from training.profile.run import ProfileData, load_profile_data
from training.profile.study import ProfileStudy
from training.studies import read_study

ENDPOINT: dict[str, Any] = {"kind": "survival", "time": "months", "event": "relapse", "horizon": 60}
CLASSES: dict[str, Any] = {"kind": "binary", "column": "relapse", "positive": 1}
QUICK: dict[str, Any] = {"resamples": 20, "references": 10, "permutations": 99, "folds": 3, "repeats": 1, "bootstrap": 100}
SCANNERS = ("A", "B", "C")


def grouped(
    patients: int = 90, p: int = 12, *, apart: float = 3.0, scanner: float = 0.0, effect: float = 1.5, seed: int = 0
) -> pd.DataFrame:
    """Patients of three groups, of which the last relapses most.

    Columns: patient, group (the truth), months, relapse, stage, age, scanner, echo_time, site, volume, g00, g01, ...

    Parameters
    ----------
    apart : float
        Standard deviation of a feature's means over the groups, in standard deviations within them; 0: there are no groups.
    scanner : float
        The same of its means over the scanners, which are dealt evenly over the groups.
    effect : float
        Log hazard ratio between a group and the next.
    """
    # Features are alike in every hospital; the patients are not.
    world, rng = np.random.default_rng(12345), np.random.default_rng(seed)
    group, machine = np.arange(patients) % 3, np.arange(patients) // 3 % 3
    values = rng.normal(size=(patients, p)) + apart * world.normal(size=(3, p))[group]
    values += scanner * world.normal(size=(3, p))[machine]
    until, seen = rng.exponential(400 / np.exp(effect * group)), rng.uniform(30, 90, size=patients)
    table = pd.DataFrame(
        {
            "patient": [f"t{seed}p{row:03d}" for row in range(patients)],
            "group": group,
            "months": np.minimum(until, seen).round(3).clip(0.1),
            "relapse": (until <= seen).astype(int),
            "stage": rng.choice(["I", "II", "III"], size=patients),
            "age": rng.normal(60, 9, size=patients).round(),
            "scanner": np.array(SCANNERS)[machine],
            "echo_time": np.array([80.0, 95.0, 110.0])[machine],
            "site": np.array(["north", "south", "west"])[machine],
            "volume": np.exp(rng.normal(9, 0.5, size=patients)),
        }
    )
    return table.join(pd.DataFrame(values, columns=[f"g{number:02d}" for number in range(p)]))


def profile_study(folder: Path, table: pd.DataFrame, cohort: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write grouped.csv and a study of three profiles; keys may be replaced, those of the cohort one by one (None: left out)."""
    table.drop(columns="group", errors="ignore").to_csv(folder / "grouped.csv", index=False)
    described = {
        "source": {"kind": "table", "path": "grouped.csv", "sample": "patient"},
        "endpoint": ENDPOINT,
        "clinical": ["stage", "age", "volume"],
        "acquisition": ["scanner", "echo_time"],
        "drop": ["site"],
        **(cohort or {}),
    }
    body = {
        "name": "grouped",
        "kind": "profile",
        "seed": 7,
        "cohort": {key: value for key, value in described.items() if value is not None},
        "clusters": 3,
        "evaluation": QUICK,
        "model": "three-profiles",
        **changes,
    }
    return written(folder / "grouped.yaml", body)


def binary(table: pd.DataFrame) -> dict[str, Any]:
    """Changes of the cohort for the endpoint of two classes."""
    return {"endpoint": CLASSES, "drop": ["site", *(name for name in ("months",) if name in table)]}


def loaded(
    folder: Path, table: pd.DataFrame, cohort: dict[str, Any] | None = None, **changes: Any
) -> tuple[ProfileStudy, ProfileData]:
    """A study as it is read, with its patients."""
    study = read_study(profile_study(folder, table, cohort, **changes))
    assert isinstance(study, ProfileStudy)
    return study, load_profile_data(study)
