"""The committed JSON schema of study files."""

import json
from pathlib import Path

import yaml

from training.config import Study, load_study

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((CONFIGS / "study.schema.json").read_text())
    assert committed == Study.model_json_schema(), "run: hypoxia schema > configs/study.schema.json"


def test_every_committed_study_loads_and_uses_keys_that_the_schema_knows() -> None:
    schema = json.loads((CONFIGS / "study.schema.json").read_text())
    for path in set(CONFIGS.glob("*.yaml")) - {CONFIGS / "gate.yaml"}:  # a policy, not a study
        assert load_study(path).name
        assert set(yaml.safe_load(path.read_text())) <= set(schema["properties"])
