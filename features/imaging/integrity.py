"""Whether an image file is whole: ITK reads some that were cut short without a word, and fills the rest with zeros.

In a NIfTI file it also reads what is no number as a zero.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from features.imaging.archive import data_files, unreadable
from features.imaging.errors import ImageError

CHUNK = 2**16  # bytes; a thousand times that at most when unpacked
GZIP = b"\x1f\x8b"
NIFTI_HEADERS = {348: ("h", 40, 72, 108, "f"), 540: ("q", 16, 12, 168, "q")}  # kind, offsets of dim, bitpix, vox_offset; its kind
NIFTI_TYPES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304)
FARTHEST_START = 2**40  # bytes
NIFTI_REALS = {16: "f4", 64: "f8"}
META_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
META_LINE = re.compile(rb"^(\w+)\s*=\s*(.*?)\s*$", re.MULTILINE)

Stream = IO[bytes] | gzip.GzipFile


class _CutError(Exception):
    """Fewer bytes than the header says, or bytes that were changed."""


def check_whole(path: Path, shown: str) -> None:
    """Refuse an image file that is empty, was cut short or fails its own checksum.

    Raises
    ------
    ImageError
        With the reason.
    """
    try:
        if path.stat().st_size == 0:
            raise ImageError(f"{shown} is empty (0 bytes); copy it again from its source.", file=shown)
        _check(path, shown)
    except (_CutError, EOFError, zlib.error, gzip.BadGzipFile) as cause:
        raise ImageError(f"{shown} is damaged or was cut short; copy it again from its source.", file=shown) from cause
    except OSError as cause:
        raise unreadable(shown, cause) from cause


def _check(path: Path, shown: str) -> None:
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        with path.open("rb") as stream:
            packed = stream.read(2) == GZIP
        with gzip.open(path) if packed else path.open("rb") as stream:
            _check_nifti(stream, shown)
    elif name.endswith((".nrrd", ".nhdr")):
        _check_nrrd(path, shown)
    elif name.endswith((".mha", ".mhd")):
        _check_meta(path, shown)


def _check_nifti(stream: Stream, shown: str) -> None:
    start, needed, real = _nifti_layout(stream.read(544))
    stream.seek(int(start))
    there, strange = int(start), 0
    while chunk := stream.read(CHUNK):
        there += len(chunk)
        if real is not None:
            values = np.frombuffer(chunk, dtype=real, count=len(chunk) // real.itemsize)
            strange += values.size - int(np.isfinite(values).sum())
    if there < needed:
        raise _CutError(f"{there} bytes of {needed}")
    if strange:
        raise ImageError(
            f"{shown} has {strange} voxels that are no finite number, which filters and means would spread; "
            "write the image with numbers everywhere.",
            file=shown,
        )


def _nifti_layout(header: bytes) -> tuple[float, float, np.dtype | None]:
    """First byte of the voxels, bytes of the whole file, and type of the voxels where it can hold what is no number."""
    for order in "<>":
        length = struct.unpack_from(f"{order}i", header)[0] if len(header) >= 348 else 0
        if length in NIFTI_HEADERS and len(header) >= length:
            kind, dim, bits, offset, real = NIFTI_HEADERS[length]
            axes, *sizes = struct.unpack_from(f"{order}8{kind}", header, dim)
            code, width = struct.unpack_from(f"{order}2h", header, bits - 2)
            start = struct.unpack_from(f"{order}{real}", header, offset)[0]
            if not 1 <= axes <= 7 or code not in NIFTI_TYPES or not 0 <= start < FARTHEST_START:
                raise _CutError("sizes, type or start of the voxels are not there")
            real_type = np.dtype(f"{order}{NIFTI_REALS[code]}") if code in NIFTI_REALS else None
            return start, start + math.prod(max(size, 1) for size in sizes[:axes]) * width / 8, real_type
    return 0.0, 0.0, None  # no NIfTI: what it is instead, ITK finds out


def _check_nrrd(path: Path, shown: str) -> None:
    with path.open("rb") as stream:
        header = bytearray()
        for line in stream:
            if not line.strip() or len(header) > CHUNK:
                break
            header += line
        if not re.search(rb"^encoding:\s*(gzip|gz)\s*$", bytes(header), re.MULTILINE | re.IGNORECASE):
            return  # of uncompressed voxels, ITK itself counts the bytes
        detached = data_files(path, shown)
        if not detached:
            _drain(gzip.GzipFile(fileobj=stream))
    for file in detached:
        with gzip.open(file) as stream:
            _drain(stream)


def _check_meta(path: Path, shown: str) -> None:
    with path.open("rb") as stream:
        start = stream.read(CHUNK)
        end = re.search(rb"^ElementDataFile\s*=.*\n", start, re.MULTILINE)
        if end is None:
            raise _CutError("no end of the header")
        header = {key.decode().lower(): value.decode("latin-1") for key, value in META_LINE.findall(start[: end.start()])}
        needed = _meta_bytes(header)
        beside = data_files(path, shown)
        stream.seek(end.end())
        there = _count_meta(stream, header) if not beside else 0
    for file in beside:
        with file.open("rb") as stream:
            there += _count_meta(stream, header)
    if there < needed:
        raise _CutError(f"{there} bytes of {needed}")


def _meta_bytes(header: dict[str, str]) -> int:
    sizes = header.get("dimsize", "").split()
    width = META_BYTES.get(header.get("elementtype", "").removeprefix("MET_").removeprefix("U"))
    channels = header.get("elementnumberofchannels", "1")
    if width is None or not all(word.isdecimal() for word in (*sizes, channels)) or str(len(sizes)) != header.get("ndims"):
        raise _CutError("sizes and type are not there")
    return math.prod(int(size) for size in sizes) * width * int(channels)


def _count_meta(stream: Stream, header: dict[str, str]) -> int:
    return _inflated(stream) if header.get("compresseddata", "").lower() == "true" else _drain(stream)


def _inflated(stream: Stream) -> int:
    inflater, there = zlib.decompressobj(), 0
    while not inflater.eof and (chunk := stream.read(CHUNK)):
        there += len(inflater.decompress(chunk))
    if not inflater.eof:
        raise _CutError("the compressed voxels do not end")
    return there


def _drain(stream: Stream) -> int:
    there = 0
    while chunk := stream.read(CHUNK):
        there += len(chunk)
    return there
