"""Public expression data brought to a folder: series of GEO, and datasets that refine.bio has made.

A file appears under its name only when it is whole, and a transfer that was cut short is resumed. The SHA-256 of the first
download is kept beside the file and looked at ever after, so that nobody takes a file that has changed since for what it was.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from ipaddress import ip_address
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from features.errors import InputError
from features.files import write_whole

GEO = "https://ftp.ncbi.nlm.nih.gov/geo"
REFINEBIO = "https://api.refine.bio/v1"
# refine.bio gives the address of a dataset to who has agreed to its terms, by a token: https://api.refine.bio.
TOKEN = "REFINEBIO_TOKEN"  # noqa: S105 - the name of a variable
TIMEOUT_S = 60.0
CHUNK = 1 << 20
LARGEST_ANSWER = 1 << 24

SERIES = re.compile(r"GSE\d{1,9}", re.IGNORECASE)
DATASET = re.compile(r"refinebio:([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)

Told = Callable[[str, int, int | None], None]


class NotThereError(InputError):
    """The server has no such file."""


class _NothingMoreError(InputError):
    """The server has nothing from there on."""


@dataclass(frozen=True)
class Fetched:
    """A file that is there, whole and as it was first downloaded.

    Parameters
    ----------
    sha256 : str
        Of its content, as recorded beside it.
    fresh : bool
        Whether it was downloaded now.
    """

    path: Path
    sha256: str
    fresh: bool


@dataclass(frozen=True)
class Transfer:
    """How to download.

    Parameters
    ----------
    timeout_s : float
        Longest silence of the server.
    told : callable
        Called with the name of the file, the bytes that are there, and how many there will be (None: not known).
    headers : mapping of str to str
        Sent with questions to the first address, and to no other.
    """

    timeout_s: float = TIMEOUT_S
    told: Told = lambda name, done, total: None
    headers: Mapping[str, str] = field(default_factory=dict)


def fetch(
    what: str,
    folder: Path,
    *,
    platform: bool = False,
    sha256: str | None = None,
    base_url: str | None = None,
    transfer: Transfer | None = None,
) -> tuple[Fetched, ...]:
    """Download what is named into a folder.

    Parameters
    ----------
    what : str
        Accession of a series (``GSE146114``): its series matrix, or one per platform. Or ``refinebio:<dataset id>``: the
        archive that refine.bio made of the dataset.
    folder : Path
        Made where it is not there.
    platform : bool
        Of a series: also the tables that say of which genes its probes are; GEO's annotation of the platform, else the
        series' SOFT file, which holds the submitter's.
    sha256 : str, optional
        What the only file must have.
    base_url : str, optional
        In place of GEO's or refine.bio's own.

    Raises
    ------
    InputError
        It is not there, no server answers, a transfer is cut short, or a checksum differs.
    """
    using = transfer or Transfer()
    if DATASET.fullmatch(what):
        found = DATASET.fullmatch(what)
        return (_fetch_dataset(str(found and found[1]).lower(), folder, sha256, base_url or REFINEBIO, using),)
    if SERIES.fullmatch(what):
        return _fetch_series(what.upper(), folder, platform, sha256, (base_url or GEO).rstrip("/"), using)
    raise InputError(
        f"{what!r} cannot be fetched; name a series of GEO (GSE146114), or a dataset of refine.bio (refinebio:<dataset id>), "
        "which is made on https://www.refine.bio from a series."
    )


def _fetch_series(
    series: str, folder: Path, platform: bool, sha256: str | None, base: str, using: Transfer
) -> tuple[Fetched, ...]:
    place = f"{base}/series/{_shelf(series)}/{series}"
    listing = _answer(f"{place}/matrix/", using).decode("utf-8", "replace")
    names = sorted(set(re.findall(rf"{series}(?:-GPL\d+)?_series_matrix\.txt\.gz", listing)))
    if not names:
        raise InputError(f"GEO has no series matrix of {series} at {place}/matrix/; take its supplementary files by hand.")
    if sha256 is not None and len(names) > 1:
        raise InputError(f"{series} has {len(names)} series matrices ({', '.join(names)}); a checksum can be given for one only.")
    found = [download(f"{place}/matrix/{name}", folder / name, using, {"sha256": sha256} if sha256 else {}) for name in names]
    if platform:
        platforms = sorted({name for one in found for name in platforms_of(one.path)})
        found += [_fetch_platform(name, series, folder, base, using) for name in platforms]
    return tuple({one.path: one for one in reversed(found)}.values())[::-1]


def _fetch_platform(platform: str, series: str, folder: Path, base: str, using: Transfer) -> Fetched:
    name = f"{platform}.annot.gz"
    try:
        return download(f"{base}/platforms/{_shelf(platform)}/{platform}/annot/{name}", folder / name, using)
    except NotThereError:  # GEO annotates the common platforms only
        name = f"{series}_family.soft.gz"
        return download(f"{base}/series/{_shelf(series)}/{series}/soft/{name}", folder / name, using)


def _shelf(accession: str) -> str:
    """GEO's folder of a thousand accessions.

    Examples
    --------
    >>> _shelf("GSE146114"), _shelf("GPL96")
    ('GSE146nnn', 'GPLnnn')
    """
    return re.sub(r"\d{1,3}$", "nnn", accession)


def platforms_of(matrix: Path) -> tuple[str, ...]:
    """Accessions of the platforms that a series matrix file names."""
    found: set[str] = set()
    with gzip.open(matrix, "rt", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("!series_matrix_table_begin"):
                break
            if line.startswith(("!Series_platform_id", "!Sample_platform_id")):
                found |= set(re.findall(r"GPL\d+", line))
    return tuple(sorted(found))


def _fetch_dataset(dataset: str, folder: Path, sha256: str | None, base: str, using: Transfer) -> Fetched:
    target = folder / f"refinebio-{dataset}.zip"
    if target.exists():
        return _as_recorded(target, {"sha256": sha256} if sha256 else {})
    token = os.environ.get(TOKEN)
    asking = Transfer(using.timeout_s, using.told, {"API-KEY": token} if token else {})
    address = f"{base.rstrip('/')}/dataset/{quote(dataset)}/"
    try:
        told: dict[str, Any] = json.loads(_answer(address, asking))
    except ValueError as cause:
        raise InputError(f"{address} did not answer as refine.bio does; check the address.") from cause
    if not told.get("is_processed"):
        raise InputError(f"refine.bio has not made dataset {dataset} (yet); start it on https://www.refine.bio, or wait.")
    if not told.get("download_url"):
        raise InputError(
            f"refine.bio does not say where dataset {dataset} is; set {TOKEN} to a token of yours that is activated, or make the "
            "dataset again if it has expired."
        )
    digests = {name: str(value) for name, value in (("sha256", sha256), ("sha1", told.get("sha1"))) if value}
    return download(str(told["download_url"]), target, Transfer(using.timeout_s, using.told), digests)


def download(url: str, target: Path, using: Transfer | None = None, digests: Mapping[str, str] | None = None) -> Fetched:
    """Download one file, or see that the one that is there is as it was.

    Parameters
    ----------
    url : str
        https, or http of this machine.
    digests : mapping of str to str, optional
        Name of a hash function (``sha256``) to the hexadecimal digest that the file must have.

    Raises
    ------
    NotThereError
        The server has no such file.
    InputError
        No answer, a transfer cut short (what came stays, and is resumed), a checksum that differs, or a folder not writable.
    """
    wanted = {name: digest.lower() for name, digest in (digests or {}).items()}
    if target.exists():
        return _as_recorded(target, wanted)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = _transferred(url, target, using or Transfer())
        for name, digest in wanted.items():
            if _digest(part, name) != digest:
                part.unlink()
                raise InputError(
                    f"{target.name} from {_shown(url)} does not have the {name} that was expected; nothing was kept."
                )
        found = _digest(part, "sha256")
        write_whole(_record(target), f"{found}  {target.name}\n")
        part.replace(target)
    except OSError as cause:
        raise InputError(f"{target} cannot be written ({cause.strerror or cause}); name a folder that is yours.") from cause
    return Fetched(target, found, fresh=True)


def _as_recorded(target: Path, wanted: Mapping[str, str]) -> Fetched:
    """What is there already, if it is what it must be."""
    record = _record(target)
    recorded = record.read_text(encoding="utf-8").split()[:1] if record.is_file() else []
    expected = {**({"sha256": recorded[0]} if recorded else {}), **wanted}
    if not expected:
        raise InputError(f"{target} is there, and not by a download of this command; move it away, or give its --sha256.")
    for name, digest in expected.items():
        if _digest(target, name) != digest:
            raise InputError(f"{target} is not as it was downloaded (its {name} differs); move it away to download it again.")
    return Fetched(target, _digest(target, "sha256"), fresh=False)


def _record(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, name).hexdigest()


# A transfer --------------------------------------------------------------------------------------------------------------


def _transferred(url: str, target: Path, using: Transfer) -> Path:
    """The whole content beside its place, going on from what an earlier transfer left."""
    part, mark = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.from")
    there = part.stat().st_size if part.is_file() and mark.is_file() else 0
    # Go on only with the same content: If-Range makes the server send the whole where it has changed.
    asked = {"Range": f"bytes={there}-", "If-Range": mark.read_text(encoding="utf-8")} if there else {}
    try:
        answer = _asked(url, using, asked)
    except _NothingMoreError:  # what is there is whole, or more than whole: begin again
        if not there:
            raise
        mark.unlink()
        return _transferred(url, target, using)
    with answer:
        if answer.status == 206 and _begins(answer) != there:
            raise InputError(f"{_shown(url)} did not go on where the transfer ended; remove {part} and try again.")
        done = there if answer.status == 206 else 0
        total = _length(answer, done)
        _leave_mark(mark, answer)
        with part.open("r+b" if done else "wb") as file:
            file.seek(done)
            done = _copied(answer, file, using, target.name, done, total, url)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done != total:
        raise InputError(f"The transfer of {target.name} ended at {done} of {total} bytes; run the command again to go on.")
    mark.unlink(missing_ok=True)
    return part


def _copied(answer: HTTPResponse, file: IO[bytes], using: Transfer, name: str, done: int, total: int | None, url: str) -> int:
    while chunk := _next(answer, url):
        file.write(chunk)
        done += len(chunk)
        using.told(name, done, total)
    return done


def _next(answer: HTTPResponse, url: str) -> bytes:
    try:
        return answer.read(CHUNK)
    except (OSError, HTTPException) as cause:
        raise InputError(
            f"The transfer from {_shown(url)} broke off ({type(cause).__name__}); run the command again to go on."
        ) from cause


def _length(answer: HTTPResponse, done: int) -> int | None:
    length = answer.headers.get("Content-Length")
    return done + int(length) if length is not None and length.isdigit() else None


def _begins(answer: HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _leave_mark(mark: Path, answer: HTTPResponse) -> None:
    """What the server calls this content, without which a transfer cannot be resumed."""
    tag = answer.headers.get("ETag", "")
    name = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")
    if name:
        mark.write_text(name, encoding="utf-8")
    else:
        mark.unlink(missing_ok=True)


def _answer(url: str, using: Transfer) -> bytes:
    with _asked(url, using, {}) as answer:
        content = b""
        while len(content) < LARGEST_ANSWER and (chunk := _next(answer, url)):
            content += chunk
        return content


def _asked(url: str, using: Transfer, headers: Mapping[str, str]) -> HTTPResponse:
    _refuse_unsafe(url)
    sent = {"User-Agent": "hypoxia-biomarkers", "Accept-Encoding": "identity", **headers}
    request = Request(url, headers=sent)  # noqa: S310 - refused above if it is neither https nor this machine
    for name, value in using.headers.items():
        request.add_unredirected_header(name, value)
    try:
        answer: HTTPResponse = build_opener(_SafeRedirects()).open(request, timeout=using.timeout_s)
    except HTTPError as cause:
        cause.close()
        raise _refusal(url, cause.code) from cause
    except (OSError, HTTPException) as cause:  # URLError is an OSError
        reason = getattr(cause, "reason", None) or cause
        raise InputError(
            f"{_shown(url)} cannot be reached ({reason}); check the network, or download the file elsewhere and bring it here."
        ) from cause
    return answer


def _refusal(url: str, code: int) -> InputError:
    if code in (404, 410):
        return NotThereError(f"{_shown(url)} is not there (HTTP {code}); check the accession, and that it is public.")
    if 300 <= code < 400:
        return InputError(f"{_shown(url)} leads to an address that is not fetched (HTTP {code}); give another --base-url.")
    if code == 416:
        return _NothingMoreError(f"{_shown(url)} has no more than what is there; remove the .part file.")
    return InputError(f"{_shown(url)} was refused by the server (HTTP {code}); try again later.")


class _SafeRedirects(HTTPRedirectHandler):
    """Follows only to addresses that could have been asked for."""

    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        _refuse_unsafe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refuse_unsafe(url: str) -> None:
    parts = urlsplit(url)
    safe = _is_this_machine(parts.hostname) if parts.scheme == "http" else parts.scheme == "https" and bool(parts.hostname)
    if not safe:
        raise InputError(f"{_shown(url)} is not fetched: only https is, or http of this machine.")


def _is_this_machine(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def _shown(url: str) -> str:
    """An address without its query, which may hold a signature, nor a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
