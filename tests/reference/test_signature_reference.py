"""Signatures on real tumours: the sizes of effect that others found, and what published scores tell of their own rule."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from sklearn.metrics import roc_auc_score

from features.errors import InputError
from features.outcome import survival_outcome
from features.signature_scores import SignatureScore
from features.signatures import Method, coverage, find_signature, numeric, signatures
from training.signature_recipe import SignatureRecipe, fit_signature


@pytest.fixture(scope="module")
def breast(data: Path) -> pd.DataFrame:
    return pd.read_csv(data / "breast_expression_survset" / "gse1992.csv.gz").set_index("pid")


@pytest.fixture(scope="module")
def head_and_neck(data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = data / "tcga_hnsc_expression_hypoxia_pfs"
    clinical = pd.read_csv(folder / "clinical_hypoxia.csv").set_index("Patient ID")
    expression = pd.read_csv(folder / "expression_rnaseq_z.csv.gz").set_index("patient")
    both = expression.index.intersection(clinical.index)
    return expression.loc[both], clinical.loc[both]


def hazard_ratio(table: pd.DataFrame, score: np.ndarray) -> float:
    """Per standard deviation, by Cox regression."""
    outcome = pd.DataFrame({"score": (score - score.mean()) / score.std(ddof=1), "time": table["time"], "event": table["event"]})
    return float(CoxPHFitter().fit(outcome, "time", "event").hazard_ratios_["score"])


@pytest.mark.parametrize(
    ("signature", "method", "found", "expected", "tolerance"),
    [
        ("buffa2010_15", "votes", 15, 1.6, 0.05),  # issue 5, check 6: about 1.6
        ("fjeldbo2016", "mean_z", 5, 1.47, 0.005),  # issue 5, check 6: about 1.47, by five of the six genes
        ("buffa2010_15", "votes", 15, 1.6202, 5e-4),  # ours, 2026-11-22, to notice a change
        ("buffa2010", "votes", 47, 1.8199, 5e-4),  # ours
    ],
)
def test_signatures_tell_the_outcome_of_gse1992(
    breast: pd.DataFrame, signature: str, method: Method, found: int, expected: float, tolerance: float
) -> None:
    held = coverage(find_signature(signature), breast.columns)
    assert len(held.found) == found
    score = SignatureScore(method).fit_transform(numeric(breast, held.columns).to_numpy())[:, 0]
    assert hazard_ratio(breast, score) == pytest.approx(expected, abs=tolerance)


def test_every_signature_points_to_a_worse_outcome_of_gse1992_by_votes(breast: pd.DataFrame) -> None:
    for name, signature in signatures().items():
        held = coverage(signature, breast.columns)
        score = SignatureScore("votes").fit_transform(numeric(breast, held.columns).to_numpy())[:, 0]
        assert hazard_ratio(breast, score) > 1.25, name


def test_the_risk_behind_a_score_has_the_slope_of_lifelines(breast: pd.DataFrame) -> None:
    outcome = survival_outcome(breast["time"].to_numpy(), breast["event"].to_numpy())
    fitted = fit_signature(SignatureRecipe(signature="buffa2010_15"), breast, outcome, 60)
    score = fitted.pipeline[:-1].transform(breast[list(fitted.columns)].to_numpy())[:, 0]
    slope = np.diff(fitted.pipeline[-1].decision_function(np.array([[0.0], [1.0]])))[0]
    assert slope * score.std(ddof=1) == pytest.approx(math.log(hazard_ratio(breast, score)), abs=1e-5)  # lifelines 0.30.3


def test_published_scores_of_tcga_are_sums_of_plus_and_minus_1(head_and_neck: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """With k genes a sum of k votes is odd or even as k is, and lies within -k and k."""
    _, clinical = head_and_neck
    for name, genes in (("Buffa", 51), ("Ragnum", 32)):
        score = clinical[f"{name} Hypoxia Score"]
        assert (score % 2 == genes % 2).all()
        assert score.abs().max() <= genes == len(find_signature(f"{name.lower()}20{10 if name == 'Buffa' else 15}").genes)
    winter = clinical["Winter Hypoxia Score"]  # of 99 genes; but one, such as LOC149464, had no value, or it would be odd
    assert (winter % 2 == 0).all()
    assert winter.abs().max() <= 98


def test_the_table_of_tcga_lacks_too_many_genes_to_score_and_what_it_has_agrees(
    head_and_neck: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    expression, clinical = head_and_neck
    for name in ("buffa2010", "winter2007", "ragnum2015"):
        with pytest.raises(InputError, match="at least half are needed"):
            coverage(find_signature(name), expression.columns)
    columns = list(find_signature("buffa2010").found(expression.columns).values())
    assert columns == ["ADM", "GPI", "MIF", "VEGFA"]
    score = SignatureScore("votes").fit_transform(expression[columns].to_numpy())[:, 0]
    published = clinical["Buffa Hypoxia Score"]
    rho = pd.Series(score, index=published.index).corr(published, method="spearman")
    assert rho == pytest.approx(0.543, abs=0.001)  # ours: four of 51 genes


def test_ranks_of_few_genes_among_all_tell_the_published_hypoxia_class(
    head_and_neck: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    """The class of Ye 2019 was made by ssGSEA of the 15 genes, of which three are here."""
    expression, clinical = head_and_neck
    genes = find_signature("buffa2010_15").found(expression.columns).values()
    positions = tuple(expression.columns.get_loc(name) for name in genes)
    score = SignatureScore("ssgsea", genes=positions).fit_transform(expression.to_numpy())[:, 0]
    told = clinical["Ye2019_hypoxia_class"].notna().to_numpy()
    hypoxic = clinical["Ye2019_hypoxia_class"][told] == "hypoxic"
    assert roc_auc_score(hypoxic, score[told]) == pytest.approx(0.801, abs=0.001)  # ours
