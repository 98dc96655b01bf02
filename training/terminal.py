"""How a run looks on a terminal: progress on stderr, and the table at its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from features.audit import Audit
from features.bundle import RESEARCH_USE_ONLY
from features.store import tracking_uri
from training.baselines import as_table
from training.console import as_typed, say
from training.report import estimate_rows, title_of, warnings_of
from training.survival_report import prognosis_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from training.baselines import Baseline
    from training.confounding import Confounding
    from training.evaluation import Evaluation
    from training.run import StudyResult
    from training.tracking import Recorded

SHOWN_NAMES = 30


class TerminalProgress:
    """Progress of a study: a line per stage and, on a terminal, a bar with what the search has found and the time left.

    Parameters
    ----------
    console : Console
    searches : int
        How many searches the study will make, so that the time left is that of the whole.
    """

    def __init__(self, console: Console, searches: int) -> None:
        self._console, self._searches = console, searches
        self._start, self._finished, self._done, self._budget = time.monotonic(), 0, 0, 0
        self._generation = 0
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> TerminalProgress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def stage(self, words: str) -> None:
        """A line with the time since the start."""
        if self._done:
            self._finished, self._done = self._finished + 1, 0
        self._generation = 0
        self._console.print(f"{time.monotonic() - self._start:6.0f} s  {words}")

    def recalled(self) -> None:
        """One search less to make."""
        self._searches -= 1

    def searching(self, done: int, budget: int, generation: int, generations: int, best: float | None) -> None:
        """Move the bar; without a terminal, a line per generation."""
        self._done, self._budget = done, budget
        score = "" if best is None else f", best inner score {best:.3f}"
        words = f"generation {max(generation, 1)} of {generations}, {done} of {budget} candidates{score}, {self._left()}"
        total = self._searches * budget
        self._bar.update(self._task, description=words, total=total, completed=self._finished * budget + done)
        if not self._console.is_terminal and generation != self._generation and generation > 0:
            self._generation = generation
            self._console.print(f"{'':10}{words}")

    def _left(self) -> str:
        done = self._finished * self._budget + self._done
        if done < self._budget / 4:
            return "time left not known yet"
        remaining = self._searches * self._budget - done
        seconds = (time.monotonic() - self._start) / max(done, 1) * max(remaining, 0)
        return f"about {seconds / 60:.0f} min left" if seconds >= 100 else f"about {seconds:.0f} s left"


def print_result(console: Console, result: StudyResult, recorded: Recorded, uri: str) -> None:
    """Estimates, features, pipeline, where the run is, and what to type next."""
    level = f"{result.study.evaluation.level:.0%} interval"
    table = Table(title=f"{recorded.model}: out-of-sample performance", title_justify="left")
    table.add_column("measure")
    table.add_column(f"held out, {_size(result, result.split.test)}\n({level})", justify="right")
    if result.internal:
        table.add_column(f"internal, {_size(result, result.split.train)}\n({level})", justify="right")
    for name, held_out, internal in estimate_rows(result.held_out, result.internal):
        table.add_row(name, held_out, *([internal] if result.internal else []))
    console.print()
    console.print(table)
    if result.held_out.p_value is not None:
        test = result.held_out.test
        console.print(f"{test[0].upper()}{test[1:]}, on held-out patients: p = {result.held_out.p_value:.2g}")
    for name, one in result.prognosis.items():
        say(console, f"Outcome, {name}", "; ".join(prognosis_words(one)))
    if result.internal and result.baselines:
        print_baselines(console, "Published signatures in the same folds", result.internal, result.baselines, "this recipe")
    fitted = result.fitted
    if result.internal and result.internal.stability is not None:
        console.print(f"Stability of the selected features over resamples (1 same, 0 chance): {result.internal.stability:.2f}")
    names = list(fitted.selection.selected)
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    votes = f"{fitted.selection.votes_used} of {fitted.selection.votes.shape[1]} votes or more"
    say(console, f"Features ({len(names)}, {votes})", f"{', '.join(names[:SHOWN_NAMES])}{more}")
    say(console, "Pipeline", f"{fitted.words}; threshold {fitted.threshold:.3f}")
    for warning in warnings_of(result):
        say(console, "Warning", warning, "yellow")
    print_recorded(console, recorded, uri)
    console.print(RESEARCH_USE_ONLY, style="bold")


def print_baselines(console: Console, title: str, judged: Evaluation, found: Mapping[str, Baseline], own: str) -> None:
    """The recipe and what is simpler, side by side, with the differences."""
    table = Table(title=title, title_justify="left")
    for heading in ("internal", title_of(judged.headline), f"{own} less this"):
        table.add_column(heading, justify="left" if heading == "internal" else "right")
    for row in as_table(judged, found, own).itertuples():
        table.add_row(str(row.Index), str(row.estimate), str(row.difference))
    console.print(table)


def _size(result: StudyResult, samples: pd.Index) -> str:
    patients = result.cohort.patients.loc[samples].nunique()
    return f"n={len(samples)}" if patients == len(samples) else f"n={len(samples)} of {patients} patients"


def print_recorded(console: Console, recorded: Recorded, uri: str) -> None:
    """Where the run is, and the next commands."""
    where = "" if uri == tracking_uri() else f" --tracking-uri {uri}"
    console.print(f"Run {recorded.run_id} in {uri}; registered as {recorded.model} version {recorded.version}", soft_wrap=True)
    console.print(f"Look at it:  {as_typed('mlflow')} ui --backend-store-uri {uri}", soft_wrap=True)
    console.print(f"Promote it:  {as_typed('hypoxia')} promote {recorded.model} {recorded.version}{where}", soft_wrap=True)
    console.print(f"Serve it:    {as_typed('hypoxia')} serve --model {recorded.model}{where}", soft_wrap=True)


def print_sequences(console: Console, results: dict[str, tuple[StudyResult, Recorded]]) -> None:
    """One row per sequence, in the style of a published table."""
    judged = [result.held_out for result, _ in results.values()]
    columns = _TABLE_2 if judged[0].horizon is None else _OF_SURVIVAL
    table = Table(title="All sequences, held-out patients", title_justify="left")
    table.add_column("sequence")
    for heading in ("n train / test", title_of(judged[0].headline), "p", *map(title_of, columns)):
        table.add_column(heading, justify="right")
    for name, (result, _) in results.items():
        estimates = result.held_out.estimates
        p = "" if result.held_out.p_value is None else f"{result.held_out.p_value:.2g}"
        shown = ["" if estimates[key].value is None else f"{estimates[key].value:.2f}" for key in columns]
        sizes = f"{len(result.split.train)} / {len(result.split.test)}"
        table.add_row(name, sizes, str(estimates[result.held_out.headline]), p, *shown)
    console.print()
    console.print(table)


_TABLE_2 = ("accuracy", "sensitivity", "specificity", "npv", "ppv", "f1")
_OF_SURVIVAL = ("auc_at_horizon", "brier_at_horizon", "hazard_ratio")


def print_audit(console: Console, name: str, found: Audit) -> None:
    """What a table holds and what looks wrong."""
    say(
        console,
        name,
        f"{found.samples} samples of {found.patients} patients (at most {found.most_samples_per_patient} each), {found.events} "
        f"events, {found.features} features, {found.missing_values} missing values in {len(found.columns_with_missing_values)} "
        "columns",
    )
    _print_names(console, "constant columns", found.constant_columns)
    _print_names(console, "duplicate columns", tuple(f"{one} = {other}" for one, other in found.duplicate_columns.items()))
    for warning in found.warnings:
        say(console, "Warning", warning, "yellow")


def print_confounding(console: Console, found: Confounding) -> None:
    """What the acquisition tells of the features and of the outcome, in areas under the ROC curve; 0.5 is chance."""
    told = {
        "site from the features": found.site_from_features,
        **{f"{name} from the features": estimate for name, estimate in found.protocol_from_features.items()},
        "outcome from the protocol alone": found.outcome_from_protocol,
        "outcome from the site alone": found.outcome_from_site,
    }
    for what, estimate in told.items():
        if estimate is not None:
            say(console, f"  {what}", f"AUC {estimate}", "")
    for warning in found.warnings:
        say(console, "Warning", warning, "yellow")


def _print_names(console: Console, words: str, names: tuple[str, ...]) -> None:
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        console.print(f"  {len(names)} {words}: {', '.join(names[:5])}{more}")
