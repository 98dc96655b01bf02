"""The command that makes a cohort whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from features.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from features.settings import Settings

Chosen = TypeVar("Chosen", bound="Settings")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; everything else goes to stderr.")


@click.command()
@click.option(
    "--kind",
    type=click.Choice(["composite", "profile"]),
    default="composite",
    show_default=True,
    help="Two biomarkers for `kind: composite` studies, or clusters of patients for `kind: profile`.",
)
@click.option("--n", type=int, help="Patients.  [default: 118; profile: 132]")
@click.option("--events", type=float, help="Progressions to be expected by the horizon.  [default: 41; profile: 40]")
@click.option("--horizon", type=float, help="Months after which follow-up ends.  [default: 60]")
@click.option("--correlation", type=float, help="Of the two biomarkers, between -1 and 1.  [composite; default: 0.3]")
@click.option(
    "--imaging-effect",
    type=float,
    help="Hazard ratio per standard deviation of the imaging biomarker; 1: none.  [composite; default: 1.5]",
)
@click.option(
    "--gene-effect",
    type=float,
    help="Hazard ratio per standard deviation of the gene score; 1: none.  [composite; default: 1.5]",
)
@click.option(
    "--separation",
    type=float,
    help="How far the clusters lie apart, in standard deviations; 0: none to be seen.  [profile; default: 1.2]",
)
@click.option(
    "--scanner-effect",
    type=float,
    help="How far scanners shift the features, in standard deviations; 0: not at all.  [profile; default: 1.5]",
)
@click.option(
    "--cluster-effect", type=float, help="Hazard ratio of cluster 3 against the others; 1: none.  [profile; default: 4]"
)
@click.option(
    "--expression-effect", type=float, help="Log2 difference of the linked genes in cluster 3; 0: none.  [profile; default: 1.2]"
)
@click.option(
    "--world",
    type=int,
    help="What features show, and in which units; another seed of one world is another hospital.  [profile; default: 0]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed draws other patients.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("simulated.csv"),
    show_default=True,
    help="Table to write; the truth goes beside it, as NAME.truth.json, and so do the other parts of a profile.",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@JSON
def simulate(kind: str, out: Path, seed: int, force: bool, as_json: bool, **given: Any) -> None:
    """Write a cohort with progression-free survival, and the truth that it was made from.

    \b
    hypoxia simulate --imaging-effect 1 --gene-effect 1     nothing to find: what does a search find all the same?
    hypoxia simulate --n 500 --events 180 --out large.csv   the same truth in more patients
    hypoxia simulate --kind profile --out profile.csv       clusters, scanners, genes, mutations and proteins
    hypoxia simulate --kind profile --scanner-effect 0      the same patients, had all been imaged alike
    hypoxia simulate --kind profile --separation 0          no clusters: do they differ in outcome all the same?
    hypoxia simulate --kind profile --seed 8                another hospital with the same kinds of tumour

    COMPOSITE: two biomarkers. The default is of the size of the study of cervical cancer: 118 patients, about 41 events in 60
    months. Columns: patient, hypoxic_fraction (0 to 1), gene_score (standard deviations), stage, age, pfs_months, progressed.
    Effects act on the biomarkers' standard-normal values (the hypoxic fraction is a logistic function of its own); stage has a
    hazard ratio of 1.3 per step, age none. There is no true line: the hazard rises smoothly.

    PROFILE: 293 radiomic features of 132 patients in three clusters, from three models of scanner that are spread evenly over the
    clusters and show more than they do until the acquisition is taken out. Cluster 3 progresses more often; in it 20 genes are
    higher, one gene is mutated more often, and one protein is stained more strongly. Beside NAME.csv come NAME.expression.csv,
    NAME.gene_sets.gmt, NAME.maf and NAME.proteins.csv; NAME.truth.json says every patient's cluster and what is linked.

    The same options and seed give the same files.
    """
    from training.console import stderr_console

    write = {"composite": _composite, "profile": _profile}[kind]
    told = write(given, out, seed, force, stderr_console())
    if as_json:
        click.echo(json.dumps(told, indent=1))


def _composite(given: dict[str, Any], out: Path, seed: int, force: bool, console: Console) -> dict[str, Any]:
    import numpy as np

    from training.console import say
    from training.simulate import SimulationSettings, simulate_cohort, truth_path, write_cohort

    settings = _settings(SimulationSettings, given, "composite", "profile")
    cohort = simulate_cohort(settings, np.random.default_rng(seed), seed)
    write_cohort(cohort, out, force=force)
    truth = cohort.truth
    say(console, "Wrote", f"{out} and {truth_path(out)}")
    say(console, "Patients", f"{settings.n}, of whom {truth.observed_events} progressed ({truth.expected_events:.0f} expected)")
    say(console, "Truth", f"hazard ratio {truth.composite_effect:.2f} per standard deviation of the best mixture of both")
    return {"table": str(out), "truth": truth.model_dump()}


def _profile(given: dict[str, Any], out: Path, seed: int, force: bool, console: Console) -> dict[str, Any]:
    import numpy as np

    from training.console import say
    from training.simulate_profiles import ProfileSimulationSettings, profile_paths, simulate_profiles, write_profiles

    settings = _settings(ProfileSimulationSettings, given, "profile", "composite")
    cohort = simulate_profiles(settings, np.random.default_rng(seed), seed)
    write_profiles(cohort, out, force=force)
    truth, paths = cohort.truth, {part: str(path) for part, path in profile_paths(out).items()}
    sizes = ", ".join(f"{count} in cluster {name}" for name, count in truth.sizes.items())
    say(console, "Wrote", ", ".join(paths.values()))
    say(console, "Patients", f"{settings.n} ({sizes}); {truth.observed_events} progressed ({truth.expected_events:.0f} expected)")
    say(
        console,
        "Truth",
        f"cluster {truth.worst}: hazard ratio {settings.cluster_effect:g}, {len(truth.linked_genes)} genes higher",
    )
    return {"table": str(out), "files": paths, "truth": truth.model_dump()}


def _settings(chosen: type[Chosen], given: dict[str, Any], kind: str, other: str) -> Chosen:
    """Settings of one kind, from options none of which is the other kind's alone."""
    from pydantic import ValidationError

    said = {name: value for name, value in given.items() if value is not None}
    foreign = [name.replace("_", "-") for name in said if name not in chosen.model_fields]
    if foreign:
        raise InputError(f"--{foreign[0]} says nothing of a {kind} cohort; leave it out, or ask for --kind {other}.")
    try:
        return chosen(**said)
    except ValidationError as cause:
        fault = cause.errors()[0]
        option = str(fault["loc"][0]).replace("_", "-")
        raise InputError(f"--{option} {fault['input']:g} {fault['msg'].removeprefix('Input ')}.") from cause
