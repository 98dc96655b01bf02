"""A report is one file that holds all it shows, fetches nothing and runs nothing that its data say."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from features.bundle import RESEARCH_USE_ONLY
from training.html_report import MOST_ROWS, SHOWN, Findings, Picture, Section, Table, html_report, shown

# Elements that have no end.
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a browser makes of a page: its elements, and its words outside of style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and data.strip():
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def drawn() -> Figure:
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([0, 1])
    return figure


def picture() -> bytes:
    written = io.BytesIO()
    drawn().savefig(written, format="png")
    return written.getvalue()


@pytest.fixture(scope="module")
def report() -> str:
    features = pd.DataFrame({"distance": np.linspace(2, 1, 40)}, index=pd.Index([f"f{n}" for n in range(40)], name="feature"))
    tests = pd.DataFrame({"column": ["stage", "<img src=x onerror=alert(1)>"], "p_value": [3.14e-6, np.nan], "n": [132, 4]})
    return html_report(
        "Profiles & <clusters>",
        "132 patients",
        [
            Section(
                "Summary",
                ("Three clusters.", Findings((("Found", "one"), ("Found", "two"), ("Note", "<script>alert(1)</script>")))),
                ("Clusters follow the scanner.", "Few."),
            ),
            Section(
                "Tables",
                (Table("Associations", tests, "How it is read."), Table("Ranking", features), Table("Nothing", tests[:0])),
            ),
            Section("Figures", (Picture('As a "figure"', drawn()), "Between them.", Picture("As bytes", picture()))),
        ],
    )


@pytest.fixture(scope="module")
def page(report) -> Page:
    return Page(report)


def test_every_section_is_there_and_in_the_contents(page) -> None:
    headings = [attributes["id"] for attributes in page.all("section")]
    assert headings == ["section-1", "section-2", "section-3"]
    assert [attributes["href"] for attributes in page.all("a")] == [f"#{heading}" for heading in headings]
    assert page.words.count("Figures") == 2


def test_every_element_is_closed(page) -> None:
    assert page.open == []


def test_nothing_is_fetched_and_no_script_runs(page, report) -> None:
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert all(attributes["src"].startswith("data:image/png;base64,") for attributes in page.all("img"))
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "http:" not in report
    assert "https:" not in report
    assert "url(" not in report
    policies = [one["content"] for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_what_looks_like_html_is_shown_as_it_was_written(page) -> None:
    assert "<script>alert(1)</script>" in page.words
    assert "<img src=x onerror=alert(1)>" in page.words
    assert "Profiles & <clusters>" in page.words
    assert len(page.all("img")) == 2


def test_it_says_at_the_top_what_it_may_be_used_for(page) -> None:
    assert page.words.index(RESEARCH_USE_ONLY) == 1  # after the title of the window


def test_those_who_do_not_see_are_told_what_a_picture_shows(page) -> None:
    assert [attributes["alt"] for attributes in page.all("img")] == ['As a "figure"', "As bytes"]
    assert page.all("html") == [{"lang": "en"}]
    assert {attributes["scope"] for attributes in page.all("th")} == {"row", "col"}
    assert {"Associations", "Ranking", "Nothing"} <= set(page.words)


def test_pictures_are_whole_within_the_page(page) -> None:
    sources = [attributes["src"].partition(",")[2] for attributes in page.all("img")]
    images = [Image.open(io.BytesIO(base64.b64decode(source))) for source in sources]
    assert [image.size for image in images] == [(220, 220), (200, 200)]
    assert base64.b64decode(sources[1]) == picture()


def test_warnings_are_counted_in_the_contents(page) -> None:
    assert "2 warnings" in page.words
    assert "Clusters follow the scanner." in page.words


def test_a_long_table_is_folded_after_its_first_rows(page) -> None:
    assert "All 40 rows: Ranking" in page.words
    assert len(page.all("details")) == 1
    assert page.words.count(f"f{SHOWN - 1}") == 2
    assert page.words.count(f"f{SHOWN}") == 1


def test_a_long_table_can_be_shown_whole() -> None:
    table = pd.DataFrame({"level": [f"level {number}" for number in range(40)]})
    page = Page(html_report("t", "s", [Section("Table 2", (Table("Table 2", table, whole=True),))]))
    assert not page.all("details")
    assert page.words.count("level 39") == 1


def test_parts_are_in_the_order_that_they_are_given(page) -> None:
    order = [
        "Three clusters.",
        "Found",
        "one",
        "two",
        "Note",
        "Associations",
        "How it is read.",
        "Ranking",
        'As a "figure"',
        "Between them.",
        "As bytes",
    ]
    assert [page.words.index(words) for words in order] == sorted(page.words.index(words) for words in order)
    assert page.words.count("Found") == 1


def test_columns_of_numbers_are_set_to_the_right_words_are_not() -> None:
    table = pd.DataFrame(
        {"mutated": ["14 (15%)", "0 (0%)"], "median": [42.2, "not reached"], "p": ["", 0.01], "test": ["chi-square", "t"]}
    )
    page = Page(html_report("t", "s", [Section("T", (Table("T", table),))]))
    assert [heading.get("class") for heading in page.all("th")] == ["num", "num", "num", None]


def test_a_table_without_rows_says_so(page) -> None:
    assert "none" in page.words


def test_a_table_too_long_for_a_browser_is_cut_and_says_so() -> None:
    genes = pd.DataFrame({"difference": np.zeros(MOST_ROWS + 500)})
    page = Page(html_report("t", "s", [Section("Genes", (Table("Genes", genes),))]))
    assert "The first 1000 of 1500 rows: Genes" in page.words
    assert len(page.all("tr")) == MOST_ROWS + SHOWN + 2


def test_levels_of_index_and_columns_are_all_shown() -> None:
    index = pd.MultiIndex.from_tuples([("stage", "I"), ("stage", "II")], names=["column", "level"])
    table = pd.DataFrame([[1, 2], [3, 4]], index=index, columns=pd.MultiIndex.from_tuples([("n", "cluster 1"), ("n", "")]))
    page = Page(html_report("t", "s", [Section("Table 2", (Table("Table 2", table),))]))
    assert page.words[-10:] == ["column", "level", "n, cluster 1", "n", "stage", "I", "1", "2", "stage", "II", "3", "4"][-10:]


def test_equal_sections_give_an_equal_page() -> None:
    first, second = (html_report("t", "s", [Section("F", (Picture("f", drawn()),))]) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("value", "column", "words"),
    [
        (0.0123, "p_value", "0.012"),
        (3.14e-6, "q_value", "3.1e-06"),
        (0.0123, "p", "0.012"),
        (0.0123, "p, corrected (Holm)", "0.012"),
        (0.51234, "proportion", "0.512"),
        (0.51234, "top", "0.512"),
        (0.51234, "share of features", "51%"),
        (0.51234, "hazard ratio (95% interval)", "0.51"),
        (2.0, "fold change", "2.00"),
        (0.51234, "median, risk group", "0.512"),
        (1e-20, "statistic", "1e-20"),
        (123456.7, "loss", "123457"),
        (np.int64(132), "n", "132"),
        (np.float64(132), "n", "132"),
        (np.inf, "odds ratio", "∞"),
        (np.nan, "p_value", "–"),
        (None, "reason", "–"),
        (pd.NA, "reason", "–"),
        (pd.NaT, "date", "–"),
        (np.True_, "called", "yes"),
        (("CA9", "VEGFA"), "leading_edge", "CA9, VEGFA"),
    ],
)
def test_numbers_are_printed_as_they_are_read(value, column, words) -> None:
    assert shown(value, column) == words


def test_a_q_of_zero_is_less_than_its_permutations_can_tell() -> None:
    assert [shown(value, "q", 0.001) for value in (0.0, 0.001, 0.2)] == ["< 0.001", "0.001", "0.2"]
    assert shown(0.0, "difference", 0.001) == "0"


@given(st.text(min_size=1), st.text())
def test_no_name_of_a_patient_or_column_becomes_an_element(name, value) -> None:
    table = pd.DataFrame({name: [value]}, index=pd.Index([value], name=name))
    page = Page(
        html_report(name, value, [Section(name, (value, Table(name, table, name), Findings(((name, value),))), (value,))])
    )
    table = pd.DataFrame({"f": ["g"]}, index=["h"])
    plain = Page(html_report("a", "b", [Section("c", ("d", Table("e", table, "f"), Findings((("g", "h"),))), ("i",))]))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
