from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import features.bundle
from features import signing
from features.bundle import COMPONENTS, MANIFEST, ModelBundle, ModelCard, ScoreCard, load_bundle, save_bundle
from features.errors import BundleError
from features.outcome import survival_outcome
from features.risk import BoostedRisk, CoxRisk
from features.signature_scores import SignatureScore
from features.signing import SIGNATURE, SignatureError
from tests.serving.composites import GENES, component_folders, composite_bundle, gene_bundle
from tests.serving.registered import FEATURES, small_bundle

ROWS = np.array([[0.3, 1.0], [0.9, -2.0]])


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return component_folders(tmp_path_factory.mktemp("parts") / "saved")


def saved(folder: Path, parts: dict[str, Path], bundle: ModelBundle | None = None) -> Path:
    save_bundle(bundle or composite_bundle(), folder / "bundle", ROWS, parts)
    return folder / "bundle"


def sign_again(folder: Path) -> None:
    """What one could do who holds a trusted key."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"] = {name: features.bundle._digest(folder / name) for name in manifest["sha256"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / SIGNATURE).unlink()
    signing.sign(folder)


def test_a_composite_comes_back_with_its_components(tmp_path: Path, parts: dict[str, Path]) -> None:
    loaded = load_bundle(saved(tmp_path, parts))
    assert list(loaded.components) == ["hypoxic_fraction", "gene_score"]
    np.testing.assert_array_equal(loaded.score(ROWS), composite_bundle().score(ROWS))
    genes = np.full((1, len(GENES)), 9.0)
    np.testing.assert_array_equal(loaded.components["gene_score"].value(genes), gene_bundle().value(genes))
    assert loaded.card == composite_bundle().card


def test_a_row_without_one_biomarker_may_be_golden_where_the_other_is_enough(tmp_path: Path, parts: dict[str, Path]) -> None:
    rows = np.array([[0.3, 1.0], [0.4, np.nan], [np.nan, 0.4]])
    save_bundle(composite_bundle("alone"), tmp_path / "bundle", rows, parts)
    np.testing.assert_array_equal(load_bundle(tmp_path / "bundle").score(rows), composite_bundle("alone").score(rows))


def survival(features: np.ndarray) -> np.ndarray:
    months = np.random.default_rng(2).exponential(60 * np.exp(-features[:, 0]))
    return survival_outcome(np.minimum(months, 80), months < 80)


@pytest.mark.parametrize(
    "steps",
    [
        [("score", SignatureScore("votes")), ("risk", CoxRisk(horizon=60.0))],
        [("score", SignatureScore("mean_z")), ("risk", BoostedRisk(horizon=60.0, n_estimators=3))],
        [("scale", StandardScaler()), ("risk", CoxRisk(penalty=0.1, l1_ratio=0.5))],
        [("risk", BoostedRisk("aft", n_estimators=3))],
    ],
)
def test_scores_of_signatures_and_models_of_survival_come_back(tmp_path: Path, steps: list[tuple[str, Any]]) -> None:
    X = np.random.default_rng(1).normal(size=(60, len(FEATURES)))
    has_score = isinstance(steps[0][1], SignatureScore)
    card = small_bundle().card.model_copy(
        update={"score": ScoreCard(name="signature score", cutoff=0.0, words="Votes.") if has_score else None, "horizon": 60.0}
    )
    bundle = replace(small_bundle(), pipeline=Pipeline(steps).fit(X, survival(X)), card=card)
    save_bundle(bundle, tmp_path / "bundle", X[:3])
    loaded = load_bundle(tmp_path / "bundle")
    np.testing.assert_array_equal(loaded.score(X), bundle.score(X))
    np.testing.assert_array_equal(loaded.value(X), bundle.value(X))


def test_a_composite_may_have_one_component_and_one_plain_column(tmp_path: Path, parts: dict[str, Path]) -> None:
    assert list(load_bundle(saved(tmp_path, {"gene_score": parts["gene_score"]})).components) == ["gene_score"]


def test_the_score_is_what_the_last_step_but_one_gives_and_a_component_gives_its_score() -> None:
    genes, imaging = gene_bundle(), small_bundle()
    X = np.random.default_rng(0).normal(8, 1, size=(4, len(GENES)))
    by_hand = genes.pipeline.named_steps["score"].transform(genes.pipeline.named_steps["scale"].transform(X))[:, 0]
    np.testing.assert_allclose(genes.raw_score(X), by_hand, rtol=1e-12)
    np.testing.assert_allclose(genes.value(X), by_hand, rtol=1e-12)
    rows = np.ones((2, len(FEATURES)))
    assert imaging.raw_score(rows) is None
    np.testing.assert_array_equal(imaging.value(rows), imaging.score(rows))


def test_a_card_of_an_older_release_is_read() -> None:
    card = small_bundle().card
    older = {key: value for key, value in card.model_dump().items() if key not in {"score", "horizon", "time_unit", "composite"}}
    assert ModelCard.model_validate(older) == card


def test_a_card_without_what_came_later_is_written_as_an_older_release_reads_it(tmp_path: Path) -> None:
    save_bundle(small_bundle(), tmp_path / "bundle", np.zeros((1, len(FEATURES))))
    written = json.loads((tmp_path / "bundle" / "card.json").read_text())
    assert written.keys().isdisjoint({"score", "horizon", "time_unit", "composite"})
    assert load_bundle(tmp_path / "bundle").card == small_bundle().card


def test_a_score_needs_a_step_that_gives_it() -> None:
    bundle = gene_bundle()
    with pytest.raises(BundleError, match="The signature score is none"):
        replace(bundle, pipeline=bundle.pipeline[-1:])


def test_the_card_says_what_the_probability_is_of() -> None:
    assert composite_bundle().card.probability_words == "risk of the event by 60 months"
    assert small_bundle().card.probability_words == "probability that the sample is hypoxic"


@pytest.mark.parametrize("place", ["card.json", MANIFEST, SIGNATURE])
def test_a_changed_byte_in_a_component_is_noticed(tmp_path: Path, parts: dict[str, Path], place: str) -> None:
    folder = saved(tmp_path, parts)
    file = folder / COMPONENTS / "1" / place
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(BundleError, match="not the one that it was saved with" if place == MANIFEST else "changed"):
        load_bundle(folder)


def test_a_component_that_was_changed_with_a_manifest_that_fits_fails(tmp_path: Path, parts: dict[str, Path]) -> None:
    """Even with the composite signed again by a trusted key: the component's own signature does not fit."""
    folder = saved(tmp_path, parts)
    component = folder / COMPONENTS / "1"
    (component / "card.json").write_bytes((component / "card.json").read_bytes() + b" ")
    manifest = json.loads((component / MANIFEST).read_text())
    manifest["sha256"]["card.json"] = features.bundle._digest(component / "card.json")
    (component / MANIFEST).write_text(json.dumps(manifest))
    outer = json.loads((folder / MANIFEST).read_text())
    outer[COMPONENTS][1]["manifest_sha256"] = features.bundle.bundle_digest(component)
    (folder / MANIFEST).write_text(json.dumps(outer))
    sign_again(folder)
    with pytest.raises(SignatureError, match=r"component 'gene_score' cannot be used.*changed after it was signed"):
        load_bundle(folder)


def test_a_component_in_the_place_of_another_is_refused(tmp_path: Path, parts: dict[str, Path]) -> None:
    """Each is signed and whole by itself; only the composite knows which is which."""
    folder = saved(tmp_path, parts)
    shutil.rmtree(folder / COMPONENTS / "1")
    shutil.copytree(folder / COMPONENTS / "0", folder / COMPONENTS / "1")
    (folder / SIGNATURE).unlink()
    signing.sign(folder)
    with pytest.raises(BundleError, match="'gene_score' is not the one that it was saved with"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("extra", "named"), [("components/2", "components/2"), ("components/a.txt", "components/a.txt"), ("more", "more")]
)
def test_a_file_or_folder_that_is_extra_is_named(tmp_path: Path, parts: dict[str, Path], extra: str, named: str) -> None:
    folder = saved(tmp_path, parts)
    (folder / extra).mkdir()
    with pytest.raises(BundleError, match=f"'{named}' is extra"):
        load_bundle(folder)


def test_a_folder_of_components_beside_a_model_that_has_none_is_extra(tmp_path: Path) -> None:
    save_bundle(small_bundle(), tmp_path / "bundle", np.zeros((1, len(FEATURES))))
    (tmp_path / "bundle" / COMPONENTS).mkdir()
    with pytest.raises(BundleError, match="'components' is extra"):
        load_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("lost", ["components/1", "components"])
def test_a_component_that_is_missing_is_noticed(tmp_path: Path, parts: dict[str, Path], lost: str) -> None:
    folder = saved(tmp_path, parts)
    shutil.rmtree(folder / lost)
    with pytest.raises(BundleError, match="components"):
        load_bundle(folder)


def test_a_link_in_the_place_of_a_component_is_refused(tmp_path: Path, parts: dict[str, Path]) -> None:
    folder = saved(tmp_path, parts)
    (folder / COMPONENTS / "1").rename(tmp_path / "elsewhere")
    (folder / COMPONENTS / "1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="components are not those"):
        load_bundle(folder)


def test_a_component_of_no_part_is_refused(tmp_path: Path, parts: dict[str, Path]) -> None:
    with pytest.raises(BundleError, match=r"'else' is of no part of a composite \(hypoxic_fraction, gene_score\)"):
        saved(tmp_path, {"else": parts["gene_score"]})
    with pytest.raises(BundleError, match="the model is none"):
        save_bundle(small_bundle(), tmp_path / "plain", np.zeros((1, len(FEATURES))), parts)
    assert list(tmp_path.iterdir()) == []


def test_a_composite_is_no_component_of_another(tmp_path: Path, parts: dict[str, Path]) -> None:
    inner = saved(tmp_path, parts)
    with pytest.raises(BundleError, match="'gene_score' is a composite itself"):
        save_bundle(composite_bundle(), tmp_path / "outer", ROWS, {"gene_score": inner})
    save_bundle(composite_bundle(), tmp_path / "no-components", ROWS)
    with pytest.raises(BundleError, match="'gene_score' is a composite itself"):
        save_bundle(composite_bundle(), tmp_path / "outer", ROWS, {"gene_score": tmp_path / "no-components"})


def test_a_component_that_was_changed_is_not_taken_into_a_composite(tmp_path: Path, parts: dict[str, Path]) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(parts["gene_score"], changed)
    (changed / "card.json").write_bytes((changed / "card.json").read_bytes() + b" ")
    with pytest.raises(BundleError, match=r"component 'gene_score' cannot be used.*'card.json' was changed"):
        save_bundle(composite_bundle(), tmp_path / "bundle", ROWS, {"gene_score": changed})
    assert not (tmp_path / "bundle").exists()


def test_a_composite_that_was_loaded_is_not_saved_without_its_components(tmp_path: Path, parts: dict[str, Path]) -> None:
    loaded = load_bundle(saved(tmp_path, parts))
    with pytest.raises(BundleError, match="cannot be saved without"):
        save_bundle(loaded, tmp_path / "again", ROWS)


def test_the_parts_of_a_composite_are_its_features_in_their_order() -> None:
    bundle = composite_bundle()
    card = composite_bundle(names=("gene_score", "hypoxic_fraction")).card
    with pytest.raises(BundleError, match="are not its features"):
        replace(bundle, card=card)


def test_golden_scores_that_differ_are_noticed_where_the_probability_does_not(tmp_path: Path, parts: dict[str, Path]) -> None:
    folder = saved(tmp_path, parts)
    golden = json.loads((folder / "golden.json").read_text())
    golden["raw"][0] += 1e-6
    (folder / "golden.json").write_text(json.dumps(golden))
    sign_again(folder)
    with pytest.raises(BundleError, match="scores its golden rows differently here"):
        load_bundle(folder)


def test_a_cutoff_needs_a_score_that_is_a_number() -> None:
    with pytest.raises(ValueError, match="finite"):
        ScoreCard(name="score", cutoff=float("nan"), words="none")
