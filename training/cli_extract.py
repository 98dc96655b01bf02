"""The commands about images that read a study or a manifest."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from features.errors import InputError

if TYPE_CHECKING:
    from features.imaging.settings import MaskSettings
    from features.imaging.source import ImageSource
    from training.config import Compute

WORKERS_OF_A_MANIFEST = 2
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; everything else goes to stderr.")
WORKERS = click.option("--workers", type=click.IntRange(min=1), help="Local processes, one case in memory each. Default: 2.")
SCHEDULER = click.option("--scheduler", help="Address of a Dask scheduler whose workers see the same files.")


@click.command()
@click.argument("source", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--profile", help="With a manifest: a name that `hypoxia profiles` lists, or a PyRadiomics parameter file (.yaml).")
@click.option("--output", help="With a manifest: folder for tables and pictures, beside it. Default: extracted.")
@click.option(
    "--sequence", "sequences", multiple=True, help="With a manifest: a sequence to measure; may be given several times."
)
@click.option(
    "--masks",
    multiple=True,
    metavar="KEY=VALUE",
    help="With a manifest: what becomes of odd masks, as under masks in a study (off_grid=resample, disconnected=largest or "
    "keep, one_slice=keep, minimum_voxels=N); may be given several times, and is part of the settings' hash.",
)
@WORKERS
@SCHEDULER
@click.option("--strict", is_flag=True, help="End with exit code 1 if any case failed.")
@JSON
def extract(
    source: Path,
    profile: str | None,
    output: str | None,
    sequences: tuple[str, ...],
    masks: tuple[str, ...],
    workers: int | None,
    scheduler: str | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Measure features in the images of SOURCE: a study (.yaml) whose source is of kind images, or a manifest (.csv).

    \b
    hypoxia manifest scans/ --output manifest.csv     draft the list of images and masks; read it, correct it
    hypoxia extract manifest.csv --profile ibsi       measure; writes extracted/features.csv and .parquet
    hypoxia extract study.yaml                        the same, as the study says

    A case that cannot be measured is listed with its file and the reason, and the others go on. What was measured before,
    by the content of the files and the settings, is not measured again, also after an interruption. For every case there
    is a picture of the mask on the image: look at them.
    """
    from training.console import stderr_console
    from training.extracting import extract_images

    images, folder, of_study = images_of(source, profile, output, sequences, masks)
    workers = workers or (of_study.workers if of_study else WORKERS_OF_A_MANIFEST)
    scheduler = scheduler or (of_study.scheduler if of_study else None)
    try:
        found = extract_images(images, folder, workers, scheduler, stderr_console())
    except KeyboardInterrupt:
        click.echo("Interrupted. What is measured is kept; the same command goes on from there.", err=True)
        sys.exit(130)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    if strict and found["failures"]:
        sys.exit(1)


def images_of(
    source: Path, profile: str | None, output: str | None, sequences: tuple[str, ...], masks: tuple[str, ...] = ()
) -> tuple[ImageSource, Path, Compute | None]:
    """Images, the folder that their paths are relative to, and how a study is to be run."""
    from features.imaging.source import ImageSource

    if source.suffix.lower() == ".csv":
        if profile is None:
            raise InputError(f"{source.name} is a manifest; say with --profile what to measure (`hypoxia profiles` lists them).")
        images = ImageSource(
            manifest=source.name, profile=profile, output=output or "extracted", sequences=sequences, masks=_masks(masks)
        )
        return images, source.resolve().parent, None
    if profile or output or sequences or masks:
        raise InputError(
            "--profile, --output, --sequence and --masks go with a manifest; a study says them itself, under cohort.source."
        )
    from training.config import load_study

    study = load_study(source)
    if not isinstance(study.cohort.source, ImageSource):
        raise InputError(f"{source} has its features already (cohort.source.kind: {study.cohort.source.kind}); use kind: images.")
    return study.cohort.source, study.folder, study.compute


def _masks(given: tuple[str, ...]) -> MaskSettings:
    from pydantic import ValidationError

    from features.imaging.settings import MaskSettings

    told = dict(one.partition("=")[::2] for one in given)
    try:
        return MaskSettings.model_validate(told)
    except ValidationError as cause:
        fault = cause.errors()[0]
        key = str(fault["loc"][0])
        known = ", ".join(MaskSettings.model_fields)
        raise InputError(f"--masks {key}={told[key]} is not possible ({fault['msg']}); keys are {known}.") from cause
