"""Clusters against what else is known of the patients: clinical columns, how and where they were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import (
    MonteCarloMethod,
    chi2_contingency,
    f_oneway,
    false_discovery_control,
    fisher_exact,
    kruskal,
    levene,
    rankdata,
    shapiro,
)
from scipy.stats.contingency import expected_freq

from features.errors import InputError

FEW_VALUES = 5  # different numbers up to which a column is of levels (field strengths, grades) and not a quantity
FEWEST_FOR_ANOVA = 10  # patients in every cluster
MOST_FOR_SHAPIRO = 5000  # beyond, its p-value is not known to hold
ALPHA = 0.05  # at which normality, or equal variance, is given up
RANDOM_TABLES = 9999
NOTICEABLE = 0.3  # Cramer's V, or the root of eta-squared: Cohen's medium effect
MOST_NAMED = 5  # columns that one warning names

# What clusters that follow a column of this role are clusters of, and what to harmonise by.
WARNED = {"acquisition": ("scanner", "acquisition"), "site": ("site", "site")}


@dataclass(frozen=True)
class Difference:
    """What a test finds between clusters.

    Attributes
    ----------
    test : str
    statistic : float
        Chi-square, F or H; NaN for Fisher's test, which has none.
    df : float
        Its degrees of freedom, of F the upper ones; NaN for Fisher's test.
    p_value : float
    effect : float
        From 0 (clusters are alike) to 1 (the cluster gives the value, or the value the cluster).
    effect_name : str
        Cramer's V of counts; eta-squared of quantities, the share of their variance that lies between clusters, of their ranks
        where the test is that of Kruskal and Wallis.
    chi_square_p : float
        Of counts: the chi-square test's, also where counts are too small for it and Fisher's is taken; NaN of quantities.
    """

    test: str
    statistic: float
    df: float
    p_value: float
    effect: float
    effect_name: str
    chi_square_p: float = np.nan

    @property
    def noticeable(self) -> bool:
        """Whether the effect is a medium one or larger: Cramer's V from 0.3, eta-squared from 0.09 (its square)."""
        return self.effect >= (NOTICEABLE if self.effect_name == "Cramer's V" else NOTICEABLE**2)

    @property
    def words(self) -> str:
        """Test, p-value and effect."""
        return f"{self.test} p = {self.p_value:.2g}, {self.effect_name} {self.effect:.2f}"


@dataclass(frozen=True)
class Associations:
    """Clusters against columns.

    Attributes
    ----------
    table : DataFrame, one row per column that could be tested
        column, role, test, statistic, df, p_value, q_value (Benjamini and Hochberg over the columns of the role), chi_square_p
        (of counts, whichever test was taken: what papers print), effect, effect_name, n (patients with a value), missing
        (those without).
    table2 : DataFrame
        The same as a publication prints it, as words but for p and q: characteristic, level, all patients, each cluster (count
        and share of its patients with a value, or median and quartiles), test, p, q.
    not_tested : DataFrame
        column, role, reason.
    warnings : tuple of str
        Where clusters follow how or where patients were measured.
    """

    table: pd.DataFrame
    table2: pd.DataFrame
    not_tested: pd.DataFrame
    warnings: tuple[str, ...]


def associate(
    labels: np.ndarray,
    columns: pd.DataFrame,
    roles: Mapping[str, str],
    rng: np.random.Generator,
    *,
    false_discovery: float = 0.05,
) -> Associations:
    """Test every column for a difference between clusters, in the patients who have a value.

    Words are levels, and so are numbers of which there are five different ones or fewer: :func:`compare_counts`. Other numbers
    are quantities: :func:`compare_quantities`; codes that are none are better written as words. Infinite numbers count as
    missing. Not tested: a column without values, with one value, with values in one cluster only, and words of which more than
    half are different, as names and dates are.

    Clusters follow the scanner (a column of role ``acquisition``) or the site (``site``) where q is at most `false_discovery`
    and the effect is noticeable: a small effect is significant in a large cohort, and a large one is chance in a small one.

    Parameters
    ----------
    labels : ndarray of shape (n_patients,), int
        Cluster of each patient, from 0.
    columns : DataFrame of shape (n_patients, n_columns)
        Numbers or words; gaps are NaN. Rows as in `labels`.
    roles : mapping of str to str
        Of each column: ``clinical``, ``acquisition`` or ``site``.
    rng : Generator
        Draws the tables of Fisher's test.

    Raises
    ------
    InputError
        All patients are in one cluster.

    References
    ----------
    Halle et al. 2024, PMC11101482 (table 2). Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x. Medium effects:
    Cohen 1988, doi:10.4324/9780203771587.

    Examples
    --------
    >>> labels, scanner = np.repeat([0, 1], 20), ["A"] * 19 + ["B"] * 21
    >>> found = associate(labels, pd.DataFrame({"scanner": scanner}), {"scanner": "acquisition"}, np.random.default_rng(0))
    >>> found.warnings[0][:89]
    "Clusters follow the scanner: 'scanner' (chi-square p = 1.8e-09, Cramer's V 0.95) differs "
    """
    labels = np.asarray(labels)
    if len(np.unique(labels)) < 2:
        raise InputError(f"All {len(labels)} patients are in one cluster, so no column can differ; ask for two clusters or more.")
    values = {str(name): _values(column) for name, column in columns.items()}
    reasons = {name: _why_not(labels, column) for name, column in values.items()}
    found = {name: _difference(labels, values[name], rng) for name, reason in reasons.items() if not reason}
    table = _table(found, values, roles)
    left_out = [(name, roles[name], reason) for name, reason in reasons.items() if reason]
    return Associations(
        table,
        _table2(labels, values, table),
        pd.DataFrame(left_out, columns=["column", "role", "reason"]),
        _warnings(found, table, false_discovery),
    )


def compare_counts(counts: np.ndarray, rng: np.random.Generator) -> Difference:
    """Chi-square test, or Fisher's where counts are too small for it.

    Too small by Cochran's rule: less than 5 are expected in more than a fifth of the cells, or less than 1 in one.

    Parameters
    ----------
    counts : array-like of shape (n_levels, n_clusters), int
    rng : Generator
        Draws the tables of Fisher's test where the table is larger than 2 by 2.

    Raises
    ------
    InputError
        As :func:`chi_square`.

    References
    ----------
    Cochran 1954, doi:10.2307/3001616.

    Examples
    --------
    Cylinders by gears in Motor Trend's cars (R's ``mtcars``)

    >>> compare_counts([[1, 8, 2], [2, 4, 1], [12, 0, 2]], np.random.default_rng(0)).test
    "Fisher's exact (9999 random tables)"
    """
    counts = _checked(counts)
    expected = expected_freq(counts)
    enough = (expected >= 5).mean() >= 0.8 and (expected >= 1).all()
    return chi_square(counts) if enough else fisher(counts, rng)


def chi_square(counts: np.ndarray) -> Difference:
    """Pearson's chi-square test of a table of counts, without correction for continuity.

    Parameters
    ----------
    counts : array-like of shape (n_levels, n_clusters), int
        Levels and clusters that no patient has are left out.

    Raises
    ------
    InputError
        A count is negative or not whole, or fewer than two levels or clusters have patients.

    Examples
    --------
    Hair by eye colour of 592 students (R's ``HairEyeColor``)

    >>> counts = [[68, 20, 15, 5], [119, 84, 54, 29], [26, 17, 14, 14], [7, 94, 10, 16]]
    >>> found = chi_square(counts)
    >>> round(found.statistic, 4), found.df, round(found.effect, 3)
    (138.2898, 9.0, 0.279)
    """
    counts = _checked(counts)
    found = chi2_contingency(counts, correction=False)
    p_value = float(found.pvalue)
    return Difference("chi-square", float(found.statistic), float(found.dof), p_value, _cramers_v(counts), "Cramer's V", p_value)


def fisher(counts: np.ndarray, rng: np.random.Generator) -> Difference:
    """Fisher's exact test: exact for a table of 2 by 2, and by 9999 random tables with the same margins for a larger one.

    Parameters
    ----------
    counts : array-like of shape (n_levels, n_clusters), int
    rng : Generator
        Draws the random tables; p is then never below 1 in 10,000.

    Raises
    ------
    InputError
        As :func:`chi_square`.

    Examples
    --------
    >>> round(fisher([[3, 1], [1, 3]], np.random.default_rng(0)).p_value, 4)
    0.4857
    """
    counts = _checked(counts)
    small = counts.shape == (2, 2)
    method = None if small else MonteCarloMethod(n_resamples=RANDOM_TABLES, rng=rng)
    test = "Fisher's exact" if small else f"Fisher's exact ({RANDOM_TABLES} random tables)"
    p_value = np.asarray(fisher_exact(counts, method=method).pvalue).item()  # the random tables give an array of one
    return Difference(test, np.nan, np.nan, p_value, _cramers_v(counts), "Cramer's V", chi_square(counts).p_value)


def compare_quantities(groups: Sequence[np.ndarray]) -> Difference:
    """Analysis of variance where what it supposes is not contradicted, else the test of Kruskal and Wallis.

    It supposes ten patients or more in every cluster, residuals that Shapiro and Wilk's test does not tell from normal ones,
    and variances that Levene's test does not tell apart, each at 5%.

    Parameters
    ----------
    groups : sequence of ndarray
        Values of each cluster's patients, without gaps; not all the same.

    Examples
    --------
    Weights of plants under three treatments (R's ``PlantGrowth``)

    >>> control = np.array([4.17, 5.58, 5.18, 6.11, 4.5, 4.61, 5.17, 4.53, 5.33, 5.14])
    >>> first = np.array([4.81, 4.17, 4.41, 3.59, 5.87, 3.83, 6.03, 4.89, 4.32, 4.69])
    >>> second = np.array([6.31, 5.12, 5.54, 5.5, 5.37, 5.29, 4.92, 6.15, 5.8, 5.26])
    >>> found = compare_quantities([control, first, second])
    >>> found.test, round(found.p_value, 5), round(found.effect, 4)
    ('ANOVA', 0.01591, 0.2641)
    """
    if min(map(len, groups)) < FEWEST_FOR_ANOVA or not _looks_normal(groups):
        return kruskal_wallis(groups)
    found = f_oneway(*groups)
    return Difference(
        "ANOVA", float(found.statistic), len(groups) - 1.0, float(found.pvalue), _eta_squared(groups), "eta-squared"
    )


def kruskal_wallis(groups: Sequence[np.ndarray]) -> Difference:
    """The test of Kruskal and Wallis, tied values sharing their mean rank.

    Parameters
    ----------
    groups : sequence of ndarray
        Values of each cluster's patients, without gaps; not all the same.

    Examples
    --------
    >>> round(kruskal_wallis([np.array([1, 2, 3]), np.array([4, 5, 6])]).statistic, 4)
    3.8571
    """
    found = kruskal(*groups)
    ranks = np.split(rankdata(np.concatenate(groups)), np.cumsum([len(group) for group in groups])[:-1])
    return Difference(
        "Kruskal-Wallis", float(found.statistic), len(groups) - 1.0, float(found.pvalue), _eta_squared(ranks), "eta-squared"
    )


def _looks_normal(groups: Sequence[np.ndarray]) -> bool:
    residuals = np.concatenate([group - group.mean() for group in groups])
    if len(residuals) > MOST_FOR_SHAPIRO or np.ptp(residuals) == 0 or shapiro(residuals).pvalue < ALPHA:
        return False
    return bool(levene(*groups).pvalue >= ALPHA)


def _eta_squared(groups: Sequence[np.ndarray]) -> float:
    values = np.concatenate(groups)
    between = sum(len(group) * (group.mean() - values.mean()) ** 2 for group in groups)
    return float(between / ((values - values.mean()) ** 2).sum())


def _cramers_v(counts: np.ndarray) -> float:
    statistic = chi2_contingency(counts, correction=False).statistic
    return float(np.sqrt(statistic / (counts.sum() * (min(counts.shape) - 1))))


def _checked(counts: np.ndarray) -> np.ndarray:
    """Whole counts without empty levels and clusters."""
    counts = np.asarray(counts)
    if counts.ndim != 2 or (counts < 0).any() or (counts != np.floor(counts)).any():
        raise InputError("A table of counts needs one whole number from 0 per level and cluster.")
    counts = counts.astype(int)[:, counts.any(axis=0)][counts.any(axis=1)]
    if min(counts.shape) < 2:
        raise InputError(
            f"A table of {counts.shape[0]} levels by {counts.shape[1]} clusters with patients has nothing to compare."
        )
    return counts


def _values(column: pd.Series) -> pd.Series:
    """Finite numbers, or words; what is neither is missing."""
    numbers = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if numbers:
        return column.astype(float).replace([np.inf, -np.inf], np.nan)
    return column.astype(object).map(str, na_action="ignore")


def _of_words(values: pd.Series) -> bool:
    return values.dtype == object


def _of_levels(values: pd.Series) -> bool:
    # The few values of a few patients are a quantity's nevertheless, and theirs alone.
    return _of_words(values) or values.nunique() <= min(FEW_VALUES, values.notna().sum() / 2)


def _why_not(labels: np.ndarray, values: pd.Series) -> str:
    """Why a column cannot be tested; nothing where it can."""
    known, different = values.notna().to_numpy(), values.nunique()
    if not known.any():
        return "it has no value"
    if different == 1:
        return "it is the same in all patients who have it"
    if len(np.unique(labels[known])) == 1:
        return "only patients of one cluster have it"
    if _of_words(values) and 2 * different > known.sum():
        return f"{different} of {known.sum()} values are different words, as in a name or a date"
    return ""


def _difference(labels: np.ndarray, values: pd.Series, rng: np.random.Generator) -> Difference:
    known = values.notna().to_numpy()
    labels, values = labels[known], values[known]
    if _of_levels(values):
        return compare_counts(pd.crosstab(values.to_numpy(), labels).to_numpy(), rng)
    return compare_quantities([values.to_numpy()[labels == cluster] for cluster in np.unique(labels)])


def _table(found: Mapping[str, Difference], values: Mapping[str, pd.Series], roles: Mapping[str, str]) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "column": list(found),
            "role": [roles[name] for name in found],
            "test": [one.test for one in found.values()],
            "statistic": [one.statistic for one in found.values()],
            "df": [one.df for one in found.values()],
            "p_value": [one.p_value for one in found.values()],
            "q_value": np.nan,
            "chi_square_p": [one.chi_square_p for one in found.values()],
            "effect": [one.effect for one in found.values()],
            "effect_name": [one.effect_name for one in found.values()],
            "n": [int(values[name].notna().sum()) for name in found],
            "missing": [int(values[name].isna().sum()) for name in found],
        }
    )
    for _, rows in table.groupby("role"):
        table.loc[rows.index, "q_value"] = false_discovery_control(rows["p_value"].to_numpy())
    return table


def _warnings(found: Mapping[str, Difference], table: pd.DataFrame, false_discovery: float) -> tuple[str, ...]:
    noticeable = np.array([one.noticeable for one in found.values()], dtype=bool)
    followed = table[(table["q_value"] <= false_discovery) & noticeable].sort_values("p_value")
    return tuple(
        _warning({name: found[name] for name in followed["column"][followed["role"] == role]}, *words)
        for role, words in WARNED.items()
        if (followed["role"] == role).any()
    )


def _warning(found: Mapping[str, Difference], thing: str, way_out: str) -> str:
    named = [f"{name!r} ({one.words})" for name, one in found.items()]
    more = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
    *others, last = named[:MOST_NAMED] + more
    listed = f"{', '.join(others)} and {last} differ" if others else f"{last} differs"
    return (
        f"Clusters follow the {thing}: {listed} between clusters; harmonise by {way_out}, or they are of the {thing} and not of "
        "the tumour."
    )


def _table2(labels: np.ndarray, values: Mapping[str, pd.Series], table: pd.DataFrame) -> pd.DataFrame:
    clusters = range(labels.max() + 1)
    groups = {f"all (n = {len(labels)})": np.ones(len(labels), dtype=bool)}
    groups |= {f"cluster {one + 1} (n = {(labels == one).sum()})": labels == one for one in clusters}
    rows = []
    for name, test, p, q in zip(table["column"], table["test"], table["p_value"], table["q_value"], strict=True):
        lines = _printed(values[name], groups)
        first, *others = lines.items()
        rows.append([name, first[0], *first[1], test, p, q])
        rows += [["", level, *cells, "", np.nan, np.nan] for level, cells in others]
    return pd.DataFrame(rows, columns=["characteristic", "level", *groups, "test", "p", "q"])


def _printed(values: pd.Series, groups: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Cells of a column's rows, by level."""
    if _of_levels(values):
        levels = sorted(values.dropna().unique())
        lines = {_level(level): [_share(values[group], level) for group in groups.values()] for level in levels}
    else:
        lines = {"median (quartiles)": [_quartiles(values[group]) for group in groups.values()]}
    gaps = [str(int(values[group].isna().sum())) for group in groups.values()]
    return lines | ({"missing": gaps} if values.isna().any() else {})


def _level(level: object) -> str:
    return f"{level:g}" if isinstance(level, float) else str(level)


def _share(values: pd.Series, level: object) -> str:
    count, known = int((values == level).sum()), int(values.notna().sum())
    return f"{count} ({count / known:.0%})" if known else "-"


def _quartiles(values: pd.Series) -> str:
    if values.isna().all():
        return "-"
    low, middle, high = (_number(value) for value in values.quantile([0.25, 0.5, 0.75]))
    return f"{middle} ({low} to {high})"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
