"""The commands that move aliases or judge frozen models: promote, rollback, audit, validate."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from features.bundle import RESEARCH_USE_ONLY, Estimate
from features.store import tracking_uri as store_address
from training.cli import JSON, URI

if TYPE_CHECKING:
    from rich.console import Console

    from training.external import ExternalValidation
    from training.gate import Verdict
    from training.promotion import Promotion

ALIAS = click.option("--alias", default="champion", show_default=True, help="The alias to move.")
SHOWN_SHIFTS = 10
CALIBRATION = (
    ("intercept", "Calibration in the large"),
    ("slope", "Calibration slope"),
    ("ratio", "Observed to expected"),
)
SURVIVAL_CALIBRATION = (("ratio", "Observed to expected by the horizon"),)  # the slope is one of the metrics
STYLES = {"passed": "green", "failed": "bold red", "insufficient evidence": "bold yellow", "skipped": "dim"}


@click.command()
@click.argument("model")
@click.argument("version")
@ALIAS
@click.option(
    "--policy", type=click.Path(path_type=Path, dir_okay=False), help="Policy file; see configs/gate.yaml (the defaults)."
)
@click.option(
    "--override", metavar="REASON", help="Promote although statistical checks stand in the way; recorded. Never integrity."
)
@click.option("--dry-run", is_flag=True, help="Judge only, move nothing. Recorded too: it is a look at the held-out patients.")
@URI
@JSON
def promote(
    model: str,
    version: str,
    alias: str,
    policy: Path | None,
    override: str | None,
    dry_run: bool,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Give VERSION of MODEL an alias, if it passes the gate. Exit code 0: it has it; 3: refused.

    \b
    The gate: the bundle loads (manifest, signature, classes, golden vectors), its card is complete and its predictions are
    those that it says; champion and challenger were judged on the same held-out patients, enough of them; the challenger is
    better (or as good, with a declared benefit), and its probabilities are not worse. See configs/gate.yaml.
    """
    from training.gate import GateError
    from training.gate_policy import load_policy
    from training.promotion import promote as run_promotion
    from training.tracking import open_store

    rules = load_policy(policy)
    store = open_store(_existing(tracking_uri))
    done = run_promotion(store, model, version, rules, alias=alias, override=override, dry_run=dry_run)
    _print_json(_described(done)) if as_json else _print_promotion(done)
    stands = done.verdict is not None and bool(done.verdict.in_the_way) and done.override is None
    if done.action == "refused" or (done.action == "judged" and stands):
        raise GateError(done.sentence)


@click.command()
@click.argument("model")
@ALIAS
@URI
@JSON
def rollback(model: str, alias: str, tracking_uri: str | None, as_json: bool) -> None:
    """Give the alias of MODEL back to the version that held it before. That version's bundle is verified first."""
    from training.promotion import rollback as run_rollback
    from training.tracking import open_store

    done = run_rollback(open_store(_existing(tracking_uri)), model, alias)
    if as_json:
        _print_json({"model": done.model, "alias": done.alias, "version": done.version, "previous": done.previous})
    else:
        click.echo(done.sentence)


@click.command()
@click.option("--verify", is_flag=True, help="Check the chain only, and print no lines.")
@URI
@JSON
def audit(verify: bool, tracking_uri: str | None, as_json: bool) -> None:
    """List who promoted, rolled back or was refused what. Exit code 3: a line was changed, or the last ones are missing."""
    from training.promotion import ledger_of, require_whole_log
    from training.tracking import open_store

    address = _existing(tracking_uri)
    ledger = ledger_of(address)
    number = ledger.verify()
    require_whole_log(open_store(address))
    lines = [] if verify else list(ledger.lines())
    if as_json:
        _print_json({"path": str(ledger.path), "verified_lines": number, **({} if verify else {"lines": lines})})
        return
    if lines:
        _print_lines(lines)
    click.echo(
        f"{ledger.path}: {number} lines, each following from the one before it." if number else f"{ledger.path} has no line yet."
    )


@click.command()
@click.argument("model", metavar="NAME@ALIAS")
@click.option(
    "--on", "table", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Table: .csv, .tsv or .parquet."
)
@click.option("--label", help="Column with the outcome; of times to an event, of whether it happened (default: the study's).")
@click.option("--event", help="The value of --label that is the event.  [default: 1, or the study's for times to an event]")
@click.option("--time", help="Column with the follow-up, for a model of times to an event. Default: the study's.")
@click.option("--patient", help="Column that says whose row it is; without it every row is a patient.")
@click.option("--sample", help="Column that names the rows; default: that of the study, else the first if it can.")
@URI
@JSON
def validate(
    model: str,
    table: Path,
    label: str | None,
    event: str | None,
    time: str | None,
    patient: str | None,
    sample: str | None,
    tracking_uri: str | None,
    as_json: bool,
) -> None:
    """Judge a frozen model (NAME@ALIAS, NAME:VERSION or a run) on patients from elsewhere, and record the result as a run.

    Nothing is learnt from the table and no column is guessed. Reported: what differs from training, all metrics with intervals,
    calibration, and internal, held-out and external estimates side by side; of times to an event also hazard ratios and what
    the score adds to the study's clinical covariates, if the table has them. A composite takes its two biomarkers as columns.
    Of profiles: how the patients spread over the clusters, how they fare there, and how many are unlike any.
    """
    from training.external import described, validate_externally
    from training.tracking import open_store

    store = open_store(_existing(tracking_uri))
    found, run_id = validate_externally(store, model, table, label=label, event=event, time=time, patient=patient, sample=sample)
    _print_json(described(found, run_id, store.uri)) if as_json else _print_validation(found, run_id)


def _existing(tracking_uri: str | None) -> str:
    """Address of a store that is there: a typing error must not create one."""
    from features.errors import InputError
    from training.tracking import store_exists

    address = store_address(tracking_uri)
    if not store_exists(address):
        raise InputError(f"There is no store at {address}; train a model first (hypoxia train), or name it with --tracking-uri.")
    return address


def _print_json(content: dict[str, Any]) -> None:
    click.echo(json.dumps(content, indent=1))


def _described(done: Promotion) -> dict[str, Any]:
    verdict = done.verdict
    return {
        "action": done.action,
        "model": done.model,
        "version": done.version,
        "alias": done.alias,
        "previous": done.previous,
        "override": done.override,
        "sentence": done.sentence,
        "verdict": None if verdict is None else {"outcome": verdict.outcome, **verdict.model_dump(mode="json")},
        "research_use_only": RESEARCH_USE_ONLY,
    }


def _print_promotion(done: Promotion) -> None:
    from training.console import console_on, say

    console = console_on(sys.stdout)
    if done.verdict is not None:
        console.print(_verdict_table(done.verdict))
        for warning in done.verdict.warnings:
            say(console, "Warning", warning, "yellow")
    stands = done.verdict is not None and bool(done.verdict.in_the_way) and done.override is None
    if done.action in ("promoted", "unchanged") or not stands:
        console.print(done.sentence, soft_wrap=True)
    console.print(RESEARCH_USE_ONLY, style="bold")


def _verdict_table(verdict: Verdict) -> Table:
    against = f"against version {verdict.champion}" if verdict.champion else "with no version before it"
    title = f"{verdict.model} version {verdict.version} as {verdict.alias!r}, {against}: {verdict.outcome}"
    table = Table(title=title, title_justify="left")
    for heading in ("check", "outcome", "what was found"):
        table.add_column(heading, overflow="fold")
    for check in verdict.checks:
        table.add_row(check.name, f"{check.outcome}", check.sentence, style=STYLES[check.outcome])
    return table


def _print_lines(lines: Iterable[dict[str, Any]]) -> None:
    from training.console import console_on

    table = Table()
    for heading in ("when", "who", "action", "model", "alias", "version", "before", "outcome", "in the way or why"):
        table.add_column(heading, overflow="fold")
    for line in lines:
        about = [line.get(name) for name in ("when", "who", "action", "model", "alias", "version", "previous_version", "outcome")]
        failed = [one["name"] for one in line.get("checks", []) if one["outcome"] not in ("passed", "skipped")]
        why = f"override: {line['override']}" if line.get("override") else ", ".join(failed)
        table.add_row(*("" if value is None else str(value) for value in about), why)
    console_on(sys.stdout).print(table)


def _print_validation(found: ExternalValidation, run_id: str) -> None:
    from training.console import console_on, say
    from training.paired import why_not_estimable

    console, model, table = console_on(sys.stdout), found.model, found.table
    events, patients = int(table.labels.sum()), table.patients.nunique()
    say(console, model.title, f"on {table.path.name}: {len(table.labels)} samples of {patients} patients, {events} events")
    unlike = f"{found.unlike:.0%} of the rows are unlike the training samples ({found.far:.0%} by their distance)"
    named = "".join(f"; {other} was taken as {name}" for other, name in found.renamed.items())
    say(
        console,
        "Table",
        f"all features are there, {len(found.extra)} columns are not the model's and were left out{named}; {unlike}",
    )
    shifted = [one for one in found.shifts if one.below + one.above + one.missing > 0]
    if shifted:
        console.print(_shift_table(shifted[:SHOWN_SHIFTS], len(shifted)))
    if found.clusters:
        console.print(_cluster_table(found))
    console.print(_estimate_table(found))
    if found.intercept_update is not None and why_not_estimable(found.external.predictions) is None:
        added = f"adding {found.intercept_update:+.3f} to every logit makes as many events expected as were seen"
        words = f"{added}; the model stays as it is"
        say(console, "Calibration in the large", words)
    if found.prognosis is not None and why_not_estimable(found.external.predictions) is None:
        _print_prognosis(console, found)
    for warning in found.warnings:
        say(console, "Warning", warning, "yellow")
    console.print(f"Recorded as run {run_id}", soft_wrap=True)
    console.print(RESEARCH_USE_ONLY, style="bold")


def _print_prognosis(console: Console, found: ExternalValidation) -> None:
    from training.console import say
    from training.survival_report import prognosis_words

    related, card = found.prognosis, found.model.card
    if related is None:
        return
    for words in prognosis_words(related):
        say(console, "Prognosis", words)
    if related.calibration is None:
        return
    table = Table(title=f"Risk by {card.horizon:g} {card.time_unit or ''}".rstrip(), title_justify="left")
    for heading in ("patients", "predicted", "observed (Kaplan-Meier)"):
        table.add_column(heading, justify="right")
    for row in related.calibration.to_dict("records"):
        observed = Estimate(value=row["observed"], lower=row["lower"], upper=row["upper"]) if row["observed"] >= 0 else ""
        table.add_row(f"{row['n']:g}", f"{row['expected']:.3f}", str(observed) or "nobody was followed so far")
    console.print(table)


def _shift_table(shown: list[Any], count: int) -> Table:
    more = f" ({count} features, the {len(shown)} with the most)" if count > len(shown) else ""
    table = Table(title=f"Rows outside the training range{more}", title_justify="left")
    for heading in ("feature", "below", "above", "missing"):
        table.add_column(heading, justify="left" if heading == "feature" else "right", overflow="fold")
    for one in shown:
        table.add_row(one.feature, f"{one.below:.0%}", f"{one.above:.0%}", f"{one.missing:.0%}")
    return table


def _cluster_table(found: ExternalValidation) -> Table:
    table = Table(title="Samples by the nearest cluster", title_justify="left")
    for heading in ("cluster", "samples", "of training", "with event", "risk by the model", "observed", "unlike any cluster"):
        table.add_column(heading, justify="left" if heading == "cluster" else "right", overflow="fold")
    for one in found.clusters:
        seen = "" if one.observed is None else f"{one.observed:.2f}"
        counted = (f"{one.samples} ({one.share:.0%})", f"{one.share_learnt:.0%}", str(one.events))
        table.add_row(one.name, *counted, f"{one.risk:.2f}", seen, str(one.unlike))
    return table


def _estimate_table(found: ExternalValidation) -> Table:
    from training.paired import why_not_estimable
    from training.report import title_of

    sides = {"internal": found.internal, "held out": found.held_out, "external": found.external.estimates}
    sides = {name: estimates for name, estimates in sides.items() if estimates}
    table = Table(title="Internal, held out and external (95% interval)", title_justify="left")
    for heading in ("measure", *sides):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    few = why_not_estimable(found.external.predictions) is not None
    for metric in found.external.estimates:
        shown = {side: str(one[metric]) if one and metric in one else "" for side, one in sides.items()}
        table.add_row(title_of(metric), *(shown | ({"external": "not estimable"} if few else {})).values())
    for name, words in CALIBRATION if found.model.horizon is None else SURVIVAL_CALIBRATION:
        fits = [None if few and side == "external" else found.calibration.get(side) for side in sides]
        table.add_row(words, *("" if fit is None else str(getattr(fit, name)) for fit in fits))
    return table
