"""The report of profiles in words: what was found, and what a reader must know before believing it."""

from __future__ import annotations

import numpy as np
from rich.table import Table

from features.bundle import RESEARCH_USE_ONLY
from training.profile.choice import DOUBTFUL
from training.profile.run import ProfileResult
from training.profile.tables import clusters_side_by_side
from training.report import title_of

SHOWN = 8
FEWEST = 4  # patients of a cluster that is one
METHODS = {"pam": "k-medoids (PAM)", "best": "k-medoids (best of several starts)"}


def words_of(result: ProfileResult) -> str:
    """The model in a phrase."""
    count, features = len(result.names), result.fitted.z.shape[1]
    made = f"{count} clusters by {METHODS[result.study.clustering.method]} of {features} features in standard deviations"
    return ", ".join(filter(None, [result.fitted.harmonised, made, "nearest medoid"]))


def size_of(result: ProfileResult) -> str:
    """How many patients, features and events there are."""
    cohort = result.cohort
    return f"{len(cohort.samples)} patients, {cohort.features.shape[1]} features, {int(cohort.y.sum())} with the event"


def cluster_table(result: ProfileResult) -> Table:
    """The clusters side by side, for a terminal."""
    headings, rows = cluster_rows(result)
    cohort = result.cohort
    by = "" if cohort.times is None else f" by {cohort.horizon:g} {cohort.time_unit}"
    title = f"{result.study.model}: {len(rows)} profiles (n={len(cohort.samples)}, {int(cohort.y.sum())} events{by})"
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "cluster" else "right")
    for row in rows:
        table.add_row(*row)
    return table


def cluster_rows(result: ProfileResult) -> tuple[list[str], list[tuple[str, ...]]]:
    """Headings and rows of the clusters side by side."""
    found, survival = clusters_side_by_side(result), result.cohort.times is not None
    headings = [
        "cluster",
        "patients",
        "with event",
        *(["observed risk by horizon", "median time"] if survival else []),
        "stability",
    ]
    rows = [
        (
            str(name),
            f"{row['patients']:.0f}",
            f"{row['events']:.0f} ({row['share_with_event']:.0%})",
            *((f"{row['risk_by_horizon']:.2f}", _reached(row["median_time"])) if survival else ()),
            f"{row['jaccard']:.2f}",
        )
        for name, row in found.iterrows()
    ]
    return headings, rows


def findings(result: ProfileResult) -> list[tuple[str, str]]:
    """What was found, as titles and sentences."""
    ranking, fared = result.ranking.table, result.outcome
    first = ", ".join(ranking.index[:SHOWN].astype(str))
    counts = ranking["interval"].value_counts()
    found = [
        *([] if result.fitted.harmonised is None else [("Harmonised", result.fitted.harmonised)]),
        ("Number of clusters", f"{len(result.names)}, {result.chosen_by}. {result.criteria.words}"),
        ("Stability", result.stability.words),
        (
            "Features",
            f"{counts.get('strong', 0)} of {len(ranking)} part the clusters strongly (distance of means above "
            f"{result.study.ranking.strong:g}), {counts.get('moderate', 0)} moderately; first: {first}",
        ),
        *([] if result.volume is None else [("Volume", result.volume.words)]),
        ("Associated columns", _associated(result)),
        ("Outcome", result.choice.words),
        *([] if fared.combined is None else [("Combined", _combined(result))]),
        ("Patients left out", _left_out(result)),
    ]
    hazards = fared.hazards
    if hazards is not None and hazards.ratio is not None:
        against = " against ".join(reversed(fared.compared.names))
        found.append(("Hazard ratio", f"{hazards.ratio} of {against}{_selected(result)}"))
    if hazards is not None and hazards.adjusted is not None:
        found.append(("Adjusted", f"for {', '.join(result.study.adjust)}: {_adjusted(result)}{_selected(result)}"))
    return found + ([] if result.molecular is None else [("Molecular", words) for words in result.molecular.words])


def warnings_of(result: ProfileResult) -> tuple[str, ...]:
    """What a reader of the clusters must know."""
    found = [*_outliers(result), *result.audit.warnings, *result.associations.warnings]
    jaccards = zip(result.names, result.stability.table["jaccard"], strict=True)
    found += [
        f"{name[0].upper()}{name[1:]} does not come back when patients are drawn anew (mean Jaccard {jaccard:.2f}, below "
        f"{DOUBTFUL:g}) and is not to be trusted."
        for name, jaccard in jaccards
        if jaccard < DOUBTFUL
    ]
    if result.volume is not None and result.volume.little_more:
        found.append(result.volume.words)
    if result.choice.exploratory:
        found.append(
            "The outcome had a say in what is compared: how the clusters fare is exploratory, and only the permutation p and the "
            "estimates on patients left out can be believed."
        )
    if result.choice.p_value > 1 - result.study.evaluation.level:
        found.append(
            f"Clusters that differ as much in outcome are found in {result.choice.p_value:.0%} of cohorts whose outcome was "
            "dealt anew: that they fare differently is not told apart from chance."
        )
    same = _folds_of_one_risk(result)
    if same:
        found.append(
            f"In {same} of {result.study.evaluation.folds * result.study.evaluation.repeats} folds all patients left out got one "
            "risk: profiles made without them told nobody apart, and the interval of a mean over folds is then too narrow."
        )
    gaps = result.cohort.features.isna().to_numpy().sum()
    if gaps:
        found.append(f"{gaps} missing values of features were filled with the median of the standard scores.")
    molecular = () if result.molecular is None else result.molecular.warnings
    return (*found, *(f"{note[0].upper()}{note[1:].rstrip('.')}." for note in result.outcome.notes), *molecular)


def _outliers(result: ProfileResult) -> list[str]:
    """Clusters that are hardly any: whatever is said of profiles is then of a few patients."""
    patients = result.outcome.clusters.table["patients"].astype(int)
    few = [f"{name} ({count} patient{'' if count == 1 else 's'})" for name, count in patients.items() if count < FEWEST]
    if not few:
        return []
    return [
        f"Too small for a profile: {', '.join(few)}. These look like outliers, and the features that part them best are their "
        "own; look at these patients, or leave them out."
    ]


def _folds_of_one_risk(result: ProfileResult) -> int:
    folds = result.evaluation.predictions.groupby(["repeat", "fold"])["probability"]
    return int((folds.nunique() == 1).sum())


def summary_text(result: ProfileResult) -> str:
    """The run in Markdown."""
    headings, rows = cluster_rows(result)
    lines = [
        f"# {result.study.model}",
        "",
        RESEARCH_USE_ONLY,
        "",
        f"{size_of(result)}. {words_of(result)[0].upper()}{words_of(result)[1:]}.",
        "",
        f"| {' | '.join(headings)} |",
        "|---" * len(headings) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *(f"- {title}: {words.rstrip('.')}." for title, words in findings(result)),
        "",
        "| measure | patients left out |",
        "|---|---|",
        *(f"| {title_of(name)} | {one} |" for name, one in result.evaluation.estimates.items()),
        "",
        *(f"Warning: {warning}" for warning in warnings_of(result)),
        "",
    ]
    return "\n".join(lines)


def _associated(result: ProfileResult) -> str:
    table = result.associations.table
    below = table[table["q_value"] <= result.study.evaluation.false_discovery].sort_values("p_value")
    if table.empty:
        return "none could be tested"
    tested = f"of {len(table)} tested"
    if below.empty:
        return f"none {tested} (false discovery rate {result.study.evaluation.false_discovery:g})"
    named = [f"{row.column} (q = {row.q_value:.2g})" for row in below.head(SHOWN).itertuples()]
    return f"{len(below)} {tested}: {', '.join(named)}"


def _combined(result: ProfileResult) -> str:
    combined = result.outcome.combined
    assert combined is not None  # noqa: S101 - asked for where there is one
    sides = [f"{row['events']:.0f} of {row['patients']:.0f} in {name}" for name, row in combined.table.iterrows()]
    return f"with the event {' and '.join(sides)}; {combined.overall.test} p = {combined.overall.p_value:.2g}{_selected(result)}"


def _adjusted(result: ProfileResult) -> str:
    hazards = result.outcome.hazards
    assert hazards is not None and hazards.adjusted is not None  # noqa: S101 - asked for where there is one
    own = [name for name in hazards.adjusted.table.index if str(name).startswith("clusters")]
    rows = hazards.adjusted.table.loc[own]
    first, *others = result.outcome.compared.names
    shown = [
        f"{name} against {first} {row['hazard_ratio']:.3g} ({row['lower']:.3g} to {row['upper']:.3g})"
        for name, (_, row) in zip(others, rows.iterrows(), strict=True)
    ]
    return f"{'; '.join(shown)}; {hazards.adjusted.n} patients, {hazards.adjusted.events} events"


def _left_out(result: ProfileResult) -> str:
    evaluation = result.evaluation
    name, settings = evaluation.headline, result.study.evaluation
    pooled = evaluation.estimates[f"{name}_pooled"]
    return (
        f"{title_of(name)} {evaluation.estimates[name]}, pooled over folds {pooled}, of the risk of a patient's cluster, "
        f"profiles made anew without the patient ({settings.repeats} x {settings.folds} folds; 0.5 is chance)"
    )


def _selected(result: ProfileResult) -> str:
    return " (exploratory: selected by outcome)" if result.choice.exploratory else ""


def _reached(time: float) -> str:
    return f"{time:.3g}" if np.isfinite(time) else "not reached"
