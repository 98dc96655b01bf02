"""A signature's score of a single sample: learnt once from training samples, then kept as plain numbers.

All published rules compare a sample with others (a cohort's median, its mean and spread, centroids of two classes). What they
compare with is stored here, so that one patient's sample is scored as it would be among those of training, and so that
predicting needs numpy and scipy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self, get_args

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from features.errors import InputError
from features.outcome import is_survival
from features.signatures import Method

# Those that are learnt from an imaging label; the others never look at the outcome.
SUPERVISED: tuple[Method, ...] = ("centroid", "diagonal_lda", "ridge_logistic")
# Exponent of the ranks in Barbie's enrichment score.
RANK_WEIGHT = 0.25
# A gene of which the classes leave less than this share of its squares varies between them alone; the rest is rounding.
NOTHING_LEFT = 1e-20


class SignatureScore(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """One score per sample from the expression of a signature's genes; higher is more hypoxic.

    ================  ==============================================================================  ========================
    method            score                                                                           cutoff
    ================  ==============================================================================  ========================
    votes             sum over genes of +1 at or above the stored median, -1 below                    training median
    mean_z            mean of z scores by the stored mean and standard deviation (ddof 1)             training median
    ssgsea            enrichment of the genes at the top of the sample's own ranks, over the stored   training median
                      range of the training samples
    centroid          squared distance of the z scores to the less hypoxic class's centroid minus     0
                      that to the more hypoxic one's
    diagonal_lda      sum over genes of (x - (mu1 + mu0) / 2) (mu1 - mu0) / s2, s2 pooled within      0
                      classes; equal priors
    ridge_logistic    log odds of logistic regression on z scores, moved to equal priors              0
    ================  ==============================================================================  ========================

    The last three need classes: 1 (of two labels the larger) is more hypoxic. Diagonal discriminant analysis is half the
    difference of squared distances to the two classes' means in standard deviations *within* classes; centroids are in
    standard deviations of all training samples, as Toustrup's classifier has them. Only ssGSEA, which compares genes with each
    other, changes if a gene is measured in another unit (scaled and shifted) in training and prediction alike.

    A missing value votes neither way and otherwise counts as the gene's training mean. A gene that does not vary in training
    has no weight.

    Parameters
    ----------
    method : {"votes", "mean_z", "ssgsea", "centroid", "diagonal_lda", "ridge_logistic"}
    genes : sequence of int
        Positions of the signature's genes among the columns; empty: all. The other columns count for ssgsea alone, as the
        genes that the signature's are ranked among.
    shrinkage : float
        For diagonal_lda, from 0 to 1: how far each gene's variance within classes, as a share of its variance, is drawn to
        the mean share over genes.
    penalty : float
        For ridge_logistic: weight of half the squared length of the coefficients against the summed loss; above 0.
    signs : {"free", "up"}
        "up": no gene may count against hypoxia. A gene of which training samples say so gets no weight.
    centroids : sequence of two sequences of float, optional
        For centroid: z scores of the less, then of the more hypoxic class, where they are known; the outcome is then not
        looked at.

    Attributes
    ----------
    cutoff_ : float
        A score at or above it is called more hypoxic.
    mean_ : ndarray of shape (n_features,)
        Of training samples; of every column for ssgsea. In units of X.
    median_ : ndarray of shape (n_genes,)
        For votes.
    centre_, weights_ : ndarray of shape (n_genes,)
        Of the linear methods: the score is the sum of ``weights_ * (x - centre_)``, and ``intercept_``.
    intercept_ : float
    range_ : float
        For ssgsea: difference of the largest and the smallest enrichment score of the training samples.

    References
    ----------
    Bhandari et al. 2019 (votes), doi:10.1038/s41588-018-0318-2. Barbie et al. 2009 (ssGSEA), doi:10.1038/nature08460.
    Toustrup et al. 2011 (centroids), doi:10.1158/0008-5472.CAN-11-1182.
    Dudoit, Fridlyand & Speed 2002 (diagonal discriminant analysis), doi:10.1198/016214502753479248.

    Examples
    --------
    >>> X = np.array([[1.0, 5], [2, 7], [3, 6], [4, 9]])
    >>> SignatureScore("votes").fit(X).transform([[3, 6]])
    array([[0.]])
    >>> fitted = SignatureScore("diagonal_lda").fit(X, [0, 0, 1, 1])
    >>> fitted.weights_.round(3), fitted.transform([[2.5, 6.75]]), fitted.cutoff_
    (array([4.   , 0.462]), array([[0.]]), 0.0)
    """

    n_features_in_: int

    def __init__(
        self,
        method: Method = "votes",
        genes: Sequence[int] = (),
        shrinkage: float = 0.0,
        penalty: float = 1.0,
        signs: Literal["free", "up"] = "free",
        centroids: Sequence[Sequence[float]] | None = None,
    ) -> None:
        self.method = method
        self.genes = genes
        self.shrinkage = shrinkage
        self.penalty = penalty
        self.signs = signs
        self.centroids = centroids

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.required = self._learns_from_classes()
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from training samples.

        Parameters
        ----------
        X : array of shape (n_samples, n_features)
            Expression on a logarithmic scale; NaN where a value is missing.
        y : array of shape (n_samples,), optional
            Two classes, or a survival outcome (``features.outcome``); read by the methods that need classes alone.

        Raises
        ------
        InputError
            The method needs classes, and there are none or not two with two samples each.
        """
        matrix = validate_data(self, X, dtype=float, ensure_all_finite="allow-nan", ensure_min_samples=2)
        if self.method not in get_args(Method):
            raise ValueError(f"method={self.method!r} is none of {', '.join(get_args(Method))}.")
        self._refuse_genes_that_are_not_there()
        self.mean_ = _means(matrix)
        hypoxic = _two_classes(y, self.method, len(matrix)) if self._learns_from_classes() else None
        self._learn(matrix, hypoxic)
        self.cutoff_ = 0.0 if self.method in SUPERVISED else float(np.median(self._scores(matrix)))
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Scores of shape (n_samples, 1), each sample's for itself."""
        check_is_fitted(self)
        matrix = validate_data(self, X, dtype=float, ensure_all_finite="allow-nan", reset=False)
        return self._scores(matrix)[:, None]

    def coverage(self, X: Any) -> np.ndarray:
        """Share of the signature's genes that a sample has a value of, from 0 to 1; shape (n_samples,)."""
        check_is_fitted(self)
        matrix = validate_data(self, X, dtype=float, ensure_all_finite="allow-nan", reset=False)
        return np.asarray((~np.isnan(matrix[:, self._positions()])).mean(axis=1))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The one name ``score``."""
        check_is_fitted(self)
        return np.array(["score"], dtype=object)

    def _learns_from_classes(self) -> bool:
        return self.method in SUPERVISED and not (self.method == "centroid" and self.centroids is not None)

    def _positions(self) -> np.ndarray:
        return np.asarray(self.genes, dtype=int) if len(self.genes) else np.arange(self.n_features_in_)

    def _refuse_genes_that_are_not_there(self) -> None:
        positions = self._positions()
        if len(np.unique(positions)) < len(positions) or not np.isin(positions, np.arange(self.n_features_in_)).all():
            raise ValueError(f"Positions {self.genes} are not different columns of a matrix with {self.n_features_in_} columns.")
        if self.method == "ssgsea" and len(positions) == self.n_features_in_:
            raise ValueError(
                f"ssgsea ranks a signature's genes among others, and all are the signature's (n_features = {len(positions)})."
            )

    def _learn(self, matrix: np.ndarray, hypoxic: np.ndarray | None) -> None:
        genes = matrix[:, self._positions()]
        if self.method == "votes":
            self.median_ = np.array([np.median(one[~np.isnan(one)]) if not np.isnan(one).all() else np.nan for one in genes.T])
        elif self.method == "ssgsea":
            found = self._enrichment(matrix)
            self.range_ = float(np.ptp(found)) or 1.0
        else:
            self._learn_weights(genes, hypoxic)

    def _learn_weights(self, genes: np.ndarray, hypoxic: np.ndarray | None) -> None:
        mean, scale = _means(genes), _spread(genes)
        z = np.nan_to_num((genes - mean) / scale, nan=0.0)
        centre, weights, self.intercept_ = self._in_z_scores(z, hypoxic)
        self.centre_, self.weights_ = mean + np.where(np.isfinite(scale), scale, 0.0) * centre, weights / scale

    def _in_z_scores(self, z: np.ndarray, hypoxic: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, float]:
        """Centre and weight per gene, and intercept, of a score that is linear in z scores."""
        if self.method == "mean_z":
            return np.zeros(z.shape[1]), np.full(z.shape[1], 1 / z.shape[1]), 0.0
        if hypoxic is not None and self.method == "ridge_logistic":
            weights, intercept = _ridge_logistic(z, hypoxic, self.penalty, self.signs)
            return np.zeros(z.shape[1]), weights, intercept
        less, more = self._class_centres(z, hypoxic)
        weights = 2 * (more - less) if hypoxic is None or self.method == "centroid" else self._discriminant(z, hypoxic)
        return (less + more) / 2, np.maximum(weights, 0.0) if self.signs == "up" else weights, 0.0

    def _class_centres(self, z: np.ndarray, hypoxic: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if hypoxic is not None:
            return z[~hypoxic].mean(axis=0), z[hypoxic].mean(axis=0)
        given = np.asarray(self.centroids, dtype=float)
        if given.shape != (2, z.shape[1]):
            raise ValueError(f"Two centroids of {z.shape[1]} genes are needed; these have the shape {given.shape}.")
        return given[0], given[1]

    def _discriminant(self, z: np.ndarray, hypoxic: np.ndarray) -> np.ndarray:
        """Weights of diagonal discriminant analysis; in z scores a variance is a share, and shrinking it keeps units apart."""
        less, more = z[~hypoxic], z[hypoxic]
        squares = ((less - less.mean(axis=0)) ** 2).sum(axis=0) + ((more - more.mean(axis=0)) ** 2).sum(axis=0)
        within = np.where(squares > NOTHING_LEFT * (z**2).sum(axis=0), squares / (len(z) - 2), 0.0)
        if not within.any():
            raise InputError("No gene of the signature varies within the two classes; check the expression values.")
        within = (1 - self.shrinkage) * within + self.shrinkage * within[within > 0].mean()
        rise = more.mean(axis=0) - less.mean(axis=0)
        return np.divide(rise, within, out=np.zeros_like(rise), where=within > 0)

    def _scores(self, matrix: np.ndarray) -> np.ndarray:
        if self.method == "ssgsea":
            return self._enrichment(matrix) / self.range_
        genes = np.ascontiguousarray(matrix[:, self._positions()])
        if self.method == "votes":
            unknown = np.isnan(genes) | np.isnan(self.median_)
            return np.where(unknown, 0.0, np.where(genes >= self.median_, 1.0, -1.0)).sum(axis=1)
        filled = np.where(np.isnan(genes), self.mean_[self._positions()], genes)
        # No matrix product: its rounding depends on how many rows there are.
        return np.asarray(((filled - self.centre_) * self.weights_).sum(axis=1) + self.intercept_)

    def _enrichment(self, matrix: np.ndarray) -> np.ndarray:
        return enrichment(np.where(np.isnan(matrix), self.mean_, matrix), self._positions())


def enrichment(expression: np.ndarray, genes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Barbie's enrichment score (ssGSEA) of a gene set in each sample; higher where its genes rank higher.

    The sum over a sample's genes, from the highest expressed down, of the difference between the share of the set's genes
    passed so far (each counting by its rank to the power 1/4) and that of the others. In closed form it takes ranks alone.
    Genes with equal values share their mean rank, so that the order of the columns does not matter.

    Parameters
    ----------
    expression : ndarray of shape (n_samples, n_genes)
        Complete; any monotone scale.
    genes : sequence of int
        Positions of the set's genes; fewer than all.

    Returns
    -------
    ndarray of shape (n_samples,)

    References
    ----------
    Barbie et al. 2009, doi:10.1038/nature08460; the closed form is that of Bioconductor's GSVA.

    Examples
    --------
    >>> enrichment(np.array([[4.0, 3, 2, 1], [1, 2, 3, 4]]), [0])
    array([ 2., -2.])
    """
    ranks = rankdata(expression, axis=1)
    # Row by row in memory: the rounding of a sum over columns would else depend on how many samples there are.
    inside = np.ascontiguousarray(ranks[:, np.asarray(genes, dtype=int)])
    weights = inside**RANK_WEIGHT
    n, k = ranks.shape[1], inside.shape[1]
    of_set = (inside * weights).sum(axis=1) / weights.sum(axis=1)
    of_others = (n * (n + 1) / 2 - inside.sum(axis=1)) / (n - k)
    return np.asarray(of_set - of_others)


def _two_classes(y: Any, method: str, n_samples: int) -> np.ndarray:
    """Which samples are of the more hypoxic class."""
    if y is not None and is_survival(np.asarray(y)):
        raise InputError(
            f"{method} is fitted from an imaging label (binary endpoint), and this endpoint is survival; "
            "use votes, mean_z or ssgsea, or fit it in a study with that label."
        )
    if y is None:
        raise ValueError(f"{method} requires y to be passed, but the target y is None: it is fitted from a binary endpoint.")
    labels = column_or_1d(np.asarray(y))
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) != 2 or counts.min() < 2 or len(labels) != n_samples:
        raise InputError(
            f"{method} is fitted from two classes with two samples or more each; there are {len(classes)} among {len(labels)} "
            "training samples. Check the endpoint, or use fewer folds."
        )
    return np.asarray(labels == classes[1])


def _ridge_logistic(z: np.ndarray, hypoxic: np.ndarray, penalty: float, signs: Literal["free", "up"]) -> tuple[np.ndarray, float]:
    """Coefficients, and the intercept at equal priors; scikit-learn's regression has no bounds on coefficients."""
    y = hypoxic.astype(float)
    design = np.column_stack([z, np.ones(len(z))])

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        log_odds = design @ coefficients
        ridge = penalty * np.append(coefficients[:-1], 0.0)
        value = (np.logaddexp(0, log_odds) - y * log_odds).sum() + ridge @ coefficients / 2
        return float(value), design.T @ (expit(log_odds) - y) + ridge

    bounds = [(0.0 if signs == "up" else None, None)] * z.shape[1] + [(None, None)]
    options = {"ftol": 1e-14, "gtol": 1e-10, "maxiter": 10_000, "maxfun": 100_000}
    found = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return found.x[:-1], float(found.x[-1] - np.log(y.sum() / (len(y) - y.sum())))


def _means(values: np.ndarray) -> np.ndarray:
    """Mean per column without its missing values; 0 of none."""
    return np.asarray(np.nansum(values, axis=0) / np.maximum((~np.isnan(values)).sum(axis=0), 1))


def _spread(values: np.ndarray) -> np.ndarray:
    """Standard deviation (ddof 1) per column without its missing values; infinite where nothing varies."""
    freedom = np.maximum((~np.isnan(values)).sum(axis=0) - 1, 1)
    varying = np.fmax.reduce(values) > np.fmin.reduce(values)
    return np.where(varying, np.sqrt(np.nansum((values - _means(values)) ** 2, axis=0) / freedom), np.inf)
