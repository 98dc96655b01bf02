"""Models on a shelf: what is put there, what a worker takes from it, and what neither ever does to what is served."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from features import signing
from features.bundle import MANIFEST
from features.errors import BundleError, InputError
from serving import loader
from serving.app import create_app
from serving.follower import Follower
from serving.served import ServedModels
from serving.shelf import Shelf
from tests.serving.conftest import Client
from tests.serving.registered import NAME, Registered, register, rows_like_training, small_bundle

ROWS = rows_like_training(3)


@dataclass
class Site:
    """A registry with two versions of a model and one of another, and a shelf that follows it."""

    root: Path
    versions: dict[str, Registered]
    follower: Follower

    @property
    def shelf(self) -> Shelf:
        return self.follower.shelf

    def promote(self, version: str, name: str = NAME, alias: str = "champion") -> None:
        from mlflow import MlflowClient

        MlflowClient(self.follower.uri, self.follower.uri).set_registered_model_alias(name, alias, version)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry to be copied: making one takes seconds."""
    root = tmp_path_factory.mktemp("template")
    register(small_bundle(0), root, alias="champion")
    register(small_bundle(1), root)
    register(small_bundle(2), root, name="other", alias="challenger")
    return root


@pytest.fixture
def site(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    root = tmp_path / "site"
    shutil.copytree(template, root)
    fetch = loader.fetch_bundle

    # The registry names files by where they lay; here they lie in the copy.
    def fetch_here(found: loader.Registration, uri: str, folder: Path) -> None:
        source = found.source.replace(str(template), str(root))
        fetch(loader.Registration(found.name, found.version, source), uri, folder)

    monkeypatch.setattr("serving.follower.fetch_bundle", fetch_here)
    uri = f"sqlite:///{root / 'mlflow.db'}"
    bundles = {"1": small_bundle(0), "2": small_bundle(1)}
    versions = {version: Registered(uri, NAME, _folder(root, version), bundle) for version, bundle in bundles.items()}
    return Site(root, versions, Follower(Shelf(tmp_path / "shelf"), uri))


def _folder(root: Path, version: str, name: str = NAME) -> Path:
    from mlflow import MlflowClient

    uri = f"sqlite:///{root / 'mlflow.db'}"
    source = MlflowClient(uri, uri).get_model_version(name, version).source
    return root / "artifacts" / Path(source.partition("/artifacts/")[2])


def scores(models: ServedModels, name: str = NAME) -> list[float]:
    return [one.probability for one in models[name].predict(ROWS)]


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_what_is_served_is_the_version_that_the_alias_names(site: Site) -> None:
    site.follower.stock([f"{NAME}@champion", "other:1"])
    models = ServedModels(site.shelf)
    assert models.versions == [("other", "1"), (NAME, "1")]
    assert scores(models) == pytest.approx(site.versions["1"].probabilities(ROWS), abs=1e-9)


def test_the_alias_is_followed_and_a_request_keeps_the_predictor_that_it_began_with(site: Site) -> None:
    site.follower.stock([f"{NAME}@champion"])
    changes: list[int] = []
    models = ServedModels(site.shelf, on_change=lambda: changes.append(1))
    begun = models[NAME]
    site.promote("2")
    site.follower.look()
    assert models.refresh()
    assert changes == [1]
    assert (begun.loaded.version, models[NAME].loaded.version) == ("1", "2")
    assert [one.version for one in begun.predict(ROWS)] == ["1"] * 3
    assert scores(models) == pytest.approx(site.versions["2"].probabilities(ROWS), abs=1e-9)
    assert not models.refresh()


def test_a_model_named_by_its_version_stays_whatever_happens_to_the_alias(site: Site) -> None:
    site.follower.stock([f"{NAME}:1"])
    models = ServedModels(site.shelf)
    site.promote("2")
    site.follower.look()
    assert not models.refresh()
    assert models.versions == [(NAME, "1")]
    assert not models.reload()


def test_a_version_with_a_changed_byte_never_comes_to_the_workers(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.follower.stock([f"{NAME}@champion"])
    models = ServedModels(site.shelf)
    change_a_byte(site.versions["2"].folder / "pipeline.skops")
    site.promote("2")
    listing = site.follower.look()
    models.refresh()
    assert listing.models[0].current.version == "1"
    assert models.versions == [(NAME, "1")]
    assert models.problems[NAME].model_dump() == {"version": "2", "kind": "unverified", "error": "BundleError"}
    assert f"Model {NAME}: version 2 is not served" in caplog.text
    site.promote("1")
    site.follower.look()
    models.refresh()
    assert NAME not in models.problems


def test_a_version_that_failed_is_not_tried_at_every_look_but_when_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.follower.stock([f"{NAME}@champion"])
    puts: list[str] = []
    put = site.follower._put

    def counted(found: loader.Registration) -> object:
        puts.append(found.version)
        return put(found)

    monkeypatch.setattr(site.follower, "_put", counted)
    change_a_byte(site.versions["2"].folder / "card.json")
    site.promote("2")
    for _ in range(3):
        site.follower.look()
    assert puts == ["2"]
    site.follower.look(number=1)
    assert puts == ["2", "2"]


def test_a_registry_that_is_gone_leaves_what_is_served_and_says_so(site: Site) -> None:
    site.follower.stock([f"{NAME}@champion"])
    models = ServedModels(site.shelf)
    (site.root / "mlflow.db").rename(site.root / "away.db")
    site.follower.look()
    models.refresh()
    assert models.problems[NAME].kind == "registry"
    assert scores(models) == pytest.approx(site.versions["1"].probabilities(ROWS), abs=1e-9)
    (site.root / "away.db").rename(site.root / "mlflow.db")
    site.follower.look()
    models.refresh()
    assert not models.problems


def test_a_copy_that_spoilt_on_the_shelf_is_refused_and_the_one_before_it_goes_on(site: Site) -> None:
    site.follower.stock([f"{NAME}@champion"])
    models = ServedModels(site.shelf)
    site.promote("2")
    current = site.follower.look().models[0].current
    change_a_byte(site.shelf.path(current) / "pipeline.skops")
    assert not models.refresh()
    assert models.versions == [(NAME, "1")]
    assert models.problems[NAME].kind == "unverified"
    assert ServedModels(site.shelf).versions == [(NAME, "1")], "and a worker that starts now takes the one before it"


def test_a_worker_does_not_start_without_every_model(site: Site) -> None:
    listing = site.follower.stock([f"{NAME}@champion", "other:1"])
    change_a_byte(site.shelf.path(listing.models[1].current) / "golden.json")
    with pytest.raises(BundleError):
        ServedModels(site.shelf)


def test_all_champions_are_served_and_one_that_becomes_it_joins(site: Site) -> None:
    site.follower.stock([], all_champions=True)
    models = ServedModels(site.shelf)
    assert list(models) == [NAME]
    site.promote("1", name="other")
    site.follower.look()
    models.refresh()
    assert sorted(models) == ["other", NAME]


@pytest.mark.parametrize(
    ("references", "shadows", "says"),
    [
        ([NAME, f"{NAME}:1"], [], "served twice"),
        ([f"{NAME}@champoin"], [], "did you mean 'champion'"),
        ([NAME], ["other:1"], "nothing to be compared with"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_starts(
    site: Site, references: list[str], shadows: list[str], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        site.follower.stock(references, shadows)
    assert site.shelf.stamp() == 0


def test_copies_that_nobody_serves_any_more_are_thrown_away(site: Site) -> None:
    site.follower.stock([f"{NAME}@champion"])
    for version in ("2", "1", "2", "1"):
        site.promote(version)
        site.follower.look()
    assert len([path for path in site.shelf.folder.iterdir() if path.is_dir()]) == 2


def test_a_reload_waits_for_what_follows_the_registry_and_answers_with_what_is_served(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.follower.stock([f"{NAME}@champion"])
    models = ServedModels(site.shelf)
    site.promote("2")
    ask = site.shelf.ask
    monkeypatch.setattr(Shelf, "ask", lambda _: _looked(ask, site.follower))
    answer = asked_to_reload(models, models.reload)
    assert answer.json() == {"models": [{"name": NAME, "version": "2", "pending_problem": None}]}


def test_a_reload_where_nothing_is_followed_says_so(site: Site) -> None:
    site.follower.stock([f"{NAME}:1"])
    models = ServedModels(site.shelf)
    answer = asked_to_reload(models, models.reload)
    assert answer.status_code == 409
    assert "--follow" in answer.json()["detail"]


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no models to serve"):
        ServedModels(Shelf(tmp_path))


def asked_to_reload(models: ServedModels, reload: Callable[[], bool]) -> httpx.Response:
    return Client(create_app(models, reload)).ask("POST", "/v1/admin/reload")


def _looked(ask: Callable[[], int], follower: Follower) -> int:
    number = ask()
    follower.look(number=number)
    return number


def signed_anew(site: Site, version: str, file: str, text: str) -> None:
    """Change a file of a bundle and sign it again with the trusted key: whole and signed, and not what training made."""
    folder = site.versions[version].folder
    (folder / file).write_text(text, encoding="utf-8")
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in manifest["sha256"]}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    (folder / signing.SIGNATURE).unlink()
    signing.sign(folder)


def with_another_name(contract: dict[str, Any]) -> None:
    contract["ranges"][0]["name"] = "another"


def with_a_short_distance(contract: dict[str, Any]) -> None:
    contract["distance"]["center"] = contract["distance"]["center"][:-1]


def with_an_alias_that_is_a_feature(contract: dict[str, Any]) -> None:
    contract["aliases"] = {"volume": "entropy"}


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("contract.json", with_another_name),
        ("contract.json", with_a_short_distance),
        ("contract.json", with_an_alias_that_is_a_feature),
        ("card.json", lambda card: card.update(threshold=7.0)),
        ("background.json", lambda rows: rows.clear()),
        ("schema.json", lambda schema: schema["features"].append({"name": "another", "unit": None, "reference": None})),
    ],
)
def test_a_signed_bundle_whose_parts_do_not_fit_together_never_serves(
    site: Site, file: str, change: Callable[[Any], None]
) -> None:
    site.follower.stock([f"{NAME}@champion"])
    models = ServedModels(site.shelf)
    content = json.loads((site.versions["2"].folder / file).read_text(encoding="utf-8"))
    change(content)
    signed_anew(site, "2", file, json.dumps(content))
    site.promote("2")
    site.follower.look()
    models.refresh()
    assert models.versions == [(NAME, "1")]
    assert models.problems[NAME].kind == "unverified"
    assert scores(models) == pytest.approx(site.versions["1"].probabilities(ROWS), abs=1e-9)


def test_a_link_in_a_bundle_is_not_followed(site: Site, tmp_path: Path) -> None:
    site.follower.stock([f"{NAME}@champion"])
    card = site.versions["2"].folder / "card.json"
    card.rename(tmp_path / "card.json")
    card.symlink_to(tmp_path / "card.json")
    site.promote("2")
    listing = site.follower.look()
    assert listing.models[0].current.version == "1"
    assert listing.models[0].pending_problem is not None
    assert listing.models[0].pending_problem.kind == "unverified"


def test_a_newcomer_that_cannot_even_be_read_does_not_stop_the_others_from_being_followed(site: Site) -> None:
    site.follower.stock([], all_champions=True)
    folder = _folder(site.root, "1", "other")
    (folder / MANIFEST).write_text("[" * 200_000, encoding="utf-8")
    site.promote("1", name="other")
    site.promote("2")
    listing = site.follower.look()
    assert [(one.name, one.current.version) for one in listing.models] == [(NAME, "2")]


def test_a_newcomer_that_failed_is_left_alone_for_a_while_unless_somebody_asks(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.follower.stock([], all_champions=True)
    manifest = _folder(site.root, "1", "other") / MANIFEST
    good = manifest.read_bytes()
    manifest.write_text("{", encoding="utf-8")
    site.promote("1", name="other")
    site.follower.look()
    manifest.write_bytes(good)
    assert [one.name for one in site.follower.look().models] == [NAME]
    assert [one.name for one in site.follower.look(number=1).models] == [NAME, "other"]
