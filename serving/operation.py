"""Which models a server serves, from where, and what it follows: the options of ``hypoxia serve`` that say so."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from features.errors import InputError
from features.store import switch_telemetry_off

if TYPE_CHECKING:
    from serving.shelf import Shelf, Shelved

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--model", "models", multiple=True, metavar="NAME[@ALIAS|:VERSION]", help="A registered model; may be repeated."
    ),
    click.option("--all-champions", is_flag=True, help="Every registered model that has the alias champion."),
    click.option(
        "--follow",
        "follow_s",
        type=click.FloatRange(min=0),
        default=10.0,
        show_default=True,
        envvar="HYPOXIA_FOLLOW",
        metavar="SECONDS",
        help="How often to look where an alias points now; 0: never.",
    ),
    click.option(
        "--shadow",
        "shadows",
        multiple=True,
        metavar="NAME@ALIAS",
        help="A challenger that scores the same rows out of sight; only /metrics shows how it differs. May be repeated.",
    ),
)


def operation_options(command: Command) -> Command:
    """Add the options of `Operation` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class Operation:
    """What ``hypoxia serve`` was asked to serve.

    Attributes
    ----------
    follow_s : float
        Seconds between looks into the registry; 0 for none.
    """

    models: tuple[str, ...] = ()
    all_champions: bool = False
    follow_s: float = 0.0
    shadows: tuple[str, ...] = ()

    def stock(self, folder: Path, uri: str) -> tuple[Shelf, tuple[Shelved, ...]]:
        """Copy the models to a shelf and verify them; returns it with what is to be served.

        Raises
        ------
        InputError, BundleError
            Nothing was named, or something that was is not there or does not verify.
        """
        from serving.follower import Follower
        from serving.shelf import Shelf

        if not self.models and not self.all_champions:
            raise InputError("Name a model to serve with --model NAME@champion, or serve them all with --all-champions.")
        shelf = Shelf(folder / "models")
        listing = Follower(shelf, uri).stock(
            self.models, self.shadows, follow=self.follow_s > 0, all_champions=self.all_champions
        )
        return shelf, tuple(one for one in listing.models if one.role == "serve")

    def environment(self, shelf: Shelf, uri: str) -> dict[str, str]:
        """What the server's processes are told."""
        listing = shelf.read()
        follows = listing.all_champions or any(one.reference for one in listing.models)
        return {
            "HYPOXIA_SHELF": str(shelf.folder.absolute()),
            "HYPOXIA_TRACKING_URI": uri,
            "HYPOXIA_FOLLOW": str(self.follow_s if follows else 0.0),
        }


def become_server(address: str, port: int, arguments: list[str], environment: dict[str, str]) -> None:
    """Replace this process by the server, so that a signal to it reaches the server and nothing is left between them."""
    switch_telemetry_off()
    root = Path(__file__).resolve().parents[1]
    environment = {
        **os.environ,
        # One thread per worker: their number is what uses the processors, and a library that starts threads cannot be forked.
        **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")},
        **environment,
        # A folder called `serving` or `features` where the command is typed must not be imported instead of ours.
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = [sys.executable, "-m", "serving.supervisor", "--host", address, "--port", str(port), *arguments]
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # BentoML logs on stdout, which is for the answer to --json
    os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is what is wanted
