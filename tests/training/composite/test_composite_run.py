"""A composite's study as a whole: one set of folds, nothing learnt from whom it judges, and chance called chance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from survival_made import FEW, composite_study, two_biomarkers

from features.errors import InputError
from features.signatures import find_signature
from training.composite.biomarkers import MeasuredBiomarkers
from training.composite.record import composite_card, composite_json
from training.composite.report import composite_figures, findings, rule_rows, summary_text, warnings_of
from training.composite.run import (
    CompositeResult,
    biomarker_data,
    outcome_of,
    refuse_what_cannot_be_joined,
    rules_of,
    run_composite,
)
from training.composite.study import CompositeStudy
from training.composite.train import load_biomarkers
from training.studies import read_study
from training.survival.cox import hazard_ratio

SIX = find_signature("fjeldbo2016").genes
NOWHERE = "sqlite:///nowhere/mlflow.db"
GENES = {"kind": "column", "column": "gene_score"}


def measured(folder: Path, table: pd.DataFrame | None = None, **changes: Any) -> MeasuredBiomarkers:
    study = read_study(composite_study(folder, two_biomarkers() if table is None else table, **changes))
    assert isinstance(study, CompositeStudy)
    return load_biomarkers(study, NOWHERE)


def result_of(folder: Path, table: pd.DataFrame | None = None, **changes: Any) -> CompositeResult:
    found = measured(folder, table, **changes)
    return run_composite(found.study, found)


def sides(result: CompositeResult) -> np.ndarray:
    return np.asarray(result.chosen.fitted.rule.transform(result.biomarkers.to_numpy())[:, 0] >= 0)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> CompositeResult:
    """A separating line on 90 simulated patients, clinical covariates, and a cutoff of the genes."""
    folder = tmp_path_factory.mktemp("composite")
    return result_of(folder, cohort={"clinical": ["stage", "age"]}, genes={**GENES, "cutoff": 0})


def test_every_rule_is_judged_in_the_same_folds_by_what_the_other_folds_taught(found: CompositeResult) -> None:
    assert list(found.rules) == [
        "separating_line",
        "cox",
        "both_high",
        "imaging_alone",
        "genes_alone",
        "both_high_given_cutoffs",
    ]
    assert found.folds.shape == (2, 90)
    data, values = biomarker_data(found.study, found.measured), found.biomarkers.to_numpy()
    for fold_of, number in zip(found.folds, range(2), strict=True):
        for fold in range(3):
            out = fold_of == fold
            for rule in found.rules.values():
                fitted = data.fit(rule.rule, np.flatnonzero(~out))
                expected = fitted.rule.transform(values[out])[:, 0]
                np.testing.assert_allclose(rule.out_of_fold.scores[number, out], expected, atol=1e-12)


def test_the_apparent_hazard_ratio_is_that_of_the_patients_the_line_was_chosen_on(found: CompositeResult) -> None:
    expected = hazard_ratio(*outcome_of(found.cohort), sides(found)).value
    assert found.chosen.apparent.hazard_ratio.value == pytest.approx(expected)
    assert found.chosen.out_of_fold.median < expected


def test_predictions_are_out_of_fold_and_every_patient_is_there_once_per_repeat(found: CompositeResult) -> None:
    predictions = found.evaluation.predictions
    assert len(predictions) == 180
    assert predictions.groupby("repeat")["patient"].nunique().tolist() == [90, 90]
    for repeat, one in predictions.groupby("repeat"):
        np.testing.assert_array_equal(one["score"], found.chosen.out_of_fold.scores[repeat])
        np.testing.assert_array_equal(one["fold"], found.folds[repeat])
    assert (predictions["called"] == (predictions["score"] >= 0)).all()
    assert (predictions["called"] == (predictions["probability"] >= predictions["threshold"])).all()  # the risk rises with it
    np.testing.assert_allclose(predictions["time"][:90], two_biomarkers()["pfs_months"].clip(upper=60))


def test_machines_are_told_what_is_selected_and_biased(found: CompositeResult) -> None:
    told = composite_json(found)
    assert set(told["rules"]) == set(found.rules)
    for rule in told["rules"].values():
        assert rule["apparent_selected_and_biased"]["value"] > 0
        assert {"hazard_ratio_median", "hazard_ratio_range_over_repeats", "c_index"} <= set(rule["cross_validated"])
        assert not any("apparent" in name and "biased" not in name for name in rule)
    assert told["permutation"]["naive_p_not_to_be_used"] < told["permutation"]["p_value"]
    assert told["permutation"]["p_value"] >= told["permutation"]["floor"] == 0.01
    assert "bootstrap_corrected_hazard_ratio_still_too_high" in told["stability"]
    assert set(told["cutpoints"]) == {"hypoxic_fraction", "gene_score"}
    assert {"both", "genes_only", "neither", "imaging_only", "kappa", "spearman"} <= set(told["groups"])
    assert told["prognosis"]["added_value"]["p_value"] < 0.05
    assert set(told["added_over_each_biomarker"]) == {"hypoxic_fraction", "gene_score"}


def test_readers_are_told_it_too(found: CompositeResult) -> None:
    text = summary_text(found)
    assert "(SELECTED AND BIASED)" in text
    assert "not to be used" in text
    assert any("selected from" in warning and "biased" in warning for warning in warnings_of(found))
    assert len(rule_rows(found)) == 6
    for title in ("Permutation of the whole search", "Stability over bootstrap resamples", "Four groups"):
        assert title in dict(findings(found))


def test_the_card_is_judged_out_of_fold_and_says_so(found: CompositeResult) -> None:
    card = composite_card(found)
    assert card.held_out == {}
    assert card.held_out_patients == 0
    assert card.internal is not None
    typical = found.chosen.out_of_fold.hazard_ratios[found.chosen.out_of_fold.typical]
    assert card.internal["hazard_ratio"].value == typical.value
    assert card.internal["c_index"].value == pytest.approx(found.chosen.out_of_fold.concordance, abs=0.02)
    assert card.composite is not None
    assert card.composite.theta_degrees is not None
    assert [part.name for part in card.composite.parts] == ["hypoxic_fraction", "gene_score"]
    line = found.chosen.fitted.rule.line
    x, y = (np.cos(np.radians(card.composite.theta_degrees)), np.sin(np.radians(card.composite.theta_degrees)))
    score = found.biomarkers.to_numpy() @ [x, y] - card.composite.offset
    np.testing.assert_array_equal(score >= -1e-12, sides(found))  # in raw units it gives every patient's side
    assert card.composite.offset == line.offset


def test_the_pipeline_gives_every_patients_side_and_a_risk_that_rises_with_the_score(found: CompositeResult) -> None:
    values = found.biomarkers.to_numpy()
    score = found.pipeline[:-1].transform(values)[:, 0]
    np.testing.assert_array_equal(score >= 0, sides(found))
    risk = found.pipeline.predict_proba(values)[:, 1]
    assert (np.diff(risk[np.argsort(score)]) >= 0).all()
    threshold = found.evaluation.predictions["threshold"].iloc[0]
    np.testing.assert_array_equal(risk >= threshold, score >= 0)


def test_the_groups_are_by_the_cutoffs_known_beforehand(found: CompositeResult) -> None:
    table = two_biomarkers()
    imaging, genes = table["hypoxic_fraction"] >= 0.27, table["gene_score"] >= 0
    assert found.groups.table.both == (imaging & genes).sum()
    assert found.groups.table.neither == (~imaging & ~genes).sum()
    given = found.rules["both_high_given_cutoffs"]
    np.testing.assert_array_equal(
        given.fitted.rule.transform(table[list(found.study.names)].to_numpy())[:, 0] >= 0, imaging & genes
    )
    assert given.fitted.splits_searched == 1


def test_every_figure_is_drawn(found: CompositeResult) -> None:
    figures = composite_figures(found)
    assert {"kaplan_meier_cross_validated", "kaplan_meier_apparent", "four_groups", "correlation", "permutations"} <= set(figures)
    for draw in figures.values():
        assert draw().axes


def test_the_same_study_gives_the_same_again(found: CompositeResult) -> None:
    again = run_composite(found.study, found.measured)
    pd.testing.assert_frame_equal(again.evaluation.predictions, found.evaluation.predictions, check_exact=True)
    np.testing.assert_array_equal(again.permutation.null, found.permutation.null)
    assert again.evaluation.estimates == found.evaluation.estimates


def test_a_biomarker_that_is_lower_in_hypoxia_gives_the_mirrored_line(tmp_path: Path) -> None:
    table = two_biomarkers()
    up = result_of(tmp_path, table)
    down = result_of(tmp_path, table.assign(gene_score=-table["gene_score"]), genes={**GENES, "hypoxic": "lower"})
    np.testing.assert_array_equal(sides(up), sides(down))
    assert down.chosen.apparent.hazard_ratio.value == pytest.approx(up.chosen.apparent.hazard_ratio.value)
    np.testing.assert_allclose(down.chosen.fitted.rule.coefficients_ * [1, -1], up.chosen.fitted.rule.coefficients_, atol=1e-9)
    assert down.correlation.value == pytest.approx(up.correlation.value)
    assert down.cutpoints["gene_score"].statistic == pytest.approx(up.cutpoints["gene_score"].statistic)
    assert (
        "at most"
        in dict(findings(result_of(tmp_path, table, genes={**GENES, "hypoxic": "lower"}, composite={"kind": "both_high"})))[
            "Rule"
        ]
    )


def test_a_biomarker_said_the_wrong_way_round_is_not_turned_by_the_outcome(tmp_path: Path) -> None:
    table = two_biomarkers(120, events=60, effect=2.5)
    turned = result_of(tmp_path, table.assign(gene_score=-table["gene_score"], hypoxic_fraction=1 - table["hypoxic_fraction"]))
    assert turned.permutation.p_value > 0.5
    assert turned.evaluation.estimates["c_index"].value <= 0.5
    risk = turned.pipeline.predict_proba(turned.biomarkers.to_numpy())[:, 1]
    score = turned.pipeline[:-1].transform(turned.biomarkers.to_numpy())[:, 0]
    assert (np.diff(risk[np.argsort(score)]) >= 0).all()


def test_noise_is_not_told_apart_from_chance_and_the_report_says_so(tmp_path: Path) -> None:
    p_values, naive, concordances = [], [], []
    for seed in range(6):
        noise = result_of(tmp_path, two_biomarkers(80, events=32, effect=1.0, seed=seed))
        p_values.append(noise.permutation.p_value)
        naive.append(noise.permutation.naive_p)
        concordances.append(noise.evaluation.estimates["c_index"].value)
        assert any("not told apart from chance" in one for one in warnings_of(noise)) == (noise.permutation.p_value > 0.05)
    assert sum(p > 0.05 for p in p_values) >= 5
    assert np.median(naive) < np.median(p_values)
    assert np.mean(concordances) < 0.57


@pytest.mark.parametrize("kind", ["cox", "both_high", "alone"])
def test_every_rule_can_be_the_studys_own(kind: str, tmp_path: Path) -> None:
    rule = {"kind": kind, "minimum_share": 0.2, **({"which": "genes"} if kind == "alone" else {})}
    result = result_of(tmp_path, composite=rule)
    assert next(iter(result.rules)) == {"alone": "genes_alone"}.get(kind, kind)
    assert len(result.rules) == 5
    assert min(min(one.fitted.patients) for name, one in result.rules.items()) >= 18
    assert composite_card(result).composite.rule == next(iter(result.rules))
    assert composite_figures(result)["hazard_ratios"]().axes


def with_six_genes(n: int = 70) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    table = two_biomarkers(n, events=32)
    genes = rng.normal(8, 1, size=(n, 6)) + table["gene_score"].to_numpy()[:, None]
    return table.drop(columns=["gene_score", "stage", "age"]).join(pd.DataFrame(genes.round(3), columns=list(SIX)))


SIGNATURE = {"genes": {"kind": "signature", "signature": "fjeldbo2016", "method": "mean_z"}}


def test_a_signatures_reference_values_are_learnt_anew_in_every_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[frozenset[int]] = []
    original = MeasuredBiomarkers.signature
    monkeypatch.setattr(
        MeasuredBiomarkers,
        "signature",
        lambda self, one, rows: seen.append(frozenset(rows.tolist())) or original(self, one, rows),
    )
    result = result_of(tmp_path, with_six_genes(), **SIGNATURE)
    for fold_of in result.folds:
        for fold in range(3):
            assert frozenset(np.flatnonzero(fold_of != fold).tolist()) in seen


def test_a_patient_who_is_judged_changes_nothing_of_the_signature_by_which(tmp_path: Path) -> None:
    plain = measured(tmp_path, with_six_genes(), **SIGNATURE)
    out = np.arange(0, 70, 3)
    rest = np.setdiff1d(np.arange(70), out)
    table = with_six_genes()
    table.loc[out, list(SIX)] += 30
    spoilt = measured(tmp_path, table, **SIGNATURE)
    np.testing.assert_array_equal(plain.learnt_from(rest)[rest], spoilt.learnt_from(rest)[rest])


def test_patients_with_one_biomarker_are_judged_by_it_where_the_study_says_so(tmp_path: Path) -> None:
    table = two_biomarkers()
    table.loc[:4, "hypoxic_fraction"] = np.nan
    table.loc[5:9, "gene_score"] = np.nan
    result = result_of(tmp_path, table, missing="alone")
    assert len(result.cohort.samples) == 90
    score = result.pipeline[:-1].transform(result.biomarkers.to_numpy())[:, 0]
    assert np.isfinite(score).all()
    assert not np.isnan(result.chosen.out_of_fold.scores).any()
    assert result.groups.table.both + result.groups.table.neither <= 80
    by_genes = table["gene_score"][:5].to_numpy()
    assert (np.argsort(score[:5]) == np.argsort(by_genes)).all()
    assert composite_card(result).composite.missing == "alone"
    for draw in composite_figures(result).values():
        assert draw().axes


def test_a_rule_that_is_there_for_comparison_only_may_be_impossible_and_is_told(tmp_path: Path) -> None:
    # Nobody has so high a hypoxic fraction, so that the rule of the given cutoffs puts all on one side.
    result = result_of(tmp_path, imaging={"kind": "hypoxic_fraction", "cutoff": 0.999}, genes={**GENES, "cutoff": 0})
    assert "both_high_given_cutoffs" not in result.rules
    assert any(one.startswith("No comparison with both high given cutoffs: All 90 patients") for one in warnings_of(result))


def test_what_cannot_be_joined_is_refused_before_a_run_is_started(tmp_path: Path) -> None:
    few = measured(tmp_path, two_biomarkers(40, events=8), evaluation={**FEW, "folds": 20})
    with pytest.raises(InputError, match=r"fewer than the 20 folds \(evaluation.folds\)"):
        refuse_what_cannot_be_joined(few.study, few)
    small = measured(tmp_path, two_biomarkers(40, events=20), composite={"kind": "separating_line", "minimum_patients": 25})
    with pytest.raises(InputError, match="No split by separating_line leaves 25 of 40 patients on each side"):
        refuse_what_cannot_be_joined(small.study, small)


def test_folds_too_small_to_learn_a_rule_from_are_refused(tmp_path: Path) -> None:
    small = measured(tmp_path, two_biomarkers(25, events=15))
    with pytest.raises(InputError, match=r"learnt from about 16 patients .* too few for 10 patients on each side"):
        refuse_what_cannot_be_joined(small.study, small)
    few = two_biomarkers().assign(progressed=(np.arange(90) < 6).astype(int), pfs_months=np.arange(90) % 50 + 1.0)
    rare = measured(tmp_path, few)
    with pytest.raises(InputError, match="with 4 events, too few"):
        refuse_what_cannot_be_joined(rare.study, rare)


def test_a_hazard_ratio_of_given_cutoffs_is_not_called_selected_in_the_warnings(tmp_path: Path) -> None:
    result = result_of(tmp_path, composite={"kind": "both_high", "cutoffs": [0.27, 0.0]})
    assert result.chosen.fitted.splits_searched == 1
    assert not any("was selected from" in warning for warning in warnings_of(result))


def test_competing_events_are_counted_as_such(tmp_path: Path) -> None:
    table = two_biomarkers()
    table.loc[(table["progressed"] == 0) & (table.index % 4 == 0), "progressed"] = 2
    endpoint = {"kind": "survival", "time": "pfs_months", "event": "progressed", "horizon": 60, "competing": [2]}
    result = result_of(tmp_path, table, cohort={"endpoint": endpoint})
    assert set(result.prognosis.states) == {"high risk", "low risk"}
    assert "cumulative_incidence" in composite_figures(result)


def test_limits_on_the_size_of_a_group_are_those_of_every_rule(found: CompositeResult) -> None:
    study = found.study.model_copy(update={"composite": found.study.composite.model_copy(update={"minimum_patients": 17})})
    measured_so = replace(found.measured, study=study)
    assert {rule.minimum_patients for rule in rules_of(study, measured_so).values()} == {17}


def test_a_percentage_is_no_hypoxic_fraction(tmp_path: Path) -> None:
    table = two_biomarkers()
    with pytest.raises(InputError, match=r"is a hypoxic fraction, from 0 to 1, and holds .*; divide percentages by 100"):
        measured(tmp_path, table.assign(hypoxic_fraction=table["hypoxic_fraction"] * 100))


def test_a_biomarker_that_nobody_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'gene_score' has no value in any patient"):
        measured(tmp_path, two_biomarkers().assign(gene_score=np.nan))


def test_a_direction_that_the_outcome_contradicts_and_patients_with_one_biomarker_are_said(tmp_path: Path) -> None:
    table = two_biomarkers(effect=2.5)
    table["gene_score"] = -table["gene_score"]  # so that lower is more hypoxic, which the study does not say
    table.loc[:6, "hypoxic_fraction"] = np.nan
    said = warnings_of(result_of(tmp_path, table, missing="alone"))
    assert any(warning.startswith("By 'gene_score' alone the patients called more hypoxic do better") for warning in said)
    assert not any(warning.startswith("By 'hypoxic_fraction' alone") for warning in said)
    assert any(warning.startswith("7 of 90 patients lack one biomarker") for warning in said)


def test_the_four_groups_say_their_cutoffs_and_where_these_are_from(found: CompositeResult) -> None:
    words = dict(findings(found))["Four groups"]
    assert "hypoxic_fraction at 0.27 (given) and gene_score at 0 (given)" in words
