from __future__ import annotations

import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from features.cli_fetch import fetch as command
from features.errors import InputError
from features.expression import ExpressionSource
from features.fetch import TOKEN, Fetched, NotThereError, Transfer, download, fetch, platforms_of

MATRIX = (
    '!Series_platform_id\t"GPL10558"\n!Sample_geo_accession\t"GSM1"\t"GSM2"\n!series_matrix_table_begin\n'
    '"ID_REF"\t"GSM1"\t"GSM2"\n"p1"\t7.5\t6.25\n"p2"\t8\t9\n!series_matrix_table_end\n'
)
ANNOTATION = (
    "^Annotation = GPL10558\n#ID = probe\n#Gene symbol = symbol\n!platform_table_begin\nID\tGene symbol\np1\tERO1A\np2\tHILPDA\n"
    "!platform_table_end\n"
)
PLACE = "/geo/series/GSE146nnn/GSE146114/matrix/"
NAME = "GSE146114_series_matrix.txt.gz"
DATASET = "0f7e2b1c-1234-4abc-9def-0123456789ab"


@dataclass
class Site:
    """What a server of a test holds, and how it misbehaves."""

    files: dict[str, bytes] = field(default_factory=dict)
    tag: str | None = '"one"'
    break_after: int | None = None
    redirect: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def put(self, path: str, content: bytes) -> None:
        self.files[path] = content
        folder = path.rpartition("/")[0] + "/"
        names = [name.rpartition("/")[2] for name in self.files if name.startswith(folder) and name != folder]
        self.files[folder] = "".join(f'<a href="{name}">{name}</a>' for name in names).encode()


class Handler(BaseHTTPRequestHandler):
    """Answers from `Site`: ranges with If-Range, ETag, redirects, and answers that break off."""

    site: Site

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.site.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.path in self.site.redirect:
            self.send_response(302)
            self.send_header("Location", self.site.redirect[self.path])
            self.end_headers()
        elif self.path not in self.site.files:
            self.send_error(404)
        else:
            self._send(self.site.files[self.path], self._begin())

    def _begin(self) -> int:
        asked = self.headers.get("Range", "bytes=0-")
        same = "Range" not in self.headers or self.headers.get("If-Range") == self.site.tag
        return int(asked.removeprefix("bytes=").removesuffix("-")) if same else 0

    def _send(self, content: bytes, begin: int) -> None:
        if begin and begin >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        if self.site.tag:
            self.send_header("ETag", self.site.tag)
        self.end_headers()
        self.wfile.write(content[begin : None if self.site.break_after is None else begin + self.site.break_after])


@pytest.fixture
def site() -> Iterator[Site]:
    holds = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OfThisTest", (Handler,), {"site": holds}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    holds.url = f"http://127.0.0.1:{server.server_port}"
    yield holds
    server.shutdown()
    thread.join()
    server.server_close()


def of_geo(site: Site) -> Site:
    site.put(PLACE + NAME, gzip.compress(MATRIX.encode(), mtime=0))
    return site


def get(site: Site, folder: Path, **options: Any) -> tuple[Fetched, ...]:
    return fetch("gse146114", folder, base_url=f"{site.url}/geo", **options)


def test_a_series_is_downloaded_once_and_its_checksum_kept(site: Site, tmp_path: Path) -> None:
    first = get(of_geo(site), tmp_path)
    digest = hashlib.sha256(site.files[PLACE + NAME]).hexdigest()
    assert first == (Fetched(tmp_path / NAME, digest, fresh=True),)
    assert (tmp_path / f"{NAME}.sha256").read_text() == f"{digest}  {NAME}\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == [NAME, f"{NAME}.sha256"]
    asked = len(site.asked)
    assert get(site, tmp_path) == (Fetched(tmp_path / NAME, digest, fresh=False),)
    assert [path for path, _ in site.asked[asked:]] == [PLACE]  # the listing, and not the file


def test_with_its_platform_a_fetched_series_is_a_source_of_genes(site: Site, tmp_path: Path) -> None:
    of_geo(site).put("/geo/platforms/GPL10nnn/GPL10558/annot/GPL10558.annot.gz", gzip.compress(ANNOTATION.encode()))
    found = get(site, tmp_path / "new", platform=True)
    assert [one.path.name for one in found] == [NAME, "GPL10558.annot.gz"]
    frame = ExpressionSource(path=NAME, platform="GPL10558.annot.gz").read(tmp_path / "new")
    assert frame[["ERO1A", "HILPDA"]].to_dict("list") == {"ERO1A": [7.5, 6.25], "HILPDA": [8, 9]}


def test_without_an_annotation_of_geo_the_series_own_soft_file_is_taken(site: Site, tmp_path: Path) -> None:
    of_geo(site).put("/geo/series/GSE146nnn/GSE146114/soft/GSE146114_family.soft.gz", gzip.compress(b"^SERIES = GSE146114\n"))
    assert [one.path.name for one in get(site, tmp_path, platform=True)] == [NAME, "GSE146114_family.soft.gz"]


def test_a_series_on_two_platforms_has_two_matrices(site: Site, tmp_path: Path) -> None:
    names = [f"GSE146114-GPL{number}_series_matrix.txt.gz" for number in (10558, 6884)]
    for name in names:
        site.put(PLACE + name, gzip.compress(MATRIX.encode()))
    assert [one.path.name for one in get(site, tmp_path)] == names
    with pytest.raises(InputError, match="for one only"):
        get(site, tmp_path, sha256="0" * 64)


def test_a_transfer_that_broke_off_is_resumed(site: Site, tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    site.put("/file.bin", content)
    site.break_after = 700_000
    with pytest.raises(InputError, match="run the command again to go on"):
        download(f"{site.url}/file.bin", tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()
    there = (tmp_path / "file.bin.part").stat().st_size
    assert 0 < there <= 700_000
    site.break_after = None
    told: list[tuple[str, int, int | None]] = []
    download(f"{site.url}/file.bin", tmp_path / "file.bin", Transfer(told=lambda *one: told.append(one)))
    assert (tmp_path / "file.bin").read_bytes() == content
    assert site.asked[-1][1]["range"] == f"bytes={there}-"
    assert told[-1] == ("file.bin", len(content), len(content))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file.bin", "file.bin.sha256"]


def test_what_has_changed_on_the_server_is_not_joined_to_what_came_before(site: Site, tmp_path: Path) -> None:
    site.put("/file.bin", b"old" * 400_000)
    site.break_after = 500_000
    with pytest.raises(InputError, match="go on"):
        download(f"{site.url}/file.bin", tmp_path / "file.bin")
    site.put("/file.bin", b"new" * 400_000)
    site.tag, site.break_after = '"two"', None
    download(f"{site.url}/file.bin", tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == b"new" * 400_000


def test_without_a_name_for_its_content_a_server_is_asked_for_the_whole_again(site: Site, tmp_path: Path) -> None:
    site.put("/file.bin", b"x" * 1_000_000)
    site.tag, site.break_after = None, 500_000
    with pytest.raises(InputError, match="go on"):
        download(f"{site.url}/file.bin", tmp_path / "file.bin")
    site.break_after = None
    download(f"{site.url}/file.bin", tmp_path / "file.bin")
    assert "range" not in site.asked[-1][1]
    assert (tmp_path / "file.bin").read_bytes() == b"x" * 1_000_000


def test_a_whole_part_that_was_never_renamed_is_downloaded_again(site: Site, tmp_path: Path) -> None:
    site.put("/file.bin", b"content")
    (tmp_path / "file.bin.part").write_bytes(b"content")
    (tmp_path / "file.bin.part.from").write_text('"one"')
    download(f"{site.url}/file.bin", tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == b"content"


@pytest.mark.parametrize("name", ["sha256", "sha1"])
def test_a_file_with_another_checksum_is_not_kept(site: Site, tmp_path: Path, name: str) -> None:
    site.put("/file.bin", b"content")
    wrong = hashlib.new(name, b"other").hexdigest()
    with pytest.raises(InputError, match=f"does not have the {name}"):
        download(f"{site.url}/file.bin", tmp_path / "file.bin", digests={name: wrong})
    assert [file.name for file in tmp_path.iterdir() if not file.name.startswith(".")] == []
    right = hashlib.new(name, b"content").hexdigest()
    assert download(f"{site.url}/file.bin", tmp_path / "file.bin", digests={name: right.upper()}).fresh


def test_a_file_that_changed_since_it_was_downloaded_is_noticed(site: Site, tmp_path: Path) -> None:
    get(of_geo(site), tmp_path)
    (tmp_path / NAME).write_bytes(b"other")
    with pytest.raises(InputError, match="is not as it was downloaded"):
        get(site, tmp_path)


def test_a_file_of_unknown_origin_is_not_taken_for_a_download(site: Site, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"mine")
    with pytest.raises(InputError, match="not by a download of this command"):
        get(of_geo(site), tmp_path)
    assert not get(site, tmp_path, sha256=hashlib.sha256(b"mine").hexdigest())[0].fresh


def test_what_is_not_there_and_who_does_not_answer_is_said_in_a_sentence(site: Site, tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match=r"GSE999/matrix/ is not there \(HTTP 404\)"):
        fetch("GSE999", tmp_path, base_url=site.url)
    with pytest.raises(InputError, match="cannot be reached"):
        fetch("GSE999", tmp_path, base_url="http://127.0.0.1:9")
    site.files[PLACE] = b"<html>empty</html>"
    with pytest.raises(InputError, match="no series matrix of GSE146114"):
        get(site, tmp_path)
    with pytest.raises(InputError, match="name a series of GEO"):
        fetch("refinebio:GSE146114", tmp_path)


@pytest.mark.parametrize("url", ["http://example.org/x", "ftp://ftp.ncbi.nlm.nih.gov/x", "file:///etc/hosts", "https:///x"])
def test_only_https_and_this_machine_are_asked(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="is not fetched"):
        download(url, tmp_path / "x")


@pytest.mark.parametrize("to", ["file:///etc/hosts", "ftp://example.org/x", "http://example.org/x"])
def test_a_redirect_to_what_could_not_be_asked_is_not_followed(site: Site, tmp_path: Path, to: str) -> None:
    site.redirect["/x"] = to
    with pytest.raises(InputError, match="is not fetched"):
        download(f"{site.url}/x", tmp_path / "x")


def of_refinebio(site: Site, content: bytes, **told: object) -> Site:
    site.put("/bucket/data.zip?signature=secret", content)
    body = {
        "id": DATASET,
        "is_processed": True,
        "download_url": f"{site.url}/bucket/data.zip?signature=secret",
        "sha1": hashlib.sha1(content).hexdigest(),
        **told,
    }
    site.files[f"/v1/dataset/{DATASET}/"] = json.dumps(body).encode()
    return site


def test_a_dataset_of_refinebio_is_downloaded_with_the_users_token(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "a-token")
    of_refinebio(site, b"PK zipped")
    (found,) = fetch(f"refinebio:{DATASET}", tmp_path, base_url=f"{site.url}/v1")
    assert found.path == tmp_path / f"refinebio-{DATASET}.zip"
    assert found.path.read_bytes() == b"PK zipped"
    tokens = [headers.get("api-key") for _, headers in site.asked]
    assert tokens == ["a-token", None]  # refine.bio's own, and not where the archive lies
    assert not fetch(f"refinebio:{DATASET}", tmp_path, base_url=f"{site.url}/v1")[0].fresh
    assert len(site.asked) == 2


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"is_processed": False}, "has not made dataset"),
        ({"download_url": None}, f"set {TOKEN}"),
        ({"sha1": "0" * 40}, "does not have the sha1"),
    ],
)
def test_a_dataset_that_cannot_be_had_is_refused_in_a_sentence(
    site: Site, tmp_path: Path, told: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError, match=words) as error:
        fetch(f"refinebio:{DATASET}", tmp_path, base_url=f"{of_refinebio(site, b'zip', **told).url}/v1")
    assert "secret" not in str(error.value)


def test_an_answer_that_is_not_refinebios_is_refused(site: Site, tmp_path: Path) -> None:
    site.files[f"/v1/dataset/{DATASET}/"] = b"<html>"
    with pytest.raises(InputError, match="did not answer as refine"):
        fetch(f"refinebio:{DATASET}", tmp_path, base_url=f"{site.url}/v1")


def test_the_command_says_where_the_files_are(site: Site, tmp_path: Path) -> None:
    of_geo(site)
    result = CliRunner().invoke(
        command, ["gse146114", "--output", str(tmp_path), "--base-url", f"{site.url}/geo", "--json"], catch_exceptions=False
    )
    (told,) = json.loads(result.stdout)["files"]
    assert told == {"path": str(tmp_path / NAME), "sha256": hashlib.sha256(site.files[PLACE + NAME]).hexdigest(), "fresh": True}
    assert "downloaded" in result.stderr
    assert "100%" in result.stderr


def test_the_platforms_of_a_matrix_are_read_from_its_head(tmp_path: Path) -> None:
    (tmp_path / "m.gz").write_bytes(gzip.compress(MATRIX.encode()))
    assert platforms_of(tmp_path / "m.gz") == ("GPL10558",)


@given(st.text(max_size=30))
def test_no_other_word_is_fetched(word: str) -> None:
    if not word.upper().startswith("GSE"):
        with pytest.raises(InputError, match="cannot be fetched"):
            fetch(word, Path("nowhere"))
