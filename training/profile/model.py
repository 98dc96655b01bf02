"""Profiles learnt from patients: harmonise, z-normalise, choose how many clusters, cluster. The unit of validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline

from features.cohort import Cohort
from features.errors import InputError
from features.harmonise import AcquisitionRegression
from features.profiles import NearestMedoid, risk_of
from features.table import FeatureSchema
from training.profile.by_outcome import Outcome, number_by_outcome, ordered_by_events
from training.profile.choice import Criteria, criteria
from training.profile.clustering import Clusters, squared_distances
from training.profile.study import ProfileStudy
from training.progress import Progress
from training.recipe import coded_inputs, harmoniser_inputs


@dataclass(frozen=True)
class Standardised:
    """Patients on one scale.

    Attributes
    ----------
    steps : list of tuple of str and transformer
        Fitted: harmoniser, standard scores, medians for gaps.
    schema : FeatureSchema
        What the first step takes: the features, then what is known of their acquisition.
    z : DataFrame of shape (n_patients, n_features)
        Standard scores (ddof 1), without gaps.
    """

    steps: list[tuple[str, object]]
    schema: FeatureSchema
    z: pd.DataFrame


@dataclass(frozen=True)
class FittedProfile:
    """Profiles, and all that they were learnt by.

    Attributes
    ----------
    pipeline : Pipeline
        From the features (and the acquisition) to the nearest medoid.
    z : DataFrame of shape (n_patients, n_features)
        Harmonised standard scores.
    distances : ndarray of shape (n_patients, n_patients)
        Squared Euclidean, of ``z``.
    considered, candidates : dict of int to Clusters
        Clusters for every number that was looked at, and for those that could be chosen.
    clusters : Clusters
        Those that were chosen, in ascending order of the share of events.
    criteria : Criteria or None
        What was said of each number, where a criterion had a say; without the gap, where another had it.
    threshold : float
        Share of all patients with the event, or their risk of it by the horizon.
    """

    pipeline: Pipeline
    schema: FeatureSchema
    z: pd.DataFrame
    distances: np.ndarray
    considered: dict[int, Clusters]
    candidates: dict[int, Clusters]
    clusters: Clusters
    criteria: Criteria | None
    threshold: float

    @property
    def last(self) -> NearestMedoid:
        """The pipeline's last step."""
        return self.pipeline[-1]

    @property
    def harmonised(self) -> str | None:
        """How the features were harmonised, as a clause; None where they were not."""
        first = self.pipeline[0]
        words = getattr(first, "words", None)
        return None if words is None or (isinstance(first, AcquisitionRegression) and not len(first.protocol)) else words

    def risks(self, cohort: Cohort) -> np.ndarray:
        """Risk of each sample of a cohort, shape (n_samples,)."""
        return np.asarray(self.pipeline.predict_proba(self.matrix(cohort))[:, 1])

    def matrix(self, cohort: Cohort) -> np.ndarray:
        """Samples as the pipeline takes them, shape (n_samples, n_inputs)."""
        return self.schema.conform(cohort.inputs, impute=True).to_numpy()


def fit_profile(study: ProfileStudy, cohort: Cohort, rng: np.random.Generator, progress: Progress | None = None) -> FittedProfile:
    """Learn profiles from the patients of a cohort.

    Raises
    ------
    InputError
        There are fewer patients, or fewer different ones, than clusters; a feature has no value; or the harmoniser refuses.
    """
    scaled, outcome = standardise(study, cohort), outcome_of(cohort)
    distances = squared_distances(scaled.z.to_numpy())
    considered = clusterings(study, scaled.z, distances, rng)
    judged = judged_by(study, scaled.z, distances, considered, rng, progress)
    candidates = large_enough(study, considered)
    clusters = ordered_by_events(candidates[number_of_clusters(study, candidates, judged, outcome)], outcome)
    last = NearestMedoid(clusters.medoids.tolist(), cohort.horizon).fit(scaled.z.to_numpy(), cohort.outcome)
    pipeline = Pipeline([*scaled.steps, ("profiles", last)])
    assigned = replace(clusters, labels=last.assign(scaled.z.to_numpy()).cluster)  # as a served model assigns, ties and all
    overall = risk_of(cohort.outcome, cohort.horizon)
    return FittedProfile(pipeline, scaled.schema, scaled.z, distances, considered, candidates, assigned, judged, overall)


def standardise(study: ProfileStudy, cohort: Cohort) -> Standardised:
    """Take the acquisition out of the features, and bring them to mean 0 and standard deviation 1."""
    features = cohort.table.schema.features
    inputs = harmoniser_inputs(study.harmonise, cohort) if study.harmonise else ()
    matrix = pd.concat([cohort.features, coded_inputs(cohort, inputs)], axis=1) if inputs else cohort.features
    steps: list[tuple[str, object]] = []
    if study.harmonise is not None:
        steps.append(("harmonise", study.harmonise.estimator(features, inputs)))
    if not steps or not isinstance(steps[0][1], AcquisitionRegression):  # whose residuals are standard scores already
        steps.append(("standardise", AcquisitionRegression()))
    steps.append(("impute", SimpleImputer(strategy="median", keep_empty_features=True)))
    head = Pipeline(steps)
    z = head.fit_transform(matrix.to_numpy(dtype=float))
    schema = FeatureSchema(features=(*features, *inputs))
    return Standardised(head.steps, schema, pd.DataFrame(z, index=cohort.samples, columns=cohort.features.columns))


def clusterings(
    study: ProfileStudy, z: pd.DataFrame, distances: np.ndarray, rng: np.random.Generator, largest: int | None = None
) -> dict[int, Clusters]:
    """Clusters for every number that is considered: the given one, or 1 to the largest that the patients allow.

    Parameters
    ----------
    largest : int, optional
        Numbers up to this are considered whatever the study says.
    """
    if largest is None and isinstance(study.clusters, int):
        numbers = [study.clusters]
    else:
        different = len(np.unique(z.to_numpy(), axis=0))
        numbers = list(range(1, max(1, min(largest or study.largest, different - 1)) + 1))
    return {number: study.clustering.cluster(distances, number, rng) for number in numbers}


def judged_by(
    study: ProfileStudy,
    z: pd.DataFrame,
    distances: np.ndarray,
    candidates: Mapping[int, Clusters],
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Criteria | None:
    """What the criteria say of each number of clusters; None where no criterion has a say. The gap only where it has it."""
    if isinstance(study.clusters, int) or study.chosen_by_outcome:
        return None
    references = study.evaluation.references if study.clusters.by == "gap" else 0
    return criteria(z.to_numpy(), distances, candidates, study.clustering, rng, references, progress)


def large_enough(study: ProfileStudy, candidates: Mapping[int, Clusters]) -> dict[int, Clusters]:
    """Numbers that may be chosen: the given one, or those whose clusters are no outliers."""
    if isinstance(study.clusters, int):
        return dict(candidates)
    smallest = study.clusters.smallest
    return {k: one for k, one in candidates.items() if k == 1 or np.bincount(one.labels, minlength=k).min() >= smallest}


def number_of_clusters(study: ProfileStudy, candidates: Mapping[int, Clusters], judged: Criteria | None, outcome: Outcome) -> int:
    """How many clusters there are: as given, or as who is to say says; 1 where nothing else can be chosen."""
    if isinstance(study.clusters, int):
        return study.clusters
    if max(candidates) == 1:
        return 1
    if judged is None:
        return number_by_outcome(candidates, outcome)
    return Criteria(judged.table.loc[list(candidates)]).best.get(study.clusters.by, 1)


def outcome_of(cohort: Cohort) -> Outcome:
    """What became of the patients of a cohort."""
    return Outcome(None if cohort.times is None else cohort.times.to_numpy(), cohort.y)


def refuse_unfit(cohort: Cohort) -> None:
    """Say before anything is learnt what clustering would stop at.

    Raises
    ------
    InputError
        A patient has several rows, and so would be in several clusters; or a feature has no value.
    """
    twice = cohort.patients[cohort.patients.duplicated()]
    if len(twice):
        raise InputError(
            f"Patient {twice.iloc[0]!r} has several rows; a profile is of one row per patient: take their mean or their largest "
            "tumour, and name the patient once."
        )
    empty = cohort.features.columns[cohort.features.isna().all()]
    if len(empty):
        more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise InputError(f"Feature {empty[0]!r}{more} has no value in any patient; name it under cohort.drop, or measure it.")
