"""Follow-up, event, horizon: what an endpoint of survival makes of a table, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from asked import ask
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from survival_made import followed, survival_study

from features.cohort import Labelling
from features.errors import InputError
from features.outcome import is_survival, survival_outcome
from features.survival import SurvivalEndpoint


def endpoint(**changes: Any) -> SurvivalEndpoint:
    return SurvivalEndpoint.model_validate({"time": "months", "event": "relapse"} | changes)


def table(months: list[Any], relapse: list[Any]) -> pd.DataFrame:
    index = pd.Index([f"s{number}" for number in range(len(months))], name="ID")
    return pd.DataFrame({"months": months, "relapse": relapse}, index=index)


def labelled(months: list[Any], relapse: list[Any], **changes: Any) -> Labelling:
    return endpoint(**changes).label(table(months, relapse))


def refusal(months: list[Any], relapse: list[Any], **changes: Any) -> str:
    with pytest.raises(InputError) as error:
        labelled(months, relapse, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_whoever_is_followed_longer_than_the_horizon_was_last_seen_there_without_the_event() -> None:
    found = labelled([10, 60, 60.5, 80, 80], [1, 1, 1, 1, 0], horizon=60)
    assert found.times.tolist() == [10, 60, 60, 60, 60]
    assert found.labels.tolist() == [1, 1, 0, 0, 0]
    assert (found.horizon, found.unit, found.used) == (60, "months", ("months", "relapse"))
    assert found.competing is None


def test_without_a_horizon_times_stay_and_the_longest_time_to_an_event_is_the_horizon() -> None:
    found = labelled([10, 42, 80], [1, 1, 0])
    assert found.times.tolist() == [10, 42, 80]
    assert found.labels.tolist() == [1, 1, 0]
    assert found.horizon == 42


@given(
    st.lists(st.tuples(st.floats(0.01, 200), st.booleans()), min_size=3, max_size=30),
    st.floats(1, 150),
)
def test_an_event_counts_if_and_only_if_it_came_by_the_horizon(rows: list[tuple[float, bool]], horizon: float) -> None:
    rows.append((0.5, True))
    months, relapse = [row[0] for row in rows], [int(row[1]) for row in rows]
    found = labelled(months, relapse, horizon=horizon)
    assert found.labels.tolist() == [float(happened and month <= horizon) for month, happened in rows]
    assert found.times.tolist() == [min(month, horizon) for month in months]


def test_a_zero_time_is_half_of_the_shortest_above_zero_unless_the_study_says_otherwise() -> None:
    found = labelled([0, 4, 8, 0], [1, 1, 0, 0])
    assert found.times.tolist() == [2, 4, 8, 2]
    assert found.labels.tolist() == [1, 1, 0, 0]
    assert found.notes[0] == "A follow-up of zero counts as 2 months (2 samples)."
    assert found.notes[1:] == ("No horizon is set: the event is looked for until the last one, at 4 months.",)


def test_zero_times_can_be_left_out() -> None:
    found = labelled([0, 4, 8], [1, 1, 0], zero_times="leave_out")
    assert found.labels.isna().tolist() == [True, False, False]
    assert found.times.isna().tolist() == [True, False, False]
    assert found.notes[0] == "Left out for a follow-up of zero: 1 sample."


def test_zero_times_can_be_refused_and_are_where_nobody_has_another() -> None:
    said = "1 sample with a follow-up of zero in 'months' (first: 's0'); correct the dates, or set "
    assert refusal([0, 4], [1, 1], zero_times="refuse").startswith(said + "cohort.endpoint.zero_times to half_of_shortest")
    assert refusal([0, 0], [1, 1]).startswith("2 samples with a follow-up of zero in 'months'")


def test_a_zero_time_of_someone_whose_event_is_unknown_is_nothing_to_mend() -> None:
    found = labelled([0, 4, 8], [None, 1, 0], zero_times="refuse")
    assert found.labels.isna().tolist() == [True, False, False]


def test_time_or_event_unknown_makes_the_outcome_unknown() -> None:
    found = labelled([5, None, 7, 8], [1, 1, None, 0])
    assert found.labels.isna().tolist() == [False, True, True, False]
    assert found.times.isna().tolist() == [False, True, True, False]


def test_a_negative_time_is_refused_with_the_sample() -> None:
    assert refusal([3, -2], [1, 1]) == (
        "Sample 's1' has a follow-up of -2 in 'months'; a time cannot be negative: correct its dates, or leave the cell empty."
    )


@pytest.mark.parametrize("bad", ["unknown", np.inf, -np.inf])
def test_text_and_infinite_times_are_refused_with_the_value(bad: Any) -> None:
    assert refusal([3, bad], [1, 1]) == (
        f"Column 'months' (cohort.endpoint.time) holds {str(bad)!r}, which is no time; give the time of follow-up as a number, "
        "or leave the cell empty."
    )


def test_values_of_the_event_that_the_study_does_not_explain_are_refused() -> None:
    said = refusal([1, 2, 3, 4], [1, 0, 2, 0])
    assert said.startswith(
        "Column 'relapse' (cohort.endpoint.event) has values that the study does not explain ('0', '2'); say which is positive"
    )
    assert "('2')" in refusal([1, 2, 3, 4], [1, 0, 2, 0], censored=0)


def test_competing_events_end_the_follow_up_and_are_told_apart() -> None:
    found = labelled([5, 6, 7, 70], [1, 2, 0, 2], competing=[2], horizon=60)
    assert found.labels.tolist() == [1, 0, 0, 0]
    assert found.competing.tolist() == [False, True, False, False]  # the last came after one had stopped looking


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        (["1:PROGRESSION", "0:CENSORED"], "1:PROGRESSION"),
        ([1, 0], 1),
        ([1.0, 0.0], 1),
        (["1", "0"], 1),
        ([True, False], 1),
        ([True, False], True),
        ([2, 1], "2"),
    ],
)
def test_the_event_may_be_a_word_a_number_or_a_truth_value(values: list[Any], positive: Any) -> None:
    assert labelled([5, 6], values, positive=positive).labels.tolist() == [1, 0]


def test_no_event_is_refused_with_what_there_is() -> None:
    assert refusal([5, 6], [0, 0]) == (
        "No row has the event: with positive: 1 it would be another value than those of 'relapse' ('0'). Set "
        "cohort.endpoint.positive to the value of the event."
    )
    assert refusal([50, 60], [1, 0], horizon=12) == (
        "No row has the event by 12 months, and 1 have it later (median follow-up 55). Are the times of 'months' in months? Set "
        "cohort.endpoint.horizon and unit as the times are."
    )
    assert refusal([None, 6], [1, 0]).startswith("No row has the event")


def test_one_and_two_are_not_guessed_at() -> None:
    assert refusal([5, 6], [1, 2]) == (
        "Column 'relapse' (cohort.endpoint.event) has 1 and 2, of which 2 often is the event and 1 is not; say which: positive: "
        "2, censored: 1 (or positive: 1, censored: 2)."
    )
    assert labelled([5, 6], [1, 2], positive=2, censored=1).labels.tolist() == [0, 1]
    assert labelled([5, 6], [1, 2], positive=1, censored=2).labels.tolist() == [1, 0]


def test_times_that_look_like_another_unit_and_a_horizon_beyond_follow_up_are_noted() -> None:
    days = labelled([30, *range(200, 3000, 100)], [1] * 29, horizon=60)
    assert days.notes == ("Only 1 of 29 events are by 60 months (median follow-up 1500): are the times in months?",)
    far = labelled([30, 50], [1, 0], horizon=60)
    assert far.notes[0].startswith("The horizon of 60 months is beyond all follow-up (the longest is 50)")


@pytest.mark.parametrize(
    "changes",
    [{"positive": 1, "competing": [1]}, {"positive": 1, "censored": "1"}, {"competing": [2], "censored": 2}],
)
def test_one_value_of_the_event_cannot_mean_two_things(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="cannot mean two things"):
        endpoint(**changes)


def test_time_and_event_are_two_columns() -> None:
    with pytest.raises(ValidationError, match="named as time and as event"):
        endpoint(event="months")


def test_an_absent_column_is_named_with_its_key_and_the_nearest_one() -> None:
    with pytest.raises(InputError, match=r"Column 'month' \(cohort.endpoint.time\) is not in the table.*'months'"):
        endpoint(time="month").label(table([1], [1]))
    with pytest.raises(InputError, match=r"Column 'relapsed' \(cohort.endpoint.event\) is not in the table"):
        endpoint(event="relapsed").label(table([1], [1]))


def test_a_survival_outcome_is_told_from_classes() -> None:
    outcome = survival_outcome(np.array([3.0, 5.0]), np.array([1, 0]))
    assert outcome["event"].tolist() == [True, False]
    assert outcome["time"].tolist() == [3, 5]
    assert is_survival(outcome)
    assert not is_survival(np.array([0, 1]))


BAD_TABLES = {
    "negative": (lambda frame: frame.assign(months=frame["months"].where(frame.index != 3, -1)), "has a follow-up of -1"),
    "text": (
        lambda frame: frame.astype({"months": object}).assign(months=lambda one: one["months"].where(one.index != 3, "soon")),
        "which is no time",
    ),
    "no events": (lambda frame: frame.assign(relapse=0), "No row has the event by 60 months"),
    "unexplained": (lambda frame: frame.assign(relapse=np.arange(len(frame)) % 4), "that the study does not explain"),
}


@pytest.mark.parametrize("mistake", BAD_TABLES)
def test_check_stops_at_it_with_one_sentence_and_exit_code_two(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, sentence = BAD_TABLES[mistake]
    study = survival_study(tmp_path, spoil(followed()))
    answer = ask(monkeypatch, capsys, "check", str(study), "--tracking-uri", f"sqlite:///{tmp_path}/store/mlflow.db")
    assert answer.code == 2
    assert sentence in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert sorted(one.name for one in tmp_path.iterdir()) == ["followed.csv", "followed.yaml"]
