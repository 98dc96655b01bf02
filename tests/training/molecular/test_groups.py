"""Groups of patients from a table, and from what a registered model recorded out of sample."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from recorded import recorded_model, table_of
from recorded_survival import recorded_composite

from features.bundle import Estimate, ModelCard
from features.errors import InputError
from training.evaluation import all_measures
from training.molecular.groups import FoundGroups, load_groups, named_groups, of_model
from training.molecular.study import CorrelatesStudy
from training.tracking import Store, open_store


@dataclass(frozen=True)
class Registered:
    """Models in one store: a classifier, one without out-of-fold predictions, a composite, and clusters."""

    folder: Path

    @property
    def store(self) -> Store:
        return open_store(f"sqlite:///{self.folder / 'mlflow.db'}")

    def artifacts(self, name: str) -> Path:
        uri = f"sqlite:///{self.folder / 'mlflow.db'}"
        found = MlflowClient(uri, registry_uri=uri).get_model_version(name, "1")
        return Path(found.source.removeprefix("file://")).parent


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    made = Registered(tmp_path_factory.mktemp("groups"))
    recorded_model(made.folder, "hypoxia-class", ["f0"], table_of(20, seed=1))
    _with_predictions_out_of_fold(made.artifacts("hypoxia-class"))
    recorded_model(made.folder, "unjudged", ["f0"], table_of(40, seed=1))
    recorded_composite(made.folder, "both", ("f0", "f1"), patients=60)
    recorded_model(made.folder, "profile", ["f0"], table_of(40, seed=2))
    _as_profile(made.artifacts("profile"))
    return made


def _with_predictions_out_of_fold(folder: Path) -> None:
    """Write what an internal validation records, as far as a card says it: two repeats of two folds."""
    learnt, rng = table_of(60, seed=99), np.random.default_rng(0)  # those of recorded_model
    parts = []
    for repeat in range(2):
        probability = rng.uniform(0, 0.6, size=60) + 0.4 * learnt["Target"]
        rows = learnt[["sample", "patient"]].assign(label=learnt["Target"], probability=probability, threshold=0.5)
        parts.append(rows.assign(called=probability >= 0.5, repeat=repeat, fold=np.arange(60) // 2 % 2))
    internal = pd.concat(parts, ignore_index=True)
    internal.to_csv(folder / "predictions_internal.csv", index=False)
    said = {name: Estimate(value=value[0]) for name, value in all_measures(internal, np.ones((1, len(internal))), None).items()}
    _rewrite_card(folder, internal=said)


def _rewrite_card(folder: Path, **changes: Any) -> None:
    path = folder / "bundle" / "card.json"
    card = ModelCard.model_validate_json(path.read_text(encoding="utf-8"))
    path.write_text(card.model_copy(update=changes).model_dump_json(), encoding="utf-8")


def _as_profile(folder: Path) -> None:
    """Write clusters into a run as a profile's run has them, signed by the card."""
    rows = {"sample": ["s1", "s2", "s3"], "patient": ["p1", "p2", "p3"], "cluster": [2, 1, 3]}
    pd.DataFrame(rows).to_csv(folder / "clusters.csv", index=False)
    digest = hashlib.sha256((folder / "clusters.csv").read_bytes()).hexdigest()
    _rewrite_card(folder, predictions={"clusters.csv": digest})


def study(tmp_path: Path, table: pd.DataFrame, **changes: Any) -> CorrelatesStudy:
    table.to_csv(tmp_path / "groups.csv", index=False)
    grouping = {"kind": "table", "path": "groups.csv", "patient": "ID", "column": "cluster", **changes.pop("grouping", {})}
    content = {"name": "toy", "grouping": grouping, "molecular": {"mutations": "v.maf"}, **changes}
    made = CorrelatesStudy.model_validate(content)
    made._folder = tmp_path
    return made


def groups_of(tmp_path: Path, table: dict[str, list[Any]], **changes: Any) -> FoundGroups:
    return load_groups(study(tmp_path, pd.DataFrame(table), **changes), "sqlite:///nowhere/mlflow.db")


def test_numbers_are_called_by_their_column_and_patients_as_written(tmp_path: Path) -> None:
    found = groups_of(tmp_path, {"ID": ["007", "8", "9"], "cluster": [10, 2, None]}).groups
    assert found.to_dict() == {"007": "cluster 10", "8": "cluster 2"}
    assert list(found.cat.categories) == ["cluster 2", "cluster 10"]


def test_combined_groups_are_in_the_order_in_which_they_are_named(tmp_path: Path) -> None:
    table = {"ID": list("abcd"), "cluster": ["mild", "severe", "none", "moderate"]}
    found = groups_of(tmp_path, table, combine=[["severe", "moderate "], ["none"]])
    assert list(found.groups.cat.categories) == ["severe and moderate", "none"]
    assert set(found.groups.index) == {"b", "c", "d"}
    assert found.notes == ("1 patient left out: a group that combine does not name.",)


def test_numbers_of_any_column_are_combined_under_its_name(tmp_path: Path) -> None:
    table = {"ID": list("abc"), "stage": [1, 2, 3]}
    found = groups_of(tmp_path, table, grouping={"column": "stage"}, combine=[[3], [1, 2]])
    assert list(found.groups.cat.categories) == ["stage 3", "stage 1 and 2"]


def test_patients_without_a_group_are_counted(tmp_path: Path) -> None:
    table = {"ID": ["a", "b", "c", "d", "d", None], "cluster": ["low", None, "  ", "high", None, "low"]}
    found = groups_of(tmp_path, table)
    assert found.groups.to_dict() == {"a": "low", "d": "high"}
    assert found.notes == ("2 patients left out: no value in 'cluster'.",)


def test_spaces_are_no_part_of_a_name_and_case_is_warned_of(tmp_path: Path) -> None:
    found = groups_of(tmp_path, {"ID": list("abcd"), "cluster": ["mild", " mild ", "Mild", "severe"]})
    assert list(found.groups.cat.categories) == ["Mild", "mild", "severe"]
    assert found.warnings == ("The groups 'Mild' and 'mild' are told apart by case alone; write them alike if they are one.",)


def test_the_hypoxic_are_compared_with_the_normoxic_unless_the_study_says_otherwise(tmp_path: Path) -> None:
    table = {"ID": list("ab"), "cluster": ["hypoxic", "normoxic"]}
    assert list(groups_of(tmp_path, table).groups.cat.categories) == ["normoxic", "hypoxic"]
    turned = groups_of(tmp_path, table, combine=[["hypoxic"], ["normoxic"]])
    assert list(turned.groups.cat.categories) == ["hypoxic", "normoxic"]


@pytest.mark.parametrize(
    ("table", "changes", "words"),
    [
        (
            {"ID": ["a"], "cluster": [1]},
            {"grouping": {"column": "clutser"}},
            "(grouping.column) is not in groups.csv (did you mean 'cluster'",
        ),
        ({"ID": ["a", "a"], "cluster": [1, 2]}, {}, "Patient 'a' is of two groups"),
        ({"ID": ["a", "b"], "cluster": [None, " "]}, {}, "Column 'cluster' (grouping.column) of groups.csv is empty in all rows"),
        ({"ID": [None, None], "cluster": [1, 2]}, {}, "Column 'ID' (grouping.patient) of groups.csv is empty in all rows"),
        ({"ID": [f"p{i}" for i in range(20)], "cluster": list(range(20))}, {}, "has 20 different values"),
        (
            {"ID": ["a", "b"], "cluster": [1, 2]},
            {"combine": [[1], [3]]},
            "combine names the group '3', which no patient is of; groups: 1, 2",
        ),
    ],
)
def test_a_column_that_is_no_grouping_is_refused(tmp_path: Path, table: dict[str, list[Any]], changes: Any, words: str) -> None:
    with pytest.raises(InputError) as refused:
        groups_of(tmp_path, table, **changes)
    assert words in str(refused.value)


def test_the_class_of_a_classifier_is_that_of_its_predictions_out_of_sample(registered: Registered) -> None:
    found = of_model(registered.store, "hypoxia-class")
    folder = registered.artifacts("hypoxia-class")
    tables = pd.concat([pd.read_csv(folder / f"{name}.csv") for name in ("predictions_internal", "predictions")])
    assert found.to_dict() == {
        patient: "hypoxic" if rows["called"].mean() >= 0.5 else "not hypoxic" for patient, rows in tables.groupby("patient")
    }
    assert len(found) == 80
    assert list(found.cat.categories) == ["not hypoxic", "hypoxic"]


def test_the_class_of_a_composite_is_that_of_its_cross_validation(registered: Registered) -> None:
    found = of_model(registered.store, "both")
    internal = pd.read_csv(registered.artifacts("both") / "predictions_internal.csv")
    assert set(found.index) == set(internal["patient"])
    assert list(found.cat.categories) == ["less hypoxic", "more hypoxic"]


def test_the_clusters_of_a_profile_are_numbered_from_one(registered: Registered) -> None:
    found = named_groups(of_model(registered.store, "profile:1"), "cluster", [[1, 2], [3]])
    assert found.to_dict() == {"p1": "clusters 1 and 2", "p2": "clusters 1 and 2", "p3": "cluster 3"}


def test_a_model_without_predictions_out_of_sample_is_refused(registered: Registered) -> None:
    with pytest.raises(InputError, match="unjudged:1 was registered without out-of-fold predictions"):
        of_model(registered.store, "unjudged")


def test_an_unknown_model_and_an_absent_store_are_refused(registered: Registered, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'profile'"):
        of_model(registered.store, "profil")
    grouping = {"kind": "model", "model": "profile"}
    asked = CorrelatesStudy.model_validate({"name": "toy", "grouping": grouping, "molecular": {"mutations": "v.maf"}})
    with pytest.raises(InputError, match="which does not exist"):
        load_groups(asked, f"sqlite:///{tmp_path}/none/mlflow.db")


@pytest.mark.parametrize(
    ("model", "file", "column"),
    [
        ("hypoxia-class", "predictions_internal.csv", "probability"),
        ("both", "predictions_internal.csv", "probability"),
        ("profile", "clusters.csv", "cluster"),
    ],
)
def test_what_was_changed_after_training_is_refused(
    registered: Registered, tmp_path: Path, model: str, file: str, column: str
) -> None:
    path = registered.artifacts(model) / file
    shutil.copy(path, tmp_path / "kept.csv")
    try:
        table = pd.read_csv(path)
        table.assign(**{column: table[column].iloc[::-1].to_numpy()}).to_csv(path, index=False)
        with pytest.raises(InputError, match=r"train (it|the model) again"):
            of_model(registered.store, model)
    finally:
        shutil.copy(tmp_path / "kept.csv", path)
    assert len(of_model(registered.store, model))
