"""Patients made up: images in which the texture carries the outcome, with masks, a manifest and outcomes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
import yaml
from distributed import LocalCluster
from scipy.ndimage import gaussian_filter

SHAPE = (8, 28, 28)
COLUMNS = ["sample", "patient", "sequence", "image", "mask", "label", "reference"]


def texture(rng: np.random.Generator, roughness: float) -> np.ndarray:
    """Noise; the smaller the roughness, the smoother."""
    return gaussian_filter(rng.normal(size=SHAPE), (1.0, 2.0 - roughness, 2.0 - roughness)) * 300 + 500


def region() -> np.ndarray:
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return (((z - 4) / 3) ** 2 + ((y - 14) / 8) ** 2 + ((x - 14) / 8) ** 2 < 1).astype(np.uint8)


def write(path: Path, array: np.ndarray, spacing: Sequence[float] = (1.0, 1.0, 3.0)) -> str:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(list(spacing))
    sitk.WriteImage(image, str(path))
    return path.name


def imaging_cohort(
    folder: Path, patients: int, sequences: Sequence[str] = ("T2",), seed: int = 0, *, protocol: bool = False
) -> Path:
    """Write images, masks, manifest.csv and outcomes.csv, and if wanted how each was acquired; returns the manifest."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows, outcomes = [], []
    for number in range(patients):
        name, hypoxic = f"s{number:03d}", number % 2
        mask = write(folder / f"{name}_mask.nii.gz", region())
        for place, sequence in enumerate(sequences):
            array = texture(rng, 0.9 * hypoxic + rng.normal() * 0.25).astype(np.float32)
            image = write(folder / f"{name}_{sequence}.nii.gz", array)
            if protocol:
                acquired = {"EchoTime": 0.08 + 0.001 * (number % 5), "PhaseEncodingDirection": "ij"[number // 2 % 2]}
                (folder / f"{name}_{sequence}.json").write_text(json.dumps(acquired), encoding="utf-8")
            rows.append((name, f"p{number:03d}", sequence, image, "" if place else mask, 1, sequences[0] if place else ""))
        outcomes.append((name, hypoxic))
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "manifest.csv", index=False)
    pd.DataFrame(outcomes, columns=["sample", "hypoxic"]).to_csv(folder / "outcomes.csv", index=False)
    return folder / "manifest.csv"


def write_imaging_study(folder: Path, profile: str = "ibsi", **changes: object) -> Path:
    """A study whose source is the cohort in this folder."""
    study = {
        "name": "imaging",
        "model": "imaging-hypoxia",
        "cohort": {
            "source": {"kind": "images", "manifest": "manifest.csv", "profile": profile, "table": "outcomes.csv"},
            "endpoint": {"kind": "binary", "column": "hypoxic"},
        },
        "recipe": {
            "selection": {"methods": ["correlation", "chi2"], "votes": 1, "top": 8},
            "search": {"kind": "tpot", "generations": 1, "population": 3, "folds": 2},
        },
        "evaluation": {"bootstrap": 100, "internal": None},
        **changes,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return path


@contextmanager
def scheduler_of_this_process() -> Iterator[str]:
    """Address of workers that need not be started anew every time."""
    free = "127.0.0.1:0"
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=free) as cluster:
        yield cluster.scheduler_address
