"""The two biomarkers of a composite, patient by patient, as each resample may see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.cohort import Cohort
from features.composite import StandardisedLogOdds
from features.errors import InputError, did_you_mean
from training.components import ComponentScores
from training.composite.study import (
    Biomarker,
    CompositeStudy,
    HypoxicFractionBiomarker,
    ModelBiomarker,
    SignatureBiomarker,
    VectorBiomarker,
)
from training.signature_recipe import FittedSignature, fit_signature

MODALITIES = ("imaging", "genes")


@dataclass(frozen=True)
class MeasuredBiomarkers:
    """Two biomarkers of the patients of a cohort, one row per patient.

    Attributes
    ----------
    cohort : Cohort
        One sample per patient.
    components : mapping of str to ComponentScores
        By modality, where a biomarker is the score of a registered model.
    """

    study: CompositeStudy
    cohort: Cohort
    components: Mapping[str, ComponentScores]

    def learnt_from(self, rows: np.ndarray) -> np.ndarray:
        """Both biomarkers of every patient, their reference values from some patients alone.

        Parameters
        ----------
        rows : ndarray of int
            Patients to learn from: where a signature is a biomarker, its medians or means are theirs.

        Returns
        -------
        ndarray of shape (n_patients, 2)
            Imaging, then genes, in raw units; NaN where a patient has none.
        """
        both = zip(self.study.biomarkers, MODALITIES, strict=True)
        return np.column_stack([self._column(one, modality, rows) for one, modality in both])

    def of_everyone(self) -> np.ndarray:
        """Both biomarkers, reference values from all patients, shape (n_patients, 2)."""
        return self.learnt_from(np.arange(len(self.cohort.samples)))

    def signature(self, biomarker: SignatureBiomarker, rows: np.ndarray) -> FittedSignature:
        """A signature with the reference values of some patients."""
        cohort = self.cohort
        return fit_signature(biomarker, cohort.features.iloc[rows], cohort.outcome[rows], cohort.horizon)

    def cutoff(self, which: int) -> float | None:
        """Value from which on a biomarker alone calls a tumour hypoxic, known beforehand; None if there is none."""
        biomarker, modality = self.study.biomarkers[which], MODALITIES[which]
        given: float | None = getattr(biomarker, "cutoff", None)
        if given is not None or not isinstance(biomarker, ModelBiomarker):
            return given
        return self.components[modality].cutoff

    @property
    def scale(self) -> StandardisedLogOdds | None:
        """What brings probabilities of component models to the scale of the biomarkers; None where no part is a probability."""
        parts = [self.components.get(modality) for modality in MODALITIES]
        centres = tuple(float("nan") if part is None else part.centre for part in parts)
        spreads = tuple(float("nan") if part is None else part.spread for part in parts)
        return None if np.isnan(centres).all() else StandardisedLogOdds(centres, spreads)

    def _column(self, biomarker: Biomarker, modality: str, rows: np.ndarray) -> np.ndarray:
        if isinstance(biomarker, SignatureBiomarker):
            fitted = self.signature(biomarker, rows)
            return np.asarray(fitted.pipeline[:-1].transform(self.cohort.features[list(fitted.columns)].to_numpy()))[:, 0]
        assert not isinstance(biomarker, VectorBiomarker)  # noqa: S101 - the study refuses it
        return self.cohort.features[biomarker.name].to_numpy(dtype=float)


def biomarkers_of(study: CompositeStudy, cohort: Cohort, components: Mapping[str, ComponentScores]) -> MeasuredBiomarkers:
    """The biomarkers that a study names, of a cohort.

    Raises
    ------
    InputError
        A column is not there, a patient has several rows, a biomarker does not vary, or nobody has both.
    """
    _refuse_several_rows(cohort)
    for biomarker, modality in zip(study.biomarkers, MODALITIES, strict=True):
        if not isinstance(biomarker, SignatureBiomarker | VectorBiomarker) and biomarker.name not in cohort.features.columns:
            hint = did_you_mean(biomarker.name, list(map(str, cohort.features.columns)))
            raise InputError(f"Column {biomarker.name!r} ({modality}) is not in the table, or has another role{hint}.")
    found = MeasuredBiomarkers(study, cohort, components)
    values = found.of_everyone()
    for biomarker, name, column in zip(study.biomarkers, study.names, values.T, strict=True):
        present = column[np.isfinite(column)]
        if isinstance(biomarker, HypoxicFractionBiomarker) and len(present) and (present.min() < 0 or present.max() > 1):
            raise InputError(
                f"Column {name!r} is a hypoxic fraction, from 0 to 1, and holds {present.min():g} to {present.max():g}; divide "
                "percentages by 100, or use kind: column."
            )
        if len(present) == 0 or np.ptp(present) == 0:
            raise InputError(f"Biomarker {name!r} has one value in all patients; a composite needs two that vary.")
    return found


def complete_cases(cohort: Cohort, names: tuple[str, str]) -> tuple[Cohort, str | None]:
    """The cohort without patients who lack a biomarker that is a column, and a sentence where there are some."""
    present = [name for name in names if name in cohort.features.columns]
    for name in present:
        if cohort.features[name].isna().all():
            raise InputError(f"Column {name!r} has no value in any patient; a composite needs two biomarkers.")
    complete = cohort.features[present].notna().all(axis=1)
    if not complete.any():
        raise InputError(f"No patient has both biomarkers ({names[0]!r} and {names[1]!r}); check how the rows are joined.")
    if complete.all():
        return cohort, None
    left_out = f"{int((~complete).sum())} of {len(complete)} patients lack one of the biomarkers and were left out."
    return cohort.subset(pd.Index(cohort.samples[complete.to_numpy()])), left_out


def _refuse_several_rows(cohort: Cohort) -> None:
    twice = cohort.patients[cohort.patients.duplicated()]
    if len(twice):
        raise InputError(
            f"Patient {twice.iloc[0]!r} has several rows; a composite is of one row per patient: take their mean or their "
            "largest tumour, and name the patient once."
        )
