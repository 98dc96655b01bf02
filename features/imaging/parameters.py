"""A user's PyRadiomics parameter file as a profile: what PyRadiomics would ignore or drop is refused instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from features.errors import InputError, did_you_mean
from features.imaging.ibsi import DEPRECATED, FEATURES, WITHDRAWN
from features.imaging.profiles import OF_THE_CASE, Family, FeatureClass, ImageType, Kind, Options, Profile, Resolution

Model = TypeVar("Model", bound=BaseModel)

SECTIONS = ("setting", "imageType", "featureClass")
OPTIONS = tuple(field.alias or name for name, field in Options.model_fields.items())
# Settings of the case as a whole that a profile holds elsewhere.
ELSEWHERE = ("additionalInfo", "label", "minimumROISize", "resampledPixelSpacing")
CALLED = {"diagnostics": "additionalInfo", "minimum_voxels": "minimumROISize"}
NOT_HERE = {
    "geometryTolerance": "masks are checked against their image's grid by the masks settings of the study",
    "correctMask": "masks are brought onto their image's grid by masks.off_grid of the study",
    "label_channel": "the manifest's column label says which region of a mask is meant",
}


def read_parameters(path: Path, *, shown: str | None = None) -> Profile:
    """The profile that a PyRadiomics parameter file (YAML or JSON) describes.

    The profile's name is the file's, without ending; its hash is that of the settings with all defaults filled in, so that
    formatting, order and defaults that are spelt out do not matter.

    Parameters
    ----------
    path : Path
    shown : str, optional
        How messages call the file.

    Raises
    ------
    InputError
        The file cannot be read, or PyRadiomics would refuse, ignore or drop something in it.
    """
    shown = shown or str(path)
    try:
        parameters = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as cause:
        raise InputError(f"{shown} does not exist; give the path of a PyRadiomics parameter file.") from cause
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as cause:
        reason = " ".join(str(cause).split())
        raise InputError(f"{shown} cannot be read as YAML ({reason}); give a PyRadiomics parameter file.") from cause
    try:
        return profile_of(path.stem, parameters)
    except InputError as error:
        raise InputError(f"{shown}: {error}") from error


def profile_of(name: str, parameters: Any) -> Profile:
    """The profile of PyRadiomics parameters: a mapping with any of setting, imageType and featureClass.

    Examples
    --------
    >>> ours = profile_of("ours", {"setting": {"binWidth": 5}, "featureClass": {"firstorder": ["Mean"]}})
    >>> ours.options.bin_width, ours.plain_names()[-1]
    (5.0, 'original_firstorder_Mean')
    """
    sections = _mapping("the file", parameters)
    if "voxelSetting" in sections:
        raise InputError("voxelSetting makes maps, not a table of features; leave it out.")
    _known("the file", sections, SECTIONS)
    setting = _mapping("setting", sections.get("setting"))
    _refuse_elsewhere(setting)
    _known("setting", setting, (*OPTIONS, *ELSEWHERE))
    given = {key: value for key, value in setting.items() if key in OPTIONS}
    resolution = Resolution(spacing_mm=_spacing(setting.get("resampledPixelSpacing")))
    if given.get("interpolator", "") is None:
        # PyRadiomics takes an interpolator of none as: do not resample.
        given, resolution = {key: value for key, value in given.items() if key != "interpolator"}, Resolution()
    options = _checked(Options, "setting", given)
    return _checked(
        Profile,
        "setting",
        {
            "name": name,
            "resolutions": (resolution,),
            "images": _images(_mapping("imageType", sections.get("imageType")), given, options),
            "classes": _classes(_mapping("featureClass", sections.get("featureClass")), options),
            "options": options,
            "diagnostics": setting.get("additionalInfo", True),
            "minimum_voxels": _voxels(setting.get("minimumROISize")),
        },
    )


def _refuse_elsewhere(setting: Mapping[str, Any]) -> None:
    for key, reason in NOT_HERE.items():
        if key in setting:
            raise InputError(f"setting.{key} has no place here, since {reason}; leave it out.")
    if setting.get("label", 1) != 1:
        raise InputError(
            f"setting.label is {setting['label']!r}; leave it out, and give the label in the manifest's column label."
        )


def _spacing(given: Any) -> tuple[float, float, float] | None:
    if given is None:
        return None
    numbers = isinstance(given, list) and all(isinstance(length, int | float) and length >= 0 for length in given)
    if not numbers or len(given) != 3:
        raise InputError(
            f"setting.resampledPixelSpacing is {given!r}; give three lengths in mm, 0 where an axis is to stay as it is."
        )
    x, y, z = map(float, given)
    return x, y, z


def _voxels(given: Any) -> Any:
    """PyRadiomics wants more voxels than it is told; no fewer than two ever."""
    return max(2, given + 1) if isinstance(given, int) else 2 if given is None else given


def _images(given: Mapping[str, Any], setting: Mapping[str, Any], options: Options) -> tuple[ImageType, ...]:
    kinds = get_args(Kind)
    _known("imageType", given, kinds)
    images = []
    for kind in sorted(given, key=kinds.index):
        own = _mapping(f"imageType.{kind}", given[kind])
        _known(f"imageType.{kind}", own, OPTIONS)
        late = [key for key in own if key in OF_THE_CASE]
        if late:
            raise InputError(f"imageType.{kind}.{late[0]} is ignored by PyRadiomics on a single image type; move it to setting.")
        images.append(ImageType(kind=kind, options=_checked(Options, f"imageType.{kind}", {**setting, **own})))
    return tuple(images) or (ImageType(kind="Original", options=options),)


def _classes(given: Mapping[str, Any], options: Options) -> tuple[FeatureClass, ...]:
    families = get_args(Family)
    _known("featureClass", given, families)
    if not given:
        # PyRadiomics then enables shape2D too, and leaves it out again unless force2D is set.
        given = {family: None for family in families if options.force_2d or family != "shape2D"}
    return tuple(
        FeatureClass(family=family, features=_named(family, given[family])) for family in sorted(given, key=families.index)
    )


def _named(family: str, given: Any) -> tuple[str, ...]:
    if not given:
        return ()
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise InputError(f"featureClass.{family} is {given!r}; give a list of features, or nothing for all of them.")
    known = [*FEATURES[family], *DEPRECATED.get(family, ())]
    for name in given:
        if name in WITHDRAWN.get(family, ()):
            raise InputError(f"featureClass.{family}: {name} is withdrawn, and PyRadiomics gives nothing for it; leave it out.")
    _known(f"featureClass.{family}", given, known)
    return tuple(sorted(set(given), key=known.index))


def _mapping(where: str, given: Any) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise InputError(f"{where} is {given!r}; give keys and values.")
    return given


def _known(where: str, given: Any, known: Any) -> None:
    for name in given:
        if name not in known:
            raise InputError(f"{where} has no {name!r}{did_you_mean(str(name), known)}; known: {', '.join(known)}.")


def _checked(model: type[Model], where: str, given: Mapping[str, Any]) -> Model:
    try:
        return model.model_validate(given)
    except ValidationError as cause:
        raise InputError(_sentence(where, cause)) from cause


def _sentence(where: str, cause: ValidationError) -> str:
    first = cause.errors()[0]
    fault = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return f"{where}: {fault}."
    key = str(first["loc"][0])
    return f"{where}.{CALLED.get(key, key)} is {first['input']!r}; {fault[0].lower()}{fault[1:]}."
