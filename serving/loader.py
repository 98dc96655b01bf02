"""From a model's name in the registry to a verified bundle in memory (serving's only importer of MLflow)."""

from __future__ import annotations

import re
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from features.bundle import ModelBundle, load_bundle
from features.errors import BundleError, InputError, did_you_mean
from features.store import switch_telemetry_off

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_REFERENCE = re.compile(r"(?P<name>[^@:/,]+)(?:@(?P<alias>[A-Za-z][\w-]*)|:(?P<version>[1-9][0-9]*))?")


@dataclass(frozen=True)
class ModelReference:
    """A model in the registry: under an alias, at a version, or (neither) at its highest version."""

    name: str
    alias: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return self.name + (f"@{self.alias}" if self.alias else "") + (f":{self.version}" if self.version else "")


@dataclass(frozen=True)
class Registration:
    """A version in the registry, and the address of its files."""

    name: str
    version: str
    source: str


@dataclass(frozen=True)
class LoadedModel:
    """A bundle that passed every check on loading, and the name and version under which it is registered."""

    name: str
    version: str
    bundle: ModelBundle


def parse_reference(text: str) -> ModelReference:
    """Read ``NAME``, ``NAME@ALIAS`` or ``NAME:VERSION``.

    Examples
    --------
    >>> parse_reference("song2020-hypoxia@champion")
    ModelReference(name='song2020-hypoxia', alias='champion', version=None)
    >>> str(parse_reference("song2020-hypoxia:3"))
    'song2020-hypoxia:3'
    """
    found = _REFERENCE.fullmatch(text.strip())
    if found is None:
        raise InputError(
            f"{text!r} names no model; write NAME, NAME@ALIAS or NAME:VERSION (a number), for example song2020-hypoxia:3."
        )
    return ModelReference(**found.groupdict())


def load_registered(reference: ModelReference, uri: str) -> LoadedModel:
    """Find a model in the registry and load its bundle.

    Parameters
    ----------
    uri : str
        Address of the MLflow store, as given by `features.store.tracking_uri`. Nothing is created there.

    Raises
    ------
    InputError
        There is no such store, model, alias or version.
    BundleError
        The bundle is incomplete, changed, or holds what it must not.
    """
    found = find_registered(reference, uri)
    with _artifacts(found, uri) as folder:
        _require_files(found, folder)
        return LoadedModel(found.name, found.version, load_bundle(folder))


def find_registered(reference: ModelReference, uri: str) -> Registration:
    """Version that a reference names now.

    Raises
    ------
    InputError
        There is no such store, model, alias or version.
    """
    _require_store(uri)
    found = _find_version(_connect(uri), reference, uri)
    return Registration(found.name, str(found.version), str(found.source))


def fetch_bundle(found: Registration, uri: str, folder: Path) -> None:
    """Copy the files of a version to a folder that does not exist yet; nothing of them is verified here.

    Raises
    ------
    InputError
        The files are not where the registry says.
    BundleError
        One of them is a link or a device: what it leads to is not the bundle's, and may have no end.
    """
    with _artifacts(found, uri) as source:
        _require_files(found, source)
        shutil.copytree(source, folder, symlinks=True)


def registered_names(uri: str) -> list[str]:
    """Names of all registered models.

    Raises
    ------
    InputError
        There is no such store, or it cannot be read.
    """
    _require_store(uri)
    with _readable(uri):
        return sorted(_all_names(_connect(uri)))


def names_with_alias(alias: str, uri: str) -> list[str]:
    """Names of the registered models that have an alias.

    Raises
    ------
    InputError
        There is no such store, or it cannot be read.
    """
    _require_store(uri)
    with _readable(uri):
        client = _connect(uri)
        return sorted(name for name in _all_names(client) if alias in client.get_registered_model(name).aliases)


@contextmanager
def _readable(uri: str) -> Iterator[None]:
    """What MLflow says of a store that it cannot read becomes a sentence."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as cause:
        raise InputError(
            f"The store at {_shown(uri)} cannot be read ({cause.error_code}); check that it is there and up to date."
        ) from cause


def _require_store(uri: str) -> None:
    """MLflow would create a database, or fill an empty one, where a typing error points to."""
    scheme = urlsplit(uri).scheme
    if scheme in {"http", "https", "postgresql", "mysql", "mssql"} or "+" in scheme:
        return
    if scheme != "sqlite":
        raise InputError(
            f"{_shown(uri)!r} is no store of models; give sqlite:///PATH/mlflow.db or http(s)://HOST:PORT as --tracking-uri."
        )
    path = Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0]))
    way_out = "train a model first (hypoxia train STUDY.yaml), or name the store with --tracking-uri."
    if not path.is_file():
        raise InputError(f"There is no store of models at {path}; {way_out}")
    if not _has_registry(path):
        raise InputError(f"{path} is not a store of models; {way_out}")


def _has_registry(path: Path) -> bool:
    query = "SELECT count(*) FROM sqlite_master WHERE name = 'registered_models'"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            return bool(database.execute(query).fetchone()[0])
    except sqlite3.DatabaseError:
        return False


def _connect(uri: str) -> MlflowClient:
    switch_telemetry_off()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _find_version(client: MlflowClient, reference: ModelReference, uri: str) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        versions = {str(found.version): found for found in client.search_model_versions(f"name = '{_quoted(reference.name)}'")}
        if not versions:
            raise InputError(_no_such_model(client, reference.name, uri))
        return versions[_version_number(client, reference, list(versions))]
    except MlflowException as cause:
        raise InputError(
            f"The store at {_shown(uri)} cannot be read ({cause.error_code}); check that it is there and up to date."
        ) from cause


def _version_number(client: MlflowClient, reference: ModelReference, versions: list[str]) -> str:
    known = sorted(versions, key=int)
    if reference.alias is not None:
        aliases = {alias: str(version) for alias, version in client.get_registered_model(reference.name).aliases.items()}
        if reference.alias not in aliases:
            there = ", ".join(sorted(aliases)) or "none"
            unknown = f"{reference.alias!r}{did_you_mean(reference.alias, list(aliases))}"
            raise InputError(
                f"Model {reference.name!r} has no alias {unknown}; its aliases: {there}; its versions: {_listed(known)}."
            )
        return aliases[reference.alias]
    if reference.version is not None and reference.version not in versions:
        raise InputError(f"Model {reference.name!r} has no version {reference.version}; its versions: {_listed(known)}.")
    return reference.version or known[-1]


def _all_names(client: MlflowClient) -> list[str]:
    names: list[str] = []
    page = client.search_registered_models()
    names += [model.name for model in page]
    while page.token:
        page = client.search_registered_models(page_token=page.token)
        names += [model.name for model in page]
    return names


def _no_such_model(client: MlflowClient, name: str, uri: str) -> str:
    known = sorted(model.name for model in client.search_registered_models())
    if not known:
        return f"No model is registered at {_shown(uri)}; train one first (hypoxia train STUDY.yaml)."
    return f"There is no model {name!r}{did_you_mean(name, known)}; registered at {_shown(uri)}: {_listed(known)}."


@contextmanager
def _artifacts(found: Registration, uri: str) -> Iterator[Path]:
    """Folder with the bundle of a version: in place if it is on this machine, else downloaded for as long as it is read."""
    source = found.source
    parts = urlsplit(source)
    if parts.scheme in {"", "file"}:
        folder = Path(unquote(parts.path)) if parts.scheme else Path(source)
        if not folder.is_dir():
            raise InputError(
                f"The files of {found.name}:{found.version} are not at {folder}; "
                "put the folder back where it was, or train the model again."
            )
        yield folder
        return
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory(prefix="hypoxia-bundle-") as folder_name:
        yield Path(download_artifacts(artifact_uri=source, dst_path=folder_name, tracking_uri=uri))


def _require_files(found: Registration, folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise BundleError(f"{path.name!r} of {found.name}:{found.version} is a link or a device, no file; it was not loaded.")


def _quoted(name: str) -> str:
    return name.replace("'", "''")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _shown(uri: str) -> str:
    """Address without the password that it may hold."""
    return re.sub(r"//[^/@]*@", "//", uri)
