from __future__ import annotations

from pathlib import Path

import imaging_made as made
import numpy as np
import pytest
import SimpleITK as sitk

from features.imaging.images import ImageError, read_volume
from features.imaging.masks import check_finite, check_mask, labels_in, read_mask
from features.imaging.settings import MaskSettings

IMAGE = made.image_of(made.ramp(dtype="float64"))
STRICT = MaskSettings()


def array_of(mask: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(mask)


def assert_on(mask: sitk.Image, image: sitk.Image) -> None:
    assert mask.GetPixelID() == sitk.sitkUInt8
    assert mask.GetSize() == image.GetSize()
    assert (mask.GetSpacing(), mask.GetOrigin(), mask.GetDirection()) == (
        image.GetSpacing(),
        image.GetOrigin(),
        image.GetDirection(),
    )


# --- label images


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", ["uint8", "int16", "float32"])
def test_a_label_is_chosen_from_several(tmp_path: Path, suffix: str, kind: str) -> None:
    labels = np.where(np.roll(made.box(), 5, axis=1) == 1, 7, made.box(value=3)).astype(kind)
    path = made.written(tmp_path / f"m{suffix}", labels)
    mask = read_mask(path, 3, IMAGE, STRICT)
    np.testing.assert_array_equal(array_of(mask), labels == 3)
    assert_on(mask, IMAGE)  # exactly, though the header of a NIfTI is in single precision
    assert labels_in(path) == (3, 7)


@pytest.mark.parametrize(
    ("labels", "label", "reason"),
    [
        (made.box(value=3), 1, r"does not hold label 1 \(labels there: 3\); name one of them in the column label"),
        (made.box(value=3), 0, r"Label 0 of m\.nrrd is its background"),
        (made.box(value=3), "GTV", "no segment 'GTV', and its labels are numbers"),
        (made.box() * 0, 1, "m.nrrd is empty: no voxel is marked"),
        (made.box() * 0.37, 1, r"values that are no labels \(0 to 0\.37\)"),
    ],
)
def test_a_label_that_is_not_there_is_refused(tmp_path: Path, labels: np.ndarray, label: int | str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as raised:
        read_mask(made.written(tmp_path / "m.nrrd", labels), label, IMAGE, STRICT)
    assert raised.value.file == "m.nrrd"


@pytest.mark.parametrize("layered", [False, True])
def test_a_segment_of_3d_slicer_is_chosen_by_name(tmp_path: Path, layered: bool) -> None:
    other = np.roll(made.box(), 3, axis=2)
    image = made.image_of(made.box(value=2))
    if layered:
        image = sitk.Compose([made.image_of(other), image])
    for key, value in {"Name": "GTV primary", "LabelValue": "2", "Layer": "1" if layered else "0"}.items():
        image.SetMetaData(f"Segment0_{key}", value)
    sitk.WriteImage(image, str(tmp_path / "m.seg.nrrd"))
    np.testing.assert_array_equal(array_of(read_mask(tmp_path / "m.seg.nrrd", "GTV primary", IMAGE, STRICT)), made.box())
    with pytest.raises(ImageError, match="no segment 'GTV'; segments there: GTV primary"):
        read_mask(tmp_path / "m.seg.nrrd", "GTV", IMAGE, STRICT)


# --- grid


def test_headers_in_single_precision_are_the_same_grid(tmp_path: Path) -> None:
    shifted = np.array(made.ORIGIN) + 1e-3  # a thousandth of a voxel
    path = made.written(tmp_path / "m.nrrd", made.box(), origin=shifted)
    assert_on(read_mask(path, 1, IMAGE, STRICT), IMAGE)


@pytest.mark.parametrize(
    ("geometry", "difference"),
    [
        ({"origin": (-20, 15, 7.5)}, "origin -20, 15, 7.5 against -20, 15, 7"),
        ({"spacing": (0.8, 1.2, 3.1)}, "spacing 0.8, 1.2, 3.1 against 0.8, 1.2, 3"),
        ({"axes": ((1, 0, 0), (0, 1, 0))}, "direction"),
    ],
)
def test_a_mask_on_another_grid_is_refused_or_resampled_as_set(
    tmp_path: Path, geometry: dict[str, object], difference: str
) -> None:
    path = made.written(tmp_path / "m.nrrd", made.box(), **geometry)
    with pytest.raises(ImageError, match=f"on another grid than t2.nrrd .*{difference}.* set masks.off_grid to resample"):
        read_mask(path, 1, IMAGE, STRICT, image_path=Path("x/t2.nrrd"))
    assert_on(read_mask(path, 1, IMAGE, MaskSettings(off_grid="resample")), IMAGE)


def test_a_mask_on_half_the_spacing_is_resampled_to_the_voxels_it_covers(tmp_path: Path) -> None:
    fine = made.box().repeat(2, 0).repeat(2, 1).repeat(2, 2)
    spacing = np.array(made.SPACING) / 2
    origin = np.array(made.ORIGIN) - made.direction() @ (spacing / 2)
    path = made.written(tmp_path / "m.nrrd", fine, spacing=spacing, origin=origin)
    mask = read_mask(path, 1, IMAGE, MaskSettings(off_grid="resample"))
    np.testing.assert_array_equal(array_of(mask), made.box())


def test_the_same_voxels_in_another_order_are_no_other_grid(tmp_path: Path) -> None:
    flipped = sitk.Flip(made.image_of(made.box()), (True, False, True))
    sitk.WriteImage(flipped, str(tmp_path / "m.nrrd"))
    sitk.WriteImage(sitk.PermuteAxes(flipped, (2, 0, 1)), str(tmp_path / "p.nrrd"))
    for name in ("m.nrrd", "p.nrrd"):
        np.testing.assert_array_equal(array_of(read_mask(tmp_path / name, 1, IMAGE, STRICT)), made.box())


@pytest.mark.parametrize(
    ("shift", "reason"), [(500, "lies wholly outside of its image"), (3.2, "% of m.nrrd lies outside of its image")]
)
def test_a_mask_elsewhere_is_refused_even_where_it_may_be_resampled(tmp_path: Path, shift: float, reason: str) -> None:
    origin = (made.ORIGIN[0] + shift, *made.ORIGIN[1:])
    path = made.written(tmp_path / "m.nrrd", made.box(), origin=origin)
    with pytest.raises(ImageError, match=reason):
        read_mask(path, 1, IMAGE, MaskSettings(off_grid="resample"))


# --- shape


def region(*voxels: tuple[slice | int, slice | int, slice | int]) -> sitk.Image:
    array = np.zeros(made.SHAPE, dtype=np.uint8)
    for voxel in voxels:
        array[voxel] = 1
    return made.image_of(array)


TWO_PARTS = region((slice(0, 2), slice(0, 2), slice(0, 2)), (slice(3, 6), slice(3, 6), slice(3, 6)))


def test_a_region_in_parts_is_refused_kept_or_cut_to_its_largest() -> None:
    with pytest.raises(ImageError, match=r"in 2 parts that do not touch \(of 27, 8 voxels\)"):
        check_mask(TWO_PARTS, STRICT, "m")
    assert array_of(check_mask(TWO_PARTS, MaskSettings(disconnected="keep"), "m")).sum() == 35
    largest = check_mask(TWO_PARTS, MaskSettings(disconnected="largest"), "m")
    assert array_of(largest).sum() == 27 and array_of(largest)[4, 4, 4] == 1
    assert_on(largest, TWO_PARTS)


def test_parts_that_share_a_corner_are_one() -> None:
    corner = region((slice(0, 2), slice(0, 2), slice(0, 2)), (slice(2, 4), slice(2, 4), slice(2, 4)))
    assert array_of(check_mask(corner, STRICT, "m")).sum() == 16


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (region(), "m is empty"),
        (region((2, 2, 2)), "m has only one voxel"),
        (region((2, slice(1, 4), slice(1, 4))), "m lies in one slice; set masks.one_slice to keep"),
        (region((slice(1, 4), slice(1, 4), 2)), "m is one voxel thick"),
        (region((2, 2, slice(1, 4))), "m is a line of 3 voxels"),
    ],
)
def test_a_region_that_is_no_volume_is_refused(mask: sitk.Image, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        check_mask(mask, STRICT, "m")


def test_one_slice_may_be_kept_but_not_a_line() -> None:
    keep = MaskSettings(one_slice="keep")
    assert array_of(check_mask(region((2, slice(1, 4), slice(1, 4))), keep, "m")).sum() == 9
    with pytest.raises(ImageError, match="is a line"):
        check_mask(region((2, 2, slice(1, 4))), keep, "m")


def test_the_fewest_voxels_are_as_set() -> None:
    with pytest.raises(ImageError, match=r"only 8 voxels; 30 are the fewest \(minimum_voxels\)"):
        check_mask(region((slice(0, 2), slice(0, 2), slice(0, 2))), MaskSettings(minimum_voxels=30), "m")


@pytest.mark.parametrize(("place", "where"), [((2, 3, 4), "1 of them inside the mask"), ((0, 0, 0), "none inside the mask")])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_refused_wherever_it_is(place: tuple[int, int, int], where: str, value: float) -> None:
    array = made.ramp(dtype="float64")
    array[place] = value
    with pytest.raises(ImageError, match=rf"^t2 has 1 voxels that are no finite number \({where}\)"):
        check_finite(made.image_of(array), made.image_of(made.box()), "t2")


def test_a_flat_region_is_refused_though_the_image_varies() -> None:
    array = made.ramp(dtype="float64")
    array[made.box() == 1] = 5
    with pytest.raises(ImageError, match=r"t2 is constant \(5\) all over the mask"):
        check_finite(made.image_of(array), made.image_of(made.box()), "t2")
    check_finite(IMAGE, made.image_of(made.box()), "t2")


# --- DICOM SEG


@pytest.fixture
def series(tmp_path: Path) -> Path:
    made.write_series(tmp_path / "t2", made.ramp())
    return tmp_path / "t2"


@pytest.mark.parametrize("label", [2, "2", "tumour", "TUMOUR"])
def test_a_segmentation_reads_back_as_it_was_written(tmp_path: Path, series: Path, label: int | str) -> None:
    headers = made.series_of(made.ramp())
    masks = {"node": np.roll(made.box(), 3, axis=2), "tumour": made.box()}
    path = made.write_seg(tmp_path / "seg.dcm", headers, masks)
    image = read_volume(series).image
    mask = read_mask(path, label, image, STRICT)
    np.testing.assert_array_equal(array_of(mask), made.box())
    assert_on(mask, image)


def test_half_of_a_fractional_segment_is_inside(tmp_path: Path, series: Path) -> None:
    fraction = made.box() * 0.8 + np.roll(made.box(), 4, axis=1) * 0.1
    path = made.write_seg(tmp_path / "seg.dcm", made.series_of(made.ramp()), {"tumour": fraction}, fractional=True)
    np.testing.assert_array_equal(array_of(read_mask(path, 1, read_volume(series).image, STRICT)), made.box())


def test_a_segmentation_is_laid_on_a_nifti_of_its_series(tmp_path: Path) -> None:
    path = made.write_seg(tmp_path / "seg.dcm", made.series_of(made.ramp()), {"tumour": made.box()})
    nifti = read_volume(made.written(tmp_path / "a.nii.gz", made.ramp())).image
    np.testing.assert_array_equal(array_of(read_mask(path, 1, nifti, STRICT)), made.box())


def test_a_segmentation_of_another_image_is_refused(tmp_path: Path) -> None:
    path = made.write_seg(tmp_path / "seg.dcm", made.series_of(made.ramp()), {"tumour": made.box()})
    other = made.image_of(made.ramp(), spacing=(1, 1, 3))
    with pytest.raises(ImageError, match="on another grid"):
        read_mask(path, 1, other, STRICT)


def test_the_one_mask_of_a_folder_needs_no_name(tmp_path: Path, series: Path) -> None:
    made.write_seg(series / "seg.dcm", made.series_of(made.ramp()), {"tumour": made.box()})
    image = read_volume(series).image
    np.testing.assert_array_equal(array_of(read_mask(series, 1, image, STRICT)), made.box())
    made.write_rtstruct(series / "rt.dcm", {"tumour": []})
    with pytest.raises(ImageError, match="should hold one DICOM SEG or RTSTRUCT, and holds 2 of them"):
        read_mask(series, 1, image, STRICT)


def test_a_segment_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = made.write_seg(tmp_path / "seg.dcm", made.series_of(made.ramp()), {"node": made.box(), "tumour": made.box()})
    with pytest.raises(ImageError, match=r"no segment 'lesion' \(segments there: 1 'node', 2 'tumour'\)"):
        read_mask(path, "lesion", IMAGE, STRICT)


# --- RTSTRUCT


def drawn(corner: tuple[float, float] = (2.5, 1.5), sides: tuple[float, float] = (4, 5)) -> list[tuple[float, np.ndarray]]:
    """Around the voxels of ``box``."""
    return [(k, made.square(corner, sides)) for k in (1, 2, 3)]


@pytest.mark.parametrize("label", [2, "2", "GTV", "gtv"])
def test_contours_are_filled_on_an_oblique_grid(tmp_path: Path, label: int | str) -> None:
    path = made.write_rtstruct(tmp_path / "rt.dcm", {"body": drawn((0, 0), (8, 8)), "GTV": drawn()})
    mask = read_mask(path, label, IMAGE, STRICT)
    np.testing.assert_array_equal(array_of(mask), made.box())
    assert_on(mask, IMAGE)


def test_a_contour_within_a_contour_is_a_hole(tmp_path: Path) -> None:
    outer, inner = made.square((0.5, 0.5), (7, 7)), made.square((2.5, 2.5), (2, 2))
    holed = made.write_rtstruct(tmp_path / "xor.dcm", {"GTV": [(k, line) for k in (1, 2) for line in (outer, inner)]})
    # The same as one line that runs in through a slit and out again.
    keyhole = np.concatenate([outer, outer[:1], inner[[0, 3, 2, 1, 0]], outer[:1]])
    slit = made.write_rtstruct(tmp_path / "keyhole.dcm", {"GTV": [(k, keyhole) for k in (1, 2)]})
    expected = np.zeros(made.SHAPE, dtype=np.uint8)
    expected[1:3, 1:8, 1:8], expected[1:3, 3:5, 3:5] = 1, 0
    for path in (holed, slit):
        np.testing.assert_array_equal(array_of(read_mask(path, 1, IMAGE, STRICT)), expected)


def test_contours_between_the_slices_are_refused_or_go_to_the_nearest(tmp_path: Path) -> None:
    between = [(k + 0.3, line) for k, line in drawn()]
    path = made.write_rtstruct(tmp_path / "rt.dcm", {"GTV": between})
    with pytest.raises(ImageError, match=r"not drawn on the slices of this image \(a contour is 0\.3 slices off\)"):
        read_mask(path, 1, IMAGE, STRICT)
    np.testing.assert_array_equal(array_of(read_mask(path, 1, IMAGE, MaskSettings(off_grid="resample"))), made.box())


def test_contours_across_the_slices_are_refused(tmp_path: Path) -> None:
    path = made.write_rtstruct(tmp_path / "rt.dcm", {"GTV": drawn()})
    straight = made.image_of(made.ramp(), axes=((1, 0, 0), (0, 1, 0)), origin=(-20, 10, 0), spacing=(0.8, 1.2, 4))
    with pytest.raises(ImageError, match="not drawn on the slices of this image"):
        read_mask(path, 1, straight, MaskSettings(off_grid="resample"))


@pytest.mark.parametrize(
    ("regions", "kind", "reason"),
    [
        ({"GTV": []}, "CLOSED_PLANAR", "region 1 has no closed contour"),
        ({"GTV": drawn()}, "POINT", "region 1 has no closed contour"),
        ({}, "CLOSED_PLANAR", r"has no region 1 \(regions there: \)"),
        ({"GTV": [(k + 40, line) for k, line in drawn()]}, "CLOSED_PLANAR", "lies wholly outside"),
        ({"GTV": drawn((-6, 1), (9, 4))}, "CLOSED_PLANAR", "lies outside"),
    ],
)
def test_regions_without_an_inside_in_the_image_are_refused(
    tmp_path: Path, regions: dict[str, list[tuple[float, np.ndarray]]], kind: str, reason: str
) -> None:
    path = made.write_rtstruct(tmp_path / "rt.dcm", regions, kind=kind)
    with pytest.raises(ImageError, match=reason) as raised:
        read_mask(path, 1, IMAGE, STRICT)
    assert "ecret" not in str(raised.value)


@pytest.mark.parametrize("name", ["seg.dcm", "rt.dcm"])
def test_a_damaged_dicom_mask_is_a_sentence(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    made.write_seg(tmp_path / "seg.dcm", made.series_of(made.ramp()), {"tumour": made.box()})
    made.write_rtstruct(tmp_path / "rt.dcm", {"GTV": drawn()})
    whole = (tmp_path / name).read_bytes()
    capfd.readouterr()
    for cut in range(140, len(whole), max(1, len(whole) // 40)):
        (tmp_path / name).write_bytes(whole[:cut])
        with pytest.raises(ImageError) as raised:
            read_mask(tmp_path / name, 1, IMAGE, STRICT)
        assert raised.value.file == name
    assert capfd.readouterr().err == ""


# --- real ones


def test_the_contours_of_the_sarcoma_are_the_mask_made_from_them(data: Path) -> None:
    folder = data / "mri_sts_t1_t2_pet_ct"
    series = folder / "STS_001_MR_T2_dicom_rtstruct.zip"
    image, cropped = read_volume(series).image, read_volume(folder / "STS_001_MR_T2FS_image.nii.gz").image
    ours = read_mask(series / "STS_001/MR_T2/mask/1-1.dcm", "GTV_Mass", image, STRICT)
    corner = [round(place) for place in image.TransformPhysicalPointToContinuousIndex(cropped.GetOrigin())]
    ours = array_of(sitk.RegionOfInterest(ours, cropped.GetSize(), corner))
    theirs = array_of(read_mask(folder / "STS_001_MR_T2FS_mask.nii.gz", 1, cropped, STRICT))
    assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.98  # issue 4, what must hold, 3


def test_the_ibsi_segmentation_is_its_nifti(data: Path) -> None:
    folder = data / "ibsi_digital_phantom"
    dicom = read_mask(folder / "dicom" / "mask" / "mask.dcm", "ROI", read_volume(folder / "dicom" / "image").image, STRICT)
    nifti = read_mask(folder / "nifti/mask/mask.nii.gz", 1, read_volume(folder / "nifti/image/phantom.nii.gz").image, STRICT)
    assert array_of(dicom).sum() == 74  # IBSI reference manual, doi:10.1148/radiol.2020191145
    np.testing.assert_array_equal(array_of(dicom).transpose(1, 0, 2), array_of(nifti))


@pytest.mark.parametrize(
    ("name", "settings", "outcome"),
    [
        ("empty", STRICT, "is empty"),
        ("single_slice", STRICT, "lies in one slice"),
        ("single_slice", MaskSettings(one_slice="keep"), 1),
        ("one_label", STRICT, 1),
        ("two_labels", STRICT, 1),
        ("two_labels", MaskSettings(disconnected="keep"), 2),
    ],
)
def test_the_odd_masks_of_autoradiomics_behave(data: Path, name: str, settings: MaskSettings, outcome: int | str) -> None:
    folder = data / "mri_prostate_adc_t2"
    image, path = read_volume(folder / "autorad_img.nii.gz").image, folder / f"autorad_seg_{name}.nii.gz"
    if isinstance(outcome, int):
        mask = array_of(read_mask(path, outcome, image, settings))
        np.testing.assert_array_equal(mask, sitk.GetArrayFromImage(sitk.ReadImage(str(path))) == outcome)
    else:
        with pytest.raises(ImageError, match=outcome):
            read_mask(path, 1, image, settings)
