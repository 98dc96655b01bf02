from __future__ import annotations

import gzip
import json
import shutil
import struct
import tempfile
import zipfile
from pathlib import Path

import imaging_made as made
import numpy as np
import pytest
import SimpleITK as sitk

from features.imaging import archive
from features.imaging.images import ImageError, content_digest, read_volume, resample, scale_to_mean


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"])
def test_every_format_gives_the_same_voxels_and_geometry(tmp_path: Path, suffix: str) -> None:
    image = read_volume(made.written(tmp_path / f"a{suffix}", made.ramp())).image
    assert image.GetPixelID() == sitk.sitkFloat64
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), made.ramp())
    assert image.GetSpacing() == made.SPACING  # without the noise of single precision
    np.testing.assert_allclose(image.GetOrigin(), made.ORIGIN, rtol=1e-6)
    np.testing.assert_allclose(image.GetDirection(), made.direction().ravel(), atol=1e-6)


def test_the_slope_of_a_nifti_is_applied(tmp_path: Path) -> None:
    path = made.written(tmp_path / "a.nii", made.ramp())
    raw = bytearray(path.read_bytes())
    struct.pack_into("<2f", raw, 112, 0.5, 10.0)  # scl_slope, scl_inter
    path.write_bytes(raw)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(path).image), made.ramp() * 0.5 + 10)


def damaged() -> dict[str, bytes]:
    """Files that ITK reads in part, reads as nonsense, or does not read."""
    noise = np.random.default_rng(0).normal(size=(8, 40, 40)).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        sitk.WriteImage(made.image_of(noise), f"{folder}/a.nii")
        for suffix in ("nrrd", "mha"):
            sitk.WriteImage(made.image_of(noise), f"{folder}/a.{suffix}", useCompression=True)
            sitk.WriteImage(made.image_of(noise), f"{folder}/plain.{suffix}", useCompression=False)
        whole = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    packed = gzip.compress(whole["a.nii"])
    files = {"cut.nii.gz": packed[: len(packed) // 2], "changed.nii.gz": packed[:5000] + b"\0\1\2\3" + packed[5004:]}
    files |= {f"cut-{name}": content[: len(content) * 2 // 3] for name, content in whole.items()}
    files |= {f"changed-{name}": whole[name][:9000] + b"\0\1\2\3" + whole[name][9004:] for name in ("a.nrrd", "a.mha")}
    for suffix in ("nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd"):
        files |= {f"empty.{suffix}": b"", f"text.{suffix}": b"a letter\n" * 90}
        files |= {f"noise.{suffix}": np.random.default_rng(1).bytes(4000)}
    huge = bytearray(whole["a.nii"])
    struct.pack_into("<8h", huge, 40, 3, 30000, 30000, 30000, 1, 1, 1, 1)
    files["huge.nii"] = bytes(huge)
    files["letters.dcm"] = b"\0" * 128 + b"DICM" + b"no tags at all, though it says so"
    files["mark.dcm"] = b"\0" * 128 + b"DICM"
    files["unknown.xyz"] = b"what is this"
    files["cut.zip"] = b"PK\x03\x04" + b"\0" * 60
    return files


DAMAGED = damaged()


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_a_damaged_file_is_one_sentence_with_its_name(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(ImageError) as raised:
        read_volume(tmp_path / name, shown=f"sub/{name}")
    assert raised.value.file == f"sub/{name}"
    assert str(raised.value).startswith(f"sub/{name} ")
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)
    assert str(tmp_path) not in str(raised.value)
    assert capfd.readouterr().err == ""  # neither ITK nor the libraries below it have a word of their own


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_with_what_is_no_number_is_refused_where_itk_reads_zeros(tmp_path: Path, suffix: str, value: float) -> None:
    array = made.ramp(dtype="float32")
    array[0, 0, :2] = value
    with pytest.raises(ImageError, match="has 2 voxels that are no finite number"):
        read_volume(made.written(tmp_path / f"a{suffix}", array))


@pytest.mark.parametrize("start", [np.nan, np.inf, -1.0, 1e30])
def test_a_nifti_whose_voxels_start_nowhere_is_damaged(tmp_path: Path, start: float) -> None:
    path = made.written(tmp_path / "a.nii", made.ramp())
    raw = bytearray(path.read_bytes())
    struct.pack_into("<f", raw, 108, start)
    path.write_bytes(raw)
    with pytest.raises(ImageError, match="is damaged or was cut short"):
        read_volume(path)


def test_a_path_to_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^a\.nii is not there; check the path"):
        read_volume(tmp_path / "a.nii")
    with pytest.raises(ImageError, match="is not there"):
        content_digest(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((2, 3, 4, 5), dtype="int16"), "holds 2 volumes"),
        (np.zeros((4, 5), dtype="int16"), "is flat"),
        (np.zeros((3, 4, 5), dtype="complex64"), "several numbers in each voxel"),
    ],
)
def test_what_is_no_volume_of_single_numbers_is_refused(tmp_path: Path, array: np.ndarray, reason: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(tmp_path / "a.nii"))
    with pytest.raises(ImageError, match=reason):
        read_volume(tmp_path / "a.nii")


def test_a_fourth_axis_of_one_is_none(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(made.ramp()[None], isVector=False), str(tmp_path / "a.nii"))
    assert read_volume(tmp_path / "a.nii").image.GetSize() == made.SHAPE[::-1]


def test_a_header_without_its_voxels_names_what_is_missing(tmp_path: Path) -> None:
    path = made.written(tmp_path / "a.mhd", made.ramp())
    (tmp_path / "a.raw").unlink()
    with pytest.raises(ImageError, match=r"keeps its voxels in a\.raw, which is not beside it"):
        read_volume(path)


def test_the_sidecar_is_read_in_the_units_of_bids(tmp_path: Path) -> None:
    path = made.written(tmp_path / "a.nii.gz", made.ramp())
    told = {"RepetitionTime": 4.0, "EchoTime": 0.08, "FlipAngle": 90, "MagneticFieldStrength": 3, "EchoTrainLength": 16}
    told |= {"PhaseEncodingDirection": "j-", "SliceThickness": 2.5, "PatientName": "Secret"}
    (tmp_path / "a.json").write_text(json.dumps(told))
    (tmp_path / "a.bval").write_text("0 200 800\n")
    row = read_volume(path).acquisition.row()
    assert row == {
        "repetition_time_ms": 4000.0,
        "echo_time_ms": 80.0,
        "flip_angle_deg": 90.0,
        "field_strength_t": 3.0,
        "averages": None,
        "echo_train_length": 16.0,
        "phase_direction": "COL",
        "slice_thickness_mm": 2.5,
        "pixel_spacing_mm": pytest.approx(np.sqrt(0.8 * 1.2)),
        "b_value_s_mm2": None,
        "b_value_count": 3.0,
    }


def test_the_distance_of_slices_is_not_taken_for_their_thickness(tmp_path: Path) -> None:
    acquired = read_volume(made.written(tmp_path / "a.nii.gz", made.ramp())).acquisition
    assert (acquired.slice_thickness_mm, acquired.voxel_volume_mm3) == (None, None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is no JSON"),
        ("[1]", "no JSON object"),
        ('{"EchoTime": 80}', r"EchoTime is 80 .*\(BIDS wants seconds\)"),
        ('{"FlipAngle": "x"}', "FlipAngle"),
    ],
)
def test_a_sidecar_that_cannot_be_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    path = made.written(tmp_path / "a.nii.gz", made.ramp())
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ImageError, match=reason):
        read_volume(path)


def test_the_digest_follows_content_and_not_names(tmp_path: Path) -> None:
    made.write_series(tmp_path / "one", made.ramp())
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for number, file in enumerate(sorted((tmp_path / "two").iterdir())):
        file.rename(file.with_name(f"other{9 - number}"))
    assert content_digest(tmp_path / "one") == content_digest(tmp_path / "two")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        for file in (tmp_path / "one").iterdir():
            packed.write(file, f"study/{file.name}")
    assert content_digest(tmp_path / "a.zip") == content_digest(tmp_path / "a.zip/study") == content_digest(tmp_path / "one")
    next((tmp_path / "two").iterdir()).write_bytes(b"changed")
    assert content_digest(tmp_path / "one") != content_digest(tmp_path / "two")


@pytest.mark.parametrize("beside", ["a.json", "a.raw"])
def test_the_digest_covers_what_is_read_beside_the_file(tmp_path: Path, beside: str) -> None:
    path = made.written(tmp_path / "a.mhd", made.ramp())
    before = content_digest(path)
    (tmp_path / beside).write_bytes(b"{}")
    assert content_digest(path) != before


def packed(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive_:
        for name, content in members.items():
            archive_.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../outside.nii", "/outside.nii", "a/../../outside.nii", "..\\outside.nii", "C:\\outside.nii"])
def test_an_archive_that_leads_out_of_itself_is_not_unpacked(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match="leads out of the archive; it was not unpacked"):
        read_volume(packed(tmp_path / "a.zip", {name: b"x"}))
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]


def test_an_archive_that_would_fill_the_disk_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "HARMLESS_ARCHIVE", 2**20)
    with pytest.raises(ImageError, match=r"would unpack to 0\.0 GiB"):
        read_volume(packed(tmp_path / "a.zip", {"a.dcm": bytes(2**22)}))


def test_nothing_unpacked_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    made.written(tmp_path / "a.nii.gz", made.ramp())
    path = packed(tmp_path / "a.zip", {"p/a.nii.gz": (tmp_path / "a.nii.gz").read_bytes(), "p/a.json": b'{"EchoTime": 0.1}'})
    volume = read_volume(path / "p/a.nii.gz")
    assert volume.acquisition.echo_time_ms == 100
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume.image), made.ramp())
    with pytest.raises(ImageError, match="the archive holds nothing of that name"):
        read_volume(path / "p/b.nii.gz")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_linear_ramp_resamples_exactly() -> None:
    z, y, x = np.indices((6, 8, 10))
    coarse = made.image_of(
        (3 * x - 2 * y + 5 * z).astype("int16"), spacing=(2, 2, 2), origin=(0, 0, 0), axes=((1, 0, 0), (0, 1, 0))
    )
    fine = made.image_of(np.zeros((21, 29, 37)), spacing=(0.5, 0.5, 0.5), origin=(0, 0, 0), axes=((1, 0, 0), (0, 1, 0)))
    z, y, x = np.indices((21, 29, 37)) / 4
    np.testing.assert_array_equal(sitk.GetArrayFromImage(resample(coarse, fine)), 3 * x - 2 * y + 5 * z)


def test_outside_of_the_image_is_zero() -> None:
    far = made.image_of(made.ramp(), origin=(500, 0, 0))
    assert not sitk.GetArrayFromImage(resample(far, made.image_of(made.ramp()))).any()


def test_a_constant_factor_changes_nothing_once_scaled_to_the_mean() -> None:
    image = made.image_of(made.ramp(dtype="float64"))
    scaled = sitk.GetArrayFromImage(scale_to_mean(image))
    assert scaled.mean() == pytest.approx(100, rel=1e-12)
    np.testing.assert_allclose(sitk.GetArrayFromImage(scale_to_mean(image * 7.3)), scaled, rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_an_image_without_a_positive_mean_is_not_scaled(value: float) -> None:
    with pytest.raises(ImageError, match="by which it cannot be divided"):
        scale_to_mean(made.image_of(np.full(made.SHAPE, value)))
