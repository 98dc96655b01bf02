"""Protein scores of patients, such as staining from 0 to 3, by group."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from features.errors import InputError
from features.sources import TableSource
from training.molecular.group_tests import compare_groups
from training.molecular.grouping import group_names

# A score with more different values is an index, of which patients are not counted value by value.
MOST_LEVELS = 8


@dataclass(frozen=True)
class ProteinDifferences:
    """How protein scores differ between groups.

    Attributes
    ----------
    tests : DataFrame
        Of ``compare_groups``: a row per protein.
    levels : DataFrame
        ``protein``, ``level``, and a column of patients per group; of proteins with few levels alone.
    """

    tests: pd.DataFrame
    levels: pd.DataFrame


def read_proteins(path: Path, patient: str) -> pd.DataFrame:
    """Read a table of protein scores.

    Parameters
    ----------
    path : Path
        CSV, TSV or Parquet; a row per patient (or sample), a column of numbers per protein. An empty cell is a missing score.
    patient : str
        Column with the patient's name.

    Raises
    ------
    InputError
        It cannot be read, names a patient twice, or a column holds text.
    """
    table = TableSource(path=path.name, sample=patient).read(path.parent)
    words = [name for name in table.columns if not pd.api.types.is_numeric_dtype(table[name])]
    if words:
        raise InputError(
            f"Protein {words[0]!r} of {path.name} holds text; write its scores as numbers (0, 1, 2, 3), missing ones as empty "
            "cells, and take out columns that are no proteins."
        )
    if table.shape[1] == 0:
        raise InputError(f"{path.name} has no column beside {patient!r}; give each protein a column.")
    return table.astype(float)


def compare_proteins(scores: pd.DataFrame, groups: pd.Series, false_discovery: float = 0.05) -> ProteinDifferences:
    """Compare ordinal scores between groups by their ranks, and count the patients of each level.

    Parameters
    ----------
    scores : DataFrame of shape (n_patients, n_proteins)
    groups : Series of str
        By patient.

    Examples
    --------
    >>> scores = pd.DataFrame({"HIF1A": [0.0, 1, 1, 2, 3, 3, 2, 3]})
    >>> compare_proteins(scores, pd.Series(["low"] * 4 + ["more"] * 4)).levels.to_numpy().tolist()
    [['HIF1A', 0.0, 1, 0], ['HIF1A', 1.0, 2, 0], ['HIF1A', 2.0, 1, 1], ['HIF1A', 3.0, 0, 3]]
    """
    known = groups.reindex(scores.index)
    names = group_names(known)
    counted = [name for name in scores.columns if scores[name].nunique() <= MOST_LEVELS]
    rows = [
        (protein, level, *(int(((scores[protein] == level) & (known == name)).sum()) for name in names))
        for protein in counted
        for level in sorted(scores[protein].dropna().unique())
    ]
    levels = pd.DataFrame(rows, columns=["protein", "level", *names])
    return ProteinDifferences(compare_groups(scores, known, false_discovery), levels)
