"""A first manifest of a folder tree, guessed from names and headers; what was guessed, and what was not, is said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset

from features.imaging.acquisition import SUFFIXES
from features.imaging.archive import opened
from features.imaging.dicom import DAMAGED, KEYWORDS, NO_IMAGE, b_value_of, dicom_files, read_header
from features.imaging.errors import ImageError
from features.imaging.images import quiet_itk
from features.imaging.manifest import Entry
from features.imaging.masks import labels_in
from features.imaging.naming import MODALITIES, Told, is_localizer, read_bids, read_name, sequence_in

REFERENCES = ("ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence", "StructureSetROISequence", "SegmentSequence")
UNNAMED = "image"  # what a sequence is called that no name tells
MOST = 10

Reasons = list[tuple[str, str]]
Region = tuple[int, str]


@dataclass(frozen=True)
class Found:
    """An image or a mask.

    Attributes
    ----------
    path : str
        Relative to the folder, as the manifest is to name it.
    folders, file_rest : tuple of str
        What may name the sample.
    named : tuple of str or None
        Sample and patient, where the name is sure to tell them.
    regions : tuple of (int, str)
        Labels of a mask.
    grid : tuple or None
        Size, spacing and origin.
    series, refers : str or None
        Series that it is, or was drawn on; kept in memory only.
    """

    path: str
    folders: tuple[str, ...]
    file_rest: tuple[str, ...]
    sequence: str | None
    mask: bool
    named: tuple[str, str] | None = None
    regions: tuple[Region, ...] = ()
    grid: tuple[float, ...] | None = None
    series: str | None = None
    refers: str | None = None

    @property
    def sample(self) -> str:
        """Name of the sample, once it is settled."""
        return self.named[0] if self.named else ""


def draft(folder: Path) -> tuple[list[Entry], Reasons]:
    """Guess the entries of a folder tree.

    Returns
    -------
    entries : list of Entry
        Ordered by sample.
    unplaced : list of (str, str)
        Path and reason.
    """
    unplaced: Reasons = []
    found = _settled([*_image_files(folder, unplaced), *_dicom(folder, unplaced)], folder.resolve().name)
    every = [one for one in found if not one.mask]
    images = _unique(every, unplaced)
    masked = _paired(images, every, [one for one in found if one.mask], unplaced)
    entries = [_entry(image, masked.get(image.path), masked, images) for image in images]
    unplaced += [(image.path, f"no name tells its sequence; it is called {UNNAMED!r}") for image in images if not image.sequence]
    without = [entry for entry in entries if entry.mask is None and entry.reference is None]
    unplaced += [(entry.image, "no mask was found for it") for entry in without]
    return sorted(entries, key=lambda entry: (entry.sample, entry.sequence)), unplaced


def _image_files(folder: Path, unplaced: Reasons) -> Iterator[Found]:
    for file in sorted(folder.rglob("*")):
        if not (file.is_file() and file.name.lower().endswith(SUFFIXES)) or file.name.startswith("."):
            continue
        try:
            yield _image_file(file, folder)
        except ImageError as error:
            unplaced.append((file.relative_to(folder).as_posix(), str(error)))


def _image_file(file: Path, folder: Path) -> Found:
    relative = file.relative_to(folder)
    folders = [read_name(part) for part in relative.parts[:-1]]
    bids = read_bids(file.name)
    told = bids[2] if bids else read_name(file.name)
    grid, small = _grid(file)
    mask = told.mask or (not bids and any(part.mask for part in folders)) or (small and _is_binary(file))
    sequence = told.sequence or next((part.sequence for part in reversed(folders) if part.sequence), None)
    return Found(
        path=relative.as_posix(),
        folders=_rests(folders),
        file_rest=told.rest,
        sequence=sequence,
        mask=mask,
        named=bids[:2] if bids else None,
        regions=tuple((label, "") for label in labels_in(file)) if mask else (),
        grid=grid,
    )


def _rests(folders: Iterable[Told]) -> tuple[str, ...]:
    joined = ("_".join(part.rest) for part in folders)
    return tuple(name for name in joined if name)


def _grid(file: Path) -> tuple[tuple[float, ...], bool]:
    """Size, spacing and origin; and whether voxels are bytes, as those of masks are."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        with quiet_itk():
            reader.ReadImageInformation()
    except RuntimeError as cause:
        raise ImageError("it cannot be read; it is damaged or not what its name says", file=file.name) from cause
    size = reader.GetSize()
    if any(length > 1 for length in size[3:]):
        raise ImageError(
            f"it holds {int(np.prod(size[3:]))} volumes; save the one that is meant, or read it as a perfusion study"
        )
    if len(size) < 3:
        raise ImageError("it is flat (two-dimensional)")
    small = reader.GetPixelIDValue() in (sitk.sitkUInt8, sitk.sitkInt8)
    return (*size[:3], *reader.GetSpacing()[:3], *reader.GetOrigin()[:3]), small


def _is_binary(file: Path) -> bool:
    return labels_in(file) == (1,)


def _dicom(folder: Path, unplaced: Reasons) -> Iterator[Found]:
    yield from _dicom_below(folder, folder, "", unplaced)
    for archive in sorted(folder.rglob("*.zip")):
        written = archive.relative_to(folder).as_posix()
        try:
            with opened(archive, written) as place:
                yield from list(_dicom_below(place.path, place.path, written, unplaced))
        except ImageError as error:
            unplaced.append((written, str(error)))


def _dicom_below(folder: Path, root: Path, archive: str, unplaced: Reasons) -> Iterator[Found]:
    """Series and masks below a folder, a series for each place that it has files in."""
    series: dict[tuple[Path, str], list[tuple[Path, Dataset]]] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            for _, header in dicom_files(file):
                if header.get("Modality") in ("SEG", "RTSTRUCT"):
                    yield _dicom_mask(file, root, archive)
                elif "Rows" in header and header.get("Modality") not in NO_IMAGE:
                    series.setdefault((file.parent, str(header.get("SeriesInstanceUID"))), []).append((file, header))
        except ImageError as error:
            unplaced.append((_written(file, root, archive), str(error)))
    for (place, _), files in series.items():
        below = {uid for other, uid in series if other.is_relative_to(place)}
        header = files[0][1]
        words = re.split(r"[^a-z0-9]+", str(header.get("SeriesDescription", "")).lower())
        path = _written(place, root, archive)
        path += f"#{header.get('SeriesNumber')}" if len(below) > 1 else ""
        if is_localizer(words):
            unplaced.append((path, "it seems to be a localizer"))
            continue
        yield _dicom_series(path, place, header, words, root, archive)


def _dicom_series(path: str, place: Path, header: Dataset, words: Sequence[str], root: Path, archive: str) -> Found:
    folders = _folders(place, root, archive)
    weighted = "DWI" if b_value_of(header) is not None else None
    named = next((part.sequence for part in reversed(folders) if part.sequence), None)
    sequence = sequence_in(words) or weighted or named or MODALITIES.get(str(header.get("Modality")))
    rests = _rests(folders[:-1]) or _rests(folders)
    return Found(path, rests, (), sequence, mask=False, series=str(header.get("SeriesInstanceUID")))


def _folders(place: Path, root: Path, archive: str) -> list[Told]:
    """Names above a place; the archive's own counts only if nothing in it names the sample."""
    inside = [read_name(part) for part in place.relative_to(root).parts]
    return inside if _rests(inside) or not archive else [read_name(Path(archive).stem), *inside]


def _written(path: Path, root: Path, archive: str) -> str:
    relative = path.relative_to(root).as_posix()
    return "/".join(part for part in (archive, "" if archive and relative == "." else relative) if part)


def _dicom_mask(file: Path, root: Path, archive: str) -> Found:
    try:
        header = read_header(file, [*KEYWORDS, *REFERENCES])
        regions = [(int(item.ROINumber), str(item.ROIName)) for item in header.get("StructureSetROISequence", [])]
        regions += [(int(item.SegmentNumber), str(item.SegmentLabel)) for item in header.get("SegmentSequence", [])]
        refers = next(_referred(header), None)
    except DAMAGED as cause:
        raise ImageError("it is damaged DICOM", file=file.name) from cause
    folders = _folders(file.parent, root, archive)
    words = re.split(r"[^a-z0-9]+", str(header.get("SeriesDescription", "")).lower())
    rests = _rests(folders[:-1]) or _rests(folders)
    return Found(_written(file, root, archive), rests, (), sequence_in(words), True, regions=tuple(regions), refers=refers)


def _referred(header: Dataset) -> Iterator[str]:
    for item in header.get("ReferencedSeriesSequence", []):
        yield str(item.SeriesInstanceUID)
    for frame in header.get("ReferencedFrameOfReferenceSequence", []):
        for study in frame.get("RTReferencedStudySequence", []):
            for item in study.get("RTReferencedSeriesSequence", []):
                yield str(item.SeriesInstanceUID)


def _settled(found: list[Found], root: str) -> list[Found]:
    """Name the samples: after their folders, unless a folder seems to hold several samples."""
    crowded = _crowded(found)
    settled = []
    for one in found:
        by_file = "_".join(one.file_rest)
        by_folder = "_".join(one.folders)
        sample = by_file if by_file and (not by_folder or one.folders in crowded) else by_folder or by_file or root
        patient = sample if sample == by_file or not one.folders else one.folders[0]
        settled.append(one if one.named else replace(one, named=(sample, patient)))
    return settled


def _crowded(found: list[Found]) -> set[tuple[str, ...]]:
    """Folders in which two images of one sequence have names of their own."""
    seen: dict[tuple[tuple[str, ...], str | None], set[tuple[str, ...]]] = {}
    for one in found:
        if not one.mask:
            seen.setdefault((one.folders, one.sequence), set()).add(one.file_rest)
    return {folders for (folders, _), rests in seen.items() if len(rests) > 1}


def _unique(images: list[Found], unplaced: Reasons) -> list[Found]:
    kept: dict[tuple[str, str], Found] = {}
    for image in images:
        first = kept.setdefault((image.sample, image.sequence or UNNAMED), image)
        if first is not image:
            what = f"{image.sequence or UNNAMED} of sample {image.sample!r}"
            unplaced.append((image.path, f"{what} is already {first.path}; give it a sample or sequence of its own"))
    return list(kept.values())


def _paired(images: list[Found], every: list[Found], masks: list[Found], unplaced: Reasons) -> dict[str, Found]:
    """Mask by the path of its image."""
    claims: dict[str, list[Found]] = {image.path: [] for image in images}
    for mask in masks:
        belongs = _belongs(mask, every)
        if not belongs:
            unplaced.append((mask.path, "it is a mask, and no image was found that it belongs to"))
        elif not any(image.path in claims for image in belongs):
            unplaced.append((mask.path, f"it is the mask of {belongs[0].path}, which was not placed"))
        for image in belongs:
            claims.get(image.path, []).append(mask)
    _tell_rivals(claims, unplaced)
    paired = {path: claimed[0] for path, claimed in claims.items() if len(claimed) == 1}
    for mask in {mask.path: mask for mask in paired.values()}.values():
        _tell_regions(mask, unplaced)
    return paired


def _tell_rivals(claims: dict[str, list[Found]], unplaced: Reasons) -> None:
    rivals: dict[str, list[str]] = {}
    for path, claimed in claims.items():
        for mask in claimed if len(claimed) > 1 else []:
            rivals.setdefault(mask.path, []).append(path)
    for mask_path, of in rivals.items():
        others = " and others" if len(of) > 1 else ""
        unplaced.append((mask_path, f"it is one of several masks of {of[0]}{others}; name the one that is meant"))


def _tell_regions(mask: Found, unplaced: Reasons) -> None:
    if not mask.regions:
        unplaced.append((mask.path, "it is a mask without any label: it is empty, or its values are no labels"))
    elif len(mask.regions) > 1:
        listed = ", ".join(f"{number} {name!r}" if name else str(number) for number, name in mask.regions[:MOST])
        unplaced.append((mask.path, f"it holds several labels ({listed}); label {mask.regions[0][0]} is named"))


def _belongs(mask: Found, images: list[Found]) -> list[Found]:
    """Images that a mask may have been drawn on."""
    if mask.refers:
        drawn_on = [image for image in images if image.series == mask.refers]
        if drawn_on:
            return drawn_on
    same = [image for image in images if image.sample == mask.sample] or _nearest_named(mask, images)
    if mask.sequence and len(same) > 1:
        same = [image for image in same if image.sequence == mask.sequence]
    return same if len(same) == 1 else [image for image in same if _share_grid(image, mask)]


def _share_grid(image: Found, mask: Found) -> bool:
    if image.grid is None or mask.grid is None:
        return False
    return np.allclose(image.grid, mask.grid, rtol=1e-4, atol=1e-3)  # some headers are in single precision


def _nearest_named(mask: Found, images: list[Found]) -> list[Found]:
    """Images with the longest name that begins the mask's."""
    begun = [image for image in images if mask.sample.startswith(f"{image.sample}_")]
    longest = max((len(image.sample) for image in begun), default=0)
    return [image for image in begun if len(image.sample) == longest]


def _entry(image: Found, mask: Found | None, masked: dict[str, Found], images: list[Found]) -> Entry:
    others = [other for other in images if other.sample == image.sample and other.path in masked and other is not image]
    sample, patient = image.named or ("", "")
    return Entry(
        sample=sample,
        patient=patient,
        sequence=image.sequence or UNNAMED,
        image=image.path,
        mask=mask.path if mask else None,
        label=mask.regions[0][0] if mask and mask.regions else 1,
        reference=(others[0].sequence or UNNAMED) if mask is None and len(others) == 1 else None,
    )
