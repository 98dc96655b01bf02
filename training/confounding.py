"""Whether the features tell where and how a sample was measured, and whether that alone tells the outcome.

A model learns what it is given: where patients with hypoxic tumours were sent to another scanner, the scanner is what it
learns. Everything here is judged on patients that were not learnt from.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import chi2_contingency, mannwhitneyu
from threadpoolctl import threadpool_limits

from features.bundle import Estimate
from features.cohort import Cohort
from features.settings import Settings
from training.metrics import WeightedPredictions, roc_auc
from training.selection import ridge_logistic_coefficients

FOLDS = 5
RESAMPLES = 500
LEVEL = 0.95
FEWEST_PATIENTS = 5
SIGNIFICANT = 0.05


class Association(Settings):
    """Whether a parameter of the acquisition differs between the classes, one value per patient.

    Attributes
    ----------
    test : {"chi-squared", "Mann-Whitney"}
        For words, and for numbers; two-sided.
    """

    parameter: str
    test: Literal["chi-squared", "Mann-Whitney"]
    p_value: float

    def __str__(self) -> str:
        how = "differs" if self.p_value < SIGNIFICANT else "does not differ demonstrably"
        p_value = f"p = {self.p_value:.3f}" if self.p_value >= 0.001 else "p < 0.001"
        return f"{self.parameter} {how} between the classes ({self.test} test, {p_value})"


class Confounding(Settings):
    """How far site and protocol can be told from features, and the outcome from site and protocol.

    Attributes
    ----------
    site_from_features : Estimate or None
        Area under the ROC curve, one site against the rest, mean over sites; 0.5 is chance. None without sites.
    protocol_from_features : dict of str to Estimate
        Per parameter: of a value above the median, or of one word against the rest, mean over words.
    outcome_from_protocol, outcome_from_site : Estimate or None
        Area under the ROC curve of the outcome, from the acquisition alone.
    associations : tuple of Association
        Of each parameter, and of the site, with the outcome.
    """

    site: str | None = None
    site_from_features: Estimate | None = None
    protocol_from_features: dict[str, Estimate] = {}
    outcome_from_protocol: Estimate | None = None
    outcome_from_site: Estimate | None = None
    associations: tuple[Association, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence per way in which a model could learn the acquisition in place of the tumour."""
        found = []
        if _beyond_chance(self.site_from_features):
            found.append(
                f"The site can be predicted from the features {_in_brackets(self.site_from_features)}: without "
                "recipe.harmonise a model may learn where a patient was scanned. Judge it on a site that it has not seen."
            )
        told = [name for name, estimate in self.protocol_from_features.items() if _beyond_chance(estimate)]
        if told:
            each = ", ".join(f"{name} {_in_brackets(self.protocol_from_features[name])}" for name in told)
            found.append(f"The acquisition can be predicted from the features: {each}; recipe.harmonise takes it out.")
        for what, estimate in (("protocol", self.outcome_from_protocol), ("site", self.outcome_from_site)):
            if _beyond_chance(estimate):
                found.append(
                    f"The outcome can be predicted from the {what} alone {_in_brackets(estimate)}: the two are confounded. "
                    "A model without harmonisation may score the scanner; harmonisation takes some of the biology out too."
                )
        differing = [one for one in self.associations if one.p_value < SIGNIFICANT]
        if differing:
            found.append(f"{'; '.join(map(str, differing))}. Say so where results are reported.")
        return tuple(found)


def confounding(cohort: Cohort, rng: np.random.Generator) -> Confounding:
    """Judge by cross-validation over patients what a ridge logistic model tells of the acquisition.

    Missing values, centre and spread of every column come from the training side of a fold. Scores of a fold are taken less
    the mean and over the spread that its model has on what it learnt from, so that folds can be ranked together. Intervals
    are percentiles over resamples of patients; they leave out that another sample would have given another model.

    Parameters
    ----------
    cohort : Cohort
        With a protocol, a site, or both; where it has neither there is nothing to say.

    Returns
    -------
    Confounding
        An estimate is undefined, with the reason, where a class has fewer than 5 patients.

    Examples
    --------
    >>> from features.table import FeatureTable
    >>> rng = np.random.default_rng(0)
    >>> names = [f"s{number}" for number in range(60)]
    >>> site = pd.Series(np.tile(["A", "B"], 30), names, name="site")
    >>> X = pd.DataFrame(rng.normal(size=(60, 4)), names) + 3 * (site == "B").to_numpy()[:, None]
    >>> y = pd.Series(np.repeat([0, 1], 30), names)
    >>> found = confounding(Cohort(FeatureTable(X), y, pd.Series(names, names), site=site), rng)
    >>> print(found.site_from_features)
    1.000 (1.000 to 1.000)
    """
    judge = _Judge(cohort, rng)
    features = cohort.features.to_numpy()
    words = {} if cohort.site is None else {str(cohort.site.name): cohort.site}
    parameters = {str(name): cohort.protocol[name] for name in cohort.protocol.columns}
    return Confounding(
        site=next(iter(words), None),
        site_from_features=None if cohort.site is None else judge.estimate(features, _targets(cohort.site)),
        protocol_from_features={name: judge.estimate(features, _targets(values)) for name, values in parameters.items()},
        outcome_from_protocol=judge.estimate(_design(parameters), [cohort.y.astype(float)]) if parameters else None,
        outcome_from_site=judge.estimate(_design(words), [cohort.y.astype(float)]) if words else None,
        associations=tuple(
            found for name, values in {**parameters, **words}.items() if (found := _association(name, values, cohort)) is not None
        ),
    )


class _Judge:
    """Resamples of patients, the same for every question, and folds over patients, stratified by what is asked.

    Folds must not be stratified by what the answer is drawn from as well: the association of the two would then be the same
    on both sides of a fold, and chance would repeat itself.
    """

    def __init__(self, cohort: Cohort, rng: np.random.Generator) -> None:
        self._rng = rng
        self._patient = pd.factorize(cohort.patients)[0]
        count = int(self._patient.max()) + 1
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
        self._weights = np.vstack([np.ones(len(self._patient)), drawn[:, self._patient]])

    def estimate(self, matrix: np.ndarray, targets: list[np.ndarray]) -> Estimate:
        """Mean area under the ROC curve of several targets (1, 0, NaN unknown) that are told from a matrix.

        Parameters
        ----------
        matrix : ndarray of shape (n_samples, n_columns)
        targets : list of ndarray of shape (n_samples,)
        """
        areas = [self._areas(self._out_of_fold(matrix, target), target) for target in targets if self._enough(target)]
        if not areas:
            return Estimate(value=None, reason=f"no two groups have {FEWEST_PATIENTS} patients each")
        mean = np.mean(areas, axis=0)
        lower, upper = np.nanquantile(mean[1:], np.array([1 - LEVEL, 1 + LEVEL]) / 2)
        return Estimate(value=float(mean[0]), lower=float(lower), upper=float(upper), level=LEVEL)

    def _enough(self, target: np.ndarray) -> bool:
        return all(len(np.unique(self._patient[target == one])) >= FEWEST_PATIENTS for one in (0, 1))

    def _folds(self, target: np.ndarray) -> np.ndarray:
        """Fold of every sample: patients are dealt out in the order of their target, equal ones at random."""
        per_patient = pd.Series(target).groupby(self._patient).max().to_numpy()
        dealt = np.lexsort((self._rng.random(len(per_patient)), per_patient))
        fold = np.empty(len(per_patient), dtype=int)
        fold[dealt] = np.arange(len(per_patient)) % FOLDS
        return fold[self._patient]

    def _out_of_fold(self, matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
        scores, fold, known = np.full(len(target), np.nan), self._folds(target), ~np.isnan(target)
        with threadpool_limits(1, "blas"):  # many small products, each slower on two threads than on one
            for number in range(FOLDS):
                test, train = fold == number, (fold != number) & known
                scores[test] = _scores(matrix[train], target[train], matrix[test])
        return scores

    def _areas(self, scores: np.ndarray, target: np.ndarray) -> np.ndarray:
        judged = ~np.isnan(target)
        called = np.zeros(int(judged.sum()), dtype=bool)
        return roc_auc(WeightedPredictions(target[judged].astype(int), scores[judged], called, self._weights[:, judged]))


def _scores(X: np.ndarray, y: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Scores of test samples in standard deviations of those that the model gives to what it learnt from."""
    present = ~np.isnan(X).all(axis=0)
    medians = np.nanmedian(X[:, present], axis=0)
    X, test = (np.where(np.isnan(part[:, present]), medians, part[:, present]) for part in (X, test))
    varying = (X[:1] != X).any(axis=0)
    if not varying.any():
        return np.zeros(len(test))
    centre, spread = X[:, varying].mean(axis=0), X[:, varying].std(axis=0)
    z, z_test = (X[:, varying] - centre) / spread, (test[:, varying] - centre) / spread
    coefficients = ridge_logistic_coefficients(z, y)
    own = z @ coefficients
    return np.asarray((z_test @ coefficients - own.mean()) / (own.std() or 1.0))


def _targets(values: pd.Series) -> list[np.ndarray]:
    """What to tell apart: values above the median from the others, or each word from the rest."""
    known = values.notna().to_numpy()
    if pd.api.types.is_numeric_dtype(values):
        high = values > values.median()
        split = high if high.any() else values >= values.median()  # more than half of them share the highest value
        return [np.where(known, split.to_numpy(dtype=float), np.nan)]
    words = sorted(set(values.dropna().astype(str)))
    told = [np.where(known, (values.astype(str) == word).to_numpy(dtype=float), np.nan) for word in words]
    return told[1:] if len(words) == 2 else told  # of two words one tells the other


def _design(columns: dict[str, pd.Series]) -> np.ndarray:
    """Numbers as they are, each word as a column of its own."""
    parts = [
        values.to_numpy(dtype=float)[:, None]
        if pd.api.types.is_numeric_dtype(values)
        else pd.get_dummies(values, dtype=float).to_numpy()
        for values in columns.values()
    ]
    return np.hstack(parts)


def _association(name: str, values: pd.Series, cohort: Cohort) -> Association | None:
    """Test of one value per patient (the median, or the first word); None where there is nothing to compare."""
    numeric = pd.api.types.is_numeric_dtype(values)
    grouped = values.groupby(cohort.patients.to_numpy(), sort=False)
    per_patient = (grouped.median() if numeric else grouped.first()).dropna()
    labels = cohort.patient_labels.loc[per_patient.index]
    if per_patient.nunique() < 2 or labels.nunique() < 2:
        return None
    if numeric:
        p_value = mannwhitneyu(per_patient[labels == 1], per_patient[labels == 0], alternative="two-sided").pvalue
        return Association(parameter=name, test="Mann-Whitney", p_value=float(p_value))
    p_value = chi2_contingency(pd.crosstab(per_patient, labels), correction=False).pvalue
    return Association(parameter=name, test="chi-squared", p_value=float(p_value))


def _beyond_chance(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.lower is not None and estimate.lower > 0.5


def _in_brackets(estimate: Estimate | None) -> str:
    """Value and interval with two decimals, as a clause."""
    if estimate is None or estimate.value is None:
        return ""
    return f"(AUC {estimate.value:.2f}, {estimate.lower:.2f} to {estimate.upper:.2f})"
