"""A model learns one more site from unlabelled samples, by the real commands; the sites it knew score as before."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from asked import Answer, Hypoxia, ask
from mlflow import MlflowClient
from recorded import recorded_model, table_of
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline
from toy import toy_cohort, toy_study

from features.bundle import ModelBundle, load_bundle, save_bundle
from features.extracted import ExtractionRecord
from features.feature import Feature
from features.harmonise import SiteAlignment
from training.adapt import adapted_bundle

NAME = "toy-hypoxia"
KNOWN = ("Bergen", "Halle", "Oslo")
MINIMUM = 25
# How far each site's scanner shifts a feature, and what it multiplies it by.
SCANNERS = {"Bergen": (-2.0, 1.0), "Halle": (0.0, 1.5), "Oslo": (2.0, 0.7), "Trondheim": (3.5, 1.3), "Umea": (-3.0, 0.8)}


def measured(sites: list[str], seed: int, prefix: str = "s") -> pd.DataFrame:
    """Samples at sites in turn. Columns: ID, PatientID, hospital, Target, f000..."""
    cohort = toy_cohort(len(sites), p=12, seed=seed)
    shift, scale = (np.array([SCANNERS[site][part] for site in sites])[:, None] for part in (0, 1))
    features = cohort.features * scale + shift
    features.index = pd.Index([f"{prefix}{number:03d}" for number in range(len(sites))], name="ID")
    owner = [f"{prefix}-patient-{number:03d}" for number in range(len(sites))]
    return features.assign(PatientID=owner, hospital=sites, Target=cohort.y).reset_index()


def at(site: str, count: int = 60, seed: int = 1, prefix: str = "new") -> pd.DataFrame:
    """Labelled samples of one site."""
    return measured([site] * count, seed, prefix)


def unlabelled(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["Target", "PatientID"])


@dataclass(frozen=True)
class Trained:
    """A store with version 1 of a model that aligns three sites."""

    root: Path
    table: pd.DataFrame

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri, registry_uri=self.uri)

    def run_folder(self, version: str = "1", name: str = NAME) -> Path:
        return Path(self.client.get_model_version(name, version).source.removeprefix("file://")).parent

    def bundle(self, version: str = "1") -> ModelBundle:
        return load_bundle(self.run_folder(version) / "bundle")

    def count(self) -> tuple[int, int]:
        """Runs and versions."""
        experiments = [one.experiment_id for one in self.client.search_experiments()]
        return len(self.client.search_runs(experiments)), len(self.client.search_model_versions(""))

    def registered(self, name: str, bundle: ModelBundle) -> str:
        """The recorded run once more, with another bundle and under another name."""
        origin, client = self.run_folder(), self.client
        run = client.create_run(client.get_experiment_by_name("toy").experiment_id)
        folder = Path(run.info.artifact_uri.removeprefix("file://"))
        shutil.copytree(origin, folder, ignore=shutil.ignore_patterns("bundle"), dirs_exist_ok=True)
        save_bundle(bundle, folder / "bundle", bundle.background[:2])
        client.set_terminated(run.info.run_id)
        client.create_registered_model(name)
        client.create_model_version(name, f"{run.info.artifact_uri}/bundle", run.info.run_id)
        return name


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The study of a user, trained by the console command."""
    folder = tmp_path_factory.mktemp("adapt")
    table = measured([KNOWN[number // 2 % 3] for number in range(180)], seed=0)
    table.to_csv(folder / "toy.csv", index=False)
    body = toy_study().model_dump(mode="json")
    body["cohort"] |= {"patient": "PatientID", "site": "hospital"}
    body["recipe"]["search"]["trials"] = 1
    body["recipe"]["harmonise"] = {"kind": "combat", "unseen_site": "adapt", "minimum_cases": MINIMUM}
    body["evaluation"] = {"bootstrap": 100, "internal": None}
    (folder / "toy.yaml").write_text(yaml.safe_dump(body))
    root = folder / "store"
    command = [sys.executable, "-m", "features.cli", "train", "toy.yaml", "--tracking-uri", f"sqlite:///{root / 'mlflow.db'}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return Trained(root, table)


@pytest.fixture
def hypoxia(trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hypoxia:
    def run(*arguments: str) -> Answer:
        return ask(monkeypatch, capsys, *arguments, "--tracking-uri", trained.uri)

    return run


@pytest.fixture
def adapt(hypoxia: Hypoxia, tmp_path: Path) -> Hypoxia:
    """`hypoxia adapt` on a table that is written first."""

    def run(table: pd.DataFrame, *more: str, model: str = f"{NAME}:1", site: str = "Trondheim") -> Answer:
        path = tmp_path / "unlabelled.csv"
        table.to_csv(path, index=False)
        return hypoxia("adapt", model, str(path), "--site-column", "hospital", "--new-site", site, "--sample", "ID", *more)

    return run


@pytest.fixture
def probabilities(hypoxia: Hypoxia, tmp_path: Path) -> Callable[[str, pd.DataFrame], np.ndarray]:
    """What `hypoxia predict` says, at full precision."""

    def run(model: str, table: pd.DataFrame) -> np.ndarray:
        path = tmp_path / "asked.csv"
        table.to_csv(path, index=False)
        answer = hypoxia("predict", "--model", model, str(path), "--json")
        assert answer.code == 0, answer.err
        return np.array([one["probability"] for one in answer.json["predictions"]])

    return run


Probabilities = Callable[[str, pd.DataFrame], np.ndarray]


def adapted_version(adapt: Hypoxia, **how: Any) -> str:
    answer = adapt(unlabelled(at("Trondheim")), "--json", **how)
    assert answer.code == 0, answer.err
    return answer.json["model"]["version"]


def test_a_site_that_was_refused_is_scored_after_adapting_and_the_known_ones_score_as_before(
    trained: Trained, adapt: Hypoxia, hypoxia: Hypoxia, probabilities: Probabilities, tmp_path: Path
) -> None:
    later = at("Trondheim", 200, seed=2, prefix="later")
    later.to_csv(tmp_path / "later.csv", index=False)
    before = hypoxia("predict", "--model", f"{NAME}:1", str(tmp_path / "later.csv"))
    assert before.code == 2
    assert "'Trondheim', which was not seen in training" in before.err
    version = adapted_version(adapt)
    known = probabilities(f"{NAME}:1", trained.table)
    np.testing.assert_array_equal(probabilities(f"{NAME}:{version}", trained.table), known)
    found = probabilities(f"{NAME}:{version}", later)
    taken_for_bergen = probabilities(f"{NAME}:1", later.assign(hospital="Bergen"))
    assert roc_auc_score(later["Target"], found) > 0.9
    gaps = [abs(one.mean() - later["Target"].mean()) for one in (found, taken_for_bergen)]
    assert gaps[0] < 0.1 < gaps[1]


def test_the_new_version_knows_one_site_more_and_says_from_what(trained: Trained, adapt: Hypoxia) -> None:
    table = unlabelled(at("Trondheim"))
    answer = adapt(table, "--json")
    assert answer.code == 0, answer.err
    old, new = trained.bundle("1"), trained.bundle(answer.json["model"]["version"])
    assert new.schema.names == old.schema.names
    assert new.schema.features[:-1] == old.schema.features[:-1]
    assert new.schema.features[-1] == old.schema.features[-1].model_copy(update={"levels": (*KNOWN, "Trondheim")})
    assert (new.contract.ranges[-1].maximum, old.contract.ranges[-1].maximum) == (3.0, 2.0)
    assert new.contract.ranges[:-1] == old.contract.ranges[:-1]
    for kept in ("order_hash", "extraction_hash", "extraction", "margin", "missing"):
        assert getattr(new.contract, kept) == getattr(old.contract, kept)
    assert new.contract.distance.limit == old.contract.distance.limit
    for kept in ("held_out", "internal", "threshold", "fingerprint", "data_hash", "samples", "events", "held_out_patients"):
        assert getattr(new.card, kept) == getattr(old.card, kept)
    assert new.card.warnings[:-1] == old.card.warnings
    digest = hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()
    assert new.card.warnings[-1] == (
        f"Adapted from {NAME}:1 to site 'Trondheim' on 60 unlabelled samples (table {digest}): all estimates are of the sites of "
        "training, and how well the model does at 'Trondheim' was not judged."
    )
    assert answer.json["known_sites"] == list(KNOWN)
    assert answer.json["samples"] == 60
    assert answer.json["table_sha256"] == digest


def test_golden_rows_of_the_known_sites_still_agree_and_the_new_site_has_its_own(trained: Trained, adapt: Hypoxia) -> None:
    version = adapted_version(adapt)
    old, new = (json.loads((trained.run_folder(one) / "bundle" / "golden.json").read_text()) for one in ("1", version))
    count = len(old["rows"])
    assert new["rows"][:count] == old["rows"]
    assert new["scores"][:count] == old["scores"]
    assert {row[-1] for row in new["rows"][count:]} == {3.0}
    assert [row[:-1] for row in new["rows"][count:]] == [row[:-1] for row in old["rows"]]


def test_nothing_of_a_sample_is_stored(trained: Trained, adapt: Hypoxia) -> None:
    table = unlabelled(at("Trondheim", prefix="secret"))
    version = adapt(table, "--json").json["model"]["version"]
    values = {repr(value) for value in table.filter(regex="^f").to_numpy().ravel().tolist()}
    written = [path for path in trained.run_folder(version).rglob("*") if path.suffix in {".json", ".md", ".csv", ".txt"}]
    assert len(written) > 8
    for path in written:
        text = path.read_text(encoding="utf-8")
        assert "secret" not in text
        assert "unlabelled.csv" not in text
        assert not any(value in text for value in values)


def test_one_run_records_it_with_what_its_origin_was_judged_on_and_no_alias_moves(trained: Trained, adapt: Hypoxia) -> None:
    runs, versions = trained.count()
    version = adapted_version(adapt)
    assert trained.count() == (runs + 1, versions + 1)
    origin, made = (trained.client.get_model_version(NAME, one) for one in ("1", version))
    run, before = (trained.client.get_run(one.run_id) for one in (made, origin))
    assert run.info.status == "FINISHED"
    assert run.data.tags["hypoxia.adapted_from"] == f"{NAME}:1" == made.tags["adapted_from"]
    assert run.data.tags["hypoxia.site"] == "Trondheim"
    assert run.data.tags["hypoxia.fingerprint"] == before.data.tags["hypoxia.fingerprint"]
    assert run.data.metrics == {name: value for name, value in before.data.metrics.items() if name != "seconds"}
    for name in ("predictions.csv", "splits.json", "study.yaml", "estimates.json"):
        assert (trained.run_folder(version) / name).read_bytes() == (trained.run_folder("1") / name).read_bytes()
    assert json.loads((trained.run_folder(version) / "adaptation.json").read_text())["adapted_from"]["version"] == "1"
    assert version not in map(str, trained.client.get_registered_model(NAME).aliases.values())


def test_the_gate_judges_it_by_its_origins_patients_and_never_as_better_than_its_origin(
    trained: Trained, adapt: Hypoxia, hypoxia: Hypoxia
) -> None:
    version = adapted_version(adapt)
    first = hypoxia("promote", NAME, version, "--alias", "trondheim")
    assert first.code == 0, first.err
    assert str(trained.client.get_registered_model(NAME).aliases["trondheim"]) == version
    assert hypoxia("promote", NAME, "1").code == 0
    against = hypoxia("promote", NAME, version, "--json")
    assert against.code == 3
    failed = {one["name"]: one["outcome"] for one in against.json["verdict"]["checks"]}
    assert failed["same patients"] == failed["predictions"] == "passed"
    assert failed["another model"] == "failed"
    back = hypoxia("promote", NAME, version, "--dry-run")
    assert "predicts exactly what the champion does" in back.out


def test_it_is_compared_with_its_origin_and_validated_at_the_new_site(
    trained: Trained, adapt: Hypoxia, hypoxia: Hypoxia, tmp_path: Path
) -> None:
    version = adapted_version(adapt)
    compared = hypoxia("compare", f"{NAME}:1", f"{NAME}:{version}", "--json", "--bootstrap", "200")
    assert compared.code == 0, compared.err
    (pair,) = compared.json["paired"]
    assert pair["difference"]["roc_auc"]["value"] == 0
    assert pair["flips"]["samples"] == []
    assert (
        hypoxia("compare", f"{NAME}:1", f"{NAME}:{version}", "--bootstrap", "200", "--html", str(tmp_path / "c.html")).code == 0
    )
    at("Trondheim", 80, seed=3, prefix="judged").to_csv(tmp_path / "labelled.csv", index=False)
    on = ["--on", str(tmp_path / "labelled.csv"), "--label", "Target", "--sample", "ID", "--patient", "PatientID"]
    validated = hypoxia("validate", f"{NAME}:{version}", *on, "--json")
    assert validated.code == 0, validated.err
    assert validated.json["external"]["roc_auc"]["value"] > 0.85


def test_a_version_that_was_adapted_is_adapted_again(trained: Trained, adapt: Hypoxia, probabilities: Probabilities) -> None:
    first = adapted_version(adapt)
    answer = adapt(unlabelled(at("Umea")), model=f"{NAME}:{first}", site="Umea")
    assert answer.code == 0, answer.err
    assert f"{NAME}:{first} with site 'Umea', from 60 unlabelled samples" in answer.out
    newest = max(trained.client.search_model_versions(f"name = '{NAME}'"), key=lambda one: int(one.version)).version
    bundle = trained.bundle(newest)
    assert bundle.schema.features[-1].levels == (*KNOWN, "Trondheim", "Umea")
    assert [words.split(" on ")[0] for words in bundle.card.warnings[-2:]] == [
        f"Adapted from {NAME}:1 to site 'Trondheim'",
        f"Adapted from {NAME}:{first} to site 'Umea'",
    ]
    earlier = pd.concat([trained.table, at("Trondheim", seed=2, prefix="later")])
    np.testing.assert_array_equal(probabilities(f"{NAME}:{newest}", earlier), probabilities(f"{NAME}:{first}", earlier))


def test_only_the_features_of_the_sites_own_rows_count(trained: Trained, adapt: Hypoxia) -> None:
    """Other sites' rows, other columns, the order of columns and where the site is written change nothing."""
    own = unlabelled(at("Trondheim"))
    plain = adapt(own, "--json").json["model"]["version"]
    others = unlabelled(trained.table.iloc[:30]).assign(ID=[f"o{number}" for number in range(30)], note="kept")
    mixed = pd.concat([others, own]).loc[:, ["note", *own.columns[::-1]]]
    wide = adapt(mixed, "--json").json["model"]["version"]
    lines = [trained.bundle(one).pipeline.steps[0][1] for one in (plain, wide)]
    assert isinstance(lines[0], SiteAlignment)
    for name in ("slopes_", "shifts_"):
        np.testing.assert_array_equal(getattr(lines[0], name), getattr(lines[1], name))
    features = list(trained.bundle().schema.names[:-1])
    by_hand = trained.bundle().pipeline.steps[0][1].adapted(own[features].assign(site=0.0).to_numpy(), 3)
    np.testing.assert_allclose(lines[0].slopes_, by_hand.slopes_, rtol=1e-12)
    np.testing.assert_allclose(lines[0].shifts_, by_hand.shifts_, rtol=1e-12, atol=1e-12)


def without(*names: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.drop(columns=list(names))


def with_cell(value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def changed(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[table.index[3], "f001"] = value
        return table

    return changed


REFUSED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], dict[str, str], str]] = {
    "known already": (lambda table: table.assign(hospital="Oslo"), {"site": "Oslo"}, r"Site 'Oslo' is known to .* already \(it"),
    "known in other letters": (lambda table: table.assign(hospital="OSLO"), {"site": "OSLO"}, r"score its samples as they are"),
    "no name": (lambda table: table.assign(hospital=" "), {"site": " "}, r"' ' cannot be the name of a site; give 1 to"),
    "too few": (lambda table: table.head(MINIMUM - 1), {}, r"has 24 samples to adapt to, fewer than the 25 of minimum_cases"),
    "no row": (lambda table: table.assign(hospital="Trondhjem"), {}, r"has 'Trondheim' in 'hospital' \(did you mean 'Trondhjem'"),
    "no column": (
        lambda table: table.rename(columns={"hospital": "Hospital"}),
        {},
        r"Column 'hospital' \(--site-column\) is not",
    ),
    "no names": (without("ID"), {}, r"Column 'ID' \(--sample\) is not in"),
    "a name twice": (lambda table: table.assign(ID="same"), {}, r"names a row twice in 'ID'"),
    "a feature missing": (
        lambda table: table.rename(columns={"f001": "f_001"}),
        {},
        r"'f001' is missing \(did you mean 'f_001'\?\); nothing is guessed",
    ),
    "infinite": (with_cell(np.inf), {}, r"'f001' has a value that is missing or is not a finite number; nothing is guessed"),
    "empty": (with_cell(np.nan), {}, r"'f001' has a value that is missing or is not a finite number"),
    "too large": (with_cell(1e200), {}, r"Feature 'f001' has a value above 1e\+18 .* correct or remove the row"),
    "no such model": (lambda table: table, {"model": "other"}, r"There is no model 'other'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_in_one_sentence_and_leaves_nothing_behind(
    trained: Trained, adapt: Hypoxia, case: str
) -> None:
    change, how, sentence = REFUSED[case]
    before = trained.count()
    answer = adapt(change(unlabelled(at("Trondheim"))), **how)
    assert answer.code == 2
    assert re.search(sentence, answer.err), answer.err
    assert answer.err.count("\n") == 1
    assert trained.count() == before


def with_first_step(bundle: ModelBundle, **parameters: Any) -> ModelBundle:
    (name, first), *rest = bundle.pipeline.steps
    return replace(
        bundle, pipeline=Pipeline([(name, first.restricted(range(len(bundle.schema.names) - 1)).set_params(**parameters)), *rest])
    )


def with_contract(bundle: ModelBundle, **changes: Any) -> ModelBundle:
    return replace(bundle, contract=bundle.contract.model_copy(update=changes))


def test_a_model_that_aligns_no_sites_or_is_not_to_be_adapted_is_refused(trained: Trained, adapt: Hypoxia) -> None:
    recorded_model(trained.root, "plain", ["f0", "f1"], table_of(40))
    trained.registered("strict", with_first_step(trained.bundle(), unseen_site="refuse"))
    table = unlabelled(at("Trondheim"))
    for model, sentence in (
        ("plain", "Error: plain:1 aligns no sites, so there is nothing in it to adapt; train one with recipe.harmonise: {kind:"),
        (
            "strict",
            "Error: strict:1 was trained with unseen_site: refuse, and is not to be adapted; train one with recipe.harmon",
        ),
    ):
        answer = adapt(table, model=model)
        assert answer.code == 2
        assert answer.err.startswith(sentence)


def record_of(table: Path, settings_hash: str) -> None:
    """Beside the table, what `hypoxia extract` would have written."""
    record = ExtractionRecord(
        profile="ibsi",
        settings_hash=settings_hash,
        settings={},
        manifest_hash="",
        created="",
        versions={},
        columns=(Feature(name="f"),),
    )
    table.with_suffix(".json").write_text(record.model_dump_json())


def test_a_table_that_was_extracted_otherwise_is_refused(trained: Trained, adapt: Hypoxia, tmp_path: Path) -> None:
    trained.registered("extracted", with_contract(trained.bundle(), extraction_hash="a" * 64, extraction="required"))
    table = unlabelled(at("Trondheim"))
    bare = adapt(table, model="extracted")
    assert bare.code == 2
    assert "is missing, and this model requires it; put the JSON file" in bare.err
    record_of(tmp_path / "unlabelled.csv", "b" * 64)
    other = adapt(table, model="extracted")
    assert other.code == 2
    assert f"is not that of the model's features ({'a' * 64}): they were extracted with other settings" in other.err
    record_of(tmp_path / "unlabelled.csv", "a" * 64)
    same = adapt(table, "--json", model="extracted")
    assert same.code == 0, same.err
    assert same.json["warnings"][1] == "unlabelled.csv was changed after its features were extracted."
    bundle = load_bundle(trained.run_folder("2", "extracted") / "bundle")
    assert (bundle.contract.extraction_hash, bundle.contract.extraction) == ("a" * 64, "required")


def test_gaps_are_filled_as_in_training_but_too_few_values_are_refused(trained: Trained, adapt: Hypoxia) -> None:
    trained.registered("filling", with_contract(trained.bundle(), missing="impute"))
    table = unlabelled(at("Trondheim", 30))
    table.loc[:4, "f001"] = np.nan
    assert adapt(table, model="filling:1").code == 0
    table.loc[:5, "f001"] = np.nan
    answer = adapt(table, model="filling:1")
    assert answer.code == 2
    assert (
        "Feature 'f001' has a value in 24 of the 30 samples of site 'Trondheim', fewer than the 25 of minimum_cases" in answer.err
    )


def test_copies_and_samples_of_training_are_warned_of(trained: Trained, adapt: Hypoxia) -> None:
    table = unlabelled(at("Trondheim", 30))
    copied = pd.concat([table, table.iloc[:2].assign(ID=["s000", "s001"])])
    warnings = adapt(copied, "--json").json["warnings"]
    assert any(
        words.startswith(f"2 of the samples have the name of one that {NAME}:1 was made or judged with") for words in warnings
    )
    assert any(words.startswith("2 of the samples have the same features as another one") for words in warnings)
    assert not any("as another one" in words for words in adapt(table, "--json").json["warnings"])


def test_being_of_a_new_site_makes_no_sample_unlike_those_of_training(trained: Trained) -> None:
    """Nor does any sample of a known site come to look stranger than before."""
    old = trained.bundle()
    matrix = old.schema.conform(at("Trondheim").assign(hospital="Oslo")).to_numpy()
    new = adapted_bundle(old, matrix, "Trondheim", origin="x", digest="y")
    known = old.schema.conform(trained.table).to_numpy()
    rng = np.random.default_rng(0)
    strange = known + rng.normal(size=known.shape) * np.r_[np.full(known.shape[1] - 1, 4.0), 0]
    for rows in (known, strange):
        before, after = old.contract.judge(rows), new.contract.judge(rows)
        assert (after.distance <= before.distance + 1e-9).all()
        assert not (after.flagged & ~before.flagged).any()
    moved = known.copy()
    moved[:, -1] = 3
    assert old.contract.judge(moved).is_outside.all()
    np.testing.assert_array_equal(new.contract.judge(moved).distance, new.contract.judge(known).distance)
    np.testing.assert_array_equal(new.contract.judge(moved).flagged, new.contract.judge(known).flagged)
    covariance = np.linalg.inv(old.contract.distance.arrays[2])[:-1, :-1]
    np.testing.assert_allclose(np.linalg.inv(new.contract.distance.arrays[2][:-1, :-1]), covariance, rtol=1e-8, atol=1e-10)
