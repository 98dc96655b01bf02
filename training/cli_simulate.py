"""The command that makes a cohort whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from features.errors import InputError

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; everything else goes to stderr.")


@click.command()
@click.option("--n", type=int, help="Patients.  [default: 118]")
@click.option("--events", type=float, help="Progressions to be expected by the horizon.  [default: 41]")
@click.option("--correlation", type=float, help="Of the two biomarkers, between -1 and 1.  [default: 0.3]")
@click.option(
    "--imaging-effect", type=float, help="Hazard ratio per standard deviation of the imaging biomarker; 1: none.  [default: 1.5]"
)
@click.option("--gene-effect", type=float, help="Hazard ratio per standard deviation of the gene score; 1: none.  [default: 1.5]")
@click.option("--horizon", type=float, help="Months after which follow-up ends.  [default: 60]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed draws other patients.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("simulated.csv"),
    show_default=True,
    help="Table to write; the truth goes beside it, as NAME.truth.json.",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@JSON
def simulate(out: Path, seed: int, force: bool, as_json: bool, **given: Any) -> None:
    """Write a cohort with an imaging and a gene biomarker and progression-free survival, and the truth that it was made from.

    \b
    hypoxia simulate --imaging-effect 1 --gene-effect 1     nothing to find: what does a search find all the same?
    hypoxia simulate --n 500 --events 180 --out large.csv   the same truth in more patients

    The default is of the size of the study of cervical cancer: 118 patients, about 41 events in 60 months. Columns: patient,
    hypoxic_fraction (0 to 1), gene_score (standard deviations), stage, age, pfs_months, progressed. Effects act on the
    biomarkers' standard-normal values (the hypoxic fraction is a logistic function of its own); stage has a hazard ratio of
    1.3 per step, age none. There is no true line: the hazard rises smoothly. The same options and seed give the same file.
    """
    import numpy as np
    from pydantic import ValidationError

    from training.console import say, stderr_console
    from training.simulate import SimulationSettings, simulate_cohort, truth_path, write_cohort

    try:
        settings = SimulationSettings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as cause:
        fault = cause.errors()[0]
        option = str(fault["loc"][0]).replace("_", "-")
        raise InputError(f"--{option} {fault['input']:g} {fault['msg'].removeprefix('Input ')}.") from cause
    cohort = simulate_cohort(settings, np.random.default_rng(seed), seed)
    write_cohort(cohort, out, force=force)
    console, truth = stderr_console(), cohort.truth
    say(console, "Wrote", f"{out} and {truth_path(out)}")
    say(console, "Patients", f"{settings.n}, of whom {truth.observed_events} progressed ({truth.expected_events:.0f} expected)")
    say(console, "Truth", f"hazard ratio {truth.composite_effect:.2f} per standard deviation of the best mixture of both")
    if as_json:
        click.echo(json.dumps({"table": str(out), "truth": truth.model_dump()}, indent=1))
