"""From images to a served model: what was extracted otherwise is refused, and the protocol is asked for."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from imaging_cohort import imaging_cohort, write_imaging_study

from tests.end_to_end.started import end, wait_until_ready

HYPOXIA = [sys.executable, "-P", "-m", "features.cli"]
PROTOCOL = ["T2_echo_time_ms", "T2_phase_direction"]


@dataclass(frozen=True)
class Served:
    url: str
    folder: Path
    environment: dict[str, str]
    trained: dict[str, Any]

    @property
    def model(self) -> str:
        return f"{self.url}/v1/models/imaging-hypoxia"

    def rows(self, count: int) -> list[dict[str, Any]]:
        """Extracted features and protocol of the first samples, as a client would send them."""
        features = pd.read_csv(self.folder / "extracted" / "features.csv", index_col="sample")
        protocol = pd.read_csv(self.folder / "extracted" / "acquisition.csv", index_col="sample")
        wanted = [*self.trained["selected_features"], *PROTOCOL]
        return json.loads(features.join(protocol)[wanted].head(count).to_json(orient="records", double_precision=15))

    def ask(self, rows: list[dict[str, Any]], **options: Any) -> httpx.Response:
        body = {"rows": [{"features": row} for row in rows], **options}
        return httpx.post(f"{self.model}/predict", json=body, timeout=30)


def hypoxia(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HYPOXIA, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("imaging")
    imaging_cohort(folder, 40, protocol=True)
    cohort = {
        "source": {"kind": "images", "manifest": "manifest.csv", "profile": "ibsi", "table": "outcomes.csv"},
        "endpoint": {"kind": "binary", "column": "hypoxic"},
        "acquisition": PROTOCOL,
    }
    recipe = {
        "harmonise": {"kind": "regression", "missing": "median"},
        "selection": {"methods": ["correlation", "chi2"], "votes": 1, "top": 8},
        "search": {"kind": "tpot", "generations": 1, "population": 3, "folds": 2},
    }
    write_imaging_study(folder, cohort=cohort, recipe=recipe)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'ml' / 'mlflow.db'}"}
    trained = hypoxia(folder, environment, "train", "study.yaml", "--json")
    assert trained.returncode == 0, trained.stderr
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [*HYPOXIA, "serve", "--model", "imaging-hypoxia", "--port", str(port)]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, url, lambda: (folder / "output").read_text())
        yield Served(url, folder, environment, json.loads(trained.stdout))
    finally:
        end(process)


def test_the_hash_of_the_extraction_travels_from_the_table_to_the_answer(served: Served) -> None:
    record = json.loads((served.folder / "extracted" / "features.json").read_text())
    contract = httpx.get(f"{served.model}/schema", timeout=30).json()
    answer = served.ask(served.rows(3), extraction_hash=record["settings_hash"])
    assert answer.status_code == 200
    assert contract["extraction_hash"] == answer.json()["extraction_hash"] == record["settings_hash"]


def test_features_of_other_settings_are_refused_with_the_reason(served: Served) -> None:
    answer = served.ask(served.rows(1), extraction_hash="0" * 64)
    assert answer.status_code == 422
    fault = answer.json()["errors"][0]
    assert fault["pointer"] == "/extraction_hash"
    assert "extracted with other settings" in fault["detail"]


def test_a_table_of_other_settings_is_refused_offline(served: Served) -> None:
    other = served.folder / "other"
    shutil.copytree(served.folder / "extracted", other)
    record = json.loads((other / "features.json").read_text())
    (other / "features.json").write_text(json.dumps({**record, "settings_hash": "0" * 64}))
    refused = hypoxia(served.folder, served.environment, "predict", "--model", "imaging-hypoxia", str(other / "features.csv"))
    assert refused.returncode == 2
    assert "extracted with other settings" in refused.stderr


def test_the_protocol_is_in_the_schema_with_its_words(served: Served) -> None:
    features = {one["name"]: one for one in httpx.get(f"{served.model}/schema", timeout=30).json()["features"]}
    assert list(features) == [*served.trained["selected_features"], *PROTOCOL]
    assert features["T2_phase_direction"]["levels"] == ["COL", "ROW"]
    assert features["T2_echo_time_ms"]["family"] == "acquisition"
    assert features["T2_echo_time_ms"]["may_be_null"]
    assert features[served.trained["selected_features"][0]]["reference"].startswith("IBSI:")


def test_the_served_score_is_the_offline_score(served: Served) -> None:
    table = str(served.folder / "extracted" / "features.csv")  # the protocol lies beside it
    offline = hypoxia(served.folder, served.environment, "predict", "--model", "imaging-hypoxia", "--json", table)
    assert offline.returncode == 0, offline.stderr
    wanted = [one["probability"] for one in json.loads(offline.stdout)["predictions"]][:6]
    answered = [one["probability"] for one in served.ask(served.rows(6)).json()["predictions"]]
    assert answered == pytest.approx(wanted, abs=1e-9)


def test_a_protocol_out_of_range_is_named_and_a_missing_or_unknown_one_is_filled_as_the_study_declares(served: Served) -> None:
    row = served.rows(1)[0]
    far = served.ask([{**row, "T2_echo_time_ms": 500.0}]).json()["predictions"][0]
    assert {"feature": "T2_echo_time_ms", "side": "above"} in far["out_of_distribution"]["outside_range"]
    filled = served.ask([{**row, "T2_phase_direction": None}]).json()["predictions"][0]
    assert filled["imputed"] == ["T2_phase_direction"]
    unknown = served.ask([{**row, "T2_phase_direction": "DIAGONAL"}]).json()["predictions"][0]
    assert unknown["replaced"] == ["T2_phase_direction"]
    assert unknown["probability"] == filled["probability"]
    refused = served.ask([{**row, "T2_phase_direction": 1.0}])
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/rows/0/features/T2_phase_direction"
    assert "is not a word" in refused.json()["errors"][0]["detail"]


def test_the_open_inference_protocol_takes_words_and_checks_the_hash(served: Served) -> None:
    url = f"{served.url}/v2/models/imaging-hypoxia"
    rows = served.rows(2)
    kinds = {one["name"]: one["datatype"] for one in httpx.get(url, timeout=30).json()["inputs"]}
    assert kinds["T2_phase_direction"] == "BYTES"
    inputs = [{"name": name, "shape": [2], "datatype": kinds[name], "data": [row[name] for row in rows]} for name in rows[0]]
    answer = httpx.post(f"{url}/infer", json={"inputs": inputs}, timeout=30).json()
    expected = [one["probability"] for one in served.ask(rows).json()["predictions"]]
    assert answer["outputs"][0]["data"] == pytest.approx(expected, abs=1e-12)
    refused = httpx.post(f"{url}/infer", json={"inputs": inputs, "parameters": {"extraction_hash": "x"}}, timeout=30)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/parameters/extraction_hash"
