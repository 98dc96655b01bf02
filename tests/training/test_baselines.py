"""A recipe against published signatures: the same patients in the same folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from asked import ask
from survival_made import followed, survival_study

from features.cohort import Cohort
from features.errors import InputError
from features.signatures import find_signature
from training.baselines import baseline_names, measured_against, paired_differences, signature_baselines, with_features
from training.config import Study, load_study
from training.evaluation import Evaluation, validate_internally
from training.run import draw_held_out, load_cohorts
from training.workers import Workers

HERE = Workers(isolated=False)
GENES = find_signature("buffa2010_15").genes


def table(p: int = 15, seed: int = 0) -> pd.DataFrame:
    """Expression of the signature's genes, the first three of which raise the hazard."""
    frame = followed(90, p=p, signal=1.5, seed=seed)
    return frame.rename(columns=dict(zip([f"g{number:02d}" for number in range(p)], GENES, strict=False)))


def judged(folder: Path, frame: pd.DataFrame, **changes: Any) -> tuple[Study, Cohort, Evaluation]:
    study = load_study(survival_study(folder, frame, **changes))
    cohort = load_cohorts(study)[""]
    return study, cohort, validate_internally(study.recipe, cohort, study.evaluation, study.rng("internal"), HERE)


def test_signatures_with_half_of_their_genes_are_baselines_but_for_those_learnt_from_a_label(tmp_path: Path) -> None:
    study = load_study(survival_study(tmp_path, table()))
    assert baseline_names(study, load_cohorts(study)[""]) == ["buffa2010_15"]
    six = table(p=6).rename(columns=dict(zip(GENES, find_signature("fjeldbo2016").genes, strict=False)))
    assert baseline_names(study, load_cohorts(load_study(survival_study(tmp_path, six)))[""]) == []


def test_a_signature_is_no_baseline_of_itself(tmp_path: Path) -> None:
    study = load_study(survival_study(tmp_path, table(), recipe={"signature": {"signature": "buffa2010_15"}}))
    assert baseline_names(study, load_cohorts(study)[""]) == []


def test_a_named_baseline_without_its_genes_is_refused_before_anything_is_learnt(tmp_path: Path) -> None:
    study = load_study(survival_study(tmp_path, table(), baselines=["winter2007"]))
    with pytest.raises(InputError, match="Winter"):
        draw_held_out(study, load_cohorts(study))


def test_it_is_judged_in_the_folds_of_the_recipe_and_the_difference_is_that_of_the_estimates(tmp_path: Path) -> None:
    study, cohort, own = judged(tmp_path, table())
    found = signature_baselines(study, cohort, own, HERE)["buffa2010_15"]
    keys = ["repeat", "fold", "sample"]
    both = [one.predictions.sort_values(keys)[keys].reset_index(drop=True) for one in (own, found.evaluation)]
    pd.testing.assert_frame_equal(*both)
    for name, difference in found.difference.items():
        one, other = own.estimates[name].value, found.evaluation.estimates[name].value
        if one is not None and other is not None:
            assert difference.value == pytest.approx(one - other, abs=1e-12), name
    assert found.difference["c_index"].lower < found.difference["c_index"].value < found.difference["c_index"].upper


def test_a_recipe_does_not_differ_from_itself_and_does_from_what_has_no_part_of_the_signal(tmp_path: Path) -> None:
    study, cohort, own = judged(tmp_path, table())
    same = paired_differences(study, own, own)["c_index"]
    assert (same.value, same.lower, same.upper) == (0, 0, 0)
    noise = measured_against(study, study.recipe, with_features(cohort, list(GENES[8:])), own, HERE)
    assert noise.difference["c_index"].lower > 0
    assert noise.evaluation.estimates["c_index"].value < own.estimates["c_index"].value


def test_check_tells_the_genes_that_a_signature_lacks_and_warns_where_they_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {"signature": {"signature": "buffa2010_15"}}
    full = ask(monkeypatch, capsys, "check", str(survival_study(tmp_path, table(), recipe=recipe)))
    assert full.code == 0
    assert "buffa2010_15: 15 of 15 genes" in full.err
    fewer = table().drop(columns=list(GENES[:5]))
    some = ask(monkeypatch, capsys, "check", str(survival_study(tmp_path, fewer, recipe=recipe)))
    assert f"buffa2010_15: 10 of 15 genes; missing: {', '.join(GENES[:5])}" in " ".join(some.err.split())
    assert "Warning: " in some.err
