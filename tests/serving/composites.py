"""A composite of two small models, as training saves one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from features.bundle import CompositeCard, ModelBundle, Part, ScoreCard, save_bundle
from features.composite import CompositeScore
from features.contract import ContractSettings, contract_of
from features.feature import Feature
from features.outcome import survival_outcome
from features.risk import CoxRisk
from features.table import FeatureSchema
from tests.serving.registered import FEATURES, small_bundle

PARTS = ("hypoxic_fraction", "gene_score")
GENES = ("DDIT3", "ERO1A", "KCTD11", "STC2", "UFD1", "HILPDA")
NAME = "small-composite"
COEFFICIENTS, CUTOFF = (0.991, 0.132), 0.42


def gene_bundle() -> ModelBundle:
    """Six genes to a score, the first component of their expression, and to a probability."""
    rng = np.random.default_rng(3)
    common = rng.normal(size=(60, 1))
    X = 8 + common + rng.normal(scale=0.5, size=(60, len(GENES)))
    steps = [("scale", StandardScaler()), ("score", PCA(n_components=1)), ("risk", LogisticRegression())]
    small = small_bundle()
    return replace(
        small,
        pipeline=Pipeline(steps).fit(X, (common[:, 0] > 0).astype(int)),
        schema=FeatureSchema.of(GENES),
        card=small.card.model_copy(
            update={"name": "small-genes", "score": ScoreCard(name="signature score", cutoff=0.0, words="First component.")}
        ),
        contract=contract_of(pd.DataFrame(X, columns=GENES), ContractSettings(), aliases={"HIG2": "HILPDA"}),
        background=rng.permuted(X[:20], axis=0),
    )


def composite_bundle(missing: Literal["refuse", "alone"] = "refuse", names: tuple[str, str] = PARTS) -> ModelBundle:
    """Two biomarkers to a score, and from it to the risk of the event by 60 months; without its components."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(60, 2)) * [0.2, 1.5] + [0.4, 0.0]
    score = CompositeScore.of_line("separating_line", (1, 1), np.array(COEFFICIENTS), CUTOFF)
    score.described_by(X, np.array([0.4, 0.0]) if missing == "alone" else None)
    distance = score.transform(X)
    months = rng.exponential(60 * np.exp(-2 * distance[:, 0] / distance.std()))
    outcome = survival_outcome(np.minimum(months, 80), months < 80)
    steps = [("score", score), ("risk", CoxRisk(horizon=60.0).fit(distance, outcome))]
    small = small_bundle()
    card = small.card.model_copy(
        update={
            "name": NAME,
            "positive_label": "more hypoxic",
            "negative_label": "less hypoxic",
            "score": ScoreCard(name="composite score", cutoff=0.0, words="Distance from the line."),
            "horizon": 60.0,
            "time_unit": "months",
            "composite": CompositeCard(
                rule="separating_line",
                parts=(
                    Part(name=names[0], modality="imaging", source="hypoxic fraction of the tumour"),
                    Part(name=names[1], modality="genes", source="six-gene score", model="small-genes", version="2"),
                ),
                missing=missing,
                words="A line in the plane of both.",
            ),
        }
    )
    return replace(
        small,
        pipeline=Pipeline(steps),
        schema=FeatureSchema(features=tuple(Feature(name=name) for name in names)),
        card=card,
        contract=contract_of(
            pd.DataFrame(X, columns=names), ContractSettings(missing="impute" if missing == "alone" else "refuse")
        ),
        background=rng.permuted(X[:20], axis=0),
    )


def component_folders(place: Path) -> dict[str, Path]:
    """Both components, saved."""
    folders = {"hypoxic_fraction": place / "imaging", "gene_score": place / "genes"}
    if not place.exists():
        save_bundle(small_bundle(), folders["hypoxic_fraction"], np.zeros((2, len(FEATURES))))
        save_bundle(gene_bundle(), folders["gene_score"], np.full((2, len(GENES)), 8.0))
    return folders
