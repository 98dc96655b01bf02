"""The folder from which workers take their models: verified copies of bundles, and one file that says which are current.

What follows the registry writes it, workers read it. A worker that starts again needs no registry, and a server that was
packaged has never seen one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from features.bundle import bundle_digest
from features.errors import InputError
from features.settings import Settings

# Where `hypoxia package` puts the models and the public keys that they are verified with, beside the packages.
FROZEN_SHELF = "models"
FROZEN_KEYS = "keys"
LISTING = "shelf.json"
ASKED = "asked"

Role = Literal["serve", "shadow"]
# Why a newer version is not served. A closed list: it is logged, counted and answered, and holds nothing of a patient's.
Kind = Literal["registry", "unverified", "files", "failed"]


class PendingProblem(Settings):
    """Why the version that should be served is not; the one before it still is."""

    version: str | None = None
    kind: Kind
    error: str


class Copy(Settings):
    """A version of a model whose bundle lies in a folder of the shelf."""

    version: str
    folder: str
    digest: str


class Shelved(Settings):
    """A model on the shelf.

    Attributes
    ----------
    reference : str or None
        What is followed in the registry; None for a model that stays as it is.
    previous : Copy or None
        What was served before; kept in case that the current one cannot be read.
    """

    name: str
    role: Role = "serve"
    current: Copy
    previous: Copy | None = None
    reference: str | None = None
    pending_problem: PendingProblem | None = None


class Listing(Settings):
    """What is on the shelf.

    Attributes
    ----------
    all_champions : bool
        Whether a model that becomes a champion later joins.
    answered : int
        The last request to look into the registry that this listing takes account of.
    """

    models: tuple[Shelved, ...] = ()
    all_champions: bool = False
    answered: int = 0


@dataclass(frozen=True)
class Shelf:
    """The folder, which exists from the first write on."""

    folder: Path

    def read(self) -> Listing:
        """What is on the shelf now.

        Raises
        ------
        InputError
            There is no shelf in the folder, or it cannot be read.
        """
        try:
            return Listing.model_validate_json((self.folder / LISTING).read_text(encoding="utf-8"))
        except (OSError, ValidationError) as cause:
            raise InputError(f"There are no models to serve in {self.folder}; start the server with `hypoxia serve`.") from cause

    def write(self, listing: Listing) -> None:
        """Replace the listing, whole or not at all, and throw away copies that it no longer names."""
        self._replace(LISTING, listing.model_dump_json(indent=1))
        named = {copy.folder for one in listing.models for copy in (one.current, one.previous) if copy is not None}
        for folder in self.folder.iterdir():
            if folder.is_dir() and folder.name not in named:
                shutil.rmtree(folder, ignore_errors=True)

    def put(self, name: str, version: str, fetch: Callable[[Path], None]) -> Copy:
        """Copy a version's bundle to the shelf, where nobody is told of it yet.

        Parameters
        ----------
        fetch : callable
            Fills a folder that does not exist yet.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        stage = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self.folder))
        try:
            fetch(stage / "bundle")
            digest = bundle_digest(stage / "bundle") if (stage / "bundle" / "manifest.json").is_file() else "0" * 64
            target = self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:12]}-{version}-{digest[:12]}"
            shutil.rmtree(target, ignore_errors=True)
            (stage / "bundle").rename(target)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        return Copy(version=version, folder=target.name, digest=digest)

    def path(self, copy: Copy) -> Path:
        """Folder of a copy."""
        return self.folder / copy.folder

    def stamp(self) -> int:
        """Changes whenever the listing does; 0 where there is none."""
        try:
            return (self.folder / LISTING).stat().st_mtime_ns
        except OSError:
            return 0

    def ask(self) -> int:
        """Ask whoever follows the registry to look there now; returns the number of the request."""
        number = max(self.asked(), self.read().answered) + 1
        self._replace(ASKED, str(number))
        return number

    def asked(self) -> int:
        """Number of the last request to look into the registry; 0 if there was none."""
        try:
            return int((self.folder / ASKED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0

    def _replace(self, name: str, text: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, stage = tempfile.mkstemp(prefix=f".{name}-", dir=self.folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(stage).replace(self.folder / name)
