from __future__ import annotations

import shutil
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import imaging_made as made
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

from features.imaging.acquisition import Acquisition
from features.imaging.case import Case, Part
from features.imaging.cases import measure_case
from features.imaging.dicom import KEYWORDS, b_value_of, read_header
from features.imaging.images import ImageError, Volume, read_volume
from features.imaging.masks import read_mask
from features.imaging.profiles import PROFILES
from features.imaging.settings import MaskSettings

STS = "mri_sts_t1_t2_pet_ct"


def array_of(volume: Volume) -> np.ndarray:
    return sitk.GetArrayFromImage(volume.image)


def test_a_series_is_sorted_by_position_whatever_its_files_are_called(tmp_path: Path) -> None:
    made.write_series(tmp_path / "t2", made.ramp())
    (tmp_path / "t2" / "notes.txt").write_text("not DICOM")
    volume = read_volume(tmp_path / "t2")
    np.testing.assert_array_equal(array_of(volume), made.ramp())
    np.testing.assert_allclose(volume.image.GetSpacing(), made.SPACING, atol=1e-5)
    np.testing.assert_allclose(volume.image.GetOrigin(), made.ORIGIN, atol=1e-5)
    np.testing.assert_allclose(volume.image.GetDirection(), made.direction().ravel(), atol=1e-5)


def test_the_acquisition_comes_from_the_header(tmp_path: Path) -> None:
    made.write_series(tmp_path / "t2", made.ramp())
    assert read_volume(tmp_path / "t2").acquisition == Acquisition(
        repetition_time_ms=4000,
        echo_time_ms=80,
        flip_angle_deg=90,
        field_strength_t=1.5,
        averages=2,
        echo_train_length=16,
        phase_direction="COL",
        slice_thickness_mm=2.5,
        pixel_spacing_mm=np.sqrt(0.8 * 1.2),
    )


def test_nothing_that_identifies_a_patient_is_read(tmp_path: Path) -> None:
    made.write_series(tmp_path / "t2", made.ramp())
    header = read_header(next((tmp_path / "t2").iterdir()))
    assert "PatientName" not in header and "PatientID" not in header and "StudyDate" not in header
    assert not any(
        word.startswith(("Patient", "Study", "Referring")) or word.endswith(("Date", "Time"))
        for word in KEYWORDS
        if "Time" not in word
    )
    acquisition = read_volume(tmp_path / "t2").acquisition
    assert "ecret" not in repr(acquisition) and "SECRET" not in repr(acquisition)


def test_each_slice_has_its_own_slope(tmp_path: Path) -> None:
    def rescale(header: Dataset, k: int) -> None:
        header.RescaleSlope, header.RescaleIntercept = [1, 2, 0.5, 1.25, 3, 1][k], [0, -10, 0, 5, 1, 0][k]

    made.write_series(tmp_path / "pet", made.ramp(), rescale)
    slope, intercept = np.array([1, 2, 0.5, 1.25, 3, 1]), np.array([0, -10, 0, 5, 1, 0])
    np.testing.assert_array_equal(
        array_of(read_volume(tmp_path / "pet")), made.ramp() * slope[:, None, None] + intercept[:, None, None]
    )


def test_compressed_pixels_are_decoded(tmp_path: Path) -> None:
    made.write_series(tmp_path / "t2", made.ramp())
    for file in (tmp_path / "t2").iterdir():
        header = dcmread(file)
        header.compress(JPEGLSLossless, generate_instance_uid=False)
        header.save_as(file)
    np.testing.assert_array_equal(array_of(read_volume(tmp_path / "t2")), made.ramp())


def test_a_missing_slice_is_noticed(tmp_path: Path) -> None:
    made.write_series(tmp_path / "t2", made.ramp())
    next((tmp_path / "t2").glob("*_2.dcm")).unlink()
    with pytest.raises(ImageError, match=r"slices 3 to 6 mm apart \(see the gap after slice 2 of 5\); a slice is missing"):
        read_volume(tmp_path / "t2")


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("ImageOrientationPatient", [1, 0, 0, 0, 1, 0], "several orientations"),
        ("PixelSpacing", [2, 2], "several sizes"),
        ("ImagePositionPatient", list(made.ORIGIN), "up to 2 slices at one position"),
        ("ImagePositionPatient", [], "does not say where it lies"),
        ("ImageOrientationPatient", None, "does not say where it lies"),
        ("SamplesPerPixel", 3, "colour picture"),
    ],
)
def test_slices_that_make_no_volume_are_refused(tmp_path: Path, keyword: str, value: object, reason: str) -> None:
    def change(header: Dataset, k: int) -> None:
        if k == 3:
            setattr(header, keyword, value)

    made.write_series(tmp_path / "t2", made.ramp(), change)
    with pytest.raises(ImageError, match=reason):
        read_volume(tmp_path / "t2")


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    def shift(header: Dataset, k: int) -> None:
        header.ImagePositionPatient = [header.ImagePositionPatient[0] + 0.5 * k, *header.ImagePositionPatient[1:]]

    made.write_series(tmp_path / "ct", made.ramp(), shift)
    with pytest.raises(ImageError, match="shifted against each other"):
        read_volume(tmp_path / "ct")


@pytest.mark.parametrize("jitter", ["sideways", "half"])
def test_a_slice_that_slipped_is_refused(tmp_path: Path, jitter: str) -> None:
    def slip(header: Dataset, k: int) -> None:
        if k == 2 or (jitter == "half" and k >= 3):
            header.ImagePositionPatient = [header.ImagePositionPatient[0] + 1.0, *header.ImagePositionPatient[1:]]

    made.write_series(tmp_path / "t2", made.ramp(), slip)
    with pytest.raises(ImageError, match="shifted against each other"):
        read_volume(tmp_path / "t2")


def test_several_series_are_counted_and_one_can_be_named(tmp_path: Path) -> None:
    made.write_series(tmp_path / "all", made.ramp(), number=7, name="a")
    made.write_series(tmp_path / "all", made.ramp() + 1, number=8, name="b")
    with pytest.raises(ImageError, match=r"holds 2 image series \(number 7 with 6 slices, number 8 with 6 slices\).*all#7\)"):
        read_volume(tmp_path / "all")
    np.testing.assert_array_equal(array_of(read_volume(tmp_path / "all#8")), made.ramp() + 1)
    with pytest.raises(ImageError, match="no series of that number"):
        read_volume(tmp_path / "all#9")


def test_masks_in_the_folder_of_a_series_are_not_its_image(tmp_path: Path) -> None:
    headers = made.write_series(tmp_path / "t2", made.ramp())
    made.write_seg(tmp_path / "t2" / "seg.dcm", headers, {"tumour": made.box()})
    made.write_rtstruct(tmp_path / "t2" / "rt.dcm", {"tumour": [(2, made.square((1, 1), (4, 4)))]})
    np.testing.assert_array_equal(array_of(read_volume(tmp_path / "t2")), made.ramp())


def test_a_folder_without_an_image_is_refused(tmp_path: Path) -> None:
    made.write_rtstruct(tmp_path / "rt.dcm", {"tumour": [(2, made.square((1, 1), (4, 4)))]})
    with pytest.raises(ImageError, match="holds no DICOM image"):
        read_volume(tmp_path)


def test_one_slice_is_as_thick_as_it_says(tmp_path: Path) -> None:
    made.write_series(tmp_path / "t2", made.ramp()[:1])
    assert read_volume(tmp_path / "t2").image.GetSpacing()[2] == 2.5


def test_cut_pixels_are_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made.write_series(tmp_path / "t2", made.ramp())
    file = next((tmp_path / "t2").glob("*_2.dcm"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ImageError, match=r"^study/t2 has a slice whose pixels cannot be decoded"):
        read_volume(tmp_path / "t2", shown="study/t2")
    assert capfd.readouterr().err == ""


# --- diffusion


def private(creator: str, group: int, element: int, kind: str, value: object) -> Dataset:
    header = Dataset()
    header.private_block(group, creator, create=True).add_new(element, kind, value)
    return header


def csa(b_value: bytes) -> bytes:
    item = struct.pack("<4i", *(len(b_value),) * 4) + b_value.ljust(12, b"\0")
    name = b"B_value".ljust(64, b"\0")
    return b"SV10\x04\x03\x02\x01" + struct.pack("<2i", 1, 77) + name + struct.pack("<i4s3i", 1, b"IS\0\0", 6, 6, 77) + item


@pytest.mark.parametrize(
    ("header", "b_value"),
    [
        (private("SIEMENS MR HEADER", 0x0019, 0x0C, "IS", "800"), 800),
        (private("SIEMENS MR HEADER", 0x0019, 0x0C, "UN", b"50 "), 50),
        (private("GEMS_PARM_01", 0x0043, 0x39, "IS", ["600", "8", "0", "0"]), 600),
        (private("GEMS_PARM_01", 0x0043, 0x39, "IS", ["1000000800", "8", "0", "0"]), 800),
        (private("GEMS_PARM_01", 0x0043, 0x39, "UN", b"1000000050\\8\\0\\0"), 50),
        (private("Philips Imaging DD 001", 0x2001, 0x03, "FL", 1000.0), 1000),
        (private("Philips Imaging DD 001", 0x2001, 0x03, "UN", struct.pack("<f", 150.0)), 150),
        (private("SIEMENS CSA HEADER", 0x0029, 0x10, "OB", csa(b"400")), 400),
        (private("Another", 0x0019, 0x0C, "IS", "800"), None),
        (private("Philips Imaging DD 001", 0x2001, 0x03, "UN", b"\0"), None),
        (private("SIEMENS CSA HEADER", 0x0029, 0x10, "OB", b"B_value\0"), None),
    ],
)
def test_the_b_value_of_each_vendor_is_found(header: Dataset, b_value: float | None) -> None:
    assert b_value_of(header) == b_value
    header.DiffusionBValue = 123.0
    assert b_value_of(header) == 123  # the standard goes before


def test_private_b_values_survive_the_way_through_a_file(tmp_path: Path) -> None:
    def weigh(header: Dataset, k: int) -> None:
        header.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x39, "IS", ["1000000800", "8", "0", "0"])

    made.write_series(tmp_path / "dwi", made.ramp(), weigh)
    assert read_volume(tmp_path / "dwi").acquisition.b_values == (800,)


@pytest.fixture
def diffusion(tmp_path: Path) -> Path:
    for number, b_value in enumerate((800.0, 0.0, 200.0)):

        def weigh(header: Dataset, k: int, b_value: float = b_value) -> None:
            header.DiffusionBValue = b_value

        made.write_series(tmp_path / "dwi", made.ramp() + int(b_value), weigh, name=f"w{number}")
    return tmp_path / "dwi"


def test_the_highest_b_value_is_taken_and_all_are_listed(diffusion: Path) -> None:
    volume = read_volume(diffusion)
    np.testing.assert_array_equal(array_of(volume), made.ramp() + 800)
    assert (volume.acquisition.b_value_s_mm2, volume.acquisition.b_values) == (800, (0, 200, 800))
    assert volume.acquisition.row()["b_value_count"] == 3
    np.testing.assert_array_equal(array_of(read_volume(diffusion, b_value=200)), made.ramp() + 200)
    with pytest.raises(ImageError, match=r"no images with b = 500 s/mm\^2 \(b-values there: 0, 200, 800\)"):
        read_volume(diffusion, b_value=500)


def test_of_directions_and_their_average_the_average_is_taken(tmp_path: Path) -> None:
    for number, kind in enumerate(("DIRECTIONAL", "DIRECTIONAL", "ISOTROPIC")):

        def weigh(header: Dataset, k: int, kind: str = kind) -> None:
            header.DiffusionBValue, header.DiffusionDirectionality = 800.0, kind

        made.write_series(tmp_path / "dwi", made.ramp() + number, weigh, name=f"d{number}")
    np.testing.assert_array_equal(array_of(read_volume(tmp_path / "dwi")), made.ramp() + 2)


def test_a_damaged_file_of_a_series_is_counted_and_not_named(tmp_path: Path) -> None:
    made.write_series(tmp_path / "t2", made.ramp())
    (tmp_path / "t2" / "Secret^Name.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x02\0\0\0UL\x05\0abcde")
    with pytest.raises(ImageError, match=r"t2 holds a damaged DICOM file \(number 1 of 7 by name\)"):
        read_volume(tmp_path / "t2")


# --- files of many frames


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():  # highdicom and pydicom on what we make here
        warnings.simplefilter("ignore")
        yield


def enhanced(folder: Path, b_values: tuple[float, ...]) -> Path:
    """An enhanced MR object whose frames are in no order, each with its own slope."""
    frames = [(k, b) for b in b_values for k in range(made.SHAPE[0])]
    np.random.default_rng(5).shuffle(frames)
    header = made.series_of(made.ramp())[0]
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "RepetitionTime",
        "EchoTime",
    ):
        delattr(header, keyword)
    header.NumberOfFrames = len(frames)
    header.DimensionOrganizationSequence = Sequence([Dataset()])
    header.DimensionOrganizationSequence[0].DimensionOrganizationUID = generate_uid()
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [f"{v:.6f}" for axis in made.OBLIQUE for v in axis]
    shared.PixelMeasuresSequence = Sequence([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = [made.SPACING[1], made.SPACING[0]]
    shared.PixelMeasuresSequence[0].SliceThickness = made.SPACING[2]
    shared.MRTimingAndRelatedParametersSequence = Sequence([Dataset()])
    shared.MRTimingAndRelatedParametersSequence[0].RepetitionTime = 5000.0
    shared.MREchoSequence = Sequence([Dataset()])
    shared.MREchoSequence[0].EffectiveEchoTime = 60.0
    shared.MRFOVGeometrySequence = Sequence([Dataset()])
    shared.MRFOVGeometrySequence[0].InPlanePhaseEncodingDirection = "ROW"
    header.SharedFunctionalGroupsSequence = Sequence([shared])
    header.PerFrameFunctionalGroupsSequence = Sequence([_frame(k, b) for k, b in frames])
    header.PixelData = np.stack([made.ramp()[k] + int(b) for k, b in frames]).astype("<i2").tobytes()
    folder.mkdir()
    header.save_as(folder / "all.dcm", enforce_file_format=True)
    return folder


def _frame(k: int, b: float) -> Dataset:
    frame, plane, weight, values = Dataset(), Dataset(), Dataset(), Dataset()
    plane.ImagePositionPatient = [f"{v:.6f}" for v in np.array(made.ORIGIN) + k * made.SPACING[2] * np.cross(*made.OBLIQUE)]
    weight.DiffusionBValue = b
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = k + 1, 10, "US"
    frame.PlanePositionSequence, frame.MRDiffusionSequence = Sequence([plane]), Sequence([weight])
    frame.PixelValueTransformationSequence = Sequence([values])
    frame.FrameContentSequence = Sequence([Dataset()])
    return frame


@pytest.mark.usefixtures("quiet")
def test_frames_of_one_file_are_sorted_weighted_and_rescaled_each_by_itself(tmp_path: Path) -> None:
    volume = read_volume(enhanced(tmp_path / "e", (0.0, 900.0)))
    expected = (made.ramp() + 900) * (np.arange(6) + 1)[:, None, None] + 10
    np.testing.assert_array_equal(array_of(volume), expected)
    np.testing.assert_allclose(volume.image.GetSpacing(), made.SPACING, atol=1e-5)
    told = volume.acquisition
    assert (told.repetition_time_ms, told.echo_time_ms, told.phase_direction) == (5000, 60, "ROW")
    assert (told.b_value_s_mm2, told.b_values, told.field_strength_t) == (900, (0, 900), 1.5)


# --- real ones


def test_the_ibsi_phantom_is_the_same_in_dicom_and_nifti(data: Path) -> None:
    folder = data / "ibsi_digital_phantom"
    dicom = array_of(read_volume(folder / "dicom" / "image"))
    # The DICOM phantom is stored coronally, with voxels of 1 mm.
    np.testing.assert_array_equal(dicom.transpose(1, 0, 2), array_of(read_volume(folder / "nifti" / "image" / "phantom.nii.gz")))


@pytest.fixture(scope="module")
def sarcoma(data: Path) -> Volume:
    return read_volume(data / STS / "STS_001_MR_T2_dicom_rtstruct.zip")


def crop(image: sitk.Image, like: sitk.Image) -> sitk.Image:
    corner = [round(place) for place in image.TransformPhysicalPointToContinuousIndex(like.GetOrigin())]
    return sitk.RegionOfInterest(image, like.GetSize(), corner)


def test_a_series_in_an_archive_is_the_nifti_made_from_it(data: Path, sarcoma: Volume) -> None:
    nifti = read_volume(data / STS / "STS_001_MR_T2FS_image.nii.gz").image
    cropped = crop(sarcoma.image, nifti)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(cropped), sitk.GetArrayFromImage(nifti))
    np.testing.assert_allclose(cropped.GetSpacing(), nifti.GetSpacing(), rtol=1e-7)
    np.testing.assert_allclose(cropped.GetOrigin(), nifti.GetOrigin(), atol=1e-5)
    np.testing.assert_allclose(cropped.GetDirection(), nifti.GetDirection(), atol=1e-6)


def test_features_of_a_series_are_those_of_the_nifti_written_from_it_resampled_too(
    data: Path, sarcoma: Volume, tmp_path: Path
) -> None:
    archive = data / STS / "STS_001_MR_T2_dicom_rtstruct.zip"
    drawn = archive / "STS_001/MR_T2/mask/1-1.dcm"
    keep = MaskSettings(disconnected="keep")
    mask = read_mask(drawn, "GTV_Mass", sarcoma.image, keep)
    sitk.WriteImage(sitk.Cast(sarcoma.image, sitk.sitkFloat32), str(tmp_path / "image.nii.gz"))
    sitk.WriteImage(mask, str(tmp_path / "mask.nii.gz"))
    of_dicom = Part("T2", archive / "STS_001/MR_T2/image", drawn, "GTV_Mass", None, ("image", "mask"))
    of_nifti = Part("T2", tmp_path / "image.nii.gz", tmp_path / "mask.nii.gz", 1, None, ("image", "mask"))
    found = [measure_case(Case("a", "a", ("T2",), (part,)), PROFILES["ibsi"], keep) for part in (of_dicom, of_nifti)]
    assert [one.failure for one in found] == [None, None]
    assert list(found[0].values) == [feature.name for feature in PROFILES["ibsi"].features(["T2"])]
    for name, value in found[0].values.items():
        assert found[1].values[name] == pytest.approx(value, rel=1e-6), name


def test_a_series_is_the_same_unpacked_or_named_within_its_archive(data: Path, sarcoma: Volume, tmp_path: Path) -> None:
    path = data / STS / "STS_001_MR_T2_dicom_rtstruct.zip"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    for other in (tmp_path / "STS_001" / "MR_T2" / "image", path / "STS_001/MR_T2/image"):
        np.testing.assert_array_equal(array_of(read_volume(other)), array_of(sarcoma))
    shutil.rmtree(tmp_path / "STS_001")
