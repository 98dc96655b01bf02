"""The page at ``/`` in a real browser (Debian's Chromium, headless), on the real endpoint and on a pretended one."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from features.bundle import RESEARCH_USE_ONLY
from serving.app import create_app
from serving.edge import Edge, EdgeSettings
from serving.loader import load_registered, parse_reference
from serving.predictor import Predictor
from serving.tokens import Token, Tokens
from tests.end_to_end.pretended import Pretended, Refusal, served
from tests.serving.registered import FEATURES, NAME, register, small_bundle

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)
WITHIN_S = 60
CANARY = "canary-7c1f"
TOKEN = "a-token-of-32-characters-0123456"
DROP = """
    const transfer = new DataTransfer();
    for (const [name, text] of arguments[0]) transfer.items.add(new File([text], name, { type: "text/csv" }));
    const event = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer: transfer });
    document.getElementById("drop").dispatchEvent(event);
    return event.defaultPrevented;
"""


@dataclass
class Browser:
    """A browser, and what is asked of it in these tests."""

    driver: Any
    downloads: Path

    def open(self, url: str) -> None:
        self.driver.get("about:blank")
        self.logged(), self.asked()  # of the test before
        self.driver.get(url)
        self.until("return !document.getElementById('about').hidden")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments: Any) -> Any:
        """Wait until a script says something true."""
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            said = self.run(script, *arguments)
            if said:
                return said
            time.sleep(0.05)
        pytest.fail(f"Not within {WITHIN_S} s: {script}\n{self.text('body')}")

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def drop(self, text: str, name: str = "cohort.csv") -> None:
        assert self.run(DROP, [[name, text]])

    def scored(self) -> str:
        """Wait for the scores; what the page says of them."""
        said = "document.getElementById('status').textContent"
        return str(self.until(f"return /rows scored/.test({said}) && {said}"))

    def explained(self) -> None:
        """Wait for the bars of the chosen row."""
        self.until("return document.querySelector('.total-total') !== null")

    def choose(self, number: int) -> None:
        self.one(f".row-name[data-row='{number}']").click()

    def asked(self) -> list[str]:
        """Addresses of every request since this was last read."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]

    def logged(self) -> list[str]:
        """What the browser complained of since this was last read: errors, warnings, violations of the policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Skips where there is no Chromium, fails instead where HYPOXIA_REQUIRE_BROWSER is 1."""
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None or find_spec("selenium") is None:
        reason = "There is no browser; `apt-get install chromium chromium-driver`, and `pip install selenium`."
        (pytest.fail if os.environ.get("HYPOXIA_REQUIRE_BROWSER") == "1" else pytest.skip)(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    downloads = tmp_path_factory.mktemp("downloads")
    driver = webdriver.Chrome(service=Service(chromedriver), options=options)
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    try:
        yield Browser(driver, downloads)
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    registered = register(small_bundle(), tmp_path_factory.mktemp("store"), alias="champion")
    loaded = Predictor(load_registered(parse_reference(registered.name), registered.uri))
    loaded.explainer.warm()  # as a server does before it is asked
    return loaded


@pytest.fixture(scope="module")
def endpoint(predictor: Predictor) -> Iterator[str]:
    """The real routes behind the real edge."""
    with served(Edge(create_app({predictor.loaded.name: predictor}), EdgeSettings())) as url:
        yield url


@pytest.fixture
def pretend() -> Iterator[Callable[..., tuple[str, Pretended]]]:
    """Serves a model of one's choosing."""
    open_ones = []

    def serve(**what: Any) -> tuple[str, Pretended]:
        pretended = Pretended(**what)
        context = served(pretended.application())
        open_ones.append(context)
        return context.__enter__(), pretended

    yield serve
    for context in open_ones:
        context.__exit__(None, None, None)


def cohort(rows: int = 6) -> list[dict[str, Any]]:
    """Made-up rows; the second lies above the training range of CA9, the fourth has no entropy."""
    values = np.random.default_rng(5).normal(size=(rows, len(FEATURES))) * [5e3, 0.5, 25.0, 1.5]
    table = [
        {"PatientID": f"{CANARY}-{at}", "site": "A", **dict(zip(FEATURES, row, strict=True))}
        for at, row in enumerate(values.tolist())
    ]
    table[1]["CA9"] = 40.0
    table[3]["entropy"] = "n/d"
    return table


def as_csv(rows: list[dict[str, Any]], separator: str = ",", end: str = "\r\n") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=separator, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def answered(endpoint: str, rows: list[dict[str, Any]], kind: str = "predict") -> list[dict[str, Any]]:
    """What the API answers to the same rows."""
    asked = [{"features": {name: row[name] for name in FEATURES}} for row in rows]
    answer = httpx.post(f"{endpoint}/v1/models/{NAME}/{kind}", json={"rows": asked}, timeout=60)
    assert answer.status_code == 200
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    return predictions


# ---- the whole way, on the real endpoint -----------------------------------------------------------------------------


def test_a_dropped_table_shows_the_scores_of_the_api(browser: Browser, endpoint: str) -> None:
    rows = cohort()
    browser.open(endpoint)
    browser.drop(as_csv(rows))
    assert browser.scored().startswith("5 of 6 rows scored")
    sound = [at for at in range(len(rows)) if at != 3]
    for at, expected in zip(sound, answered(endpoint, [rows[at] for at in sound]), strict=True):
        browser.choose(at)
        browser.explained()
        assert browser.text("#detail-title") == f"{CANARY}-{at}"
        assert float(browser.one("#probability").get_attribute("data-value")) == pytest.approx(expected["probability"], abs=1e-9)
        line = browser.text("tr.chosen")
        assert f"{expected['probability']:.3f}" in line or expected["probability"] == pytest.approx(0.4, abs=5e-4)
        assert expected["label"] in line
        assert ("within" not in line) == expected["out_of_distribution"]["flagged"]
    assert RESEARCH_USE_ONLY in browser.text("#detail")
    assert "threshold 0.40" in browser.text("#detail")


def test_the_bars_run_from_the_base_value_to_the_score(browser: Browser, endpoint: str) -> None:
    rows = cohort()
    browser.open(endpoint)
    browser.drop(as_csv(rows))
    browser.scored()
    browser.choose(0)
    browser.explained()
    [expected] = answered(endpoint, rows[:1], "explain")
    base, *_, total = browser.run(
        "return [...document.querySelectorAll('.drivers .mark')].map((mark) => Number(mark.dataset.value))"
    )
    bars = browser.run(
        "return [...document.querySelectorAll('.drivers rect[data-from]')].map((bar) =>"
        " [Number(bar.dataset.from), Number(bar.dataset.to), parseFloat(bar.getAttribute('x')),"
        " parseFloat(bar.getAttribute('width')), bar.getAttribute('class')])"
    )
    assert base == expected["explanation"]["base_value"]
    assert total == pytest.approx(expected["probability"], abs=1e-12)
    shap = [bar[1] - bar[0] for bar in bars]
    assert shap == pytest.approx([one["shap"] for one in expected["explanation"]["features"]], abs=1e-9)
    assert [bar[0] for bar in bars] == pytest.approx([base, *(bar[1] for bar in bars[:-1])], abs=1e-12)
    assert base + sum(shap) == pytest.approx(total, abs=1e-9)
    # What is drawn is what is said: each bar begins where the one before ends, and its length is its share.
    scale = bars[0][3] / abs(shap[0])
    for begin, end, left, width, side in bars:
        assert width == pytest.approx(max(abs(end - begin) * scale, 0.2), abs=0.02)
        assert left == pytest.approx(bars[0][2] + (min(begin, end) - min(bars[0][:2])) * scale, abs=0.02)
        assert side == ("up" if end >= begin else "down")
    assert "base value and all changes" in browser.text(".total-total")
    assert float(browser.text(".total-total .col-change")) == pytest.approx(total, abs=5e-4)


def test_a_value_outside_of_training_is_marked_in_words(browser: Browser, endpoint: str) -> None:
    browser.open(endpoint)
    browser.drop(as_csv(cohort()))
    browser.scored()
    browser.choose(1)
    browser.explained()
    assert "1 outside" in browser.text("tr.chosen")
    assert "CA9 lies above the training range" in " ".join(browser.text("#unlike").split())
    marked = browser.all("tr.outside")
    assert [row.get_attribute("data-feature") for row in marked] == ["CA9"]
    assert "above training range" in marked[0].text
    assert "above the training range; trained on" in marked[0].find_element("css selector", ".strip").get_attribute("aria-label")
    browser.choose(0)
    browser.explained()
    assert browser.all("tr.outside") == []
    assert browser.text("#unlike") == ""


def test_a_refused_row_is_explained_and_harms_no_other(browser: Browser, endpoint: str) -> None:
    browser.open(endpoint)
    browser.drop(as_csv(cohort()))
    assert "1 refused" in browser.scored()
    browser.choose(3)
    said = " ".join(browser.text("#refusal").split())
    assert "This row was refused and has no score." in said
    assert "entropy is not a number; the cell holds n/d" in said
    assert browser.all("#probability") == []


def test_what_the_server_refuses_of_a_row_is_shown_at_that_row(browser: Browser, endpoint: str) -> None:
    rows = cohort()
    rows[2]["volume"] = "1e300"  # a number, though not one to compute with
    browser.open(endpoint)
    browser.drop(as_csv(rows))
    assert browser.scored().startswith("4 of 6 rows scored")
    browser.choose(2)
    assert "volume" in browser.text("#refusal")
    browser.drop(as_csv(rows[2:3]))  # alone: the whole request is refused
    assert browser.scored().startswith("0 of 1 rows scored")
    assert "volume" in browser.text("#refusal")


def test_nothing_leaves_the_machine_and_nothing_is_kept(browser: Browser, endpoint: str) -> None:
    browser.open(endpoint)
    browser.run(
        "window.violations = []; addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective))"
    )
    browser.drop(as_csv(cohort()))
    browser.scored()
    for number in (0, 1, 3):
        browser.choose(number)
    browser.one("#download").click()
    browser.one("#template").click()
    time.sleep(1)
    asked = browser.asked()
    assert f"{endpoint}/v1/models/{NAME}/predict" in asked
    assert f"{endpoint}/v1/models/{NAME}/explain" in asked
    assert [url for url in asked if not url.startswith((f"{endpoint}/", f"blob:{endpoint}/", "data:image/svg"))] == []
    assert not any("?" in url or CANARY in url for url in asked)
    assert browser.logged() == []
    assert browser.run("return violations") == []
    assert browser.run(
        "return [localStorage.length, sessionStorage.length, document.cookie, location.search, location.hash]"
    ) == [0, 0, "", "", ""]
    assert browser.run("return indexedDB.databases().then((all) => all.length)") == 0


def test_a_table_can_be_pasted(browser: Browser, endpoint: str) -> None:
    from selenium.webdriver.common.keys import Keys

    rows = cohort()
    browser.open(endpoint)
    field = browser.one("#text")
    browser.run(
        "arguments[0].value = arguments[1]; arguments[0].select()", field, as_csv(rows, "\t", "\n")
    )  # as from a spreadsheet
    field.send_keys(Keys.CONTROL, "x")
    assert field.get_property("value") == ""
    assert not browser.one("#results").is_displayed()
    field.send_keys(Keys.CONTROL, "v")
    assert browser.scored().startswith("5 of 6 rows scored")
    assert "tab separated" in browser.text("#reading")
    field.send_keys("1")
    assert not browser.one("#results").is_displayed(), "scores of a table that was changed since"


def test_a_file_can_be_chosen_and_an_excel_one_is_refused(browser: Browser, endpoint: str, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text("\ufeff" + as_csv(cohort(), ";"), encoding="utf-8")
    workbook = tmp_path / "cohort.xlsx"
    workbook.write_bytes(b"PK\x03\x04rest")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("id,volume\nGrünberg,1\n".encode("latin-1"))
    browser.open(endpoint)
    browser.one("#file").send_keys(str(table))
    assert browser.scored().startswith("5 of 6 rows scored")
    assert "semicolon separated" in browser.text("#reading")
    for path, said in ((workbook, "workbook"), (latin, "UTF-8")):
        browser.one("#file").send_keys(str(path))
        browser.until("return document.getElementById('reading').innerText.includes(arguments[0])", said)
        assert not browser.one("#results").is_displayed()


def test_the_example_row_is_scored_and_like_the_training_samples(browser: Browser, endpoint: str) -> None:
    browser.open(endpoint)
    browser.one("#example").click()
    assert browser.scored().startswith("1 of 1 rows scored")
    browser.explained()
    assert browser.text("#detail-title") == "training medians"
    assert "Like the training samples" in browser.text("#detail")


def test_results_and_template_are_downloaded(browser: Browser, endpoint: str) -> None:
    rows = cohort()
    rows[0]["PatientID"] = "=1+2"  # which a spreadsheet would compute
    browser.open(endpoint)
    browser.drop(as_csv(rows))
    browser.scored()
    browser.one("#download").click()
    browser.one("#template").click()
    scores = list(csv.DictReader(io.StringIO(downloaded(browser, f"{NAME}-version-1-scores.csv"))))
    assert [line["id"] for line in scores] == ["'=1+2", *(f"{CANARY}-{at}" for at in range(1, 6))]
    sound = [at for at in range(6) if at != 3]
    expected = answered(endpoint, [rows[at] for at in sound])
    assert [float(scores[at]["probability"]) for at in sound] == pytest.approx([one["probability"] for one in expected], abs=1e-9)
    assert scores[1]["outside_range"] == "CA9 above"
    assert scores[3]["probability"] == ""
    assert "entropy is not a number" in scores[3]["problem"]
    assert {line["note"] for line in scores} == {RESEARCH_USE_ONLY}
    assert downloaded(browser, f"{NAME}-template.csv").strip() == ",".join(["id", *FEATURES])


def downloaded(browser: Browser, name: str) -> str:
    newest = None
    deadline = time.monotonic() + WITHIN_S
    while newest is None and time.monotonic() < deadline:
        there = sorted(browser.downloads.glob(f"{name.removesuffix('.csv')}*.csv"), key=lambda path: path.stat().st_mtime)
        newest = there[-1] if there else None
        time.sleep(0.1)
    assert newest is not None, sorted(browser.downloads.iterdir())
    return newest.read_text(encoding="utf-8-sig")


def test_the_card_says_what_is_known_and_what_is_not(browser: Browser, endpoint: str) -> None:
    browser.open(endpoint)
    facts = " ".join(browser.text("#facts").split())
    assert "Held-out AUC not estimable no held-out patients" in facts
    assert "Patients 60" in facts
    assert "Threshold 0.40 made up" in facts
    assert browser.text("#about-title") == NAME
    assert browser.text("#about-version") == "version 1"
    assert browser.text("#caution") == RESEARCH_USE_ONLY


def test_the_page_works_behind_a_token(browser: Browser, predictor: Predictor) -> None:
    """The browser carries it as the password of Basic, for the page and for all that the page asks."""
    tokens = Tokens((Token.of("clinic", ("predict",), TOKEN),))
    with served(Edge(create_app({NAME: predictor}), EdgeSettings(tokens=tokens))) as url:
        assert httpx.get(url).status_code == 401
        assert httpx.get(f"{url}/page/page.js").status_code == 401
        browser.open(url.replace("://", f"://anyone:{TOKEN}@"))
        browser.drop(as_csv(cohort()))
        assert browser.scored().startswith("5 of 6 rows scored")
        browser.explained()


def test_a_score_just_below_the_threshold_does_not_look_as_if_it_were_at_it(browser: Browser, endpoint: str) -> None:
    shown = "return import('/page/draw.js').then(({ probability }) => arguments[0].map((value) => probability(value, 0.4)))"
    browser.open(endpoint)
    assert browser.run(shown, [0.39996, 0.4, 0.4000004, 0.3]) == ["0.39996", "0.400", "0.400", "0.300"]


# ---- what only a pretended server does -------------------------------------------------------------------------------

HOSTILE = ("<img src=x onerror=alert(1)>", "</td><script>alert(2)</script>", "__proto__", "a/b~c", "constructor", "'\"&amp;")


def test_a_hostile_name_stays_text(browser: Browser, pretend: Callable[..., tuple[str, Pretended]]) -> None:
    url, pretended = pretend(
        name="<b>bold</b>/..%2f?x=1#y",
        features=HOSTILE,
        units=["<i>unit</i>"] * 6,
        card={"endpoint": "<h1>x</h1>", "warnings": ["<u>w</u>"]},
    )
    browser.open(url)
    rows = [
        {"id": "<svg onload=alert(3)>", "<marquee>": "x", **dict.fromkeys(HOSTILE, 0.5)},
        {"id": "b", "<marquee>": "x", **dict.fromkeys(HOSTILE, "<b>")},
    ]
    browser.drop(as_csv(rows))
    assert browser.scored().startswith("1 of 2 rows scored")
    browser.explained()
    assert (
        browser.run(
            "return document.querySelectorAll('main :is(img, script, i, u, marquee, iframe), main svg[onload], h1 b').length"
        )
        == 0
    )
    assert browser.text("#about-title") == "<b>bold</b>/..%2f?x=1#y"
    assert browser.text("#detail-title") == "<svg onload=alert(3)>"
    assert set(HOSTILE) == {row.get_attribute("data-feature") for row in browser.all(".drivers tr[data-feature]")}
    assert json.loads(pretended.bodies[0])["rows"] == [{"features": dict.fromkeys(HOSTILE, 0.5)}]
    browser.choose(1)
    assert "the cell holds <b>" in browser.text("#refusal")
    browser.drop("id,<script>alert(1)</script>\n1,2\n")
    assert browser.run("return document.querySelectorAll('main script').length") == 0
    assert browser.logged() == []


def test_identifiers_stay_on_the_page_and_rows_go_in_parts(
    browser: Browser, pretend: Callable[..., tuple[str, Pretended]]
) -> None:
    url, pretended = pretend()
    browser.open(url)
    browser.drop(as_csv([{"id": f"{CANARY}-{at}", "a": at / 600, "b": -0.5, "c": 0.25, "note": CANARY} for at in range(600)]))
    assert browser.scored().startswith("600 of 600 rows scored")
    browser.explained()
    sizes = [len(json.loads(body)["rows"]) for body in pretended.bodies if '"explain":false' in body]
    assert sizes == [256, 256, 88]
    assert CANARY not in "".join(pretended.bodies)
    assert "1 to 20 of 600" in browser.text("#pager")
    browser.one("#next").click()
    assert browser.all(".row-name")[0].text == f"{CANARY}-20"
    browser.run("const order = document.getElementById('order'); order.value = 'high'; order.dispatchEvent(new Event('change'))")
    assert browser.all(".row-name")[0].text == f"{CANARY}-599"


def test_rows_are_walked_through_by_the_keyboard(browser: Browser, pretend: Callable[..., tuple[str, Pretended]]) -> None:
    from selenium.webdriver.common.keys import Keys

    url, _ = pretend()
    browser.open(url)
    browser.drop(as_csv([{"id": f"s{at}", "a": at, "b": 0, "c": 0} for at in range(3)]))
    browser.scored()
    browser.one(".row-name").send_keys(Keys.ARROW_DOWN)
    browser.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert browser.text("#detail-title") == "s2"
    assert browser.driver.switch_to.active_element.text == "s2"
    assert browser.text("#spoken").startswith("s2: probability 0.881, hypoxic")


def test_an_empty_cell_is_sent_as_null_where_the_model_fills_it(
    browser: Browser, pretend: Callable[..., tuple[str, Pretended]]
) -> None:
    url, pretended = pretend(missing="impute", aliases={"CAIX": "b"})
    browser.open(url)
    browser.drop("id,a,CAIX,c\n1,,0.5,NA\n")
    assert browser.scored().startswith("1 of 1 rows scored")
    assert json.loads(pretended.bodies[0])["rows"] == [{"features": {"a": None, "b": 0.5, "c": None}}]
    assert "“CAIX” is taken as b" in browser.text("#reading")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "asks for a token"),
        (403, "token does not allow"),
        (413, "too much"),
        (429, "More requests"),
        (500, "failed"),
        (503, "busy"),
        (504, "too long"),
    ],
)
def test_a_refusal_of_the_server_is_a_sentence(
    browser: Browser, pretend: Callable[..., tuple[str, Pretended]], status: int, said: str
) -> None:
    url, _ = pretend(refusals=[])
    browser.open(url)
    url, _ = pretend(refusals=[Refusal(status, "Said by the server.")])
    if status == 401:
        browser.driver.get(url)
        browser.until("return document.querySelector('#alert .notice') !== null")
    else:
        browser.open(url)
        browser.drop("a,b,c\n1,2,3\n")
        browser.until("return document.querySelector('#alert .notice') !== null")
    assert said in browser.text("#alert")
    assert "Said by the server." in browser.text("#alert")


def test_a_busy_server_is_asked_again(browser: Browser, pretend: Callable[..., tuple[str, Pretended]]) -> None:
    url, pretended = pretend(refusals=[Refusal(503, headers={"retry-after": "1"}), Refusal(429, headers={"retry-after": "1"})])
    browser.open(url)
    browser.drop("a,b,c\n1,2,3\n")
    assert browser.scored().startswith("1 of 1 rows scored")
    assert len(pretended.bodies) >= 3


def test_an_explanation_that_failed_is_said_and_tried_again(
    browser: Browser, pretend: Callable[..., tuple[str, Pretended]]
) -> None:
    url, pretended = pretend()
    browser.open(url)
    browser.drop("a,b,c\n1,2,3\n2,2,2\n")
    browser.scored()
    browser.explained()
    pretended.refusals.append(Refusal(504, "Too slow."))
    browser.choose(1)
    browser.until("return document.getElementById('detail').innerText.includes('could not be explained')")
    assert float(browser.one("#probability").get_attribute("data-value")) > 0.99  # the score stands all the same
    browser.choose(1)
    browser.explained()


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (
            {
                "endpoint": '{"kind": "survival", "time": "pfs_months", "event": "progressed", "positive": 1, "horizon": 60.0}',
                "horizon": 60.0,
                "time_unit": "months",
            },
            "progressed by 60 months (pfs_months)",
        ),
        (
            {
                "endpoint": '{"kind": "survival", "time": "days", "event": "status", "positive": "1:DEAD", "horizon": null}',
                "horizon": 1826.0,
                "time_unit": "days",
            },
            "status = 1:DEAD by 1826 days (days)",
        ),
        ({"endpoint": '{"kind": "binary", "column": "Target", "positive": "high <b>"}'}, "Target = high <b>"),
        (
            {"endpoint": '{"kind": "signature", "signature": "buffa2010"}'},
            "a score of the signature buffa2010 at or above its median",
        ),
        (
            {"endpoint": '{"kind": "staining", "intensity": ["i1", "i2"], "proportion": ["p1", "p2"], "cutoff": 3.0}'},
            "a staining index (i1, i2; p1, p2) of at least 3",
        ),
        ({"endpoint": '{"kind": "constructor"}'}, '{"kind": "constructor"}'),
        ({"endpoint": "null"}, "null"),
        ({"endpoint": "hypoxia by pimonidazole"}, "hypoxia by pimonidazole"),
    ],
)
def test_what_is_predicted_is_said_in_words(
    browser: Browser, pretend: Callable[..., tuple[str, Pretended]], card: dict[str, Any], words: str
) -> None:
    url, _ = pretend(card=card)
    browser.open(url)
    assert browser.text("#about-endpoint").startswith(f"Predicts: {words}. A probability at or above the threshold")


def test_of_many_values_that_drive_a_row_out_of_range_five_are_named(
    browser: Browser, pretend: Callable[..., tuple[str, Pretended]]
) -> None:
    names = [f"f{at:02}" for at in range(65)]
    url, _ = pretend(features=names)
    browser.open(url)
    browser.drop(as_csv([dict.fromkeys(names, 9)]))
    browser.scored()
    said = " ".join(browser.text("#unlike").split())
    assert said.count("f00, f01, f02, f03, f04 and 60 more") == 2
    assert "f05" not in said


def test_a_server_that_is_gone_is_said_to_be(browser: Browser) -> None:
    with served(Pretended().application()) as url:
        browser.open(url)
    browser.drop("a,b,c\n1,2,3\n")
    browser.until("return document.getElementById('alert').innerText.includes('cannot be reached')")


def test_a_model_that_is_replaced_meanwhile_scores_the_whole_table_anew(
    browser: Browser, pretend: Callable[..., tuple[str, Pretended]]
) -> None:
    url, pretended = pretend(versions=["1", "2"])
    browser.open(url)
    browser.run("document.getElementById('about-version').textContent")
    pretended.versions[:] = ["1", "3"]
    browser.drop(as_csv([{"a": 0.1, "b": 0, "c": 0}] * 300))
    browser.until("return document.getElementById('alert').innerText.includes('Version 3 of the model came into use')")
    assert browser.scored().startswith("300 of 300 rows scored")
    assert browser.text("#about-version") == "version 3"


def test_the_page_fits_a_narrow_screen(browser: Browser, pretend: Callable[..., tuple[str, Pretended]]) -> None:
    url, _ = pretend(
        features=[f"wavelet-LLH_glszm_SmallAreaHighGrayLevelEmphasis_{at}" for at in range(12)],
        name="a-rather-long-name-of-a-model-for-a-narrow-screen",
    )
    browser.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        browser.open(url)
        browser.one("#example").click()
        browser.scored()
        browser.explained()
        assert browser.run("return document.documentElement.scrollWidth") <= 400
        assert "2 other features together" in browser.text("#detail")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_newer_version_that_is_not_served_is_told_of(browser: Browser, pretend: Callable[..., tuple[str, Pretended]]) -> None:
    url, _ = pretend(pending={"version": "2", "kind": "unverified", "error": "SignatureError"})
    browser.open(url)
    said = browser.text("#pending")
    assert "Version 2 should be served and is not: it could not be verified" in said
    assert "Version 1 answers." in said


# ---- reading tables --------------------------------------------------------------------------------------------------

READ = """
    const [text, missing, done] = arguments;
    import("/page/table.js").then(({ readTable, nameOf }) => {
        const model = { features: ["a", "b"].map((name) => ({ name })), aliases: new Map([["alpha", "a"]]), missing };
        try {
            const { rows, idColumn } = readTable(text, model);
            const said = ({ feature, detail }) => `${feature} ${detail}`.trim();
            done({
                names: rows.map((row) => nameOf(row, idColumn)),
                values: rows.map((row) => [row.values.a, row.values.b]),
                problems: rows.map(({ problem }) => problem && problem.errors.map(said).join("; ")),
            });
        } catch (error) {
            done({ refused: error.message, points: (error.points ?? []).map((one) => `${one.name} ${one.text}`) });
        }
    });
"""


@pytest.fixture(scope="module")
def read(browser: Browser) -> Iterator[Callable[..., dict[str, Any]]]:
    with served(Pretended().application()) as url:

        def read_it(text: str, missing: str = "refuse") -> dict[str, Any]:
            if not browser.driver.current_url.startswith(url):
                browser.open(url)
            return dict(browser.driver.execute_async_script(READ, text, missing))

        yield read_it


@pytest.mark.parametrize(
    "text",
    [
        "id,a,b\ns1,1.5,-2\ns2,3e2,.5\n",
        "id,a,b\r\ns1,1.5,-2\r\ns2,3e2,.5",
        "\ufeffid;a;b\ns1;1.5;-2\ns2;3e2;.5\n",
        "b\tid\ta\n-2\ts1\t1.5\n.5\ts2\t3e2\n\n\n",
        '"id","a","b"\n"s1","1.5","-2"\n"s2","3e2",".5"\n',
        "\n id , a , b ,\ns1, 1.5 ,-2,\n,,,\ns2,+3e2,.50,\n",
        "id,alpha,b\rs1,1.5,-2\rs2,3E+2,0.5\r",
        'note,id,a,b\n"two\nlines, and ""quotes""",s1,1.5,-2\nx,s2,300.,.5\n',
    ],
)
def test_a_table_is_read_however_it_was_written(read: Callable[..., dict[str, Any]], text: str) -> None:
    table = read(text)
    assert table.get("refused") is None
    assert table["values"] == [[1.5, -2], [300, 0.5]]
    assert table["names"] == ["s1", "s2"]
    assert table["problems"] == [None, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no table"),
        ("id,a,b", "no row"),
        ("1,2,3\n4,5,6", "first line holds numbers"),
        ('id,a,b\n"s1,1,2', "quote is opened and never closed"),
        ('id,a,b\n"s1"x,1,2', "text after a closing quote"),
        ("id;a;b\ns1;1,5;2", "decimal point"),
        ('id,a,b\ns1,"1,5",2', "decimal point"),
        ("id,a,b,a\ns1,1,2,3", "in two columns"),
        ("id,a,alpha,b\ns1,1,2,3", "in two columns"),
        ("id,a\ns1,1", "One column of the 2"),
        ("id,a,b\n" + "s,1,2\n" * 10_001, "10,001 rows"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_the_way_out(
    read: Callable[..., dict[str, Any]], text: str, said: str
) -> None:
    assert said in read(text)["refused"]


def test_a_missing_column_is_named_with_the_nearest(read: Callable[..., dict[str, Any]]) -> None:
    assert read("id,a,B\n1,2,3")["points"] == ["b is missing; did you mean “B”?"]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("x,2", "a is not a number"),
        ("1,TRUE", "b is not a number"),
        ("1,Infinity", "b is not a number"),
        ("0x10,1", "a is not a number"),
        ("1e999,1", "a is too large for a number"),
        ("1 2,1", "a is not a number"),
        ("1,", "b is empty; this model takes no missing values"),
        ("NaN,NA", "a is empty; this model takes no missing values; b is empty; this model takes no missing values"),
        ("1,2,3", "Line 3 has 4 cells, and the header 3"),
    ],
)
def test_a_row_with_a_bad_cell_is_refused_alone(read: Callable[..., dict[str, Any]], cells: str, said: str) -> None:
    table = read(f"id,a,b\ns1,1,2\ns2,{cells}\ns3,3,4\n")
    assert [problem is None for problem in table["problems"]] == [True, False, True]
    assert said in table["problems"][1]


def test_empty_cells_are_null_where_the_model_fills_them(read: Callable[..., dict[str, Any]]) -> None:
    table = read("id,a,b\ns1,,n/a\ns2,x,\n", "impute")
    assert table["values"] == [[None, None], [None, None]]
    assert table["problems"] == [None, "a is not a number"]
