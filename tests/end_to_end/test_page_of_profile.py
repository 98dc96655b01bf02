"""The page with a profile: the nearest cluster, how far every one is, what decided, and a patient who is like none of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pandas as pd
import pytest

from features.bundle import RESEARCH_USE_ONLY
from serving.app import create_app
from serving.edge import Edge, EdgeSettings
from serving.loader import LoadedModel
from serving.predictor import Predictor
from tests.end_to_end import test_page_in_browser
from tests.end_to_end.test_page_in_browser import Browser, downloaded, served
from tests.serving.profiles import FEATURES, GROUPS, NAME, Planted, planted

browser = test_page_in_browser.browser


@pytest.fixture(scope="module")
def made() -> Planted:
    return planted(horizon=60.0)


@pytest.fixture(scope="module")
def predictor(made: Planted) -> Predictor:
    return Predictor(LoadedModel(NAME, "1", made.bundle))


@pytest.fixture(scope="module")
def endpoint(predictor: Predictor) -> Iterator[str]:
    with served(Edge(create_app({NAME: predictor}), EdgeSettings())) as url:
        yield url


@pytest.fixture
def table(made: Planted) -> pd.DataFrame:
    """A patient of each cluster, and one of ten standard deviations."""
    frame = pd.DataFrame([*made.rows[:3], made.far()])
    frame.insert(0, "ID", ["first", "second", "third", "far"])
    return frame


def test_the_page_says_which_cluster_how_far_each_is_and_what_decided(
    browser: Browser, endpoint: str, predictor: Predictor, table: pd.DataFrame
) -> None:
    browser.open(endpoint)
    assert "risk of the event by 60 months in its cluster" in browser.text("#about-endpoint")
    browser.drop(table.to_csv(index=False))
    assert "1 unlike any cluster" in browser.scored()
    expected = predictor.predict_table(table)
    for row in range(3):
        browser.choose(row)
        own = f"cluster {GROUPS[row] + 1}"
        assert browser.one("#cluster").get_attribute("data-cluster") == own
        assert own in browser.text("tr.chosen")
        assert f"Nearest to {own}" in browser.text("#cluster")
        shown = {
            one.get_attribute("data-cluster"): one.get_attribute("data-distance") for one in browser.all("#distances tbody tr")
        }
        for name, distance in shown.items():
            assert float(distance) == pytest.approx(expected[f"distance.{name.replace(' ', '_')}"][row], rel=1e-9)
        assert len(browser.all("#deciding tr[data-deciding]")) == 5
        assert browser.all("#unlike-any") == []
        assert "Moves the probability" not in browser.text("#detail")
        assert RESEARCH_USE_ONLY in browser.text("#detail")
    assert browser.logged() == []
    assert not any(url.endswith("/explain") for url in browser.asked())


def test_a_patient_who_is_like_no_cluster_is_said_to_be(browser: Browser, endpoint: str, table: pd.DataFrame) -> None:
    browser.open(endpoint)
    browser.drop(table.to_csv(index=False))
    browser.scored()
    browser.choose(3)
    assert "Unlike any cluster" in browser.text("#unlike-any")
    assert "Unlike what the model was trained on" in browser.text("#unlike")


def test_every_feature_is_shown_with_where_it_lies_those_that_decided_first(
    browser: Browser, endpoint: str, table: pd.DataFrame
) -> None:
    browser.open(endpoint)
    browser.drop(table.to_csv(index=False))
    browser.scored()
    browser.choose(0)
    deciding = [one.get_attribute("data-deciding") for one in browser.all("#deciding tr[data-deciding]")]
    shown = [one.get_attribute("data-feature") for one in browser.all(".drivers tr[data-feature]")]
    assert shown[:5] == deciding
    assert sorted(shown) == sorted(FEATURES)
    assert len(browser.all(".drivers .strip")) == len(FEATURES)
    assert "Where its values lie" in browser.text("#detail")
    assert browser.all("#explaining") == []


def test_of_three_hundred_features_outside_the_range_few_are_named_and_the_clusters_stay_in_sight(browser: Browser) -> None:
    made = planted(horizon=60.0, wide=293)
    predictor = Predictor(LoadedModel(NAME, "1", made.bundle))
    with served(Edge(create_app({NAME: predictor}), EdgeSettings())) as url:
        browser.open(url)
        browser.drop(pd.DataFrame([made.far()]).to_csv(index=False))
        browser.scored()
        assert "and 295 more lie above the training range" in " ".join(browser.text("#unlike").split())
        assert browser.run("return document.getElementById('unlike').getBoundingClientRect().height") < 400
        assert len(browser.all(".drivers tr[data-feature]")) == 10
        assert "Values of the other 290 features" in browser.text("#detail")


def test_the_card_names_the_clusters_and_that_they_are_exploratory(browser: Browser, endpoint: str, made: Planted) -> None:
    browser.open(endpoint)
    browser.run("document.querySelector('#about details').open = true")
    words, card = browser.text("#card"), made.bundle.card.profile
    assert card is not None
    for cluster in card.clusters:
        assert f"{cluster.patients} patients, {cluster.events} with the event; risk {cluster.risk:.3f}" in words
    assert "The outcome had a say" in words


def test_the_results_that_are_downloaded_hold_the_clusters(
    browser: Browser, endpoint: str, predictor: Predictor, table: pd.DataFrame
) -> None:
    browser.open(endpoint)
    browser.drop(table.to_csv(index=False))
    browser.scored()
    browser.one("#download").click()
    rows = list(csv.DictReader(io.StringIO(downloaded(browser, f"{NAME}-version-1-scores.csv"))))
    expected = predictor.predict_table(table)
    assert [row["cluster"] for row in rows] == expected["cluster"].tolist()
    assert [row["unlike_any_cluster"] for row in rows] == ["false", "false", "false", "true"]
    for column in ("distance.cluster_1", "distance.cluster_2", "distance.cluster_3", "margin"):
        assert [float(row[column]) for row in rows] == pytest.approx(expected[column].tolist(), rel=1e-9)
