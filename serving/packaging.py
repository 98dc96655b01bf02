"""A server in one folder: a Bento with verified models frozen in it, what it needs pinned, and nothing that trains."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from features.bundle import MANIFEST
from features.errors import HypoxiaError, InputError
from features.signing import TRUSTED, fingerprint, trusted_keys, verify
from features.store import switch_telemetry_off
from serving.served import PRODUCT
from serving.shelf import FROZEN_KEYS, FROZEN_SHELF

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from serving.shelf import Listing, Shelf

logger = logging.getLogger(__name__)

PACKAGES = ("features", "serving")
# What only reads the registry, which a frozen server never does.
REGISTRY_ONLY = frozenset({"mlflow-skinny", "mlflow", "sqlalchemy", "alembic"})
# What must not be found in a server, whoever brought it.
TRAINING_ONLY = frozenset({"tpot", "optuna", "pebble", "xgboost", "pyradiomics-bhklab"})

ENVIRONMENT = {"BENTOML_DO_NOT_TRACK": "True"}


class PackagingError(HypoxiaError):
    """A Bento could not be built, or holds what it must not."""


@dataclass(frozen=True)
class Package:
    """A Bento that was built."""

    folder: Path
    models: tuple[tuple[str, str], ...]
    image: str | None


def package(references: Sequence[str], uri: str, output: Path | None, image: str | None) -> Package:
    """Freeze registered models, with the code that serves them, in a Bento.

    Parameters
    ----------
    output : Path, optional
        Folder to make; ``bentos/NAME-VERSION`` if none is named.
    image : str, optional
        Tag of a container image to build too.

    Raises
    ------
    InputError
        A model is not registered, the folder is there already, or there is no Docker engine for the image.
    BundleError
        A model does not verify.
    PackagingError
        BentoML or Docker failed.
    """
    from serving.follower import Follower
    from serving.shelf import Shelf

    if image is not None:
        require_docker()
    switch_telemetry_off()
    with tempfile.TemporaryDirectory(prefix="hypoxia-package-") as folder:
        stage, home = Path(folder) / "stage", Path(folder) / "home"
        shelf = Shelf(stage / FROZEN_SHELF)
        listing = Follower(shelf, uri).stock(references, follow=False)
        target = output or Path("bentos") / _name(listing)
        _require_absent(target)
        _write_stage(stage, shelf, listing)
        bento = _build(stage, home)
        _require_no_training(bento)
        if image is not None:
            _containerize(bento, home, image)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(bento, target)
    return Package(target, tuple((one.name, one.current.version) for one in listing.models), image)


def require_docker() -> None:
    """Check that an image can be built here.

    Raises
    ------
    InputError
    """
    way_out = "Leave --image out, and build the image from the Bento on a machine that has one (`bentoml containerize`)."
    docker = shutil.which("docker")
    if docker is None:
        raise InputError(f"There is no Docker on this machine, so no image can be built. {way_out}")
    if subprocess.run([docker, "info"], capture_output=True, check=False).returncode != 0:
        raise InputError(f"Docker is installed, but its engine does not answer, so no image can be built. {way_out}")


def pinned_requirements() -> list[str]:
    """What a frozen server needs, in the versions that are installed here: those that the models were verified with.

    Returns
    -------
    list of str
        ``name==version``, sorted.
    """
    pins: dict[str, str] = {}
    waiting = [one for one in _requirements(PRODUCT, {"serving"}) if _plain(one.name) not in REGISTRY_ONLY]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        key = _plain(requirement.name), frozenset(requirement.extras)
        if key in seen:
            continue
        seen.add(key)
        try:
            pins[key[0]] = distribution(requirement.name).version
        except PackageNotFoundError:
            continue  # for another platform, or optional after all
        waiting += _requirements(requirement.name, set(requirement.extras))
    return [f"{name}=={version}" for name, version in sorted(pins.items())]


def _requirements(name: str, extras: set[str]) -> Iterator[Requirement]:
    """Direct requirements of an installed distribution, those of its extras among them."""
    from packaging.requirements import Requirement

    for line in distribution(name).requires or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _name(listing: Listing) -> str:
    return "+".join(re.sub(r"[^\w.-]+", "-", f"{one.name}-{one.current.version}") for one in listing.models)


def _require_absent(target: Path) -> None:
    if target.exists():
        raise InputError(f"{target} is there already; name another folder with --output, or remove it.")


def _write_stage(stage: Path, shelf: Shelf, listing: Listing) -> None:
    root = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        shutil.copytree(root / name, stage / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
    (stage / "pyproject.toml").write_text(
        f'[project]\nname = "{PRODUCT}"\nversion = "{distribution(PRODUCT).version}"\n', encoding="utf-8"
    )
    keys = stage / FROZEN_KEYS / TRUSTED
    keys.mkdir(parents=True)
    # A component of a composite was signed where it was trained.
    signers = {verify(manifest.parent) for one in listing.models for manifest in shelf.path(one.current).rglob(MANIFEST)}
    for key in trusted_keys():
        if fingerprint(key) in signers:
            shutil.copy(key, keys / key.name)
    (stage / "requirements.txt").write_text("\n".join(pinned_requirements()) + "\n", encoding="utf-8")
    (stage / "bentofile.yaml").write_text(yaml.safe_dump(_bentofile(listing)), encoding="utf-8")


def _bentofile(listing: Listing) -> dict[str, object]:
    return {
        "service": "serving.service:Hypoxia",
        "description": "Tumour-hypoxia models, frozen. Research use only.",
        "labels": {
            **{f"model-{number}": f"{one.name}:{one.current.version}" for number, one in enumerate(listing.models)},
            **{f"digest-{number}": one.current.digest for number, one in enumerate(listing.models)},
        },
        # Patterns are like those of git: without the first slash they would match in any depth.
        "include": [f"/{name}/" for name in (*PACKAGES, FROZEN_SHELF, FROZEN_KEYS)] + ["/pyproject.toml"],
        "python": {"requirements_txt": "./requirements.txt", "lock_packages": False},
        "docker": {"python_version": f"{sys.version_info.major}.{sys.version_info.minor}"},
        "envs": [{"name": name, "value": value} for name, value in ENVIRONMENT.items()],
    }


def _build(stage: Path, home: Path) -> Path:
    _run([sys.executable, "-P", "-m", "bentoml", "build", "--output", "tag", str(stage)], stage, home, "BentoML")
    built = list((home / "bentos").glob("*/*/bento.yaml"))
    if len(built) != 1:
        raise PackagingError("BentoML said that it had built a Bento, and there is none.")
    return built[0].parent


def _containerize(bento: Path, home: Path, image: str) -> None:
    tag = f"{bento.parent.name}:{bento.name}"
    _run([sys.executable, "-P", "-m", "bentoml", "containerize", tag, "-t", image], bento, home, "Docker")


def _run(command: list[str], folder: Path, home: Path, who: str) -> None:
    """Run with a home of its own, since BentoML would copy a store that lies inside of what it packs."""
    environment = {**os.environ, "BENTOML_HOME": str(home)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise PackagingError(f"{who} could not build it: {said[-1] if said else f'exit code {done.returncode}'}")


def _require_no_training(bento: Path) -> None:
    """A server that could train could be made to.

    Raises
    ------
    PackagingError
    """
    folders = {path.name for path in (bento / "src").iterdir()}
    pinned = {line.partition("==")[0] for line in (bento / "env" / "python" / "requirements.txt").read_text().splitlines()}
    found = sorted((folders & {"training"}) | (pinned & TRAINING_ONLY))
    if found:
        raise PackagingError(f"The Bento would hold {', '.join(found)}, which a server must not; it was thrown away.")
