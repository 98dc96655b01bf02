"""Virtual biopsies of the tumours of a cohort: maps read one after the other, then compared with each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import SimpleITK as sitk

from features.errors import InputError
from features.files import file_name
from features.heterogeneity import virtual_biopsies
from features.imaging.archive import opened
from features.imaging.errors import ImageError
from features.imaging.images import quiet_itk, read_file
from features.imaging.manifest import Entry, Manifest, load_manifest
from features.imaging.masks import read_mask
from features.imaging.settings import MaskSettings
from features.sources import read_table
from training.biopsy_clustering import Association, Clustering, clustering, discordance

Slices = Literal["all", "largest"]
ANY_SHAPE = MaskSettings(disconnected="keep", one_slice="keep")
OF_PERFUSION, PARAMETER, FRACTION = "perfusion.csv", "ABrix", "_hypoxic_fraction"


@dataclass(frozen=True)
class Biopsied:
    """What virtual biopsies tell of a cohort.

    Attributes
    ----------
    tumours : DataFrame
        A row per tumour: sample, voxels, hypoxic_fraction, biopsies, deviation; and where there are enough tumours expected,
        residual, more_clustered (empty for a tumour of one biopsy).
    failures : DataFrame
        Sample and reason.
    association : Association or None
        With discordant classification, where classes were given.
    notes : tuple of str
        What a reader must know, such as why there is no curve.
    """

    tumours: pd.DataFrame
    failures: pd.DataFrame
    association: Association | None
    notes: tuple[str, ...]


def maps_of(source: Path) -> Manifest:
    """Maps of a manifest, or of the folder that ``hypoxia perfusion`` wrote.

    Raises
    ------
    InputError
        It is neither, or the manifest has several maps of a sample.
    """
    if not source.is_dir():
        manifest = load_manifest(source)
        if len(manifest.sequences) > 1:
            raise InputError(f"{source.name} has sequences {', '.join(manifest.sequences)}; keep the rows of one kind of map.")
        return manifest
    table = source / OF_PERFUSION
    if not table.exists():
        raise InputError(f"{source} has no {OF_PERFUSION}; name a folder that `hypoxia perfusion` wrote, or a manifest of maps.")
    frame = read_table(table, text_columns=("sample",))
    sequences = [str(name).removesuffix(FRACTION) for name in frame.columns if str(name).endswith(FRACTION)]
    if "sample" not in frame or len(sequences) != 1:
        raise InputError(f"{table} has no hypoxic fraction of one sequence; run `hypoxia perfusion` again.")
    entries = [
        Entry(sample=sample, patient=sample, sequence=PARAMETER, image=f"maps/{_map_name(sample, sequences[0])}")
        for sample in frame["sample"].astype(str)
    ]
    return Manifest(tuple(entries), source)


def _map_name(sample: str, sequence: str) -> str:
    """As ``hypoxia perfusion`` names it."""
    return f"{file_name(f'{sample}_{sequence}')}_{PARAMETER}.nii.gz"


def biopsied(
    manifest: Manifest, threshold: float, rng: np.random.Generator, slices: Slices = "all", classes: pd.DataFrame | None = None
) -> Biopsied:
    """Take virtual biopsies from every map, and see which tumours are more clustered than others as hypoxic.

    Parameters
    ----------
    manifest : Manifest
        A map and a mask per sample. Without a mask, the tumour is where the map has a value.
    threshold : float
        A voxel with a value below it is hypoxic.
    slices : {"all", "largest"}
        Whether biopsies come from all slices of a tumour, or from the one with most of it.
    classes : DataFrame, optional
        Indexed by sample, with columns imaging and genes: what each biomarker calls it.

    Raises
    ------
    InputError
        No tumour could be measured.
    """
    rows, failures = [], []
    for entry, own in zip(manifest.entries, rng.spawn(len(manifest.entries)), strict=True):
        try:
            rows.append({"sample": entry.sample, **_biopsied(manifest, entry, threshold, own, slices)})
        except InputError as error:
            failures.append({"sample": entry.sample, "reason": str(error)})
    if not rows:
        raise InputError(f"No tumour could be measured: {failures[0]['reason']}")
    tumours, failed = pd.DataFrame(rows), pd.DataFrame(failures, columns=["sample", "reason"])
    several = tumours["deviation"].notna().to_numpy()
    notes = [f"{(~several).sum()} tumours hold one biopsy only, which has no spread."] if not several.all() else []
    try:
        found = clustering(*tumours.loc[several, ["hypoxic_fraction", "deviation"]].to_numpy().T)
    except InputError as refusal:
        return Biopsied(tumours, failed, None, (*notes, str(refusal)))
    _add(tumours, several, found)
    association, said = _association(tumours[several], classes)
    return Biopsied(tumours, failed, association, (*notes, *said))


def _biopsied(
    manifest: Manifest, entry: Entry, threshold: float, rng: np.random.Generator, slices: Slices
) -> Mapping[str, float]:
    with opened(manifest.path(entry.image), entry.image) as place:
        values, grid = _read_map(place.path, entry.image)
    inside = np.isfinite(values)
    if entry.mask is not None:
        mask = read_mask(manifest.path(entry.mask), entry.label, grid, ANY_SHAPE, shown=entry.mask)
        inside &= sitk.GetArrayFromImage(mask) != 0
    elif inside.all():
        raise ImageError(f"{entry.image} has a value everywhere, and no mask; name that of the tumour.", file=entry.image)
    if slices == "largest":
        largest = inside.sum(axis=(1, 2)).argmax()
        inside[np.arange(len(inside)) != largest] = False
    found = virtual_biopsies(inside, inside & (np.nan_to_num(values, nan=np.inf) < threshold), rng)
    return {
        "voxels": int(inside.sum()),
        "hypoxic_fraction": found.fraction,
        "biopsies": len(found.fractions),
        "deviation": found.deviation,
    }


def _read_map(path: Path, shown: str) -> tuple[np.ndarray, sitk.Image]:
    """Values of shape (n_slices, n_rows, n_columns), NaN where there is none, and an empty image with their geometry.

    NIfTI by nibabel: ITK makes zeros of what is no number in it, and in a map of amplitudes zero is hypoxic.
    """
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        grid = read_file(path, shown)
        return sitk.GetArrayFromImage(grid), grid
    import nibabel

    try:
        with quiet_itk():
            reader = sitk.ImageFileReader()
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
        image: Any = nibabel.load(path)
        values = np.asarray(image.dataobj).astype(float).T
        grid = sitk.Image(reader.GetSize(), sitk.sitkUInt8)
    except (OSError, EOFError, ValueError, RuntimeError, nibabel.filebasedimages.ImageFileError) as cause:
        raise ImageError(f"{shown} is missing, or no whole NIfTI file; write it again from its source.", file=shown) from cause
    if values.ndim != 3:
        raise ImageError(f"{shown} has {values.ndim} axes; a map has three.", file=shown)
    grid.SetSpacing(reader.GetSpacing())
    grid.SetOrigin(reader.GetOrigin())
    grid.SetDirection(reader.GetDirection())
    return values, grid


def _add(tumours: pd.DataFrame, several: np.ndarray, found: Clustering) -> None:
    """What the curve says, beside the tumours that it is of."""
    tumours.loc[several, ["expected", "residual"]] = np.column_stack([found.expected, found.residual])
    tumours["more_clustered"] = (tumours["residual"] > 0).astype("boolean").where(pd.Series(several))


def _association(tumours: pd.DataFrame, classes: pd.DataFrame | None) -> tuple[Association | None, tuple[str, ...]]:
    if classes is None:
        return None, ()
    of = tumours.set_index("sample").join(classes, how="inner").dropna(subset=["imaging", "genes"])
    if of.empty:
        raise InputError("None of the tumours is among those with classes; name both by the same samples.")
    lacking = len(tumours) - len(of)
    said = (f"{lacking} tumours have no class of imaging and genes, and are left out of the association.",) if lacking else ()
    return discordance(of["more_clustered"].to_numpy(dtype=bool), (of["imaging"] != of["genes"]).to_numpy()), said
