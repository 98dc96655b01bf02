"""Where an image lies: a file, a folder, or either of them inside a zip archive."""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from features.imaging.acquisition import sidecars_of
from features.imaging.errors import ImageError

LARGEST_ARCHIVE = 8 * 2**30  # bytes when unpacked: several hundred times a series
HARMLESS_ARCHIVE = 2**28  # below it, how well an archive is packed does not matter
DENSEST = 200  # times: images pack 2 to 20 times, an archive made to fill a disk 1000 times
CHUNK = 2**20
DATA_FILE = re.compile(rb"^(?:data ?file:|ElementDataFile\s*=)[ \t]*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)
DETACHED = (".nhdr", ".mhd")


@dataclass(frozen=True)
class Place:
    """What a path of a manifest means.

    Attributes
    ----------
    path : Path
        File, folder or archive on disk.
    inside : str or None
        File or folder inside the archive; ``""`` is all of it, None that it is no archive.
    series : int or None
        Number of the DICOM series that is meant, where there are several.
    """

    path: Path
    inside: str | None = None
    series: int | None = None


def find_place(path: Path, shown: str) -> Place:
    """Find what ``FILE``, ``FOLDER``, ``FOLDER#SERIES``, ``study.zip`` or ``study.zip/RELATIVE/PATH`` means.

    Raises
    ------
    ImageError
        Nothing is there.
    """
    if path.exists():
        return Place(path, "" if _is_archive(path) else None)
    named, _, number = path.name.rpartition("#")
    if named and number.isdecimal():
        found = find_place(path.with_name(named), shown)
        return Place(found.path, found.inside, int(number))
    for parent in path.parents:
        if _is_archive(parent):
            return Place(parent, path.relative_to(parent).as_posix())
    raise ImageError(f"{shown} is not there; check the path, which is relative to the manifest.", file=shown)


@contextmanager
def opened(path: Path, shown: str) -> Iterator[Place]:
    """Give a file or folder on disk, unpacked from its archive for as long as it is needed.

    Yields
    ------
    Place
        Without an archive.

    Raises
    ------
    ImageError
        Nothing is there, or the archive is damaged, encrypted, too large, or leads out of itself.
    """
    place = find_place(path, shown)
    if place.inside is None:
        yield place
        return
    with TemporaryDirectory(prefix="hypoxia-") as folder:
        _unpack(place, Path(folder), shown)
        yield Place(Path(folder) / place.inside, series=place.series)


def digest_of(path: Path, shown: str) -> str:
    """SHA-256 of what is at a path: of a file's bytes, or of all files in a folder or archive whatever they are called."""
    place = find_place(path, shown)
    if place.inside is not None:
        with _archive(place.path, shown) as archive:
            members = _members(archive, place.inside, shown)
            return _joined(_hashed((archive.open(member) for member in members), shown))
    if place.path.is_dir():
        files = sorted(file for file in place.path.rglob("*") if file.is_file())
        return _joined(_hashed((file.open("rb") for file in files), shown))
    parts = [place.path, *data_files(place.path, shown), *(side for side in sidecars_of(place.path) if side.is_file())]
    digests = _hashed((part.open("rb") for part in parts), shown)
    return digests[0] if len(digests) == 1 else _joined(digests)


def data_files(path: Path, shown: str) -> list[Path]:
    """Files in which a detached header (``.nhdr``, ``.mhd``) keeps its voxels.

    Raises
    ------
    ImageError
        There are several, or it is not there.
    """
    if path.suffix.lower() not in DETACHED:
        return []
    found = DATA_FILE.search(_start_of(path, shown))
    name = found[1].decode("utf-8", "replace") if found else "LOCAL"
    if name == "LOCAL":
        return []
    if "%" in name or name.split()[0] == "LIST":
        raise ImageError(f"{shown} keeps its voxels in several files; save it as one (.nrrd or .mha).", file=shown)
    if not (path.parent / name).is_file():
        raise ImageError(f"{shown} keeps its voxels in {name}, which is not beside it; copy both.", file=shown)
    return [path.parent / name]


def _start_of(path: Path, shown: str) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(CHUNK)
    except OSError as cause:
        raise unreadable(shown, cause) from cause


def unreadable(shown: str, cause: OSError) -> ImageError:
    """The error for a file that the system does not give."""
    return ImageError(f"{shown} cannot be opened ({cause.strerror or type(cause).__name__}); check the file.", file=shown)


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and path.is_file()


@contextmanager
def _archive(path: Path, shown: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as cause:
        raise ImageError(f"{shown} is no archive that can be unpacked ({cause}); pack it again.", file=shown) from cause
    except OSError as cause:
        raise unreadable(shown, cause) from cause


def _members(archive: zipfile.ZipFile, inside: str, shown: str) -> list[zipfile.ZipInfo]:
    files = [member for member in archive.infolist() if not member.is_dir()]
    _refuse_unsafe(archive, files, shown)
    if inside:
        sides = {inside, *(side.as_posix() for side in sidecars_of(Path(inside)))}
        files = [member for member in files if member.filename in sides or member.filename.startswith(f"{inside}/")]
    files = [member for member in files if not member.filename.startswith("__MACOSX/")]
    if not files:
        raise ImageError(f"{shown} is not there; the archive holds nothing of that name.", file=shown)
    return files


def _refuse_unsafe(archive: zipfile.ZipFile, files: list[zipfile.ZipInfo], shown: str) -> None:
    unpacked, packed = sum(member.file_size for member in files), sum(member.compress_size for member in files)
    if unpacked > LARGEST_ARCHIVE or unpacked > max(HARMLESS_ARCHIVE, DENSEST * packed):
        raise ImageError(f"{shown} would unpack to {unpacked / 2**30:.1f} GiB; unpack what is needed, and name that.", file=shown)
    if any(_leads_out(member.filename) for member in files):
        raise ImageError(f"{shown} holds a path that leads out of the archive; it was not unpacked.", file=shown)
    if any(member.flag_bits & 1 for member in files):
        raise ImageError(f"{shown} is encrypted; unpack it, and name the folder.", file=shown)


def _leads_out(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/"))
    return parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]


def _unpack(place: Place, folder: Path, shown: str) -> None:
    with _archive(place.path, shown) as archive:
        for member in _members(archive, place.inside or "", shown):
            archive.extract(member, folder)


def _hashed(streams: Iterable[IO[bytes]], shown: str) -> list[str]:
    digests = []
    try:
        for stream in streams:
            with stream:
                digests.append(hashlib.file_digest(stream, "sha256").hexdigest())  # type: ignore[arg-type]
    except OSError as cause:
        raise unreadable(shown, cause) from cause
    return digests


def _joined(digests: list[str]) -> str:
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()
