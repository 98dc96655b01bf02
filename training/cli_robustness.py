"""The command that asks which features come out the same when they are measured again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from features.errors import InputError
from training.cli_extract import JSON, SCHEDULER, WORKERS, WORKERS_OF_A_MANIFEST, images_of

if TYPE_CHECKING:
    from features.imaging.settings import PerturbationSettings

TABLE = "robustness.csv"
FARTHEST = ("count", "shift_voxels", "shift_mm", "turn_degrees", "volume")


@click.command()
@click.argument("tables", nargs=-1, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--sample", help="With tables: column with the sample's name.  [default: sample]")
@click.option(
    "--perturb",
    "source",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Study (.yaml) or manifest (.csv) whose cases are measured again with perturbed masks.",
)
@click.option("--profile", help="With a manifest: what to measure, as for `hypoxia extract`.")
@click.option(
    "--sequence", "sequences", multiple=True, help="With a manifest: a sequence to measure; may be given several times."
)
@click.option("--count", type=click.IntRange(min=2), help="Perturbed masks of each case.  [default: 10]")
@click.option("--shift-voxels", type=click.FloatRange(min=0), help="Farthest shift along each axis, in voxels.  [default: 0.5]")
@click.option("--shift-mm", type=click.FloatRange(min=0), help="Farthest further shift, in millimetres.  [default: 0]")
@click.option("--turn-degrees", type=click.FloatRange(0, 180), help="Farthest turn within the slices.  [default: 5]")
@click.option(
    "--volume", type=click.FloatRange(0, 1, max_open=True), help="Largest share of volume gained or lost.  [default: 0.15]"
)
@click.option("--seed", type=click.IntRange(min=0), help="Another seed perturbs otherwise.  [default: 0]")
@WORKERS
@SCHEDULER
@click.option("--output", help=f"With tables: file to write [{TABLE}]. With a manifest: folder of the extraction [extracted].")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="PNG to draw: the correlations by family.")
@JSON
def robustness(
    tables: tuple[Path, ...],
    sample: str | None,
    source: Path | None,
    output: str | None,
    picture: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Tell which features come out the same when they are measured again: TABLES of the same samples, or perturbed masks.

    \b
    hypoxia robustness first/features.csv second/features.csv      two scans, or two readers
    hypoxia robustness --perturb study.yaml --count 10             ten perturbed masks of every case

    Writes ICC(2,1) (absolute agreement) and ICC(3,1) (consistency) of every feature with 95% intervals. Perturbed masks
    are shifted, turned, and grown or shrunk at random by the seed; their tables are written to `perturbed` in the folder of
    the extraction, and recipe.robust.tables of a study takes them. What was measured is not measured again.
    """
    if picture is not None and picture.suffix.lower() != ".png":
        raise InputError(f"--picture {picture} is no PNG; name a file that ends in .png.")
    if source is None:
        _refuse_of_perturbation(given)
        found = _compared(tables, sample or "sample", Path(output or TABLE), picture)
    else:
        if tables or sample:
            raise InputError("--perturb measures tables of its own; name either tables (and their --sample) or --perturb.")
        found = _perturbed(source, output, picture, given)
    if as_json:
        click.echo(json.dumps(found, indent=1))


def _compared(tables: tuple[Path, ...], sample: str, output: Path, picture: Path | None) -> dict[str, Any]:
    from features.files import write_whole
    from training.console import stderr_console
    from training.remeasuring import compare_tables
    from training.remeasuring_report import as_json, draw, print_robustness

    found = compare_tables(tables, sample)
    write_whole(output, found.table.to_csv(index=False))
    print_robustness(stderr_console(), found, output)
    if picture is not None:
        draw(found, picture)
    return as_json(found, output)


def _perturbed(source: Path, output: str | None, picture: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    from training.console import stderr_console
    from training.remeasuring import perturb_images, print_recipe

    images, folder, of_study = images_of(source, given["profile"], output, given["sequences"])
    workers = given["workers"] or (of_study.workers if of_study else WORKERS_OF_A_MANIFEST)
    scheduler = given["scheduler"] or (of_study.scheduler if of_study else None)
    console = stderr_console()
    try:
        perturbed = perturb_images(images, folder, _perturbation(given), given["seed"] or 0, workers, scheduler, console)
    except KeyboardInterrupt:
        click.echo("Interrupted. What is measured is kept; the same command goes on from there.", err=True)
        sys.exit(130)
    found = _compared(perturbed.tables, "sample", perturbed.folder / TABLE, picture)
    print_recipe(console, perturbed, folder)
    return found | perturbed.summary | {"study": perturbed.recipe}


def _perturbation(given: dict[str, Any]) -> PerturbationSettings:
    from features.imaging.settings import PerturbationSettings

    settings = PerturbationSettings(**{name: given[name] for name in FARTHEST if given[name] is not None})
    if not (settings.shift_voxels or settings.shift_mm or settings.turn_degrees or settings.volume):
        raise InputError("Shift, turn and volume are all 0, so no mask is perturbed; leave one of them at its default.")
    return settings


def _refuse_of_perturbation(given: dict[str, Any]) -> None:
    named = [name for name, value in given.items() if value not in (None, ())]
    if named:
        option = "sequence" if named[0] == "sequences" else named[0].replace("_", "-")
        raise InputError(f"--{option} goes with --perturb; leave it out, or name a study.")
