"""The command that lets a model learn one more site."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from features.bundle import RESEARCH_USE_ONLY
from features.errors import InputError
from features.store import tracking_uri as store_address
from training.cli import JSON, URI

if TYPE_CHECKING:
    from training.adapt import Adaptation


@click.command()
@click.argument("model")
@click.argument("table", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--site-column", required=True, help="Column that says where a row was measured.")
@click.option("--new-site", required=True, help="The new site, as that column writes it; rows of other sites are left out.")
@click.option("--sample", help="Column that names the rows, so that one that is there twice is refused.")
@URI
@JSON
def adapt(
    model: str,
    table: Path,
    site_column: str,
    new_site: str,
    sample: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Let MODEL learn one more site from the unlabelled samples in TABLE, as a new version. No alias is moved.

    \b
    MODEL: NAME (its newest version), NAME:VERSION, NAME@ALIAS or the id of a run; trained with
    recipe.harmonise: {kind: combat, unseen_site: adapt, minimum_cases: N}.
    TABLE: .csv, .tsv or .parquet with the model's features by name and N rows of the new site or more; no outcome is read.

    Level and spread of each feature at the new site are estimated. Scores of the sites known before do not change at all, and the
    estimates on the card stay theirs: how well the model does at the new site is for labelled patients to say (hypoxia validate).
    """
    from training.adapt import adapt_model, described
    from training.tracking import open_store, store_exists

    address = store_address(tracking_uri)
    if not store_exists(address):
        raise InputError(f"There is no store at {address}; train a model first (hypoxia train), or name it with --tracking-uri.")
    found = adapt_model(open_store(address), model, table, site_column=site_column, new_site=new_site, sample=sample)
    if as_json:
        click.echo(json.dumps(described(found, address), indent=1))
    else:
        _print_adaptation(found, address)


def _print_adaptation(found: Adaptation, uri: str) -> None:
    from training.console import as_typed, console_on, say

    console, model = console_on(sys.stdout), found.model
    new, where = f"{model.name}:{found.version}", "" if uri == store_address() else f" --tracking-uri {uri}"
    say(console, new, f"{model.title} with site {found.table.site!r}, from {found.samples} unlabelled samples")
    for warning in (found.bundle.card.warnings[-1], *found.warnings):
        say(console, "Warning", warning, "yellow")
    console.print(f"Run {found.run_id} in {uri}", soft_wrap=True)
    command = as_typed("hypoxia")
    console.print(f"Judge it at the site:  {command} validate {new} --on TABLE --label COLUMN{where}", soft_wrap=True)
    console.print(f"Serve it:              {command} serve --model {new}{where}", soft_wrap=True)
    words = (
        f"The gate cannot tell it from {model.title} by the held-out patients, whom both score alike, and will not put it in "
        "that one's place; an alias of its own it can have:"
    )
    console.print(words, soft_wrap=True)
    console.print(f"  {command} promote {model.name} {found.version} --alias NAME{where}", soft_wrap=True)
    console.print(RESEARCH_USE_ONLY, style="bold")
