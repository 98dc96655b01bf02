"""Images, DICOM series, segmentations and structure sets of our own making, so that what a reader gives is known beforehand."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, RTStructureSetStorage, generate_uid

SHAPE = (6, 12, 10)  # slices, rows, columns
SPACING = (0.8, 1.2, 3.0)
ORIGIN = (-20.0, 15.0, 7.0)
TILT = np.deg2rad(20)
OBLIQUE = ((1.0, 0.0, 0.0), (0.0, float(np.cos(TILT)), float(np.sin(TILT))))  # along a row, along a column


def ramp(shape: tuple[int, int, int] = SHAPE, dtype: str = "int16") -> np.ndarray:
    """Different in every voxel."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def box(shape: tuple[int, int, int] = SHAPE, value: int = 1) -> np.ndarray:
    """A region of 3 x 5 x 4 voxels, away from the borders and off the middle."""
    array = np.zeros(shape, dtype=np.uint8)
    array[1:4, 2:7, 3:7] = value
    return array


def direction(axes: Sequence[Sequence[float]] = OBLIQUE) -> np.ndarray:
    return np.column_stack([*axes, np.cross(*axes)])


def image_of(
    array: np.ndarray,
    spacing: Sequence[float] = SPACING,
    origin: Sequence[float] = ORIGIN,
    axes: Sequence[Sequence[float]] = OBLIQUE,
) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(length) for length in spacing])
    image.SetOrigin([float(place) for place in origin])
    image.SetDirection(direction(axes).ravel().tolist())
    return image


def written(path: Path, array: np.ndarray, **geometry: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image_of(array, **geometry), str(path))
    return path


def slice_header(number: int, position: np.ndarray, series: str, axes: Sequence[Sequence[float]] = OBLIQUE) -> Dataset:
    """An MR slice without pixels, with names in it that must never come out."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = MRImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.Modality, header.Manufacturer = "MR", "Made"
    header.PatientName, header.PatientID, header.PatientBirthDate, header.PatientSex = "Secret^Name", "SECRET-1", "19700101", "F"
    header.StudyDate, header.StudyTime, header.AccessionNumber, header.ReferringPhysicianName = "20200101", "120000", "", ""
    header.StudyInstanceUID, header.FrameOfReferenceUID, header.StudyID = "1.2.3.4", "1.2.3.5", "1"
    header.SeriesInstanceUID, header.SeriesNumber, header.InstanceNumber = series, int(series.split(".")[-1]), number
    header.SeriesDescription = "t2_tse_sag"
    header.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    header.SliceThickness, header.PixelSpacing = SPACING[2] - 0.5, [SPACING[1], SPACING[0]]
    header.ImagePositionPatient = [float(f"{value:.6f}") for value in position]
    header.ImageOrientationPatient = [float(f"{value:.6f}") for axis in axes for value in axis]
    header.RepetitionTime, header.EchoTime, header.FlipAngle, header.MagneticFieldStrength = 4000.0, 80.0, 90.0, 1.5
    header.NumberOfAverages, header.EchoTrainLength, header.InPlanePhaseEncodingDirection = 2.0, 16, "COL"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    return header


Change = Callable[[Dataset, int], None]


def series_of(array: np.ndarray, change: Change | None = None, *, number: int = 7) -> list[Dataset]:
    """Slices of an oblique volume; ``change(header, slice)`` alters each."""
    headers = []
    normal = np.cross(*OBLIQUE)
    for k, pixels in enumerate(array):
        header = slice_header(k + 1, np.array(ORIGIN) + k * SPACING[2] * normal, f"1.2.3.{number}")
        header.Rows, header.Columns = pixels.shape
        header.PixelData = pixels.astype("<i2").tobytes()
        if change:
            change(header, k)
        headers.append(header)
    return headers


def write_series(
    folder: Path, array: np.ndarray, change: Change | None = None, *, number: int = 7, name: str = "im"
) -> list[Dataset]:
    """Write a series with names of files that are not in the order of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    headers = series_of(array, change, number=number)
    for k, header in enumerate(headers):
        header.save_as(folder / f"{name}{(k * 5) % 7}_{k}.dcm", enforce_file_format=True)
    return headers


def write_seg(path: Path, headers: list[Dataset], masks: dict[str, np.ndarray], *, fractional: bool = False) -> Path:
    """A DICOM segmentation, made by highdicom; slices without a voxel are left out of it."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    segments = [
        hd.seg.SegmentDescription(
            number,
            label,
            codes.SCT.MorphologicallyAbnormalStructure,
            codes.SCT.Neoplasm,
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label in enumerate(masks, start=1)
    ]
    stacked = np.stack(list(masks.values()), axis=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = hd.seg.SegmentationTypeValues.FRACTIONAL if fractional else hd.seg.SegmentationTypeValues.BINARY
        made = hd.seg.Segmentation(
            headers,
            stacked.astype(np.float32) if fractional else stacked.astype(np.uint8),
            kind,
            segments,
            generate_uid(),
            99,
            generate_uid(),
            1,
            "Made",
            "Made",
            "1",
            "1",
        )
        made.save_as(path)
    return path


def square(corner: Sequence[float], sides: Sequence[float]) -> np.ndarray:
    """Corners of a rectangle in pixels (x, y)."""
    x, y = corner
    return np.array([(x, y), (x + sides[0], y), (x + sides[0], y + sides[1]), (x, y + sides[1])])


def write_rtstruct(path: Path, regions: dict[str, list[tuple[float, np.ndarray]]], *, kind: str = "CLOSED_PLANAR") -> Path:
    """A structure set; a contour is its slice and its corners in pixels."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = RTStructureSetStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.Modality, header.PatientName, header.PatientID = "RTSTRUCT", "Secret^Name", "SECRET-1"
    header.SeriesInstanceUID = generate_uid()
    header.StructureSetROISequence, header.ROIContourSequence = [], []
    to_mm = direction() * np.array(SPACING)
    for number, (name, contours) in enumerate(regions.items(), start=1):
        named, drawn = Dataset(), Dataset()
        named.ROINumber, named.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for depth, corners in contours:
            contour = Dataset()
            points = np.column_stack([corners, np.full(len(corners), depth)]) @ to_mm.T + np.array(ORIGIN)
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{value:.4f}" for value in points.ravel()]
            drawn.ContourSequence.append(contour)
        header.StructureSetROISequence.append(named)
        header.ROIContourSequence.append(drawn)
    header.save_as(path, enforce_file_format=True)
    return path
