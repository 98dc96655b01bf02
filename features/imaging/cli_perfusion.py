"""The command that makes perfusion maps and hypoxic fractions of contrast series."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from features.imaging.perfusion import PerfusionSettings
    from features.imaging.perfusion_study import PerfusionCase, PerfusionTable


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for tables, maps, pictures."
)
@click.option("--sequence", help="Rows of the manifest that are contrast series.  [default: DCE, or the only one]")
@click.option("--threshold", type=float, help="A voxel with ABrix below it is hypoxic.  [default: 1.56]")
@click.option("--cutoff", type=float, help="A tumour is hypoxic from this fraction on.  [default: 0.27]")
@click.option("--baseline-frames", type=int, help="Frames before contrast.  [default: 1]")
@click.option("--form", type=click.Choice(["bolus", "infusion"]), help="How contrast was given.  [default: bolus]")
@click.option("--infusion-min", type=float, help="Length of the infusion in minutes; only with --form infusion.")
@click.option(
    "--arrival", type=float, help="When contrast reaches the tumour, in minutes.  [default: estimated for each patient]"
)
@click.option("--resample-masks", is_flag=True, help="Bring masks on another grid onto that of the series, instead of refusing.")
@click.option("--strict", is_flag=True, help="Exit with 1 if a series could not be measured.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; everything else goes to stderr.")
def perfusion(manifest: Path, output: Path, sequence: str | None, strict: bool, as_json: bool, **given: Any) -> None:
    """Turn the contrast series of MANIFEST into Brix maps and hypoxic fractions.

    \b
    A row's image is a 4-D file, a folder or zip with a DICOM series, or several volumes in order of time joined by ';'.
    Times come from DICOM headers, from FrameTimesStart in a JSON sidecar, or from a column times_s (seconds, joined by ';').
    A series with too few frames for the fit gets percent enhancement and signal-enhancement ratio, and the reason.
    """
    from features.imaging.perfusion_study import load_series_manifest, run_perfusion

    settings = _settings(given)
    loaded, cases = load_series_manifest(manifest, sequence)
    done = 0

    def say(found: PerfusionCase) -> None:
        nonlocal done
        done += 1
        click.echo(f"{done} of {len(cases)}  {found.case.entry.sample}: {_told(found)}", err=True)

    table = run_perfusion(loaded, cases, settings, output, say)
    failures = len(table.failures)
    for warning in table.warnings:
        click.echo(f"Warning: {warning}", err=True)
    click.echo(f"{len(table.rows)} of {len(cases)} series measured, {failures} with a failure; written to {output}", err=True)
    if as_json:
        click.echo(json.dumps(_described(table), indent=1))
    if strict and failures:
        sys.exit(1)


def _told(found: PerfusionCase) -> str:
    if found.failure:
        return str(found.failure)
    fraction, voxels = found.values["hypoxic_fraction"], int(found.values["voxels"])
    return f"hypoxic fraction {fraction:.3f} of {voxels} voxels, called {'more' if found.values['hypoxic'] else 'less'} hypoxic"


def _described(table: PerfusionTable) -> dict[str, Any]:
    """The rows with what does not exist as null: NaN is no JSON."""
    rows = json.loads(table.rows.reset_index().to_json(orient="records", double_precision=15))
    failures = json.loads(table.failures.to_json(orient="records"))
    record = table.record
    described = {
        "settings_hash": record.settings_hash,
        "settings": record.settings["perfusion"],
        "warnings": list(table.warnings),
    }
    return {"rows": rows, "failures": failures, **described}


def _settings(given: dict[str, Any]) -> PerfusionSettings:
    from pydantic import ValidationError

    from features.errors import InputError
    from features.imaging.perfusion import PerfusionSettings

    def those(*names: str) -> dict[str, Any]:
        return {name: given[name] for name in names if given[name] is not None}

    if given["infusion_min"] is not None and given["form"] != "infusion":
        raise InputError("--infusion-min is given, but contrast as a bolus; add --form infusion, or leave it out.")
    masks = {"disconnected": "keep", "one_slice": "keep", "off_grid": "resample" if given["resample_masks"] else "refuse"}
    brix = those("baseline_frames", "form", "infusion_min", "arrival")
    try:
        return PerfusionSettings.model_validate({**those("threshold", "cutoff"), "brix": brix, "masks": masks})
    except ValidationError as cause:
        fault = cause.errors()[0]
        option = str(fault["loc"][-1]).replace("_", "-")
        raise InputError(f"--{option} cannot be {fault['input']!r}: {fault['msg']}; give another value.") from cause
