"""The study of profiles, top to bottom: what a paper's methods section says, and the scrutiny that it lacks."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.audit import Audit, audit
from features.bundle import cluster_name
from features.cohort import Cohort, load_cohort
from features.errors import InputError, did_you_mean
from training.evaluation import Evaluation
from training.extracting import ensure_extracted
from training.molecular.molecules import Molecules, load_molecules
from training.molecular.run import Correlates, correlate, known_of_groups
from training.profile.associations import Associations, associate
from training.profile.by_outcome import ChoiceTest, Outcome, choice_permuted, refuse_unnamed
from training.profile.choice import NAMES as CRITERIA
from training.profile.choice import Criteria, Stability, criteria, stability
from training.profile.model import FittedProfile, clusterings, fit_profile, outcome_of, refuse_unfit
from training.profile.outcome import ClusterOutcome, related
from training.profile.ranking import Ranking, VolumeRelation, rank_features, refuse_volumes, volume_relation
from training.profile.study import JudgedClusters, ProfileStudy
from training.profile.validation import cross_validated, refuse_folds_that_cannot_be_learnt
from training.progress import Progress, Silence

# As many clusters are judged where their number is given: as the paper did.
MOST_JUDGED = 6


@dataclass(frozen=True)
class ProfileData:
    """What a study of profiles is made from, read and found fit.

    Attributes
    ----------
    cohort : Cohort
        One row per patient.
    volume : Series of shape (n_patients,) or None
    molecules : Molecules or None
        Genes, mutations and proteins.
    """

    cohort: Cohort
    volume: pd.Series | None
    molecules: Molecules | None


@dataclass(frozen=True)
class ProfileResult:
    """Everything that a study of profiles found, before any of it is recorded.

    Attributes
    ----------
    criteria : Criteria
        What is said of 1 to the largest number of clusters, whoever chose.
    stability : Stability
        Of the clusters, over resamples of patients.
    evaluation : Evaluation
        Of risks of patients whom the profiles were not made from, all repeats.
    choice : ChoiceTest
        The p of the clusters' difference in outcome, all choices that looked at the outcome repeated.
    """

    study: ProfileStudy
    data: ProfileData
    audit: Audit
    fitted: FittedProfile
    criteria: Criteria
    stability: Stability
    ranking: Ranking
    volume: VolumeRelation | None
    associations: Associations
    outcome: ClusterOutcome
    choice: ChoiceTest
    evaluation: Evaluation
    molecular: Correlates | None
    seconds: float

    @property
    def cohort(self) -> Cohort:
        """The patients."""
        return self.data.cohort

    @property
    def fared_outcome(self) -> Outcome:
        """What became of the patients."""
        return outcome_of(self.cohort)

    @property
    def chosen_by(self) -> str:
        """Who said how many clusters there are."""
        settings = self.study.clusters
        if isinstance(settings, int):
            return "given"
        passed_over = [str(k) for k in range(2, settings.largest + 1) if k not in self.fitted.candidates]
        among = f" ({', '.join(passed_over)} passed over: clusters of fewer than {settings.smallest})" if passed_over else ""
        return f"chosen by {CRITERIA.get(settings.by, settings.by)}{among}"

    @property
    def names(self) -> list[str]:
        """What the clusters are called, in order."""
        return [cluster_name(number + 1) for number in range(len(self.fitted.clusters.medoids))]


def run_profile(
    study: ProfileStudy, data: ProfileData, progress: Progress | None = None, fitted: FittedProfile | None = None
) -> ProfileResult:
    """Find profiles, what parts them, how their patients fare, and what lies behind them.

    Parameters
    ----------
    fitted : FittedProfile, optional
        What ``refuse_what_cannot_be_clustered`` learnt of the same patients; the same is learnt here where it is left out.
    """
    progress, start, settings, cohort = progress or Silence(), time.monotonic(), study.evaluation, data.cohort
    progress.stage("looking through the table")
    found = audit(cohort)

    progress.stage("harmonising, z-normalising and clustering")
    fitted = fitted or fit_profile(study, cohort, study.rng("clusters"), progress)
    labels, outcome = fitted.clusters.labels, outcome_of(cohort)

    progress.stage("judging the number of clusters")
    judged = judged_numbers(study, fitted, progress)
    stable = stability(
        fitted.z.to_numpy(), fitted.clusters, study.clustering, settings.resamples, study.rng("stability"), progress
    )

    progress.stage("ranking the features")
    ranking = rank_features(fitted.z, labels, cohort.table.feature, study.ranking)
    volume = None
    if data.volume is not None:
        rng = study.rng("volume")
        volume = volume_relation(
            fitted.z, labels, data.volume, ranking, study.clustering, rng, false_discovery=settings.false_discovery
        )

    progress.stage("associating clusters with clinical and acquisition columns")
    columns, roles = described(cohort)
    associations = associate(labels, columns, roles, study.rng("associations"), false_discovery=settings.false_discovery)

    progress.stage("relating clusters to the outcome")
    adjusting = cohort.clinical[list(study.adjust)]
    fared = related(fitted.clusters, outcome, study.combine, adjusting, level=settings.level)
    permuted = choice_permuted(
        fitted.candidates,
        len(fitted.clusters.medoids),
        outcome,
        by_outcome=study.chosen_by_outcome,
        combine=study.combine,
        permutations=settings.permutations,
        rng=study.rng("permutations"),
        progress=progress,
    )
    evaluation = cross_validated(study, cohort, study.rng("cross-validation"), progress)

    molecular = None
    if study.molecular is not None and data.molecules is not None:
        molecular = correlate(study.molecular, data.molecules, groups_of(fared, cohort), study.rng, progress)
    seconds = time.monotonic() - start
    return ProfileResult(
        study, data, found, fitted, judged, stable, ranking, volume, associations, fared, permuted, evaluation, molecular, seconds
    )


def load_profile_data(study: ProfileStudy) -> ProfileData:
    """Read all that a study of profiles is made from.

    Raises
    ------
    InputError
        Anything that a user must mend, before a run is started.
    """
    ensure_extracted(study)
    cohort = load_cohort(study.cohort, study.folder)
    refuse_unfit(cohort)
    molecules = None if study.molecular is None else load_molecules(study.molecular, study.folder)
    return ProfileData(cohort, _volume(study, cohort), molecules)


def refuse_what_cannot_be_clustered(study: ProfileStudy, data: ProfileData, progress: Progress) -> FittedProfile:
    """Say before a run is started what it would stop at; the profiles that were learnt to find out.

    Raises
    ------
    InputError
        There are fewer patients, or fewer that differ, than clusters; whoever is to say how many clusters there are says one; or
        the clusters that are to be combined, the volume or the molecules do not fit them; or a fold of the cross-validation
        cannot be learnt.
    """
    progress.stage("looking whether the patients can be clustered as the study says")
    fitted = fit_profile(study, data.cohort, study.rng("clusters"), progress)
    found = len(fitted.clusters.medoids)
    if found < 2 and isinstance(study.clusters, JudgedClusters):
        raise InputError(_no_profiles(study.clusters, fitted))
    refuse_unnamed(study.combine, found)
    refuse_folds_that_cannot_be_learnt(study, data.cohort, study.rng("cross-validation"))
    if data.volume is not None:
        known = np.isfinite(data.volume.to_numpy(dtype=float))
        refuse_volumes(str(data.volume.name), data.volume.to_numpy(dtype=float)[known], fitted.clusters.labels[known])
    fared = related(fitted.clusters, outcome_of(data.cohort), study.combine, data.cohort.clinical[list(study.adjust)])
    if study.molecular is not None and data.molecules is not None:
        known_of_groups(study.molecular, data.molecules, groups_of(fared, data.cohort))
    return fitted


def _no_profiles(settings: JudgedClusters, fitted: FittedProfile) -> str:
    way_out = "give a number of clusters to describe them all the same."
    if max(fitted.candidates) > 1:
        return (
            f"By the {settings.by} there is one cluster: no profiles are told apart from chance. Name another criterion "
            f"(clusters.by), or {way_out}"
        )
    return (
        f"Every number of clusters up to {settings.largest} leaves one of fewer than {settings.smallest} patients "
        f"(clusters.smallest), which are outliers and no profile. Look at these patients, or {way_out}"
    )


def judged_numbers(study: ProfileStudy, fitted: FittedProfile, progress: Progress) -> Criteria:
    """What the criteria say of each number of clusters, whoever chose."""
    if fitted.criteria is not None and "gap" in fitted.criteria.best:
        return fitted.criteria  # by which the number was chosen
    rng, every = study.rng("criteria"), fitted.considered
    if isinstance(study.clusters, int):
        every = clusterings(study, fitted.z, fitted.distances, rng, max(study.clusters, MOST_JUDGED))
    references = study.evaluation.references
    return criteria(fitted.z.to_numpy(), fitted.distances, every, study.clustering, rng, references, progress)


def described(cohort: Cohort) -> tuple[pd.DataFrame, dict[str, str]]:
    """What is known of the patients beside the features, and whether it is clinical, of the acquisition, or the site."""
    parts = {"clinical": cohort.clinical, "acquisition": cohort.protocol}
    parts |= {} if cohort.site is None else {"site": cohort.site.to_frame()}
    roles = {str(name): role for role, part in parts.items() for name in part.columns}
    return pd.concat(parts.values(), axis=1), roles


def groups_of(fared: ClusterOutcome, cohort: Cohort) -> pd.Series:
    """The clusters, combined where the study combines them, by patient; categories in their order."""
    compared = fared.compared
    named = pd.Categorical.from_codes(compared.number - 1, pd.Index(compared.names))
    return pd.Series(named, index=cohort.patients.to_numpy(), name="group")


def _volume(study: ProfileStudy, cohort: Cohort) -> pd.Series | None:
    if study.volume is None:
        return None
    every = pd.concat([cohort.features, cohort.clinical], axis=1)
    if study.volume not in every.columns:
        hint = did_you_mean(study.volume, list(map(str, every.columns)))
        raise InputError(f"volume names {study.volume!r}, which is neither a feature nor under cohort.clinical{hint}.")
    if not pd.api.types.is_numeric_dtype(every[study.volume]):
        raise InputError(f"volume names {study.volume!r}, which holds words; name the column with the tumour's volume.")
    return every[study.volume]
