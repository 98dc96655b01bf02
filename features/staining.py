"""Immunohistochemical staining to a hypoxia label, as pathologists score it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from features.errors import InputError, did_you_mean
from features.settings import Settings

if TYPE_CHECKING:
    from features.cohort import Labelling

INTENSITIES = (0, 1, 2, 3)
PROPORTIONS = (0, 1, 2, 3)
HIGHEST = 9

Columns = str | Annotated[tuple[str, ...], Field(min_length=1)]


def staining_index(intensity: pd.Series, proportion: pd.Series) -> pd.Series:
    """Intensity times proportion class.

    Parameters
    ----------
    intensity : Series of shape (n_slides,)
        0 none, 1 weak, 2 moderate, 3 strong.
    proportion : Series of shape (n_slides,)
        Class of the proportion of stained cells, 1 to 3; 0 only where nothing is stained (intensity 0).

    Returns
    -------
    Series of shape (n_slides,), float
        0 to 9; 0 where nothing is stained, whatever the proportion; NaN where the slide was not scored.

    Raises
    ------
    InputError
        A score is outside of its scale, or only half of a slide was scored.

    References
    ----------
    Bodalal et al. 2023, doi:10.1186/s13244-023-01474-x

    Examples
    --------
    >>> staining_index(pd.Series([0, 1, 3, 2]), pd.Series([0, 3, 3, 1])).tolist()
    [0.0, 3.0, 9.0, 2.0]
    """
    strength = _scores(intensity, INTENSITIES, "intensity")
    share = _scores(proportion, PROPORTIONS, "proportion")
    half = (strength.isna() & share.notna()) | (share.isna() & (strength > 0))
    if half.any():
        empty = intensity if np.isnan(strength[half].iloc[0]) else proportion
        raise InputError(
            f"Sample {_shown(strength.index[half][0])} has no value in {empty.name!r} though its other score is there; score the "
            "slide in full, or empty both cells."
        )
    nowhere = (strength > 0) & (share == 0)
    if nowhere.any():
        raise InputError(
            f"Sample {_shown(strength.index[nowhere][0])} has intensity {strength[nowhere].iloc[0]:g} in {intensity.name!r} but "
            f"proportion 0 in {proportion.name!r}; what is stained has a proportion of 1 to 3."
        )
    return (strength * share.where(strength > 0, 0.0)).rename("staining_index")


def lesion_index(slides: pd.DataFrame, lesion: str, intensity: str, proportion: str) -> pd.Series:
    """The highest staining index of the slides of each lesion.

    Parameters
    ----------
    slides : DataFrame of shape (n_slides, n_columns)
        One row per slide.
    lesion, intensity, proportion : str
        Columns.

    Returns
    -------
    Series of shape (n_lesions,), float
        In order of first appearance; NaN where no slide was scored.

    Raises
    ------
    InputError
        A column is missing, a slide names no lesion, or a score is outside of its scale.

    Examples
    --------
    >>> slides = pd.DataFrame({"lesion": ["a", "b", "a"], "intensity": [1, 0, 2], "proportion": [2, 0, 3]})
    >>> lesion_index(slides, "lesion", "intensity", "proportion").to_dict()
    {'a': 6.0, 'b': 0.0}
    """
    names = _column(slides, lesion)
    if names.isna().any():
        raise InputError(
            f"Row {_shown(names.index[names.isna()][0])} has no value in {lesion!r}; say which lesion the slide is of."
        )
    index = staining_index(_column(slides, intensity).set_axis(names), _column(slides, proportion).set_axis(names))
    return index.groupby(level=0, sort=False).max()


class StainingEndpoint(Settings):
    """Hypoxia status by immunohistochemistry: staining index (intensity times proportion class) at or above a cut-off.

    Parameters
    ----------
    intensity, proportion : str or list of str
        Column of each; of several slides of a lesion, lists of columns in the same order: the highest index counts.
    cutoff : float
        Lowest index (0 to 9) that is called high.
    """

    kind: Literal["staining"] = "staining"
    intensity: Columns
    proportion: Columns
    cutoff: float = Field(default=3, gt=0, le=HIGHEST)

    @model_validator(mode="after")
    def _a_pair_of_columns_per_slide(self) -> Self:
        intensities, proportions = _names(self.intensity), _names(self.proportion)
        if len(intensities) != len(proportions):
            raise ValueError(
                f"{len(intensities)} intensity and {len(proportions)} proportion columns; name a pair for each slide"
            )
        twice = [name for name in self.columns if self.columns.count(name) > 1]
        if twice:
            raise ValueError(f"column {twice[0]!r} is named twice; each score has a column of its own")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the label is made from."""
        return (*_names(self.intensity), *_names(self.proportion))

    def label(self, frame: pd.DataFrame) -> Labelling:
        """1 where the highest index of a sample's slides is at or above the cut-off, NaN where no slide was scored."""
        from features.cohort import Labelling

        pairs = zip(_names(self.intensity), _names(self.proportion), strict=True)
        slides = [staining_index(_column(frame, strength), _column(frame, share)) for strength, share in pairs]
        index = pd.concat(slides, axis=1).max(axis=1)
        labels = (index >= self.cutoff).astype(float).where(index.notna())
        if labels.nunique() < 2:
            found = ", ".join(f"{value:g}" for value in sorted(index.dropna().unique())) or "none"
            raise InputError(
                f"Only one class is left: with cutoff: {self.cutoff:g} the staining indices there ({found}) are all on one side. "
                "Set cohort.endpoint.cutoff to an index between them, or add the missing class."
            )
        return Labelling(labels, self.columns)


def _names(columns: str | Sequence[str]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)


def _column(frame: pd.DataFrame, name: str) -> pd.Series:
    if name not in frame.columns:
        raise InputError(f"Column {name!r} of staining scores is not in the table{did_you_mean(name, list(frame.columns))}.")
    return frame[name]


def _scores(values: pd.Series, scale: tuple[int, ...], what: str) -> pd.Series:
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = values.notna() & ~numbers.isin(scale)
    if wrong.any():
        raise InputError(
            f"Sample {_shown(values.index[wrong][0])} has {_shown(values[wrong].iloc[0])} in {values.name!r}; {what} is one of "
            f"{', '.join(map(str, scale))}."
        )
    return numbers.astype(float)


def _shown(value: object) -> str:
    return repr(value.item() if isinstance(value, np.generic) else value)
