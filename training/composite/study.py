"""A study of two biomarkers that become one score: what its YAML file can say."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from features.cohort import BinaryEndpoint
from features.errors import InputError
from features.settings import Settings
from features.survival import SurvivalEndpoint
from training.composite.rules import Rule
from training.composite.stacked import Stacked
from training.config import StudyBase
from training.signature_recipe import SignatureRecipe

Hypoxic = Literal["higher", "lower"]
# Fjeldbo et al. 2020: a tumour with more than this share of its voxels below the threshold of ABrix was called hypoxic.
PUBLISHED_FRACTION = 0.27


class ColumnBiomarker(Settings):
    """A column of the table.

    Parameters
    ----------
    hypoxic : {"higher", "lower"}
        Which end of it is more hypoxic; said beforehand, and never chosen by the outcome.
    cutoff : float, optional
        Published value from which on a tumour is called hypoxic; for the four groups, and for the rule that both are high.
    """

    kind: Literal["column"] = "column"
    column: str
    hypoxic: Hypoxic = "higher"
    cutoff: float | None = None
    unit: str | None = None

    @property
    def name(self) -> str:
        """Feature of the composite model."""
        return self.column


class HypoxicFractionBiomarker(Settings):
    """The hypoxic fraction as `hypoxia perfusion` writes it: the share of a tumour's voxels with a low ABrix.

    Parameters
    ----------
    cutoff : float, optional
        Published value from which on a tumour is called hypoxic.
    """

    kind: Literal["hypoxic_fraction"] = "hypoxic_fraction"
    column: str = "hypoxic_fraction"
    cutoff: float | None = PUBLISHED_FRACTION

    hypoxic: Literal["higher"] = "higher"
    unit: Literal["fraction"] = "fraction"

    @property
    def name(self) -> str:
        """Feature of the composite model."""
        return self.column


class SignatureBiomarker(SignatureRecipe):
    """A gene signature, scored against reference values of the training patients of each resample."""

    hypoxic: Literal["higher"] = "higher"
    cutoff: float | None = None

    @property
    def name(self) -> str:
        """Feature of the composite model."""
        return self.signature

    @property
    def unit(self) -> None:
        """A signature's score has none."""
        return


class ModelBiomarker(Settings):
    """The out-of-sample score of a registered model.

    Parameters
    ----------
    model : str
        NAME, NAME:VERSION or NAME@ALIAS.
    cutoff : float, optional
        Left out: the model's own threshold.
    """

    kind: Literal["model"] = "model"
    model: str
    cutoff: float | None = None
    hypoxic: Literal["higher"] = "higher"

    @property
    def name(self) -> str:
        """Feature of the composite model."""
        return self.model.split(":")[0].split("@")[0]

    @property
    def unit(self) -> None:
        """A probability, or a score, has none."""
        return


class VectorBiomarker(Settings):
    """Several columns of one modality, for a composite that is stacked over features.

    Parameters
    ----------
    columns : list of str
        Names, or patterns such as ``t2w_*``.
    """

    kind: Literal["vector"] = "vector"
    columns: tuple[str, ...] = Field(min_length=1)


Biomarker = Annotated[
    ColumnBiomarker | HypoxicFractionBiomarker | SignatureBiomarker | ModelBiomarker | VectorBiomarker,
    Field(discriminator="kind"),
]


class HonestSettings(Settings):
    """How much scrutiny a composite gets.

    Parameters
    ----------
    permutations : int
        Of the outcome, the whole search being repeated in each.
    folds, repeats : int
        Of the cross-validation in which every rule is fitted anew.
    bootstrap : int
        Resamples of patients behind the stability of the line and the intervals.
    level : float
        Coverage that intervals are meant to have.
    """

    permutations: int = Field(default=999, ge=99)
    folds: int = Field(default=10, ge=2)
    repeats: int = Field(default=10, ge=1)
    bootstrap: int = Field(default=500, ge=50)
    level: float = Field(default=0.95, gt=0.5, lt=1)


class CompositeStudy(StudyBase):
    """Everything that decides what a study of a composite score finds.

    Parameters
    ----------
    imaging, genes : mapping
        The two biomarkers: a column, a hypoxic fraction, a signature, or the score of a registered model.
    composite : mapping
        How the two become one; every other rule is judged beside it, in the same resamples.
    missing : {"refuse", "alone"}
        Whether a served model refuses a patient without one of the biomarkers, or judges by the other one's own cutoff.
    """

    kind: Literal["composite"]
    imaging: Biomarker
    genes: Biomarker
    composite: Annotated[Rule | Stacked, Field(discriminator="kind")]
    missing: Literal["refuse", "alone"] = "refuse"
    evaluation: HonestSettings = HonestSettings()

    @model_validator(mode="after")
    def _parts_fit_the_rule(self) -> Self:
        stacked = isinstance(self.composite, Stacked)
        vectors = [isinstance(one, VectorBiomarker) for one in (self.imaging, self.genes)]
        if any(vectors) and not (stacked and all(vectors)):
            raise ValueError("imaging and genes of kind vector need composite.kind: stacked, and then both are vectors")
        if not any(vectors) and self.names[0] == self.names[1]:
            raise ValueError(f"imaging and genes are both {self.names[0]!r}; name two different biomarkers")
        endpoints = (SurvivalEndpoint, BinaryEndpoint) if stacked else SurvivalEndpoint
        if not isinstance(self.cohort.endpoint, endpoints):
            raise ValueError(f"cohort.endpoint.kind must be survival for composite.kind: {self.composite.kind}")
        if self.scores:
            raise ValueError("scores: a composite takes a registered model's score as imaging or genes (kind: model) alone")
        if self.cohort.sequences:
            raise ValueError("cohort.sequences: a composite has one table; join its files under cohort.source.path")
        return self

    @model_validator(mode="after")
    def _recipe_is_of_the_endpoint(self) -> Self:
        if not isinstance(self.composite, Stacked):
            return self
        recipe, survival = self.composite.recipe, isinstance(self.cohort.endpoint, SurvivalEndpoint)
        if recipe.signature:
            raise ValueError("composite.recipe.signature: a stacked composite is searched for; train the signature as a model")
        try:
            recipe.threshold_rule(survival), recipe.selection.needed(survival)
        except InputError as cause:
            raise ValueError(f"composite.{cause}") from cause
        return self

    @property
    def biomarkers(self) -> tuple[Biomarker, Biomarker]:
        """Imaging, then genes."""
        return self.imaging, self.genes

    @property
    def names(self) -> tuple[str, str]:
        """Features of the composite model."""
        names = [one.columns[0] if isinstance(one, VectorBiomarker) else one.name for one in self.biomarkers]
        return names[0], names[1]

    @property
    def signs(self) -> tuple[int, int]:
        """1 where more of a biomarker is more hypoxic, -1 where less is."""
        imaging, genes = (-1 if getattr(one, "hypoxic", "higher") == "lower" else 1 for one in self.biomarkers)
        return imaging, genes
