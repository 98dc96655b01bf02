"""Profiles: what they measure, that they never change, and what they refuse before a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import radiomics
import scipy.special
import yaml
from click.testing import CliRunner
from pydantic import ValidationError

from features.errors import InputError
from features.imaging import profiles as module
from features.imaging.cli_profiles import profiles as command
from features.imaging.ibsi import DEPRECATED, FEATURES, WITHDRAWN
from features.imaging.parameters import OPTIONS, profile_of, read_parameters
from features.imaging.profiles import (
    NOTES,
    PROFILES,
    FeatureClass,
    ImageType,
    Options,
    Profile,
    Resolution,
    find_profile,
    place,
    preflight,
)

# A profile never changes: whoever alters one gives it a new version, and adds its hash here beside the old.
HASHES = {
    ("halle2024", 1): "f3f7de36922b42860c0696c147a85124b897c11da73420fa7401ad3e76831f0d",
    ("halle2024-fov", 1): "907ce07dedd8d027d7a14cfb06b7aae057b18f1dc8fd42cdcec2fe1a96c1e7b4",
    ("bodalal4032a", 1): "6b9b7e4cdf2b5a783765193bf003cce1e46449dd8582af8527ae13dc16058af4",
    ("bodalal4032b", 1): "8968048def182d45575ff896e7c554a2589cbf98862d8484bfb7a768ab4b1138",
    ("full", 1): "3d4fa61d1a004253f4f9d029ef7c0fe03467f9fd8b214d35fa36627169942186",
    ("ibsi", 1): "f91d09362cc5833304c3d735a2ef1148a2a3139af18f662de5e86217f75b0816",
}
SEQUENCES = ("T2", "DWI", "ADC")


def _minimal(**changes: Any) -> Profile:
    return Profile(**{"name": "small", "classes": (FeatureClass(family="firstorder"),), **changes})


def test_shipped_profiles_have_not_changed() -> None:
    assert {(one.name, one.version): one.hash for one in PROFILES.values()} == HASHES
    assert set(NOTES) == set(PROFILES)


def test_halle_is_293_features_of_three_sequences_with_shape_once() -> None:
    features = PROFILES["halle2024"].features(SEQUENCES)
    names = [feature.name for feature in features]
    assert len(names) == len(set(names)) == 293
    assert [sum(feature.sequence == sequence for feature in features) for sequence in SEQUENCES] == [107, 93, 93]
    assert {feature.sequence for feature in features if feature.family == "shape"} == {"T2"}
    families = ("shape", "firstorder", "glcm", "gldm", "glrlm", "glszm", "ngtdm")
    assert [sum(feature.family == family for feature in features) for family in families] == [14, 54, 72, 42, 48, 48, 15]
    assert all("_original_" in name for name in names)
    # E4 of the errata: set as in the paper, and inert.
    assert PROFILES["halle2024"].options.sigma == (1, 2, 3)
    assert not any("log-sigma" in name for name in names)


@pytest.mark.parametrize(
    ("name", "resolutions", "columns"), [("bodalal4032a", 3, 1344), ("bodalal4032b", 2, 2016), ("full", 3, 2060)]
)
def test_columns_per_resolution_are_as_counted(name: str, resolutions: int, columns: int) -> None:
    profile = PROFILES[name]
    names = profile.plain_names()
    assert len(names) == len(set(names)) == resolutions * columns
    assert [sum(one.startswith(f"{resolution.name}_") for one in names) for resolution in profile.resolutions] == [
        columns
    ] * resolutions


def test_names_are_those_of_the_papers() -> None:
    for name in ("bodalal4032a", "bodalal4032b"):
        assert "Coarse_wavelet-LLL_firstorder_Skewness" in PROFILES[name].plain_names()  # Bodalal et al. 2023
    assert "Medium_original_firstorder_StandardDeviation" in PROFILES["bodalal4032b"].plain_names()
    assert "ADC_original_glcm_Idmn" in [feature.name for feature in PROFILES["halle2024"].features(SEQUENCES)]


def test_diagnostics_are_28_for_each_resolution_and_tagged() -> None:
    for name, resolutions in (("bodalal4032a", 3), ("bodalal4032b", 2)):
        tagged = [feature for feature in PROFILES[name].features(["T2"]) if feature.family == "diagnostics"]
        assert len(tagged) == resolutions * 28
        assert all("_diagnostics_" in feature.name and feature.reference is None for feature in tagged)


def test_a_feature_knows_its_unit_identifier_sequence_and_family() -> None:
    halle = {feature.name: feature for feature in PROFILES["halle2024"].features(SEQUENCES)}
    volume = halle["T2_original_shape_MeshVolume"]
    assert (volume.unit, volume.reference, volume.sequence, volume.family) == ("mm^3", "IBSI:RNU0", "T2", "shape")
    assert halle["DWI_original_firstorder_Mean"].unit == "% of mean intensity"
    assert halle["DWI_original_firstorder_Variance"].unit == "% of mean intensity^2"
    assert halle["ADC_original_firstorder_Kurtosis"].reference is None
    assert halle["ADC_original_gldm_DependenceEntropy"].reference == "IBSI:FCBV"
    full = {feature.name: feature for feature in PROFILES["full"].features(["T2"])}
    assert full["T2_Fine_original_firstorder_Mean"].unit == "intensity"
    assert full["T2_Fine_gradient_firstorder_Mean"].unit == "filtered intensity"
    assert full["T2_Fine_gradient_firstorder_Mean"].reference == "IBSI:Q4LE"


def test_our_table_of_features_is_pyradiomics_own() -> None:
    classes = radiomics.getFeatureClasses()
    assert set(FEATURES) == set(classes)
    for family, theirs in classes.items():
        names = theirs.getFeatureNames()
        assert list(FEATURES[family]) == [name for name, deprecated in names.items() if not deprecated]
        deprecated = {name for name, old in names.items() if old}
        assert deprecated == set(DEPRECATED.get(family, ())) | WITHDRAWN.get(family, frozenset())


def test_no_identifier_is_given_to_two_features() -> None:
    described = [one for family in (*FEATURES.values(), *DEPRECATED.values()) for one in family.values()]
    identifiers = [one.ibsi for one in described if one.ibsi]
    assert len(identifiers) == len(set(identifiers))


def test_our_options_have_pyradiomics_defaults() -> None:
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    ours = Options().radiomics()
    for key, value in RadiomicsFeatureExtractor._getDefaultSettings().items():
        if key in ours:
            assert ours[key] == (tuple(value) if isinstance(value, list) else value), key


def test_every_setting_changes_the_hash_and_the_name_does_not() -> None:
    base = _minimal()
    changed = [
        _minimal(version=2),
        _minimal(minimum_voxels=3),
        _minimal(diagnostics=True),
        _minimal(scale_to_mean=100),
        _minimal(scale_to_mean=100, mean_over="field of view"),
        _minimal(sequences=SEQUENCES),
        _minimal(resolutions=(Resolution(spacing_mm=2.0),)),
        _minimal(resolutions=(Resolution(name="Fine"),)),
        _minimal(classes=(FeatureClass(family="glcm"),)),
        _minimal(classes=(FeatureClass(family="firstorder", features=("Mean",)),)),
        _minimal(images=(ImageType(kind="Square"),)),
        *(_minimal(options=Options(**{name: _other(name)})) for name in Options.model_fields),
        *(
            _minimal(images=(ImageType(kind="Original", options=Options(**{name: _other(name)})),))
            for name in Options.model_fields
        ),
    ]
    assert len({profile.hash for profile in (base, *changed)}) == 1 + len(changed)
    assert _minimal(name="other").hash == base.hash


def _other(name: str) -> Any:
    others = {
        "interpolator": "sitkLinear",
        "resegment_mode": "sigma",
        "weighting_norm": "euclidean",
        "wavelet": "haar",
        "lbp_2d_method": "ror",
        "distances": (1, 2),
        "sigma": (1,),
        "resegment_range": (-3.0, 3.0),
        "bin_count": 64,
        "remove_outliers": 3.0,
    }
    default = Options.model_fields[name].default
    return others[name] if name in others else not default if isinstance(default, bool) else default + 1


def test_a_profile_cannot_be_changed() -> None:
    profile = PROFILES["halle2024"]
    with pytest.raises(ValidationError, match="frozen"):
        profile.version = 2  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        profile.options.bin_width = 25  # type: ignore[misc]
    with pytest.raises(TypeError, match="does not support item assignment"):
        PROFILES["halle2024"] = profile  # type: ignore[index]


def test_a_profile_survives_json() -> None:
    for profile in PROFILES.values():
        again = Profile.model_validate_json(profile.model_dump_json())
        assert again == profile
        assert again.hash == profile.hash


def test_a_profile_whose_columns_are_not_as_many_as_it_says_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"columns says \[19\] and the settings give \[18\]"):
        _minimal(columns=(19,))


@pytest.mark.parametrize(
    ("given", "placed"),
    [
        (("T2", "DWI", "ADC"), {"T2": "T2", "DWI": "DWI", "ADC": "ADC"}),
        (("t2w", "b50", "b400", "b1000", "adc"), {"T2": "t2w", "DWI": "b1000", "ADC": "adc"}),
        (("ADC map", "T2-weighted", "high-b", "DCE"), {"T2": "T2-weighted", "DWI": "high-b", "ADC": "ADC map"}),
        (("ADC", "T2WI", "DWI_b800"), {"T2": "T2WI", "DWI": "DWI_b800", "ADC": "ADC"}),
        (("T2*", "T2", "ADC", "b=800 s/mm2"), {"T2": "T2", "DWI": "b=800 s/mm2", "ADC": "ADC"}),
        (("ADC", "T2", "DWI b=0", "DWI b=600"), {"T2": "T2", "DWI": "DWI b=600", "ADC": "ADC"}),
    ],
)
def test_usual_spellings_of_sequences_are_placed(given: tuple[str, ...], placed: dict[str, str]) -> None:
    assert place(given) == placed
    assert PROFILES["halle2024"].place(given) == placed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("T2", "DWI"), "Sequence ADC is not among 'T2', 'DWI'"),
        (("T2*", "DWI", "ADC"), "Sequence T2 is not among"),
        (("T2", "b0", "ADC"), "Sequence DWI is not among"),
        (("T2", "T2w", "DWI", "ADC"), "Sequence T2 could be any of 'T2', 'T2w'"),
        (("T2", "highb", "b800", "ADC"), "Sequence DWI could be any of 'highb', 'b800'"),
        (("T2", "b800", "DWI b800", "ADC"), "Sequence DWI could be any of 'b800', 'DWI b800'"),
        ((), "Sequence T2 is not among the sequences: there are none"),
    ],
)
def test_a_missing_or_ambiguous_sequence_is_named(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        place(given)


def test_a_profile_of_single_sequences_takes_them_by_any_name() -> None:
    assert PROFILES["full"].place(["anything", "CT"]) == {"anything": "anything", "CT": "CT"}
    assert PROFILES["ibsi"].features(["CT", "PET"])[107].name == "PET_original_shape_Elongation"


def test_a_joint_profile_refuses_other_sequences() -> None:
    with pytest.raises(InputError, match="halle2024 measures 'T2', 'DWI', 'ADC' together, not 'T2'"):
        PROFILES["halle2024"].features(["T2"])


# The user's own parameter file

OWN = {
    "setting": {"binWidth": 5, "resampledPixelSpacing": [1, 1, 0], "label": 1, "sigma": [2.0], "minimumROISize": 50},
    "imageType": {"Wavelet": {"binWidth": 10}, "LoG": None, "Original": {}},
    "featureClass": {"glcm": ["Idm", "Contrast"], "shape": None, "firstorder": []},
}


def _write(folder: Path, content: str, name: str = "ours.yaml") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_an_own_parameter_file_is_a_profile(tmp_path: Path) -> None:
    _write(tmp_path, yaml.safe_dump(OWN))
    profile = find_profile("ours.yaml", tmp_path)
    assert profile.name == "ours"
    assert profile.resolutions[0].spacing == (1.0, 1.0, 0.0)
    assert profile.minimum_voxels == 51
    assert [(image.kind, image.options.bin_width) for image in profile.images] == [("Original", 5), ("LoG", 5), ("Wavelet", 10)]
    assert profile.classes[2].names == ("Contrast", "Idm")
    assert profile.diagnostics
    assert len(profile.plain_names()) == 28 + 14 + 10 * (18 + 2)


def test_formatting_order_and_defaults_that_are_spelt_out_do_not_change_the_hash(tmp_path: Path) -> None:
    plain = read_parameters(_write(tmp_path, yaml.safe_dump(OWN)))
    reordered = {key: OWN[key] for key in reversed(OWN)}
    as_json = read_parameters(_write(tmp_path, json.dumps(reordered, indent=3), "other.json"))
    spelt = {
        **OWN,
        "setting": {**OWN["setting"], "force2D": False, "padDistance": 5, "weightingNorm": None, "additionalInfo": True},
    }
    assert as_json.hash == plain.hash
    assert profile_of("x", spelt).hash == plain.hash
    assert profile_of("x", {**OWN, "setting": {**OWN["setting"], "padDistance": 6}}).hash != plain.hash


def test_an_empty_parameter_file_means_pyradiomics_defaults(tmp_path: Path) -> None:
    profile = read_parameters(_write(tmp_path, ""))
    assert len(profile.plain_names()) == 13 + 107
    assert profile.options == Options()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"settings": {}}, "has no 'settings' \\(did you mean 'setting'\\?\\)"),
        ({"setting": {"binwidth": 5}}, "setting has no 'binwidth' \\(did you mean 'binWidth'\\?\\)"),
        ({"setting": {"bin_width": 5}}, "setting has no 'bin_width'"),
        ({"setting": {"binWidth": -5}}, "setting.binWidth is -5; input should be greater than 0"),
        ({"setting": {"binWidth": [1]}}, "setting.binWidth is \\[1\\]; input should be a valid number"),
        ({"setting": {"interpolator": "linear"}}, "setting.interpolator is 'linear'; input should be 'sitk"),
        ({"setting": {"label": 2}}, "setting.label is 2; .*manifest's column label"),
        ({"setting": {"correctMask": True}}, "setting.correctMask has no place here, .*masks.off_grid"),
        ({"setting": {"geometryTolerance": 1}}, "setting.geometryTolerance has no place here"),
        ({"setting": {"resampledPixelSpacing": [1, 1]}}, "resampledPixelSpacing is \\[1, 1\\]; give three lengths"),
        ({"setting": {"resampledPixelSpacing": [1, 1, -1]}}, "give three lengths"),
        ({"setting": {"minimumROISize": "many"}}, "setting.minimumROISize is 'many'"),
        ({"setting": {"additionalInfo": "perhaps"}}, "setting.additionalInfo is 'perhaps'"),
        ({"setting": [1]}, "setting is \\[1\\]; give keys and values"),
        ({"voxelSetting": {"kernelRadius": 1}}, "voxelSetting makes maps"),
        ({"imageType": {"Wavelets": {}}}, "imageType has no 'Wavelets' \\(did you mean 'Wavelet'\\?\\)"),
        ({"imageType": {"LoG": {"sigmas": [1]}}}, "imageType.LoG has no 'sigmas' \\(did you mean 'sigma'\\?\\)"),
        ({"imageType": {"LoG": {"sigma": [1, 1]}}}, "a sigma.* is there twice"),
        (
            {"imageType": {"Wavelet": {"normalize": True}}},
            "imageType.Wavelet.normalize is ignored by PyRadiomics.*move it to setting",
        ),
        ({"featureClass": {"GLCM": None}}, "featureClass has no 'GLCM'; known: shape, shape2D, firstorder, glcm"),
        ({"featureClass": {"glcm": ["Kontrast"]}}, "featureClass.glcm has no 'Kontrast' \\(did you mean 'Contrast'\\?\\)"),
        ({"featureClass": {"glcm": "Contrast"}}, "featureClass.glcm is 'Contrast'; give a list"),
        ({"featureClass": {"glcm": ["Dissimilarity"]}}, "Dissimilarity is withdrawn, and PyRadiomics gives nothing for it"),
        ("binWidth", "is 'binWidth'; give keys and values"),
    ],
)
def test_what_pyradiomics_would_refuse_ignore_or_drop_is_refused_in_one_sentence(
    parameters: Any, message: str, tmp_path: Path
) -> None:
    _write(tmp_path, yaml.safe_dump(parameters))
    with pytest.raises(InputError, match=message) as caught:
        find_profile("ours.yaml", tmp_path)
    assert str(caught.value).startswith("ours.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_yaml_or_not_there_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "setting: [")
    with pytest.raises(InputError, match=r"ours\.yaml cannot be read as YAML"):
        find_profile("ours.yaml", tmp_path)
    with pytest.raises(InputError, match=r"gone\.yml does not exist"):
        find_profile("gone.yml", tmp_path)
    with pytest.raises(InputError, match=r"'halle' is not known \(did you mean 'halle2024'\?\)"):
        find_profile("halle", tmp_path)


def test_all_settings_of_pyradiomics_are_known_or_refused_for_a_reason() -> None:
    from features.imaging.parameters import ELSEWHERE, NOT_HERE

    schema, _ = radiomics.getParameterValidationFiles()
    theirs = yaml.safe_load(Path(schema).read_text(encoding="utf-8"))["mapping"]["setting"]["mapping"]
    assert set(theirs) == {*OPTIONS, *ELSEWHERE, *NOT_HERE}


# Preflight


@pytest.mark.parametrize("name", list(PROFILES))
def test_shipped_profiles_can_be_measured_here(name: str) -> None:
    preflight(PROFILES[name])


@pytest.mark.parametrize(
    ("absent", "name", "message"),
    [
        ("trimesh", "full", "full asks for LBP3D images, which need trimesh, which is not installed or cannot be imported"),
        ("radiomics", "halle2024", "needs PyRadiomics, which is not installed; pip install"),
    ],
)
def test_a_missing_library_stops_the_run(absent: str, name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = module.find_spec
    monkeypatch.setattr(module, "find_spec", lambda asked: None if asked == absent else there(asked))
    monkeypatch.setitem(sys.modules, absent, None)  # importing it fails
    with pytest.raises(InputError, match=message):
        preflight(PROFILES[name])
    if absent == "trimesh":
        preflight(PROFILES["halle2024"])


def test_a_missing_scikit_image_stops_lbp_2d_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    there = module.find_spec
    monkeypatch.setattr(module, "find_spec", lambda asked: None if asked == "skimage" else there(asked))
    with pytest.raises(InputError, match="LBP2D images, which need scikit-image"):
        preflight(_minimal(images=(ImageType(kind="LBP2D"),)))
    preflight(PROFILES["full"])


def test_a_scipy_without_spherical_harmonics_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(scipy.special, "sph_harm")
    with pytest.raises(InputError, match=r"sph_harm, and SciPy .* has it no more; pip install 'scipy<1.17'"):
        preflight(PROFILES["bodalal4032b"])
    preflight(PROFILES["bodalal4032a"])


def test_log_without_sigma_stops_the_run() -> None:
    with pytest.raises(InputError, match="LoG images, and no sigma is set"):
        preflight(profile_of("x", {"imageType": {"LoG": None}}))


def test_an_unknown_wavelet_stops_the_run() -> None:
    with pytest.raises(InputError, match=r"no wavelet 'coiff1' \(did you mean 'coif1'\?\)"):
        preflight(profile_of("x", {"imageType": {"Wavelet": {"wavelet": "coiff1"}}}))


def test_shape_of_a_slice_without_force_2d_stops_the_run() -> None:
    with pytest.raises(InputError, match="asks for shape2D, which PyRadiomics leaves out unless force2D is true"):
        preflight(profile_of("x", {"featureClass": {"shape2D": None}}))
    preflight(profile_of("x", {"featureClass": {"shape2D": None}, "setting": {"force2D": True}}))


def test_reading_profiles_needs_no_imaging_library() -> None:
    code = (
        "import sys; from features.imaging.profiles import PROFILES; PROFILES['full'].hash; "
        "print([name for name in ('radiomics', 'SimpleITK', 'pywt', 'scipy.special') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['scipy.special']")


# The command


def test_the_command_lists_all_profiles() -> None:
    shown = CliRunner().invoke(command, [], catch_exceptions=False).output
    for profile in PROFILES.values():
        assert profile.hash[:12] in shown
    listed = json.loads(CliRunner().invoke(command, ["--json"], catch_exceptions=False).output)
    assert listed["halle2024"]["columns"] == {"T2": 107, "DWI": 93, "ADC": 93}


def test_the_command_shows_settings_and_names() -> None:
    shown = CliRunner().invoke(command, ["halle2024"], catch_exceptions=False).output
    assert "binWidth 10.0" in shown
    assert PROFILES["halle2024"].hash in shown
    names = CliRunner().invoke(command, ["halle2024", "--names"], catch_exceptions=False).output.split()
    assert names == [feature.name for feature in PROFILES["halle2024"].features(SEQUENCES)]
    described = json.loads(CliRunner().invoke(command, ["full", "--names", "--json"], catch_exceptions=False).output)
    assert tuple(described["names"]) == PROFILES["full"].plain_names()
    assert Profile.model_validate(described["settings"]) == PROFILES["full"]


def test_the_command_shows_what_cannot_be_measured_and_says_why(tmp_path: Path) -> None:
    path = _write(tmp_path, "imageType: {LoG: {}}")
    done = CliRunner().invoke(command, [str(path)])
    assert "LoG" in done.output
    assert isinstance(done.exception, InputError)


def test_names_of_no_profile_are_a_usage_error() -> None:
    assert CliRunner().invoke(command, ["--names"]).exit_code == 2
