"""Perturbed masks: as far as asked and no further, never empty, the same again with the same generator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from features.imaging.perturb import Perturbation, perturbed, perturbed_masks
from features.imaging.settings import PerturbationSettings


def ellipsoid(shape: tuple[int, int, int] = (16, 40, 40), oblique: bool = False) -> sitk.Image:
    """A tumour on a grid of 1 x 1 x 3 mm, not in the middle of it."""
    z, y, x = np.indices(shape)
    inside = ((z - 8) / 3) ** 2 + ((y - 18) / 9) ** 2 + ((x - 22) / 6) ** 2 <= 1
    image = sitk.GetImageFromArray(inside.astype(np.uint8))
    image.SetSpacing((1.0, 1.0, 3.0))
    image.SetOrigin((-30.0, 12.0, 5.0))
    if oblique:
        c, s = np.cos(0.3), np.sin(0.3)
        image.SetDirection((c, 0, s, 0, 1, 0, -s, 0, c))
    return image


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


def centroid(image: sitk.Image) -> np.ndarray:
    """In voxels, as x, y, z."""
    return np.argwhere(array(image)).mean(axis=0)[::-1]


def overlap(one: sitk.Image, other: sitk.Image) -> float:
    return float(2 * (array(one) & array(other)).sum() / (array(one).sum() + array(other).sum()))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("oblique", [False, True])
def test_nothing_asked_nothing_changed(oblique: bool) -> None:
    mask = ellipsoid(oblique=oblique)
    same = perturbed(mask, Perturbation())
    np.testing.assert_array_equal(array(same), array(mask))
    assert (same.GetSpacing(), same.GetOrigin(), same.GetDirection()) == (
        mask.GetSpacing(),
        mask.GetOrigin(),
        mask.GetDirection(),
    )


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("shift", [(2.0, -1.0, 3.0), (0.4, 0.0, 0.0), (0.0, -0.3, 0.6)])
def test_a_shift_moves_the_centroid_by_as_much_even_by_a_fraction_of_a_voxel(
    shift: tuple[float, float, float], oblique: bool
) -> None:
    mask = ellipsoid(oblique=oblique)
    moved = perturbed(mask, Perturbation(shift_mm=shift))
    voxels = np.array(shift) / (1, 1, 3)
    np.testing.assert_allclose(
        centroid(moved) - centroid(mask), voxels, atol=0.2
    )  # of a voxel: the contour of a mask of voxels is known no better
    assert array(moved).sum() == array(mask).sum()


@pytest.mark.parametrize("volume", [-0.5, -0.1, 0.1, 0.5])
def test_growing_and_shrinking_change_the_volume_as_asked_along_the_contour(volume: float) -> None:
    mask = ellipsoid()
    changed = perturbed(mask, Perturbation(volume=volume))
    assert array(changed).sum() == round(array(mask).sum() * (1 + volume))
    inner, outer = sorted((array(mask), array(changed)), key=np.sum)
    assert outer[inner > 0].mean() > 0.98
    assert np.abs(centroid(changed) - centroid(mask)).max() < 0.1
    pieces = sitk.LabelShapeStatisticsImageFilter()
    pieces.Execute(sitk.ConnectedComponent(changed))
    assert pieces.GetNumberOfLabels() == 1


def test_a_turn_is_about_the_centroid_and_across_slices() -> None:
    mask = ellipsoid()
    quarter = perturbed(mask, Perturbation(turn_degrees=90))
    assert np.abs(centroid(quarter) - centroid(mask)).max() < 0.1
    extents = [np.ptp(np.argwhere(array(one)), axis=0) for one in (mask, quarter)]
    assert extents[0].tolist() == [6, 18, 12]  # half axes 3, 9 and 6 voxels
    assert np.abs(extents[1] - [6, 12, 18]).max() <= 1
    small = perturbed(mask, Perturbation(turn_degrees=5))
    assert 0.9 < overlap(small, mask) < 1


def test_the_image_around_the_mask_has_no_say() -> None:
    mask = ellipsoid()
    wide = sitk.ConstantPad(mask, [20, 20, 5], [20, 20, 5])
    asked = Perturbation((0.3, 0.2, 0.1), 4, 0.1)
    near, far = (array(perturbed(one, asked)) for one in (mask, wide))
    np.testing.assert_array_equal(far[5:-5, 20:-20, 20:-20], near)


@given(
    seed=st.integers(0, 10_000),
    voxels=st.integers(1, 6),
    reach=st.floats(0, 20),
    volume=st.floats(0, 0.99),
    turn=st.floats(0, 180),
)
@settings(max_examples=40)
def test_no_perturbed_mask_is_empty_or_off_the_grid(seed: int, voxels: int, reach: float, volume: float, turn: float) -> None:
    """Even of a few voxels at the border of the image, moved far beyond it."""
    values = np.zeros((3, 5, 5), dtype=np.uint8)
    values.ravel()[:voxels] = 1
    mask = sitk.GetImageFromArray(values)
    asked = PerturbationSettings(count=3, shift_voxels=reach, turn_degrees=turn, volume=volume)
    for _, one in perturbed_masks(mask, asked, np.random.default_rng(seed)):
        assert array(one).shape == values.shape
        assert 1 <= array(one).sum() <= 2 * voxels
        assert one.GetPixelID() == sitk.sitkUInt8


def test_draws_are_named_differ_stay_within_bounds_and_come_again() -> None:
    mask = ellipsoid()
    asked = PerturbationSettings(count=6, shift_voxels=0.5, turn_degrees=5, volume=0.1)
    masks = perturbed_masks(mask, asked, rng())
    assert [name for name, _ in masks] == [f"perturbed-{number}" for number in range(1, 7)]
    assert len({array(one).tobytes() for _, one in masks}) == 6
    for (_, one), (_, again) in zip(masks, perturbed_masks(mask, asked, rng()), strict=True):
        np.testing.assert_array_equal(array(one), array(again))
        assert np.abs(centroid(one) - centroid(mask)).max() < 0.7
        assert 0.9 <= array(one).sum() / array(mask).sum() <= 1.1
        assert overlap(one, mask) > 0.8


def test_settings_that_could_leave_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="less than 1"):
        PerturbationSettings(volume=1.0)


def test_a_real_tumour_is_outlined_otherwise_but_hardly(data: Path) -> None:
    (path,) = sorted((data / "pyradiomics_testdata").rglob("brain1_label.nrrd"))[:1]
    mask = sitk.ReadImage(str(path)) == 1
    for _, one in perturbed_masks(mask, PerturbationSettings(count=3), rng()):
        assert 0.7 < overlap(one, sitk.Cast(mask, sitk.sitkUInt8)) < 1
