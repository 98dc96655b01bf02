"""What a number of a patient is; light, since whoever lists features needs no tables."""

from __future__ import annotations

from typing import Literal

from features.settings import Settings


class Feature(Settings):
    """One number per sample, and what it is.

    Attributes
    ----------
    unit : str or None
        None: dimensionless or unknown.
    reference : str or None
        Identifier in a public nomenclature (IBSI, HGNC).
    sequence : str or None
        Imaging sequence that it was measured in.
    family : str or None
        Family of radiomic features (glcm, shape, ...); ``diagnostics`` and ``acquisition`` are no biomarkers.
    levels : tuple of str
        Words that it takes in place of numbers, where it does: it then counts as the position of the word.
    unseen : str or None
        Which of these words stands for any other; None: another word is refused.
    missing : {"refuse", "impute"} or None
        What becomes of an empty value, where that is not as for the model's other features.
    """

    name: str
    unit: str | None = None
    reference: str | None = None
    sequence: str | None = None
    family: str | None = None
    levels: tuple[str, ...] = ()
    unseen: str | None = None
    missing: Literal["refuse", "impute"] | None = None

    def may_be_missing(self, impute: bool) -> bool:
        """Whether it takes an empty value in a model that imputes, or not, its features in general."""
        return impute if self.missing is None else self.missing == "impute"

    def code(self, word: str) -> int | None:
        """Position of a word among the levels; None if it is not among them and nothing stands for it.

        Examples
        --------
        >>> Feature(name="site", levels=("A", "B"), unseen="A").code("C")
        0
        """
        known = word if word in self.levels else self.unseen
        return None if known is None else self.levels.index(known)
