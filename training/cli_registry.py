"""The command that compares recorded models; those that promote them are in ``training.cli_promotion``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from features.errors import InputError
from features.files import write_whole
from features.store import tracking_uri as store_address
from training.cli import JSON, URI

ON_OPTIONS = ("--label", "--event", "--time", "--patient", "--sample", "--learnt")


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="A B [C ...]")
@URI
@click.option(
    "--on", "table", type=click.Path(path_type=Path, dir_okay=False), help="Score all models on this labelled table first."
)
@click.option(
    "--label", help="With --on: column of the outcome; of times to an event, of whether it happened (default: the study's)."
)
@click.option(
    "--event", help="With --on: value of --label that is the event.  [default: 1, or the study's for times to an event]"
)
@click.option("--time", help="With --on: column of the follow-up, for models of times to an event. Default: the study's.")
@click.option("--patient", help="With --on: column that says whose row it is. Default: every row is a patient.")
@click.option("--sample", help="With --on: column that names the rows. Default: that of the study, else the first if it can.")
@click.option(
    "--learnt",
    type=click.Choice(["refuse", "leave-out", "keep"]),
    help="With --on: rows that a model learnt from, by name.  [default: refuse]",
)
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write one file with tables and plots; it opens offline."
)
@click.option("--bootstrap", type=click.IntRange(min=100), default=2000, show_default=True, help="Resamples of patients.")
@click.option(
    "--level", type=click.FloatRange(0.5, 1, min_open=True, max_open=True), default=0.95, show_default=True, help="Of intervals."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the resamples.")
@JSON
def compare(
    models: tuple[str, ...],
    tracking_uri: str | None,
    table: Path | None,
    label: str | None,
    event: str | None,
    time: str | None,
    patient: str | None,
    sample: str | None,
    learnt: str | None,
    html: Path | None,
    bootstrap: int,
    level: float,
    seed: int,
    as_json: bool,
) -> None:
    """Put models side by side; the first is the reference. Trains nothing and changes nothing.

    \b
    A, B, C: run ids, NAME (its newest version), NAME:VERSION or NAME@ALIAS. The run of a study of several sequences
    stands for the model of each.

    \b
    Shown: what was learnt from what; every metric with its interval; calibration; decision curves; and, on the same
    patients only, differences with paired intervals, DeLong's p, Holm's adjustment, and who is called differently.
    Models of times to an event: concordance, AUC and Brier score at the horizon, Kaplan-Meier curves (--html).
    Models that were judged on different patients are refused; score them on one labelled table with
    --on TABLE --label COLUMN [--time COLUMN] [--patient COLUMN].
    """
    from training.compare import Resampling, load_models
    from training.compare import compare as compare_models
    from training.compare_report import as_html, print_comparison
    from training.compare_report import as_json as in_json
    from training.console import console_on
    from training.labelled import outcome_asked, read_labelled
    from training.tracking import open_store, store_exists

    options = dict(zip(ON_OPTIONS, (label, event, time, patient, sample, learnt), strict=True))
    _refuse_without_table(table, options)
    address = store_address(tracking_uri)
    if not store_exists(address):
        raise InputError(f"There is no store of models at {address}; train a model first, or name it with --tracking-uri.")
    judged = load_models(open_store(address), models)
    usual = [name for model in judged for name in model.sample_columns]
    words = [feature.name for model in judged for feature in model.schema.with_levels]
    labelled = table and read_labelled(
        table,
        outcome=outcome_asked(judged, label=label, event=event, time=time),
        patient=patient,
        sample=sample,
        usual=usual,
        words=words,
    )
    found = compare_models(judged, Resampling(bootstrap, level, seed), labelled, learnt or "refuse")  # type: ignore[arg-type]
    if html:
        write_whole(html, as_html(found))
    if as_json:
        click.echo(json.dumps(in_json(found), indent=1, allow_nan=False))
    else:
        print_comparison(console_on(sys.stdout), found)
    if html:
        click.echo(f"Written to {html}.", err=True)


def _refuse_without_table(table: Path | None, options: dict[str, str | None]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if table is None and given:
        raise InputError(f"{given[0]} says how to read a table, and none was named; name it with --on TABLE.")
