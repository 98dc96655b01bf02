"""Measuring: the columns that a profile promises, the papers' numbers, and cases that cannot be measured."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import radiomics.featureextractor
import SimpleITK as sitk

from features.errors import InputError
from features.imaging.errors import ImageError
from features.imaging.parameters import profile_of
from features.imaging.profiles import PROFILES, FeatureClass, ImageType, Options, Profile, Resolution
from features.imaging.radiomics import CaseImage, _single_threaded, measure

HALLE = PROFILES["halle2024"]
FIRST_ORDER = FeatureClass(family="firstorder")


def _image(values: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> sitk.Image:
    image = sitk.GetImageFromArray(values.astype(np.float64))
    image.SetSpacing(spacing)
    return image


def _mask(like: sitk.Image, inside: tuple[slice, slice, slice]) -> sitk.Image:
    values = np.zeros(like.GetSize()[::-1], dtype=np.uint8)
    values[inside] = 1
    mask = sitk.GetImageFromArray(values)
    mask.CopyInformation(like)
    return mask


def _noise(size: int = 20, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> sitk.Image:
    return _image(np.random.default_rng(7).gamma(4.0, 100.0, (size, size, size)), spacing)


def _case(size: int = 20) -> CaseImage:
    image = _noise(size)
    return CaseImage(image, _mask(image, (slice(4, 16), slice(4, 16), slice(4, 16))))


@pytest.fixture(scope="module")
def brain(data: Path) -> CaseImage:
    folder = data / "pyradiomics_testdata"
    image = sitk.ReadImage(folder / "brain1_image.nrrd", sitk.sitkFloat64)
    return CaseImage(image, sitk.ReadImage(folder / "brain1_label.nrrd"))


@pytest.fixture(scope="module")
def halle(brain: CaseImage) -> dict[str, float | str]:
    """T2, and images made of it in place of the other two: the case has one sequence."""
    return measure(HALLE, {"T2": brain, "DWI": CaseImage(sitk.Sqrt(brain.image)), "ADC": CaseImage(sitk.Square(brain.image))})


# Halle et al. 2024


def test_halle_gives_exactly_its_293_columns_in_order(halle: dict[str, float | str]) -> None:
    assert list(halle) == [feature.name for feature in HALLE.features(["T2", "DWI", "ADC"])]
    assert len(halle) == 293
    assert all(isinstance(value, float) and math.isfinite(value) for value in halle.values())


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("firstorder_Mean", 213.982037),  # science.md 1A, an independent implementation on PyRadiomics' brain1
        ("firstorder_Entropy", 3.983864),
        ("glcm_JointEntropy", 7.642833),
        ("glszm_ZoneEntropy", 6.337413),
        ("shape_VoxelVolume", 16412.658691),
    ],
)
def test_halle_on_brain1_gives_the_reference_numbers(name: str, reference: float, halle: dict[str, float | str]) -> None:
    assert halle[f"T2_original_{name}"] == pytest.approx(reference, abs=5e-7)


def test_scaling_any_image_by_a_constant_changes_nothing(brain: CaseImage, halle: dict[str, float | str]) -> None:
    scaled = measure(
        HALLE,
        {
            "T2": CaseImage(brain.image * 3.7, brain.mask),
            "DWI": CaseImage(sitk.Sqrt(brain.image) * 0.013),
            "ADC": CaseImage(sitk.Square(brain.image) * 1e-6),
        },
    )
    assert scaled == pytest.approx(halle, rel=1e-10, abs=1e-10)


def _ramp_on(grid: sitk.Image) -> sitk.Image:
    points = sitk.PhysicalPointSource(sitk.sitkVectorFloat64, grid.GetSize(), grid.GetOrigin(), grid.GetSpacing())
    x, y, z = (sitk.VectorIndexSelectionCast(points, axis) for axis in range(3))
    return x * 2.0 + y * 3.0 + z * 5.0 + 7.0


def test_a_linear_ramp_resamples_exactly() -> None:
    """Values of the ramp at the voxels of T2 are those of the formula, whatever grid it was sampled on."""
    reference = _noise(8)
    mask = _mask(reference, (slice(2, 6), slice(2, 6), slice(2, 6)))
    coarse = _image(np.zeros((5, 6, 7)), (2.0, 1.5, 2.5))
    plain = Profile(name="plain", sequences=("T2", "DWI", "ADC"), classes=(FIRST_ORDER,))
    ours = measure(
        plain, {"T2": CaseImage(reference, mask), "DWI": CaseImage(_ramp_on(coarse)), "ADC": CaseImage(_ramp_on(reference))}
    )
    for feature in FIRST_ORDER.names:
        assert ours[f"DWI_original_firstorder_{feature}"] == pytest.approx(ours[f"ADC_original_firstorder_{feature}"], rel=1e-12)
    assert ours["DWI_original_firstorder_Minimum"] == pytest.approx(2 * 2 + 3 * 2 + 5 * 2 + 7, rel=1e-14)
    assert ours["DWI_original_firstorder_Maximum"] == pytest.approx(2 * 5 + 3 * 5 + 5 * 5 + 7, rel=1e-14)


def test_integer_pixels_are_not_rounded_in_resampling() -> None:
    reference = _image(np.arange(128.0).reshape(4, 4, 8), (0.5, 1.0, 1.0))
    mask = _mask(reference, (slice(1, 3), slice(1, 3), slice(1, 4)))
    steps = sitk.GetImageFromArray(np.arange(4, dtype=np.int16).reshape(1, 1, 4).repeat(4, 0).repeat(4, 1))
    plain = Profile(name="plain", sequences=("T2", "DWI", "ADC"), classes=(FIRST_ORDER,))
    ours = measure(plain, {"T2": CaseImage(reference, mask), "DWI": CaseImage(steps), "ADC": CaseImage(steps)})
    assert ours["DWI_original_firstorder_Minimum"] == 0.5
    assert ours["DWI_original_firstorder_Mean"] == pytest.approx(1.0)


def test_the_mean_may_be_taken_over_the_field_of_view_alone() -> None:
    reference = _noise()
    mask = _mask(reference, (slice(3, 8), slice(3, 8), slice(3, 8)))
    half = reference[:, :, :10]  # covers half of T2
    images = {"T2": CaseImage(reference, mask), "DWI": CaseImage(half), "ADC": CaseImage(reference)}
    fov = HALLE.model_copy(update={"mean_over": "field of view"})
    stack, inside = measure(HALLE, images), measure(fov, images)
    name = "DWI_original_firstorder_Mean"
    values = sitk.GetArrayFromImage(half)
    assert inside[name] == pytest.approx(values[3:8, 3:8, 3:8].mean() * 100 / values.mean())
    assert stack[name] == pytest.approx(2 * inside[name])
    assert stack["ADC_original_firstorder_Mean"] == pytest.approx(inside["ADC_original_firstorder_Mean"])


def test_a_mask_of_its_own_on_a_moving_image_is_refused() -> None:
    case = _case()
    other = _mask(case.image, (slice(1, 5), slice(1, 5), slice(1, 5)))
    with pytest.raises(ImageError, match="DWI has a mask of its own, and all is measured in that of T2"):
        measure(HALLE, {"T2": case, "DWI": CaseImage(case.image, other), "ADC": CaseImage(case.image)})
    measure(HALLE, {"T2": case, "DWI": CaseImage(case.image, case.mask), "ADC": CaseImage(case.image)})


def test_a_mask_beyond_a_moving_image_is_refused() -> None:
    case = _case()
    for moving, beyond in ((case.image[:, :, :10], 864), (case.image[6:, :, :], 288)):
        with pytest.raises(ImageError, match=f"DWI does not reach {beyond} of the 1728 voxels of the mask"):
            measure(HALLE, {"T2": case, "DWI": CaseImage(moving), "ADC": CaseImage(case.image)})
    just = case.image[4:16, 4:16, 4:16]
    measure(HALLE, {"T2": case, "DWI": CaseImage(just), "ADC": CaseImage(case.image)})


def test_a_volume_without_a_positive_mean_is_refused() -> None:
    case = _case()
    with pytest.raises(ImageError, match="mean of 0"):
        measure(HALLE, {"T2": case, "DWI": CaseImage(case.image * 0), "ADC": CaseImage(case.image)})


def test_a_missing_sequence_is_refused() -> None:
    with pytest.raises(InputError, match="measures 'T2', 'DWI', 'ADC' together"):
        measure(HALLE, {"T2": _case()})


# The other profiles


@pytest.mark.parametrize("name", ["bodalal4032a", "bodalal4032b", "full", "ibsi"])
def test_a_profile_gives_exactly_its_columns(name: str) -> None:
    profile = PROFILES[name]
    ours = measure(profile, {"T2": _case()})
    described = profile.features(["T2"])
    assert list(ours) == [feature.name for feature in described]
    for feature in described:
        value = ours[feature.name]
        assert feature.family == "diagnostics" or (isinstance(value, float) and math.isfinite(value)), feature.name


def test_diagnostics_are_numbers_or_json(brain: CaseImage) -> None:
    ours = measure(profile_of("x", {"featureClass": {"firstorder": ["Mean"]}}), {"T2": brain})
    assert ours["T2_diagnostics_Mask-original_VoxelNum"] == 4137.0  # the project's baseline
    assert ours["T2_diagnostics_Mask-original_BoundingBox"] == "[162, 84, 11, 47, 70, 7]"
    assert ours["T2_diagnostics_Image-original_Dimensionality"] == "3D"
    assert len(ours) == 14


def test_names_of_every_filter_are_pyradiomics_own() -> None:
    parameters = {
        "setting": {"force2D": True, "additionalInfo": False},
        "imageType": {
            "Original": None,
            "LoG": {"sigma": [1, 2.5]},
            "Wavelet": {"level": 2, "start_level": 1},
            "LBP3D": {"lbp3DLevels": 3},
            "Gradient": None,
        },
        "featureClass": {"firstorder": ["Mean"]},
    }
    ours = measure(profile_of("x", parameters), {"T2": _case()})
    assert [name.removeprefix("T2_").removesuffix("_firstorder_Mean") for name in ours] == [
        "original",
        "log-sigma-1-mm-3D",
        "log-sigma-2-5-mm-3D",
        "wavelet-LH",
        "wavelet-HL",
        "wavelet-HH",
        "wavelet2-LH",
        "wavelet2-HL",
        "wavelet2-HH",
        "wavelet2-LL",
        "gradient",
        "lbp-3D-m1",
        "lbp-3D-m2",
        "lbp-3D-m3",
        "lbp-3D-k",
    ]


def test_settings_of_one_image_type_hold_for_it_alone() -> None:
    parameters = {
        "setting": {"binWidth": 50, "additionalInfo": False},
        "imageType": {"Original": {"binWidth": 200}, "Square": None},
        "featureClass": {"firstorder": ["Entropy"]},
    }
    ours = measure(profile_of("x", parameters), {"T2": _case()})
    for width, name in ((200, "original"), (50, "square")):
        alone = profile_of("y", {**parameters, "setting": {"binWidth": width, "additionalInfo": False}})
        same = alone.model_copy(update={"images": tuple(ImageType(kind=one.kind, options=alone.options) for one in alone.images)})
        column = f"T2_{name}_firstorder_Entropy"
        assert ours[column] == measure(same, {"T2": _case()})[column]


def test_two_sequences_are_measured_each_in_its_own_mask() -> None:
    small = CaseImage(_noise(), _mask(_noise(), (slice(2, 5), slice(2, 5), slice(2, 5))))
    shape = Profile(name="shape", classes=(FeatureClass(family="shape", features=("VoxelVolume",)),))
    assert measure(shape, {"T2": _case(), "ADC": small}) == {
        "T2_original_shape_VoxelVolume": 1728.0,
        "ADC_original_shape_VoxelVolume": 27.0,
    }


def test_cropping_to_the_region_changes_no_value() -> None:
    """An unfiltered profile is measured on the mask's box; diagnostics make PyRadiomics take the whole image."""
    lean = Profile(name="lean", classes=HALLE.classes)
    whole = lean.model_copy(update={"diagnostics": True})
    ours, theirs = measure(lean, {"T2": _case()}), measure(whole, {"T2": _case()})
    assert ours == {name: value for name, value in theirs.items() if "_diagnostics_" not in name}


def test_pyradiomics_by_itself_gives_the_same_names_and_values() -> None:
    extractor = radiomics.featureextractor.RadiomicsFeatureExtractor(resampledPixelSpacing=[2.0, 2.0, 2.0], additionalInfo=False)
    for kind in ("Wavelet", "Square", "SquareRoot", "Logarithm", "Exponential", "Gradient"):
        extractor.enableImageTypeByName(kind)
    case = _case()
    theirs = {f"T2_Medium_{name}": float(value) for name, value in extractor.execute(case.image, case.mask).items()}
    ours = measure(PROFILES["bodalal4032a"], {"T2": case})
    assert len(theirs) == 1344 - 28
    assert theirs == {
        name: value for name, value in ours.items() if name.startswith("T2_Medium_") and "_diagnostics_" not in name
    }


def test_measuring_again_gives_the_same_numbers() -> None:
    first, second = (measure(PROFILES["full"], {"T2": _case()}) for _ in range(2))
    assert first == second


# Cases that cannot be measured


@pytest.mark.parametrize("name", ["bodalal4032a", "full"])
def test_fewer_than_27_voxels_at_the_coarsest_resolution_are_refused(name: str) -> None:
    image = _noise()
    mask = _mask(image, (slice(5, 11), slice(5, 11), slice(5, 11)))  # 216 voxels of 1 mm, 8 of 3 mm
    with pytest.raises(ImageError, match="T2 at 3 mm: fewer than 27 voxels are left of the mask"):
        measure(PROFILES[name], {"T2": CaseImage(image, mask)})


def test_a_mask_that_vanishes_in_resampling_is_refused() -> None:
    image = _noise()
    mask = _mask(image, (slice(5, 6), slice(5, 7), slice(5, 7)))
    coarse = Profile(name="coarse", classes=(FIRST_ORDER,), resolutions=(Resolution(spacing_mm=9.0),))
    with pytest.raises(ImageError, match="T2 at 9 mm: "):
        measure(coarse, {"T2": CaseImage(image, mask)})


def test_one_voxel_and_a_line_are_refused() -> None:
    image = _noise()
    plain = Profile(name="plain", classes=(FIRST_ORDER,))
    line = _mask(image, (slice(5, 9), slice(5, 6), slice(5, 6)))
    with pytest.raises(ImageError, match="T2 at its own resolution: the mask is flatter than the profile"):
        measure(plain, {"T2": CaseImage(image, line)})
    single = _mask(image, (slice(5, 6), slice(5, 6), slice(5, 6)))
    with pytest.raises(ImageError, match="only one voxel is left of the mask"):
        measure(plain, {"T2": CaseImage(image, single)})


def test_an_empty_mask_and_no_mask_are_refused() -> None:
    image = _noise()
    plain = Profile(name="plain", classes=(FIRST_ORDER,))
    with pytest.raises(ImageError, match="nothing is left of the mask"):
        measure(plain, {"T2": CaseImage(image, _mask(image, (slice(0), slice(0), slice(0))))})
    with pytest.raises(ImageError, match="T2 has no mask"):
        measure(plain, {"T2": CaseImage(image)})


def test_a_filter_that_the_image_is_too_small_for_is_named() -> None:
    case = _case(16)
    thin = CaseImage(case.image[:, :, 5:8], case.mask[:, :, 5:8])  # LoG wants four slices, and is dropped with a line in a log
    profile = profile_of("x", {"imageType": {"LoG": {"sigma": [1.0]}}, "setting": {"additionalInfo": False}})
    with pytest.raises(ImageError, match=r"PyRadiomics gives no log-sigma-1-0-mm-3D_firstorder_10Percentile \(93 features"):
        measure(profile, {"T2": thin})


def test_a_mask_on_another_grid_is_refused_whatever_tolerance_is_set_in_the_process() -> None:
    case = _case()
    shifted = sitk.Image(case.mask)
    shifted.SetOrigin((0.0, 0.3, 0.0))
    plain = Profile(name="plain", classes=(FIRST_ORDER,))
    tolerance = sitk.ProcessObject.GetGlobalDefaultCoordinateTolerance()
    for value in (1e-6, 10.0):
        sitk.ProcessObject.SetGlobalDefaultCoordinateTolerance(value)
        try:
            with pytest.raises(ImageError, match=r"mask of T2 is on another grid than the image; set masks\.off_grid"):
                measure(plain, {"T2": CaseImage(case.image, shifted)})
        finally:
            sitk.ProcessObject.SetGlobalDefaultCoordinateTolerance(tolerance)
    noise = sitk.Image(case.mask)
    noise.SetOrigin((0.0, 1e-5, 0.0))  # a header's rounding
    assert measure(plain, {"T2": CaseImage(case.image, noise)}) == measure(plain, {"T2": case})


def test_bins_beyond_memory_are_refused_before_they_are_made() -> None:
    case = _case()
    with pytest.raises(ImageError, match=r"T2: bins of width 25 make \d+ grey levels of its values, more than 4096; rescale"):
        measure(Profile(name="x", classes=HALLE.classes), {"T2": CaseImage(case.image * 1e4, case.mask)})
    counted = Options(bin_count=32)
    profile = Profile(name="x", classes=(FIRST_ORDER,), options=counted, images=(ImageType(kind="Original", options=counted),))
    assert measure(profile, {"T2": CaseImage(case.image * 1e4, case.mask)})["T2_original_firstorder_Range"] > 1e6


def test_shape_of_several_slices_as_one_is_refused() -> None:
    profile = profile_of("x", {"setting": {"force2D": True}, "featureClass": {"shape2D": None}})
    with pytest.raises(ImageError, match="the mask spans several slices, and shape2D needs a single one"):
        measure(profile, {"T2": _case()})


def test_a_flat_region_and_values_that_are_no_numbers_are_refused() -> None:
    flat = _image(np.full((6, 6, 6), 5.0))
    mask = _mask(flat, (slice(1, 5), slice(1, 5), slice(1, 5)))
    plain = Profile(name="x", classes=(FIRST_ORDER,))
    with pytest.raises(ImageError, match="T2 has one value in the whole mask, 5; check that they belong together"):
        measure(plain, {"T2": CaseImage(flat, mask)})
    flat[2, 2, 2] = math.inf
    with pytest.raises(ImageError, match="T2 has values in the mask that are not finite numbers"):
        measure(plain, {"T2": CaseImage(flat, mask)})
    shape = Profile(name="x", classes=(FeatureClass(family="shape"),))
    assert measure(shape, {"T2": CaseImage(flat, mask)})["T2_original_shape_VoxelVolume"] == 64.0


def test_a_feature_that_pyradiomics_fails_on_is_nan_and_the_others_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: object) -> float:
        raise ZeroDivisionError

    whole = measure(Profile(name="x", classes=(FIRST_ORDER,)), {"T2": _case()})
    monkeypatch.setattr("radiomics.firstorder.RadiomicsFirstOrder.getSkewnessFeatureValue", fails)
    ours = measure(Profile(name="x", classes=(FIRST_ORDER,)), {"T2": _case()})
    assert math.isnan(float(ours.pop("T2_original_firstorder_Skewness")))
    del whole["T2_original_firstorder_Skewness"]
    assert ours == whole


# Manners


def test_measuring_logs_nothing_and_leaves_threads_and_loggers_as_they_were(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    with caplog.at_level(logging.DEBUG):
        measure(Profile(name="x", classes=HALLE.classes), {"T2": _case()})
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    with _single_threaded():
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 1


def test_images_are_left_as_they_were() -> None:
    case = _case()
    assert case.mask is not None
    before = sitk.Hash(case.image), sitk.Hash(case.mask)
    measure(HALLE, {"T2": case, "DWI": CaseImage(case.image), "ADC": CaseImage(case.image)})
    assert (sitk.Hash(case.image), sitk.Hash(case.mask)) == before
