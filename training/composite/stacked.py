"""A composite that is searched for: the recipe of any other model, over both scores or both feature vectors."""

from __future__ import annotations

from typing import Literal

from features.settings import Settings
from training.evaluation import EvaluationSettings
from training.partition import PartitionSettings
from training.recipe import Recipe


class Stacked(Settings):
    """A model of both biomarkers by TPOT or Optuna, judged against models of either alone in the same resamples."""

    kind: Literal["stacked"] = "stacked"
    partition: PartitionSettings = PartitionSettings()
    recipe: Recipe = Recipe()
    evaluation: EvaluationSettings = EvaluationSettings()
