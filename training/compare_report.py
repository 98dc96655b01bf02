"""A comparison as tables on a terminal, as one JSON object, and as one HTML file that opens offline; nothing is computed here."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from sklearn.metrics import precision_recall_curve, roc_curve

from features.bundle import RESEARCH_USE_ONLY, Estimate
from training.compare import ComparedModel, Comparison, Pair, Picked, flip_counts
from training.metrics import METRIC, METRICS
from training.paired import LEAST_EVENTS, LEAST_PATIENTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_ESTIMABLE = "not estimable"
SAME = "the same"
SHORT = 12
MOST_NAMED = 12
N_E = "n.e."  # in a table of many narrow columns; its note says what it is
TABLE_2 = {"accuracy": "acc.", "sensitivity": "sens.", "specificity": "spec.", "npv": "NPV", "ppv": "PPV", "f1": "F1"}
# Okabe & Ito's colours, which the colour-blind can tell apart; with line styles, for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")


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
    judged_on = f"{found.table.path.name}, SHA-256 {found.table.digest[:SHORT]}" if found.table else "held-out patients"
    same = ("judged on", judged_on, *[""] * (len(models) - 1))
    patients = ("same patients", "no" if found.unpaired else "yes", *[""] * (len(models) - 1))
    return Section("What is compared", ("", *_headings(found)), (same, patients, *cells))


def performance(found: Comparison) -> Section:
    """Every metric of every model with its interval, and calibration."""
    level = _level(found)
    rows: list[tuple[str, Callable[[ComparedModel], Estimate | None]]] = [
        (METRIC[one.name].title, _estimate_of(one.name)) for one in METRICS
    ]
    rows.insert(1, ("ROC AUC (DeLong interval)", lambda one: one.delong))
    rows += [
        ("Calibration in the large (0)", lambda one: one.calibration.intercept),
        ("Calibration slope (1)", lambda one: one.calibration.slope),
        ("Observed / expected (1)", lambda one: one.calibration.ratio),
        ("ROC AUC, internal", lambda one: (one.judged.card.internal or {}).get("roc_auc")),
        ("Brier score, internal", lambda one: (one.judged.card.internal or {}).get("brier")),
    ]
    cells = [
        (name, *(shown(show(one), one.not_estimable and "internal" not in name) for one in found.models)) for name, show in rows
    ]
    notes = [f"Value ({level} interval). For calibration, the right value is in brackets."]
    few = [f"{one.title}: {one.not_estimable}." for one in found.models if one.not_estimable]
    if any(one.lower is not None and one.lower == one.upper for model in found.models for one in model.estimates.values()):
        few.append("An interval without width says that no resample held an error of that kind, not that there can be none.")
    title = "Performance on the table" if found.table else "Performance on held-out patients"
    return Section(title, ("", *_headings(found)), tuple(row for row in cells if any(row[1:])), (*notes, *few))


def differences(found: Comparison) -> Section:
    """Each further model against the first, on the same patients."""
    several = len(found.pairs) > 1
    columns = ("challenger", "ROC AUC, difference", "p", *(("p (Holm)",) if several else ()), "Brier score, difference", "calls")
    rows = tuple(
        (
            pair.challenger,
            signed(pair.differences["roc_auc"], pair.not_estimable),
            _p(pair.p_value),
            *((_p(pair.adjusted),) if several else ()),
            signed(pair.differences["brier"], pair.not_estimable),
            flips_in_words(pair),
        )
        for pair in found.pairs
    )
    origins = " and ".join(dict.fromkeys(pair.p_origin for pair in found.pairs))
    notes = (
        f"Challenger minus {found.models[0].title}; above 0 is better for the ROC AUC, below 0 for the Brier score. "
        f"{_level(found)} intervals over resamples of patients; p by {origins}"
        + (f", adjusted for {len(found.pairs)} challengers after Holm." if several else ".")
        + " Calls: samples that the challenger calls rightly where the reference does not (+), and the other way round (-).",
    )
    return Section(f"Differences from {found.models[0].title}, same patients", columns, rows, notes)


def by_sequence(found: Comparison) -> Section:
    """One row per sequence in the style of a published table, and the best corrected for having been picked."""
    columns = ("sequence", "n", "events", "ROC AUC", "p", *TABLE_2.values())
    rows = [
        (
            str(one.judged.card.sequence),
            f"{len(one.judged.learnt_from)} / {one.counts[0]}",
            str(one.counts[2]),
            shown(one.estimates.get("roc_auc"), one.not_estimable),
            N_E if one.not_estimable else _p(one.p_value),
            *(_plain(one.estimates.get(name), one.not_estimable) for name in TABLE_2),
        )
        for one in found.models
    ]
    alternative = found.models[0].judged.study.evaluation.alternative
    notes = [f"n: samples learnt from / judged. p: Mann-Whitney test of the probabilities ({alternative})."]
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
        plots=[(name, words, _data_uri(draw, found)) for name, words, draw in PLOTS],
        pairs=[(pair, _flip_rows(pair)) for pair in found.pairs if len(pair.flips)],
        methods=methods(found),
        references=REFERENCES,
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
        f"({made if found.table else recorded}).",
        "Calibration in the large is the intercept of a logistic regression of the outcome with the logit of the predicted "
        "probability as offset; the slope is that of a logistic regression on this logit.",
        "Decision curves show net benefit against treating all and treating none.",
        f"Nothing is estimated from fewer than {LEAST_PATIENTS} patients or {LEAST_EVENTS} patients with the event.",
    ]
    if found.pairs:
        test = "the same resamples, since patients have several samples" if clustered else "DeLong's test, two-sided"
        sentences.insert(
            1,
            "Differences were taken within resamples drawn alike for both models; their p values for the ROC AUC are from "
            f"{test}" + (f", adjusted after Holm for {len(found.pairs)} challengers." if several else "."),
        )
    if found.picked:
        sentences.append(
            f"Of {found.picked.tried} sequences the one with the highest ROC AUC was picked; its corrected estimate subtracts "
            "the mean gain from picking over resamples, and its lower limit is balanced over all, so that it holds for any."
        )
    return " ".join(sentences)


REFERENCES = (
    "DeLong et al. 1988, doi:10.2307/2531595; Sun & Xu 2014, doi:10.1109/LSP.2014.2337313 (differences of the ROC AUC)",
    "Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x (resampling patients)",
    "Van Calster et al. 2016, doi:10.1016/j.jclinepi.2015.12.005 (calibration)",
    "Vickers & Elkin 2006, doi:10.1177/0272989X06295361 (decision curves)",
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
    counts = flip_counts(pair.flips)
    return (
        f"events +{counts['events_gained']} -{counts['events_lost']}, "
        f"non-events +{counts['non_events_gained']} -{counts['non_events_lost']}"
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
    return ", ".join(f"{key} {value}" for key, value in endpoint.model_dump(mode="json").items() if key != "kind")


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
        f"{one.sample} ({'event' if one.label else 'non-event'}, now {'right' if one.better else 'wrong'})"
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
            "now right" if one.better else "now wrong",
        )
        for one in pair.flips.itertuples()
    ]


def _rich(section: Section) -> Table:
    table = Table(title=section.title, title_justify="left", title_style="bold")
    for number, column in enumerate(section.columns):
        text = number == 0 or section.title == "What is compared" or column == "calls"
        whole = section.title == "By sequence" or column.startswith("ROC AUC")
        table.add_column(column, justify="left" if text else "right", overflow="fold", no_wrap=whole)
    for row in section.rows:
        table.add_row(*row)
    return table


def _drawn(found: Comparison) -> Iterable[tuple[ComparedModel, dict[str, Any]]]:
    """Models that may be drawn, each with its line."""
    for number, one in enumerate(found.models):
        if not one.not_estimable:
            yield one, {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number % len(LINES)], "linewidth": 1.7}


def _roc(axes: Axes, found: Comparison) -> None:
    for one, line in _drawn(found):
        false_positive_rate, sensitivity, _ = roc_curve(one.predictions["label"], one.predictions["probability"])
        axes.step(false_positive_rate, sensitivity, where="post", label=f"{one.title}: {one.estimates['roc_auc']}", **line)
    axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=0.8)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC")
    axes.legend(loc="lower right", fontsize=7.5)


def _precision_recall(axes: Axes, found: Comparison) -> None:
    for one, line in _drawn(found):
        precision, recall, _ = precision_recall_curve(one.predictions["label"], one.predictions["probability"])
        axes.step(recall, precision, where="post", label=f"{one.title}: {one.estimates['pr_auc']}", **line)
        axes.axhline(one.predictions["label"].mean(), linestyle=":", linewidth=0.8, color=line["color"])
    axes.set(xlabel="sensitivity (recall)", ylabel="PPV (precision)", title="Precision and recall", ylim=(0, 1.03))
    axes.legend(loc="lower left", fontsize=7.5)


def _reliability(axes: Axes, found: Comparison) -> None:
    for one, line in _drawn(found):
        table = one.reliability
        if table is None:
            continue
        error = np.abs(np.vstack([table["observed"] - table["lower"], table["upper"] - table["observed"]]))
        error = None if np.isnan(error).any() else error
        slope = one.calibration.slope.value
        label = f"{one.title}: slope {slope:.2f}" if slope is not None else one.title
        axes.errorbar(table["expected"], table["observed"], yerr=error, marker="o", markersize=4, capsize=2, label=label, **line)
    axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=0.8)
    axes.set(xlabel="predicted probability", ylabel="share of events", title="Reliability", xlim=(0, 1), ylim=(-0.03, 1.03))
    axes.legend(loc="upper left", fontsize=7.5)


def _decision(axes: Axes, found: Comparison) -> None:
    highest = 0.1
    for one, line in _drawn(found):
        if one.curve is None:
            continue
        highest = max(highest, one.curve["model"].max())
        axes.plot(one.curve["threshold"], one.curve["model"], label=one.title, **line)
        mine = np.argmin(np.abs(one.curve["threshold"] - one.judged.card.threshold))
        axes.plot(one.curve["threshold"].iloc[mine], one.curve["model"].iloc[mine], marker="o", markersize=5, color=line["color"])
    for number, (one, _) in enumerate(_drawn(found)):
        if one.curve is not None and (number == 0 or found.unpaired):
            axes.plot(
                one.curve["threshold"], one.curve["treat_all"], color="grey", linewidth=1, label=None if number else "treat all"
            )
    axes.axhline(0, color="black", linewidth=1, label="treat none")
    axes.set(
        xlabel="threshold probability", ylabel="net benefit", title="Decision curve (dot: the model's threshold)", xlim=(0, 1)
    )
    axes.set_ylim(-0.25 * highest, 1.12 * highest)
    axes.legend(loc="upper right", fontsize=7.5)


PLOTS: tuple[tuple[str, str, Callable[[Axes, Comparison], None]], ...] = (
    ("ROC", "Sensitivity against 1 - specificity of every model.", _roc),
    ("Precision and recall", "Positive predictive value against sensitivity; dotted: the share of events.", _precision_recall),
    (
        "Reliability",
        "Share of events among samples with similar probabilities, with Wilson intervals; dotted: right.",
        _reliability,
    ),
    ("Decision curve", "Net benefit of treating by each model, of treating all (grey) and of treating none (black).", _decision),
)


def _data_uri(draw: Callable[[Axes, Comparison], None], found: Comparison) -> str:
    """A plot as an image within the page; equal comparisons give equal bytes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 4.5), layout="constrained")
    draw(figure.subplots(), found)
    written = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "hypoxia"}):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(written.getvalue()).decode("ascii")


def as_json(found: Comparison) -> dict[str, Any]:
    """A comparison as one JSON object."""
    return {
        "models": [_model_json(one) for one in found.models],
        "reference": found.models[0].title,
        "same_patients": found.unpaired is None,
        "unpaired_because": found.unpaired,
        "paired": [_pair_json(one) for one in found.pairs],
        "sequences": _picked_json(found.picked) if found.by_sequence else None,
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


def _picked_json(picked: Picked | None) -> dict[str, Any] | None:
    if picked is None:
        return None
    return {
        "best": picked.sequence,
        "tried": picked.tried,
        "roc_auc": picked.plain.model_dump(),
        "roc_auc_corrected_for_picking": picked.corrected.model_dump(),
    }


def _records(table: pd.DataFrame | None) -> list[dict[str, Any]] | None:
    if table is None:
        return None
    return [{str(name): None if pd.isna(value) else value for name, value in row.items()} for row in table.to_dict("records")]
