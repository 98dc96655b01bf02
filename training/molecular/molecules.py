"""What is known of patients' molecules: read from files, and put to the patients by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from features.errors import InputError, did_you_mean
from features.expression import RAW_LARGEST, RAW_PERCENTILE, ExpressionSource, MappingReport
from features.signatures import numeric
from features.sources import read_table
from training.molecular.gene_sets import GeneSets, read_gmt, within
from training.molecular.grouping import is_normal, matched
from training.molecular.microenvironment import has_microenvironment
from training.molecular.mutations import Mutations, mutations_of, read_maf
from training.molecular.proteins import read_proteins
from training.molecular.study import MolecularSettings, Units
from training.molecular.two_groups import usable_genes

# Of the genes of a table of z scores: the largest median of their means' sizes, what the median of their standard deviations is
# between, and the largest ratio of its quartiles. Log ratios have genes that lie off zero, or that vary more and less.
Z_MEAN, Z_SD, Z_SPREAD = 0.25, (0.8, 1.25), 1.5


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
    units, seen = _units_of(settings, expression)
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


def matched_words(known: ByPatient, groups: pd.Series) -> str:
    """Of how many of the patients each kind of data is there.

    Examples
    --------
    >>> known = ByPatient(pd.DataFrame(index=["p1", "p2"]), None, None, pd.DataFrame(index=["p2"]), ())
    >>> matched_words(known, pd.Series("cluster 1", index=["p1", "p2", "p3"]))
    'expression: 2 of 3 patients; proteins: 1 of 3 patients'
    """
    counts = (f"{what}: {len(table)} of {len(groups)} patients" for what, table in known.tables.items())
    return "; ".join(counts)


def looks_like_z_scores(expression: pd.DataFrame) -> bool:
    """Whether the genes of a table have means of about 0, and standard deviations that are about 1 and much alike.

    Parameters
    ----------
    expression : DataFrame of shape (n_samples, n_genes)
        Genes that are the same in all samples say nothing.

    Examples
    --------
    >>> values = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 200)))
    >>> looks_like_z_scores(values), looks_like_z_scores(values * np.linspace(0.3, 2, 200)), looks_like_z_scores(values + 8)
    (True, False, False)
    """
    spread = expression.std(ddof=1)
    spread, means = spread[spread > 0], expression.mean()[spread > 0]
    if spread.empty:
        return False
    quarter, middle, most = spread.quantile([0.25, 0.5, 0.75])
    return bool(means.abs().median() <= Z_MEAN and Z_SD[0] <= middle <= Z_SD[1] and most <= Z_SPREAD * quarter)


def _units_of(settings: MolecularSettings, expression: pd.DataFrame | None) -> tuple[Units, tuple[str, ...]]:
    """Units of the expression, and a sentence where they are not what a study takes them to be."""
    if expression is None:
        return "log2", ()
    if settings.units is not None:
        return settings.units, ()
    look = _no_logarithms(expression)
    if look is None:
        return "log2", ()
    if settings.fold_change > 1:
        raise InputError(
            f"molecular.fold_change is {settings.fold_change:g}, but {look}, of which a difference is no fold change; take "
            "fold_change out, or say units: log2 if they are logarithms or log ratios."
        )
    way_out = "molecular.units: log2 if they are logarithms or log ratios"
    return "other", (f"Differences are in the table's units and no fold changes are given, since {look} ({way_out}).",)


def _no_logarithms(expression: pd.DataFrame) -> str | None:
    """What shows that values are no logarithms to the base 2, if anything does."""
    if looks_like_z_scores(expression):
        return "the expression looks like z scores: its genes have means of about 0 and standard deviations of about 1"
    values = expression.to_numpy(dtype=float)
    values = values[np.isfinite(values)]
    if values.size and (np.quantile(values, 0.99) > RAW_PERCENTILE or (values.min() >= 0 and values.max() > RAW_LARGEST)):
        return "the expression looks raw"
    return None


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
