"""The PyRadiomics project's own baseline values, through our profiles and `measure`.

3370 values of five cases: first-order features in 4 settings, texture in 7 or 8, shape in 2, and shape of a single slice. The two
lung images are cropped in our copy (the mask's box and 15 voxels around it), and what depends on the whole image is put back:
the crop is set in its place again (resampling grids start at the image's corner), and mean and standard deviation of the whole
image, by which `normalize` scales, are taken from the baseline itself.
"""

from __future__ import annotations

import ast
import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from features.imaging.parameters import profile_of
from features.imaging.profiles import Profile
from features.imaging.radiomics import CaseImage, measure

CASES = ("brain1", "brain2", "breast1", "lung1", "lung2")
TOLERANCE = 1e-6
MARGIN = 15
# The baseline of brain1's shape is of an older mesh (marching cubes of PyRadiomics 2.0): rel <= 9.2e-4; upstream allows 3%.
OTHER_MESH = {("brain1", f"shape_{feature}") for feature in ("MeshVolume", "SurfaceArea", "SurfaceVolumeRatio", "Sphericity")}


@dataclass(frozen=True)
class Column:
    """One column of the baseline: a case in one setting, over all families."""

    case: str
    setting: str
    profile: Profile
    values: dict[str, float]
    about: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.case}_{self.setting}".rstrip("_")


def _baseline(folder: Path) -> Iterator[Column]:
    """Columns of the files, joined where the same settings gave them."""
    joined: dict[tuple[str, str], dict[str, dict[str, float]]] = defaultdict(dict)
    about: dict[str, dict[str, str]] = defaultdict(dict)
    for path in sorted((folder / "baseline").glob("*.csv")):
        family = path.stem.removeprefix("baseline_")
        with path.open() as stream:
            rows = {row["featureName"]: row for row in csv.DictReader(stream)}
        for column in list(next(iter(rows.values())))[1:]:
            settings = rows["diagnostics_Configuration_Settings"][column]
            key = (column, repr(sorted(ast.literal_eval(settings).items())))
            joined[key][family] = {
                name.split("_")[2]: float(row[column]) for name, row in rows.items() if name.startswith("original_")
            }
            about[column] |= {name: row[column] for name, row in rows.items() if row[column] and "diagnostics" in name}
    for (column, settings), families in joined.items():
        case, _, setting = column.partition("_")
        yield Column(
            case,
            setting,
            _profile(dict(ast.literal_eval(settings)), families),
            {f"{family}_{name}": value for family, values in families.items() for name, value in values.items()},
            about[column],
        )


def _profile(setting: dict[str, Any], families: dict[str, dict[str, float]]) -> Profile:
    """The baseline's settings as a profile; geometry is checked elsewhere, and the diagnostics are not compared."""
    setting = {key: value for key, value in setting.items() if key != "correctMask"} | {"additionalInfo": False}
    features = {family: list(values) for family, values in families.items()}
    return profile_of("baseline", {"setting": setting, "featureClass": features})


def _case(folder: Path, name: str) -> CaseImage:
    crop = "_crop" if name.startswith("lung") else ""
    # Pixels as they are stored: the baseline is of integers, rounded again after interpolation.
    return CaseImage(*(sitk.ReadImage(str(folder / f"{name}{crop}_{what}.nrrd")) for what in ("image", "label")))


def _in_place(case: CaseImage, about: dict[str, str]) -> CaseImage:
    """The crop where it was in the whole image, up to its far corner."""
    box = ast.literal_eval(about["diagnostics_Mask-original_BoundingBox"])
    before = [max(0, start - MARGIN) for start in box[:3]]
    return CaseImage(sitk.ZeroFluxNeumannPad(case.image, before, [0, 0, 0]), sitk.ConstantPad(case.mask, before, [0, 0, 0], 0))


def _normalized(column: Column, plain: Column, mean: float, case: CaseImage) -> tuple[Profile, CaseImage]:
    """The image as `normalize` makes it of the whole: its standard deviation is that by which the range in the mask shrank."""
    factor = column.values["firstorder_Range"] / plain.values["firstorder_Range"]
    image = (sitk.Cast(case.image, sitk.sitkFloat64) - mean) * factor
    options = column.profile.options.model_copy(update={"normalize": False})
    images = tuple(image.model_copy(update={"options": options}) for image in column.profile.images)
    return column.profile.model_copy(update={"options": options, "images": images}), CaseImage(image, case.mask)


def _one_slice(case: CaseImage, about: dict[str, str], name: str) -> CaseImage:
    """The slice of the mask that the project's 2-D masks hold."""
    z = ast.literal_eval(about["diagnostics_Mask-corrected_BoundingBox"])[2] - FIRST_SLICE.get(name, 0)
    only = sitk.GetArrayFromImage(case.mask)
    only[np.arange(len(only)) != z] = 0
    mask = sitk.GetImageFromArray(only)
    mask.CopyInformation(case.mask)
    return CaseImage(case.image, mask)


# Where the crops of the lungs begin, in slices: their masks begin at 32 and 15.
FIRST_SLICE = {"lung1": 32 - MARGIN, "lung2": 0}


def _measured(column: Column, plain: dict[str, Column], mean: dict[str, float], folder: Path) -> dict[str, float | str]:
    profile, case = column.profile, _case(folder, column.case)
    cropped = column.case.startswith("lung")
    if cropped and column.setting == "resampling":
        case = _in_place(case, column.about)
    if cropped and column.setting == "normalization":
        profile, case = _normalized(column, plain[column.case], mean[column.case], case)
    if column.setting == "shape2D":
        case = _one_slice(case, column.about, column.case)
    return measure(profile, {"x": case})


@pytest.fixture(scope="module")
def compared(data: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """Column and feature to our value and the baseline's."""
    folder = data / "pyradiomics_testdata"
    columns = list(_baseline(folder))
    plain = {column.case: column for column in columns if not column.setting and "firstorder_Range" in column.values}
    mean = {
        column.case: float(column.about["diagnostics_Image-original_Mean"])
        for column in columns
        if column.setting == "resampling"
    }
    both = {}
    for column in columns:
        ours = _measured(column, plain, mean, folder)
        for name, value in column.values.items():
            both[column.name, name] = (float(ours[f"x_original_{name}"]), value)
    return both


def test_baseline_values_are_equal_but_for_an_older_mesh_of_one_case(
    compared: dict[tuple[str, str], tuple[float, float]],
) -> None:
    apart = {key: ours for key, ours in compared.items() if not np.isclose(*ours, rtol=TOLERANCE, atol=1e-12)}
    assert len(compared) == 3370
    assert set(apart) == OTHER_MESH
    assert len(compared) - len(apart) == 3366
    assert max(abs(ours / theirs - 1) for ours, theirs in apart.values()) < 9.2e-4
