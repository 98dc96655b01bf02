"""What may be wrong with an installation, and what to do about it. Looks, and changes nothing."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from features.errors import BundleError, HypoxiaError, InputError
from features.ledger import Ledger, LedgerError
from features.settings import Settings
from features.signing import PRIVATE_KEY, keys_folder, trusted_keys
from features.store import state_folder, switch_telemetry_off
from serving.served import PRODUCT

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from features.bundle import ModelCard

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
LITTLE_BYTES, TOO_LITTLE_BYTES = 2 * 1024**3, 200 * 1024**2
# A few minutes of difference between the clocks of two machines are no reason to worry.
AHEAD_S = 300.0
MOST_MODELS = 50
LEDGERS = ("audit.jsonl", "requests.jsonl")
EXTRAS = {
    "training": "hypoxia train, compare and promote",
    "serving": "hypoxia predict, serve and package",
    "radiomics": "features from images",
}


class Finding(Settings):
    """What one check found.

    Examples
    --------
    >>> print(Finding(check="port", state="warn", found="3000 is in use.", advice="Choose another with --port."))
    warn  port: 3000 is in use. Choose another with --port.
    """

    check: str
    state: Literal["ok", "warn", "fail"]
    found: str
    advice: str | None = None

    def __str__(self) -> str:
        return f"{self.state:<5} {self.check}: {self.found}" + (f" {self.advice}" if self.advice else "")


@dataclass(frozen=True)
class Surroundings:
    """What is examined.

    Attributes
    ----------
    uri : str
        Address of the MLflow store.
    port : int
        Port that is to be served on.
    """

    uri: str
    port: int

    @property
    def state(self) -> Path:
        """Folder of the logs that belong to the store."""
        return state_folder(self.uri)


Check = Callable[[Surroundings], Iterator[Finding]]


def examine(uri: str, port: int) -> list[Finding]:
    """Check everything; what a check cannot look at is a failure of that check and of no other."""
    # A registry that does not answer is to be found out in seconds, not in the minutes of MLflow's own patience.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    switch_telemetry_off()
    found: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            found += check(Surroundings(uri, port))
        except (HypoxiaError, OSError) as error:
            found.append(Finding(check=name, state="fail", found=_sentence(error)))
        except ModuleNotFoundError as error:
            advice = f"pip install '{PRODUCT}[serving]'"
            found.append(Finding(check=name, state="fail", found=f"{error.name} is not installed.", advice=advice))
    return found


def check_python(_: Surroundings) -> Iterator[Finding]:
    """Version of Python."""
    version = sys.version_info[:3]
    shown = ".".join(map(str, version))
    if not OLDEST_PYTHON <= version[:2] <= NEWEST_PYTHON:
        yield Finding(check="python", state="fail", found=f"{shown} is not supported.", advice="Install Python 3.11 to 3.13.")
    else:
        yield Finding(check="python", state="ok", found=f"{shown}.")


def check_packages(_: Surroundings) -> Iterator[Finding]:
    """Versions of what is required, within the ranges that this product declares."""
    wrong = [sentence for sentence in map(_wrong, _declared("")) if sentence]
    for sentence in wrong:
        yield Finding(check="packages", state="fail", found=sentence, advice=f"Install again: pip install '{PRODUCT}'.")
    if not wrong:
        yield Finding(check="packages", state="ok", found=f"{PRODUCT} {distribution(PRODUCT).version} and what it needs.")


def check_extras(_: Surroundings) -> Iterator[Finding]:
    """Which parts of the product are installed."""
    for extra, use in EXTRAS.items():
        wrong = [sentence for sentence in map(_wrong, _declared(extra)) if sentence]
        if wrong:
            yield Finding(
                check=f"extra {extra}",
                state="warn",
                found=f"{wrong[0]} It is needed for {use}.",
                advice=f"Install it if you want that: pip install '{PRODUCT}[{extra}]'.",
            )
        else:
            yield Finding(check=f"extra {extra}", state="ok", found=f"installed ({use}).")


def check_store(around: Surroundings) -> Iterator[Finding]:
    """The store can be reached, and its schema is of the installed MLflow."""
    from serving.loader import registered_names

    names = registered_names(around.uri)
    found = f"it answers; {len(names)} models are registered." if names else "it answers; no model is registered."
    advice = None if names else "Train one: hypoxia train STUDY.yaml."
    yield Finding(check="store", state="ok" if names else "warn", found=found, advice=advice)


def check_keys(_: Surroundings) -> Iterator[Finding]:
    """The key that models are signed with is a secret, and some key is trusted."""
    folder = keys_folder()
    private = folder / PRIVATE_KEY
    if not private.exists():
        yield Finding(check="signing key", state="warn", found=f"none in {folder} yet.", advice="The first training makes it.")
    elif stat.S_IMODE(private.stat().st_mode) & 0o077:
        yield Finding(check="signing key", state="fail", found=f"{private} can be read by others.", advice=f"chmod 600 {private}")
    else:
        yield Finding(check="signing key", state="ok", found=f"{private} is readable by its owner only.")
    keys = trusted_keys()
    writable = [path for path in (folder / "trusted", *keys) if path.exists() and path.stat().st_mode & 0o022]
    if writable:
        yield Finding(
            check="trusted keys",
            state="fail",
            found=f"{writable[0]} can be written by others.",
            advice=f"chmod go-w {writable[0]}",
        )
    elif not keys:
        advice = f"Train a model, or copy the public key of the machine that does into {folder / 'trusted'}."
        yield Finding(check="trusted keys", state="warn", found="none: no model can be verified.", advice=advice)
    else:
        yield Finding(check="trusted keys", state="ok", found=f"{len(keys)} in {folder / 'trusted'}.")


def check_models(around: Surroundings) -> Iterator[Finding]:
    """What would be served verifies: every champion, and the newest version of a model without one."""
    from serving.loader import load_registered, names_with_alias, parse_reference, registered_names

    champions = set(names_with_alias("champion", around.uri))
    for name in registered_names(around.uri)[:MOST_MODELS]:
        reference = f"{name}@champion" if name in champions else name
        try:
            loaded = load_registered(parse_reference(reference), around.uri)
        except BundleError as error:
            advice = "Train or promote another version; do not serve this one."
            yield Finding(check=f"model {reference}", state="fail", found=_sentence(error), advice=advice)
            continue
        except InputError as error:
            yield Finding(check=f"model {reference}", state="fail", found=_sentence(error))
            continue
        yield _versions(f"model {reference}", loaded.version, loaded.bundle.card)


def check_port(around: Surroundings) -> Iterator[Finding]:
    """Nobody listens on the port yet."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", around.port))
        except OSError:
            found = f"{around.port} is in use; is a server running already?"
            yield Finding(check="port", state="warn", found=found, advice="Choose another with --port.")
            return
    yield Finding(check="port", state="ok", found=f"{around.port} is free.")


def check_disk(around: Surroundings) -> Iterator[Finding]:
    """There is room for models and logs, and they may be written."""
    folder = _nearest(around.state)
    free = shutil.disk_usage(folder).free
    shown = f"{free / 1024**3:.1f} GiB free at {folder}."
    if free < LITTLE_BYTES:
        state: Literal["warn", "fail"] = "fail" if free < TOO_LITTLE_BYTES else "warn"
        advice = "Make room: a server that cannot write its audit log answers nothing."
        yield Finding(check="disk", state=state, found=shown, advice=advice)
    else:
        yield Finding(check="disk", state="ok", found=shown)
    if not os.access(folder, os.W_OK | os.X_OK):
        advice = "Run as the user that owns it, or name another store with --tracking-uri."
        yield Finding(check="state folder", state="fail", found=f"{folder} cannot be written.", advice=advice)
    else:
        yield Finding(check="state folder", state="ok", found=f"{folder} can be written.")


def check_clock(around: Surroundings) -> Iterator[Finding]:
    """The time is not before something that has happened already."""
    here = [Path(__file__), *(around.state / name for name in ("mlflow.db", *LEDGERS))]
    newest = max(path.stat().st_mtime for path in here if path.exists())
    if newest > time.time() + AHEAD_S:
        found = (
            f"the clock says {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, which is before files that are there already."
        )
        yield Finding(check="clock", state="fail", found=found, advice="Set the clock (timedatectl set-ntp true).")
    else:
        yield Finding(check="clock", state="ok", found=f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC.")


def check_ledgers(around: Surroundings) -> Iterator[Finding]:
    """The logs of promotions and of requests are as they were written."""
    for name in LEDGERS:
        path = around.state / name
        if not path.exists():
            yield Finding(check=name, state="ok", found="nothing is logged yet.")
            continue
        try:
            lines = Ledger(path).verify()
        except LedgerError as error:
            advice = "Keep the file as it is and find out who changed it; restore it from a copy."
            yield Finding(check=name, state="fail", found=_sentence(error), advice=advice)
            continue
        yield Finding(check=name, state="ok", found=f"{lines} lines, each of which follows from the one before it.")


CHECKS: dict[str, Check] = {
    "python": check_python,
    "packages": check_packages,
    "extras": check_extras,
    "store": check_store,
    "keys": check_keys,
    "models": check_models,
    "port": check_port,
    "disk": check_disk,
    "clock": check_clock,
    "ledgers": check_ledgers,
}


def _declared(extra: str) -> list[Requirement]:
    """What the product requires: without an extra, or because of it."""
    from packaging.requirements import Requirement

    required = [Requirement(line) for line in distribution(PRODUCT).requires or []]
    here = [one for one in required if one.marker is None or one.marker.evaluate({"extra": extra})]
    return [one for one in here if (one.marker is not None and "extra" in str(one.marker)) == bool(extra)]


def _wrong(requirement: Requirement) -> str | None:
    try:
        version = distribution(requirement.name).version
    except PackageNotFoundError:
        return f"{requirement.name} is not installed."
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return f"{requirement.name} {version} is installed, and {requirement.specifier} is needed."


def _versions(check: str, version: str, card: ModelCard) -> Finding:
    """Golden rows came out as they were; other versions are still worth a word."""
    differ = [
        f"{name} {then} (here {here})" for name, then in card.versions.items() if (here := _installed(name)) not in {None, then}
    ]
    if not differ:
        return Finding(check=check, state="ok", found=f"version {version} verifies, and scores its golden rows as it should.")
    return Finding(
        check=check,
        state="warn",
        found=f"version {version} verifies, but was trained with {', '.join(differ)}.",
        advice="Its golden rows score the same; train it again when you can.",
    )


def _installed(name: str) -> str | None:
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


def _nearest(folder: Path) -> Path:
    """The folder, or the first one above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'} cannot be read ({error.strerror})."
    return str(error)
