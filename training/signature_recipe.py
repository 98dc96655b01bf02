"""A published signature as a model: its score by reference values of the training samples, and a probability from the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from features.errors import InputError
from features.genes import resolve
from features.outcome import is_survival
from features.risk import CoxRisk
from features.settings import Settings
from features.signature_scores import SUPERVISED, SignatureScore
from features.signatures import Coverage, Method, Signature, coverage, find_signature, numeric

# Ranks among fewer genes than these say little of where a signature's stand.
FEWEST_OTHERS = 100
# A score that was learnt from the outcome is too good on its own samples; the probability is learnt from as many folds.
FOLDS = 10
# One slope needs no penalty; this one only keeps it finite where the score parts the classes without an error.
NO_PENALTY = 1e6

WORDS: dict[Method, str] = {
    "votes": "sum of +1 and -1 against training medians",
    "mean_z": "mean z score",
    "ssgsea": "ssGSEA",
    "centroid": "difference of the squared distances to two centroids",
    "diagonal_lda": "diagonal linear discriminant analysis",
    "ridge_logistic": "ridge logistic regression at equal priors",
}


class SignatureRecipe(Settings):
    """A published signature in place of selection and search.

    Parameters
    ----------
    signature : str
        Its name in features/data/signatures.yaml.
    method : str, optional
        How it is scored (``features.signature_scores.SignatureScore``); left out: as comes closest to its authors' rule.
        centroid, diagonal_lda and ridge_logistic are learnt from a binary endpoint.
    shrinkage : float
        Of variances, for diagonal_lda: 0 for none, 1 for one share of variance for all genes.
    penalty : float
        For ridge_logistic.
    signs : {"free", "up"}
        "up": a gene that falls in the more hypoxic training samples gets no weight.
    """

    kind: Literal["signature"] = "signature"
    signature: str
    method: Method | None = None
    shrinkage: float = Field(default=0.0, ge=0, le=1)
    penalty: float = Field(default=1.0, gt=0)
    signs: Literal["free", "up"] = "free"

    @property
    def learns_from_outcome(self) -> bool:
        """Whether the score is learnt from an imaging label, rather than published."""
        return (self.method or find_signature(self.signature).method) in SUPERVISED


@dataclass(frozen=True)
class FittedSignature:
    """A signature that scores single samples.

    Attributes
    ----------
    columns : tuple of str
        What the pipeline takes, in this order: the signature's genes, for ssgsea all genes.
    pipeline : Pipeline
        The score, then what makes a probability of it; ``pipeline[:-1].transform(X)[:, 0]`` is the score. It takes missing
        values.
    cutoff : float
        A score at or above it is called more hypoxic: 0 where it is so by construction, else the training median.
    coverage : Coverage
        Which genes of the signature the table has.
    words : str
        What the score is, in a sentence, with a warning where less than 80% of the genes are there.
    """

    columns: tuple[str, ...]
    pipeline: Pipeline
    cutoff: float
    coverage: Coverage
    words: str


def fit_signature(
    recipe: SignatureRecipe,
    features: pd.DataFrame,
    outcome: np.ndarray,
    horizon: float | None = None,
    groups: np.ndarray | None = None,
) -> FittedSignature:
    """Learn a signature's reference values, and the probability behind its score, from training samples.

    Where the score itself is learnt from the outcome, the probability is learnt from scores of samples that were left out
    (ten folds, without patients in common), since a score is too good on those that it was learnt from: with 42 patients and
    a fair signal the calibration slope in new patients is then 0.98 rather than 0.66 (simulated, diagonal discriminant
    analysis of six genes). Such a probability never falls as the score rises.

    Parameters
    ----------
    features : DataFrame of shape (n_samples, n_features)
        Training samples; other columns than the signature's genes do no harm.
    outcome : ndarray of shape (n_samples,)
        0 or 1, or a survival outcome (``features.outcome``).
    horizon : float, optional
        Time by which the risk is given, for a survival outcome.
    groups : ndarray of shape (n_samples,), optional
        Patient of each sample; left out: every sample is a patient.

    Raises
    ------
    InputError
        The signature is not known, too few of its genes are there, or the method needs another endpoint or more samples.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> genes = find_signature("fjeldbo2016").genes
    >>> y = np.arange(40) % 2
    >>> table = pd.DataFrame(rng.normal(size=(40, 6)) + y[:, None], columns=genes).drop(columns="KCTD11")
    >>> fitted = fit_signature(SignatureRecipe(signature="fjeldbo2016"), table, y)
    >>> fitted.cutoff, fitted.coverage.missing
    (0.0, ('KCTD11',))
    """
    signature = find_signature(recipe.signature)
    method = recipe.method or signature.method
    held = coverage(signature, _with_values(features, signature))
    columns = _genes_to_rank(features, held) if method == "ssgsea" else held.columns
    score = _estimator(recipe, method, tuple(columns.index(name) for name in held.columns))
    matrix = numeric(features, columns).to_numpy(dtype=float)
    fitted = clone(score).fit(matrix, outcome)
    if method in SUPERVISED:
        head = _rising(_left_out(score, matrix, outcome, groups), outcome)
    else:
        head = _head(outcome, horizon).fit(fitted.transform(matrix), outcome)
    pipeline = Pipeline([("signaturescore", fitted), ("probability", head)])
    return FittedSignature(columns, pipeline, fitted.cutoff_, held, _words(signature, method, held))


def coverage_words(recipe: SignatureRecipe, features: pd.DataFrame) -> tuple[str, str | None]:
    """How many of a signature's genes a table has and which it lacks, as a phrase; and a warning where they are few."""
    held = coverage(find_signature(recipe.signature), _with_values(features, find_signature(recipe.signature)))
    lacking = f"; missing: {', '.join(held.missing)}" if held.missing else ""
    return f"{len(held.found)} of {held.genes} genes{lacking}", held.warning


def _estimator(recipe: SignatureRecipe, method: Method, genes: tuple[int, ...]) -> SignatureScore:
    return SignatureScore(method, genes, recipe.shrinkage, recipe.penalty, recipe.signs)


def _with_values(features: pd.DataFrame, signature: Signature) -> tuple[str, ...]:
    """The signature's columns that some sample has a value in."""
    named = features.loc[:, list(signature.found(features.columns).values())]
    return tuple(named.columns[named.notna().any()])


def _genes_to_rank(features: pd.DataFrame, held: Coverage) -> tuple[str, ...]:
    """The numeric columns that have values and are named as genes are: an imaging feature has no rank among them."""
    ranked = features.select_dtypes("number")
    names = list(ranked.columns[ranked.notna().any()])
    known = zip(names, resolve(names).names, strict=True)
    columns = tuple(name for name, gene in known if gene.symbol is not None or name in held.columns)
    others = len(set(columns) - set(held.columns))
    if others < FEWEST_OTHERS:
        raise InputError(
            f"ssgsea ranks the genes of {held.title} among all others, and the table has {others}; at least {FEWEST_OTHERS} are "
            "needed. Use method: votes or mean_z, or a table with all genes."
        )
    return columns


def _left_out(score: SignatureScore, matrix: np.ndarray, outcome: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Score of each training sample by what the samples of other folds teach, shape (n_samples, 1)."""
    groups = np.arange(len(outcome)) if groups is None else groups
    smaller = min(len(np.unique(groups[outcome == label])) for label in np.unique(outcome))
    if smaller < 3:
        raise InputError(
            f"{score.method} is learnt from patients with and without the event, and of one kind there are {smaller}, fewer "
            "than 3; use method: votes or mean_z, which need none, or fewer folds."
        )
    found = np.empty((len(outcome), 1))
    for train, test in StratifiedGroupKFold(min(FOLDS, smaller)).split(matrix, outcome, groups):
        found[test] = clone(score).fit(matrix[train], outcome[train]).transform(matrix[test])
    return found


def _head(outcome: np.ndarray, horizon: float | None) -> BaseEstimator:
    if is_survival(outcome):
        return CoxRisk(horizon=horizon)
    return make_pipeline(StandardScaler(), LogisticRegression(C=NO_PENALTY, max_iter=1000))


def _rising(score: np.ndarray, outcome: np.ndarray) -> BaseEstimator:
    """Probability behind left-out scores; flat where these fall, as those of a score that knows nothing tend to."""
    head = _head(outcome, None).fit(score, outcome)
    return head if head[-1].coef_[0, 0] >= 0 else head.fit(np.zeros_like(score), outcome)


def _words(signature: Signature, method: Method, held: Coverage) -> str:
    said = f"{signature.title} by {WORDS[method]} ({len(held.found)} of {held.genes} genes)."
    return f"{said} {held.warning}" if held.warning else said
