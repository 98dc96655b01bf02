"""What each PyRadiomics feature is: its identifier in the IBSI reference manual and its unit, as data.

A feature has an identifier only where PyRadiomics gives the IBSI's reference value on the IBSI's digital phantom (tested),
so an identifier here is a promise that the number is comparable. Where PyRadiomics departs from the standard, `DEVIATIONS`
says how, and the feature has none.

References
----------
Zwanenburg et al. 2020, doi:10.1148/radiol.2020191145 (identifiers and reference values).
van Griethuysen et al. 2017, doi:10.1158/0008-5472.CAN-17-0339 (PyRadiomics).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

INTENSITY = "intensity"


class Definition(NamedTuple):
    """A feature's IBSI identifier (None: it has none) and its unit (None: dimensionless)."""

    ibsi: str | None = None
    unit: str | None = None


def _of(identifiers: str) -> Iterator[tuple[str, Definition]]:
    """Lines `name identifier [unit]`; `-` stands for none."""
    for line in identifiers.strip().splitlines():
        name, identifier, *unit = line.split(maxsplit=2)
        yield name, Definition(None if identifier == "-" else f"IBSI:{identifier}", unit[0] if unit else None)


# In the order in which PyRadiomics gives them. `intensity` stands for the unit of the image.
FEATURES: Mapping[str, Mapping[str, Definition]] = MappingProxyType(
    {
        family: MappingProxyType(dict(_of(lines)))
        for family, lines in {
            "shape": """
                Elongation Q3CK
                Flatness N17B
                LeastAxisLength - mm
                MajorAxisLength - mm
                Maximum2DDiameterColumn - mm
                Maximum2DDiameterRow - mm
                Maximum2DDiameterSlice - mm
                Maximum3DDiameter L0JK mm
                MeshVolume RNU0 mm^3
                MinorAxisLength - mm
                Sphericity QCFX
                SurfaceArea C0JK mm^2
                SurfaceVolumeRatio 2PR5 1/mm
                VoxelVolume YEKZ mm^3
            """,
            "shape2D": """
                Elongation -
                MajorAxisLength - mm
                MaximumDiameter - mm
                MeshSurface - mm^2
                MinorAxisLength - mm
                Perimeter - mm
                PerimeterSurfaceRatio - 1/mm
                PixelSurface - mm^2
                Sphericity -
            """,
            "firstorder": """
                10Percentile QG58 intensity
                90Percentile 8DWT intensity
                Energy N8CA intensity^2
                Entropy TLU2 bit
                InterquartileRange SALO intensity
                Kurtosis -
                Maximum 84IY intensity
                MeanAbsoluteDeviation 4FUA intensity
                Mean Q4LE intensity
                Median Y12H intensity
                Minimum 1GSF intensity
                Range 2OJQ intensity
                RobustMeanAbsoluteDeviation 1128 intensity
                RootMeanSquared 5ZWQ intensity
                Skewness KE2A
                TotalEnergy - intensity^2 mm^3
                Uniformity BJ5W
                Variance ECT3 intensity^2
            """,
            "glcm": """
                Autocorrelation QWB0
                ClusterProminence AE86
                ClusterShade 7NFM
                ClusterTendency DG8W
                Contrast ACUI
                Correlation NI2N
                DifferenceAverage TF7R
                DifferenceEntropy NTRS bit
                DifferenceVariance D3YU
                Id IB1Z
                Idm WF0Z
                Idmn 1QCO
                Idn NDRX
                Imc1 R8DG
                Imc2 JN9H
                InverseVariance E8JP
                JointAverage 60VM
                JointEnergy 8ZQL
                JointEntropy TU9B bit
                MCC -
                MaximumProbability GYBY
                SumAverage ZGXS
                SumEntropy P6QZ bit
                SumSquares UR99
            """,
            "gldm": """
                DependenceEntropy FCBV bit
                DependenceNonUniformity Z87G
                DependenceNonUniformityNormalized OKJI
                DependenceVariance DNX2
                GrayLevelNonUniformity FP8K
                GrayLevelVariance 1PFV
                HighGrayLevelEmphasis OAE7
                LargeDependenceEmphasis IMOQ
                LargeDependenceHighGrayLevelEmphasis 9QMG
                LargeDependenceLowGrayLevelEmphasis NBZI
                LowGrayLevelEmphasis TL9H
                SmallDependenceEmphasis SODN
                SmallDependenceHighGrayLevelEmphasis JA6D
                SmallDependenceLowGrayLevelEmphasis EQ3F
            """,
            "glrlm": """
                GrayLevelNonUniformity R5YN
                GrayLevelNonUniformityNormalized OVBL
                GrayLevelVariance 8CE5
                HighGrayLevelRunEmphasis G3QZ
                LongRunEmphasis W4KF
                LongRunHighGrayLevelEmphasis 3KUM
                LongRunLowGrayLevelEmphasis IVPO
                LowGrayLevelRunEmphasis V3SW
                RunEntropy HJ9O bit
                RunLengthNonUniformity W92Y
                RunLengthNonUniformityNormalized IC23
                RunPercentage 9ZK5
                RunVariance SXLW
                ShortRunEmphasis 22OV
                ShortRunHighGrayLevelEmphasis GD3A
                ShortRunLowGrayLevelEmphasis HTZT
            """,
            "glszm": """
                GrayLevelNonUniformity JNSA
                GrayLevelNonUniformityNormalized Y1RO
                GrayLevelVariance BYLV
                HighGrayLevelZoneEmphasis 5GN9
                LargeAreaEmphasis 48P8
                LargeAreaHighGrayLevelEmphasis J17V
                LargeAreaLowGrayLevelEmphasis YH51
                LowGrayLevelZoneEmphasis XMSY
                SizeZoneNonUniformity 4JP3
                SizeZoneNonUniformityNormalized VB3A
                SmallAreaEmphasis 5QRC
                SmallAreaHighGrayLevelEmphasis HW1V
                SmallAreaLowGrayLevelEmphasis 5RAI
                ZoneEntropy GU8N bit
                ZonePercentage P30P
                ZoneVariance 3NSA
            """,
            "ngtdm": """
                Busyness NQ30
                Coarseness QCDE
                Complexity HDEZ
                Contrast 65HE
                Strength 1X9X
            """,
        }.items()
    }
)

# Given only where they are asked for by name: PyRadiomics calls them deprecated, since others say the same.
DEPRECATED: Mapping[str, Mapping[str, Definition]] = MappingProxyType(
    {
        "firstorder": MappingProxyType({"StandardDeviation": Definition(unit=INTENSITY)}),
        "shape": MappingProxyType(
            {
                "Compactness1": Definition("IBSI:SKGS"),
                "Compactness2": Definition("IBSI:BQWJ"),
                "SphericalDisproportion": Definition("IBSI:KRCK"),
            }
        ),
        "shape2D": MappingProxyType({"SphericalDisproportion": Definition()}),
    }
)

# PyRadiomics has these names and gives nothing for them.
WITHDRAWN: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "glcm": frozenset({"Dissimilarity", "Homogeneity1", "Homogeneity2", "SumVariance"}),
        "gldm": frozenset({"DependencePercentage", "GrayLevelNonUniformityNormalized"}),
    }
)

AXES = "shorter than the standard's ({}) by the factor sqrt((n - 1) / n) for n voxels: it divides the covariance by n"

# What is not the standard's, or is not in it; features of a single slice (shape2D) are not in the standard at all.
DEVIATIONS: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("firstorder", "Kurtosis"): "not the excess kurtosis of the standard (IPH6): larger by exactly 3",
        ("firstorder", "TotalEnergy"): "energy times the volume of a voxel; not in the standard",
        ("firstorder", "StandardDeviation"): "root of the variance; not in the standard",
        ("glcm", "MCC"): "maximal correlation coefficient; not in the standard",
        ("shape", "LeastAxisLength"): AXES.format("7J51"),
        ("shape", "MajorAxisLength"): AXES.format("TDIC"),
        ("shape", "MinorAxisLength"): AXES.format("P9VJ"),
        ("shape", "Maximum2DDiameterColumn"): "not in the standard",
        ("shape", "Maximum2DDiameterRow"): "not in the standard",
        ("shape", "Maximum2DDiameterSlice"): "not in the standard",
    }
)


def definition(family: str, feature: str, *, intensity: str = INTENSITY) -> Definition:
    """Identifier and unit of a PyRadiomics feature.

    Parameters
    ----------
    family, feature : str
        As PyRadiomics names them.
    intensity : str
        What a unit of the image's values is called.

    Examples
    --------
    >>> definition("shape", "MeshVolume")
    Definition(ibsi='IBSI:RNU0', unit='mm^3')
    >>> definition("firstorder", "Variance", intensity="HU").unit
    'HU^2'
    """
    found = FEATURES[family].get(feature) or DEPRECATED[family][feature]
    return found._replace(unit=found.unit and found.unit.replace(INTENSITY, intensity))
