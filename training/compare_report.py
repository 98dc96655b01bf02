"""A comparison as tables on a terminal, as one JSON object, and as one HTML file that opens offline; nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from features.bundle import RESEARCH_USE_ONLY, Estimate
from training.compare import ComparedModel, Comparison, Pair, Picked, flip_counts, paired_metrics
from training.compare_figures import drawn_figures
from training.evaluation import metric_of
from training.metrics import METRICS
from training.paired import LEAST_EVENTS, LEAST_PATIENTS
from training.survival.metrics import SURVIVAL_METRICS

NOT_ESTIMABLE = "not estimable"
SAME = "the same"
SHORT = 12
MOST_NAMED = 12
N_E = "n.e."  # in a table of many narrow columns; its note says what it is
TABLE_2 = {"accuracy": "acc.", "sensitivity": "sens.", "specificity": "spec.", "npv": "NPV", "ppv": "PPV", "f1": "F1"}
SURVIVAL_TABLE_2 = {"uno_c": "Uno's C", "auc_at_horizon": "AUC(t)", "brier_at_horizon": "Brier(t)", "hazard_ratio": "HR"}


@dataclass(frozen=True)
class Section:
    """A table with its title and what must be said below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def sections(found: Comparison) -> list[Section]:
    """Every table of a comparison, in the order in which it is read."""
    made = [about(found), performance(found)]
    if found.by_sequence:
        made.append(by_sequence(found))
    if found.pairs:
        made.append(differences(found))
    return made


def about(found: Comparison) -> Section:
    """What is compared: data, split, schema, settings, versions; equal cells are said to be equal."""
    models = found.models
    rows: list[tuple[str, Callable[[ComparedModel], str]]] = [
        ("samples / patients / events judged", lambda one: " / ".join(map(str, one.counts))),
        ("samples learnt from", lambda one: str(len(one.judged.learnt_from))),
        ("data hash", lambda one: one.judged.card.data_hash[:SHORT]),
        ("split hash", lambda one: one.judged.split_hash[:SHORT]),
        ("study fingerprint", lambda one: one.judged.card.fingerprint[:SHORT]),
        ("endpoint", lambda one: _endpoint(one)),
        ("sequence", lambda one: one.judged.card.sequence or ""),
        ("source", lambda one: one.judged.study.cohort.source.kind),
        ("extraction settings", lambda one: (one.judged.extraction_hash or "not recorded")[:SHORT]),
        ("features", lambda one: str(len(one.judged.schema.names))),
        ("shared with the reference", lambda one: str(len(set(one.judged.schema.names) & set(models[0].judged.schema.names)))),
        ("pipeline", lambda one: one.judged.card.pipeline),
        ("threshold", lambda one: f"{one.judged.card.threshold:.3f}"),
        ("threshold from", lambda one: one.judged.card.threshold_origin),
        ("seed", lambda one: str(one.judged.study.seed)),
        ("run", lambda one: one.judged.run_id[:SHORT]),
        ("made", lambda one: one.judged.card.created),
        ("versions", lambda one: ", ".join(f"{name} {number}" for name, number in one.judged.versions.items())),
    ]
    if found.table is not None:
        rows.insert(1, ("rows unlike its training", lambda one: _percent(one.unlike_training)))
    written = [(name, [show(one) for one in models]) for name, show in rows]
    cells = [(name, *_or_same(row, exact=_is_count(name))) for name, row in written if any(row)]
    judged_on = f"{found.table.path.name}, SHA-256 {found.table.digest[:SHORT]}" if found.table else _judged_on(found)
    same = ("judged on", judged_on, *[""] * (len(models) - 1))
    patients = ("same patients", "no" if found.unpaired else "yes", *[""] * (len(models) - 1))
    return Section("What is compared", ("", *_headings(found)), (same, patients, *cells))


def performance(found: Comparison) -> Section:
    """Every metric of every model with its interval, and calibration."""
    level = _level(found)
    rows = _rows_of_classes() if found.horizon is None else _rows_by_horizon(found)
    cells = [
        (name, *(shown(show(one), one.not_estimable and "internal" not in name) for one in found.models)) for name, show in rows
    ]
    notes = [f"Value ({level} interval). For calibration, the right value is in brackets."]
    few = [f"{one.title}: {one.not_estimable}." for one in found.models if one.not_estimable]
    if any(one.lower is not None and one.lower == one.upper for model in found.models for one in model.estimates.values()):
        few.append("An interval without width says that no resample held an error of that kind, not that there can be none.")
    title = "Performance on the table" if found.table else f"Performance on {_judged_on(found)}"
    return Section(title, ("", *_headings(found)), tuple(row for row in cells if any(row[1:])), (*notes, *few))


Row = tuple[str, Callable[[ComparedModel], Estimate | None]]


def _rows_of_classes() -> list[Row]:
    rows: list[Row] = [(one.title, _estimate_of(one.name)) for one in METRICS]
    rows.insert(1, ("ROC AUC (DeLong interval)", lambda one: one.delong))
    return [
        *rows,
        ("Calibration in the large (0)", lambda one: one.calibration.intercept),
        ("Calibration slope (1)", lambda one: one.calibration.slope),
        ("Observed / expected (1)", lambda one: one.calibration.ratio),
        ("ROC AUC, internal", _internal("roc_auc")),
        ("Brier score, internal", _internal("brier")),
    ]


def _rows_by_horizon(found: Comparison) -> list[Row]:
    right = {"calibration_slope": " (1)"}
    rows: list[Row] = [(one.title + right.get(one.name, ""), _estimate_of(one.name)) for one in SURVIVAL_METRICS]
    return [
        *rows,
        (f"Observed / expected by {found.horizon:g} {found.time_unit} (1)", lambda one: one.calibration.ratio),
        *((f"{metric_of(name).title}, internal", _internal(name)) for name in ("c_index", "brier_at_horizon")),
    ]


def _internal(name: str) -> Callable[[ComparedModel], Estimate | None]:
    return lambda one: (one.judged.card.internal or {}).get(name)


def _judged_on(found: Comparison) -> str:
    judged = _out_of_fold(found)
    if judged == {False}:
        return "held-out patients"
    mixed = "held-out patients, composites and profiles on out-of-fold predictions"
    return "out-of-fold predictions" if judged == {True} else mixed


def _out_of_fold(found: Comparison) -> set[bool]:
    return {one.judged.card.judged_out_of_fold for one in found.models}


def differences(found: Comparison) -> Section:
    """Each further model against the first, on the same patients."""
    several = len(found.pairs) > 1
    first, *others = paired_metrics(found.horizon)
    headings = {name: f"{metric_of(name).title}, difference" for name in (first, *others)}
    holm = ("p (Holm)",) if several else ()
    columns = ("challenger", headings[first], "p", *holm, *(headings[name] for name in others), "calls")
    rows = tuple(
        (
            pair.challenger,
            signed(pair.differences[first], pair.not_estimable),
            _p(pair.p_value),
            *((_p(pair.adjusted),) if several else ()),
            *(signed(pair.differences[name], pair.not_estimable) for name in others),
            flips_in_words(pair),
        )
        for pair in found.pairs
    )
    origins = " and ".join(dict.fromkeys(pair.p_origin for pair in found.pairs))
    ranks = "the ROC AUC" if found.horizon is None else "concordance and AUC"
    notes = (
        f"Challenger minus {found.models[0].title}; above 0 is better for {ranks}, below 0 for the Brier score. "
        f"{_level(found)} intervals over resamples of patients; p by {origins}"
        + (f", adjusted for {len(found.pairs)} challengers after Holm." if several else ".")
        + " Calls: samples that the challenger calls rightly where the reference does not (+), and the other way round (-).",
    )
    return Section(f"Differences from {found.models[0].title}, same patients", columns, rows, notes)


def by_sequence(found: Comparison) -> Section:
    """One row per sequence in the style of a published table, and the best corrected for having been picked."""
    rank, more = paired_metrics(found.horizon)[0], TABLE_2 if found.horizon is None else SURVIVAL_TABLE_2
    columns = ("sequence", "n", "events", metric_of(rank).title, "p", *more.values())
    rows = [
        (
            str(one.judged.card.sequence),
            f"{len(one.judged.learnt_from)} / {one.counts[0]}",
            str(one.counts[2]),
            shown(one.estimates.get(rank), one.not_estimable),
            N_E if one.not_estimable else _p(one.p_value),
            *(_plain(one.estimates.get(name), one.not_estimable) for name in more),
        )
        for one in found.models
    ]
    test = f"Mann-Whitney test of the probabilities ({found.models[0].judged.alternative})"
    test = test if found.horizon is None else "log-rank test of the groups called"
    notes = [f"n: samples learnt from / judged. p: {test}."]
    notes += [f"{N_E}: not estimable from fewer than {LEAST_PATIENTS} patients or {LEAST_EVENTS} with the event."]
    if found.picked:
        rows.append(_picked_row(found.picked, len(columns)))
        notes.append(
            f"The last row is what {found.picked.sequence} is worth after it was picked as the best of {found.picked.tried}: the "
            "value less what picking gained in resamples of patients, and a lower limit that holds for whichever is picked."
        )
    if found.unpaired:
        notes.append("The sequences were judged on different patients, so they are listed and not paired.")
    return Section("By sequence", columns, tuple(rows), tuple(notes))


def print_comparison(console: Console, found: Comparison) -> None:
    """A comparison on a terminal."""
    console.print(f"{_title(found)}\n{RESEARCH_USE_ONLY}", style="bold")
    for section in sections(found):
        console.print()
        console.print(_rich(section))
        for note in section.notes:
            console.print(Padding(note, (0, 0, 0, 1)), style="dim")
    for pair in found.pairs:
        if len(pair.flips):
            console.print()
            console.print(f"Called differently by {pair.challenger}: {_named(pair.flips)}")
    for warning in found.warnings:
        console.print(f"Warning: {warning}", style="yellow")


def as_html(found: Comparison) -> str:
    """A comparison as one file: no script, and nothing fetched from anywhere."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("training"), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("compare.html").render(
        title=_title(found),
        research_use_only=RESEARCH_USE_ONLY,
        warnings=found.warnings,
        sections=sections(found),
        plots=drawn_figures(found),
        pairs=[(pair, _flip_rows(pair)) for pair in found.pairs if len(pair.flips)],
        methods=methods(found),
        references=references(found),
        versions=found.models[0].judged.versions,
    )


def methods(found: Comparison) -> str:
    """How the numbers were made, as a paper would say it."""
    several = len(found.pairs) > 1
    clustered = bool(found.pairs) and found.pairs[0].p_origin != "DeLong"
    made = f"{found.resampling.count} resamples, seed {found.resampling.seed}"
    recorded = f"as recorded with the models for their metrics, and with {made} for all else"
    sentences = [
        f"Intervals are percentile intervals ({_level(found)}) over resamples of whole patients "
        f"({made if found.table or _out_of_fold(found) == {True} else recorded}).",
        *_kind_of_methods(found),
        f"Nothing is estimated from fewer than {LEAST_PATIENTS} patients or {LEAST_EVENTS} patients with the event.",
    ]
    if found.pairs:
        test = "the same resamples, since patients have several samples" if clustered else "DeLong's test, two-sided"
        test = test if found.horizon is None else "the same resamples"
        sentences.insert(
            1,
            f"Differences were taken within resamples drawn alike for both models; their p values for {_rank_of(found)} are from "
            f"{test}" + (f", adjusted after Holm for {len(found.pairs)} challengers." if several else "."),
        )
    if found.picked:
        sentences.append(
            f"Of {found.picked.tried} sequences the one with the highest {metric_of(found.models[0].rank).title} was picked; its "
            "corrected estimate subtracts "
            "the mean gain from picking over resamples, and its lower limit is balanced over all, so that it holds for any."
        )
    return " ".join(sentences)


def _rank_of(found: Comparison) -> str:
    return "the ROC AUC" if found.horizon is None else metric_of(found.models[0].rank).title


def _kind_of_methods(found: Comparison) -> tuple[str, ...]:
    if found.horizon is None:
        return (
            "Calibration in the large is the intercept of a logistic regression of the outcome with the logit of the predicted "
            "probability as offset; the slope is that of a logistic regression on this logit.",
            "Decision curves show net benefit against treating all and treating none.",
        )
    return (
        f"Patients were followed for {found.horizon:g} {found.time_unit}; who was followed longer counts as last seen there.",
        "Uno's C, the AUC and the Brier score weigh patients by the inverse chance of not being censored. The calibration slope "
        "is that of a Cox regression on the complementary log-log of the predicted risk; observed over expected takes the risk "
        "by the horizon after Kaplan and Meier.",
        *(
            ("Out of fold, concordance and AUC are means over the folds.",)
            if True in _out_of_fold(found) and not found.table
            else ()
        ),
    )


def references(found: Comparison) -> tuple[str, ...]:
    """Where the methods of a comparison are from."""
    return REFERENCES if found.horizon is None else SURVIVAL_REFERENCES


REFERENCES = (
    "DeLong et al. 1988, doi:10.2307/2531595; Sun & Xu 2014, doi:10.1109/LSP.2014.2337313 (differences of the ROC AUC)",
    "Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x (resampling patients)",
    "Van Calster et al. 2016, doi:10.1016/j.jclinepi.2015.12.005 (calibration)",
    "Vickers & Elkin 2006, doi:10.1177/0272989X06295361 (decision curves)",
    "Holm 1979, Scand J Stat 6(2):65-70 (several comparisons)",
    "Beran 1988, doi:10.1080/01621459.1988.10478649 (limits for the best of several)",
)


SURVIVAL_REFERENCES = (
    "Harrell et al. 1996, doi:10.1002/(SICI)1097-0258(19960229)15:4<361::AID-SIM168>3.0.CO;2-4 (concordance)",
    "Uno et al. 2011, doi:10.1002/sim.4154 (concordance that does not depend on censoring)",
    "Uno et al. 2007, doi:10.1198/016214507000000149 (AUC at a time)",
    "Graf et al. 1999, doi:10.1002/(SICI)1097-0258(19990915/30)18:17/18<2529::AID-SIM274>3.0.CO;2-5 (Brier score)",
    "van Houwelingen 2000, doi:10.1002/1097-0258(20001230)19:24<3401::AID-SIM554>3.0.CO;2-2 (calibration slope)",
    "Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x (resampling patients)",
    "Holm 1979, Scand J Stat 6(2):65-70 (several comparisons)",
    "Beran 1988, doi:10.1080/01621459.1988.10478649 (limits for the best of several)",
)


def shown(estimate: Estimate | None, not_estimable: object = None) -> str:
    """An estimate as it is printed.

    Examples
    --------
    >>> shown(Estimate(value=0.81, lower=0.7, upper=0.9))
    '0.810 (0.700 to 0.900)'
    >>> shown(Estimate(value=0.81), "not estimable: 3 patients")
    'not estimable'
    """
    if not_estimable:
        return NOT_ESTIMABLE
    return "" if estimate is None else str(estimate)


def signed(estimate: Estimate, not_estimable: object = None) -> str:
    """A difference as it is printed, with its sign.

    Examples
    --------
    >>> signed(Estimate(value=0.03, lower=-0.01, upper=0.07))
    '+0.030 (-0.010 to +0.070)'
    """
    if not_estimable or estimate.value is None:
        return NOT_ESTIMABLE if not_estimable else str(estimate)
    interval = "" if estimate.lower is None or estimate.upper is None else f" ({estimate.lower:+.3f} to {estimate.upper:+.3f})"
    return f"{estimate.value:+.3f}{interval}"


def flips_in_words(pair: Pair) -> str:
    """Who changes sides, in a line: events and non-events, gained and lost."""
    if pair.flips.empty:
        return "none changes"
    counts, lost = flip_counts(pair.flips), int(pair.flips["better"].isna().sum())
    return (
        f"events +{counts['events_gained']} -{counts['events_lost']}, "
        f"non-events +{counts['non_events_gained']} -{counts['non_events_lost']}{f', lost to follow-up {lost}' if lost else ''}"
    )


def _title(found: Comparison) -> str:
    names = [one.title for one in found.models]
    return f"Comparison of {names[0]} (reference) with {', '.join(names[1:])}"


def _headings(found: Comparison) -> tuple[str, ...]:
    first, *others = (one.title for one in found.models)
    return (f"{first} (reference)", *others)


def _level(found: Comparison) -> str:
    return f"{100 * found.resampling.level:g}%"


def _endpoint(model: ComparedModel) -> str:
    endpoint = model.judged.study.cohort.endpoint
    said = endpoint.model_dump(mode="json").items()
    return ", ".join(f"{key} {value}" for key, value in said if key != "kind" and value not in (None, []))


def _is_count(name: str) -> bool:
    return name.startswith(("samples", "features", "shared", "rows", "run", "seed", "threshold"))


def _or_same(cells: Sequence[str], exact: bool) -> list[str]:
    """Cells that say so where they hold what the first holds; numbers are short enough to stand for themselves."""
    return [cell if exact or not number or cell != cells[0] else SAME for number, cell in enumerate(cells)]


def _estimate_of(name: str) -> Callable[[ComparedModel], Estimate | None]:
    return lambda one: one.estimates.get(name)


def _plain(estimate: Estimate | None, not_estimable: object) -> str:
    if not_estimable:
        return N_E
    return "" if estimate is None or estimate.value is None else f"{estimate.value:.2f}"


def _picked_row(picked: Picked, width: int) -> tuple[str, ...]:
    row = [f"{picked.sequence}, best of {picked.tried}", "", "", shown(picked.corrected)]
    return (*row, *[""] * (width - len(row)))


def _p(value: float | None) -> str:
    if value is None:
        return NOT_ESTIMABLE
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"


def _named(flipped: pd.DataFrame) -> str:
    named = [
        f"{one.sample} ({'event' if one.label else 'non-event'}, {_call_in_words(one.better)})"
        for one in flipped.head(MOST_NAMED).itertuples()
    ]
    return ", ".join(named) + (f" and {len(flipped) - MOST_NAMED} more (see --json)" if len(flipped) > MOST_NAMED else "")


def _flip_rows(pair: Pair) -> list[tuple[str, ...]]:
    return [
        (
            str(one.sample),
            "event" if one.label else "non-event",
            f"{one.probability_a:.3f}",
            f"{one.probability_b:.3f}",
            _call_in_words(one.better),
        )
        for one in pair.flips.itertuples()
    ]


def _call_in_words(better: object) -> str:
    return "lost to follow-up" if better is None else "now right" if better else "now wrong"


def _rich(section: Section) -> Table:
    table = Table(title=section.title, title_justify="left", title_style="bold")
    for number, column in enumerate(section.columns):
        text = number == 0 or section.title == "What is compared" or column == "calls"
        whole = section.title == "By sequence" or column.startswith(("ROC AUC", "Harrell"))
        table.add_column(column, justify="left" if text else "right", overflow="fold", no_wrap=whole)
    for row in section.rows:
        table.add_row(*row)
    return table


def as_json(found: Comparison) -> dict[str, Any]:
    """A comparison as one JSON object."""
    return {
        "models": [_model_json(one) for one in found.models],
        "reference": found.models[0].title,
        "same_patients": found.unpaired is None,
        "unpaired_because": found.unpaired,
        "paired": [_pair_json(one) for one in found.pairs],
        "sequences": _picked_json(found.picked, found.models[0].rank) if found.by_sequence else None,
        "on": None
        if found.table is None
        else {"table": str(found.table.path), "sha256": found.table.digest, "samples": len(found.table.labels)},
        "intervals": {"resamples": found.resampling.count, "level": found.resampling.level, "seed": found.resampling.seed},
        "warnings": list(found.warnings),
        "research_use_only": RESEARCH_USE_ONLY,
    }


def _model_json(model: ComparedModel) -> dict[str, Any]:
    judged = model.judged
    samples, patients, events = model.counts
    return {
        "reference": judged.reference,
        "name": judged.name,
        "version": judged.version,
        "run_id": judged.run_id,
        "sequence": judged.card.sequence,
        "data_hash": judged.card.data_hash,
        "split_hash": judged.split_hash,
        "fingerprint": judged.card.fingerprint,
        "extraction_hash": judged.extraction_hash,
        "seed": judged.study.seed,
        "versions": judged.versions,
        "samples": samples,
        "patients": patients,
        "patients_with_event": events,
        "development_samples": len(judged.learnt_from),
        "features": list(judged.schema.names),
        "pipeline": judged.card.pipeline,
        "threshold": judged.card.threshold,
        "threshold_origin": judged.card.threshold_origin,
        "not_estimable": model.not_estimable,
        "horizon": judged.horizon,
        "time_unit": judged.card.time_unit,
        "composite": judged.card.composite is not None,
        "profile": judged.card.profile is not None,
        "estimates": {name: one.model_dump() for name, one in model.estimates.items()},
        "internal": {name: one.model_dump() for name, one in judged.card.internal.items()} if judged.card.internal else None,
        "roc_auc_delong": model.delong.model_dump() if model.delong else None,
        "calibration": {
            "in_the_large": model.calibration.intercept.model_dump(),
            "slope": model.calibration.slope.model_dump(),
            "observed_to_expected": model.calibration.ratio.model_dump(),
        },
        "reliability": _records(model.reliability),
        "decision_curve": _records(model.curve),
        "share_unlike_training": model.unlike_training,
    }


def _pair_json(pair: Pair) -> dict[str, Any]:
    delong = pair.delong
    return {
        "reference": pair.reference,
        "challenger": pair.challenger,
        "not_estimable": pair.not_estimable,
        "difference": {name: one.model_dump() for name, one in pair.differences.items()},
        "delong": None
        if delong is None
        else {
            "difference": delong.difference,
            "lower": delong.lower,
            "upper": delong.upper,
            "z": delong.z if np.isfinite(delong.z) else None,
            "p_value": delong.p_value,
        },
        "p_value": pair.p_value,
        "p_origin": pair.p_origin,
        "p_value_holm": pair.adjusted,
        "flips": {
            **flip_counts(pair.flips),
            "samples": _records(pair.flips),
        },
    }


def _picked_json(picked: Picked | None, rank: str) -> dict[str, Any] | None:
    if picked is None:
        return None
    return {
        "best": picked.sequence,
        "tried": picked.tried,
        rank: picked.plain.model_dump(),
        f"{rank}_corrected_for_picking": picked.corrected.model_dump(),
    }


def _records(table: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    if table is None:
        return None
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in table.to_dict("records")]
