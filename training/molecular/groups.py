"""Where the groups of ``hypoxia correlate`` come from: a column of a table, or what a model recorded of its patients."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from features.bundle import ModelCard, cluster_name
from features.errors import BundleError, InputError, did_you_mean
from features.sources import read_table
from training.components import component_scores
from training.gate import check_predictions
from training.judged import JudgedModel, find_model, load_judged
from training.molecular.grouping import group_names
from training.molecular.study import CorrelatesStudy, TableGrouping
from training.tracking import Store, artifacts_of, open_existing

# A column with more different values is no grouping.
MOST_GROUPS = 12
CLUSTERS, CLUSTER = "clusters.csv", "cluster"


@dataclass(frozen=True)
class FoundGroups:
    """Patients by group, and who is of none.

    Attributes
    ----------
    groups : Series of categories, index: patient
        In the order in which they are compared: the differences of two groups are those of the second.
    notes, warnings : tuple of str
        Who was left out; groups that may be the same.
    """

    groups: pd.Series
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def load_groups(study: CorrelatesStudy, uri: str) -> FoundGroups:
    """Group of each patient, in words.

    Parameters
    ----------
    uri : str
        MLflow store, of which a model is to be looked up in.

    Raises
    ------
    InputError
        There is no such table, column or model; the column is no grouping; `combine` names a group that is not there.
    """
    grouping = study.grouping
    notes: tuple[str, ...] = ()
    if isinstance(grouping, TableGrouping):
        (found, notes), prefix = _of_table(grouping, study.folder), grouping.column
    else:
        found, prefix = of_model(open_existing(uri, grouping.model), grouping.model), CLUSTER
    groups = named_groups(found, prefix, study.combine)
    unnamed = _left_out(len(found) - len(groups), "a group that combine does not name")
    return FoundGroups(groups, (*notes, *unnamed), _told_apart_by_case(group_names(found)))


def named_groups(found: pd.Series, prefix: str, combine: Sequence[Sequence[int | str]] | None) -> pd.Series:
    """Groups as they are compared, some of them combined; those that are numbers get a word before them.

    Parameters
    ----------
    found : Series of str
        By patient, as it was read; in the order of its categories if it has such.
    prefix : str
        The word.
    combine : sequence of sequences, optional
        Groups that become one. What is not named is left out.

    Examples
    --------
    >>> found = pd.Series(["1", "2", "3"], index=["p1", "p2", "p3"])
    >>> named_groups(found, "cluster", [[1, 2], [3]]).tolist()
    ['clusters 1 and 2', 'clusters 1 and 2', 'cluster 3']
    """
    there = group_names(found)
    parts = [[name] for name in there] if combine is None else [[_tidy(str(one)) for one in part] for part in combine]
    absent = [name for part in parts for name in part if name not in there]
    if absent:
        raise InputError(f"combine names the group {absent[0]!r}, which no patient is of; groups: {', '.join(there)}.")
    numbers = all(name.isdigit() for name in there)
    words = [_with_prefix(prefix, part) if numbers else _listed(part) for part in parts]
    meant = {name: word for part, word in zip(parts, words, strict=True) for name in part}
    kept = found[found.isin(list(meant))].astype(str).map(meant)
    return kept.astype(pd.CategoricalDtype(words)).rename("group")


def _with_prefix(prefix: str, part: Sequence[str]) -> str:
    """Numbers of one group after their word, which has a plural where it is the one of clusters."""
    return f"{prefix}{'s' if prefix == CLUSTER and len(part) > 1 else ''} {_listed(part)}"


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _tidy(name: str) -> str:
    return " ".join(name.split())


def _left_out(count: int, why: str) -> tuple[str, ...]:
    return (f"{count} {'patient' if count == 1 else 'patients'} left out: {why}.",) if count else ()


def _told_apart_by_case(names: Sequence[str]) -> tuple[str, ...]:
    """A warning of names that are two groups, and maybe meant as one."""
    alike = [[name for name in names if name.casefold() == word] for word in dict.fromkeys(map(str.casefold, names))]
    return tuple(
        f"The groups {_listed([repr(name) for name in part])} are told apart by case alone; write them alike if they are one."
        for part in alike
        if len(part) > 1
    )


def of_model(store: Store, reference: str) -> pd.Series:
    """What a registered model recorded of its patients: the number of the cluster, or the class out of sample.

    The class is that of most of the out-of-sample predictions of the patient, over repeats and samples.

    Raises
    ------
    InputError
        There is no such model, it has no out-of-sample predictions, or its files are not those that its card signs.
    """
    run = find_model(store, reference)
    folder = artifacts_of(store, run.run_id)
    if (folder / CLUSTERS).exists():
        return _clusters(folder, reference)
    judged = load_judged(store, reference)
    if judged.internal is None:
        raise InputError(
            f"{judged.title} was registered without out-of-fold predictions (evaluation.internal: null), so the classes of the "
            "patients that it learnt from are in-sample; train it with evaluation.internal."
        )
    _refuse_changed(store, judged)
    of_composite = judged.card.composite is not None  # whose predictions.csv is one repeat of the internal ones
    tables = [judged.internal] if of_composite else [judged.internal, judged.predictions]
    called = pd.concat(tables).groupby("patient")["called"].mean() >= 0.5
    names = [judged.card.negative_label, judged.card.positive_label]
    return called.map(dict(zip([False, True], names, strict=True))).astype(pd.CategoricalDtype(names))


def _refuse_changed(store: Store, judged: JudgedModel) -> None:
    """Stop where recorded predictions are not those that the card was judged by, or may be in-sample."""
    if judged.card.composite is None:
        component_scores(store, judged.reference)
    elif check_predictions(judged).outcome != "passed":
        raise _not_its_own(judged.reference)


def _clusters(folder: Path, reference: str) -> pd.Series:
    try:
        card = ModelCard.model_validate_json((folder / "bundle" / "card.json").read_text(encoding="utf-8"))
    except (OSError, ValidationError) as cause:
        raise BundleError(f"The card of {reference!r} cannot be read by this version; train the model again.") from cause
    if (card.predictions or {}).get(CLUSTERS) != hashlib.sha256((folder / CLUSTERS).read_bytes()).hexdigest():
        raise _not_its_own(reference)
    table = pd.read_csv(folder / CLUSTERS, dtype=str, keep_default_na=False)
    return table.drop_duplicates("patient").set_index("patient")["cluster"].str.removeprefix(cluster_name(0).removesuffix("0"))


def _not_its_own(reference: str) -> InputError:
    return InputError(
        f"What is recorded of the patients of {reference!r} is not what its card signs: a file of its run was changed after "
        "training, or it is of an older version; train the model again."
    )


def _of_table(grouping: TableGrouping, folder: Path) -> tuple[pd.Series, tuple[str, ...]]:
    """Group of each patient, and who has none."""
    path = folder / grouping.path
    table = read_table(path, text_columns=(grouping.patient, grouping.column))
    for key, name in (("patient", grouping.patient), ("column", grouping.column)):
        if name not in table.columns:
            raise InputError(
                f"Column {name!r} (grouping.{key}) is not in {path.name}{did_you_mean(name, list(table.columns))}; name one "
                "that is."
            )
    told = table[[grouping.patient, grouping.column]].fillna("").apply(lambda column: column.map(_tidy))
    for key, name in (("patient", grouping.patient), ("column", grouping.column)):
        if (told[name] == "").all():
            raise InputError(f"Column {name!r} (grouping.{key}) of {path.name} is empty in all rows; name one that has values.")
    # Whole numbers of a column with gaps are written with a decimal by many a program.
    told[grouping.column] = told[grouping.column].str.replace(r"^(\d+)\.0+$", r"\1", regex=True)
    known = told[(told != "").all(axis=1)].drop_duplicates()
    twice = known.loc[known[grouping.patient].duplicated(), grouping.patient]
    if len(twice):
        raise InputError(f"Patient {twice.iloc[0]!r} is of two groups in {path.name}; give every patient one group.")
    found = known.set_index(grouping.patient)[grouping.column]
    if found.nunique() > MOST_GROUPS:
        raise InputError(
            f"Column {grouping.column!r} of {path.name} has {found.nunique()} different values, and a grouping at most "
            f"{MOST_GROUPS}; name a column of groups, or make groups of its values first."
        )
    without = len(set(told[grouping.patient]) - set(found.index) - {""})
    return found, _left_out(without, f"no value in {grouping.column!r}")
