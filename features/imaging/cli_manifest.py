"""The command that drafts a manifest."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from features.errors import InputError
from features.files import write_whole
from features.imaging.manifest import Entry, check_entries, draft_manifest, write_rows

MOST_SHOWN = 40


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to write. Default: FOLDER/manifest.csv.")
@click.option("--force", is_flag=True, help="Write over a manifest that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; everything else goes to stderr.")
def manifest(folder: Path, output: Path | None, force: bool, as_json: bool) -> None:
    """Draft a manifest of the images and masks below FOLDER, and say what could not be placed.

    \b
    Sequences and samples are guessed from the names of files and folders (BIDS, flat names, a folder per patient) and from
    the headers of DICOM series. Read it through before you extract: a guess is a guess.
    """
    target = output or folder / "manifest.csv"
    if target.exists() and not force:
        raise InputError(f"{target} is there already; write over it with --force, or name another file with --output.")
    draft = draft_manifest(folder)
    for path, why in draft.unplaced[:MOST_SHOWN]:
        click.echo(f"{path}: {why}", err=True)
    if len(draft.unplaced) > MOST_SHOWN:
        click.echo(f"... and {len(draft.unplaced) - MOST_SHOWN} more; --json lists all.", err=True)
    if not draft.entries:
        raise InputError(f"{folder} holds no image that could be placed (NIfTI, NRRD, MetaImage, DICOM); nothing was written.")
    entries = [_seen_from(target, folder, entry) for entry in draft.entries]
    check_entries(entries, target.name)
    write_whole(target, write_rows(entries))
    _summarise(entries, target)
    if as_json:
        body = {"manifest": str(target), "entries": [entry.model_dump(mode="json") for entry in entries]}
        json.dump({**body, "unplaced": [{"path": path, "why": why} for path, why in draft.unplaced]}, sys.stdout, indent=2)
        click.echo()


def _seen_from(target: Path, folder: Path, entry: Entry) -> Entry:
    """The entry with paths relative to where the manifest is written."""

    def seen(path: str | None) -> str | None:
        return None if path is None else Path(os.path.relpath(folder / path, target.parent)).as_posix()

    return entry.model_copy(update={"image": seen(entry.image), "mask": seen(entry.mask)})


def _summarise(entries: list[Entry], target: Path) -> None:
    samples = {entry.sample for entry in entries}
    sequences = ", ".join(dict.fromkeys(entry.sequence for entry in entries))
    masked = sum(entry.mask is not None or entry.reference is not None for entry in entries)
    click.echo(
        f"{target}: {_counted(len(entries), 'image')} of {_counted(len(samples), 'sample')} ({sequences}), {masked} with a "
        "mask or a reference. Read it through before you extract.",
        err=True,
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
