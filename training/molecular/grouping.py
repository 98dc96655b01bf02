"""Groups of patients: whose a sample is, in which order the groups come, and what is compared with what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.errors import InputError

FEWEST_PATIENTS = 4
REST = "the rest"
PARTS = "-_."
# A barcode of TCGA: the patient, then the type of the sample (10 to 19: normal tissue) and its vial (A, B, ...).
BARCODE_OF_NORMAL = re.compile(r"TCGA-\w{2}-\w{4}-1\d")
VIAL = re.compile(r"(TCGA-\w{2}-\w{4}-\d{2})[A-Z]")
# The first of each is the absence, or the lesser, of the second; as names are once `_spelt` has made them alike.
OPPOSITES = (
    ("normoxic", "hypoxic"),
    ("normoxia", "hypoxia"),
    ("no", "yes"),
    ("false", "true"),
    ("low", "high"),
    ("less", "more"),
    ("negative", "positive"),
    ("absent", "present"),
    ("wild type", "mutated"),
)
DENIALS = ("not", "no", "non", "without")
SPELLINGS = (
    (r"\+$", " positive"),
    (r"-$", " negative"),
    (r"[-_\s]+", " "),
    (r"\b(wildtype|wt)\b", "wild type"),
    (r"\b(mutant|mut)\b", "mutated"),
)


@dataclass(frozen=True)
class Contrast:
    """Two groups that are compared; differences are those of the group less the other.

    Attributes
    ----------
    group, other : str
        The other may be "the rest": all patients who are not of the group.
    """

    group: str
    other: str

    @property
    def name(self) -> str:
        """Both, in words."""
        return f"{self.group} against {self.other}"

    def members(self, groups: pd.Series) -> np.ndarray:
        """Whether each patient is of the group; shape (n_patients,)."""
        return np.asarray(groups == self.group)


def group_names(groups: pd.Series) -> list[str]:
    """Names of the groups that have somebody: in the order of the categories if there are such, else as `in_order` has them.

    Examples
    --------
    >>> group_names(pd.Series(["cluster 10", "cluster 2"])), group_names(pd.Series(pd.Categorical(["low"], ["low", "high"])))
    (['cluster 2', 'cluster 10'], ['low'])
    """
    there = groups.dropna().unique()
    if isinstance(groups.dtype, pd.CategoricalDtype):
        return [str(name) for name in groups.cat.categories if name in there]
    return in_order(map(str, there))


def in_order(names: Iterable[str]) -> list[str]:
    """Names in the order of their numbers and letters; but of two that are opposites the positive is the second.

    Examples
    --------
    >>> in_order(["not hypoxic", "hypoxic"]), in_order(["HPV-", "HPV+"]), in_order(["b", "a"])
    (['not hypoxic', 'hypoxic'], ['HPV-', 'HPV+'], ['a', 'b'])
    """
    ordered = sorted(names, key=as_read)
    return ordered[::-1] if len(ordered) == 2 and _denies(ordered[1], ordered[0]) else ordered


def _denies(name: str, other: str) -> bool:
    """Whether the first says that the second is not so: "not hypoxic" of "hypoxic", "HPV negative" of "HPV positive"."""
    said, of = _spelt(name), _spelt(other)
    opposite = {re.sub(rf"\b{low}\b", high, said) for low, high in OPPOSITES} - {said}
    return of in opposite or said in {f"{word} {of}" for word in DENIALS}


def _spelt(name: str) -> str:
    """A name without what tells spellings of the same word apart."""
    spelt = name.strip().casefold()
    for written, meant in SPELLINGS:
        spelt = re.sub(written, meant, spelt)
    return spelt.strip()


def as_read(name: str) -> list[tuple[bool, float, str]]:
    """What names are sorted by: their numbers as numbers."""
    return [(not part.isdigit(), float(part) if part.isdigit() else 0.0, part) for part in re.split(r"(\d+)", name) if part]


def contrasts(groups: pd.Series) -> tuple[Contrast, ...]:
    """What is compared: the second of two groups with the first; of several groups, each with all other patients.

    Examples
    --------
    >>> [one.name for one in contrasts(pd.Series(["cluster 2", "cluster 1"]))]
    ['cluster 2 against cluster 1']
    >>> [one.name for one in contrasts(pd.Series(["a", "b", "c"]))]
    ['a against the rest', 'b against the rest', 'c against the rest']
    """
    names = group_names(groups)
    if len(names) == 2:
        return (Contrast(names[1], names[0]),)
    return tuple(Contrast(name, REST) for name in names)


def refuse_small_groups(groups: pd.Series, what: str, named: Sequence[str]) -> None:
    """Stop where a group is too small for a test by permutation to find anything.

    Parameters
    ----------
    groups : Series of str
        Of the patients with the data.
    what : str
        The data: "expression".
    named : sequence of str
        All groups, also those of whom nobody has the data.

    Raises
    ------
    InputError
        There are fewer than two groups, or one of fewer than four patients.
    """
    if len(named) < 2:
        raise InputError(f"All patients are of one group ({named[0] if named else 'none'}); correlates need two groups or more.")
    sizes = {name: int((groups == name).sum()) for name in named}
    smallest = min(sizes, key=lambda name: sizes[name])
    if sizes[smallest] < FEWEST_PATIENTS:
        raise InputError(
            f"The group {smallest!r} has {sizes[smallest]} patients with {what}, and {FEWEST_PATIENTS} are the fewest that "
            "can be compared; combine groups, or leave it out."
        )


def matched(names: pd.Series, patients: Sequence[str]) -> pd.Series:
    """Patient of each sample: the longest name of a patient that the sample's begins with, as whole parts; missing if none.

    Examples
    --------
    >>> names = pd.Series(["TCGA-AB-1234-01A-11D", "P10", "P1_b"])
    >>> matched(names, ["TCGA-AB-1234", "P1"]).fillna("nobody").tolist()
    ['TCGA-AB-1234', 'nobody', 'P1']
    """
    known = set(patients)
    whose = {name: _whose(name, known) for name in names.unique()}
    return names.map(whose)


def is_normal(names: pd.Series) -> np.ndarray:
    """Whether a sample is of normal tissue, by the type in a barcode of TCGA."""
    return np.array([bool(BARCODE_OF_NORMAL.match(name)) for name in names], dtype=bool)


def _whose(name: str, known: set[str]) -> str | None:
    beginnings = [name, *(name[: one.start()] for one in reversed(list(re.finditer(f"[{PARTS}]", name))))]
    beginnings += [vial[1]] if (vial := VIAL.match(name)) else []
    return next((one for one in sorted(beginnings, key=len, reverse=True) if one in known), None)
