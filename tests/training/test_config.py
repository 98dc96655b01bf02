from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from features.cohort import BinaryEndpoint
from features.errors import InputError
from features.sources import TableSource
from training.config import Compute, Study, load_study
from training.evaluation import InternalSettings
from training.search import OptunaSearch, TPOTSearch
from training.selection import PUBLISHED_METHODS
from training.studies import read_study

PUBLISHED = """
name: song2020
seed: 7
cohort:
  source: {kind: table, path: song2020.csv.gz, sample: ID}     # csv, tsv, parquet, .gz; several files joined on the sample
  endpoint: {kind: binary, column: Target, positive: 1}
  patient: PatientID          # optional; one patient may have several rows (lesions)
  drop: [Site, Scanner]         # optional
partition: {held_out: 0.25}   # of patients, stratified
recipe:
  selection:
    methods: [chi2, correlation, random_forest, linear_regression, logistic_regression, rfe, lightgbm]
    top: 100
    votes: 4
  search: {kind: tpot, generations: 5, population: 20, folds: 5}      # or {kind: optuna, trials: 100, folds: 5}
evaluation: {bootstrap: 1000, level: 0.95, internal: {folds: 5, repeats: 1}}     # internal: null leaves it out
model: song2020-hypoxia       # the name in the registry
compute: {workers: 2}
"""

SHORTEST = """
name: short
cohort:
  source: {kind: table, path: t.csv, sample: ID}
  endpoint: {kind: binary, column: Target}
model: short-model
"""


def load(folder: Path, text: str) -> Study:
    (folder / "study.yaml").write_text(text, encoding="utf-8")
    return load_study(folder / "study.yaml")


def refusal(folder: Path, text: str) -> str:
    """What is said of a study, without its path before and the pointer to the schema after."""
    with pytest.raises(InputError) as error:
        load(folder, text)
    message = str(error.value)
    assert "\n" not in message
    return message.removeprefix(f"{folder / 'study.yaml'}: ").removesuffix(" See `hypoxia schema`.")


def published(**changes: Any) -> Study:
    return Study.model_validate(yaml.safe_load(PUBLISHED) | changes)


def test_the_published_example_says_what_it_says(tmp_path: Path) -> None:
    study = load(tmp_path, PUBLISHED)
    assert (study.name, study.seed, study.model) == ("song2020", 7, "song2020-hypoxia")
    assert study.cohort.source == TableSource(path="song2020.csv.gz", sample="ID")
    assert study.cohort.endpoint == BinaryEndpoint(column="Target", positive=1)
    assert (study.cohort.patient, study.cohort.drop) == ("PatientID", ("Site", "Scanner"))
    assert study.partition.held_out == 0.25
    assert study.recipe.selection.voters(survival=False) == PUBLISHED_METHODS
    assert (study.recipe.selection.top, study.recipe.selection.needed(survival=False), study.recipe.selection.scope) == (
        100,
        4,
        "inner",
    )
    assert study.recipe.search == TPOTSearch(generations=5, population=20, folds=5)
    assert (study.evaluation.bootstrap, study.evaluation.level) == (1000, 0.95)
    assert study.evaluation.internal == InternalSettings(folds=5, repeats=1)
    assert study.compute.workers == 2
    assert study.folder == tmp_path


def test_the_published_settings_are_the_defaults(tmp_path: Path) -> None:
    short, full = load(tmp_path, SHORTEST), published()
    for key in ("partition", "evaluation", "compute"):
        assert getattr(short, key) == getattr(full, key), key
    for study in (short, full):
        assert study.recipe.selection.voters(survival=False) == PUBLISHED_METHODS
        assert study.recipe.selection.needed(survival=False) == 4
        assert study.recipe.threshold_rule(survival=False) == "youden"
    assert short.recipe.search == full.recipe.search


def test_the_other_engine_and_no_internal_validation_can_be_asked_for(tmp_path: Path) -> None:
    study = load(tmp_path, SHORTEST + "recipe: {search: {kind: optuna, trials: 100, folds: 5}}\nevaluation: {internal: null}\n")
    assert study.recipe.search == OptunaSearch(trials=100, folds=5)
    assert study.evaluation.internal is None


@pytest.mark.parametrize("path", sorted(set(Path("configs").glob("*.yaml")) - {Path("configs/gate.yaml")}), ids=str)
def test_every_study_that_ships_can_be_read(path: Path) -> None:
    assert read_study(path).name == path.stem


word = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="/:@\\"), min_size=1, max_size=8)
positive_number = st.integers(1, 10**6)
share = st.floats(0.01, 0.99)
method = st.sampled_from([one.kind for one in PUBLISHED_METHODS]) | st.builds(
    lambda trees: {"kind": "random_forest", "trees": trees}, st.integers(10, 1000)
)
studies = st.fixed_dictionaries(
    {
        "name": word,
        "seed": st.integers(0, 2**32),
        "model": st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z"),
        "cohort": st.fixed_dictionaries(
            {
                "source": st.fixed_dictionaries(
                    {"kind": st.just("table"), "path": word | st.lists(word, min_size=1), "sample": word}
                ),
                "endpoint": st.fixed_dictionaries(
                    {"kind": st.just("binary"), "column": word.map("outcome".__add__)},
                    optional={"positive": st.booleans() | st.integers() | st.floats(-1e9, 1e9) | word},
                ),
            },
            optional={"patient": word.map("patient".__add__), "drop": st.lists(word.map("drop".__add__))},
        ),
        "partition": st.fixed_dictionaries({"held_out": share}),
        "recipe": st.fixed_dictionaries(
            {
                "selection": st.fixed_dictionaries(
                    {
                        "methods": st.lists(
                            method, min_size=1, unique_by=lambda one: one if isinstance(one, str) else one["kind"]
                        ),
                        "votes": st.just(1),
                        "top": positive_number,
                    }
                ),
                "search": st.one_of(
                    st.fixed_dictionaries({"kind": st.just("tpot"), "generations": positive_number}),
                    st.fixed_dictionaries({"kind": st.just("optuna"), "trials": positive_number}),
                ),
                "threshold": st.just("youden") | share,
            }
        ),
    },
    optional={
        "evaluation": st.fixed_dictionaries({"internal": st.none()}),
        "compute": st.fixed_dictionaries({"workers": positive_number}),
    },
)


@given(studies)
def test_a_study_written_as_yaml_and_read_again_is_the_same_study(body: dict[str, Any]) -> None:
    study = Study.model_validate(body)
    text = yaml.safe_dump(study.model_dump(mode="json"), allow_unicode=True)
    again = Study.model_validate(yaml.safe_load(text))
    assert again == study
    assert again.fingerprint == study.fingerprint


def test_the_fingerprint_is_not_that_of_how_a_study_runs() -> None:
    study = published()
    assert (
        published(compute={"workers": 7, "seconds_per_candidate": 1.5, "seconds_per_search": 60}).fingerprint == study.fingerprint
    )
    assert published(compute=Compute()).fingerprint == study.fingerprint


def leaves(body: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all settings of a study, one per key that is no mapping."""
    if isinstance(body, dict):
        return [leaf for key, value in body.items() for leaf in leaves(value, (*path, key))]
    return [path]


OTHER_VALUES: dict[tuple[str, ...], Any] = {
    ("name",): "other",
    ("seed",): 8,
    ("model",): "other",
    ("contract", "missing"): "impute",
    ("contract", "limit"): 0.95,
    ("contract", "extraction"): "required",
    ("cohort", "source"): {"kind": "survset", "dataset": "gse1992"},
    ("cohort", "source", "path"): ["a.csv", "b.csv"],
    ("cohort", "source", "sample"): "Sample",
    ("cohort", "endpoint"): {"kind": "signature", "signature": "buffa2010"},
    ("cohort", "endpoint", "column"): "Outcome",
    ("cohort", "endpoint", "positive"): 2,
    ("cohort", "patient"): None,
    ("cohort", "site"): "Hospital",
    ("cohort", "acquisition"): ["EchoTime"],
    ("cohort", "clinical"): ["Stage"],
    ("cohort", "features"): ["T2_*"],
    ("cohort", "without_signatures"): ["all"],
    ("cohort", "drop"): ["Site"],
    ("cohort", "sequences"): {"adc": "adc.csv"},
    ("partition", "held_out"): 0.3,
    ("recipe", "harmonise"): {"kind": "combat"},
    ("recipe", "robust"): {"tables": ["first.csv", "second.csv"]},
    ("recipe", "selection", "methods"): ["chi2", "correlation", "rfe", "lightgbm"],
    ("recipe", "selection", "top"): 99,
    ("recipe", "selection", "votes"): 3,
    ("recipe", "selection", "scope"): "published",
    ("recipe", "search"): {"kind": "optuna"},
    ("recipe", "search", "generations"): 6,
    ("recipe", "search", "population"): 21,
    ("recipe", "search", "folds"): 4,
    ("recipe", "search", "choice"): "best",
    ("recipe", "signature"): {"kind": "signature", "signature": "buffa2010"},
    ("recipe", "threshold"): 0.5,
    ("baselines",): ["buffa2010"],
    ("scores",): {"hypoxia": "other-model"},
    ("evaluation", "bootstrap"): 999,
    ("evaluation", "level"): 0.9,
    ("evaluation", "internal"): None,
    ("evaluation", "internal", "folds"): 4,
    ("evaluation", "internal", "repeats"): 2,
    ("evaluation", "alternative"): "greater",
}


def changed(path: tuple[str, ...], value: Any) -> Study:
    body = published().model_dump(mode="json")
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return Study.model_validate(body)


@pytest.mark.parametrize("path", OTHER_VALUES, ids=".".join)
def test_the_fingerprint_changes_with_every_setting_that_decides_the_result(path: tuple[str, ...]) -> None:
    assert changed(path, OTHER_VALUES[path]).fingerprint != published().fingerprint


def test_no_setting_was_forgotten_in_the_test_above() -> None:
    settings = leaves(published().model_dump(mode="json", exclude={"compute"}))
    assert {path for path in settings if path[-1] != "kind"} - set(OTHER_VALUES) == set()


def test_a_stage_draws_the_same_whatever_other_stages_draw() -> None:
    study = published()
    alone = study.rng("model").random(5).tolist()
    study.rng("held out").random(1000)
    assert study.rng("model").random(5).tolist() == alone
    assert study.rng("held out").random(5).tolist() != alone
    assert published(seed=8).rng("model").random(5).tolist() != alone
    assert published(name="other").rng("model").random(5).tolist() == alone


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SHORTEST.replace("model:", "modle:"), "unknown key 'modle' (did you mean 'model'?); remove or correct it."),
        (SHORTEST.replace("path:", "pth:"), "unknown key 'cohort.source.pth' (did you mean 'path'?); remove or correct it."),
        (
            SHORTEST + "recipe: {selection: {vote: 4}}",
            "unknown key 'recipe.selection.vote' (did you mean 'votes'?); remove or correct it.",
        ),
        (
            SHORTEST + "recipe: {search: {kind: optuna, trails: 4}}",
            "unknown key 'recipe.search.trails' (did you mean 'trials'?); remove or correct it.",
        ),
        (
            SHORTEST + "evaluation: {internal: {repeat: 4}}",
            "unknown key 'evaluation.internal.repeat' (did you mean 'repeats'?); remove or correct it.",
        ),
        (
            SHORTEST + "recipe: {selection: {methods: [chi2, {kind: random_forest, tree: 9}], votes: 1}}",
            "unknown key 'recipe.selection.methods.1.tree' (did you mean 'trees'?); remove or correct it.",
        ),
    ],
)
def test_a_misspelt_key_is_named_with_the_nearest_one(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text) == message


def test_a_key_of_another_engine_is_not_suggested(tmp_path: Path) -> None:
    message = refusal(tmp_path, SHORTEST + "recipe: {search: {kind: tpot, trials: 4}}")
    assert message.startswith("unknown key 'recipe.search.trials' (known there: choice, folds, generations, kind, population)")


@pytest.mark.parametrize("key", ["table", "binary", "optuna", "float", "str"])
def test_a_key_that_is_also_the_name_of_a_kind_is_named(tmp_path: Path, key: str) -> None:
    assert refusal(tmp_path, SHORTEST + f"{key}: 1").startswith(f"unknown key {key!r}")
    assert refusal(tmp_path, SHORTEST + f"recipe: {{{key}: 1}}").startswith(f"unknown key 'recipe.{key}'")


def test_a_misspelt_key_comes_before_the_missing_one_that_it_explains(tmp_path: Path) -> None:
    assert "endpont" in refusal(tmp_path, SHORTEST.replace("endpoint", "endpont"))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (SHORTEST.replace("name: short\n", ""), "name"),
        (SHORTEST.replace("model: short-model", ""), "model"),
        (SHORTEST.replace(", sample: ID", ""), "cohort.source.sample"),
        (SHORTEST.replace(", column: Target", ""), "cohort.endpoint.column"),
    ],
)
def test_a_missing_key_is_named(tmp_path: Path, text: str, key: str) -> None:
    assert refusal(tmp_path, text) == f"key {key!r} is missing; add it."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SHORTEST.replace("kind: table, ", ""),
            "key 'cohort.source.kind' is missing; it says which of table, images, expression, survset is meant.",
        ),
        (SHORTEST.replace("kind: table", "kind: tabel"), "cohort.source is of unknown kind 'tabel' (did you mean 'table'?)"),
        (SHORTEST + "recipe: {search: {kind: topt}}", "recipe.search is of unknown kind 'topt' (did you mean 'tpot'?)"),
        (SHORTEST + "recipe: {search: {trials: 3}}", "key 'recipe.search.kind' is missing; it says which of tpot, optuna"),
        (
            SHORTEST + "recipe: {selection: {methods: [chi2, lasso], votes: 1}}",
            "recipe.selection.methods.1 is of unknown kind 'lasso'; known: chi2, correlation, random_forest,",
        ),
    ],
)
def test_an_unknown_or_missing_kind_is_named_with_those_that_are_known(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("seed: seven", "seed (it is 'seven'): should be a valid integer"),
        ("seed: -1", "seed (it is -1): should be greater than or equal to 0"),
        ("partition: 0.25", "partition (it is 0.25): should be a mapping, written as key: value"),
        ("partition: {held_out: 25}", "partition.held_out (it is 25): should be less than 1"),
        ("partition: {held_out: 25%}", "partition.held_out (it is '25%'): should be a valid number"),
        ("recipe: {selection: {methods: chi2}}", "recipe.selection.methods (it is 'chi2'): should be a list, written as [a, b]"),
        ("recipe: {selection: {methods: []}}", "recipe.selection: methods must be one or more different methods"),
        ("recipe: {selection: {methods: [rfe, rfe]}}", "recipe.selection: methods must be one or more different methods"),
        ("recipe: {selection: {methods: [chi2, rfe]}}", "recipe.selection: votes is 4, but only 2 methods vote"),
        (
            "recipe: {selection: {methods: [{kind: random_forest, trees: 3}]}}",
            "recipe.selection.methods.0.trees (it is 3): should be",
        ),
        ("recipe: {threshold: youdn}", "recipe.threshold (it is 'youdn'): should be 'youden' or 'median' or a valid number"),
        ("evaluation: {level: 95}", "evaluation.level (it is 95): should be less than 1"),
        ("evaluation: {alternative: less}", "evaluation.alternative (it is 'less'): should be 'two-sided' or 'greater'"),
        ("compute: {workers: 0}", "compute.workers (it is 0): should be greater than or equal to 1"),
    ],
)
def test_a_value_that_cannot_be_is_shown_at_its_key(tmp_path: Path, addition: str, message: str) -> None:
    assert refusal(tmp_path, f"{SHORTEST}{addition}\n").startswith(message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("model: short-model", "model: 2020", "model (it is 2020): should be text, in quotes"),
        (
            "column: Target",
            "column: Target, positive: [1]",
            "cohort.endpoint.positive: should be a valid boolean or a valid integer",
        ),
        ("path: t.csv", "path: 3", "cohort.source.path (it is 3): should be text, in quotes or a list, written as [a, b]"),
        (
            "{kind: binary, column: Target}",
            "Target",
            "cohort.endpoint (it is 'Target'): should be a mapping, written as key: value",
        ),
    ],
)
def test_the_alternatives_that_were_tried_are_no_part_of_the_path(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert refusal(tmp_path, SHORTEST.replace(old, new)).startswith(message)


@pytest.mark.parametrize("name", ["a/b", "a:1", "a@champion", "a\\b"])
def test_a_models_name_is_no_path_and_no_reference(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, SHORTEST.replace("short-model", f"'{name}'"))
    assert message.startswith(f"model (it is {name!r}): a model's name has letters, digits, dots")


def test_sequences_need_tables_of_names_that_a_model_may_have(tmp_path: Path) -> None:
    assert refusal(tmp_path, SHORTEST.replace("endpoint:", "sequences: {a/b: t.csv}\n  endpoint:")).startswith(
        "cohort.sequences.a/b"
    )
    of_survset = SHORTEST.replace("kind: table, path: t.csv, sample: ID", "kind: survset, dataset: gse1992")
    message = refusal(tmp_path, of_survset.replace("endpoint:", "sequences: {adc: t.csv}\n  endpoint:"))
    assert message == "cohort: sequences need source.kind: table or images."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [x\n", "is not valid YAML at line 2 (expected ',' or ']'"),
        ("name: x\n\tseed: 1\n", "is not valid YAML at line 2 (found character '\\t'"),
        (SHORTEST + "model: other\n", "is not valid YAML at line 7 (key 'model' is there twice)"),
        (SHORTEST.replace("sample: ID", "sample: ID, sample: Name"), "is not valid YAML at line 4 (key 'sample' is there twice)"),
        ("name: 2020-13-01\n", "is not valid YAML (month must be in 1..12)"),
        ("- name\n- model\n", "holds no study; it should begin with keys such as name, cohort and model."),
        ("just words\n", "holds no study"),
        ("", "holds no study"),
    ],
)
def test_a_file_that_is_no_study_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match=r"study\.yaml cannot be read \(UnicodeDecodeError\)"):
        load_study(tmp_path / "study.yaml")


def test_a_study_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml does not exist; give the path of a study file"):
        load_study(tmp_path / "nowhere.yaml")


def test_a_merged_key_of_yaml_may_be_overridden(tmp_path: Path) -> None:
    study = load(tmp_path, SHORTEST + "evaluation: {internal: {<<: {folds: 3, repeats: 2}, folds: 4}}\n")
    assert study.evaluation.internal == InternalSettings(folds=4, repeats=2)
