"""The command `hypoxia profiles`: what an extraction can measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from features.imaging.profiles import NOTES, PROFILES, Options, Profile, Resolution, find_profile, preflight

SHORT = 12
WIDTH = 100


@click.command()
@click.argument("name", required=False)
@click.option("--names", is_flag=True, help="Print the names of the columns, one a line, without the sequence.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def profiles(name: str | None, names: bool, as_json: bool) -> None:
    """List the extraction profiles, or show the one called NAME (or a PyRadiomics parameter file).

    The hash stands for all settings of a profile; it travels with every table, model and prediction. A profile that cannot be
    measured here, for want of a library or of a setting, is shown too, and ends with the reason and exit code 2.
    """
    if name is None and names:
        raise click.UsageError("Name the profile whose columns are wanted, as in: hypoxia profiles halle2024 --names.")
    if name is None:
        click.echo(_json({one.name: _summary(one) for one in PROFILES.values()}) if as_json else _list())
        return
    profile = find_profile(name, Path())
    described = _names(profile)
    if as_json:
        more = {"names": described} if names else {}
        click.echo(_json({**_summary(profile), "settings": profile.model_dump(mode="json"), **more}))
    else:
        click.echo("\n".join(described) if names else _settings(profile))
    preflight(profile)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1)


def _summary(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "version": profile.version,
        "hash": profile.hash,
        "columns": {sequence or "each sequence": len(profile.plain_names(sequence)) for sequence in profile.sequences or ("",)},
    }


def _names(profile: Profile) -> list[str]:
    """Columns of a joint profile with their sequence, since sequences differ; else those of any sequence."""
    if profile.joint:
        return [feature.name for feature in profile.features(profile.sequences)]
    return list(profile.plain_names())


def _columns(profile: Profile) -> str:
    return ", ".join(
        f"{len(profile.plain_names(sequence))} {sequence or 'per sequence'}" for sequence in profile.sequences or ("",)
    )


def _list() -> str:
    rows = [(one.name, str(one.version), one.hash[:SHORT], _columns(one)) for one in PROFILES.values()]
    header = ("profile", "version", "hash", "columns")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (header, *rows)]
    return "\n".join([*lines, "", "Your own: a PyRadiomics parameter file (.yaml) in place of the name."])


def _settings(profile: Profile) -> str:
    lines = [
        ("profile", f"{profile.name}, version {profile.version}"),
        ("hash", profile.hash),
        ("columns", _columns(profile)),
        ("measured together", ", ".join(profile.sequences) or "no: each sequence by itself, in its own mask"),
        ("resolutions", "; ".join(map(_resolution, profile.resolutions))),
        ("scaled to mean", "no" if profile.scale_to_mean is None else f"{profile.scale_to_mean:g}, over the {profile.mean_over}"),
        ("settings", _changed(profile.options, Options())),
        *(("image", f"{image.kind} {_changed(image.options, profile.options, '')}".rstrip()) for image in profile.images),
        *(("features", f"{one.family}: {', '.join(one.features) or 'all'}") for one in profile.classes),
        ("diagnostics", "kept, not for modelling" if profile.diagnostics else "left out"),
        ("smallest mask", f"{profile.minimum_voxels} voxels"),
    ]
    width = max(len(label) for label, _ in lines)
    body = [f"{label.ljust(width)}  {text}" for label, text in lines]
    return "\n".join([*body, "", click.wrap_text(NOTES[profile.name], WIDTH)] if profile.name in NOTES else body)


def _resolution(resolution: Resolution) -> str:
    spacing = resolution.spacing
    text = "as acquired" if spacing is None else f"{' x '.join(f'{length:g}' for length in spacing)} mm"
    return f"{resolution.name} {text}" if resolution.name else text


def _changed(options: Options, base: Options, nothing: str = "PyRadiomics' defaults") -> str:
    usual = base.radiomics()
    own = {key: value for key, value in options.radiomics().items() if value != usual[key]}
    return ", ".join(f"{key} {_plain(value)}" for key, value in own.items()) or nothing


def _plain(value: Any) -> str:
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, tuple) else str(value)
