"""The command that tells what the names in a table of expression mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from features.errors import InputError
from features.expression import ExpressionSource, MappingReport
from features.files import replace_whole

MOST_SHOWN = 20


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--platform", type=click.Path(path_type=Path, dir_okay=False), help="File that says of which genes the probes are.")
@click.option("--genes", type=click.Choice(["auto", "rows", "columns"]), default="auto", help="Where a table has its genes.")
@click.option("--sample", help="Of a table with genes in columns, the column with the sample's name.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="CSV to write: one row per name.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; everything else goes to stderr.")
def genes(path: Path, platform: Path | None, genes: str, sample: str | None, output: Path | None, as_json: bool) -> None:
    """Tell what the names of genes in PATH mean: a file of GEO, refine.bio's archive, or a table.

    Nothing is refused here: names that a study would refuse are listed with what they may mean, to be written under
    cohort.source.names. Names are told by the HGNC's table that comes with this package.
    """
    source = ExpressionSource(
        path=str(path.resolve()),
        platform=None if platform is None else str(platform.resolve()),
        genes=genes,
        sample=sample,
        scale="as_is",
        unclear="leave_out",
    )
    frame = source.read(Path())
    report: MappingReport = frame.attrs["mapping"]
    for note in frame.attrs["notes"]:
        click.echo(note, err=True)
    for one in report.names.refused[:MOST_SHOWN]:
        click.echo(f"{one.name}: {one.note}", err=True)
    if len(report.names.refused) > MOST_SHOWN:
        click.echo(f"... and {len(report.names.refused) - MOST_SHOWN} more; --output lists all.", err=True)
    if output is not None:
        _write(report, output)
    if as_json:
        click.echo(json.dumps(_told(report), indent=1))


def _write(report: MappingReport, output: Path) -> None:
    try:
        replace_whole(output, lambda stage: report.table().to_csv(stage, index=False))
    except OSError as cause:
        raise InputError(f"{output} cannot be written ({cause.strerror}); name a file in a folder that is yours.") from cause


def _told(report: MappingReport) -> dict[str, Any]:
    return {
        "names": len(report.names.names),
        "genes": len(report.genes),
        "counts": report.names.counts,
        "unclear": {one.name: list(one.candidates) for one in report.names.refused},
        "chosen": dict(report.chosen),
    }
