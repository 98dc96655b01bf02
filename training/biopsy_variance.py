"""Variance of biopsies within and between tumours, by two methods, with what several biopsies would make of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.bundle import Estimate
from features.heterogeneity import Components, empirical_logit, share_interval, variance_components

FEW_BIOPSIES = (2, 3, 4)


@dataclass(frozen=True)
class Variance:
    """Variance within and between tumours, by two methods.

    Attributes
    ----------
    values : ndarray of shape (n_samples,)
        What was analysed: as given, or its empirical logit.
    tumour : ndarray of shape (n_samples,)
    anova, reml : Components
    within_share : Estimate
        By analysis of variance, with its interval over tumours.
    of_logit : bool
        Whether the values were fractions of voxels.
    """

    values: np.ndarray
    tumour: np.ndarray
    anova: Components
    reml: Components
    within_share: Estimate
    of_logit: bool

    def table(self) -> pd.DataFrame:
        """A row per method: within, between, within_share, its interval, and the share with the mean of 2, 3 and 4 biopsies."""
        interval = {"anova": (self.within_share.lower, self.within_share.upper), "reml": (None, None)}
        return pd.DataFrame(
            {
                "method": found.method,
                "within": found.within,
                "between": found.between,
                "within_share": found.within_share,
                "lower": interval[found.method][0],
                "upper": interval[found.method][1],
                **{f"share_of_{biopsies}_biopsies": found.reduced(biopsies) for biopsies in FEW_BIOPSIES},
            }
            for found in (self.anova, self.reml)
        )


def analyse_variance(
    values: np.ndarray, tumour: np.ndarray, voxels: np.ndarray | None, rng: np.random.Generator, resamples: int = 1000
) -> Variance:
    """Part the variance of samples of tumours, by analysis of variance and by restricted maximum likelihood.

    Parameters
    ----------
    values, tumour : ndarray of shape (n_samples,)
    voxels : ndarray of shape (n_samples,), optional
        The values are fractions of so many voxels, and their empirical logit is analysed.

    Raises
    ------
    InputError
        The values cannot be parted so.
    """
    analysed = values if voxels is None else empirical_logit(values, voxels)
    anova, reml = variance_components(analysed, tumour), variance_components(analysed, tumour, "reml")
    share = share_interval(analysed, tumour, rng, resamples)
    return Variance(analysed, tumour, anova, reml, share, voxels is not None)
