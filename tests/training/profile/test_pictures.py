"""The page of a study of profiles: what comes first, what is said once, and in whose words."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from profiles_made import binary, grouped, loaded

from training.html_report import Findings, Picture, Section, Table
from training.profile import pictures
from training.profile.pictures import profile_figures, profile_page
from training.profile.run import ProfileResult, run_profile


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ProfileResult:
    changes = {"combine": [[1, 2], [3]], "adjust": ["stage", "age"], "volume": "volume"}
    return run_profile(*loaded(tmp_path_factory.mktemp("page"), grouped(90, effect=2.0), **changes))


def sections_of(result: ProfileResult, monkeypatch: pytest.MonkeyPatch) -> dict[str, Section]:
    made: list[Section] = []
    monkeypatch.setattr(pictures, "html_report", lambda title, subtitle, sections: made.extend(sections))
    profile_page(result)
    return {one.title: one for one in made}


def tables_of(section: Section) -> dict[str, Table]:
    return {part.caption: part for part in section.parts if isinstance(part, Table)}


def test_the_page_begins_with_the_clusters_the_heat_map_and_what_was_found(
    result: ProfileResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sections_of(result, monkeypatch)["Clusters"].parts
    assert [type(part) for part in first[:3]] == [Table, Picture, Findings]
    clusters = first[0].frame
    assert list(clusters.columns[:2]) == ["patients", "with the event"]
    events, patients = result.outcome.clusters.table.iloc[0][["events", "patients"]]
    assert clusters.iloc[0, 1] == f"{events:.0f} ({events / patients:.0%})"


def test_tables_are_in_readers_words(result: ProfileResult, monkeypatch: pytest.MonkeyPatch) -> None:
    sections = sections_of(result, monkeypatch)
    tables = [table for section in sections.values() for table in tables_of(section).values()]
    known = {"field_strength", "echo_time", "slice_thickness"}
    assert not [name for table in tables for name in table.frame.columns if "_" in str(name) and name not in known]
    fares = tables_of(sections["How the clusters fare"])
    assert "Patients left out" in fares
    cox = next(table.frame for caption, table in fares.items() if "stage, age" in caption)
    assert cox.index[0] == "cluster 3 against clusters 1 and 2"
    assert all(re.fullmatch(r"[\d.]+ \([\d.]+ to [\d.]+\)", cell) for cell in cox.iloc[:, 0])


def test_table_2_is_whole_and_says_p_once(result: ProfileResult, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tables_of(sections_of(result, monkeypatch)["What else is known of the patients"])
    table2 = tables["Characteristics of the patients by cluster"]
    assert table2.whole
    follows = table2.frame["characteristic"] == ""
    assert (table2.frame.loc[follows, ["p", "q"]] == "").all(axis=None)
    assert table2.frame.loc[~follows, "p"].map(np.isfinite).all()


def test_the_strongest_correlation_with_volume_comes_first(result: ProfileResult, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tables_of(sections_of(result, monkeypatch)["What parts the clusters"])[
        "Correlation of each feature with tumour volume"
    ]
    assert table.frame["rho"].abs().is_monotonic_decreasing


def test_curves_name_the_test_of_their_p(result: ProfileResult) -> None:
    drawn = profile_figures(result)
    each, joined = ("\n".join(text.get_text() for text in drawn[name]().axes[0].texts) for name in CURVES)
    assert "log-rank p = " in each
    assert "permutation p = " in joined


CURVES = ("kaplan_meier", "kaplan_meier_combined")


def test_a_binary_endpoint_has_a_page_without_times(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = grouped(60, effect=2.0)
    result = run_profile(*loaded(tmp_path_factory.mktemp("binary"), table, binary(table)))
    sections = sections_of(result, monkeypatch)
    clusters = next(iter(tables_of(sections["Clusters"]).values())).frame
    assert not [name for name in clusters.columns if "median" in name or "risk" in name]
    assert not [part for part in sections["How the clusters fare"].parts if isinstance(part, Picture)]


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ((42.2, 33.1, np.inf), "42.2 (33.1 to not reached)"),
        ((np.inf, 33.1, np.inf), "not reached (33.1 to not reached)"),
        ((np.inf, np.inf, np.inf), "not reached"),
    ],
)
def test_a_median_that_is_not_reached_is_said_in_words(times: tuple[float, ...], words: str) -> None:
    assert pictures._median(*times) == words


def test_the_unit_of_the_volume_is_drawn_where_it_is_known(result: ProfileResult) -> None:
    assert profile_figures(result)["volume"]().axes[0].get_ylabel() == "volume"
    assert pd.notna(result.data.volume).all()
