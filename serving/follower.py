"""Follows the registry: puts the version to which an alias points on the shelf, once it is verified and tried.

Runs in a process of its own, so that workers never import MLflow, never wait for a registry, and need none to start again.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from features.bundle import load_bundle
from features.errors import BundleError, HypoxiaError, InputError
from serving.loader import LoadedModel, fetch_bundle, find_registered, names_with_alias, parse_reference
from serving.predictor import Predictor
from serving.served import try_out
from serving.shelf import Copy, Kind, Listing, PendingProblem, Role, Shelf, Shelved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serving.loader import Registration
    from serving.served import ServedModels

logger = logging.getLogger(__name__)

CHAMPION = "champion"
# A version that failed is tried again after this, in case that it was not the version's fault (a full disk, a cut line).
TRY_AGAIN_S = 60.0
NEWCOMER = "newcomer"  # in the place of a version, of a model that was never served
LAST_WORD_S = 45.0


@dataclass
class Follower:
    """Looks into the registry and keeps a shelf up to date.

    Parameters
    ----------
    uri : str
        Address of the MLflow store.
    """

    shelf: Shelf
    uri: str
    _tried: dict[tuple[str, str, str], float] = field(default_factory=dict)

    def stock(
        self, references: Sequence[str], shadows: Sequence[str] = (), *, follow: bool = True, all_champions: bool = False
    ) -> Listing:
        """Fill the shelf for the first time; whatever is wrong with any model is an error.

        Parameters
        ----------
        references, shadows : sequence of str
            ``NAME``, ``NAME@ALIAS`` or ``NAME:VERSION``.
        follow : bool
            Whether those by alias are followed from then on.

        Raises
        ------
        InputError, BundleError
        """
        wanted = [*references, *(self._champions() if all_champions else [])]
        roles: list[tuple[Role, str]] = [("serve", text) for text in wanted] + [("shadow", text) for text in shadows]
        models: dict[tuple[Role, str], Shelved] = {}
        for role, text in roles:
            reference = parse_reference(text)
            if (role, reference.name) in models:
                raise InputError(f"Model {reference.name!r} is to be served twice; one version of a model can be.")
            copy = self._put(find_registered(reference, self.uri))
            followed = str(reference) if follow and reference.alias else None
            models[role, reference.name] = Shelved(name=reference.name, role=role, current=copy, reference=followed)
        for role, name in models:
            if role == "shadow" and ("serve", name) not in models:
                raise InputError(f"--shadow {name} has nothing to be compared with; serve {name} too, with --model.")
        listing = Listing(models=tuple(models.values()), all_champions=all_champions and follow)
        self.shelf.write(listing)
        return listing

    def look(self, *, number: int = 0) -> Listing:
        """Look into the registry once, and put on the shelf what has changed there.

        Parameters
        ----------
        number : int
            Of the request that made us look, if it was one; then a version that failed before is tried again at once.
        """
        before = self.shelf.read()
        again = number > before.answered
        models = [self._followed(one, again) for one in before.models]
        if before.all_champions:
            models += self._newcomers(before, again)
        after = Listing(models=tuple(models), all_champions=before.all_champions, answered=max(number, before.answered))
        if after != before:
            self.shelf.write(after)
        return after

    def _followed(self, one: Shelved, again: bool) -> Shelved:
        if one.reference is None:
            return one
        version = None
        try:
            found = find_registered(parse_reference(one.reference), self.uri)
            version = found.version
            if version == one.current.version:
                return one.model_copy(update={"pending_problem": None})
            if not again and self._failed_lately(one.name, one.role, version):
                return one
            copy = self._put(found)
        except Exception as error:  # noqa: BLE001 - the edge: whatever happens here, what is served goes on
            return self._kept(one, version, error)
        logger.info("Model %s: version %s follows version %s.", one.name, copy.version, one.current.version)
        return one.model_copy(update={"current": copy, "previous": one.current, "pending_problem": None})

    def _kept(self, one: Shelved, version: str | None, error: Exception) -> Shelved:
        kind = _kind(error, version)
        self._tried[one.name, one.role, version or ""] = time.monotonic()
        problem = PendingProblem(version=version, kind=kind, error=type(error).__name__)
        if problem != one.pending_problem:
            logger.error(
                "Model %s: version %s is not served (%s, %s); version %s goes on.",
                one.name,
                version or "to come",
                kind,
                type(error).__name__,
                one.current.version,
            )
        _count_failure(one.name, kind)
        return one.model_copy(update={"pending_problem": problem})

    def _failed_lately(self, name: str, role: Role, version: str) -> bool:
        return time.monotonic() - self._tried.get((name, role, version), -math.inf) < TRY_AGAIN_S

    def _put(self, found: Registration) -> Copy:
        """Copy first and verify the copy: what was verified is what is loaded, whatever becomes of the original."""
        copy = self.shelf.put(found.name, found.version, lambda folder: fetch_bundle(found, self.uri, folder))
        try_out(Predictor(LoadedModel(found.name, found.version, load_bundle(self.shelf.path(copy)))))
        return copy

    def _champions(self) -> list[str]:
        names = names_with_alias(CHAMPION, self.uri)
        if not names:
            raise InputError("No registered model has the alias 'champion'; promote one (hypoxia promote NAME VERSION).")
        return [f"{name}@{CHAMPION}" for name in names]

    def _newcomers(self, before: Listing, again: bool) -> list[Shelved]:
        known = {one.name for one in before.models if one.role == "serve"}
        try:
            names = [name for name in names_with_alias(CHAMPION, self.uri) if name not in known]
        except HypoxiaError:
            return []  # said already, of each model that is followed
        due = [name for name in names if again or not self._failed_lately(name, "serve", NEWCOMER)]
        return [one for one in map(self._newcomer, due) if one is not None]

    def _newcomer(self, name: str) -> Shelved | None:
        reference = f"{name}@{CHAMPION}"
        try:
            copy = self._put(find_registered(parse_reference(reference), self.uri))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a newcomer, the others are followed
            self._tried[name, "serve", NEWCOMER] = time.monotonic()
            logger.error("Model %s became a champion and is not served (%s).", name, type(error).__name__)
            return None
        return Shelved(name=name, current=copy, reference=reference)


def follow(shelf: Shelf, uri: str, every_s: float, parent: int) -> None:
    """Look into the registry again and again, and at once when asked to; ends with the process that started it."""
    follower = Follower(shelf, uri)
    due = time.monotonic()
    while os.getppid() == parent:
        asked = shelf.asked()
        if asked > shelf.read().answered or time.monotonic() >= due:
            follower.look(number=asked)
            due = time.monotonic() + every_s
        time.sleep(0.2)


class Watch(threading.Thread):
    """A worker's look at the shelf, once a second, and at the process that started it: without that it ends too.

    A supervisor that was killed cannot stop its workers, which would go on answering with what nobody follows any more.
    """

    def __init__(self, models: ServedModels, every_s: float = 1.0) -> None:
        super().__init__(name="watch", daemon=True)
        self._models = models
        self._every_s = every_s
        self._parent = os.getppid()

    def run(self) -> None:
        while os.getppid() == self._parent:
            time.sleep(self._every_s)
            try:
                self._models.refresh()
            except InputError:
                logger.exception("The list of models cannot be read; what is served goes on.")
        logger.error("The process that started this worker is gone; the worker ends too.")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_WORD_S)
        os._exit(1)


def _kind(error: Exception, version: str | None) -> Kind:
    if isinstance(error, BundleError):
        return "unverified"
    if isinstance(error, OSError):
        return "files"
    if isinstance(error, InputError):
        return "registry" if version is None else "files"
    return "failed"


def _count_failure(name: str, kind: Kind) -> None:
    from serving.shadow import operation_metrics

    operation_metrics().not_taken.labels(name, kind).inc()
