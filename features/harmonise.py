"""Acquisition taken out of features: regression on protocol parameters, and alignment of sites (ComBat).

Both are transformers learnt from training samples alone. They hold plain arrays, so that a shipped model needs no library
of harmonisation, and what they make of a sample never depends on the other samples that are transformed with it.

To add one: a class with ``kind``, ``inputs`` and ``estimator``, and its name in ``features.platforms.Harmoniser``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator
from scipy.special import fdtrc
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from features.errors import InputError
from features.feature import Feature
from features.settings import Settings

# A direction of the scaled protocol smaller than this share of the largest is rounding: one parameter written twice.
COLLINEAR = 1e-10
# What the regression leaves of a feature that the protocol explains wholly is rounding too.
NOTHING_LEFT = 1e-10
# sva stops at the same relative change (without a limit to the steps, of which it takes three to five).
SETTLED, MOST_STEPS = 1e-4, 1000
# Below this the variances of a site's features are all the same, and so is what they are shrunk to.
SAME = 1e-12


class _Harmonising(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Features in some columns, what is known of their acquisition in others; the features come out."""

    n_features_in_: int

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the features, without those of the acquisition."""
        check_is_fitted(self)
        given = getattr(self, "feature_names_in_", None) if input_features is None else input_features
        names = [f"x{number}" for number in range(self.n_features_in_)] if given is None else list(given)
        return np.array([names[position] for position in self._feature_positions()], dtype=object)

    def _acquisition_positions(self) -> tuple[int, ...]:
        raise NotImplementedError

    def _feature_positions(self) -> list[int]:
        other = set(self._acquisition_positions())
        return [position for position in range(self.n_features_in_) if position not in other]

    def _parted(self, X: Any, *, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        """Features and acquisition, each of shape (n_samples, its columns)."""
        matrix = validate_data(
            self, X, dtype=float, ensure_all_finite="allow-nan", ensure_min_samples=2 if reset else 1, reset=reset
        )
        positions = list(self._acquisition_positions())
        if len(set(positions)) < len(positions) or not all(0 <= one < self.n_features_in_ for one in positions):
            raise ValueError(f"Positions {positions} are not different columns of a matrix with {self.n_features_in_} columns.")
        return matrix[:, self._feature_positions()], matrix[:, positions]

    def _shallow(self, acquisition: int, kept: Sequence[int], **parameters: Any) -> Self:
        """One of the same kind, not fitted yet, for the kept features and then the columns of the acquisition."""
        copy = type(self)(**{**self.get_params(), **parameters})
        copy.n_features_in_ = len(kept) + acquisition
        return copy


class AcquisitionRegression(_Harmonising):
    """What a linear regression on the acquisition protocol leaves of each feature, in standard deviations.

    A feature is replaced by its residuals only where the protocol explains it: where the overall F test is significant at a
    false discovery rate over all features. The others are left as they are. All are then brought to mean 0 and standard
    deviation 1 (ddof 1) over the training samples.

    Parameters
    ----------
    protocol : sequence of int
        Positions of the protocol's parameters among the columns of X; the others are features.
    categorical : sequence of int
        Those of them that are codes of words and not quantities.
    false_discovery : float
        Rate at which a feature counts as explained by the protocol (Benjamini & Hochberg).
    missing : {"refuse", "median"}
        What becomes of a sample without a parameter: refused, or given the training median (of codes: the most frequent).
    names : sequence of str
        Names of the parameters, for messages.
    concerns : sequence of sequence of int
        Per parameter the features that are regressed on it, as positions among the features; none: each on all. The echo time
        of one sequence says nothing of the features of another.

    Attributes
    ----------
    p_values_ : ndarray of shape (n_features,)
        Of the overall F test; 1 where it cannot be made (a constant feature, no degree of freedom).
    gated_ : ndarray of shape (n_features,), bool
        Whether the feature is replaced by its residuals.
    coefficients_ : ndarray of shape (1 + n_columns, n_features)
        Intercept, then one row per column of the design, in units of feature per unit of parameter; 0 where not gated.
    mean_, scale_ : ndarray of shape (n_features,)
        Of what the regression leaves; the scale is infinite for a feature of which nothing is left: it becomes 0.
    medians_ : ndarray of shape (n_protocol,)
    categories_ : list of ndarray
        Codes that training samples have, per parameter; empty for a quantity.

    References
    ----------
    Halle et al. 2024 (regression on acquisition, gated by false discovery rate, z scores).
    Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x.

    Examples
    --------
    >>> echo_time = np.array([80.0, 90, 100, 110, 120, 130])
    >>> entropy = 2 + 0.1 * echo_time + np.array([0.1, -0.1, 0.1, -0.1, 0.1, -0.1])
    >>> found = AcquisitionRegression(protocol=[1]).fit(np.column_stack([entropy, echo_time]))
    >>> found.gated_, found.coefficients_.round(3).ravel()
    (array([ True]), array([2.18 , 0.098]))
    """

    def __init__(
        self,
        protocol: Sequence[int] = (),
        categorical: Sequence[int] = (),
        false_discovery: float = 0.05,
        missing: Literal["refuse", "median"] = "refuse",
        names: Sequence[str] = (),
        concerns: Sequence[Sequence[int]] = (),
    ) -> None:
        self.protocol = protocol
        self.categorical = categorical
        self.false_discovery = false_discovery
        self.missing = missing
        self.names = names
        self.concerns = concerns

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from training samples; the outcome is not looked at.

        Parameters
        ----------
        X : array of shape (n_samples, n_features + n_protocol)
            Missing values are NaN; each feature is regressed on the samples that have it.

        Raises
        ------
        InputError
            A sample lacks a parameter and none may, or no sample has it.
        """
        from scipy.stats import false_discovery_control

        features, protocol = self._parted(X, reset=True)
        self._describe(protocol)
        design = self._design(self._filled(protocol))
        self.p_values_, coefficients = _regressions(design, features, self._concerned(features.shape[1]))
        self.gated_ = (
            false_discovery_control(self.p_values_) <= self.false_discovery if self.p_values_.size else self.p_values_ > 0
        )
        self.gated_ &= self.p_values_ < 1
        self.coefficients_ = np.where(self.gated_, coefficients, 0.0)
        left = self._residuals(features, design)
        self.mean_, self.scale_ = _mean_and_scale(left, features)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Harmonised features of shape (n_samples, n_features), without the columns of the protocol; NaN stays NaN.

        Raises
        ------
        InputError
            A sample lacks a parameter and none may.
        """
        check_is_fitted(self)
        features, protocol = self._parted(X, reset=False)
        return np.asarray((self._residuals(features, self._design(self._filled(protocol))) - self.mean_) / self.scale_)

    def restricted(self, kept: Sequence[int]) -> Self:
        """The same for fewer features, with the same numbers.

        Parameters
        ----------
        kept : sequence of int
            Positions among the features (not among all columns), in the order wanted.

        Returns
        -------
        AcquisitionRegression
            Takes the kept features, then the protocol.
        """
        check_is_fitted(self)
        kept = list(kept)
        protocol = tuple(range(len(kept), len(kept) + len(self.protocol)))
        categorical = tuple(new for new, old in zip(protocol, self.protocol, strict=True) if old in self.categorical)
        copy = self._shallow(len(protocol), kept, protocol=protocol, categorical=categorical, concerns=())
        for name in ("p_values_", "gated_", "mean_", "scale_"):
            setattr(copy, name, getattr(self, name)[kept])
        copy.coefficients_ = self.coefficients_[:, kept]
        copy.medians_, copy.categories_ = self.medians_, self.categories_
        return copy

    @property
    def words(self) -> str:
        """What it does, as a clause for a report."""
        return f"regression on {len(self.protocol)} acquisition parameters ({self.gated_.sum()} of {len(self.gated_)} features)"

    def _acquisition_positions(self) -> tuple[int, ...]:
        return tuple(self.protocol)

    def _concerned(self, n_features: int) -> np.ndarray:
        """Which columns of the design each feature is regressed on: shape (n_columns, n_features)."""
        concerned = []
        for number, codes in enumerate(self.categories_):
            features = np.ones(n_features, dtype=bool)
            if self.concerns:
                features = np.isin(np.arange(n_features), np.asarray(self.concerns[number], dtype=int))
            concerned += [features] * (max(len(codes) - 1, 0) if len(codes) else 1)
        return np.array(concerned, dtype=bool).reshape(len(concerned), n_features)

    def _describe(self, protocol: np.ndarray) -> None:
        """Keep what fills a gap; a column without any value has nothing that could."""
        present = [column[~np.isnan(column)] for column in protocol.T]
        for number, values in enumerate(present):
            if not len(values):
                raise InputError(f"{self._called(number)} has no value among the training samples; leave it out of the protocol.")
        coded = [position in self.categorical for position in self.protocol]
        self.categories_ = [np.unique(values) if code else np.empty(0) for values, code in zip(present, coded, strict=True)]
        self.medians_ = np.array([_middle(values, code) for values, code in zip(present, coded, strict=True)], dtype=float)

    def _unknown(self, protocol: np.ndarray) -> np.ndarray:
        """Codes that no training sample has."""
        unknown = np.zeros(protocol.shape, dtype=bool)
        for number, codes in enumerate(self.categories_):
            if len(codes):
                unknown[:, number] = ~np.isin(protocol[:, number], codes) & ~np.isnan(protocol[:, number])
        return unknown

    def _filled(self, protocol: np.ndarray) -> np.ndarray:
        """The protocol complete; a code that is new has no coefficient and counts as missing."""
        missing = np.isnan(protocol) | self._unknown(protocol)
        if missing.any() and self.missing == "refuse":
            number = int(np.argmax(missing.any(axis=0)))
            count = int(missing[:, number].sum())
            raise InputError(
                f"{self._called(number)} is missing, or a word not seen in training, in {count} of {len(protocol)} samples; "
                "fill it in, or set harmonise.missing: median to use the training median."
            )
        return np.where(missing, self.medians_, protocol)

    def _called(self, number: int) -> str:
        name = self.names[number] if number < len(self.names) else f"in column {self.protocol[number]}"
        return f"Acquisition parameter {name!r}"

    def _design(self, protocol: np.ndarray) -> np.ndarray:
        """Quantities as they are, a code as one column per category but the first; without an intercept."""
        columns: list[np.ndarray] = []
        for number, values in enumerate(protocol.T):
            codes = self.categories_[number]
            columns += [(values == code).astype(float) for code in codes[1:]] if len(codes) else [values]
        return np.column_stack(columns) if columns else np.empty((len(protocol), 0))

    def _residuals(self, features: np.ndarray, design: np.ndarray) -> np.ndarray:
        left = features - self.coefficients_[0]
        for column, slopes in zip(design.T, self.coefficients_[1:], strict=True):
            left -= column[:, None] * slopes  # no matrix product: its rounding depends on how many rows there are
        return np.asarray(left)


class SiteAlignment(_Harmonising):
    """ComBat for sites: each site's features shifted and scaled to the common mean and spread, shrunk by empirical Bayes.

    ComBat without covariates, with parametric priors, frozen to one line per site and feature. The prior of a site's shifts and
    scales is taken over its features, so that a site that is added later needs nothing of the others but their common mean and
    spread; of one feature there is no prior, and nothing is shrunk. A feature that does not vary within a site is shifted only.

    The numbers are those of R's ``sva::ComBat``, with missing values too, to rounding. It is written here because no library
    on PyPI has them with what can be frozen: in standard deviations within sites, combatlearn 2.3.0 (prior over the sites) is
    off by up to 0.8, inmoose 0.9.1 (divisor n) by 0.2; neuroCombat 0.2.12 agrees, but loses the whole table to one gap.

    Parameters
    ----------
    site : int, optional
        Position of the column with the site's code; None: one site, nothing to align.
    unseen_site : {"refuse", "reference", "adapt"}
        What becomes of a sample from a site that is not among those of training: refused; taken for one of the reference
        site; or refused until the transformer is adapted to the site.
    reference : int, optional
        Code of the site to whose scale the others are brought; None: to that of all together.
    minimum_cases : int
        Unlabelled samples that adapting to a new site needs.
    site_names : sequence of str
        Names of the sites by code, for messages.

    Attributes
    ----------
    sites_ : ndarray of shape (n_sites,)
        Codes seen in training.
    slopes_, shifts_ : ndarray of shape (n_sites, n_features)
        Of the line from a measured value to the aligned one.
    grand_mean_, pooled_sd_ : ndarray of shape (n_features,)
        Over training samples, of the reference site if there is one; the spread is that within sites. In the features' units.

    References
    ----------
    Johnson, Li & Rabinovic 2007, doi:10.1093/biostatistics/kxj037.
    Leek et al. 2012 (sva), doi:10.1093/bioinformatics/bts034.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> site = np.repeat([0.0, 1.0], 50)
    >>> X = np.column_stack([rng.normal(size=(100, 3)) + np.outer(site, [2, -1, 0.5]), site])
    >>> aligned = SiteAlignment(site=3).fit_transform(X)
    >>> (X[50:, :3].mean(axis=0) - X[:50, :3].mean(axis=0)).round(2)
    array([ 2.19, -1.17, -0.11])
    >>> (aligned[50:].mean(axis=0) - aligned[:50].mean(axis=0)).round(2)
    array([ 0.06, -0.04, -0.01])
    """

    def __init__(
        self,
        site: int | None = None,
        unseen_site: Literal["refuse", "reference", "adapt"] = "refuse",
        reference: int | None = None,
        minimum_cases: int = 20,
        site_names: Sequence[str] = (),
    ) -> None:
        self.site = site
        self.unseen_site = unseen_site
        self.reference = reference
        self.minimum_cases = minimum_cases
        self.site_names = site_names

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn from training samples; the outcome is not looked at.

        Parameters
        ----------
        X : array of shape (n_samples, n_features + 1)
            Missing values of features are NaN; each feature is learnt from the samples that have it.

        Raises
        ------
        InputError
            There is only one site, a site has one sample, or the reference site has none.
        """
        features, site = self._parted(X, reset=True)
        codes = site[:, 0] if site.shape[1] else np.zeros(len(features))
        self.sites_ = np.unique(codes)
        if self.site is not None:
            self._refuse_what_cannot_be_aligned(codes)
        self._standardise(features, codes)
        lines = [self._line_of(features[codes == code]) for code in self.sites_]
        self.slopes_, self.shifts_ = (np.array(numbers) for numbers in zip(*lines, strict=True))
        self.slopes_[self.sites_ == self.reference], self.shifts_[self.sites_ == self.reference] = 1.0, 0.0
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Aligned features of shape (n_samples, n_features), without the column of the site; NaN stays NaN.

        Raises
        ------
        InputError
            A sample is of a site that was not seen in training, and such are refused.
        """
        check_is_fitted(self)
        features, site = self._parted(X, reset=False)
        if self.site is None:
            return features
        rows = self._site_rows(site[:, 0])
        return np.asarray(features * self.slopes_[rows] + self.shifts_[rows])

    def adapted(self, X: Any, code: int, name: str = "") -> Self:
        """One that knows one more site, from unlabelled samples of it; the other sites stay as they are.

        Parameters
        ----------
        X : array of shape (n_samples, n_features + 1)
            Samples of the new site, in the columns of training; the column of the site is not read.
        code : int
            The new site's code.
        name : str
            The new site's name, for messages.

        Raises
        ------
        InputError
            There are fewer samples than `minimum_cases`, or the site is known already.
        """
        check_is_fitted(self)
        features, _ = self._parted(X, reset=False)
        shown = name or self._name(code)
        if self.site is None or code in self.sites_:
            raise InputError(f"Site {shown!r} is one of those that the model was trained on; give the samples of a new one.")
        if len(features) < self.minimum_cases:
            raise InputError(
                f"Site {shown!r} has {len(features)} samples to adapt to, fewer than the {self.minimum_cases} of minimum_cases; "
                "collect more of them (their outcome need not be known)."
            )
        slope, shift = self._line_of(features)
        kept = list(range(features.shape[1]))
        copy = self.restricted(kept)
        copy.site = self.site
        names = [self._name(number) for number in range(max(code + 1, len(self.site_names)))] if name else list(self.site_names)
        if name:
            names[code] = name
        copy.site_names = tuple(names)
        copy.sites_ = np.append(self.sites_, float(code))
        copy.slopes_, copy.shifts_ = np.vstack([self.slopes_, slope]), np.vstack([self.shifts_, shift])
        return copy

    def restricted(self, kept: Sequence[int]) -> Self:
        """The same for fewer features, with the same numbers.

        Parameters
        ----------
        kept : sequence of int
            Positions among the features (not among all columns), in the order wanted.

        Returns
        -------
        SiteAlignment
            Takes the kept features, then the site.
        """
        check_is_fitted(self)
        kept = list(kept)
        copy = self._shallow(0 if self.site is None else 1, kept, site=None if self.site is None else len(kept))
        copy.sites_ = self.sites_
        for per_site in ("slopes_", "shifts_"):
            setattr(copy, per_site, getattr(self, per_site)[:, kept])
        for per_feature in ("grand_mean_", "pooled_sd_"):
            setattr(copy, per_feature, getattr(self, per_feature)[kept])
        return copy

    @property
    def words(self) -> str:
        """What it does, as a clause for a report."""
        to = "" if self.reference is None else f" to site {self._name(self.reference)}"
        return f"ComBat over {len(self.sites_)} sites{to}"

    def _acquisition_positions(self) -> tuple[int, ...]:
        return () if self.site is None else (self.site,)

    def _name(self, code: float) -> str:
        return self.site_names[int(code)] if 0 <= code < len(self.site_names) else f"{code:g}"

    def _refuse_what_cannot_be_aligned(self, codes: np.ndarray) -> None:
        if np.isnan(codes).any():
            raise InputError(f"{np.isnan(codes).sum()} training samples have no site; say where they were measured.")
        if len(self.sites_) < 2:
            raise InputError(
                f"All training samples are from site {self._name(self.sites_[0])!r}: there is nothing to align. "
                "Take harmonise out, or use fewer folds so that every part has several sites."
            )
        alone = [code for code in self.sites_ if (codes == code).sum() < 2]
        if alone:
            raise InputError(
                f"Site {self._name(alone[0])!r} has one sample in a training part; aligning it needs two or more. "
                "Give it the name of a site with the same scanner, leave it out, or use fewer folds."
            )
        if self.reference is not None and self.reference not in self.sites_:
            raise InputError(
                f"Site {self._name(self.reference)!r} (harmonise.reference) has no sample in a training part; name a larger site."
            )

    def _standardise(self, features: np.ndarray, codes: np.ndarray) -> None:
        """Common mean and spread within sites, every site counting by its samples; with a reference, that site's."""
        place = np.searchsorted(self.sites_, codes)
        anywhere = _means(features, np.zeros(features.shape[1]))
        means = np.array([_means(features[codes == code], anywhere) for code in self.sites_])[place]
        common = np.full(len(codes), True) if self.reference is None or self.site is None else codes == self.reference
        self.grand_mean_ = means[common].mean(axis=0)
        lost = int(np.isnan(features).any())  # sva divides by n - 1 as soon as a value is missing, by n otherwise
        spread = _spread(features[common], means[common], lost)
        self.pooled_sd_ = np.where(spread > NOTHING_LEFT * _spread(features, anywhere, 0), spread, 0.0)

    def _line_of(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slope and shift of a site."""
        slope = np.ones(features.shape[1])
        shift = self.grand_mean_ - _means(features, self.grand_mean_)  # all there is to align where nothing varies within sites
        varying = self.pooled_sd_ > 0
        centre, spread = self.grand_mean_[varying], self.pooled_sd_[varying]
        moved, scale = _shrunk((features[:, varying] - centre) / spread)
        slope[varying] = 1 / np.sqrt(scale)
        shift[varying] = centre - (centre + spread * moved) * slope[varying]
        return slope, shift

    def _site_rows(self, codes: np.ndarray) -> np.ndarray:
        """Row of `slopes_` for every sample."""
        known = {code: row for row, code in enumerate(self.sites_.tolist())}
        stand_in = known.get(self.reference, -1) if self.unseen_site == "reference" and self.reference is not None else -1
        rows = np.array([known.get(code, stand_in) for code in codes.tolist()], dtype=int)
        if (rows < 0).any():
            code = codes[rows < 0][0]
            raise InputError(self.refusal(None if np.isnan(code) else self._name(code)))
        return rows

    def refusal(self, site: str | None) -> str:
        """Why a sample of a site that was not seen in training is refused, and the way out.

        Parameters
        ----------
        site : str or None
            The site's name; None where the sample has none.
        """
        seen = ", ".join(self._name(one) for one in self.sites_)
        who = "A sample without a site" if site is None else f"Site {site!r}"
        adapt = f"Adapt the model to at least {self.minimum_cases} unlabelled samples of it, or set"
        way_out = adapt if self.unseen_site == "adapt" else "Set"
        return (
            f"{who} was not seen in training (seen: {seen}). {way_out} unseen_site: reference to score it against the "
            "reference site."
        )


class RegressionHarmoniser(Settings):
    """Regression of every feature on the acquisition protocol (``cohort.acquisition``).

    Where the records of extracted tables say of which sequence feature and parameter are, only those of its own sequence count.

    Parameters
    ----------
    false_discovery : float
        Rate at which a feature counts as explained by the protocol, and is replaced by its residuals.
    missing : {"refuse", "median"}
        What becomes of a sample without a parameter of the protocol, or with a word that no training sample has: refused, or
        given the training median (of words: the most frequent).
    """

    kind: Literal["regression"] = "regression"
    false_discovery: float = Field(default=0.05, gt=0, lt=1)
    missing: Literal["refuse", "median"] = "refuse"

    def inputs(self, protocol: pd.DataFrame, site: pd.Series | None) -> tuple[Feature, ...]:
        """What it takes beside the features, with the words that training samples have.

        Raises
        ------
        InputError
            The study names no acquisition parameter.
        """
        if protocol.shape[1] == 0:
            raise InputError(
                "harmonise.kind: regression needs the acquisition protocol; name its columns under cohort.acquisition."
            )
        return tuple(self._input(protocol[name]) for name in protocol.columns)

    def _input(self, values: pd.Series) -> Feature:
        words = _levels(values)
        described = Feature(name=str(values.name), family="acquisition", levels=words, missing="refuse")
        if self.missing == "refuse":
            return described
        commonest = max(words, key=lambda word: (values.astype(str) == word).sum(), default=None)
        return described.model_copy(update={"missing": "impute", "unseen": commonest})

    def estimator(self, features: Sequence[Feature], inputs: Sequence[Feature]) -> AcquisitionRegression:
        """The transformer of a matrix of the features and then the inputs; those of a sequence concern its features alone."""
        n_features = len(features)
        positions = range(n_features, n_features + len(inputs))
        concerns = tuple(
            tuple(place for place, one in enumerate(features) if _concerns(given.sequence, one.sequence)) for given in inputs
        )
        every = all(len(places) == n_features for places in concerns)
        coded = tuple(position for position, feature in zip(positions, inputs, strict=True) if feature.levels)
        names = tuple(feature.name for feature in inputs)
        return AcquisitionRegression(
            tuple(positions), coded, self.false_discovery, self.missing, names, () if every else concerns
        )


class CombatHarmoniser(Settings):
    """ComBat for the sites of ``cohort.site``.

    Parameters
    ----------
    unseen_site : {"refuse", "reference", "adapt"}
        What becomes of a sample from a site that is not among those of training.
    reference : str, optional
        Site to whose scale the others are brought.
    minimum_cases : int
        Unlabelled samples that adapting to a new site needs.
    """

    kind: Literal["combat"] = "combat"
    unseen_site: Literal["refuse", "reference", "adapt"] = "refuse"
    reference: str | None = None
    minimum_cases: int = Field(default=20, ge=2)

    @model_validator(mode="after")
    def _a_reference_is_named(self) -> Self:
        if self.unseen_site == "reference" and self.reference is None:
            raise ValueError("unseen_site: reference needs reference, the site that an unseen one is taken for")
        return self

    def inputs(self, protocol: pd.DataFrame, site: pd.Series | None) -> tuple[Feature, ...]:
        """What it takes beside the features, with the sites that training samples have.

        Raises
        ------
        InputError
            The study names no site, or the reference is not one.
        """
        if site is None:
            raise InputError(f"harmonise.kind: {self.kind} needs the sites; name their column under cohort.site.")
        levels = tuple(sorted(set(site.astype(str))))
        if self.reference is not None and self.reference not in levels:
            raise InputError(
                f"Site {self.reference!r} (harmonise.reference) is not among the training samples' ({', '.join(levels)}); "
                "name one of these."
            )
        unseen = self.reference if self.unseen_site == "reference" else None
        return (Feature(name=str(site.name), family="acquisition", levels=levels, unseen=unseen, missing="refuse"),)

    def estimator(self, features: Sequence[Feature], inputs: Sequence[Feature]) -> SiteAlignment:
        """The transformer of a matrix of the features and then the site."""
        levels = inputs[0].levels
        reference = None if self.reference is None else levels.index(self.reference)
        return SiteAlignment(len(features), self.unseen_site, reference, self.minimum_cases, levels)


def _concerns(parameter: str | None, feature: str | None) -> bool:
    """Whether a parameter of a sequence may have to do with a feature of a sequence; None is no sequence in particular."""
    return parameter is None or feature is None or parameter == feature


def _levels(values: pd.Series) -> tuple[str, ...]:
    return () if pd.api.types.is_numeric_dtype(values) else tuple(sorted(set(values.dropna().astype(str))))


def _middle(values: np.ndarray, coded: bool) -> float:
    """Median of quantities, the most frequent of codes (of several the smallest)."""
    if not coded:
        return float(np.median(values))
    codes, counts = np.unique(values, return_counts=True)
    return float(codes[np.argmax(counts)])


def _regressions(design: np.ndarray, features: np.ndarray, concerned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P value and coefficients per feature, each over the samples that have it, on the columns that concern it."""
    p_values = np.ones(features.shape[1])
    coefficients = np.zeros((1 + design.shape[1], features.shape[1]))
    patterns, of_feature = np.unique(np.vstack([~np.isnan(features), concerned]), axis=1, return_inverse=True)
    for number, pattern in enumerate(patterns.T):
        rows, columns = pattern[: len(features)], np.flatnonzero(pattern[len(features) :])
        own = np.flatnonzero(of_feature.ravel() == number)
        p_values[own], found = _regression(design[np.ix_(rows, columns)], features[np.ix_(rows, own)])
        coefficients[np.ix_(np.append(0, 1 + columns), own)] = found
    return p_values, coefficients


def _regression(design: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares with an intercept for complete samples; degrees of freedom by the rank of the design."""
    p_values, coefficients = np.ones(features.shape[1]), np.zeros((1 + design.shape[1], features.shape[1]))
    varying = np.flatnonzero((design != design[:1]).any(axis=0)) if len(design) else np.empty(0, dtype=int)
    if not len(varying):
        return p_values, coefficients
    centre, mean = design[:, varying].mean(axis=0), features.mean(axis=0)
    length = np.linalg.norm(design[:, varying] - centre, axis=0)
    left, sizes, right = np.linalg.svd((design[:, varying] - centre) / length, full_matrices=False)
    rank = int((sizes > COLLINEAR * sizes[0]).sum())
    left, sizes, right = left[:, :rank], sizes[:rank], right[:rank]
    explained = left.T @ (features - mean)
    slopes = (right.T @ (explained / sizes[:, None])) / length[:, None]
    coefficients[1 + varying] = slopes
    coefficients[0] = mean - centre @ slopes
    freedom = len(features) - 1 - rank
    testable = (features != features[:1]).any(axis=0) & (freedom > 0)
    unexplained = (((features - mean) - left @ explained) ** 2).sum(axis=0)[testable]
    with np.errstate(divide="ignore"):  # a feature that the protocol explains wholly has p = 0
        f_values = ((explained**2).sum(axis=0)[testable] / rank) / (unexplained / max(freedom, 1))
    p_values[testable] = fdtrc(rank, max(freedom, 1), f_values)
    return p_values, coefficients


def _mean_and_scale(left: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (ddof 1) of what is left, over the samples that have a feature."""
    mean, scale = _moments(left)
    constant = ~(np.fmax.reduce(features) > np.fmin.reduce(features))
    nothing_left = scale <= NOTHING_LEFT * _moments(features)[1]
    return mean, np.where(constant, 1.0, np.where(nothing_left, np.inf, scale))


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (ddof 1) per column without its missing values; 0 where there are too few."""
    count = (~np.isnan(values)).sum(axis=0)
    mean = np.nansum(values, axis=0) / np.maximum(count, 1)
    return mean, np.sqrt(np.nansum((values - mean) ** 2, axis=0) / np.maximum(count - 1, 1))


def _means(features: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    count = (~np.isnan(features)).sum(axis=0)
    return np.where(count > 0, np.nansum(features, axis=0) / np.maximum(count, 1), otherwise)


def _spread(features: np.ndarray, centre: np.ndarray, lost: int) -> np.ndarray:
    """Standard deviation about the centre per column, without missing values."""
    count = (~np.isnan(features)).sum(axis=0)
    return np.asarray(np.sqrt(np.nansum((features - centre) ** 2, axis=0) / np.maximum(count - lost, 1)))


def _shrunk(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior shift and variance of one site per feature, from its standardised values of shape (n_samples, n_features).

    The prior is normal for the shifts and inverse gamma for the variances, with the moments that they have over the features.
    A feature that does not vary is as far off as its value, and one with a single value or none is shifted by as much as that
    and the prior tell; the variance of both is 1.
    """
    n, mean = (~np.isnan(z)).sum(axis=0), _means(z, np.zeros(z.shape[1]))
    squares = np.nansum((z - mean) ** 2, axis=0)
    told = squares > n * NOTHING_LEFT**2
    variance = np.where(told, squares / np.maximum(n - 1, 1), 1.0)
    if told.sum() < 2:
        return mean, variance
    expected, allowed = mean[told].mean(), mean[told].var(ddof=1)
    typical, differing = variance[told].mean(), max(variance[told].var(ddof=1), SAME)
    shape = 2 + typical**2 / differing
    shift, scale = mean, variance
    for _ in range(MOST_STEPS):
        before = shift, scale
        shift = (allowed * n * mean + scale * expected) / (allowed * n + scale)
        sum_of_squares = squares + n * (mean - shift) ** 2
        scale = np.where(told, (sum_of_squares / 2 + typical * (shape - 1)) / (n / 2 + shape - 1), 1.0)
        if max(_change(shift, before[0]), _change(scale, before[1])) <= SETTLED:
            break
    return np.where(told | (n < 2), shift, mean), scale


def _change(new: np.ndarray, old: np.ndarray) -> float:
    """The largest relative change; like sva, of the positive ones."""
    nonzero = old != 0
    return float(np.max(np.abs(new - old)[nonzero] / old[nonzero], initial=0.0))
