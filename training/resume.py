"""Finished resamples of an unfinished run, kept on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from features.cohort import Cohort
from training.config import Study
from training.evaluation import FoldResult


class UnfinishedRun:
    """Resamples of this study on these data by this version, for as long as the run is not recorded.

    Parameters
    ----------
    folder : Path
        Where unfinished runs are kept.
    held_out : Index of str
        Patients of whom nothing is learnt.
    """

    def __init__(self, folder: Path, study: Study, cohort: Cohort, held_out: pd.Index) -> None:
        limits = study.compute.model_dump_json(exclude={"workers", "scheduler"})
        replicates = study.recipe.robust.digest() if study.recipe.robust else ""
        versions = [version(name) for name in ("hypoxia-biomarkers", "scikit-learn", "tpot", "optuna", "lightgbm", "xgboost")]
        same = "\n".join([study.fingerprint, cohort.data_hash, limits, replicates, *versions, *sorted(held_out)])
        self._folder = folder / hashlib.sha256(same.encode()).hexdigest()[:24]

    def recall(self, number: int) -> FoldResult | None:
        """The resample of that number, if it is finished."""
        path = self._folder / f"{number}.json"
        if not path.exists():
            return None
        kept = json.loads(path.read_text(encoding="utf-8"))
        return FoldResult(pd.DataFrame(kept["predictions"]), tuple(kept["selected"]), kept["out_of_time"])

    def keep(self, number: int, result: FoldResult) -> None:
        """Write a finished resample, whole or not at all; numbers come back to the last bit."""
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {
            "predictions": result.predictions.to_dict("list"),
            "selected": list(result.selected),
            "out_of_time": result.out_of_time,
        }
        with tempfile.NamedTemporaryFile("w", dir=self._folder, delete=False, encoding="utf-8") as file:
            json.dump(content, file)
        Path(file.name).replace(self._folder / f"{number}.json")

    def forget(self) -> None:
        """Remove what was kept: the run is recorded."""
        shutil.rmtree(self._folder, ignore_errors=True)
