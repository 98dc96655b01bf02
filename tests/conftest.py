"""Real data where there is some, and studies written as a user would write them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import settings

# Models are signed with a key of the tests' own, in every process that they start; never with the one of who runs them.
os.environ.setdefault("HYPOXIA_KEYS", tempfile.mkdtemp(prefix="hypoxia-test-keys-"))

# A busy machine must not fail a property.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of shared data that HYPOXIA_DATA names."""
    named = os.environ.get("HYPOXIA_DATA")
    if named and Path(named).is_dir():
        return Path(named)
    reason = f"HYPOXIA_DATA {f'names {named}, which is no folder' if named else 'is not set'}: no real data to test on"
    if os.environ.get("HYPOXIA_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., Path]:
    """Writes table.csv and study.yaml; keys may be replaced, those of the cohort one by one (None leaves one out)."""

    def write(frame: pd.DataFrame, *, cohort: dict[str, Any] | None = None, **changes: Any) -> Path:
        frame.to_csv(tmp_path / "table.csv", index=False)
        study: dict[str, Any] = {
            "name": "small",
            "cohort": {
                "source": {"kind": "table", "path": "table.csv", "sample": "ID"},
                "endpoint": {"kind": "binary", "column": "Target", "positive": 1},
                "patient": "PatientID",
                **(cohort or {}),
            },
            "model": "small-hypoxia",
            **changes,
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
        return path

    return write
