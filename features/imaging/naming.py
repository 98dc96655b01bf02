"""What names of files and folders, and descriptions of DICOM series, tell: sample, sequence, image or mask."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from features.imaging.acquisition import stem_of

MASK_WORD = re.compile(
    r"(d|sub)?masks?|d?segm?s?|segmentations?|labels?|labelmaps?|rois?|gtv|ctv|voi|contours?|lesion|tumou?r|rtstruct|annotations?"
)
FILLER_WORD = re.compile(
    r"images?|imgs?|im|volume|vol|mri?|dicom|dcm|crop(ped)?|subvolume|scans?|anat|perf|derivatives|rawdata|sourcedata|nifti|nrrd"
    r"|data|ax(ial)?|sag(ittal)?|cor(onal)?|tra(nsverse)?|tse|fse|se|gre|epi|2d|3d|resampled|reg(istered)?"
)
# Most telling first: a fat-suppressed T2 is named before T2.
SEQUENCES = (
    (r"t2w?_?(fs|fatsat|stir|spair|spir)", "T2FS"),
    (r"t1w?_?(ce|c|gd|post|contrast)", "T1CE"),
    (r"t2(w|wi|tse|fse|sag|tra|ax|cor)?", "T2"),
    (r"t1(w|wi|tse|fse|sag|tra|ax|cor)?", "T1"),
    (r"flair", "FLAIR"),
    (r"adc", "ADC"),
    (r"dwi|dti|diff|diffusion|trace|tracew", "DWI"),
    (r"dce|dyn|dynamic|perfusion", "DCE"),
    (r"pdw?", "PD"),
    (r"swi", "SWI"),
    (r"ser", "SER"),
    (r"pe\d", "PE"),
    (r"pet|pt|fdg", "PET"),
    (r"ct", "CT"),
)
FAT_WORD = re.compile(r"fs|fat|fatsat|sat|stir|spair|spir")
CONTRAST_WORD = re.compile(r"ce|gd|gad|post|postcontrast|contrast")
PHASE = re.compile(r"(phase|ph|tp|time|echo)\d+")
B_VALUE = re.compile(r"b\d{1,5}")
MODALITIES = {"PT": "PET", "CT": "CT"}


@dataclass(frozen=True)
class Told:
    """What a name tells.

    Attributes
    ----------
    rest : tuple of str
        Words that are neither a sequence nor a role: the sample, most likely.
    sequence : str or None
    mask : bool
    """

    rest: tuple[str, ...]
    sequence: str | None
    mask: bool


def read_name(name: str) -> Told:
    """Take a name apart.

    Examples
    --------
    >>> read_name("STS_001_MR_T2FS_mask.nii.gz")
    Told(rest=('STS', '001'), sequence='T2FS', mask=True)
    >>> read_name("UPENN-GBM-00002_t2.nii.gz")
    Told(rest=('UPENN-GBM-00002',), sequence='T2', mask=False)
    """
    words = _words(stem_of(name))
    lower = [word.lower() for word in words]
    rest = tuple(word for word in words if not _is_known(word.lower()))
    return Told(rest, sequence_in(lower), any(MASK_WORD.fullmatch(word) for word in lower))


def sequence_in(words: Sequence[str]) -> str | None:
    """Sequence that words in lower case name, if any.

    Examples
    --------
    >>> sequence_in("axial se t2 fat sat".split())
    'T2FS'
    >>> sequence_in(["dce", "phase2"])
    'DCE_phase2'
    """
    found = next((name for pattern, name in SEQUENCES for word in words if re.fullmatch(pattern, word)), None)
    weighted = next((word for word in words if B_VALUE.fullmatch(word)), None)
    if weighted and found in (None, "DWI"):
        return weighted
    if found == "T2" and any(FAT_WORD.fullmatch(word) for word in words):
        return "T2FS"
    if found == "T1" and any(CONTRAST_WORD.fullmatch(word) for word in words):
        return "T1CE"
    if found == "PE":
        return next(word.upper() for word in words if re.fullmatch(r"pe\d", word))
    phase = next((word for word in words if PHASE.fullmatch(word)), None)
    return f"{found}_{phase}" if found and phase else found


def is_localizer(words: Sequence[str]) -> bool:
    """Whether a description is that of a planning image."""
    return any(word.startswith(("loc", "scout", "survey", "topogram")) for word in words)


def read_bids(name: str) -> tuple[str, str, Told] | None:
    """Sample, patient and the rest of a name in the Brain Imaging Data Structure; None if it is no such name.

    Examples
    --------
    >>> read_bids("sub-01_ses-2_space-T2w_desc-tumour_mask.nii.gz")
    ('sub-01_ses-2', 'sub-01', Told(rest=(), sequence='T2', mask=True))
    """
    parts = stem_of(name).split("_")
    if not re.fullmatch(r"sub-[A-Za-z0-9]+", parts[0]):
        return None
    entities = dict(part.split("-", 1) for part in parts if "-" in part)
    suffix = parts[-1].lower()
    mask = MASK_WORD.fullmatch(suffix) is not None
    telling = [entities.get(key, "").lower() for key in ("space", "ce", "acq")]
    words = [*telling, *(["ce"] if "ce" in entities else []), *([] if mask else [suffix])]
    session = f"_ses-{entities['ses']}" if "ses" in entities else ""
    return parts[0] + session, parts[0], Told((), sequence_in(words), mask)


def _words(stem: str) -> list[str]:
    """Words between underscores and blanks; those with dashes or dots in one piece, unless a part of them is known."""
    words: list[str] = []
    for word in re.split(r"[_\s]+", stem):
        parts = [part for part in re.split(r"[-.]+", word) if part]
        words += parts if any(_is_known(part.lower()) for part in parts) else [word] if word else []
    return words


def _is_known(word: str) -> bool:
    lists = (MASK_WORD, FILLER_WORD, FAT_WORD, CONTRAST_WORD, PHASE, B_VALUE)
    return any(words.fullmatch(word) for words in lists) or any(re.fullmatch(pattern, word) for pattern, _ in SEQUENCES)
