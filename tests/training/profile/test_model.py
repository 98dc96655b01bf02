"""Profiles learnt from patients: who is seen when, what is kept, and who chooses how many clusters there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles_made import binary, grouped, loaded, profile_study
from sklearn.metrics import adjusted_rand_score

from features.bundle import load_bundle, save_bundle
from features.errors import LeakError
from features.profiles import assign
from training.profile import validation
from training.profile.choice import Criteria
from training.profile.model import FittedProfile, fit_profile, number_of_clusters, outcome_of
from training.profile.record import profile_bundle, profile_card
from training.profile.run import ProfileResult, run_profile
from training.profile.validation import cross_validated, predictions_of
from training.progress import Silence

CRITERIA = ("silhouette", "calinski_harabasz", "davies_bouldin", "gap", "outcome")


def fitted(folder: Path, table: pd.DataFrame, cohort: dict[str, Any] | None = None, **changes: Any) -> FittedProfile:
    study, data = loaded(folder, table, cohort, **changes)
    return fit_profile(study, data.cohort, study.rng("clusters"))


def test_planted_groups_are_found_and_numbered_by_their_share_of_events(tmp_path: Path) -> None:
    table = grouped()
    found = fitted(tmp_path, table)
    assert adjusted_rand_score(table["group"], found.clusters.labels) == 1
    shares = [table["relapse"][found.clusters.labels == number].mean() for number in range(3)]
    assert shares == sorted(shares)
    assert shares[0] < shares[2]
    assert found.last.risks_.tolist() == sorted(found.last.risks_)  # here no censoring turns the order


def test_scores_have_mean_0_and_standard_deviation_1_over_the_patients_with_n_minus_1(tmp_path: Path) -> None:
    table = grouped()
    z, features = fitted(tmp_path, table).z, table.filter(regex="^g[0-9]")
    expected = (features - features.mean()) / features.std(ddof=1)
    np.testing.assert_allclose(z[expected.columns], expected, atol=1e-9)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    clusters=st.integers(2, 5),
    harmonise=st.sampled_from([None, {"kind": "regression"}]),
    gaps=st.booleans(),
)
def test_every_training_patient_is_given_its_own_cluster_by_the_pipeline(
    tmp_path: Path, seed: int, clusters: int, harmonise: dict[str, Any] | None, gaps: bool
) -> None:
    rng = np.random.default_rng(seed)
    table = grouped(40, 6, apart=rng.uniform(0, 3), seed=seed)
    if gaps:
        features = table.columns[table.columns.str.startswith("g0")]
        table[features] = table[features].mask(rng.random((40, len(features))) < 0.1)
    study, data = loaded(tmp_path, table, clusters=clusters, harmonise=harmonise)
    found = fit_profile(study, data.cohort, rng)
    matrix = found.matrix(data.cohort)
    assert assign(found.pipeline, matrix).cluster.tolist() == found.clusters.labels.tolist()
    one_by_one = [int(assign(found.pipeline, matrix[row : row + 1]).cluster[0]) for row in range(len(matrix))]
    assert one_by_one == found.clusters.labels.tolist()
    assert not assign(found.pipeline, matrix).unlike.any()


def test_no_left_out_patient_is_seen_by_the_profiles_that_it_is_judged_by(tmp_path: Path) -> None:
    study, data = loaded(tmp_path, grouped(), evaluation={"folds": 4, "repeats": 2, "bootstrap": 100})
    learnt, judged = [], []

    def spy(study: Any, cohort: Any, rng: np.random.Generator) -> FittedProfile:
        learnt.append(set(cohort.samples))
        return fit_profile(study, cohort, rng)

    def told(fitted: FittedProfile, cohort: Any, repeat: int, fold: int) -> pd.DataFrame:
        judged.append(set(cohort.samples))
        return predictions_of(fitted, cohort, repeat, fold)

    with patch.object(validation, "fit_profile", spy), patch.object(validation, "predictions_of", told):
        found = cross_validated(study, data.cohort, np.random.default_rng(0), Silence())
    every = set(data.cohort.samples)
    assert len(learnt) == len(judged) == 8
    assert all(not train & test and train | test == every for train, test in zip(learnt, judged, strict=True))
    assert sorted(found.predictions["sample"]) == sorted([*every, *every])


def test_what_is_left_out_does_not_move_a_fold_by_a_hair(tmp_path: Path) -> None:
    table = grouped()
    first = {"sample": "t0p000"}
    study, data = loaded(tmp_path, table)
    before = cross_validated(study, data.cohort, np.random.default_rng(0), Silence()).predictions
    fold = before.set_index("sample").loc[first["sample"], "fold"]
    table.loc[0, table.columns[table.columns.str.match("g[0-9]")]] = 1e3  # outlying, and with the same outcome
    study, data = loaded(tmp_path, table)
    after = cross_validated(study, data.cohort, np.random.default_rng(0), Silence()).predictions
    same = [one[(one["fold"] == fold) & (one["sample"] != first["sample"])].reset_index(drop=True) for one in (before, after)]
    pd.testing.assert_frame_equal(*same)
    assert not before["probability"].equals(after["probability"])


def test_a_patient_who_was_learnt_from_is_not_counted_as_left_out(tmp_path: Path) -> None:
    study, data = loaded(tmp_path, grouped(30))
    found = fit_profile(study, data.cohort, np.random.default_rng(0))
    with pytest.raises(LeakError, match="about to be counted as out of sample"):
        predictions_of(found, data.cohort.subset(data.cohort.samples[:1]), 0, 0)


def test_a_group_that_is_found_again_in_every_fold_ranks_patients_left_out_and_noise_does_not(tmp_path: Path) -> None:
    study, data = loaded(tmp_path, grouped(150, effect=2.0))
    found = cross_validated(study, data.cohort, np.random.default_rng(0), Silence()).estimates["c_index"]
    assert found.lower is not None
    assert found.lower > 0.6
    study, data = loaded(tmp_path, grouped(150, apart=0.0, effect=2.0))
    noise = cross_validated(study, data.cohort, np.random.default_rng(0), Silence()).estimates["c_index"]
    assert noise.value == pytest.approx(0.5, abs=0.12)  # one seed; its standard error is about 0.04


@pytest.mark.parametrize("by", CRITERIA)
def test_every_criterion_finds_three_planted_groups(by: str, tmp_path: Path) -> None:
    table = grouped(150, effect=2.5)
    found = fitted(tmp_path, table, clusters={"largest": 5, "by": by})
    chosen = len(found.clusters.medoids)
    assert set(found.candidates) == {1, 2, 3, 4, 5}
    if by == "outcome":  # groups that differ in outcome are told apart, whatever their number
        assert (chosen > 1, found.criteria) == (True, None)
    else:
        assert chosen == 3
        assert found.criteria is not None
        assert found.criteria.best[by] == 3
        assert adjusted_rand_score(table["group"], found.clusters.labels) == 1


def test_no_more_clusters_are_judged_than_patients_allow(tmp_path: Path) -> None:
    found = fitted(tmp_path, grouped(6, 3), clusters={"largest": 6, "by": "silhouette", "smallest": 1})
    assert max(found.candidates) == 5


def test_a_number_that_leaves_an_outlier_alone_is_not_chosen(tmp_path: Path) -> None:
    table = grouped(60, apart=2.0)
    features = [name for name in table.columns if name.startswith("g0")]
    table.loc[0, features] = 1e4
    for by in ("silhouette", "outcome"):
        found = fitted(tmp_path, table, clusters={"largest": 5, "by": by})
        assert np.bincount(found.clusters.labels).min() >= 4 or len(found.clusters.medoids) == 1
        alone = fitted(tmp_path, table, clusters={"largest": 5, "by": by, "smallest": 1})
        assert set(found.candidates) < set(alone.candidates)


def test_a_criterion_without_an_answer_finds_one_cluster(tmp_path: Path) -> None:
    study, data = loaded(tmp_path, grouped(30), clusters={"largest": 4, "by": "davies_bouldin"})
    found = fit_profile(study, data.cohort, np.random.default_rng(0))
    assert found.criteria is not None
    silent = Criteria(found.criteria.table.assign(davies_bouldin=np.nan))
    assert number_of_clusters(study, found.candidates, silent, outcome_of(data.cohort)) == 1


@pytest.mark.parametrize("method", ["pam", "best"])
def test_one_seed_gives_one_answer(method: str, tmp_path: Path) -> None:
    about = {"clustering": {"method": method}, "clusters": {"largest": 4, "by": "gap"}}
    one, again = (fitted(tmp_path, grouped(60, apart=0.8), **about) for _ in range(2))
    assert one.clusters.medoids.tolist() == again.clusters.medoids.tolist()
    assert one.clusters.labels.tolist() == again.clusters.labels.tolist()
    assert one.criteria is not None
    assert again.criteria is not None
    pd.testing.assert_frame_equal(one.criteria.table, again.criteria.table)


def test_the_order_of_the_rows_has_no_say(tmp_path: Path) -> None:
    table = grouped(60, apart=1.5)
    one = fitted(tmp_path, table)
    mixed = table.sample(frac=1, random_state=1)
    other = fitted(tmp_path, mixed)
    assert dict(zip(one.z.index, one.clusters.labels, strict=True)) == dict(
        zip(other.z.index, other.clusters.labels, strict=True)
    )


def test_a_constant_column_counts_for_nothing(tmp_path: Path) -> None:
    table = grouped(60, apart=1.0)
    plain, more = fitted(tmp_path, table), fitted(tmp_path, table.assign(g99=4.2))
    assert more.z["g99"].abs().max() < 1e-12
    assert more.clusters.labels.tolist() == plain.clusters.labels.tolist()
    assert more.clusters.loss == pytest.approx(plain.clusters.loss)


def test_gaps_are_filled_with_the_median_of_the_standard_scores(tmp_path: Path) -> None:
    table = grouped(60)
    table.loc[:4, "g03"] = np.nan
    z = fitted(tmp_path, table).z["g03"]
    assert np.isfinite(z).all()
    assert (z.iloc[:5] == z.iloc[0]).all()
    assert z.iloc[0] == pytest.approx(z.iloc[5:].median())


def test_the_scanner_is_taken_out_and_clusters_then_follow_the_groups(tmp_path: Path) -> None:
    table = grouped(90, apart=1.5, scanner=5.0)
    follow = [
        [adjusted_rand_score(table[column], one.clusters.labels) for column in ("scanner", "group")]
        for one in (
            fitted(tmp_path, table),
            fitted(tmp_path, table, harmonise={"kind": "regression"}),
            fitted(tmp_path, table, {"site": "site", "drop": []}, harmonise={"kind": "combat"}),
        )
    ]
    assert follow[0][0] > 0.9
    assert [scanner < 0.1 for scanner, _ in follow] == [False, True, True]
    assert [group > 0.9 for _, group in follow] == [False, True, True]


def test_what_harmonised_is_named_only_where_something_did(tmp_path: Path) -> None:
    table = grouped(60, scanner=3.0)
    assert fitted(tmp_path, table).harmonised is None
    regression = fitted(tmp_path, table, harmonise={"kind": "regression"}).harmonised
    assert regression is not None
    assert regression.startswith("regression on 2 acquisition parameters (")
    by_site = fitted(tmp_path, table, {"site": "site", "drop": []}, harmonise={"kind": "combat"}).harmonised
    assert by_site is not None
    assert "site" in by_site


def recorded(result: ProfileResult, folder: Path) -> Any:
    save_bundle(profile_bundle(result, profile_card(result, {})), folder, result.fitted.matrix(result.cohort)[:3])
    return load_bundle(folder)


@pytest.mark.parametrize(
    ("cohort", "changes"),
    [
        ({}, {"harmonise": {"kind": "regression"}}),
        ({"site": "site", "drop": []}, {"harmonise": {"kind": "combat"}}),
        (binary(grouped(3)), {"harmonise": None}),
    ],
    ids=["words in the protocol", "by site", "two classes"],
)
def test_a_bundle_assigns_as_training_did(cohort: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    table = grouped(60, scanner=2.0)
    table.loc[:2, "g01"] = np.nan
    study, data = loaded(tmp_path, table, cohort, **changes)
    result = run_profile(study, data)
    bundle = recorded(result, tmp_path / "bundle")
    matrix = result.fitted.matrix(data.cohort)
    found = bundle.assigned(matrix)
    assert found.cluster.tolist() == result.fitted.clusters.labels.tolist()
    np.testing.assert_array_equal(bundle.score(matrix), result.fitted.risks(data.cohort))
    card = bundle.card.profile
    assert [one.number for one in card.clusters] == [1, 2, 3]
    assert [one.patients for one in card.clusters] == np.bincount(found.cluster).tolist()
    assert [one.events for one in card.clusters] == [int(data.cohort.y[found.cluster == one].sum()) for one in range(3)]
    assert (bundle.card.horizon is None) == ("endpoint" in cohort)
    assert bundle.card.judged_out_of_fold


def test_of_two_classes_the_risk_of_a_cluster_is_its_share_of_events(tmp_path: Path) -> None:
    table = grouped(90)
    found = fitted(tmp_path, table, binary(table))
    shares = [table["relapse"][found.clusters.labels == number].mean() for number in range(3)]
    assert found.last.risks_.tolist() == pytest.approx(shares)
    assert found.threshold == pytest.approx(table["relapse"].mean())


def test_the_study_file_of_the_tests_is_one_that_a_user_would_write(tmp_path: Path) -> None:
    assert "group:" not in profile_study(tmp_path, grouped(9)).read_text()
    assert "group" not in pd.read_csv(tmp_path / "grouped.csv").columns
