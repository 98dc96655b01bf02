"""Named features, and the contract between what a model was trained on and what it is asked to score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from functools import cached_property
from itertools import zip_longest
from typing import Self

import numpy as np
import pandas as pd
from pydantic import model_validator

from features.errors import InputError, SchemaMismatchError, did_you_mean
from features.feature import Feature
from features.settings import Settings

MOST_HINTS = 5
LONGEST_WORD = 40


class FeatureSchema(Settings):
    """The features of a model, in the order in which it takes them.

    Examples
    --------
    >>> schema = FeatureSchema.of(["volume", "entropy"])
    >>> schema.matrix([{"entropy": 4.2, "volume": 1.5}])
    array([[1.5, 4.2]])
    """

    features: tuple[Feature, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> Self:
        """Schema of features of which only the names are known."""
        return cls(features=tuple(Feature(name=str(name)) for name in names))

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        if len(set(self.names)) != len(self.names):
            raise ValueError("feature names must be unique")
        return self

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(feature.name for feature in self.features)

    def conform(self, rows: pd.DataFrame, *, impute: bool = False) -> pd.DataFrame:
        """Take the model's features out of a wider table, by name, in the model's order.

        Parameters
        ----------
        rows : DataFrame of shape (n_samples, at least n_features)
            Other columns are left out; the order of columns does not matter. A feature with levels is a column of words, or
            of the positions of words.
        impute : bool
            Whether the model fills an empty cell; text in a cell is not empty.

        Returns
        -------
        DataFrame of shape (n_samples, n_features), float
            ``conform(conform(rows))`` equals ``conform(rows)``.

        Raises
        ------
        SchemaMismatchError
            A feature is missing, twice there, not a number or not finite, or a word that is not among its levels.
        """
        faults = self._missing(rows.columns)
        faults += [(name, "is there twice") for name in rows.columns[rows.columns.duplicated()] if name in self.names]
        if faults:
            raise SchemaMismatchError(faults)
        given = self._coded(rows.loc[:, list(self.names)])
        values = given.apply(pd.to_numeric, errors="coerce").astype(float)
        nullable = np.array([feature.may_be_missing(impute) for feature in self.features], dtype=bool)
        good = np.isfinite(values.to_numpy()) | (given.isna().to_numpy() & nullable)
        if not good.all():
            reasons = {
                True: "has a value that is not a finite number",
                False: "has a value that is missing or is not a finite number",
            }
            per_feature = zip(self.names, good.all(axis=0), nullable.tolist(), strict=True)
            raise SchemaMismatchError([(name, reasons[empty]) for name, fine, empty in per_feature if not fine])
        return values

    @cached_property
    def with_levels(self) -> tuple[Feature, ...]:
        """Features that take words."""
        return tuple(feature for feature in self.features if feature.levels)

    def _coded(self, given: pd.DataFrame) -> pd.DataFrame:
        words = [feature for feature in self.with_levels if not pd.api.types.is_numeric_dtype(given[feature.name])]
        codes = {}
        for feature in words:
            present = given[feature.name].dropna().astype(str)
            coded = present.map(feature.code)
            if coded.isna().any():
                raise SchemaMismatchError([(feature.name, not_a_level(present[coded.isna()].iloc[0], feature))])
            codes[feature.name] = coded.astype(float).reindex(given.index)
        return given.assign(**codes)

    def matrix(self, rows: Sequence[Mapping[str, float]]) -> np.ndarray:
        """Rows of named numbers, of exactly the model's features, as a matrix (the endpoint's way in).

        Parameters
        ----------
        rows : sequence of mappings from feature name to value
            Keys in any order.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float

        Raises
        ------
        SchemaMismatchError
            A feature is missing, unknown or not finite.
        """
        faults: list[tuple[str, str]] = []
        for row in rows:
            if len(row) != len(self.names) or any(name not in row for name in self.names):
                faults += self._missing(row) + self._unknown(row)
        if faults:
            raise SchemaMismatchError(faults)
        values = np.array([[row[name] for name in self.names] for row in rows], dtype=float).reshape(len(rows), -1)
        bad = sorted(set(np.nonzero(~np.isfinite(values))[1].tolist()))
        if bad:
            raise SchemaMismatchError([(self.names[column], "is not a finite number") for column in bad])
        return values

    def _missing(self, given: Sequence[str] | Mapping[str, float] | pd.Index) -> list[tuple[str, str]]:
        return [(name, "is missing") for name in self.names if name not in given]

    def _unknown(self, row: Mapping[str, float]) -> list[tuple[str, str]]:
        known = set(self.names)
        unknown = [name for name in row if name not in known]
        hints = [did_you_mean(name, self.names) for name in unknown[:MOST_HINTS]]  # each looks at all names of the model
        return [(name, f"is not a feature of this model{hint}") for name, hint in zip_longest(unknown, hints, fillvalue="")]


@dataclass(frozen=True)
class FeatureTable:
    """Features of samples: a float frame whose columns are the schema's names and whose index is unique.

    Attributes
    ----------
    values : DataFrame of shape (n_samples, n_features), float
        Index: sample names. Missing values are NaN.
    described : mapping of str to Feature
        What is known of some of the features beyond their names.
    """

    values: pd.DataFrame
    described: Mapping[str, Feature] = dataclass_field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.values.index.has_duplicates:
            twice = self.values.index[self.values.index.duplicated()][0]
            raise InputError(f"Sample {twice!r} is in the table twice; give every row its own name in the sample column.")

    @cached_property
    def schema(self) -> FeatureSchema:
        """The columns as a schema, with what is known of each."""
        return FeatureSchema(features=tuple(self.feature(name) for name in self.values.columns))

    def feature(self, name: str) -> Feature:
        """What is known of a column."""
        return self.described.get(name) or Feature(name=str(name))

    def subset(self, samples: pd.Index) -> FeatureTable:
        """The same features of these samples only, in this order."""
        return FeatureTable(self.values.loc[samples], self.described)


def not_a_level(word: str, feature: Feature) -> str:
    """What is wrong with a word that a feature does not take."""
    shown = ", ".join(feature.levels[:MOST_HINTS]) + (", ..." if len(feature.levels) > MOST_HINTS else "")
    return f"is {word[:LONGEST_WORD]!r}, which was not seen in training (seen: {shown})"
