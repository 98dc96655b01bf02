"""The pictures of a study of profiles, and the one page that holds them with its tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from training.html_report import UNDEFINED, Findings, Part, Picture, Section, Table, html_report, ratio
from training.molecular.report import molecular_figures, molecular_sections
from training.profile.figures import (
    consensus_figure,
    criteria_figure,
    heat_map,
    kinds_known,
    ranked_features,
    stability_figure,
    volume_figure,
)
from training.profile.outcome import COVARIATE, Comparison
from training.profile.report import findings, size_of, warnings_of, words_of
from training.profile.run import ProfileResult
from training.profile.tables import clusters_side_by_side
from training.report import title_of
from training.survival.figures import draw_kaplan_meier

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.survival.cox import CoxFit

Drawn = dict[str, Callable[[], "Figure"]]
CAPTIONS = {
    "heat_map": "Patients (columns, by cluster) by features (rows, by how far they part the clusters): red above, blue below the "
    "mean of all patients",
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
        "heat_map": lambda: heat_map(
            fitted.z, labels, stage=_stage(result), volume=result.data.volume, volume_unit=_volume_unit(result), ranking=ranking
        ),
        "criteria": lambda: criteria_figure(result.criteria.table, result.criteria.best, len(result.names)),
        "consensus": lambda: consensus_figure(result.stability.consensus, labels),
        "stability": lambda: stability_figure(result.stability.table["jaccard"].to_numpy()),
        "ranked_features": lambda: ranked_features(ranking, study.ranking.strong, study.ranking.moderate),
    }
    if result.data.volume is not None:
        volume = result.data.volume.to_numpy(dtype=float)
        drawn["volume"] = lambda: volume_figure(volume, labels, unit=_volume_unit(result))
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
    test = compared.overall.test
    draw_kaplan_meier(
        figure.subplots(),
        compared.outcomes(result.fared_outcome),
        title=title,
        unit=result.cohort.time_unit,
        horizon=result.cohort.horizon,
        hazard_ratio=hazards.ratio if hazards is not None and of_hazards else None,
        p_value=result.choice.p_value if of_hazards else naive,
        p_name="permutation p" if of_hazards else f"{test} p",
        label="exploratory: selected by outcome" if selected else None,
    )
    return figure


def _stage(result: ProfileResult) -> pd.Series | None:
    clinical = result.cohort.clinical
    named = result.study.stage or next((name for name in clinical.columns if "stage" in str(name).lower()), None)
    return None if named is None else clinical[named]


def _volume_unit(result: ProfileResult) -> str:
    volume = result.data.volume
    return "" if volume is None else result.cohort.table.feature(str(volume.name)).unit or ""


def _overview(result: ProfileResult, drawn: Drawn) -> Section:
    found = (("Made by", f"{words_of(result)[0].upper()}{words_of(result)[1:]}."), *findings(result))
    criteria = result.criteria.table.rename(
        columns={"calinski_harabasz": "Calinski-Harabasz", "davies_bouldin": "Davies-Bouldin", "gap_error": "error of the gap"}
    )
    note = (
        "Silhouette and Calinski-Harabasz are best where they are highest, Davies-Bouldin where it is lowest, the gap at the "
        "fewest clusters that are within one error of the next. The loss falls with every cluster and chooses none."
    )
    parts: list[Part] = [
        _clusters(result),
        *_pictures(drawn, "heat_map"),
        Findings(found),
        *_pictures(drawn, "criteria"),
        Table("What the criteria say of each number of clusters", criteria, note),
        *_pictures(drawn, "consensus", "stability"),
    ]
    return Section("Clusters", tuple(parts), warnings_of(result))


def _clusters(result: ProfileResult) -> Table:
    side, cohort, table = clusters_side_by_side(result), result.cohort, _fared(result, result.outcome.clusters)
    if cohort.times is not None:
        table.insert(2, f"observed risk by {cohort.horizon:g} {cohort.time_unit}", side["risk_by_horizon"].to_numpy())
    stability = [f"{jaccard:.2f}" if np.isfinite(jaccard) else UNDEFINED for jaccard in side["jaccard"]]
    note = (
        "Where patients are drawn anew: stability is the mean Jaccard similarity of a cluster with its likest (1: always the "
        "same), dissolved the share of draws in which it fell apart, together how often two of its patients stay in one cluster."
    )
    table = table.assign(stability=stability, dissolved=side["dissolved"].to_numpy(), together=side["consensus"].to_numpy())
    return Table("The clusters side by side", table.rename_axis("cluster"), note)


def _fared(result: ProfileResult, compared: Comparison) -> pd.DataFrame:
    """Groups side by side, each number with what belongs to it in one cell."""
    table, cohort = compared.table, result.cohort
    events = [f"{row['events']:.0f} ({row['share']:.0%})" for _, row in table.iterrows()]
    found = pd.DataFrame({"patients": table["patients"].astype(int), "with the event": events}, index=table.index)
    if cohort.times is not None:
        limits = [_median(*row) for row in table[["median", "median_lower", "median_upper"]].to_numpy(dtype=float)]
        found[f"median time in {cohort.time_unit} ({result.study.evaluation.level:.0%} interval)"] = limits
    return found


def _median(*times: float) -> str:
    """A median time with its limits, in words as far as fewer than half of the patients have reached it."""
    middle, lower, upper = (f"{time:.3g}" if np.isfinite(time) else "not reached" for time in times)
    return f"{middle} ({lower} to {upper})" if np.isfinite(times).any() else middle


def _features(result: ProfileResult, drawn: Drawn) -> Section:
    ranking, volume, kinds = result.ranking, result.volume, kinds_known(result.ranking.table)
    parts: list[Part] = [
        *([] if volume is None else [volume.words]),
        *_pictures(drawn, "ranked_features"),
        _ranked(result, kinds),
    ]
    parts += [
        Table(f"{title} among the features that part the clusters", _shares(shares), SHARES)
        for kind, title, shares in (
            ("sequence", "Sequences", ranking.shares("sequence")),
            ("family", "Families", ranking.shares("family")),
        )
        if kind in kinds
    ]
    if volume is not None:
        nearest = volume.table.sort_values("rho", key=np.abs, ascending=False, kind="stable")
        note = "Spearman's rank correlation, from -1 to 1, the strongest first; q is the false discovery rate over the features."
        parts += [*_pictures(drawn, "volume"), Table("Correlation of each feature with tumour volume", _tested(nearest), note)]
    return Section("What parts the clusters", tuple(parts))


SHARES = "In brackets: share of the features of the row."


def _ranked(result: ProfileResult, kinds: list[str]) -> Table:
    settings, table = result.study.ranking, result.ranking.table
    means = {f"mean_{number}": f"mean of {name}" for number, name in enumerate(result.names, start=1)}
    shown = table[["rank", "distance", "interval", *kinds, *means]].rename(columns={"interval": "parts the clusters", **means})
    note = (
        "Distance: root of the summed squares of the differences between cluster means, over all pairs of clusters. Strong: "
        f"above {settings.strong:g}; moderate: above {settings.moderate:g}. Means and distances are in standard deviations."
    )
    return Table("Features by the distance between cluster means", shown, note)


def _shares(table: pd.DataFrame) -> pd.DataFrame:
    counted = {
        name: [f"{count} ({share:.0%})" for count, share in zip(table[name], table[f"{name}_share"], strict=True)]
        for name in ("strong", "moderate")
    }
    return table[["features"]].assign(**counted)


def _tested(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(columns={"p_value": "p", "q_value": "q", "p_holm": "p, corrected (Holm)"})


def _associations(result: ProfileResult) -> Section:
    found = result.associations
    headings = {
        "column": "characteristic",
        "role": "kind",
        "df": "degrees of freedom",
        "chi_square_p": "p of chi-square",
        "effect_name": "measure of effect",
        "n": "patients",
    }
    q_note = "q is the false discovery rate over the characteristics of one kind (clinical, acquisition, site)."
    note = (
        f"{q_note} The p of chi-square is that of counts, whichever test was taken. Effects are from 0 (clusters are alike) to 1."
    )
    parts: list[Part] = [
        Table(
            "Characteristics of the patients by cluster", _once(found.table2), f"Patients (%), or median. {q_note}", whole=True
        ),
        Table("The tests", _tested(found.table).rename(columns=headings), note),
    ]
    if len(found.not_tested):
        parts.append(Table("Not tested", found.not_tested.rename(columns=headings)))
    return Section("What else is known of the patients", tuple(parts), found.warnings)


def _once(table2: pd.DataFrame) -> pd.DataFrame:
    """p and q in the first row of a characteristic, and nothing in those that follow."""
    first = table2["characteristic"] != ""
    return table2.assign(**{name: table2[name].astype(object).where(first, "") for name in ("p", "q")})


def _outcome(result: ProfileResult, drawn: Drawn) -> Section:
    fared, hazards = result.outcome, result.outcome.hazards
    parts: list[Part] = [result.choice.words, *_pictures(drawn, *(name for name in drawn if name.startswith("kaplan_meier")))]
    if fared.combined is not None:
        parts.append(Table("Clusters that are compared as one", _fared(result, fared.combined)))
    pairs = "Each two clusters alone; the last p is corrected for the number of pairs."
    parts.append(Table("Pairs of clusters", _tested(fared.clusters.pairwise), pairs))
    named = () if hazards is None else (("alone", hazards.alone), (f"with {', '.join(result.study.adjust)}", hazards.adjusted))
    parts += [_hazards(result, words, fit) for words, fit in named if fit is not None]
    estimates = {title_of(name): str(one) for name, one in result.evaluation.estimates.items()}
    left_out = pd.DataFrame({f"estimate ({result.study.evaluation.level:.0%} interval)": estimates}).rename_axis("measure")
    note = (
        "What a patient's cluster says of the outcome where the profiles were made without the patient. C and AUC: 0.5 is chance."
    )
    parts.append(Table("Patients left out", left_out, note))
    return Section("How the clusters fare", tuple(parts), fared.notes)


def _hazards(result: ProfileResult, words: str, fit: CoxFit) -> Table:
    names = result.outcome.compared.names
    rows = {f"{COVARIATE}={name.partition(' ')[2]}": f"{name} against {names[0]}" for name in names}
    index = pd.Index([rows.get(str(name), str(name).replace("=", " ")) for name in fit.table.index], name="covariate")
    found = fit.table[["hazard_ratio", "lower", "upper"]].to_numpy(dtype=float)
    ratios = [f"{ratio(value)} ({ratio(lower)} to {ratio(upper)})" for value, lower, upper in found]
    heading = f"hazard ratio ({result.study.evaluation.level:.0%} interval)"
    table = pd.DataFrame({heading: ratios, "p": fit.table["p_value"].to_numpy()}, index=index)
    note = "Above 1: worse. Of a quantity per unit, of a category against the one that is not listed; p by Wald's test."
    return Table(f"Cox regression of the clusters {words} ({fit.n} patients, {fit.events} events)", table, note)


def _pictures(drawn: Drawn, *names: str) -> list[Picture]:
    return [Picture(CAPTIONS[name], drawn[name]()) for name in names]
