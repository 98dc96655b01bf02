"""What is wrong with a table before anything is learnt from it."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from features.cohort import Cohort
from features.settings import Settings

OUTCOME_LIKE_AUC = 0.99
TIME_LIKE_CORRELATION = 0.95
FEW_PER_CLASS = 10
# Two rounded numbers of different patients are often equal.
FEWEST_TO_TELL_A_COPY = 3
NAMED_SO = re.compile(r"(^|[^a-z])(id|pid|uid|mrn|nr|no|number|index|case|record)([^a-z]|$)", re.IGNORECASE)


class Audit(Settings):
    """What was found in a cohort's table, by column or sample name.

    Attributes
    ----------
    outcome_like : dict of str to float
        Columns that alone give an area under the ROC curve above 0.99 (either direction), with that area.
    identifier_like : tuple of str
        Columns of whole numbers that never repeat, and lie close together or are named so.
    duplicate_columns : dict of str to str
        Column to the earlier column with the same values.
    duplicate_rows : tuple of tuple of str
        Groups of samples with the same features that count as different patients.
    """

    samples: int
    events: int
    patients: int
    features: int
    most_samples_per_patient: int
    missing_values: int
    columns_with_missing_values: dict[str, int]
    constant_columns: tuple[str, ...]
    duplicate_columns: dict[str, str]
    identifier_like: tuple[str, ...]
    outcome_like: dict[str, float]
    duplicate_rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    survival: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence per finding that can make an estimate wrong."""
        found = list(self.notes)
        if self.outcome_like:
            times = f", or rank correlation with the times above {TIME_LIKE_CORRELATION}" if self.survival else ""
            found.append(
                f"{_names(self.outcome_like)} tell the outcome almost perfectly (AUC above {OUTCOME_LIKE_AUC}{times}): "
                "is this the outcome itself, or measured after it? If so, name it under cohort.drop."
            )
        if self.identifier_like:
            found.append(f"{_names(self.identifier_like)} look like identifiers; name them under cohort.drop.")
        if self.duplicate_rows:
            count = sum(len(group) for group in self.duplicate_rows)
            found.append(
                f"{count} samples have the same features as another sample of a different patient (audit.json and `hypoxia check "
                "--json` name them): a copy on both sides of a split makes estimates too good. "
                "Remove copies, or say whose they are with cohort.patient."
            )
        return tuple(found)


def audit(cohort: Cohort) -> Audit:
    """Look through a cohort's table for what would mislead a model, and learn nothing.

    Examples
    --------
    >>> from features.table import FeatureTable
    >>> frame = pd.DataFrame({"copy": [0.1, 0.2, 0.8, 0.9], "flat": 1.0}, index=list("abcd"))
    >>> labels = pd.Series([0, 0, 1, 1], index=frame.index)
    >>> found = audit(Cohort(FeatureTable(frame), labels, pd.Series(list("abcd"), index=frame.index)))
    >>> found.outcome_like, found.constant_columns
    ({'copy': 1.0}, ('flat',))
    """
    frame = cohort.features
    missing = frame.isna().sum()
    constant = ~(frame.max() > frame.min())
    # Among the few samples that have a rare value any column may part the classes by chance.
    varying = frame.loc[:, ~constant & (frame.notna().mean() >= 0.5)]
    like = outcome_like(varying, cohort)
    return Audit(
        samples=len(frame),
        events=int(cohort.y.sum()),
        patients=cohort.patients.nunique(),
        features=frame.shape[1],
        most_samples_per_patient=int(cohort.patients.value_counts().max()),
        missing_values=int(missing.sum()),
        columns_with_missing_values={str(name): int(count) for name, count in missing[missing > 0].items()},
        constant_columns=tuple(frame.columns[constant]),
        duplicate_columns=_duplicate_columns(frame.loc[:, ~constant]),
        identifier_like=_identifier_like(frame),
        outcome_like={str(name): round(float(value), 4) for name, value in like.items()},
        duplicate_rows=_duplicate_rows(cohort),
        notes=cohort.notes,
        survival=cohort.times is not None,
    )


def few_held_out(labels: pd.Series) -> list[str]:
    """A warning where too few patients of a class are held out for the intervals to say what they seem to.

    Parameters
    ----------
    labels : Series of shape (n_held_out_patients,)
        0 or 1.
    """
    events, others = int((labels == 1).sum()), int((labels == 0).sum())
    if min(events, others) >= FEW_PER_CLASS:
        return []
    return [
        f"Only {events} patients with and {others} without the event are held out: below {FEW_PER_CLASS} of each, intervals are "
        "too narrow, or have no width at all. Rely on the internal estimate, or judge the model on more patients."
    ]


def single_feature_auc(frame: pd.DataFrame, y: np.ndarray) -> pd.Series:
    """Area under the ROC curve of each column alone, missing values left out; NaN where a class has none.

    Parameters
    ----------
    frame : DataFrame of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
        0 or 1.

    Returns
    -------
    Series of shape (n_features,)
        Above 0.5: higher in the event.
    """
    values = frame.to_numpy()
    known = ~np.isnan(values)
    ranks = rankdata(np.where(known, values, np.inf), axis=0)
    positives = (known & (y[:, None] == 1)).sum(axis=0)
    negatives = (known & (y[:, None] == 0)).sum(axis=0)
    rank_sum = np.where(known & (y[:, None] == 1), ranks, 0.0).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        areas = (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
    return pd.Series(np.where((positives > 0) & (negatives > 0), areas, np.nan), index=frame.columns)


def outcome_like(frame: pd.DataFrame, cohort: Cohort) -> pd.Series:
    """Columns that tell the outcome almost perfectly, and how well: by AUC, or by rank correlation with the follow-up.

    An event after the horizon counts as none, so that of times to an event a copy of the column is looked for among the samples
    whose follow-up ended before it.
    """
    areas = single_feature_auc(frame, cohort.y)
    if cohort.times is None or cohort.horizon is None:
        return _strongest(areas)
    early = (cohort.times < cohort.horizon).to_numpy()
    of_event = _strongest(single_feature_auc(frame[early], cohort.y[early]).fillna(areas))
    if cohort.times.nunique() < 2:  # which nothing correlates with
        return of_event
    of_times = frame.corrwith(cohort.times, method="spearman").abs()
    return pd.concat([of_event, of_times[of_times > TIME_LIKE_CORRELATION].drop(of_event.index, errors="ignore")])


def _strongest(areas: pd.Series) -> pd.Series:
    either = areas.where(areas >= 0.5, 1 - areas)
    return either[either > OUTCOME_LIKE_AUC]


def _identifier_like(frame: pd.DataFrame) -> tuple[str, ...]:
    values = frame.to_numpy()
    whole = np.isfinite(values).all(axis=0) & (values == np.round(values)).all(axis=0)
    columns = frame.columns[whole]
    unique = [name for name in columns if len(frame) > 10 and frame[name].is_unique]
    # Radiomic sums are whole numbers that never repeat, too; those that number patients are close together.
    return tuple(name for name in unique if NAMED_SO.search(name) or np.ptp(frame[name].to_numpy()) <= 10 * len(frame))


def _duplicate_columns(frame: pd.DataFrame) -> dict[str, str]:
    hashes = pd.Series([hash(column.tobytes()) for column in np.ascontiguousarray(frame.to_numpy().T)], index=frame.columns)
    first = hashes.drop_duplicates()
    owner = dict(zip(first.to_numpy(), first.index, strict=True))
    return {str(name): str(owner[value]) for name, value in hashes[hashes.duplicated()].items()}


def _duplicate_rows(cohort: Cohort) -> tuple[tuple[str, ...], ...]:
    if cohort.features.shape[1] < FEWEST_TO_TELL_A_COPY:
        return ()
    keys = pd.util.hash_pandas_object(cohort.features, index=False)
    groups = keys[keys.duplicated(keep=False)].groupby(keys, sort=False).groups.values()
    return tuple(tuple(map(str, group)) for group in groups if len(set(cohort.patients.loc[group])) > 1)


def _names(names: object) -> str:
    shown = [repr(name) for name in names]  # type: ignore[attr-defined]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
