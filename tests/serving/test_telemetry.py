"""What Prometheus is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.telemetry import RequestFacts, Telemetry, note_refused, note_scored, reason_of


def samples(telemetry: Telemetry) -> dict[tuple[str, tuple[str, ...]], float]:
    """Values by name and labels."""
    families = text_string_to_metric_families(telemetry.render().decode())
    return {
        (one.name, tuple(value for _, value in sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


def scored(*probabilities: float, flagged: int = 0, version: str = "3") -> RequestFacts:
    facts = RequestFacts(request="r", route="/v1/models/{name}/predict", status=200)
    note_scored(
        {"hypoxia": facts}, model="small", version=version, rows=len(probabilities), flagged=flagged, probabilities=probabilities
    )
    return facts


def test_requests_rows_scores_and_flags_are_counted_by_model() -> None:
    telemetry = Telemetry()
    telemetry.count(scored(0.05, 0.95, flagged=1))
    telemetry.count(scored(0.15))
    found = samples(telemetry)
    assert found["hypoxia_requests_total", ("/v1/models/{name}/predict", "2xx")] == 2
    assert found["hypoxia_request_seconds_count", ("/v1/models/{name}/predict",)] == 2
    assert found["hypoxia_rows_total", ("small", "3")] == 3
    assert found["hypoxia_rows_out_of_distribution_total", ("small", "3")] == 1
    assert found["hypoxia_score_bucket", ("0.1", "small", "3")] == 1
    assert found["hypoxia_score_bucket", ("0.2", "small", "3")] == 2
    assert found["hypoxia_score_bucket", ("1.0", "small", "3")] == 3


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "authentication"), (404, "not_found"), (418, "malformed"), (422, "invalid_rows"), (500, "failure")],
)
def test_a_refusal_is_counted_by_what_was_noted_else_by_its_status(status: int, reason: str) -> None:
    telemetry = Telemetry()
    telemetry.count(RequestFacts(request="r", route="other", status=status))
    noted = RequestFacts(request="r", route="other", status=status)
    note_refused({"hypoxia": noted}, "out_of_distribution", model="small", version="3", rows=2)
    telemetry.count(noted)
    found = samples(telemetry)
    assert found["hypoxia_rejections_total", (reason,)] == 1
    assert found["hypoxia_rejections_total", ("out_of_distribution",)] == 1
    assert ("hypoxia_rows_total", ("small", "3")) not in found
    assert reason_of(noted) == "out_of_distribution"


def test_the_version_that_is_served_is_1_and_the_one_before_0() -> None:
    telemetry = Telemetry()
    telemetry.serve([("small", "3"), ("other", "1")])
    telemetry.serve([("small", "4"), ("other", "1")])
    found = samples(telemetry)
    assert [found["hypoxia_model_served", key] for key in (("small", "3"), ("small", "4"), ("other", "1"))] == [0, 1, 1]


def test_an_application_without_an_edge_may_note_what_it_likes() -> None:
    note_scored({}, model="small", version="3", rows=1, flagged=0, probabilities=[0.5])
    note_refused({}, "invalid_rows")


def test_workers_count_together(tmp_path: Path) -> None:
    count = (
        "from serving.telemetry import *; facts = RequestFacts(request='r', route='other', status=404);"
        "shared_telemetry().count(facts);"
        "shared_telemetry().serve([('small', '3')]); print(shared_telemetry().render().decode())"
    )
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(3):
        shown = subprocess.run([sys.executable, "-c", count], env=environment, capture_output=True, text=True, check=True).stdout
    assert 'hypoxia_requests_total{route="other",status="4xx"} 3.0' in shown
    assert 'hypoxia_model_served{model="small",version="3"} 1.0' in shown
