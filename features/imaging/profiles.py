"""What is measured in an image, as named, versioned, immutable settings with a hash.

A profile decides every number that an extraction gives, apart from images and masks themselves; its hash travels with each
table, model and prediction. Reading a profile needs no imaging library.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, NonNegativeFloat, PositiveFloat, model_validator

from features.errors import InputError, did_you_mean
from features.feature import Feature
from features.imaging.ibsi import FEATURES, INTENSITY, definition
from features.settings import Settings

Kind = Literal["Original", "LoG", "Wavelet", "Square", "SquareRoot", "Logarithm", "Exponential", "Gradient", "LBP2D", "LBP3D"]
Family = Literal["shape", "shape2D", "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm"]
Interpolator = Literal[
    "sitkNearestNeighbor",
    "sitkLinear",
    "sitkBSpline",
    "sitkGaussian",
    "sitkLabelGaussian",
    "sitkHammingWindowedSinc",
    "sitkCosineWindowedSinc",
    "sitkWelchWindowedSinc",
    "sitkLanczosWindowedSinc",
    "sitkBlackmanWindowedSinc",
]

DIAGNOSTICS = "diagnostics"
_GRID = ("Spacing", "Size")
_RANGE = ("Mean", "Minimum", "Maximum")
_REGION = ("BoundingBox", "VoxelNum", "VolumeNum", "CenterOfMassIndex", "CenterOfMass")
# PyRadiomics' diagnostics, less versions, configuration and hashes: 13 of a case as acquired, 28 if it is resampled.
AS_ACQUIRED = (
    *(f"Image-original_{what}" for what in ("Dimensionality", *_GRID, *_RANGE)),
    *(f"Mask-original_{what}" for what in (*_GRID, *_REGION)),
)
RESAMPLED = (
    *(f"Image-interpolated_{what}" for what in (*_GRID, *_RANGE)),
    *(f"Mask-interpolated_{what}" for what in (*_GRID, *_REGION, *_RANGE)),
)
RESEGMENTED = tuple(f"Mask-resegmented_{what}" for what in (*_GRID, *_REGION, *_RANGE))


class Options(Settings):
    """PyRadiomics' settings with PyRadiomics' defaults; its own names (binWidth) are accepted too.

    What is decided elsewhere is not among them: spacing (resolutions), label and geometry (manifest and masks).
    """

    model_config = ConfigDict(populate_by_name=True)

    minimum_roi_dimensions: int = Field(default=2, ge=1, le=3, alias="minimumROIDimensions")
    bin_width: float = Field(default=25.0, gt=0, alias="binWidth")
    bin_count: int | None = Field(default=None, gt=0, alias="binCount")
    normalize: bool = False
    normalize_scale: float = Field(default=1.0, gt=0, alias="normalizeScale")
    remove_outliers: float | None = Field(default=None, gt=0, alias="removeOutliers")
    interpolator: Interpolator = "sitkBSpline"
    pre_crop: bool = Field(default=False, alias="preCrop")
    pad_distance: int = Field(default=5, ge=0, alias="padDistance")
    resegment_range: tuple[float, ...] | None = Field(default=None, min_length=1, max_length=2, alias="resegmentRange")
    resegment_mode: Literal["absolute", "relative", "sigma"] = Field(default="absolute", alias="resegmentMode")
    resegment_shape: bool = Field(default=False, alias="resegmentShape")
    force_2d: bool = Field(default=False, alias="force2D")
    force_2d_dimension: int = Field(default=0, ge=0, le=2, alias="force2Ddimension")
    distances: tuple[int, ...] = Field(default=(1,), min_length=1)
    voxel_array_shift: int = Field(default=0, alias="voxelArrayShift")
    symmetrical_glcm: bool = Field(default=True, alias="symmetricalGLCM")
    weighting_norm: Literal["euclidean", "manhattan", "infinity", "no_weighting"] | None = Field(
        default=None, alias="weightingNorm"
    )
    gldm_a: int = Field(default=0, ge=0)
    sigma: tuple[int | float, ...] = ()
    start_level: int = Field(default=0, ge=0)
    level: int = Field(default=1, gt=0)
    wavelet: str = "coif1"
    gradient_use_spacing: bool = Field(default=True, alias="gradientUseSpacing")
    lbp_2d_radius: float = Field(default=1.0, gt=0, alias="lbp2DRadius")
    lbp_2d_samples: int = Field(default=8, ge=1, alias="lbp2DSamples")
    lbp_2d_method: Literal["default", "ror", "uniform", "var"] = Field(default="uniform", alias="lbp2DMethod")
    lbp_3d_levels: int = Field(default=2, ge=1, alias="lbp3DLevels")
    lbp_3d_icosphere_radius: float = Field(default=1.0, gt=0, alias="lbp3DIcosphereRadius")
    lbp_3d_icosphere_subdivision: int = Field(default=1, ge=0, alias="lbp3DIcosphereSubdivision")

    def radiomics(self) -> dict[str, Any]:
        """The settings under PyRadiomics' names."""
        return self.model_dump(by_alias=True)


# Decided once for a case, before any filter: PyRadiomics ignores them on a single image type without a word.
OF_THE_CASE = (
    "minimumROIDimensions",
    "normalize",
    "normalizeScale",
    "removeOutliers",
    "interpolator",
    "preCrop",
    "padDistance",
    "resegmentRange",
    "resegmentMode",
    "resegmentShape",
)


class ImageType(Settings):
    """An image that features are measured in: the original or a filtered one, and all settings that hold for it."""

    kind: Kind
    options: Options = Options()

    def names(self) -> Iterator[str]:
        """What PyRadiomics calls the images of this type, in its order.

        Examples
        --------
        >>> list(ImageType(kind="LoG", options=Options(sigma=(1, 2.5))).names())
        ['log-sigma-1-mm-3D', 'log-sigma-2-5-mm-3D']
        """
        match self.kind:
            case "LoG":
                yield from (f"log-sigma-{str(sigma).replace('.', '-')}-mm-3D" for sigma in self.options.sigma)
            case "Wavelet":
                yield from self._wavelets()
            case "LBP2D":
                yield "lbp-2D"
            case "LBP3D":
                yield from (f"lbp-3D-m{level}" for level in range(1, self.options.lbp_3d_levels + 1))
                yield "lbp-3D-k"
            case _:
                yield self.kind.lower()

    def _wavelets(self) -> Iterator[str]:
        axes = 2 if self.options.force_2d else 3
        coarse, *details = ("".join(bands) for bands in product("LH", repeat=axes))
        prefixes = ["wavelet", *(f"wavelet{level}" for level in range(2, self.options.level + 1))]
        yield from (f"{prefix}-{bands}" for prefix in prefixes for bands in details)
        yield f"{prefixes[-1]}-{coarse}"


class FeatureClass(Settings):
    """A family of features, and which of them; none named: all that are not deprecated."""

    family: Family
    features: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return self.features or tuple(FEATURES[self.family])


class Resolution(Settings):
    """Voxels that image and mask are resampled to; None: as acquired. A spacing of 0 keeps that of the axis."""

    name: str | None = None
    spacing_mm: PositiveFloat | tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] | None = None

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Along the three axes, in mm."""
        return (self.spacing_mm,) * 3 if isinstance(self.spacing_mm, float) else self.spacing_mm


class Profile(Settings):
    """What is measured, to the last setting.

    Attributes
    ----------
    name : str
    version : int
        A profile of a name and version never changes; a change is a new version.
    sequences : tuple of str
        Sequences that are measured together, the reference first; none: each sequence by itself, whatever it is called.
    resolutions : tuple of Resolution
    images : tuple of ImageType
    classes : tuple of FeatureClass
    options : Options
        What holds unless an image type has its own.
    scale_to_mean : float or None
        Every volume is multiplied so that this is its mean.
    mean_over : str
        Voxels of that mean: the whole stack, voxels beyond a moving image's field of view counting as zeros, or only the
        voxels inside it.
    diagnostics : bool
        Whether columns that describe image and mask are kept; they are never features of a model.
    minimum_voxels : int
        Of a mask, after resampling.
    columns : tuple of int
        How many columns each sequence must have: one number for all, or one for each of `sequences`; none: unchecked.

    Notes
    -----
    The hash is that of everything but the name: it stands for the numbers, not for what they are called.

    Examples
    --------
    >>> halle = PROFILES["halle2024"]
    >>> len(halle.features(["T2", "DWI", "ADC"])), halle.features(["T2", "DWI", "ADC"])[0].name
    (293, 'T2_original_shape_Elongation')
    """

    name: str
    version: int = Field(default=1, ge=1)
    sequences: tuple[str, ...] = ()
    resolutions: tuple[Resolution, ...] = Field(default=(Resolution(),), min_length=1)
    images: tuple[ImageType, ...] = Field(default=(ImageType(kind="Original"),), min_length=1)
    classes: tuple[FeatureClass, ...] = Field(min_length=1)
    options: Options = Options()
    scale_to_mean: float | None = Field(default=None, gt=0)
    mean_over: Literal["stack", "field of view"] = "stack"
    diagnostics: bool = False
    minimum_voxels: int = Field(default=2, ge=2)
    columns: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _names_are_unique_and_as_many_as_declared(self) -> Self:
        counted = [len(self.plain_names(sequence)) for sequence in self.sequences or ("",)]
        declared = list(self.columns) * (len(counted) if len(self.columns) == 1 else 1)
        if declared and declared != counted:
            raise ValueError(f"columns says {declared} and the settings give {counted}")
        names = self.plain_names()
        if len(set(names)) != len(names):
            raise ValueError("an image type, a sigma, a family or the name of a resolution is there twice")
        return self

    @property
    def joint(self) -> bool:
        """Whether sequences are brought onto one grid and measured in one mask."""
        return bool(self.sequences)

    @property
    def hash(self) -> str:
        """SHA-256 of the settings, in hexadecimal digits."""
        settings = self.model_dump(mode="json", exclude={"name"})
        return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def place(self, sequences: Sequence[str]) -> dict[str, str]:
        """Which of the sequences at hand is which of the profile's: name in the columns to name as given.

        Raises
        ------
        InputError
            A sequence of a joint profile is missing, or two could be it.
        """
        return place(sequences) if self.joint else {name: name for name in sequences}

    def classes_of(self, sequence: str) -> tuple[FeatureClass, ...]:
        """Families that are measured in a sequence: shape is the mask's, and the sequences of a joint profile share one."""
        if not self.joint or sequence == self.sequences[0]:
            return self.classes
        return tuple(entry for entry in self.classes if not entry.family.startswith("shape"))

    def plain_names(self, sequence: str | None = None) -> tuple[str, ...]:
        """Names without the sequence, as in the papers, in the order of the columns.

        Parameters
        ----------
        sequence : str, optional
            Of a joint profile; by default that with the most features.

        Examples
        --------
        >>> PROFILES["bodalal4032a"].plain_names()[28]
        'Fine_original_shape_Elongation'
        """
        sequence = sequence or (self.sequences[0] if self.joint else "")
        return tuple(name for name, _, _ in self._described(sequence))

    def features(self, sequences: Sequence[str]) -> tuple[Feature, ...]:
        """Every column of a table of these sequences, in order, with unit, IBSI identifier, sequence and family.

        Raises
        ------
        InputError
            The profile measures other sequences.
        """
        if self.joint and set(sequences) != set(self.sequences):
            raise InputError(f"Profile {self.name} measures {_listed(self.sequences)} together, not {_listed(sequences)}.")
        return tuple(
            Feature(name=f"{sequence}_{name}", unit=unit, reference=ibsi, sequence=sequence, family=family)
            for sequence in self.sequences or sequences
            for name, family, (ibsi, unit) in self._described(sequence)
        )

    def names_at(self, sequence: str, resolution: Resolution) -> tuple[str, ...]:
        """Names in one sequence at one resolution, as PyRadiomics itself gives them."""
        return tuple(name for name, _, _ in self._at(resolution, self.classes_of(sequence)))

    def _described(self, sequence: str) -> Iterator[tuple[str, str, tuple[str | None, str | None]]]:
        for resolution in self.resolutions:
            prefix = f"{resolution.name}_" if resolution.name else ""
            for name, family, meaning in self._at(resolution, self.classes_of(sequence)):
                yield f"{prefix}{name}", family, meaning

    def _at(
        self, resolution: Resolution, classes: tuple[FeatureClass, ...]
    ) -> Iterator[tuple[str, str, tuple[str | None, str | None]]]:
        for what in self._diagnostics_at(resolution):
            yield f"{DIAGNOSTICS}_{what}", DIAGNOSTICS, (None, None)
        for entry in (entry for entry in classes if entry.family.startswith("shape")):
            for feature in entry.names:
                yield f"original_{entry.family}_{feature}", entry.family, definition(entry.family, feature)
        for image in (name for kind in self.images for name in kind.names()):
            intensity = self._intensity if image == "original" else "filtered intensity"
            for entry in (entry for entry in classes if not entry.family.startswith("shape")):
                for feature in entry.names:
                    meaning = definition(entry.family, feature, intensity=intensity)
                    yield f"{image}_{entry.family}_{feature}", entry.family, meaning

    def _diagnostics_at(self, resolution: Resolution) -> tuple[str, ...]:
        if not self.diagnostics:
            return ()
        resegmented = RESEGMENTED if self.options.resegment_range else ()
        return AS_ACQUIRED + (RESAMPLED if resolution.spacing else ()) + resegmented

    @property
    def _intensity(self) -> str:
        if self.options.normalize:
            return "normalized intensity"
        return INTENSITY if self.scale_to_mean is None else "% of mean intensity"


def place(sequences: Sequence[str]) -> dict[str, str]:
    """Which sequence is T2, which the diffusion-weighted one with the highest b-value, which ADC.

    Parameters
    ----------
    sequences : sequence of str
        In any usual spelling: T2w, T2-weighted, DWI, high-b, b800, DWI_b1000, ADC, ADC map.

    Returns
    -------
    dict of str to str
        T2, DWI and ADC to the names as given; others are left out.

    Raises
    ------
    InputError
        One of the three is missing, or two could be it.

    Examples
    --------
    >>> place(["ADC", "b50", "b1000", "T2w", "DCE"])
    {'T2': 'T2w', 'DWI': 'b1000', 'ADC': 'ADC'}
    """
    plain = {name: re.sub(r"[^a-z0-9*]", "", name.lower()) for name in sequences}
    weights = {
        name: int(found[1]) for name, text in plain.items() if (found := re.fullmatch(r"(?:dwi)?b(\d+)(?:smm2)?(?:dwi)?", text))
    }
    highest = max(weights.values(), default=0)
    candidates = {
        "T2": [name for name, text in plain.items() if re.fullmatch(r"t2(?:w|wi|weighted|tse|fse)?", text)],
        "DWI": [name for name, text in plain.items() if re.fullmatch(r"dwi|dwihighb|highb(?:dwi)?|diffusion", text)]
        + [name for name, weight in weights.items() if weight == highest > 0],
        "ADC": [name for name, text in plain.items() if re.fullmatch(r"adc(?:map)?", text)],
    }
    for role, names in candidates.items():
        if len(names) != 1:
            fault = f"could be any of {_listed(names)}" if names else f"is not among {_listed(sequences)}"
            raise InputError(
                f"Sequence {role} {fault}; name one sequence each T2, DWI (or by its b-value, b800) and ADC in the manifest."
            )
    return {role: names[0] for role, names in candidates.items()}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "the sequences: there are none"


TEXTURES = tuple(FeatureClass(family=family) for family in ("firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm"))
SHAPE = FeatureClass(family="shape")
WITH_DEVIATION = (
    FeatureClass(family="firstorder", features=(*FEATURES["firstorder"], "StandardDeviation")),
    *TEXTURES[1:],
)
# Spacings are not published: ours.
FINE, MEDIUM, COARSE = (
    Resolution(name=name, spacing_mm=spacing) for name, spacing in (("Fine", 1.0), ("Medium", 2.0), ("Coarse", 3.0))
)
SIMPLE_FILTERS: tuple[Kind, ...] = ("Wavelet", "Square", "SquareRoot", "Logarithm", "Exponential", "Gradient")
SOLID = 27


def _filtered(*kinds: Kind, sigma: tuple[float, ...] = ()) -> tuple[ImageType, ...]:
    return tuple(ImageType(kind=kind, options=Options(sigma=sigma if kind == "LoG" else ())) for kind in kinds)


HALLE = Profile(
    name="halle2024",
    sequences=("T2", "DWI", "ADC"),
    images=(ImageType(kind="Original", options=Options(bin_width=10, sigma=(1, 2, 3))),),
    classes=(SHAPE, *TEXTURES),
    options=Options(bin_width=10, sigma=(1, 2, 3)),
    scale_to_mean=100,
    columns=(107, 93, 93),
)
_SHIPPED = (
    HALLE,
    HALLE.model_copy(update={"name": "halle2024-fov", "mean_over": "field of view"}),
    Profile(
        name="bodalal4032a",
        resolutions=(FINE, MEDIUM, COARSE),
        images=_filtered("Original", *SIMPLE_FILTERS),
        classes=(SHAPE, *TEXTURES),
        diagnostics=True,
        minimum_voxels=SOLID,
        columns=(3 * 1344,),
    ),
    Profile(
        name="bodalal4032b",
        resolutions=(MEDIUM, COARSE),
        images=_filtered("Original", "LoG", *SIMPLE_FILTERS, "LBP3D", sigma=(1.0, 2.0, 3.0, 4.0)),
        classes=(SHAPE, *WITH_DEVIATION),
        diagnostics=True,
        minimum_voxels=SOLID,
        columns=(2 * 2016,),
    ),
    Profile(
        name="full",
        resolutions=(FINE, MEDIUM, COARSE),
        images=_filtered("Original", "LoG", *SIMPLE_FILTERS, "LBP3D", sigma=(1.0, 2.0, 3.0, 4.0, 5.0)),
        classes=(SHAPE, *TEXTURES),
        minimum_voxels=SOLID,
        columns=(3 * 2060,),
    ),
    Profile(
        name="ibsi",
        resolutions=(Resolution(spacing_mm=2.0),),
        classes=(SHAPE, *TEXTURES),
        options=Options(interpolator="sitkLinear", bin_count=32),
        images=(ImageType(kind="Original", options=Options(interpolator="sitkLinear", bin_count=32)),),
        minimum_voxels=SOLID,
        columns=(107,),
    ),
)

PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _SHIPPED})

NOTES: Mapping[str, str] = MappingProxyType(
    {
        "halle2024": (
            "Halle et al. 2024: T2, the diffusion-weighted image of the highest b-value and ADC, the latter two brought onto "
            "the grid of T2 by linear interpolation; each volume times 100 over its mean; bin width 10; shape of the mask "
            "once. sigma is set as in the paper and acts on nothing, since no LoG image is measured there."
        ),
        "halle2024-fov": (
            "As halle2024, with means over the field of view alone: for diffusion-weighted images that cover less than T2 does, "
            "where zeros beyond their edge would lower the mean."
        ),
        "bodalal4032a": (
            "Bodalal et al. 2023, counted as 3 resolutions x 1344: original, 8 wavelets, 5 simple filters, shape, and 28 "
            "diagnostics (not for modelling). What the paper measured is not published to this detail; spacings are ours."
        ),
        "bodalal4032b": (
            "Bodalal et al. 2023, counted as 2 resolutions x 2016: as 4032a, with LoG of 1-4 mm, LBP3D and the deprecated "
            "StandardDeviation. What the paper measured is not published to this detail; spacings are ours."
        ),
        "full": "Every filter at three resolutions: LoG of 1-5 mm, 8 wavelets, 5 simple filters, LBP3D, shape.",
        "ibsi": (
            "As near to the IBSI as PyRadiomics comes: no filter; 2 mm isotropic voxels by linear interpolation, image and mask "
            "(nearest neighbour) on one grid, aligned to the image's corner (IBSI: to its centre); 32 grey levels between the "
            "extremes of the mask: a fixed number of bins, since PyRadiomics counts bins of fixed width from 0 and the IBSI from "
            "the smallest value; no resegmentation; 3-D neighbourhoods at distance 1, texture averaged over directions. Not "
            "comparable to the standard, and so without its identifier: Kurtosis (larger by 3), the lengths of the three axes "
            "(shorter by sqrt((n - 1) / n)); not in the standard: TotalEnergy, MCC and the 2-D diameters."
        ),
    }
)


def find_profile(name_or_path: str, folder: Path) -> Profile:
    """A shipped profile by its name, or the user's own from a PyRadiomics parameter file.

    Parameters
    ----------
    name_or_path : str
        `halle2024`, or a path to a .yaml, .yml or .json file.
    folder : Path
        What a relative path is relative to.

    Raises
    ------
    InputError
        No such profile or file, or a setting in it that PyRadiomics would refuse, ignore or drop.

    Examples
    --------
    >>> find_profile("ibsi", Path()).options.bin_count
    32
    """
    if name_or_path in PROFILES:
        return PROFILES[name_or_path]
    if Path(name_or_path).suffix.lower() in (".yaml", ".yml", ".json"):
        from features.imaging.parameters import read_parameters

        return read_parameters(folder / name_or_path, shown=name_or_path)
    raise InputError(
        f"Profile {name_or_path!r} is not known{did_you_mean(name_or_path, list(PROFILES))}; known: {', '.join(PROFILES)}, or "
        "the path of a PyRadiomics parameter file (.yaml)."
    )


def preflight(profile: Profile) -> None:
    """Stop before the run what PyRadiomics would leave out of its results with no more than a line in a log.

    Raises
    ------
    InputError
        A filter lacks the library or the setting that it needs, or a family of features the kind of image.
    """
    if find_spec("radiomics") is None:
        raise InputError("Extraction needs PyRadiomics, which is not installed; pip install 'hypoxia-biomarkers[radiomics]'.")
    for image in profile.images:
        reason = _REFUSALS.get(image.kind, _nothing)(image.options)
        if reason:
            raise InputError(f"Profile {profile.name} asks for {image.kind} images, {reason}.")
    if not profile.options.force_2d and any(entry.family == "shape2D" for entry in profile.classes):
        raise InputError(
            f"Profile {profile.name} asks for shape2D, which PyRadiomics leaves out unless force2D is true; set it, or ask for "
            "shape."
        )


def _nothing(options: Options) -> str | None:
    return None


def _log_lacks(options: Options) -> str | None:
    return None if options.sigma else "and no sigma is set, so that there would be none; set sigma: [1.0, 2.0, 3.0], in mm"


def _wavelet_lacks(options: Options) -> str | None:
    import pywt

    known = pywt.wavelist(kind="discrete")
    if options.wavelet in known:
        return None
    return f"and there is no wavelet {options.wavelet!r}{did_you_mean(options.wavelet, known)}; coif1 is PyRadiomics' own choice"


def _lbp_2d_lacks(options: Options) -> str | None:
    return None if find_spec("skimage") else "which need scikit-image; pip install scikit-image, or leave LBP2D out"


def _lbp_3d_lacks(options: Options) -> str | None:
    import scipy.special

    try:
        import trimesh  # noqa: F401 - PyRadiomics asks no more, and drops the filter if it cannot
    except ImportError:
        return "which need trimesh, which is not installed or cannot be imported; pip install trimesh, or leave LBP3D out"
    if not hasattr(scipy.special, "sph_harm") or find_spec("scipy.ndimage.interpolation") is None:
        return f"which need scipy.special.sph_harm, and SciPy {scipy.__version__} has it no more; pip install 'scipy<1.17'"
    return None


_REFUSALS = {"LoG": _log_lacks, "Wavelet": _wavelet_lacks, "LBP2D": _lbp_2d_lacks, "LBP3D": _lbp_3d_lacks}
