"""The page with a composite: two values in, score and risk out, and a gap where one of the two is enough."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serving.app import create_app
from serving.edge import Edge, EdgeSettings
from serving.loader import LoadedModel
from serving.predictor import Predictor
from tests.end_to_end import test_page_in_browser
from tests.end_to_end.test_page_in_browser import Browser, served
from tests.serving.composites import NAME, composite_bundle

browser = test_page_in_browser.browser
TABLE = "ID,hypoxic_fraction,gene_score\nfirst,0.6,1.5\nsecond,0.1,-1.0\nthird,0.6,\n"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    predictor = Predictor(LoadedModel(NAME, "1", composite_bundle("alone")))
    predictor.explainer.warm()
    return predictor


@pytest.fixture(scope="module")
def endpoint(predictor: Predictor) -> Iterator[str]:
    with served(Edge(create_app({NAME: predictor}), EdgeSettings())) as url:
        yield url


def test_both_values_give_a_score_a_label_and_a_risk_by_a_time(browser: Browser, endpoint: str, predictor: Predictor) -> None:
    browser.open(endpoint)
    assert "A composite score at or above 0 is called more hypoxic." in browser.text("#about-endpoint")
    assert "risk of the event by 60 months" in browser.text("#about-endpoint")
    browser.drop(TABLE)
    assert browser.scored() == "3 of 3 rows scored: 2 called more hypoxic."
    first, second = predictor.predict(
        [{"hypoxic_fraction": 0.6, "gene_score": 1.5}, {"hypoxic_fraction": 0.1, "gene_score": -1.0}]
    )
    for row, expected in enumerate((first, second)):
        browser.choose(row)
        browser.explained()
        assert float(browser.one("#probability").get_attribute("data-value")) == pytest.approx(expected.probability, abs=1e-9)
        assert expected.label in browser.text("tr.chosen")
        detail = browser.text("#detail")
        side = "at or above" if expected.label == "more hypoxic" else "below"
        assert f"{side} the cutoff 0" in detail
        assert "risk of the event by 60 months" in detail
    assert browser.all("#missing") == []
    assert browser.logged() == []


def test_an_empty_cell_is_said_to_be_missing_and_what_was_done(browser: Browser, endpoint: str) -> None:
    browser.open(endpoint)
    browser.drop(TABLE)
    browser.scored()
    browser.choose(2)
    browser.explained()
    assert browser.text("#missing") == "gene_score is missing: answered by hypoxic_fraction alone, at its own cutpoint"
    assert "missing" in browser.text("tr[data-feature='gene_score']")
    assert "filled in" not in browser.text("#detail")
