from __future__ import annotations

import json
import shutil
from pathlib import Path

import imaging_made as made
import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from features.errors import InputError
from features.imaging.cli_manifest import manifest
from features.imaging.images import read_volume
from features.imaging.manifest import Entry, Manifest, draft_manifest, load_manifest, write_rows
from features.imaging.masks import read_mask
from features.imaging.settings import MaskSettings

HEADER = "sample,patient,sequence,image,mask,label,reference"


def load(folder: Path, *rows: str, header: str = HEADER) -> Manifest:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return load_manifest(path)


# --- reading


def test_cells_are_text_and_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    read = load(tmp_path, "007,,T2,t2.nii,m.nii,,", "007,,ADC,adc.nii,,,T2", "8,p8,T2,x.nii,m.nii,GTV 1,")
    assert read.entries == (
        Entry(sample="007", patient="007", sequence="T2", image="t2.nii", mask="m.nii", label=1),
        Entry(sample="007", patient="007", sequence="ADC", image="adc.nii", reference="T2"),
        Entry(sample="8", patient="p8", sequence="T2", image="x.nii", mask="m.nii", label="GTV 1"),
    )
    assert read.samples == ("007", "8")
    assert read.sequences == ("T2", "ADC")
    assert [entry.sequence for entry in read.of("007")] == ["T2", "ADC"]
    assert read.path("t2.nii") == tmp_path / "t2.nii"


@pytest.mark.parametrize(
    "header", ["sequence;sample;image;note", "sequence\tsample\timage\tnote", "\ufeffsequence,sample,image,note"]
)
def test_spreadsheets_of_every_country_are_read(tmp_path: Path, header: str) -> None:
    comma = next(mark for mark in ",;\t" if mark in header)
    read = load(tmp_path, comma.join(["T2", "a", "a.nii", "seen by both"]), "", comma * 3, header=header)
    assert read.entries == (Entry(sample="a", patient="a", sequence="T2", image="a.nii"),)


def test_notes_and_the_order_of_columns_do_not_change_the_hash(tmp_path: Path) -> None:
    first = load(tmp_path, "a,T2,a.nii,x", header="sample,sequence,image,note").hash
    assert load(tmp_path, "a.nii,T2,a", header="image,sequence,sample").hash == first
    assert load(tmp_path, "b.nii,T2,a", header="image,sequence,sample").hash != first


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "names no image"),
        (["a,,T2,,,,"], "line 2 has no image; fill the cell"),
        ([",,T2,a.nii,,,"], "line 2 has no sample"),
        (["a,,T2,a.nii,,,", "a,,T2,b.nii,,,"], "has T2 of sample 'a' twice"),
        (["a,p,T2,a.nii,,,", "a,q,ADC,b.nii,,,"], "gives sample 'a' the patients 'p' and 'q'"),
        (["a,,T2,a.nii,,,T2"], "the reference 'T2', which is itself"),
        (
            ["a,,ADC,a.nii,,,T2F", "a,,T2FS,b.nii,,,"],
            r"'T2F', which the sample does not have \(did you mean 'T2FS'\?\); it has ADC, T2FS",
        ),
        (["a,,T2,a.nii,,,", "b,,ADC,a.nii,,,T2"], "'T2', which the sample does not have"),
        (["a,,T1,a.nii,,,", "a,,T2,b.nii,,,T1", "a,,ADC,c.nii,,,T2"], "has a reference itself; name 'T1' for both"),
        (["../a,,T2,a.nii,,,"], "after which no file can be called"),
        (["..,,T2,a.nii,,,"], "after which no file can be called"),
        (["a,,T2 (fat),a.nii,,,"], r"names the sequence 'T2 \(fat\)'"),
        (["a,,T2,a.nii,,,,,"], "line 2 has 9 cells for 7 columns"),
    ],
)
def test_rows_that_cannot_be_are_one_sentence(tmp_path: Path, rows: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=rf"^manifest\.csv.*{sentence}.*\.$"):
        load(tmp_path, *rows)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("sample,sequence,imgae", r"has a column 'imgae' \(did you mean 'image'\?\)"),
        ("sample,sequence,image,image", "has the column 'image' twice"),
        ("sample,image", "has no column 'sequence'"),
        ("", "has no column 'sample'"),
    ],
)
def test_columns_that_cannot_be_are_one_sentence(tmp_path: Path, header: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load(tmp_path, header=header)


def test_what_is_no_text_and_what_is_not_there_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"sample,\xff\xfe")
    with pytest.raises(InputError, match=r"m\.csv is not text in UTF-8"):
        load_manifest(tmp_path / "m.csv")
    with pytest.raises(InputError, match="`hypoxia manifest FOLDER` drafts one"):
        load_manifest(tmp_path / "none.csv")


CELL = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="/\\"), min_size=1).filter(
    lambda text: text.strip(".") and text.strip() == text
)


@given(
    sample=CELL,
    patient=CELL,
    image=CELL,
    mask=st.none() | CELL,
    label=st.integers(1, 99) | CELL.filter(lambda text: not text.isdecimal()),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, sample: str, patient: str, image: str, mask: str | None, label: int | str
) -> None:
    entry = Entry(sample=sample, patient=patient, sequence="T2", image=image, mask=mask, label=label)
    path = tmp_path_factory.mktemp("m") / "manifest.csv"
    path.write_text(write_rows([entry]), encoding="utf-8")
    assert load_manifest(path).entries == (entry,)


# --- drafting


def placed(folder: Path) -> dict[tuple[str, str], tuple[str, str | None, int | str, str | None]]:
    entries = draft_manifest(folder).entries
    return {(entry.sample, entry.sequence): (entry.image, entry.mask, entry.label, entry.reference) for entry in entries}


def image(path: Path) -> None:
    made.written(path, made.ramp())


def mask(path: Path, value: int = 1) -> None:
    made.written(path, made.box(value=value))


def test_bids_is_placed_by_its_entities(tmp_path: Path) -> None:
    for session in ("1", "2"):
        stem = f"sub-01/ses-{session}/anat/sub-01_ses-{session}"
        image(tmp_path / f"{stem}_T2w.nii.gz")
        image(tmp_path / f"{stem}_acq-b800_dwi.nii.gz")
        mask(tmp_path / f"derivatives/masks/{stem}_space-T2w_desc-tumour_mask.nii.gz")
    assert placed(tmp_path) == {
        (f"sub-01_ses-{session}", sequence): (
            f"sub-01/ses-{session}/anat/sub-01_ses-{session}_{name}.nii.gz",
            f"derivatives/masks/sub-01/ses-{session}/anat/sub-01_ses-{session}_space-T2w_desc-tumour_mask.nii.gz"
            if own
            else None,
            1,
            None if own else "T2",
        )
        for session in ("1", "2")
        for sequence, name, own in (("T2", "T2w", True), ("b800", "acq-b800_dwi", False))
    }
    assert {entry.patient for entry in draft_manifest(tmp_path).entries} == {"sub-01"}


def test_a_folder_per_patient_names_the_sample(tmp_path: Path) -> None:
    for patient in ("P001", "P002"):
        image(tmp_path / patient / "t2_axial.nii.gz")
        image(tmp_path / patient / "ADC.nii.gz")
        mask(tmp_path / patient / "tumour_mask.nrrd", value=3)
    assert placed(tmp_path)["P002", "T2"] == ("P002/t2_axial.nii.gz", "P002/tumour_mask.nrrd", 3, None)
    assert placed(tmp_path)["P001", "ADC"] == ("P001/ADC.nii.gz", "P001/tumour_mask.nrrd", 3, None)  # on the same grid


def test_visits_of_a_patient_are_samples_of_their_own(tmp_path: Path) -> None:
    for visit in ("before", "after"):
        image(tmp_path / "P001" / visit / "T2.nii.gz")
    assert set(placed(tmp_path)) == {("P001_before", "T2"), ("P001_after", "T2")}
    assert {entry.patient for entry in draft_manifest(tmp_path).entries} == {"P001"}


def test_folders_of_images_and_masks_are_paired_by_name(tmp_path: Path) -> None:
    for sample in ("a01", "a02"):
        image(tmp_path / "images" / f"{sample}_T2.nii.gz")
        mask(tmp_path / "masks" / f"{sample}_T2.nii.gz")
    assert placed(tmp_path)["a02", "T2"] == ("images/a02_T2.nii.gz", "masks/a02_T2.nii.gz", 1, None)


def test_a_mask_is_known_by_its_values_where_its_name_does_not_tell(tmp_path: Path) -> None:
    image(tmp_path / "a_T2.nii.gz")
    mask(tmp_path / "a_ftv70.nii.gz")
    assert placed(tmp_path) == {("a", "T2"): ("a_T2.nii.gz", "a_ftv70.nii.gz", 1, None)}


def test_dicom_is_placed_by_header_and_its_masks_by_the_series_they_were_drawn_on(tmp_path: Path) -> None:
    def adc(header: Dataset, k: int) -> None:
        header.SeriesDescription = "ep2d_diff_ADC"

    def scout(header: Dataset, k: int) -> None:
        header.SeriesDescription = "localizer"

    headers = made.write_series(tmp_path / "P1" / "00001", made.ramp(), number=7)
    made.write_series(tmp_path / "P1" / "00002", made.ramp(), adc, number=8)
    made.write_series(tmp_path / "P1" / "00003", made.ramp(), scout, number=9)
    made.write_seg(tmp_path / "P1" / "00001" / "seg.dcm", headers, {"node": made.box(), "tumour": made.box()})
    draft = draft_manifest(tmp_path)
    assert placed(tmp_path) == {
        ("P1", "T2"): ("P1/00001", "P1/00001/seg.dcm", 1, None),
        ("P1", "ADC"): ("P1/00002", None, 1, "T2"),
    }
    assert ("P1/00001/seg.dcm", "it holds several labels (1 'node', 2 'tumour'); label 1 is named") in draft.unplaced
    assert ("P1/00003", "it seems to be a localizer") in draft.unplaced
    assert "ecret" not in repr(draft) and "SECRET" not in repr(draft)


def test_series_that_share_a_folder_are_told_apart_by_number(tmp_path: Path) -> None:
    def adc(header: Dataset, k: int) -> None:
        header.SeriesDescription = "ADC"

    made.write_series(tmp_path / "P1", made.ramp(), number=7, name="a")
    made.write_series(tmp_path / "P1", made.ramp() + 1, adc, number=8, name="b")
    assert {key: value[0] for key, value in placed(tmp_path).items()} == {("P1", "T2"): "P1#7", ("P1", "ADC"): "P1#8"}
    assert sitk.GetArrayFromImage(read_volume(tmp_path / "P1#8").image)[0, 0, 0] == 1


def test_what_cannot_be_placed_is_told_with_the_reason(tmp_path: Path) -> None:
    image(tmp_path / "a_T2.nii.gz")
    mask(tmp_path / "a_one_mask.nii.gz")
    mask(tmp_path / "a_two_mask.nii.gz")
    mask(tmp_path / "z_mask.nii.gz")
    image(tmp_path / "b.nii.gz")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 3, 5, 6)), isVector=False), str(tmp_path / "c_dwi.nii.gz"))
    (tmp_path / "d_T2.nii.gz").write_bytes(b"not an image")
    (tmp_path / "e.zip").write_bytes(b"not an archive")
    made.written(tmp_path / "f_T2.nii.gz", made.ramp())
    made.written(tmp_path / "f_T2_mask.nii.gz", made.box() * 0)
    told = dict(draft_manifest(tmp_path).unplaced)
    assert told == {
        "a_one_mask.nii.gz": "it is one of several masks of a_T2.nii.gz; name the one that is meant",
        "a_two_mask.nii.gz": "it is one of several masks of a_T2.nii.gz; name the one that is meant",
        "a_T2.nii.gz": "no mask was found for it",
        "z_mask.nii.gz": "it is a mask, and no image was found that it belongs to",
        "b.nii.gz": "no mask was found for it",
        "c_dwi.nii.gz": "it holds 4 volumes; save the one that is meant, or read it as a perfusion study",
        "d_T2.nii.gz": "it cannot be read; it is damaged or not what its name says",
        "e.zip": "e.zip is no archive that can be unpacked (File is not a zip file); pack it again.",
        "f_T2_mask.nii.gz": "it is a mask without any label: it is empty, or its values are no labels",
    }


# --- the command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(manifest, arguments, catch_exceptions=True)


def test_the_draft_can_be_loaded_and_read(tmp_path: Path) -> None:
    image(tmp_path / "a_T2.nii.gz")
    mask(tmp_path / "a_T2_mask.nii.gz")
    done = run(str(tmp_path))
    assert done.exit_code == 0
    assert "1 image of 1 sample (T2), 1 with a mask or a reference" in done.stderr
    read = load_manifest(tmp_path / "manifest.csv")
    entry = read.entries[0]
    like = read_volume(read.path(entry.image)).image
    assert (
        sitk.GetArrayFromImage(read_mask(read.path(str(entry.mask)), entry.label, like, MaskSettings())).sum() == made.box().sum()
    )


def test_paths_are_relative_to_where_the_manifest_is_written(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a_T2.nii.gz")
    (tmp_path / "study").mkdir()
    done = run(str(tmp_path / "images"), "--output", str(tmp_path / "study" / "m.csv"), "--json")
    told = json.loads(done.stdout)
    assert told["entries"][0]["image"] == "../images/a_T2.nii.gz"
    assert told["unplaced"] == [{"path": "a_T2.nii.gz", "why": "no mask was found for it"}]
    read = load_manifest(tmp_path / "study" / "m.csv")
    assert read.path(read.entries[0].image).is_file()


def test_a_manifest_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    image(tmp_path / "a_T2.nii.gz")
    (tmp_path / "manifest.csv").write_text("mine")
    refused = run(str(tmp_path))
    assert isinstance(refused.exception, InputError) and "write over it with --force" in str(refused.exception)
    assert (tmp_path / "manifest.csv").read_text() == "mine"
    assert run(str(tmp_path), "--force").exit_code == 0
    assert len(load_manifest(tmp_path / "manifest.csv").entries) == 1


def test_a_folder_without_images_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("x")
    assert "holds no image that could be placed" in str(run(str(tmp_path)).exception)
    assert not (tmp_path / "manifest.csv").exists()


# --- real ones


def test_the_sarcoma_is_placed(data: Path, tmp_path: Path) -> None:
    folder = data / "mri_sts_t1_t2_pet_ct"
    names = {"T1": "STS_001_MR_T1", "T2FS": "STS_001_MR_T2FS", "PET": "STS_001_PET"}
    assert placed(folder) == {
        ("STS_001", sequence): (f"{stem}_image.nii.gz", f"{stem}_mask.nii.gz", 1, None) for sequence, stem in names.items()
    }
    shutil.copy(folder / "STS_001_MR_T2_dicom_rtstruct.zip", tmp_path / "s.zip")
    assert placed(tmp_path) == {("STS_001", "T2FS"): ("s.zip/STS_001/MR_T2/image", "s.zip/STS_001/MR_T2/mask/1-1.dcm", 1, None)}


def test_masks_that_nothing_tells_apart_are_left_to_the_user(data: Path) -> None:
    draft = draft_manifest(data / "mri_prostate_adc_t2")
    told = dict(draft.unplaced)
    assert told["UPENN-GBM-00002_seg.nii.gz"] == "it holds several labels (1, 2, 4); label 1 is named"
    assert all("one of several masks" in told[f"autorad_seg_{name}.nii.gz"] for name in ("empty", "one_label", "two_labels"))
    assert {(entry.sample, entry.sequence) for entry in draft.entries} == {("UPENN-GBM-00002", "T2"), ("autorad", "image")}


def test_phases_and_maps_of_a_contrast_series_are_sequences(data: Path) -> None:
    sequences = {sequence for _, sequence in placed(data / "mri_dce_ucsf_breast")}
    assert sequences == {"DCE_phase0", "DCE_phase1", "DCE_phase2", "SER", "PE1"}


def test_labels_beside_images_are_their_masks(data: Path) -> None:
    found = placed(data / "pyradiomics_testdata")
    assert found["lung1", "image"] == ("lung1_crop_image.nrrd", "lung1_crop_label.nrrd", 1, None)
    assert len(found) == 6
