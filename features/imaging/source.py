"""A study's images as the source of its features: light, so that reading a study needs no imaging library."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from features.errors import InputError
from features.extracted import read_record
from features.imaging.manifest import load_manifest
from features.imaging.profiles import find_profile
from features.imaging.settings import Extraction, MaskSettings
from features.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

Paths = str | tuple[str, ...]
PATIENT = "patient"  # as extracted tables call the column


class ImageSource(Settings):
    """Images with masks, from which `hypoxia extract` (and `hypoxia train`, if need be) measures the features.

    Parameters
    ----------
    manifest : str
        CSV with columns sample, patient, sequence, image, mask, label, reference; `hypoxia manifest FOLDER` drafts one.
    profile : str
        What is measured: a name that `hypoxia profiles` lists, or a PyRadiomics parameter file (.yaml).
    output : str
        Folder for the tables, the pictures, and what is kept so that nothing is measured twice.
    sequences : list of str
        Sequences of the manifest to measure; all of them if none is named.
    masks : mapping
        What becomes of masks in which something is odd.
    table : str or list of str
        Tables with the outcome and whatever else is known of the samples, joined on the sample's name.
    sample : str
        Column of these tables with the sample's name.
    """

    kind: Literal["images"] = "images"
    manifest: str
    profile: str
    output: str = "extracted"
    sequences: tuple[str, ...] = ()
    masks: MaskSettings = MaskSettings()
    table: Paths = ()
    sample: str = "sample"

    def extraction(self, folder: Path) -> Extraction:
        """What decides the features' values."""
        return Extraction(profile=find_profile(self.profile, folder), masks=self.masks, sequences=self.sequences)

    def read(self, folder: Path, more: Paths = (), text: tuple[str, ...] = ()) -> pd.DataFrame:
        """Extracted features with the tables joined to them, indexed by sample.

        Parameters
        ----------
        more : str or tuple of str
            Sequences of which alone the features are wanted.

        Raises
        ------
        InputError
            The features are not extracted yet, or not from this manifest with these settings.
        """
        from features.sources import TableSource

        if more and find_profile(self.profile, folder).joint:
            raise InputError(f"Profile {self.profile} measures its sequences together, as one table; leave cohort.sequences out.")
        names = _as_tuple(more) or ("features",)
        tables = [f"{self.output}/{name}.parquet" for name in names]
        self._refuse_stale(folder, tables)
        # Written when the protocol is known of any case.
        tables += [name for name in (f"{self.output}/acquisition.parquet",) if (folder / name).is_file()]
        extracted = TableSource(path=tuple(tables), sample="sample").read(folder)
        if not self.table:
            return extracted
        known = TableSource(path=self.table, sample=self.sample).read(folder, text=(*text, PATIENT))
        return TableSource.joined(extracted, known, "the tables of cohort.source.table")

    def _refuse_stale(self, folder: Path, tables: list[str]) -> None:
        wanted, manifest = self.extraction(folder), load_manifest(folder / self.manifest)
        for table in tables:
            record = read_record(folder / table)
            if record is None or not (folder / table).is_file():
                raise InputError(f"{table} is not there: its features are not extracted yet; run `hypoxia extract` on the study.")
            if (record.settings_hash, record.manifest_hash) != (wanted.hash, manifest.hash):
                raise InputError(f"{table} was made with other settings or from another manifest; run `hypoxia extract` again.")


def _as_tuple(paths: Paths) -> tuple[str, ...]:
    return (paths,) if isinstance(paths, str) else tuple(paths)
