"""The committed JSON schema of study files."""

import json
from pathlib import Path

import yaml

from training.studies import json_schema, read_study

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((CONFIGS / "study.schema.json").read_text())
    assert committed == json_schema(), "run: hypoxia schema > configs/study.schema.json"


def test_every_committed_study_loads_and_uses_keys_that_the_schema_of_its_kind_knows() -> None:
    kinds = json.loads((CONFIGS / "study.schema.json").read_text())["$defs"]
    for path in set(CONFIGS.glob("*.yaml")) - {CONFIGS / "gate.yaml"}:  # a policy, not a study
        study = read_study(path)
        assert study.name
        assert set(yaml.safe_load(path.read_text())) <= set(kinds[type(study).__name__]["properties"])
