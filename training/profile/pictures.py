"""The pictures of a study of profiles, and the one page that holds them with its tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from training.html_report import Section, html_report
from training.molecular.report import molecular_figures, molecular_sections
from training.profile.figures import (
    consensus_figure,
    criteria_figure,
    heat_map,
    ranked_features,
    stability_figure,
    volume_figure,
)
from training.profile.outcome import Comparison
from training.profile.report import findings, size_of, warnings_of, words_of
from training.profile.run import ProfileResult
from training.profile.tables import clusters_side_by_side
from training.report import title_of
from training.survival.figures import draw_kaplan_meier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = dict[str, Callable[[], "Figure"]]
CAPTIONS = {
    "heat_map": "Patients (columns, by cluster) by features (rows, by how far they part the clusters)",
    "criteria": "What four criteria say of each number of clusters",
    "consensus": "How often two patients are in one cluster when patients are drawn anew",
    "stability": "How well each cluster comes back when patients are drawn anew",
    "ranked_features": "Features by the distance between cluster means",
    "volume": "Tumour volume by cluster",
    "kaplan_meier": "Kaplan-Meier curves of the clusters",
    "kaplan_meier_combined": "Kaplan-Meier curves of the combined clusters",
}


def profile_figures(result: ProfileResult) -> Drawn:
    """All figures of a run by file name, drawn when called."""
    molecular = {} if result.molecular is None else molecular_figures(result.molecular)
    return {**_own_figures(result), **{f"molecular_{name}": draw for name, draw in molecular.items()}}


def profile_page(result: ProfileResult) -> str:
    """The whole report as one self-contained HTML page."""
    drawn = _own_figures(result)
    sections = [_overview(result, drawn), _features(result, drawn), _associations(result), _outcome(result, drawn)]
    sections += [] if result.molecular is None else molecular_sections(result.molecular)
    return html_report(f"Profiles: {result.study.model}", size_of(result), sections)


def _own_figures(result: ProfileResult) -> Drawn:
    study, fitted, ranking = result.study, result.fitted, result.ranking.table
    labels, fared = fitted.clusters.labels, result.outcome
    drawn: Drawn = {
        "heat_map": lambda: heat_map(fitted.z, labels, stage=_stage(result), volume=result.data.volume, ranking=ranking),
        "criteria": lambda: criteria_figure(result.criteria.table, result.criteria.best, len(result.names)),
        "consensus": lambda: consensus_figure(result.stability.consensus, labels),
        "stability": lambda: stability_figure(result.stability.table["jaccard"].to_numpy()),
        "ranked_features": lambda: ranked_features(ranking, study.ranking.strong, study.ranking.moderate),
    }
    if result.data.volume is not None:
        volume = result.data.volume.to_numpy(dtype=float)
        drawn["volume"] = lambda: volume_figure(volume, labels)
    if result.cohort.times is not None:
        drawn["kaplan_meier"] = lambda: _curves(result, fared.clusters, "Clusters")
        if fared.combined is not None:
            combined = fared.combined
            drawn["kaplan_meier_combined"] = lambda: _curves(result, combined, "Combined clusters")
    return drawn


def _curves(result: ProfileResult, compared: Comparison, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    hazards, of_hazards = result.outcome.hazards, result.outcome.compared is compared
    selected = result.study.chosen_by_outcome or (of_hazards and result.choice.exploratory)
    naive = None if selected else compared.overall.p_value
    draw_kaplan_meier(
        figure.subplots(),
        compared.outcomes(result.fared_outcome),
        title=title,
        unit=result.cohort.time_unit,
        horizon=result.cohort.horizon,
        hazard_ratio=hazards.ratio if hazards is not None and of_hazards else None,
        p_value=result.choice.p_value if of_hazards else naive,
        label=f"exploratory: selected by outcome{'; p by permutation of the choice' if of_hazards else ''}" if selected else None,
    )
    return figure


def _stage(result: ProfileResult) -> pd.Series | None:
    clinical = result.cohort.clinical
    named = result.study.stage or next((name for name in clinical.columns if "stage" in str(name).lower()), None)
    return None if named is None else clinical[named]


def _overview(result: ProfileResult, drawn: Drawn) -> Section:
    return Section(
        "Clusters",
        (f"{words_of(result)[0].upper()}{words_of(result)[1:]}.", *(f"{title}: {words}" for title, words in findings(result))),
        (
            ("The clusters side by side", _readable(clusters_side_by_side(result))),
            ("What the criteria say of each number of clusters", result.criteria.table),
            ("Performance on patients left out, profiles made anew without them", _estimates(result)),
        ),
        _captioned(drawn, "heat_map", "criteria", "consensus", "stability"),
        warnings_of(result),
    )


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """A median that fewer than half of the patients have reached in words."""
    return table.astype(object).where(~np.isinf(table.astype(float)), "not reached")


def _estimates(result: ProfileResult) -> pd.DataFrame:
    found = {title_of(name): str(one) for name, one in result.evaluation.estimates.items()}
    return pd.DataFrame({"estimate": found}).rename_axis("measure")


def _features(result: ProfileResult, drawn: Drawn) -> Section:
    ranking, volume = result.ranking, result.volume
    tables = [
        ("Features by the distance between cluster means, in standard deviations", ranking.table),
        ("Sequences among the features that part the clusters", ranking.shares("sequence")),
        ("Families among them", ranking.shares("family")),
    ]
    if volume is not None:
        tables.append(("Correlation of each feature with tumour volume (Spearman)", volume.table))
    words = () if volume is None else (volume.words,)
    shown = ("ranked_features", "volume") if volume is not None else ("ranked_features",)
    return Section("What parts the clusters", words, tuple(tables), _captioned(drawn, *shown))


def _associations(result: ProfileResult) -> Section:
    found = result.associations
    tables = [
        ("Characteristics of the patients by cluster", found.table2),
        ("Tests, with false discovery rate over the columns of a role", found.table),
    ]
    if len(found.not_tested):
        tables.append(("Not tested", found.not_tested))
    return Section("What else is known of the patients", (), tuple(tables), (), found.warnings)


def _outcome(result: ProfileResult, drawn: Drawn) -> Section:
    fared = result.outcome
    tables = [("Clusters", _readable(fared.clusters.table)), ("Pairs of clusters", fared.clusters.pairwise)]
    if fared.combined is not None:
        tables.append(("Combined clusters", _readable(fared.combined.table)))
    if fared.hazards is not None:
        named = (("Cox regression", fared.hazards.alone), ("Cox regression with clinical columns", fared.hazards.adjusted))
        tables += [(caption, fit.table) for caption, fit in named if fit is not None]
    shown = [name for name in ("kaplan_meier", "kaplan_meier_combined") if name in drawn]
    return Section("How the clusters fare", (result.choice.words,), tuple(tables), _captioned(drawn, *shown), fared.notes)


def _captioned(drawn: Drawn, *names: str) -> tuple[tuple[str, Figure], ...]:
    return tuple((CAPTIONS[name], drawn[name]()) for name in names)
