"""`hypoxia heterogeneity`: from a table of biopsies, from maps with masks, and from what `hypoxia perfusion` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from click.testing import CliRunner, Result

from features.errors import InputError
from features.heterogeneity import empirical_logit, variance_components
from features.imaging.brix import brix_curve
from features.imaging.cli_perfusion import perfusion
from training.cli_heterogeneity import heterogeneity

# The first batches of Dyestuff (see tests/features/test_heterogeneity.py), with names that are numbers.
YIELD = pd.DataFrame({"tumour": ["007", "007", "7", "7", "8", "8"], "value": [1545, 1440, 1540, 1555, 1595, 1630]})
N_TUMOURS = 24


def run(*arguments: object) -> Result:
    return CliRunner().invoke(heterogeneity, [str(one) for one in arguments])


def answered(*arguments: object) -> dict:
    answer = run(*arguments, "--json")
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout)


def refused(*arguments: object) -> str:
    answer = run(*arguments)
    assert isinstance(answer.exception, InputError), answer.output
    return str(answer.exception)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "biopsies.csv"
    YIELD.to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four tumours of two slices, every second one hypoxic in one block; and one too small for a biopsy."""
    folder = tmp_path_factory.mktemp("maps")
    rng = np.random.default_rng(0)
    inside = np.zeros((3, 30, 30))
    inside[:2, 3:27, 3:27] = 1
    sitk.WriteImage(sitk.GetImageFromArray(inside), str(folder / "tumour.nii.gz"))
    small = np.zeros_like(inside)
    small[:2, :2, :5] = 1
    sitk.WriteImage(sitk.GetImageFromArray(small), str(folder / "small.nii.gz"))
    rows = ["sample,sequence,image,mask"]
    for number, part in enumerate(np.linspace(0.15, 0.85, N_TUMOURS)):
        block = np.broadcast_to((np.arange(30)[:, np.newaxis] - 3) < 24 * part, inside.shape)
        below = block if number % 2 == 0 else rng.random(inside.shape) < part
        sitk.WriteImage(sitk.GetImageFromArray(np.where(below, 1.0, 2.0)), str(folder / f"{number}.nii.gz"))
        rows.append(f"{number:03d},ABrix,{number}.nii.gz,tumour.nii.gz")
    rows.append("small,ABrix,0.nii.gz,small.nii.gz")
    (folder / "maps.csv").write_text("\n".join(rows) + "\n")
    return folder / "maps.csv"


# Variance


def test_a_table_gives_both_methods_the_interval_and_what_several_biopsies_make_of_it(table: Path, tmp_path: Path) -> None:
    found = answered("variance", table, "--out", tmp_path / "out.csv", "--picture", tmp_path / "out.png")
    expected = variance_components(YIELD["value"].to_numpy(float), YIELD["tumour"].to_numpy())
    anova, reml = found["methods"]
    assert (found["samples"], found["tumours"]) == (6, 3)  # 007 and 7 are two tumours
    assert anova["within_share"] == pytest.approx(expected.within_share)
    assert anova["share_of_3_biopsies"] == pytest.approx(expected.reduced(3))
    assert reml["within_share"] == pytest.approx(expected.within_share, abs=1e-6)
    assert found["within_share"]["lower"] <= expected.within_share <= found["within_share"]["upper"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out.csv"), pd.DataFrame(found["methods"]), check_dtype=False)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_printed_names_the_share_and_its_interval(table: Path) -> None:
    words = run("variance", table).stderr
    assert "6 samples of 3 tumours; values as they are" in words
    assert "ANOVA" in words
    assert "REML" in words


def test_fractions_of_voxels_are_analysed_as_logits(tmp_path: Path) -> None:
    frame = YIELD.assign(value=[0.0, 0.2, 0.5, 0.9, 1.0, 0.4], voxels=[12, 24, 12, 12, 12, 30])
    frame.to_csv(tmp_path / "t.csv", index=False)
    logits = empirical_logit(frame["value"].to_numpy(), frame["voxels"].to_numpy())
    found = answered("variance", tmp_path / "t.csv", "--voxels", "voxels")
    assert found["empirical_logit"]
    expected = variance_components(logits, frame["tumour"].to_numpy()).within_share
    assert found["within_share"]["value"] == pytest.approx(expected)


def test_the_same_seed_gives_the_same_interval_and_another_another(table: Path) -> None:
    once, again, other = (answered("variance", table, "--seed", seed)["within_share"] for seed in (1, 1, 2))
    assert once == again
    assert once["value"] == other["value"]


def test_columns_that_are_not_there_or_no_numbers_are_refused(table: Path, tmp_path: Path) -> None:
    assert "no column 'values' (did you mean 'value'?)" in refused("variance", table, "--value", "values")
    assert "biopsies.csv has no column 'voxel'" in refused("variance", table, "--voxels", "voxel")
    YIELD.assign(value="high").to_csv(tmp_path / "words.csv", index=False)
    assert "no number" in refused("variance", tmp_path / "words.csv")
    YIELD.assign(tumour=[None, "b", "b", "c", "c", "d"]).to_csv(tmp_path / "gap.csv", index=False)
    assert "1 of 6 samples in gap.csv have no tumour" in refused("variance", tmp_path / "gap.csv")
    assert "is no PNG" in refused("variance", table, "--picture", "a.jpg")


# Biopsies


def test_maps_of_a_manifest_tell_the_clustered_tumours_and_what_failed(maps: Path, tmp_path: Path) -> None:
    found = answered("biopsies", maps, "--out", tmp_path / "out.csv", "--picture", tmp_path / "out.png")
    tumours = pd.DataFrame(found["tumours"]).set_index("sample")
    assert len(tumours) == N_TUMOURS
    assert (tumours["voxels"] == 2 * 24 * 24).all()
    assert (tumours["biopsies"] == 96).all()
    assert tumours["more_clustered"].tolist() == [number % 2 == 0 for number in range(N_TUMOURS)]
    assert tumours.loc["000", "hypoxic_fraction"] == pytest.approx(4 / 24)
    assert [one["sample"] for one in found["failures"]] == ["small"]
    assert "12 connected voxels" in found["failures"][0]["reason"]
    assert found["association"] is None
    written = pd.read_csv(tmp_path / "out.csv", dtype={"sample": str}).set_index("sample")
    np.testing.assert_allclose(written["deviation"], tumours["deviation"])
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_one_slice_may_be_asked_for(maps: Path) -> None:
    found = answered("biopsies", maps, "--slices", "largest")
    assert {one["voxels"] for one in found["tumours"]} == {24 * 24}


def test_all_of_a_tumour_is_hypoxic_below_a_high_threshold(maps: Path) -> None:
    found = answered("biopsies", maps, "--threshold", "9")
    assert {one["hypoxic_fraction"] for one in found["tumours"]} == {1.0}
    assert "spread alike" in found["notes"][0]
    assert "expected" not in found["tumours"][0]


def test_discordant_classification_is_associated_with_clustering(maps: Path, tmp_path: Path) -> None:
    names = [f"{number:03d}" for number in range(N_TUMOURS - 2)]
    classes = pd.DataFrame({"sample": names, "imaging": "more", "genes": ["less", "more"] * (len(names) // 2)})
    classes.to_csv(tmp_path / "classes.csv", index=False)
    answer = run("biopsies", maps, "--classes", tmp_path / "classes.csv", "--json")
    found = json.loads(answer.stdout)
    told = found["association"]
    assert [told[name] for name in ("more_discordant", "more_concordant", "less_discordant", "less_concordant")] == [11, 0, 0, 11]
    assert told["p_value"] == pytest.approx(2 / 705432)  # 22 choose 11
    assert "2 tumours have no class" in found["notes"][0]
    assert "11 of 11 more clustered tumours, 0 of 11 less clustered ones" in answer.stderr


def test_classes_of_other_samples_and_samples_named_twice_are_refused(maps: Path, tmp_path: Path) -> None:
    strangers = pd.DataFrame({"sample": ["x"], "imaging": [1], "genes": [0]})
    strangers.to_csv(tmp_path / "strangers.csv", index=False)
    assert "None of the tumours is among those with classes" in refused("biopsies", maps, "--classes", tmp_path / "strangers.csv")
    pd.concat([strangers, strangers]).to_csv(tmp_path / "twice.csv", index=False)
    assert "has a sample twice" in refused("biopsies", maps, "--classes", tmp_path / "twice.csv")


def test_too_few_tumours_have_their_spread_and_one_sentence_why_no_curve(maps: Path, tmp_path: Path) -> None:
    lines = maps.read_text().splitlines()[:6]
    few = maps.with_name("few.csv")
    few.write_text("\n".join(lines) + "\n")
    found = answered("biopsies", few, "--picture", tmp_path / "few.png")
    assert len(found["tumours"]) == 5
    assert found["notes"] == [
        "There are 5 tumours with two biopsies or more; the curve that tells more from less clustered needs 20."
    ]
    assert (tmp_path / "few.png").exists()


def test_a_map_without_mask_is_taken_where_it_has_values(maps: Path) -> None:
    values = np.full((1, 12, 12), np.nan)
    values[0, :6, :8] = np.where(np.arange(8) < 4, 1.0, 2.0)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(maps.with_name("bare.nii.gz")))
    path = maps.with_name("bare.csv")
    path.write_text("sample,sequence,image\na,ABrix,bare.nii.gz\n")
    (only,) = answered("biopsies", path)["tumours"]
    assert (only["voxels"], only["hypoxic_fraction"], only["biopsies"]) == (48, 0.5, 4)


def test_voxels_without_a_value_are_left_out_of_the_tumour_and_not_taken_for_zeros(maps: Path) -> None:
    values = np.full((1, 12, 12), 2.0)
    values[0, 0, :3] = np.nan
    for ending in ("nii.gz", "nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(values), str(maps.with_name(f"gaps.{ending}")))
        sitk.WriteImage(sitk.GetImageFromArray(np.ones(values.shape)), str(maps.with_name("all.nii.gz")))
        path = maps.with_name("gaps.csv")
        path.write_text(f"sample,sequence,image,mask\na,ABrix,gaps.{ending},all.nii.gz\n")
        (only,) = answered("biopsies", path)["tumours"]
        assert (only["voxels"], only["hypoxic_fraction"]) == (141, 0.0)


@pytest.mark.parametrize("spoil", [lambda whole: whole[: len(whole) // 2], lambda whole: b"nothing", lambda whole: b""])
def test_a_map_that_is_no_whole_file_fails_with_its_name(maps: Path, spoil) -> None:
    maps.with_name("cut.nii.gz").write_bytes(spoil(maps.with_name("1.nii.gz").read_bytes()))
    path = maps.with_name("cut.csv")
    path.write_text("sample,sequence,image,mask\na,ABrix,cut.nii.gz,tumour.nii.gz\n")
    assert "cut.nii.gz is missing, or no whole NIfTI file" in refused("biopsies", path)


def test_a_map_with_values_everywhere_needs_a_mask(maps: Path) -> None:
    path = maps.with_name("whole.csv")
    path.write_text("sample,sequence,image\na,ABrix,0.nii.gz\n")
    assert "0.nii.gz has a value everywhere, and no mask" in refused("biopsies", path)


def test_maps_of_two_kinds_are_refused(maps: Path) -> None:
    path = maps.with_name("two.csv")
    path.write_text("sample,sequence,image,mask\na,ABrix,0.nii.gz,tumour.nii.gz\na,kep,1.nii.gz,tumour.nii.gz\n")
    assert "has sequences ABrix, kep" in refused("biopsies", path)


def test_the_folder_of_hypoxia_perfusion_is_read_as_it_was_written(tmp_path: Path) -> None:
    times = np.arange(12) * 30.0
    rows = ["sample,sequence,image,mask,times_s"]
    inside = np.zeros((2, 14, 14))
    inside[:, 1:13, 1:13] = 1
    sitk.WriteImage(sitk.GetImageFromArray(inside), str(tmp_path / "mask.nii.gz"))
    for name, hypoxic in (("first one", 6), ("b", 3)):
        amplitude = np.where(np.arange(14)[:, np.newaxis] < 1 + hypoxic, 1.0, 3.0) * np.ones(inside.shape)
        series = 200 * (1 + brix_curve(times[:, None, None, None] / 60 - 0.75, amplitude, 3, 0.1))
        volumes = [sitk.GetImageFromArray(frame) for frame in series]
        sitk.WriteImage(sitk.JoinSeries(volumes), str(tmp_path / f"{name}.nii.gz"))
        rows.append(f"{name},DCE,{name}.nii.gz,mask.nii.gz,{';'.join(f'{time:g}' for time in times)}")
    (tmp_path / "series.csv").write_text("\n".join(rows) + "\n")
    written = CliRunner().invoke(perfusion, [str(tmp_path / "series.csv"), "--output", str(tmp_path / "out")])
    assert written.exit_code == 0, written.output
    found = answered("biopsies", tmp_path / "out")
    assert [one["sample"] for one in found["tumours"]] == ["first one", "b"]
    assert [one["hypoxic_fraction"] for one in found["tumours"]] == pytest.approx([0.5, 0.25])
    assert [one["biopsies"] for one in found["tumours"]] == [24, 24]
    (tmp_path / "out" / "maps" / "b_DCE_ABrix.nii.gz").unlink()
    assert [one["sample"] for one in answered("biopsies", tmp_path / "out")["failures"]] == ["b"]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    assert "has no perfusion.csv" in refused("biopsies", tmp_path)
