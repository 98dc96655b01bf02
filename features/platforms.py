"""Expression platforms brought together: every gene re-centred by what the platform's reference samples have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from features.feature import Feature
from features.harmonise import CombatHarmoniser, RegressionHarmoniser, SiteAlignment, _means, _spread


class PlatformCentring(SiteAlignment):
    """Each gene shifted, for each platform, so that its reference samples have the mean of all; optionally scaled too.

    What ``SiteAlignment`` does, without a prior: the difference of two platforms in one gene is that of its probes and says
    nothing of other genes. It rests on reference samples of every platform that are alike in what is measured, and takes
    out of the data what differs between their patients. A new platform is added with ``adapted``, from reference samples of
    it alone; a sample of a platform without them is refused.

    Parameters
    ----------
    site : int, optional
        Position of the column with the platform's code; None: one platform, nothing to do.
    unseen_site : {"refuse", "reference", "adapt"}
    reference : int, optional
        Code of the platform to whose scale the others are brought; None: to that of all together.
    minimum_cases : int
        Reference samples that adding a platform needs.
    site_names : sequence of str
        Names of the platforms by code, for messages.
    scale : bool
        Whether a gene's spread (standard deviation, ddof 1) is made that within platforms, too.

    Attributes
    ----------
    sites_, slopes_, shifts_, grand_mean_, pooled_sd_
        As in ``SiteAlignment``.

    References
    ----------
    Sims et al. 2008 (mean-centring of platforms), doi:10.1186/1755-8794-1-42.

    Examples
    --------
    >>> X = np.array([[8.0, 0], [9, 0], [10, 0], [1, 1], [2, 1], [3, 1]])
    >>> PlatformCentring(site=1).fit_transform(X).ravel()
    array([4.5, 5.5, 6.5, 4.5, 5.5, 6.5])
    """

    def __init__(
        self,
        site: int | None = None,
        unseen_site: Literal["refuse", "reference", "adapt"] = "refuse",
        reference: int | None = None,
        minimum_cases: int = 20,
        site_names: Sequence[str] = (),
        scale: bool = False,
    ) -> None:
        super().__init__(site, unseen_site, reference, minimum_cases, site_names)
        self.scale = scale

    def refusal(self, site: str | None) -> str:
        """Why a sample of a platform without reference samples is refused, and the way out."""
        seen = ", ".join(self._name(one) for one in self.sites_)
        who = "A sample without a platform" if site is None else f"Platform {site!r}"
        how = "Adapt the model to" if self.unseen_site == "adapt" else "Train one with unseen_site: adapt and give it"
        way_out = f"{how} at least {self.minimum_cases} reference samples measured on it"
        return f"{who} has no stored reference (there is one of: {seen}), and a single sample is not its own. {way_out}."

    @property
    def words(self) -> str:
        """What it does, as a clause for a report."""
        return f"re-centring{' and re-scaling' if self.scale else ''} of each gene over {len(self.sites_)} platforms"

    def _line_of(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slope and shift of a platform: no gene learns from another."""
        centre = _means(features, self.grand_mean_)
        spread = _spread(features, centre, 1)
        scaled = np.logical_and(self.scale, (spread > 0) & (self.pooled_sd_ > 0))
        slope = np.divide(self.pooled_sd_, spread, out=np.ones_like(spread), where=scaled)
        return slope, self.grand_mean_ - centre * slope


class PlatformHarmoniser(CombatHarmoniser):
    """Re-centring of every gene by the platform that it was measured on, named by ``cohort.site``.

    Parameters
    ----------
    unseen_site : {"adapt", "refuse", "reference"}
        As for ComBat. A sample of an unknown platform is refused with the first two; only with the first may a platform be
        added later.
    scale : bool
        Whether genes are brought to a common spread, too.
    """

    kind: Literal["platform"] = "platform"  # type: ignore[assignment]  # one of the union's, not a kind of ComBat
    unseen_site: Literal["refuse", "reference", "adapt"] = "adapt"
    scale: bool = False

    def estimator(self, features: Sequence[Feature], inputs: Sequence[Feature]) -> PlatformCentring:
        """The transformer of a matrix of the genes and then the platform."""
        levels = inputs[0].levels
        reference = None if self.reference is None else levels.index(self.reference)
        return PlatformCentring(len(features), self.unseen_site, reference, self.minimum_cases, levels, self.scale)


Harmoniser = Annotated[RegressionHarmoniser | CombatHarmoniser | PlatformHarmoniser, Field(discriminator="kind")]
