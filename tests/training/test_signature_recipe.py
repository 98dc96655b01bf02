"""A published signature as a model: its genes, its stored reference, and a probability that is not fooled by its own fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.metrics import roc_auc_score

from features.errors import InputError
from features.outcome import survival_outcome
from features.signatures import Method, find_signature, median_vote_score
from training.signature_recipe import SignatureRecipe, fit_signature

SIX = find_signature("fjeldbo2016").genes
TRUSTED = ["features.signature_scores.SignatureScore", "features.risk.CoxRisk"]


def tumours(n: int = 60, effect: float = 1.0, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """The six genes, 150 others, an imaging feature and a word; the label."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.4).astype(int)
    table = pd.DataFrame(rng.normal(8, 1, (n, 6)) + effect * y[:, None], columns=list(SIX))
    others = pd.DataFrame(rng.normal(8, 1, (n, 150)), columns=[f"ZNF{number}" for number in range(200, 350)])
    return pd.concat([table, others], axis=1).assign(t2w_glcm_contrast=rng.normal(size=n), stage="IIB"), y


def lifetimes(score: np.ndarray, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time, censored = rng.exponential(30 * np.exp(-score)), rng.uniform(10, 80, len(score))
    return survival_outcome(np.minimum(time, censored), time <= censored)


@pytest.mark.parametrize("method", ["votes", "mean_z", "centroid", "diagonal_lda", "ridge_logistic"])
def test_the_probability_rises_with_the_score_and_the_classifiers_cut_at_0(method: Method) -> None:
    table, y = tumours()
    fitted = fit_signature(SignatureRecipe(signature="fjeldbo2016", method=method), table, y)
    assert fitted.columns == SIX
    X = table[list(fitted.columns)].to_numpy()
    score, probability = fitted.pipeline[:-1].transform(X)[:, 0], fitted.pipeline.predict_proba(X)[:, 1]
    order = np.argsort(score)
    assert (np.diff(probability[order]) >= 0).all()
    assert roc_auc_score(y, score) > 0.8
    assert fitted.cutoff == (np.median(score) if method in ("votes", "mean_z") else 0)


def test_a_survival_outcome_gives_the_risk_by_the_horizon() -> None:
    table, _ = tumours(120)
    y = lifetimes(table[list(SIX)].mean(axis=1).to_numpy() - 8)
    early, late = (fit_signature(SignatureRecipe(signature="fjeldbo2016", method="mean_z"), table, y, at) for at in (6, 24))
    X = table[list(SIX)].to_numpy()
    score, risk = late.pipeline[:-1].transform(X)[:, 0], late.pipeline.predict_proba(X)[:, 1]
    assert (np.diff(risk[np.argsort(score)]) >= 0).all()
    assert (risk > early.pipeline.predict_proba(X)[:, 1]).all()
    assert roc_auc_score(y["event"] & (y["time"] <= 24), risk) > 0.6


def test_a_classifier_is_refused_where_the_endpoint_is_survival() -> None:
    table, _ = tumours()
    with pytest.raises(InputError, match=r"fitted from an imaging label \(binary endpoint\), and this endpoint is survival"):
        fit_signature(SignatureRecipe(signature="fjeldbo2016"), table, lifetimes(np.zeros(60)), 24)


def test_a_score_of_noise_does_not_get_a_sure_probability_from_its_own_samples() -> None:
    spreads, in_sample = [], []
    for seed in range(8):
        table, y = tumours(40, effect=0.0, seed=seed)
        fitted = fit_signature(SignatureRecipe(signature="fjeldbo2016"), table, y)
        X = table[list(SIX)].to_numpy()
        own = np.clip(fitted.pipeline.predict_proba(X)[:, 1], 1e-9, 1 - 1e-9)
        spreads.append(np.std(own))
        in_sample.append(roc_auc_score(y, fitted.pipeline[:-1].transform(X)[:, 0]))
    assert np.median(in_sample) > 0.65  # the score itself looks good on what it was learnt from
    assert np.median(spreads) < 0.15  # what is said of it does not


def test_the_probability_never_falls_as_a_learnt_score_rises() -> None:
    slopes = []
    for seed in range(8):
        table, y = tumours(40, effect=0.0, seed=seed)
        fitted = fit_signature(SignatureRecipe(signature="fjeldbo2016"), table, y)
        low, high = fitted.pipeline[-1].predict_proba([[-5.0], [5.0]])[:, 1]
        slopes.append(high - low)
        assert high > low or low == pytest.approx(y.mean(), abs=1e-4)
    assert min(slopes) == 0 < max(slopes)  # both happen among cohorts of noise


def test_patients_with_several_samples_are_left_out_together() -> None:
    table, y = tumours(30, effect=0.0)
    twice, labels = pd.concat([table] * 4, ignore_index=True), np.tile(y, 4)
    patients = np.tile(np.arange(30), 4)
    recipe = SignatureRecipe(signature="fjeldbo2016", method="ridge_logistic", penalty=0.01)
    X = table[list(SIX)].to_numpy()
    alone, together = (
        np.std(fit_signature(recipe, twice, labels, groups=groups).pipeline.predict_proba(X)[:, 1]) for groups in (None, patients)
    )
    assert together < 0.7 * alone


def test_too_few_patients_of_a_kind_are_refused_in_a_sentence() -> None:
    table, _ = tumours()
    y = (np.arange(60) < 2).astype(int)
    with pytest.raises(InputError, match=r"of one kind there are 2, fewer than 3; use method: votes"):
        fit_signature(SignatureRecipe(signature="fjeldbo2016"), table, y)


def test_ssgsea_takes_all_genes_and_nothing_else() -> None:
    table, y = tumours()
    fitted = fit_signature(SignatureRecipe(signature="fjeldbo2016", method="ssgsea"), table.assign(ZNF300=np.nan), y)
    assert set(SIX) < set(fitted.columns)
    assert not {"t2w_glcm_contrast", "stage", "ZNF300"} & set(fitted.columns)
    X = table[list(fitted.columns)].to_numpy()
    score = fitted.pipeline[:-1].transform(X)[:, 0]
    assert np.ptp(score) == pytest.approx(1, abs=1e-9)
    assert roc_auc_score(y, score) > 0.8
    with pytest.raises(InputError, match=r"the table has 3; at least 100 are needed\. Use method: votes"):
        fit_signature(SignatureRecipe(signature="fjeldbo2016", method="ssgsea"), table.iloc[:, :9], y)


def test_genes_are_found_under_old_names_and_a_missing_one_is_said() -> None:
    table, y = tumours()
    table = table.rename(columns={"ERO1A": "ERO1L"}).drop(columns=["KCTD11", "UPK1A"])
    fitted = fit_signature(SignatureRecipe(signature="fjeldbo2016"), table, y)
    assert fitted.columns == ("DDIT3", "ERO1L", "P4HA2", "STC2")
    assert fitted.coverage.share == pytest.approx(4 / 6)
    assert fitted.words == (
        "Fjeldbo six-gene classifier by diagonal linear discriminant analysis (4 of 6 genes). Only 4 of the 6 genes of Fjeldbo "
        "six-gene classifier are in the table (not: KCTD11, UPK1A)."
    )
    with pytest.raises(InputError, match="Only 2 of the 6 genes of Fjeldbo six-gene classifier are in the table"):
        fit_signature(SignatureRecipe(signature="fjeldbo2016"), table.drop(columns=["ERO1L"]).assign(STC2=np.nan), y)
    with pytest.raises(InputError, match="Gene 'STC2' holds text"):
        fit_signature(SignatureRecipe(signature="fjeldbo2016"), table.assign(STC2="high"), y)
    with pytest.raises(InputError, match="Signature 'fjeldbo2015' is not known"):
        fit_signature(SignatureRecipe(signature="fjeldbo2015"), table, y)


def test_a_missing_value_is_no_obstacle() -> None:
    table, y = tumours()
    gaps = table.copy()
    gaps.loc[::7, "STC2"] = np.nan
    fitted = fit_signature(SignatureRecipe(signature="fjeldbo2016"), gaps, y)
    assert np.isfinite(fitted.pipeline.predict_proba(gaps[list(SIX)].to_numpy())).all()


@pytest.mark.parametrize("survival", [False, True])
def test_the_pipeline_survives_being_stored(survival: bool) -> None:
    table, y = tumours()
    outcome = lifetimes(y.astype(float)) if survival else y
    fitted = fit_signature(SignatureRecipe(signature="fjeldbo2016", method="votes"), table, outcome, 24 if survival else None)
    loaded = skops.io.loads(skops.io.dumps(fitted.pipeline), trusted=TRUSTED)
    X = table[list(SIX)].to_numpy()
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted.pipeline.predict_proba(X))


def test_the_votes_of_real_tumours_are_those_of_the_cohort(data: Path) -> None:
    table = pd.read_csv(data / "breast_expression_survset" / "gse1992.csv.gz").set_index("pid")
    outcome = survival_outcome(table["time"].to_numpy(), table["event"].to_numpy())
    fitted = fit_signature(SignatureRecipe(signature="buffa2010"), table, outcome, 60)
    score = fitted.pipeline[:-1].transform(table[list(fitted.columns)].to_numpy())[:, 0]
    np.testing.assert_array_equal(score, median_vote_score(find_signature("buffa2010"), table))
    assert fitted.words == ("Buffa hypoxia metagene (51 genes) by sum of +1 and -1 against training medians (47 of 51 genes).")
