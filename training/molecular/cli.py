"""The command that relates groups of patients to their molecules."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from features.errors import InputError
from training.cli import JSON, URI

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from training.molecular.groups import FoundGroups
    from training.molecular.run import Correlates
    from training.molecular.study import CorrelatesStudy

SUMMARY, PAGE = "summary.json", "report.html"


@click.command()
@click.argument("study", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write; made if not there."
)
@click.option("--force", is_flag=True, help="Replace a folder that this command wrote before.")
@URI
@JSON
def correlate(study: Path, out: Path, force: bool, tracking_uri: str | None, as_json: bool) -> None:
    """Relate groups of patients to genes, gene sets, mutations, the microenvironment and proteins, as STUDY says.

    \b
    name: what lies behind the clusters
    grouping: {kind: model, model: profile-simulated}     NAME, NAME:VERSION or NAME@ALIAS of a registered model
    combine: [[1, 2], [3]]                                optional: clusters that are taken as one
    molecular:
      expression: {path: cohort.expression.csv, sample: patient}
      gene_sets: [cohort.gene_sets.gmt]
      mutations: cohort.maf
      proteins: cohort.proteins.csv

    The groups of a model are its clusters or, out of sample, its classes: hypoxic or not. Any other column of a table is a
    grouping too: {kind: table, path: groups.csv, patient: patient, column: class}. Paths are relative to STUDY. Of expression,
    mutations and proteins one is enough. Patients are matched by name: a sample is of the patient whose name it begins with.

    Two groups are compared with each other: differences are those of the second, and above 0 is higher there. Groups are in the
    order of their numbers or letters, but of opposites the positive is the second (not hypoxic, hypoxic; low, high; no, yes);
    combine: [[normoxic], [hypoxic]] orders them otherwise. Of several groups each is compared with the rest.

    Expression is in logarithms to the base 2 (source's scale: log2 takes them) or log ratios, of which fold changes are given and
    may be limited (fold_change: 1.5). z scores are told by their look, and then there are none; units: log2 or units: other
    settles it.

    \b
    genes          SAM (permutations of the groups) and limma's moderated t; two groups, or each against the rest
    gene sets      GSEA by signal to noise, and a score in each patient (z scores, or ssGSEA); local GMT files only
    mutations      Fisher's exact test of every gene, and of every gene set as a pathway
    surroundings   stromal and immune scores of ESTIMATE, where the table has their genes
    proteins       ordinal scores, by Mann-Whitney's or Kruskal and Wallis's test

    More keys of molecular, with what they are if left out: fold_change (1), false_discovery (0.05), permutations (1000),
    smallest_set (15), largest_set (500), set_scores (z, or ssgsea), microenvironment (where the genes are there), patient (the
    column of patients: patient), sequenced (a table of all who were), silent (false), fewest_mutated (3), units.

    Every table has a false discovery rate of its own; several groups, each compared with the rest, share that of the genes. A
    group of fewer than four patients is refused. The folder has the tables (CSV), pictures (PNG), summary.json and report.html,
    one page that holds it all. The same study gives the same numbers.
    """
    from features.store import tracking_uri as store_address
    from training.console import say, stderr_console
    from training.molecular.groups import load_groups
    from training.molecular.molecules import load_molecules
    from training.molecular.run import correlate as run_correlates
    from training.molecular.study import load_correlates
    from training.terminal import TerminalProgress
    from training.tracking import plain

    _refuse_folder(out, force)
    settings = load_correlates(study)
    grouped = load_groups(settings, store_address(tracking_uri))
    molecules = load_molecules(settings.molecular, settings.folder)
    console = stderr_console()
    say(console, "Groups", _sizes(grouped.groups))
    with TerminalProgress(console, 0) as progress:
        found = _with_groups(run_correlates(settings.molecular, molecules, grouped.groups, settings.rng, progress), grouped)
        progress.stage("pictures and the report")
        _write(settings, found, out)
    _print(console, found, out)
    if as_json:
        click.echo(json.dumps(plain({"name": settings.name, "folder": str(out), **found.as_json()}), indent=1))


def _refuse_folder(out: Path, force: bool) -> None:
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / SUMMARY).is_file():
        raise InputError(f"{out} holds other files than a report of correlates; name another folder with --out.")
    if not force:
        raise InputError(f"{out} is there already; name another folder with --out, or replace it with --force.")


def _with_groups(found: Correlates, grouped: FoundGroups) -> Correlates:
    """What was found, after who was left out before it was looked for."""
    notes, warnings = (*grouped.notes, *found.notes), (*grouped.warnings, *found.warnings)
    return replace(found, notes=notes, warnings=warnings)


def _write(settings: CorrelatesStudy, found: Correlates, out: Path) -> None:
    """The folder whole, or as it was."""
    from training.html_report import html_report
    from training.molecular.report import molecular_figures, molecular_sections
    from training.molecular.run import write_correlates
    from training.tracking import write_figures

    stage = out.with_name(f".{os.getpid()}.{out.name}")
    try:
        write_correlates(found, stage)
        write_figures(molecular_figures(found), stage / "figures")
        page = html_report(settings.name, _sizes(found.groups), molecular_sections(found))
        (stage / PAGE).write_text(page, encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        stage.rename(out)
    except OSError as cause:
        raise InputError(f"{out} cannot be written ({cause.strerror}); name a folder that is yours.") from cause
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _sizes(groups: pd.Series) -> str:
    counts = groups.value_counts(sort=False)
    return f"{len(groups)} patients: " + ", ".join(f"{count} of {name}" for name, count in counts.items())


def _print(console: Console, found: Correlates, out: Path) -> None:
    from features.bundle import RESEARCH_USE_ONLY
    from training.console import say

    for words in found.words:
        say(console, "Found", words)
    for note in found.notes:
        say(console, "Note", note, "dim")
    for warning in found.warnings:
        say(console, "Warning", warning, "yellow")
    say(console, "Wrote", f"{out / PAGE}, with tables and pictures beside it")
    console.print(RESEARCH_USE_ONLY, style="bold")
