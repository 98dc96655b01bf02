"""A study of profiles from the patients to what is said of them, where the truth is known."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from profiles_made import QUICK, binary, grouped, loaded
from sklearn.metrics import adjusted_rand_score

from features.errors import InputError
from training.profile.model import fit_profile
from training.profile.report import findings, summary_text, warnings_of
from training.profile.run import ProfileResult, described, load_profile_data, refuse_what_cannot_be_clustered, run_profile
from training.profile.study import ProfileStudy
from training.profile.tables import clusters_of_patients, named_tables, profile_json
from training.progress import Silence
from training.simulate_profiles import ProfileSimulationSettings, SimulatedProfiles, simulate_profiles
from training.studies import read_study

CONFIG = Path(__file__).parents[3] / "configs" / "profile_simulated.yaml"


@cache
def simulated(seed: int) -> SimulatedProfiles:
    return simulate_profiles(ProfileSimulationSettings(), np.random.default_rng(seed))


def shipped(folder: Path, table: pd.DataFrame, **changes: Any) -> ProfileStudy:
    """The study that ships, of the radiomic features alone."""
    body = yaml.safe_load(CONFIG.read_text()) | {"molecular": None, "evaluation": QUICK, **changes}
    body["cohort"]["source"]["path"] = "simulated.csv"
    table.to_csv(folder / "simulated.csv", index=False)
    (folder / "study.yaml").write_text(yaml.safe_dump(body))
    study = read_study(folder / "study.yaml")
    assert isinstance(study, ProfileStudy)
    return study


def ran(folder: Path, table: pd.DataFrame, cohort: dict[str, Any] | None = None, **changes: Any) -> ProfileResult:
    study, data = loaded(folder, table, cohort, **changes)
    return run_profile(study, data)


def rand_of(folder: Path, seed: int) -> float:
    made = simulated(seed)
    study = shipped(folder, made.table)
    data = load_profile_data(study)
    labels = fit_profile(study, data.cohort, study.rng("clusters")).clusters.labels
    return float(adjusted_rand_score([made.truth.clusters[name] for name in data.cohort.patients], labels))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_simulated_clusters_are_found(seed: int, tmp_path: Path) -> None:
    assert rand_of(tmp_path, seed) > 0.9


@pytest.mark.slow
def test_the_simulated_clusters_are_found_in_all_of_twenty_cohorts(tmp_path: Path) -> None:
    assert min(rand_of(tmp_path, seed) for seed in range(100, 120)) > 0.9


def test_clusters_that_follow_the_scanner_are_warned_of_and_harmonised_ones_do_not_follow_it(tmp_path: Path) -> None:
    table = simulated(1).table
    said = {}
    for name, harmonise in (("as measured", None), ("harmonised", {"kind": "regression"})):
        study = shipped(tmp_path, table, harmonise=harmonise)
        said[name] = warnings_of(run_profile(study, load_profile_data(study)))
    assert any("scanner" in words and "follow" in words for words in said["as measured"])
    assert not any("scanner" in words for words in said["harmonised"])


def test_groups_that_fare_differently_are_told_apart_from_chance_and_said_to_be(tmp_path: Path) -> None:
    result = ran(tmp_path, grouped(120, effect=2.0), combine=[[1, 2], [3]], adjust=["stage", "age"], volume="volume")
    assert result.choice.p_value <= 0.05
    assert result.choice.exploratory
    said = dict(findings(result))
    assert said["Number of clusters"].startswith("3, given.")
    assert {"Stability", "Features", "Volume", "Outcome", "Combined", "Patients left out", "Hazard ratio", "Adjusted"} <= set(
        said
    )
    assert not any("not told apart from chance" in words for words in warnings_of(result))
    assert result.evaluation.estimates["c_index"].value > 0.6


def test_of_noise_it_is_said_that_nothing_is_told_apart_from_chance(tmp_path: Path) -> None:
    result = ran(tmp_path, grouped(90, apart=0.0, effect=0.0, seed=2), combine="outcome")
    said = " ".join(warnings_of(result))
    assert result.choice.p_value > 0.05
    assert "that they fare differently is not told apart from chance" in said
    assert "does not come back when patients are drawn anew" in said
    assert "is not to be trusted" in said
    assert "only the permutation p and the estimates on patients left out can be believed" in said
    assert "The criteria disagree" in dict(findings(result))["Number of clusters"]


def test_a_number_that_was_given_and_clusters_that_were_not_combined_are_not_exploratory(tmp_path: Path) -> None:
    result = ran(tmp_path, grouped())
    assert not result.choice.exploratory
    assert "Combined" not in dict(findings(result))
    assert not any("The outcome had a say" in words for words in warnings_of(result))


def test_a_number_chosen_by_the_outcome_is_exploratory(tmp_path: Path) -> None:
    result = ran(tmp_path, grouped(60), clusters={"largest": 4, "by": "outcome"})
    assert result.chosen_by == "chosen by outcome"
    assert result.choice.exploratory
    assert result.choice.p_value >= result.choice.naive_p


def test_every_criterion_is_said_of_every_number_whoever_chose(tmp_path: Path) -> None:
    result = ran(tmp_path, grouped(40), clusters=2)
    assert result.criteria.table.index.tolist() == [1, 2, 3, 4, 5, 6]
    assert set(result.fitted.candidates) == {2}


def test_every_patient_is_in_one_cluster_and_medoids_are_their_own_nearest(tmp_path: Path) -> None:
    result = ran(tmp_path, grouped(60))
    found = clusters_of_patients(result)
    assert found["sample"].tolist() == result.cohort.samples.tolist()
    assert sorted(found["cluster"].unique()) == [1, 2, 3]
    assert found["medoid"].sum() == 3
    assert (found.loc[found["medoid"], "distance"] == 0).all()
    assert (found["margin"] >= 0).all()
    assert found["distance"].sum() == pytest.approx(result.fitted.clusters.loss)


def test_two_classes_are_compared_by_their_shares_and_have_no_curves(tmp_path: Path) -> None:
    table = grouped(120, effect=2.0)
    result = ran(tmp_path, table, binary(table), combine=[[1], [2, 3]])
    assert "roc_auc" in result.evaluation.estimates
    assert result.evaluation.estimates["roc_auc"].value > 0.6
    assert result.choice.p_value <= 0.05
    table = named_tables(result)["clusters_side_by_side"]
    assert "median_time" not in table
    assert "risk by horizon" not in summary_text(result)


def test_one_seed_gives_one_result(tmp_path: Path) -> None:
    about = {"clusters": {"largest": 4, "by": "silhouette"}, "clustering": {"method": "best"}, "combine": "outcome"}
    one, again = (ran(tmp_path, grouped(60), **about) for _ in range(2))
    assert str(profile_json(one)) == str(profile_json(again))
    pd.testing.assert_frame_equal(one.evaluation.predictions, again.evaluation.predictions)


def test_no_patient_is_named_in_what_is_printed(tmp_path: Path) -> None:
    result = ran(tmp_path, grouped(40), combine="outcome", volume="volume", harmonise={"kind": "regression"})
    assert re.findall(r"t0p\d{3}", summary_text(result) + str(profile_json(result))) == []


def test_the_columns_beside_the_features_have_the_roles_that_the_study_gave_them(tmp_path: Path) -> None:
    _, data = loaded(tmp_path, grouped(30), {"site": "site", "drop": []})
    columns, roles = described(data.cohort)
    assert list(columns) == list(roles)
    assert roles == {
        "stage": "clinical",
        "age": "clinical",
        "volume": "clinical",
        "scanner": "acquisition",
        "echo_time": "acquisition",
        "site": "site",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"volume": "volum"},
            "volume names 'volum', which is neither a feature nor under cohort.clinical (did you mean 'volume'?).",
        ),
        ({"volume": "stage"}, "volume names 'stage', which holds words; name the column with the tumour's volume."),
    ],
)
def test_a_volume_that_is_none_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        loaded(tmp_path, grouped(30), **changes)
    assert str(error.value) == said


def test_one_cluster_is_no_profile(tmp_path: Path) -> None:
    study, data = loaded(tmp_path, grouped(60, apart=0.0), clusters={"largest": 4, "by": "gap"})
    with pytest.raises(InputError, match=r"By the gap there is one cluster: no profiles are told apart from chance\. Name"):
        refuse_what_cannot_be_clustered(study, data, Silence())


def test_as_many_clusters_as_patients_allow_are_compared_all_the_same(tmp_path: Path) -> None:
    """Tables of few patients by many clusters are tested by random tables."""
    result = ran(tmp_path, grouped(30, seed=3), clusters=8)
    assert "random tables" in " ".join(result.associations.table["test"])
    assert result.associations.table["p_value"].between(0, 1).all()
