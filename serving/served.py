"""The models that a worker serves, each replaced by its next version while requests go on."""

from __future__ import annotations

import gc
import logging
import threading
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features.bundle import load_bundle
from features.errors import BundleError, HypoxiaError
from serving.loader import LoadedModel
from serving.predictor import Predictor
from serving.profile import profile_of
from serving.shelf import Copy, PendingProblem, Role, Shelf, Shelved

if TYPE_CHECKING:
    from features.bundle import ModelBundle

logger = logging.getLogger(__name__)

PRODUCT = "hypoxia-biomarkers"
LONGEST_RELOAD_S = 25.0


class TrialError(BundleError):
    """A model that was loaded does not score what it should be able to."""


@dataclass(frozen=True)
class Entry:
    """A model as it is answered from now."""

    copy: Copy
    predictor: Predictor


class ServedModels(Mapping[str, Predictor]):
    """Predictors by the model's name, read from a shelf; `refresh` follows it.

    A request that looked its predictor up keeps it, whatever is put in its place meanwhile.

    Parameters
    ----------
    shelf : Shelf
        Every model there must load, verify and pass its trial now, or an error says which does not.
    on_change : callable, optional
        Called with nothing whenever another version is served.
    """

    def __init__(self, shelf: Shelf, on_change: Callable[[], None] = lambda: None) -> None:
        self._shelf = shelf
        self._on_change = on_change
        self._lock = threading.Lock()
        self._problems: dict[str, PendingProblem] = {}
        self._refused: set[str] = set()
        self._stamp = shelf.stamp()
        listing = shelf.read()
        self._answered = listing.answered
        self._entries: dict[Role, dict[str, Entry]] = {"serve": {}, "shadow": {}}
        for one in listing.models:
            self._entries[one.role][one.name] = self._first(one)
            self._note(one)
        settle()

    def __getitem__(self, name: str) -> Predictor:
        return self._entries["serve"][name].predictor

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries["serve"].copy())

    def __len__(self) -> int:
        return len(self._entries["serve"])

    @property
    def problems(self) -> Mapping[str, PendingProblem]:
        """By name of a model: why its newest version is not served."""
        return self._problems

    def challenger(self, name: str) -> Predictor | None:
        """Predictor that is to be compared with a served one, out of sight."""
        entry = self._entries["shadow"].get(name)
        return None if entry is None else entry.predictor

    @property
    def has_challengers(self) -> bool:
        """Whether any model has one; which do is settled when the server starts."""
        return bool(self._entries["shadow"])

    @property
    def versions(self) -> list[tuple[str, str]]:
        """Name and version of what is served."""
        return sorted((name, entry.copy.version) for name, entry in self._entries["serve"].copy().items())

    def refresh(self) -> bool:
        """Take over what has changed on the shelf; what cannot be taken over stays as it is. Never raises for a bad model.

        Returns
        -------
        bool
            Whether another version is served now.
        """
        with self._lock:
            stamp = self._shelf.stamp()
            if stamp == self._stamp:
                return False
            listing = self._shelf.read()
            if listing.answered > self._answered:
                self._refused.clear()  # somebody asked for another look: what failed here may not fail again
            changed = [self._take(one) for one in listing.models]
            self._stamp, self._answered = stamp, listing.answered
        if any(changed):
            settle()
            self._on_change()
        return any(changed)

    def reload(self) -> bool:
        """Have the registry looked into now, and wait until this worker serves what was found.

        Returns
        -------
        bool
            False if that took too long, or if nothing is followed.
        """
        if not any(one.reference for one in self._shelf.read().models):
            return False
        number = self._shelf.ask()
        deadline = time.monotonic() + LONGEST_RELOAD_S
        while time.monotonic() < deadline:
            self.refresh()
            if self._answered >= number:
                return True
            time.sleep(0.05)
        return False

    def _first(self, one: Shelved) -> Entry:
        try:
            return self._load(one.name, one.current)
        except HypoxiaError as error:
            if one.previous is None:
                raise
            self._refuse(one, error)
            return self._load(one.name, one.previous)

    def _take(self, one: Shelved) -> bool:
        entries = self._entries[one.role]
        served = entries.get(one.name)
        self._note(one)
        if served is not None and served.copy == one.current:
            return False
        if one.current.folder in self._refused:
            return False
        try:
            entries[one.name] = self._load(one.name, one.current)
        except Exception as error:  # noqa: BLE001 - whatever a new version does, the one before it goes on
            self._refuse(one, error)
            return False
        logger.info("Model %s: version %s is served now.", one.name, one.current.version)
        return True

    def _load(self, name: str, copy: Copy) -> Entry:
        predictor = Predictor(LoadedModel(name, copy.version, load_bundle(self._shelf.path(copy))))
        try_out(predictor)
        return Entry(copy, predictor)

    def _note(self, one: Shelved) -> None:
        if one.role == "shadow":
            return
        if one.pending_problem is not None:
            self._problems[one.name] = one.pending_problem
        elif one.current.folder not in self._refused:
            self._problems.pop(one.name, None)

    def _refuse(self, one: Shelved, error: Exception) -> None:
        self._refused.add(one.current.folder)
        self._problems[one.name] = PendingProblem(version=one.current.version, kind="unverified", error=type(error).__name__)
        logger.error("Model %s: version %s is not served (%s).", one.name, one.current.version, type(error).__name__)


def try_out(predictor: Predictor) -> None:
    """Score and judge the rows that stand for the training samples, as the rows of a request will be.

    Raises
    ------
    TrialError
        The bundle's parts are not of one model, or a score is no probability.
    """
    bundle: ModelBundle = predictor.loaded.bundle
    _try_out(bundle)
    for component in bundle.components.values():
        _try_out(component)


def _try_out(bundle: ModelBundle) -> None:
    fault = _mismatch(bundle)
    if fault is not None:
        raise TrialError(f"The bundle's parts do not fit together ({fault}); it was not taken into use. Train it again.")
    rows = _trial_rows(bundle)
    try:
        scores, raw, distance = bundle.score(rows), bundle.raw_score(rows), bundle.contract.judge(rows).distance
    except ValueError as cause:
        raise TrialError("The model cannot score its own background rows; it was not taken into use. Train it again.") from cause
    if not (np.isfinite(scores).all() and (scores >= 0).all() and (scores <= 1).all()):
        raise TrialError("The model's scores of its own background rows are no probabilities; it was not taken into use.")
    if not np.isfinite(distance).all() or (raw is not None and not np.isfinite(raw).all()):
        raise TrialError("Distances or scores of the model's own background rows are no numbers; it was not taken into use.")


def _trial_rows(bundle: ModelBundle) -> np.ndarray:
    """The background; of a composite that judges by one biomarker alone, also without either."""
    card = bundle.card.composite
    if card is None or card.missing != "alone":
        return bundle.background
    without = np.repeat(bundle.background[:1], 2, axis=0)
    np.fill_diagonal(without, np.nan)
    return np.concatenate([bundle.background, without])


def _mismatch(bundle: ModelBundle) -> str | None:
    """Which part of a bundle is of another model than the others; a signature says who made them, not that they fit."""
    names, contract = bundle.schema.names, bundle.contract
    distance, profile = contract.distance, profile_of(bundle)
    if contract.names != names:
        return "contract and schema name other features"
    if bundle.background.ndim != 2 or bundle.background.shape[0] == 0 or bundle.background.shape[1] != len(names):
        return "background rows"
    if {len(distance.center), len(distance.scale), len(distance.precision), *map(len, distance.precision)} != {len(names)}:
        return "distance"
    if not contract.aliases.keys().isdisjoint(names) or not set(contract.aliases.values()) <= set(names):
        return "aliases"
    if profile is not None and bundle.pipeline[-1].medoids_.shape != (len(profile.names), len(profile.features)):
        return "clusters"
    return None if 0 <= bundle.card.threshold <= 1 else "threshold"


def product_version() -> str:
    """Version of this code, also where it was copied and not installed (in a Bento).

    Examples
    --------
    >>> product_version().count(".") >= 1
    True
    """
    try:
        return version(PRODUCT)
    except PackageNotFoundError:
        project = Path(__file__).resolve().parents[1] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def settle() -> None:
    """What is loaded stays: the collector need not walk it again and again (halves the slowest hundredth of answers)."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
