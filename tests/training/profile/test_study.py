"""What the YAML file of a study of profiles can say, and the sentence where it says what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from profiles_made import CLASSES, grouped, profile_study
from pydantic import ValidationError

from features.errors import InputError
from training.profile.study import JudgedClusters, ProfileStudy
from training.studies import read_study

PUBLISHED = """
name: cervix
kind: profile
seed: 7
cohort:
  source: {kind: table, path: radiomics.csv, sample: patient}
  endpoint: {kind: survival, time: months, event: relapse, horizon: 60}
  acquisition: [scanner, echo_time]
  clinical: [stage, age]
harmonise: {kind: regression}
clustering: {method: pam, starts: 50}
clusters: 3
combine: [[1, 2], [3]]
adjust: [stage, age]
volume: t2w_original_shape_VoxelVolume
stage: stage
ranking: {strong: 1.85, moderate: 1.5}
molecular: {mutations: profile.maf}
evaluation: {resamples: 200, references: 50, permutations: 999, folds: 5, repeats: 5, bootstrap: 1000, level: 0.95}
model: cervix-profiles
"""


def published(**changes: Any) -> ProfileStudy:
    return ProfileStudy.model_validate(yaml.safe_load(PUBLISHED) | changes)


def refusal(folder: Path, cohort: dict[str, Any] | None = None, **changes: Any) -> str:
    """What is said of a study, which is one line."""
    text = yaml.safe_load(PUBLISHED)
    text["cohort"] |= cohort or {}
    (folder / "study.yaml").write_text(yaml.safe_dump(text | changes))
    with pytest.raises(InputError) as error:
        read_study(folder / "study.yaml")
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{folder / 'study.yaml'}: ")


def test_the_published_study_says_what_it_says() -> None:
    study = published()
    assert (study.clusters, study.combine, study.adjust) == (3, ((1, 2), (3,)), ("stage", "age"))
    assert (study.clustering.method, study.ranking.strong, study.ranking.moderate) == ("pam", 1.85, 1.5)
    assert study.largest == 3
    assert not study.chosen_by_outcome


def test_the_shortest_study_lets_the_silhouette_choose_among_one_to_six() -> None:
    body = {key: yaml.safe_load(PUBLISHED)[key] for key in ("name", "kind", "cohort", "model")}
    study = ProfileStudy.model_validate(body)
    assert study.clusters == JudgedClusters(largest=6, by="silhouette")
    assert (study.clustering.method, study.combine, study.harmonise, study.molecular) == ("pam", None, None, None)
    assert study.evaluation == published().evaluation
    assert study.ranking == published().ranking


def test_a_study_written_as_yaml_and_read_again_is_the_same_study() -> None:
    for study in (published(), published(clusters={"largest": 5, "by": "gap"}, combine="outcome")):
        again = ProfileStudy.model_validate(yaml.safe_load(yaml.safe_dump(study.model_dump(mode="json"))))
        assert again == study
        assert again.fingerprint == study.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"harmonise": {"kind": "combat"}},
        {"harmonise": None},
        {"clustering": {"method": "best", "starts": 50}},
        {"clustering": {"method": "pam", "starts": 40}},
        {"clusters": 4},
        {"clusters": {"largest": 6, "by": "outcome"}, "combine": "outcome"},
        {"combine": None},
        {"combine": [[1], [2, 3]]},
        {"adjust": ["stage"]},
        {"volume": None},
        {"stage": None},
        {"ranking": {"strong": 2.0, "moderate": 1.5}},
        {"molecular": None},
        {"evaluation": {"repeats": 4}},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_what_decides_the_result(change: dict[str, Any]) -> None:
    assert published(**change).fingerprint != published().fingerprint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adjust": ["grade"]}, "adjust names 'grade', which is not under cohort.clinical (stage, age); name it there too"),
        ({"stage": "FIGO"}, "stage names 'FIGO', which is not under cohort.clinical (stage, age)"),
        ({"combine": [[1, 2], [4]]}, "combine"),
        ({"combine": [[1, 2], [2, 3]]}, "combine"),
        ({"combine": [[1, 2, 3]]}, "combine"),
        ({"combine": [[0, 1], [2]]}, "combine"),
        (
            {"clusters": {"largest": 4, "by": "outcome"}},
            "combine names clusters while the outcome chooses their number (clusters.by: outcome); give the number, or set "
            "combine: outcome",
        ),
        ({"scores": {"hypoxia": "other-model"}}, "scores: a profile is of the features of its table alone; take scores out"),
        ({"clusters": 1}, "clusters (it is 1): should be greater than or equal to 2"),
        ({"clusters": 21}, "clusters (it is 21): should be less than or equal to 20"),
        ({"clusters": "three"}, "clusters (it is 'three'): should be a valid integer"),
        ({"clusters": {"by": "silhouete"}}, "clusters.by (it is 'silhouete'): should be 'silhouette', 'calinski_harabasz'"),
        ({"clusters": {"largest": 1}}, "clusters.largest (it is 1): should be greater than or equal to 2"),
        ({"clusters": {"lagest": 6}}, "unknown key 'clusters.lagest' (did you mean 'largest'?)"),
        ({"clustering": {"method": "kmeans"}}, "'pam' or 'best'"),
        ({"ranking": {"strong": 1.0, "moderate": 1.5}}, "strong (1) must be above moderate (1.5)"),
        ({"evaluation": {"permutations": 9}}, "evaluation.permutations (it is 9)"),
        ({"harmonize": {"kind": "regression"}}, "did you mean 'harmonise'"),
        ({"recipe": {}}, "unknown key 'recipe'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_in_one_sentence(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, **changes)


def test_a_profile_has_one_table_and_an_outcome(tmp_path: Path) -> None:
    sequences = refusal(tmp_path, {"sequences": {"adc": "adc.csv"}})
    assert "cohort.sequences: a profile has one table; join its files under cohort.source.path" in sequences
    signature = {"endpoint": {"kind": "signature", "signature": "buffa2010"}}
    assert "cohort.endpoint.kind must be survival or binary for a profile" in refusal(tmp_path, signature)
    assert "(none)" in refusal(tmp_path, {"clinical": []}, stage=None)


def test_a_combination_is_of_as_many_clusters_as_there_can_be() -> None:
    assert published(clusters={"largest": 3, "by": "gap"}).largest == 3
    with pytest.raises(ValidationError, match="combine"):
        published(clusters=2)


def test_classes_need_no_time(tmp_path: Path) -> None:
    study = read_study(profile_study(tmp_path, grouped(9), {"endpoint": CLASSES}))
    assert study.cohort.endpoint.columns == ("relapse",)
