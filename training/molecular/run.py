"""Molecular correlates of a grouping of patients, top to bottom: whose samples these are, and what differs between the groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.files import file_name
from training.molecular.enrichment import Enrichment, enrichment_of_sets
from training.molecular.group_tests import compare_groups
from training.molecular.grouping import Contrast, contrasts, group_names, refuse_small_groups
from training.molecular.microenvironment import Microenvironment, has_microenvironment, stromal_and_immune
from training.molecular.moderated import Moderated, moderated_t
from training.molecular.molecules import ByPatient, Molecules, by_patient, few_patients, matched_words
from training.molecular.mutations import MutationFrequencies, Mutations, current_symbols, mutation_frequencies
from training.molecular.proteins import ProteinDifferences, compare_proteins
from training.molecular.sam import Sam, sam
from training.molecular.single_sample import single_sample_scores
from training.molecular.study import MolecularSettings, Units
from training.molecular.two_groups import usable_genes
from training.progress import Progress, Silence
from training.tracking import write_json

SHOWN = 5
# Of two groups: above which the second is higher, and how that is said.
DIRECTIONS = {"superiority": (0.5, "higher"), "odds_ratio": (1.0, "more often")}


@dataclass(frozen=True)
class GeneContrast:
    """Genes and gene sets of one group against another.

    Attributes
    ----------
    enrichment : Enrichment or None
        None where no gene sets were given.
    false_discovery : float
        Rate that the contrast is judged by: the one asked for, over the number of contrasts.
    units : {"log2", "other"}
        Of the differences; in others than log2 the fold changes are missing.
    """

    contrast: Contrast
    sam: Sam
    moderated: Moderated
    enrichment: Enrichment | None
    false_discovery: float
    units: Units = "log2"

    @property
    def called(self) -> pd.DataFrame:
        """Genes that SAM calls."""
        return self.sam.table[self.sam.table["called"]]

    @property
    def enriched(self) -> pd.DataFrame | None:
        """Gene sets that are enriched at the rate."""
        return None if self.enrichment is None else self.enrichment.firm(self.false_discovery)

    @property
    def slug(self) -> str:
        """The contrast's name as a part of a file's."""
        return file_name(self.contrast.name.replace(" ", "_"))

    @property
    def rate(self) -> str:
        """The false discovery rate, as it is said."""
        return f"{100 * self.false_discovery:.2g}%"

    @property
    def measured_in(self) -> str:
        """The units of the differences, as they are said."""
        return "log2" if self.units == "log2" else "the table's units"


@dataclass(frozen=True)
class Scored:
    """Scores of patients, and whether they differ between the groups.

    Attributes
    ----------
    scores : DataFrame of shape (n_patients, n_scores)
    tests : DataFrame
        Of ``compare_groups``.
    """

    scores: pd.DataFrame
    tests: pd.DataFrame


@dataclass(frozen=True)
class MutatedByGroup:
    """Mutations of patients, and how often genes and pathways are mutated in each group."""

    mutations: Mutations
    frequencies: MutationFrequencies


@dataclass(frozen=True)
class ProteinsByGroup:
    """Protein scores of patients, and how they differ between groups."""

    scores: pd.DataFrame
    differences: ProteinDifferences


@dataclass(frozen=True)
class Correlates:
    """What was found of the groups.

    Attributes
    ----------
    groups : Series of categories, index: patient
    patients : DataFrame
        Index: group. Patients of each, and of how many there are ``expression``, ``mutations`` and ``proteins``.
    genes : tuple of GeneContrast
        One for two groups; else one per group, against all others.
    left_out : DataFrame or None
        Gene sets that were not tested in the expression, and why.
    single_sample, microenvironment : Scored or None
    mutated : MutatedByGroup or None
    proteins : ProteinsByGroup or None
    notes, warnings : tuple of str
        What was left out; what a reader must know.
    """

    settings: MolecularSettings
    groups: pd.Series
    patients: pd.DataFrame
    genes: tuple[GeneContrast, ...]
    left_out: pd.DataFrame | None
    single_sample: Scored | None
    microenvironment: Scored | None
    mutated: MutatedByGroup | None
    proteins: ProteinsByGroup | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """Each part in a sentence."""
        found = [words for one in self.genes for words in _contrast_words(one)]
        names = group_names(self.groups)
        tests = {"Scores of gene sets": self.single_sample, "Microenvironment": self.microenvironment}
        found += [f"{title}: {_associated(one.tests, names)}" for title, one in tests.items() if one is not None]
        if self.mutated is not None:
            found.append(f"Mutated genes: {_associated(self.mutated.frequencies.genes, names)}")
        if self.mutated is not None and len(self.mutated.frequencies.pathways):
            found.append(f"Mutated pathways: {_associated(self.mutated.frequencies.pathways, names)}")
        if self.proteins is not None:
            found.append(f"Proteins: {_associated(self.proteins.differences.tests, names)}")
        return tuple(found)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table by the name of its file."""
        found = {"patients": self.patients}
        for one in self.genes:
            found |= {f"genes_{one.slug}": one.sam.table.rename_axis("gene"), f"sam_delta_{one.slug}": one.sam.delta_table}
            found |= {f"moderated_t_{one.slug}": one.moderated.table.rename_axis("gene")}
            found |= {} if one.enrichment is None else {f"gene_sets_{one.slug}": _in_cells(one.enrichment.table)}
        found |= {} if self.left_out is None else {"gene_sets_left_out": self.left_out}
        for name, scored in (("gene_set_scores", self.single_sample), ("microenvironment", self.microenvironment)):
            found |= {} if scored is None else {f"{name}_tests": scored.tests, name: scored.scores.rename_axis("patient")}
        if self.mutated is not None:
            mutated, frequencies = self.mutated.mutations.classes.rename_axis("patient"), self.mutated.frequencies
            found |= {"mutated_genes": frequencies.genes, "mutated_pathways": frequencies.pathways, "mutations": mutated}
        if self.proteins is not None:
            found |= {"protein_tests": self.proteins.differences.tests, "protein_levels": self.proteins.differences.levels}
        return found

    def as_json(self) -> dict[str, Any]:
        """What was found, without the tables."""
        return {
            "patients": {name: int(count) for name, count in self.patients["patients"].items()},
            "contrasts": [_contrast_json(one) for one in self.genes],
            "associated": {
                name: [str(one) for one in table.index[table["associated"]]] for name, table in self._tested().items()
            },
            "false_discovery": self.settings.false_discovery,
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    def _tested(self) -> dict[str, pd.DataFrame]:
        return {name: table for name, table in self.tables().items() if "associated" in table}


def correlate(
    settings: MolecularSettings,
    molecules: Molecules,
    groups: pd.Series,
    rng: Callable[[str], np.random.Generator],
    progress: Progress | None = None,
) -> Correlates:
    """Ask what differs between groups of patients.

    Two groups are compared with each other, and differences are those of the second; of several groups each is compared with
    all other patients, and these contrasts share the false discovery rate: each has the rate over their number. The tables of
    scores, mutations and proteins, which compare all groups at once, have the whole rate each.

    Parameters
    ----------
    groups : Series of str, index: patient
        In the order of its categories if it has such.
    rng : callable
        Generator of a named stage, as a study has it.

    Raises
    ------
    InputError
        Of one kind of data nothing is of the patients, or a group has it of fewer than four.
    """
    watched, known = progress or Silence(), known_of_groups(settings, molecules, groups)
    groups = groups.astype(pd.CategoricalDtype(group_names(groups)))
    genes = _compared_genes(settings, known, groups, rng, watched)
    if molecules.units != "log2":
        genes = tuple(_without_fold_changes(one) for one in genes)
    watched.stage("scores, mutations and proteins by group")
    surroundings = _microenvironment(settings, known.expression)
    single = _set_scores(settings, known)
    return Correlates(
        settings,
        groups,
        _counted(groups, known),
        genes,
        None if known.sets is None else known.sets.left_out,
        None if single is None else _scored(single, groups, settings),
        None if surroundings is None else _scored(surroundings.scores, groups, settings),
        _mutated(settings, known.mutations, molecules.sets, groups),
        _proteins(settings, known.proteins, groups),
        (
            f"Matched by name: {matched_words(known, groups)}.",
            *known.notes,
            *dict.fromkeys(note for one in genes for note in one.sam.notes),
        ),
        (*few_patients(known, groups), *(() if surroundings is None else surroundings.notes)),
    )


def known_of_groups(settings: MolecularSettings, molecules: Molecules, groups: pd.Series) -> ByPatient:
    """What is known of the patients of groups; no group has it of too few to be compared.

    Raises
    ------
    InputError
        Of one kind of data nothing is of the patients, or a group has it of fewer than four.
    """
    names, known = group_names(groups), by_patient(settings, molecules, list(groups.index))
    for what, table in known.tables.items():
        refuse_small_groups(groups.reindex(table.index), what, names)
    return known


def write_correlates(correlates: Correlates, folder: Path) -> None:
    """Write every table as CSV, and what was found as summary.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in correlates.tables().items():
        table.to_csv(folder / f"{name}.csv", index=not isinstance(table.index, pd.RangeIndex))
    write_json(folder / "summary.json", correlates.as_json())


def _compared_genes(
    settings: MolecularSettings,
    known: ByPatient,
    groups: pd.Series,
    rng: Callable[[str], np.random.Generator],
    progress: Progress,
) -> tuple[GeneContrast, ...]:
    if known.expression is None:
        return ()
    found, compared = [], contrasts(groups)
    for contrast in compared:
        progress.stage(f"genes: {contrast.name}")
        members, rate = contrast.members(groups.reindex(known.expression.index)), settings.false_discovery / len(compared)
        found.append(_one_contrast(settings, known, contrast, members, rate, rng(f"genes: {contrast.name}")))
    return tuple(found)


def _one_contrast(
    settings: MolecularSettings,
    known: ByPatient,
    contrast: Contrast,
    members: np.ndarray,
    rate: float,
    rng: np.random.Generator,
) -> GeneContrast:
    assert known.expression is not None  # noqa: S101 - asked of patients with expression alone
    values, permutations, fold_change = known.expression, settings.permutations, settings.fold_change
    differing = sam(values, members, rng, permutations=permutations, false_discovery=rate, fold_change=fold_change)
    moderated = moderated_t(values, members, false_discovery=rate, fold_change=fold_change)
    enrichment = None
    if known.sets is not None:
        enrichment = enrichment_of_sets(values, members, known.sets.sets, rng, permutations=permutations)
    return GeneContrast(contrast, differing, moderated, enrichment, rate)


def _without_fold_changes(one: GeneContrast) -> GeneContrast:
    differing = replace(one.sam, table=one.sam.table.assign(fold_change=np.nan))
    moderated = replace(one.moderated, table=one.moderated.table.assign(fold_change=np.nan))
    return replace(one, sam=differing, moderated=moderated, units="other")


def _set_scores(settings: MolecularSettings, known: ByPatient) -> pd.DataFrame | None:
    if known.expression is None or known.sets is None:
        return None
    if settings.set_scores == "ssgsea":
        return single_sample_scores(known.expression, known.sets.sets)
    values, _ = usable_genes(known.expression)
    z = (values - values.mean()) / values.std(ddof=1)
    return pd.DataFrame({name: z[list(genes)].mean(axis=1) for name, genes in known.sets.sets.items()})


def _scored(scores: pd.DataFrame, groups: pd.Series, settings: MolecularSettings) -> Scored:
    return Scored(scores, compare_groups(scores, groups, settings.false_discovery))


def _microenvironment(settings: MolecularSettings, expression: pd.DataFrame | None) -> Microenvironment | None:
    if expression is None or settings.microenvironment is False or not has_microenvironment(expression.columns):
        return None
    return stromal_and_immune(expression)


def _mutated(
    settings: MolecularSettings, mutations: Mutations | None, sets: Mapping[str, Sequence[str]], groups: pd.Series
) -> MutatedByGroup | None:
    if mutations is None:
        return None
    meant = current_symbols(sorted({gene for members in sets.values() for gene in members}))
    pathways = {name: [meant[gene] for gene in members] for name, members in sets.items()}
    rate, fewest = settings.false_discovery, settings.fewest_mutated
    return MutatedByGroup(mutations, mutation_frequencies(mutations, groups, pathways, false_discovery=rate, fewest=fewest))


def _proteins(settings: MolecularSettings, scores: pd.DataFrame | None, groups: pd.Series) -> ProteinsByGroup | None:
    if scores is None:
        return None
    return ProteinsByGroup(scores, compare_proteins(scores, groups, settings.false_discovery))


def _counted(groups: pd.Series, known: ByPatient) -> pd.DataFrame:
    """Patients of each group, and those of them that each kind of data is known of."""
    counts = {"patients": groups.value_counts(sort=False)}
    counts |= {what: groups.reindex(table.index).value_counts(sort=False) for what, table in known.tables.items()}
    return pd.DataFrame(counts).rename_axis("group")


def _contrast_words(one: GeneContrast) -> list[str]:
    name, called, tested = one.contrast.name, list(one.called.index), len(one.sam.table)
    by_median = int((one.sam.table["median_q_value"] <= one.false_discovery).sum())
    by = f"SAM; {by_median} by its median rate"
    found = [f"{name}: {len(called)} of {tested} genes differ{_sides(one)} ({by}){_first(called)}"]
    if one.enrichment is not None and one.enriched is not None:
        sets = [f"{name} ({_higher_in(nes > 0, one.contrast)}, NES {nes:.2f})" for name, nes in one.enriched["nes"].items()]
        share = f"{len(sets)} of {len(one.enrichment.table)} gene sets enriched at {one.rate}"
        found.append(f"{name}: {share} (GSEA, among random sets and groups){_first(sets)}")
    return found


def _sides(one: GeneContrast) -> str:
    called, higher = len(one.called), int((one.called["difference"] > 0).sum())
    if not called:
        return ""
    words = f", {higher} higher in {one.contrast.group} and {called - higher} lower"
    return f"{words}; with 95% certainty at most {one.rate} of them falsely"


def _first(names: Sequence[str]) -> str:
    return f"; first: {_listed(names)}" if len(names) else ""


def _higher_in(group: bool, contrast: Contrast) -> str:
    return f"higher in {contrast.group if group else contrast.other}"


def _associated(tests: pd.DataFrame, names: Sequence[str]) -> str:
    """Which rows of a table of tests are associated with the groups, in words; of two groups, where they are higher."""
    found = tests[tests["associated"]]
    shown = [str(name) for name in found.index]
    if len(names) == 2:
        measure = "odds_ratio" if "odds_ratio" in found else "superiority"
        even, words = DIRECTIONS[measure]
        shown = [f"{name} ({words} in {names[int(value > even)]})" for name, value in zip(shown, found[measure], strict=True)]
    return f"{len(shown)} of {int(tests['p_value'].notna().sum())} that were tested differ between groups{_first(shown)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(str, names[:SHOWN])) + more


def _contrast_json(one: GeneContrast) -> dict[str, Any]:
    sets = None if one.enrichment is None else one.enrichment.table[["nes", "q_value", "group_q_value"]].to_dict("index")
    return {
        "name": one.contrast.name,
        "false_discovery": one.false_discovery,
        "units": one.units,
        "genes_tested": len(one.sam.table),
        "genes_called": [str(gene) for gene in one.called.index],
        "delta": one.sam.delta,
        "s0": one.sam.s0,
        "pi0": one.sam.pi0,
        "permutations": one.sam.permutations,
        "gene_sets": sets,
        "gene_sets_enriched": None if one.enriched is None else list(one.enriched.index),
    }


def _in_cells(enrichment: pd.DataFrame) -> pd.DataFrame:
    return enrichment.assign(leading_edge=enrichment["leading_edge"].map(" ".join))
