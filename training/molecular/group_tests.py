"""Whether values of patients differ between their groups, by ranks."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, kruskal, mannwhitneyu

from training.molecular.grouping import group_names


def compare_groups(values: pd.DataFrame, groups: pd.Series, false_discovery: float = 0.05) -> pd.DataFrame:
    """Compare each column between groups: two by Mann-Whitney's test, more by Kruskal and Wallis's; both allow for ties.

    Parameters
    ----------
    values : DataFrame of shape (n_patients, n_columns)
        A missing value leaves its patient out of that column.
    groups : Series of str
        By patient; in the order of its categories if it has such.
    false_discovery : float
        Rate among the columns (Benjamini-Hochberg) below which one is ``associated``.

    Returns
    -------
    DataFrame
        Index: the columns, by p value. ``patients``; ``median GROUP`` per group; ``superiority``, of two groups: the probability
        that a patient of the second has the higher value (ties count half; 0.5: no difference); ``test``; ``p_value``,
        two-sided; ``q_value``; ``associated``. A column without values in a group, or with one value alone, is not tested.

    Examples
    --------
    >>> values = pd.DataFrame({"HIF1A": [0, 1, 1, 2, 3, 3, 2, 3], "flat": 1})
    >>> found = compare_groups(values, pd.Series(["low"] * 4 + ["more"] * 4))
    >>> found[["median low", "median more", "superiority", "p_value"]].round(3).to_numpy().tolist()[0]
    [1.0, 3.0, 0.969, 0.036]
    """
    known = groups.reindex(values.index)
    names = group_names(known)
    table = pd.DataFrame([_row(values[name], known, names) for name in values.columns], index=values.columns.rename("name"))
    tested = table["p_value"].notna()
    table["q_value"] = np.nan
    if tested.any():
        table.loc[tested, "q_value"] = false_discovery_control(table.loc[tested, "p_value"])
    table["associated"] = table["q_value"] <= false_discovery
    return table.sort_values("p_value", kind="stable")


def _row(values: pd.Series, groups: pd.Series, names: list[str]) -> dict[str, float | str]:
    there = values.notna() & groups.notna()
    parts = [values[there & (groups == name)].to_numpy(dtype=float) for name in names]
    medians = {f"median {name}": float(np.median(part)) if len(part) else np.nan for name, part in zip(names, parts, strict=True)}
    return {"patients": int(there.sum()), **medians, **_tested(parts)}


def _tested(parts: list[np.ndarray]) -> dict[str, float | str]:
    if len(parts) < 2 or not all(map(len, parts)) or np.ptp(np.concatenate(parts)) == 0:
        return {"superiority": np.nan, "test": "", "p_value": np.nan}
    if len(parts) > 2:
        return {"superiority": np.nan, "test": "Kruskal-Wallis", "p_value": float(kruskal(*parts).pvalue)}
    found = mannwhitneyu(parts[1], parts[0])
    share = float(found.statistic) / (len(parts[0]) * len(parts[1]))
    return {"superiority": share, "test": "Mann-Whitney", "p_value": float(found.pvalue)}
