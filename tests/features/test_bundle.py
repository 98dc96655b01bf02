from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

import features.bundle
from features import signing
from features.bundle import FILES, FORMAT, MANIFEST, ModelBundle, bundle_digest, load_bundle, save_bundle
from features.errors import BundleError
from features.signing import SIGNATURE, SignatureError
from features.table import FeatureSchema
from tests.serving.registered import small_bundle

ROWS = np.random.default_rng(1).normal(size=(5, 4)) * [1e4, 1.0, 50.0, 3.0]


class Spy(TransformerMixin, BaseEstimator):
    """Leaves a trace when it is used; no class that a bundle may hold."""

    def fit(self, X: Any, y: Any = None) -> Spy:
        return self

    def transform(self, X: Any) -> Any:
        return X


def pickled_down(matrix: Any) -> Any:
    return matrix


def saved(folder: Path, bundle: ModelBundle | None = None) -> Path:
    save_bundle(bundle or small_bundle(), folder / "bundle", golden=ROWS[:2])
    return folder / "bundle"


def with_pipeline(pipeline: Pipeline) -> ModelBundle:
    small = small_bundle()
    y = np.array([0, 1] * 10)
    pipeline.fit(np.random.default_rng(0).normal(size=(20, 4)) + y[:, None], y)
    return replace(small, pipeline=pipeline)


def make_manifest_fit(folder: Path) -> None:
    """What an attacker who may write the folder would do: the digests are of the changed files."""
    files = [path for path in folder.iterdir() if path.name not in {MANIFEST, SIGNATURE}]
    digests = {path.name: features.bundle._digest(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "sha256": digests}))


def sign_again(folder: Path) -> None:
    """What one could do who holds a trusted key: what is behind the signature must hold by itself."""
    make_manifest_fit(folder)
    (folder / SIGNATURE).unlink()
    signing.sign(folder)


def test_a_bundle_that_was_saved_scores_the_same_when_it_is_loaded(tmp_path: Path) -> None:
    bundle = small_bundle()
    loaded = load_bundle(saved(tmp_path, bundle))
    np.testing.assert_array_equal(loaded.score(ROWS), bundle.pipeline.predict_proba(ROWS)[:, 1])
    assert loaded.schema == bundle.schema
    assert loaded.card == bundle.card
    assert loaded.contract == bundle.contract
    np.testing.assert_array_equal(loaded.background, bundle.background)


def test_a_model_of_many_trees_comes_back_too(tmp_path: Path) -> None:
    bundle = with_pipeline(make_pipeline(SimpleImputer(), GradientBoostingClassifier(n_estimators=5)))
    np.testing.assert_array_equal(load_bundle(saved(tmp_path, bundle)).score(ROWS), bundle.score(ROWS))


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_byte_is_noticed(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"'{name}' was changed"):
        load_bundle(folder)


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("forged", [False, True])
def test_a_missing_file_is_named(tmp_path: Path, name: str, forged: bool) -> None:
    folder = saved(tmp_path)
    (folder / name).unlink()
    if forged:
        make_manifest_fit(folder)
    with pytest.raises(BundleError, match=f"'{name}' is missing"):
        load_bundle(folder)


@pytest.mark.parametrize("forged", [False, True])
def test_a_pickle_that_was_added_is_refused_and_never_opened(tmp_path: Path, forged: bool) -> None:
    folder = saved(tmp_path)
    evidence = tmp_path / "evidence"

    class Harm:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {evidence}",)

    (folder / "model.pkl").write_bytes(pickle.dumps(Harm()))
    if forged:
        make_manifest_fit(folder)
    with pytest.raises(BundleError, match=r"'model\.pkl' is extra"):
        load_bundle(folder)
    assert not evidence.exists()


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"format": 2}', '{"format": 2, "sha256": [1]}'])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, content: str | None) -> None:
    folder = saved(tmp_path)
    (folder / MANIFEST).unlink() if content is None else (folder / MANIFEST).write_text(content)
    with pytest.raises(BundleError, match=MANIFEST):
        load_bundle(folder)


def test_a_format_of_the_future_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"format": FORMAT + 1}))
    with pytest.raises(BundleError, match=f"of format {FORMAT + 1}; this version reads {FORMAT}"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (FunctionTransformer(pickled_down), "pickled_down"),
        (Spy(), "Spy"),
    ],
)
def test_a_class_or_function_that_is_not_on_the_list_is_named_and_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Any, named: str
) -> None:
    folder = saved(tmp_path, with_pipeline(make_pipeline(step, LogisticRegression())))
    monkeypatch.setattr(skops.io, "load", lambda *_, **__: pytest.fail("the pipeline was built"))
    with pytest.raises(BundleError, match=f"{named}, which is not among the classes"):
        load_bundle(folder)


def test_a_command_hidden_in_a_pipeline_is_refused_and_not_run(tmp_path: Path) -> None:
    bundle = with_pipeline(make_pipeline(FunctionTransformer(None), LogisticRegression()))
    folder = saved(tmp_path, bundle)
    evidence = tmp_path / "evidence"
    bundle.pipeline.steps[0] = ("harm", FunctionTransformer(os.system, kw_args={"command": f"touch {evidence}"}))
    skops.io.dump(bundle.pipeline, folder / "pipeline.skops")
    sign_again(folder)
    with pytest.raises(BundleError, match="system, which is not among the classes"):
        load_bundle(folder)
    assert not evidence.exists()


def test_golden_rows_that_score_differently_are_noticed(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    golden = json.loads((folder / "golden.json").read_text())
    golden["scores"][0] += 1e-6
    (folder / "golden.json").write_text(json.dumps(golden))
    sign_again(folder)
    with pytest.raises(BundleError, match="scores its golden rows differently here"):
        load_bundle(folder)


def test_a_save_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="features"):
        save_bundle(small_bundle(), tmp_path / "bundle", golden=np.zeros((2, 7)))
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(features.bundle, "_flush", interrupt)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_never_written_over_another(tmp_path: Path) -> None:
    folder = saved(tmp_path, small_bundle(seed=0))
    with pytest.raises(OSError, match="not empty"):
        saved(tmp_path, small_bundle(seed=1))
    np.testing.assert_array_equal(load_bundle(folder).score(ROWS), small_bundle(seed=0).score(ROWS))
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_nothing_of_a_loaded_schema_is_lost(tmp_path: Path) -> None:
    small = small_bundle()
    schema = FeatureSchema.model_validate(
        {"features": [{"name": name, "unit": "mm", "reference": "IBSI:1"} for name in small.schema.names]}
    )
    assert load_bundle(saved(tmp_path, replace(small, schema=schema))).schema == schema


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_file_with_a_manifest_that_fits_fails_the_signature(tmp_path: Path, name: str) -> None:
    folder = saved(tmp_path)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    make_manifest_fit(folder)
    with pytest.raises(SignatureError, match="changed after it was signed"):
        load_bundle(folder)


def test_a_bundle_without_signature_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / SIGNATURE).unlink()
    with pytest.raises(SignatureError, match="not signed"):
        load_bundle(folder)


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"mediaType": "x"}'])
def test_a_signature_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    folder = saved(tmp_path)
    (folder / SIGNATURE).write_text(content)
    with pytest.raises(SignatureError, match="signature is of none of the"):
        load_bundle(folder)


def test_a_bundle_of_another_machine_is_taken_once_its_key_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPOXIA_KEYS", str(tmp_path / "theirs"))
    folder = saved(tmp_path)
    monkeypatch.setenv("HYPOXIA_KEYS", str(tmp_path / "ours"))
    with pytest.raises(SignatureError, match=r"copy that machine's public key .* into .*ours/trusted"):
        load_bundle(folder)
    (tmp_path / "ours" / "trusted").mkdir(parents=True)
    (public,) = (tmp_path / "theirs" / "trusted").glob("*.pub")
    (tmp_path / "ours" / "trusted" / public.name).write_bytes(public.read_bytes())
    np.testing.assert_array_equal(load_bundle(folder).score(ROWS), small_bundle().score(ROWS))


def test_the_digest_tells_bundles_apart(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one"), saved(tmp_path / "other", small_bundle(seed=1))
    assert bundle_digest(one) == bundle_digest(one) != bundle_digest(other)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pipeline.skops", pickle.dumps({"a": 1})),
        ("pipeline.skops", b""),
        ("contract.json", b"{}"),
        ("card.json", b"null"),
        ("schema.json", b"[" * 100_000),
        ("background.json", b'["a"]'),
        ("golden.json", b'{"rows": [], "scores": []}'),
    ],
)
def test_junk_is_refused_with_a_sentence_even_when_a_trusted_key_signed_it(tmp_path: Path, name: str, content: bytes) -> None:
    folder = saved(tmp_path)
    (folder / name).write_bytes(content)
    sign_again(folder)
    with pytest.raises(BundleError, match="not those of a bundle"):
        load_bundle(folder)


def test_a_manifest_of_a_hundred_thousand_brackets_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(BundleError, match="no readable"):
        load_bundle(folder)


def test_a_link_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "card.json").rename(tmp_path / "elsewhere")
    (folder / "card.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match=r"'card\.json' is no plain file"):
        load_bundle(folder)
