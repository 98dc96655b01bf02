"""The files of the page, read as a strict reviewer would; what they do is tested in a browser (tests/end_to_end)."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import PurePosixPath

import pytest

from serving.app import create_app
from serving.edge import Edge, EdgeSettings
from serving.page import HEADERS, PATHS, POLICY, page_files
from serving.predictor import Predictor
from tests.serving.conftest import Client

FILES = page_files()
SCRIPTS = {path: file.body.decode() for path, file in FILES.items() if path.endswith(".js")}
HTML = FILES["/"].body.decode()
CSS = FILES["/page/page.css"].body.decode()


@pytest.fixture(scope="module")
def edged(predictor: Predictor) -> Client:
    return Client(Edge(create_app({predictor.loaded.name: predictor}), EdgeSettings()))


@pytest.mark.parametrize("path", PATHS)
def test_a_file_is_given_as_what_it_is_and_never_kept(client: Client, path: str) -> None:
    answer = client.ask("GET", path)
    assert answer.status_code == 200
    kind = {"": "text/html", ".css": "text/css", ".js": "text/javascript"}[PurePosixPath(path).suffix]
    assert answer.headers["content-type"] == f"{kind}; charset=utf-8"
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert answer.content == FILES[path].body
    assert client.ask("HEAD", path).headers["content-length"] == str(len(answer.content))
    assert client.ask("POST", path).status_code == 405


def test_the_policy_is_that_of_the_edge_and_is_said_once(edged: Client) -> None:
    answer = edged.ask("GET", "/", headers={"host": "127.0.0.1"})
    assert answer.status_code == 200
    assert answer.headers.get_list("content-security-policy") == [POLICY]
    assert "unsafe" not in POLICY
    assert POLICY.startswith("default-src 'none'")


def test_every_file_of_the_folder_is_given_and_nothing_beside_it(client: Client) -> None:
    assert {entry.name for entry in (files("serving") / "page").iterdir()} == set(PATHS.values())
    for path in ("/page/", "/page/page.py", "/page/../page.py", "/page/%2e%2e/page.py", "/index.html"):
        assert client.ask("GET", path).status_code == 404


def test_the_page_is_not_in_the_document_of_the_routes(client: Client) -> None:
    assert not {path for path in client.ask("GET", "/openapi.json").json()["paths"] if path == "/" or path.startswith("/page")}


def test_nothing_is_asked_of_another_host() -> None:
    for path, file in FILES.items():
        text = file.body.decode().replace("http://www.w3.org/2000/svg", "")  # a name, never an address
        assert not re.findall(r"(?:https?|wss?|ftp)://|[\"'(`]//|@import|url\(", text), path


def test_there_is_no_script_style_or_handler_in_the_markup() -> None:
    assert not re.findall(r"<style|\sstyle=|\son[a-z]+=|javascript:", HTML)
    assert re.findall(r"<script\b[^>]*>(.*?)</script>", HTML, flags=re.DOTALL) == [""]


@pytest.mark.parametrize("path", SCRIPTS)
def test_text_can_not_become_markup_or_code_and_nothing_is_stored(path: str) -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|setHTML|createContextualFragment|srcdoc|\beval\b|Function\("
        r"|localStorage|sessionStorage|indexedDB|document\.cookie|\bcaches\b|serviceWorker|sendBeacon|WebSocket|EventSource"
        r"|XMLHttpRequest|location\.(?:hash|search|href)|pushState|replaceState|console\."
    )
    assert not re.findall(forbidden, SCRIPTS[path])


def test_everything_that_the_script_looks_for_is_in_the_markup() -> None:
    asked = set(re.findall(r'\$\("([a-z-]+)"\)', SCRIPTS["/page/page.js"]))
    there = re.findall(r'\sid="([a-z-]+)"', HTML)
    assert len(asked) > 20
    assert asked <= set(there)
    assert len(there) == len(set(there))


def test_every_control_has_a_name() -> None:
    labelled = set(re.findall(r'<label for="([a-z-]+)"', HTML))
    for control in re.findall(r"<(?:input|textarea)\b[^>]*>", HTML):
        named = re.search(r'id="([a-z-]+)"', control)
        assert named
        assert named[1] in labelled or "aria-label=" in control
    assert '<html lang="en">' in HTML


TEXT_ON = [
    ("ink", "surface"),
    ("ink", "ground"),
    ("ink", "sunken"),
    ("ink", "accent-wash"),
    ("soft", "surface"),
    ("soft", "ground"),
    ("soft", "sunken"),
    ("soft", "accent-wash"),
    ("accent", "surface"),
    ("accent", "accent-wash"),
    ("accent-ink", "accent"),
    ("caution-ink", "caution-ground"),
    ("caution-ink", "surface"),
    ("caution-ink", "accent-wash"),
    ("refused-ink", "refused-ground"),
    ("up-ink", "up-wash"),
]
SHAPES_ON = [("up", "surface"), ("down", "surface"), ("median", "surface"), ("focus", "surface"), ("focus", "ground")]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_marks_stand_out_from_their_ground(theme: str) -> None:
    """WCAG 2.2, 1.4.3 (4.5 for text) and 1.4.11 (3 for marks)."""
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    )
    colours = light if theme == "light" else light | dark
    for pairs, least in ((TEXT_ON, 4.5), (SHAPES_ON, 3.0)):
        for mark, ground in pairs:
            assert contrast(colours[mark], colours[ground]) >= least, (mark, ground)


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours."""
    bright, dim = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_black_on_white_has_a_contrast_of_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
