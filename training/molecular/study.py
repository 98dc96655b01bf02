"""Molecular correlates of groups of patients: what a YAML file can say."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from features.errors import InputError
from features.expression import ExpressionSource
from features.settings import Settings
from training.config import read_mapping, study_of

Units = Literal["log2", "other"]
HELP = "`hypoxia correlate --help`"


class MolecularSettings(Settings):
    """Genes, mutations and proteins that groups of patients are compared by. Paths are relative to the study file.

    Parameters
    ----------
    expression : mapping, optional
        Where the expression is read from, as in a study (``path``, ``sample``, ``scale``, ...). A sample is of the patient
        whose name it bears, or begins with (``TCGA-AB-1234-01A`` is of ``TCGA-AB-1234``); a column called as in ``patient``
        says it otherwise. Of several samples of a patient the mean is taken.
    gene_sets : list of str
        GMT files. Their sets are tested for enrichment, scored in each patient, and are the pathways of the mutations.
    mutations : str, optional
        Mutation annotation file (MAF).
    sequenced : str, optional
        Table with a row per patient who was sequenced. Left out: those with a variant in the file.
    silent : bool
        Whether variants that leave the protein as it is count as mutations.
    fewest_mutated : int
        A gene that is mutated in fewer patients, or in all but fewer, is listed and not tested.
    proteins : str, optional
        Table with a row per patient and a column of ordinal scores per protein.
    patient : str
        Column with the patient's name, in the tables of proteins and of the sequenced, and beside the expression.
    microenvironment : bool, optional
        Whether stromal and immune scores are computed. Left out: where the expression has at least half of their genes.
    set_scores : {"z", "ssgsea"}
        Score of a gene set in one patient. `z`: mean of its genes' z scores over the patients (Lee 2008,
        doi:10.1371/journal.pcbi.1000217). `ssgsea`: how high its genes rank within the patient (Barbie 2009,
        doi:10.1038/nature08460); where some genes rise, all others rank lower, and so do sets that have nothing to do with it.
    false_discovery : float
        Rate among genes, among sets, and so on. Several groups, each compared with all others, share it.
    units : {"log2", "other"}, optional
        Of the expression. `log2`: logarithms or log ratios, whose differences are fold changes. `other`: z scores, or anything
        else; differences are in the table's own units. Left out: `other` where the values look raw or like z scores (the genes
        have means of about 0, and standard deviations of about 1).
    fold_change : float
        A gene whose means differ by less than this factor is not called; 1: all may be. Of `log2` only.
    permutations : int
        Of the patients' groups (genes), and of the genes (sets).
    smallest_set, largest_set : int
        Sets with fewer or more genes among those measured are not tested for enrichment.
    """

    expression: ExpressionSource | None = None
    gene_sets: tuple[str, ...] = ()
    mutations: str | None = None
    sequenced: str | None = None
    silent: bool = False
    fewest_mutated: int = Field(default=3, ge=1)
    proteins: str | None = None
    patient: str = "patient"
    microenvironment: bool | None = None
    set_scores: Literal["z", "ssgsea"] = "z"
    false_discovery: float = Field(default=0.05, gt=0, lt=1)
    units: Units | None = None
    fold_change: float = Field(default=1.0, ge=1)
    permutations: int = Field(default=1000, ge=100)
    smallest_set: int = Field(default=15, ge=2)
    largest_set: int = Field(default=500, ge=2)

    @model_validator(mode="after")
    def _there_is_something(self) -> Self:
        if self.expression is None and self.mutations is None and self.proteins is None:
            raise ValueError("name expression, mutations or proteins; there is nothing else to compare groups by")
        return self

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        if self.gene_sets and self.expression is None and self.mutations is None:
            raise ValueError("gene_sets need expression or mutations; name one of them, or take gene_sets out")
        if self.microenvironment and self.expression is None:
            raise ValueError("microenvironment: true needs expression; name it")
        if self.sequenced and self.mutations is None:
            raise ValueError("sequenced goes with mutations; name the mutation annotation file")
        if self.units is not None and self.expression is None:
            raise ValueError("units are those of expression; name it, or take units out")
        if self.units == "other" and self.fold_change > 1:
            raise ValueError("fold_change goes with units: log2; take it out, or take units: other out")
        if self.smallest_set > self.largest_set:
            raise ValueError(f"smallest_set ({self.smallest_set}) is above largest_set ({self.largest_set})")
        return self


class TableGrouping(Settings):
    """A column of a table.

    Parameters
    ----------
    path : str
    patient : str
        Column with the patient's name.
    column : str
        Column with the group; an empty cell leaves the patient out, and spaces around a name are no part of it. Groups that
        are numbers are called by the column's name too ("cluster 1").
    """

    kind: Literal["table"] = "table"
    path: str
    patient: str = "patient"
    column: str

    @model_validator(mode="after")
    def _patients_are_no_groups(self) -> Self:
        if self.column == self.patient:
            raise ValueError(f"patient and column are both {self.column!r}; name the column with the group of each patient")
        return self


class ModelGrouping(Settings):
    """What a registered model recorded of its patients.

    The clusters of a profile; else the class out of sample: of a classifier that of its out-of-fold and held-out predictions, of
    a composite that of its cross-validation.

    Parameters
    ----------
    model : str
        NAME, NAME:VERSION or NAME@ALIAS.
    """

    kind: Literal["model"]
    model: str


Grouping = Annotated[TableGrouping | ModelGrouping, Field(discriminator="kind")]


class CorrelatesStudy(Settings):
    """Everything that decides what ``hypoxia correlate`` finds.

    Parameters
    ----------
    name : str
        Heading of the report.
    seed : int
        Every random choice derives from it.
    grouping : mapping
        Where the groups come from: ``kind: table`` or ``kind: model``. Differences of two groups are those of the second: above
        0 is higher there. Groups are in the order of their numbers or letters, but of opposites the positive is the second
        (not hypoxic, hypoxic; normoxic, hypoxic; no, yes; low, high; negative, positive; wild type, mutated).
    combine : list of lists, optional
        Groups in another order, or taken as one, by what the column holds or the cluster's number: ``[[1, 2], [3]]``, or
        ``[[normoxic], [hypoxic]]``. Groups that are not named are left out.
    molecular : mapping
        What they are compared by.
    """

    name: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    grouping: Grouping
    combine: tuple[tuple[int | str, ...], ...] | None = None
    molecular: MolecularSettings

    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """Folder of the study file; its paths are relative to it."""
        return self._folder

    def rng(self, stage: str) -> np.random.Generator:
        """Generator of a named stage: adding a stage does not shift the others."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, zlib.crc32(stage.encode())]))

    @model_validator(mode="after")
    def _combination_is_one(self) -> Self:
        named = [str(one) for part in self.combine or () for one in part]
        if self.combine is not None and (len(self.combine) < 2 or not all(self.combine)):
            raise ValueError("combine needs two lists or more, each of at least one group, as in [[1, 2], [3]]")
        if len(set(named)) < len(named):
            raise ValueError(f"combine names the group {max(named, key=named.count)} twice; a group is in one list")
        return self


def load_correlates(path: Path) -> CorrelatesStudy:
    """Read a study of correlates from its YAML file.

    Raises
    ------
    InputError
        As ``training.config.load_study`` raises it.
    """
    content = read_mapping(path, "study", f"that of {HELP}", "name, grouping and molecular")
    if "cohort" in content and "grouping" not in content:
        raise InputError(f"{path} is a study of a model, for `hypoxia train`; a study of groups has a grouping: see {HELP}.")
    return study_of(CorrelatesStudy, path, content, HELP)  # type: ignore[type-var]  # a study's file without a cohort and a model
