"""The command that downloads public expression data."""

from __future__ import annotations

import json
from pathlib import Path

import click

from features.fetch import TIMEOUT_S, Fetched, Transfer
from features.fetch import fetch as fetch_files

EVERY = 10  # per cent between two lines of progress


@click.command()
@click.argument("what")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Folder.  [default: this one]")
@click.option("--platform", is_flag=True, help="Of a series, also the tables that say of which genes its probes are.")
@click.option("--sha256", help="Checksum that the file must have.  [default: that of the first download, kept beside it]")
@click.option("--base-url", help="Another place that is laid out like GEO's, or refine.bio's.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=TIMEOUT_S, show_default=True, help="Seconds of silence."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; everything else goes to stderr.")
def fetch(
    what: str, output: Path, platform: bool, sha256: str | None, base_url: str | None, timeout: float, as_json: bool
) -> None:
    """Download WHAT: a series of GEO, or a dataset that was made on refine.bio.

    \b
    hypoxia fetch GSE146114 --platform             series matrix and the platform's genes
    hypoxia fetch refinebio:<dataset id>           needs REFINEBIO_TOKEN, a token of yours

    A transfer that was cut short is resumed when the command is run again. The checksum is kept beside the file.
    """
    found = fetch_files(
        what,
        output,
        platform=platform,
        sha256=sha256,
        base_url=base_url,
        transfer=Transfer(timeout, _Lines().say),
    )
    for one in found:
        click.echo(f"{one.path}: {'downloaded' if one.fresh else 'there already, unchanged'} (SHA-256 {one.sha256})", err=True)
    if as_json:
        click.echo(json.dumps({"files": [_told(one) for one in found]}, indent=1))


def _told(one: Fetched) -> dict[str, str | bool]:
    return {"path": str(one.path), "sha256": one.sha256, "fresh": one.fresh}


class _Lines:
    """Progress as a line on stderr for every tenth of a file, which a log can hold too."""

    def __init__(self) -> None:
        self._said: dict[str, int] = {}

    def say(self, name: str, done: int, total: int | None) -> None:
        step = 100 * done // total // EVERY if total else done // (50 << 20)
        if step > self._said.get(name, 0):
            self._said[name] = step
            share = f"{step * EVERY}% of {total / 1e6:.1f} MB" if total else f"{done / 1e6:.0f} MB"
            click.echo(f"{name}: {share}", err=True)
