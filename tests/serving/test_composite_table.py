"""``hypoxia predict`` with a composite: a table of two values, or of the features behind them; and a composite in a Bento."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from features.bundle import load_bundle, save_bundle
from features.errors import BundleError, InputError, SchemaMismatchError
from features.signing import trusted_keys
from serving import cli, packaging
from serving.app import create_app
from serving.follower import Follower
from serving.loader import LoadedModel, load_registered, parse_reference
from serving.predictor import Predictor
from serving.served import ServedModels
from serving.shadow import Answered, Shadow, operation_metrics
from serving.shelf import Copy, Listing, Shelf, Shelved
from tests.serving.composites import GENES, NAME, component_folders, composite_bundle
from tests.serving.conftest import Client
from tests.serving.registered import FEATURES, register, rows_like_training, small_bundle

Stored = Callable[..., LoadedModel]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A composite of a policy that was saved with both its components, and loaded."""
    made: dict[str, LoadedModel] = {}

    def make(missing: str = "refuse") -> LoadedModel:
        if missing not in made:
            folder = tmp_path_factory.mktemp("store")
            bundle = composite_bundle(missing)  # type: ignore[arg-type]
            save_bundle(bundle, folder / "bundle", np.array([[0.3, 1.0]]), component_folders(folder / "parts"))
            made[missing] = LoadedModel(NAME, "1", load_bundle(folder / "bundle"))
        return made[missing]

    return make


@pytest.fixture
def written(tmp_path: Path) -> Callable[[pd.DataFrame], Path]:
    def write(frame: pd.DataFrame) -> Path:
        frame.to_csv(tmp_path / "table.csv", index=False)
        return tmp_path / "table.csv"

    return write


def values(rows: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"hypoxic_fraction": rng.normal(0.4, 0.2, rows), "gene_score": rng.normal(0, 1.5, rows)})
    return frame.assign(ID=[f"{number:03}" for number in range(rows)])


def expression(rows: int = 6) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(9).normal(8, 1, (rows, len(GENES))), columns=GENES)


def imaging(rows: int = 6) -> pd.DataFrame:
    return pd.DataFrame(rows_like_training(rows))


def run(table: Path, model: LoadedModel, *more: str) -> Result:
    """The command on a model that need not be looked up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_load", lambda *_: model)
        return CliRunner().invoke(cli.predict, [str(table), "--model", model.name, *more], catch_exceptions=False)


def predict(table: Path, model: LoadedModel) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(run(table, model).stdout), dtype={"sample": str})


def over_http(model: LoadedModel, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    client = Client(create_app({NAME: Predictor(model)}))
    answer = client.ask("POST", f"/v1/models/{NAME}/predict", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


def test_a_registered_composite_is_found_with_its_components_scores_a_table_and_is_served(
    tmp_path: Path, written: Callable[..., Path]
) -> None:
    golden, parts = np.array([[0.3, 1.0]]), component_folders(tmp_path / "parts")
    uri = register(composite_bundle(), tmp_path, NAME, golden=golden, components=parts).uri
    frame = pd.concat([imaging(), expression()], axis=1)
    arguments = [str(written(frame)), "--model", f"{NAME}:1", "--tracking-uri", uri]
    found = pd.read_csv(io.StringIO(CliRunner().invoke(cli.predict, arguments, catch_exceptions=False).stdout))
    model = load_registered(parse_reference(NAME), uri)
    assert list(model.bundle.components) == ["hypoxic_fraction", "gene_score"]
    values = np.column_stack([found["part.hypoxic_fraction"], found["part.gene_score"]])
    assert found["probability"].tolist() == pytest.approx(model.bundle.score(values).tolist(), abs=1e-9)
    shelf = Shelf(tmp_path / "shelf")
    [listed] = Follower(shelf, uri).stock([f"{NAME}:1"], follow=False).models
    assert set(ServedModels(shelf)[NAME].loaded.bundle.components) == set(parts)
    changed = shelf.path(listed.current) / "components" / "1" / "card.json"
    changed.write_bytes(changed.read_bytes() + b" ")
    with pytest.raises(BundleError, match="changed after it was signed"):
        ServedModels(shelf)


def test_a_table_of_both_values_is_scored_as_the_endpoint_does(stored: Stored, written: Callable[..., Path]) -> None:
    frame = values()
    found = predict(written(frame), stored())
    assert list(found.columns) == [
        *("sample", "probability", "label", "threshold", "model", "version", "out_of_distribution"),
        *("score", "part.hypoxic_fraction", "part.gene_score", "missing"),
    ]
    rows = frame.drop(columns="ID").to_dict("records")
    served = over_http(stored(), [{"features": row} for row in rows])
    assert found["sample"].tolist() == frame["ID"].tolist()
    assert found["probability"].tolist() == pytest.approx([one["probability"] for one in served], abs=1e-9)
    assert found["score"].tolist() == pytest.approx([one["score"] for one in served], abs=1e-9)
    assert found["label"].tolist() == [one["label"] for one in served]
    assert set(found["label"]) == {"more hypoxic", "less hypoxic"}
    assert found["missing"].isna().all()


@pytest.mark.parametrize("with_fraction", [True, False])
def test_a_biomarker_that_is_no_column_is_computed_from_its_features(
    stored: Stored, written: Callable[..., Path], with_fraction: bool
) -> None:
    frame = pd.concat([values()[["ID", "hypoxic_fraction"]] if with_fraction else imaging(), expression()], axis=1)
    found = predict(written(frame.rename(columns={"HILPDA": "HIG2"})), stored())
    rows: list[dict[str, Any]] = [{"components": {"gene_score": row}} for row in expression().to_dict("records")]
    for row, fraction, features in zip(rows, values()["hypoxic_fraction"], imaging().to_dict("records"), strict=True):
        if with_fraction:
            row["features"] = {"hypoxic_fraction": fraction}
        else:
            row["components"]["hypoxic_fraction"] = features
    served = over_http(stored(), rows)
    assert found["probability"].tolist() == pytest.approx([one["probability"] for one in served], abs=1e-9)
    for place, name in enumerate(("hypoxic_fraction", "gene_score")):
        expected = [one["composite"]["parts"][place]["value"] for one in served]
        assert found[f"part.{name}"].tolist() == pytest.approx(expected, abs=1e-9)
    assert found["out_of_distribution"].tolist() == [one["out_of_distribution"]["flagged"] for one in served]


def test_a_column_of_values_is_taken_before_the_features_that_would_give_it(stored: Stored, written: Callable[..., Path]) -> None:
    both = pd.concat([values(), expression()], axis=1)
    pd.testing.assert_frame_equal(predict(written(both), stored()), predict(written(values()), stored()))


def test_features_unlike_a_components_training_flag_their_row(stored: Stored, written: Callable[..., Path]) -> None:
    frame = pd.concat([values()[["hypoxic_fraction"]].assign(hypoxic_fraction=0.4), expression() * 0 + 8], axis=1)
    frame.loc[2, ["DDIT3", "ERO1A"]] = [12.0, 4.0]
    assert predict(written(frame), stored())["out_of_distribution"].tolist() == [row == 2 for row in range(6)]


def test_a_column_that_is_not_there_is_no_biomarker_that_nobody_has(stored: Stored, written: Callable[..., Path]) -> None:
    misspelt = values().rename(columns={"gene_score": "gene_scores"})
    with pytest.raises(SchemaMismatchError, match=r"'gene_score' is missing.* a patient without it has an empty cell"):
        run(written(misspelt), stored("alone"))


@pytest.mark.parametrize("missing", ["cells", "features"])
def test_a_missing_biomarker_is_answered_by_the_other_alone(stored: Stored, written: Callable[..., Path], missing: str) -> None:
    frame = values()
    if missing == "cells":
        frame["gene_score"] = np.nan
    else:
        genes = expression()
        genes.loc[1:] = np.nan
        frame = pd.concat([frame.drop(columns="gene_score"), genes], axis=1)
    found = predict(written(frame), stored("alone")).iloc[1:]
    fractions = values()["hypoxic_fraction"].to_numpy()[1:]
    matrix = np.column_stack([fractions, np.full(5, np.nan)])
    assert found["probability"].tolist() == pytest.approx(
        composite_bundle("alone").pipeline.predict_proba(matrix)[:, 1].tolist(), abs=1e-9
    )
    assert (found["missing"] == "gene_score").all()
    assert found["part.gene_score"].isna().all()


def test_a_missing_biomarker_is_refused_and_so_named_where_the_card_says_so(stored: Stored, written: Callable[..., Path]) -> None:
    frame = pd.concat([values()[["hypoxic_fraction"]], expression().drop(columns="STC2")], axis=1)
    with pytest.raises(SchemaMismatchError, match=r"'gene_score' is missing, and so are features of small-genes.* \(STC2\)"):
        run(written(frame), stored())
    gap = values()
    gap.loc[0, "gene_score"] = np.nan
    with pytest.raises(SchemaMismatchError, match="'gene_score' has a value that is missing"):
        run(written(gap), stored())


def test_rows_without_either_biomarker_are_refused_and_counted(stored: Stored, written: Callable[..., Path]) -> None:
    frame = values()
    frame.loc[[1, 4], ["hypoxic_fraction", "gene_score"]] = np.nan
    with pytest.raises(InputError, match="2 of 6 rows have neither hypoxic_fraction nor gene_score"):
        run(written(frame), stored("alone"))


def test_a_gap_in_one_gene_is_the_components_to_judge(stored: Stored, written: Callable[..., Path]) -> None:
    frame = pd.concat([values()[["hypoxic_fraction"]], expression()], axis=1)
    frame.loc[0, "STC2"] = np.nan
    with pytest.raises(SchemaMismatchError, match="'STC2' has a value that is missing"):
        run(written(frame), stored("alone"))


def test_one_object_for_machines_holds_scores_and_parts_and_words_say_what_the_probability_is(
    stored: Stored, written: Callable[..., Path]
) -> None:
    frame = values()
    frame.loc[0, "gene_score"] = np.nan
    result = run(written(frame), stored("alone"), "--json", "--explain")
    found = json.loads(result.stdout)
    assert found["probability_of"] == "risk of the event by 60 months"
    assert found["positive_from"] == "composite score at or above 0"
    first, second = found["predictions"][:2]
    assert first["parts"] == {"hypoxic_fraction": pytest.approx(frame["hypoxic_fraction"][0]), "gene_score": None}
    assert (first["missing"], second["missing"]) == ("gene_score", None)
    assert second["score"] == pytest.approx(0.991 * frame["hypoxic_fraction"][1] + 0.132 * frame["gene_score"][1] - 0.42)
    assert set(first["explanation"]["features"]) == {"hypoxic_fraction", "gene_score"}
    assert "more hypoxic (composite score at or above 0). The probability is the risk of the event by 60 months." in result.stderr


def test_a_challenger_is_compared_by_what_its_score_calls(stored: Stored) -> None:
    """Its probability would call some rows otherwise."""
    served = Predictor(stored())
    rows = values(50).drop(columns="ID").to_dict("records")
    scored = served.predict(rows)
    assert any((one.label == "more hypoxic") != (one.probability >= one.threshold) for one in scored)

    class Both:
        def challenger(self, _: str) -> Predictor:
            return Predictor(replace(served.loaded, version="disagreeing"))

    answered = Answered(NAME, rows, [one.probability for one in scored], [one.label for one in scored])
    Shadow(Both()).compare(answered)  # type: ignore[arg-type]
    disagreements = operation_metrics().disagreements.labels(NAME, "disagreeing")
    assert disagreements._value.get() == 0


def test_a_bento_holds_the_keys_of_those_who_signed_the_components(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A component that was trained on another machine must verify inside the Bento too."""
    monkeypatch.setenv("HYPOXIA_KEYS", str(tmp_path / "theirs"))
    parts = component_folders(tmp_path / "parts")
    monkeypatch.setenv("HYPOXIA_KEYS", str(tmp_path / "ours"))
    (tmp_path / "ours" / "trusted").mkdir(parents=True)
    [theirs] = (tmp_path / "theirs" / "trusted").glob("*.pub")
    (tmp_path / "ours" / "trusted" / theirs.name).write_bytes(theirs.read_bytes())
    shelf = Shelf(tmp_path / "stage" / "models")
    copy = shelf.put(NAME, "1", lambda folder: save_bundle(composite_bundle(), folder, np.array([[0.3, 1.0]]), parts))
    shelf.write(Listing(models=(Shelved(name=NAME, current=Copy(**copy.model_dump())),)))
    packaging._write_stage(tmp_path / "stage", shelf, shelf.read())
    monkeypatch.setenv("HYPOXIA_KEYS", str(tmp_path / "stage" / "keys"))
    assert len(trusted_keys()) == 2
    assert set(load_bundle(shelf.path(copy)).components) == set(parts)


def test_a_plain_survival_model_says_whose_risk_it_gives(written: Callable[..., Path]) -> None:
    small = small_bundle()
    card = small.card.model_copy(update={"horizon": 24.0, "time_unit": "months", "positive_label": "high risk"})
    model = LoadedModel("m", "1", replace(small, card=card))
    result = run(written(imaging(3)), model)
    assert "high risk (probability at or above 0.4). The probability is the risk of the event by 24 months." in result.stderr
    assert result.stdout.splitlines()[0] == "sample,probability,label,threshold,model,version,out_of_distribution"
    client = Client(create_app({"m": Predictor(model)}))
    [found] = client.ask("POST", "/v1/models/m/predict", json={"rows": [{"features": dict.fromkeys(FEATURES, 0.0)}]}).json()[
        "predictions"
    ]
    assert (found["score"], found["composite"]) == (None, None)
    described = client.ask("GET", "/v1/models/m").json()["card"]
    assert (described["horizon"], described["time_unit"]) == (24.0, "months")
