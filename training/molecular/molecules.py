"""What is known of patients' molecules: read from files, and put to the patients by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from features.errors import InputError, did_you_mean
from features.expression import ExpressionSource, MappingReport
from features.signatures import numeric
from features.sources import read_table
from training.molecular.gene_sets import GeneSets, read_gmt, within
from training.molecular.grouping import is_normal, matched
from training.molecular.microenvironment import has_microenvironment
from training.molecular.mutations import Mutations, mutations_of, read_maf
from training.molecular.proteins import read_proteins
from training.molecular.study import MolecularSettings, Units
from training.molecular.two_groups import usable_genes
from training.molecular.units import units_of

# Of the patients; where fewer have the data, it is said as a warning.
ENOUGH_PATIENTS = 0.8


@dataclass(frozen=True)
class Molecules:
    """All that was read, as it was read.

    Attributes
    ----------
    expression : DataFrame of shape (n_samples, n_genes) or None
        Under current symbols.
    units : {"log2", "other"}
        Of the expression: whether a difference is the logarithm of a fold change.
    whose : Series or None
        Name by which the patient of each sample of the expression is looked for.
    sets : mapping of str to tuple of str
        Gene sets, as they are written.
    variants : DataFrame or None
    sequenced : tuple of str or None
        Samples or patients who were sequenced, where a table says so.
    proteins : DataFrame of shape (n_samples, n_proteins) or None
    notes : tuple of str
    """

    expression: pd.DataFrame | None = None
    units: Units = "log2"
    whose: pd.Series | None = None
    sets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    variants: pd.DataFrame | None = None
    sequenced: tuple[str, ...] | None = None
    proteins: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ByPatient:
    """Of the patients of the groups: what is known of each; None where nothing was given.

    Attributes
    ----------
    sets : GeneSets or None
        Those that can be tested in the expression.
    """

    expression: pd.DataFrame | None
    sets: GeneSets | None
    mutations: Mutations | None
    proteins: pd.DataFrame | None
    notes: tuple[str, ...]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Table of each kind of data that there is, by what it is called."""
        known = None if self.mutations is None else self.mutations.classes
        found = {"expression": self.expression, "mutations": known, "proteins": self.proteins}
        return {name: table for name, table in found.items() if table is not None}


def load_molecules(settings: MolecularSettings, folder: Path) -> Molecules:
    """Read all files.

    Raises
    ------
    InputError
        One cannot be read, or is not of its kind; or a fold change is asked for of values that are no logarithms.
    """
    expression, whose, notes = _read_expression(settings.expression, settings.patient, folder)
    units, seen = units_of(settings, expression)
    return Molecules(
        expression,
        units,
        whose,
        read_gmt(folder / path for path in settings.gene_sets) if settings.gene_sets else {},
        None if settings.mutations is None else read_maf(folder / settings.mutations),
        None if settings.sequenced is None else _sequenced(settings.sequenced, settings.patient, folder),
        None if settings.proteins is None else read_proteins(folder / settings.proteins, settings.patient),
        (*notes, *seen),
    )


def by_patient(settings: MolecularSettings, molecules: Molecules, patients: Sequence[str]) -> ByPatient:
    """What was read of these patients, by their names; a study calls it before anything is computed.

    Raises
    ------
    InputError
        Of one kind of data nothing is of any of the patients, no gene set fits the expression, or stromal and immune scores are
        asked for and their genes are not there.
    """
    expression, sets, notes = None, None, molecules.notes
    if molecules.expression is not None and molecules.whose is not None:
        expression, left_out = _expression_of(molecules.expression, molecules.whose, patients)
        notes += left_out
        _refuse_absent_microenvironment(settings, expression)
    if expression is not None and molecules.sets:
        usable = list(usable_genes(expression)[0].columns)
        sets = within(molecules.sets, usable, smallest=settings.smallest_set, largest=settings.largest_set)
        notes += (sets.words,)
    mutations = _mutations_of(settings, molecules, patients)
    notes += () if mutations is None else mutations.notes
    proteins = molecules.proteins
    if proteins is not None:
        proteins = _of_patients(proteins, proteins.index.to_series(), patients, "the proteins")
    return ByPatient(expression, sets, mutations, proteins, notes)


def matched_words(known: ByPatient, patients: Sized) -> str:
    """Of how many of the patients each kind of data is there.

    Examples
    --------
    >>> known = ByPatient(pd.DataFrame(index=["p1", "p2"]), None, None, pd.DataFrame(index=["p2"]), ())
    >>> matched_words(known, ["p1", "p2", "p3"])
    'expression: 2 of 3 patients; proteins: 1 of 3 patients'
    """
    counts = (f"{what}: {len(table)} of {len(patients)} patients" for what, table in known.tables.items())
    return "; ".join(counts)


def few_patients(known: ByPatient, patients: Sized) -> tuple[str, ...]:
    """A warning of each kind of data that many of the patients do not have."""
    return tuple(
        f"Only {len(table)} of {len(patients)} patients have {what}: they may not be like the others."
        for what, table in known.tables.items()
        if len(table) < ENOUGH_PATIENTS * len(patients)
    )


def _read_expression(
    source: ExpressionSource | None, patient: str, folder: Path
) -> tuple[pd.DataFrame | None, pd.Series | None, tuple[str, ...]]:
    """Genes by sample, and the name by which each sample's patient is looked for."""
    if source is None:
        return None, None, ()
    frame = source.read(folder, text=(patient,))
    report: MappingReport = frame.attrs["mapping"]
    told = patient in frame.columns and patient not in report.genes
    whose = frame[patient] if told else frame.index.to_series()
    return numeric(frame, report.genes), whose.fillna("").astype(str), tuple(frame.attrs["notes"])


def _sequenced(path: str, patient: str, folder: Path) -> tuple[str, ...]:
    table = read_table(folder / path, text_columns=(patient,))
    if patient not in table.columns:
        raise InputError(
            f"Column {patient!r} (molecular.patient) is not in {path}{did_you_mean(patient, list(table.columns))}; it "
            "names those who were sequenced."
        )
    return tuple(table[patient].dropna())


def _of_patients(table: pd.DataFrame, names: pd.Series, patients: Sequence[str], what: str) -> pd.DataFrame:
    """A row per patient, the mean of those of the patient's samples; in the order of the patients."""
    found = matched(names, patients)
    if found.isna().all():
        raise InputError(
            f"None of the {len(names)} samples of {what} is of one of the {len(patients)} patients; name samples as patients, or "
            "so that they begin with the patient's name and a dash, or name the column of patients (molecular.patient)."
        )
    if found.dropna().is_unique:
        known = table[found.notna()].set_axis(found.dropna())
    else:
        known = table[found.notna()].groupby(found.dropna().to_numpy()).mean()
    return known.reindex([one for one in patients if one in known.index]).rename_axis(index=None)


def _expression_of(expression: pd.DataFrame, whose: pd.Series, patients: Sequence[str]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Expression by patient, without samples of normal tissue."""
    tumours = ~is_normal(expression.index.to_series().astype(str))
    normal = int((~tumours).sum())
    notes = (f"Samples of normal tissue, by their barcodes, that were left out: {normal}.",) if normal else ()
    return _of_patients(expression[tumours], whose[tumours], patients, "the expression"), notes


def _mutations_of(settings: MolecularSettings, molecules: Molecules, patients: Sequence[str]) -> Mutations | None:
    if molecules.variants is None:
        return None
    told = molecules.sequenced
    sequenced = None if told is None else matched(pd.Series(told, dtype=object), patients).dropna().tolist()
    return mutations_of(molecules.variants, patients, silent=settings.silent, sequenced=sequenced)


def _refuse_absent_microenvironment(settings: MolecularSettings, expression: pd.DataFrame) -> None:
    if settings.microenvironment and not has_microenvironment(expression.columns):
        raise InputError(
            "The expression has fewer than half of the stromal, or of the immune, genes of ESTIMATE; take microenvironment: true "
            "out, or name a table of all genes."
        )
