"""The commands that ask how far one biopsy speaks for its tumour."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from features.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SEED = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed draws otherwise.")
OUT = click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="CSV to write.")
PICTURE = click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="PNG to draw.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; everything else goes to stderr.")


@click.group()
def heterogeneity() -> None:
    """Tell how far one biopsy speaks for its tumour: from several biopsies, or from biopsies taken virtually from maps."""


@heterogeneity.command()
@click.argument("table", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--tumour", default="tumour", show_default=True, help="Column that says which tumour a sample is from.")
@click.option("--value", default="value", show_default=True, help="Column with the value.")
@click.option("--voxels", help="Column with the voxels that each value is a fraction of; then its logit is analysed.")
@click.option("--resamples", type=click.IntRange(min=100), default=1000, show_default=True, help="For the interval.")
@SEED
@OUT
@PICTURE
@JSON
def variance(
    table: Path,
    tumour: str,
    value: str,
    voxels: str | None,
    resamples: int,
    seed: int,
    out: Path | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Part the variance in TABLE into that within and that between tumours.

    TABLE has a row per sample, several of a tumour. W/T is the part of the variance that is within tumours, by random-effects
    analysis of variance and by restricted maximum likelihood: with one biopsy, and with the mean of several. Its interval is
    over tumours.
    """
    import numpy as np

    from training.biopsy_variance import analyse_variance
    from training.console import stderr_console
    from training.heterogeneity_report import draw_variance, print_variance, variance_json

    _refuse_unless_png(picture)
    columns = _columns(table, tumour, value, voxels)
    found = analyse_variance(*columns, np.random.default_rng(seed), resamples)
    print_variance(stderr_console(), found)
    _write(out, found.table())
    if picture is not None:
        draw_variance(found, picture)
    if as_json:
        click.echo(json.dumps(variance_json(found), indent=1))


@heterogeneity.command()
@click.argument("maps", type=click.Path(path_type=Path))
@click.option("--threshold", type=float, default=1.56, show_default=True, help="A voxel with a value below it is hypoxic.")
@click.option(
    "--slices", type=click.Choice(["all", "largest"]), default="all", show_default=True, help="Where biopsies are taken."
)
@click.option(
    "--classes",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Table with columns sample, imaging and genes: what each biomarker calls a tumour.",
)
@SEED
@OUT
@PICTURE
@JSON
def biopsies(
    maps: Path,
    threshold: float,
    slices: str,
    classes: Path | None,
    seed: int,
    out: Path | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Take virtual biopsies of 12 voxels from MAPS, and tell in which tumours hypoxia is more clustered.

    MAPS is a folder that `hypoxia perfusion` wrote, or a manifest with a map as image and the tumour as mask (none: where the
    map has a value). More clustered is a tumour whose biopsies differ by more than those of tumours with the same hypoxic
    fraction: above a smooth curve, which needs 20 tumours. With --classes it is asked whether tumours that imaging and genes
    call differently are more, or less, clustered.
    """
    import numpy as np

    from training.biopsied_maps import biopsied, maps_of
    from training.console import stderr_console
    from training.heterogeneity_report import biopsies_json, draw_biopsies, print_biopsies

    _refuse_unless_png(picture)
    called = None if classes is None else _classes(classes)
    found = biopsied(maps_of(maps), threshold, np.random.default_rng(seed), "all" if slices == "all" else "largest", called)
    print_biopsies(stderr_console(), found)
    _write(out, found.tumours)
    if picture is not None:
        draw_biopsies(found, picture)
    if as_json:
        click.echo(json.dumps(biopsies_json(found), indent=1))


def _columns(table: Path, tumour: str, value: str, voxels: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    from features.sources import read_table

    frame = read_table(table, text_columns=(tumour,))
    _check_columns(frame, table, (tumour, value, *([voxels] if voxels else ())))
    missing = int(frame[tumour].isna().sum())
    if missing:
        raise InputError(f"{missing} of {len(frame)} samples in {table.name} have no {tumour}; fill the column in.")
    counted = _numbers(frame, voxels, table) if voxels else None
    return _numbers(frame, value, table), frame[tumour].to_numpy(dtype=str), counted


def _classes(path: Path) -> pd.DataFrame:
    from features.sources import read_table

    columns = ("sample", "imaging", "genes")
    frame = read_table(path, text_columns=columns)
    _check_columns(frame, path, columns)
    if frame["sample"].duplicated().any():
        raise InputError(f"{path.name} has a sample twice; keep one row of each.")
    return frame.set_index("sample")[["imaging", "genes"]]


def _check_columns(frame: pd.DataFrame, table: Path, names: tuple[str, ...]) -> None:
    known = [str(name) for name in frame.columns]
    for name in names:
        if name not in known:
            raise InputError(f"{table.name} has no column {name!r}{did_you_mean(name, known)}; it has {', '.join(known[:8])}.")


def _numbers(frame: pd.DataFrame, name: str, table: Path) -> np.ndarray:
    try:
        return frame[name].to_numpy(dtype=float)
    except (TypeError, ValueError) as cause:
        raise InputError(f"Column {name!r} of {table.name} holds something that is no number; correct it.") from cause


def _refuse_unless_png(picture: Path | None) -> None:
    if picture is not None and picture.suffix.lower() != ".png":
        raise InputError(f"--picture {picture} is no PNG; name a file that ends in .png.")


def _write(out: Path | None, table: pd.DataFrame) -> None:
    from features.files import write_whole

    if out is not None:
        write_whole(out, table.to_csv(index=False))
