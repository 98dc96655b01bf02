"""A profile model with planted clusters, as training saves one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline

from features.bundle import ClusterCard, ModelBundle, ProfileCard
from features.contract import ContractSettings, contract_of
from features.feature import Feature
from features.harmonise import AcquisitionRegression
from features.outcome import survival_outcome
from features.profiles import NearestMedoid
from features.table import FeatureSchema
from tests.serving.registered import small_bundle

NAME = "small-profiles"
FEATURES = ("volume", "entropy", "contrast", "sphericity", "energy", "skewness", "ktrans")
ECHO = "echo_time"
SCALES = np.array([1e4, 1.0, 50.0, 0.1, 1e6, 1.0, 1e-3])
PATIENTS, CLUSTERS = 90, 3
GROUPS = np.arange(PATIENTS) % CLUSTERS


@dataclass(frozen=True)
class Planted:
    """A profile model, and the patients that it was learnt from: shape (n_patients, n_features), in the model's order."""

    bundle: ModelBundle
    patients: np.ndarray

    @property
    def rows(self) -> list[dict[str, float]]:
        """The patients by name of feature."""
        return [dict(zip(self.bundle.schema.names, row, strict=True)) for row in self.patients.tolist()]

    def far(self, by: float = 10.0) -> dict[str, float]:
        """A patient as many standard deviations above the mean in every feature, and with an ordinary protocol."""
        far = self.patients.mean(axis=0) + by * self.patients.std(axis=0, ddof=1)
        ordinary = np.array([feature.family == "acquisition" for feature in self.bundle.schema.features])
        far[ordinary] = np.median(self.patients[:, ordinary], axis=0)
        return dict(zip(self.bundle.schema.names, far.tolist(), strict=True))


def planted(
    missing: Literal["refuse", "impute"] = "impute",
    *,
    protocol: bool = False,
    horizon: float | None = None,
    clusters: int = CLUSTERS,
    wide: int = 0,
) -> Planted:
    """Ninety patients in groups that differ in every feature and in their outcome.

    Parameters
    ----------
    protocol : bool
        Whether the echo time is measured too, shifts the features, and is taken out of them.
    horizon : float, optional
        Of times to an event; None: of whether it happened.
    wide : int
        Further features.
    """
    rng = np.random.default_rng(8)
    names = (*FEATURES, *(f"further{number}" for number in range(wide)))
    centres = rng.normal(scale=2.0, size=(CLUSTERS, len(names)))
    X = centres[GROUPS] + rng.normal(scale=0.7, size=(PATIENTS, len(names)))
    echo = rng.uniform(80, 130, size=PATIENTS)
    X = (X + 0.05 * echo[:, None] if protocol else X) * np.concatenate([SCALES, np.ones(wide)])
    event = rng.uniform(size=PATIENTS) < np.array([0.1, 0.4, 0.8])[GROUPS]
    matrix = np.column_stack([X, echo]) if protocol else X
    scores = AcquisitionRegression(protocol=[len(names)] if protocol else ())
    z = scores.fit_transform(matrix)
    model = NearestMedoid(medoids=_middles(z)[:clusters], horizon=horizon)
    months = rng.exponential(60 / np.array([0.2, 1.0, 3.0])[GROUPS])
    outcome = event.astype(int) if horizon is None else survival_outcome(np.minimum(months, 80), months < 80)
    happened = event if horizon is None else months < 80
    pipeline = Pipeline([("scores", scores), ("impute", SimpleImputer(strategy="median")), ("profile", model)]).fit(
        matrix, outcome
    )
    features = (*(Feature(name=name) for name in names), *((Feature(name=ECHO, family="acquisition"),) if protocol else ()))
    return Planted(_bundle(pipeline, features, matrix, happened, missing, horizon), matrix)


def _bundle(
    pipeline: Pipeline,
    features: tuple[Feature, ...],
    matrix: np.ndarray,
    happened: np.ndarray,
    missing: Literal["refuse", "impute"],
    horizon: float | None,
) -> ModelBundle:
    small, schema, model = small_bundle(), FeatureSchema(features=features), pipeline[-1]
    card = small.card.model_copy(
        update={
            "name": NAME,
            "positive_label": "high risk",
            "negative_label": "low risk",
            "threshold": float(happened.mean()),
            "samples": PATIENTS,
            "patients": PATIENTS,
            "events": int(happened.sum()),
            "horizon": horizon,
            "time_unit": None if horizon is None else "months",
            "profile": ProfileCard(
                clusters=_cards(model, pipeline[:-1].transform(matrix), happened),
                method="made up",
                chosen_by="given",
                exploratory=True,
                words="Planted clusters.",
            ),
        }
    )
    table = pd.DataFrame(matrix, columns=list(schema.names))
    rng = np.random.default_rng(9)
    return replace(
        small,
        pipeline=pipeline,
        schema=schema,
        card=card,
        contract=contract_of(table, ContractSettings(missing=missing)),
        background=rng.permuted(matrix[:20], axis=0),
    )


def _cards(model: NearestMedoid, z: np.ndarray, happened: np.ndarray) -> tuple[ClusterCard, ...]:
    cluster = model.assign(z).cluster
    return tuple(
        ClusterCard(
            number=one + 1,
            patients=int((cluster == one).sum()),
            events=int(happened[cluster == one].sum()),
            risk=float(model.risks_[one]),
            limit=float(model.limits_[one]),
        )
        for one in range(len(model.medoids_))
    )


def _middles(z: np.ndarray) -> list[int]:
    """Of each group, the patient nearest to its mean."""
    means = np.array([z[one::CLUSTERS].mean(axis=0) for one in range(CLUSTERS)])
    distances = ((z - means[GROUPS]) ** 2).sum(axis=1)
    return [int(one + CLUSTERS * distances[one::CLUSTERS].argmin()) for one in range(CLUSTERS)]
