"""Molecular correlates in words, tables and pictures: what a run and a page show of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from training.html_report import Findings, Part, Picture, Section, Table
from training.molecular.enrichment import Enrichment
from training.molecular.figures import enrichment_plot, enrichment_summary, oncoplot, sam_plot, scores_by_group, volcano
from training.molecular.run import Correlates, GeneContrast, MutatedByGroup, Scored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = dict[str, Callable[[], "Figure"]]
Captioned = dict[str, tuple[str, Callable[[], "Figure"]]]
# Sets whose running sum is drawn, genes that are listed where none is called, and genes of a leading edge that are named.
DRAWN_SETS, LISTED_GENES, NAMED_GENES = 3, 25, 8
CERTAINTY = "95%"  # SAM's, unless it is asked for another


def molecular_figures(correlates: Correlates) -> Drawn:
    """All figures by the name of their file, drawn when called."""
    drawn: Drawn = {}
    for one in correlates.genes:
        drawn |= {f"{name}_{one.slug}": draw for name, (_, draw) in _of_contrast(one, correlates).items()}
    return drawn | {name: draw for name, (_, draw) in _of_groups(correlates).items()}


def molecular_sections(correlates: Correlates) -> list[Section]:
    """Parts of a page: who has which data, then genes by contrast, then scores, mutations and proteins."""
    drawn = _of_groups(correlates)
    sections = [_overview(correlates), *(_contrast(one, correlates) for one in correlates.genes)]
    for name, title, scored in (
        ("gene_set_scores", "Scores of gene sets in single patients", correlates.single_sample),
        ("microenvironment", "Stromal and immune scores", correlates.microenvironment),
    ):
        if scored is not None:
            sections.append(Section(title, (*_pictured(drawn, name), _scores("By group", scored.tests, correlates))))
    if correlates.mutated is not None:
        sections.append(_mutations(correlates.mutated, _pictured(drawn, "mutations")))
    if correlates.proteins is not None:
        found = correlates.proteins.differences
        tables = (_scores("Protein scores by group", found.tests, correlates), Table("Patients of each level", found.levels))
        sections.append(Section("Proteins", (*_pictured(drawn, "proteins"), *tables)))
    return sections


def _overview(correlates: Correlates) -> Section:
    found = [*(("Found", words) for words in correlates.words), *(("Note", words) for words in correlates.notes)]
    patients = correlates.patients.rename(columns=lambda name: name if name == "patients" else f"with {name}")
    parts = (Table("Patients by group, and of how many there are data", patients), Findings(tuple(found)))
    return Section("Molecular correlates", parts, correlates.warnings)


def _pictured(drawn: Captioned, *names: str) -> tuple[Picture, ...]:
    """The pictures that there are of these names."""
    return tuple(Picture(drawn[name][0], drawn[name][1]()) for name in names if name in drawn)


def _of_contrast(one: GeneContrast, correlates: Correlates) -> Captioned:
    """Caption and picture, by name."""
    name, table, fold_change = one.contrast.name, one.sam.table, correlates.settings.fold_change
    drawn: Captioned = {
        "volcano": (
            "Genes by how much they differ and by the p value of the moderated t, since SAM's ends at its permutations",
            lambda: volcano(
                table.assign(p_value=one.moderated.table["p_value"]), fold_change=fold_change, title=name, units=one.measured_in
            ),
        ),
        "sam": (
            "SAM: statistic of each gene against what permutations make one expect",
            lambda: sam_plot(
                table["expected"].to_numpy(), table["d"].to_numpy(), one.sam.delta, table["called"].to_numpy(), title=name
            ),
        ),
    }
    if one.enrichment is None:
        return drawn
    table_of_sets, rate = one.enrichment.table, one.false_discovery
    sets = table_of_sets.assign(q_value=table_of_sets[["q_value", "group_q_value"]].max(axis=1))
    drawn["gene_sets"] = (
        "Gene sets that are furthest from zero (GSEA)",
        lambda: enrichment_summary(sets, false_discovery=rate, title=name),
    )
    named, words = _called(list(one.enrichment.firm(rate).index), list(sets.index))
    for place, gene_set in enumerate(named[:DRAWN_SETS], start=1):
        drawn[f"gene_set_{place}"] = (f"Where the genes of {gene_set} lie{words}", _running(one, str(gene_set)))
    return drawn


def _called(called: list[str], tested: list[str]) -> tuple[list[str], str]:
    """What is drawn, and what its caption adds: what is called, or else the first of what was tested alone."""
    return (called, "") if called else (tested[:1], ": the strongest, and not significant")


def _running(one: GeneContrast, named: str) -> Callable[[], Figure]:
    def draw() -> Figure:
        assert one.enrichment is not None  # noqa: S101 - asked of contrasts with gene sets alone
        found = one.enrichment
        es, nes, of_sets, of_groups = (found.table[name].to_dict()[named] for name in ("es", "nes", "q_value", "group_q_value"))
        q_value = max(of_sets, of_groups)
        running, hits, metric = found.running_sum(named), found.hits(named), found.ranking.to_numpy()
        return enrichment_plot(running, hits, es, nes, q_value, named, metric=metric, group=one.contrast.group)

    return draw


def _of_groups(correlates: Correlates) -> Captioned:
    groups, proteins = correlates.groups, correlates.proteins
    scored = {
        "gene_set_scores": ("Scores of gene sets by group", correlates.single_sample),
        "microenvironment": ("Stromal and immune scores by group", correlates.microenvironment),
        "proteins": (
            "Protein scores by group",
            None if proteins is None else Scored(proteins.scores, proteins.differences.tests),
        ),
    }
    drawn: Captioned = {}
    for name, (caption, one) in scored.items():
        drawn |= {} if one is None else _by_group(name, caption, one, groups)
    if correlates.mutated is not None:
        classes = correlates.mutated.mutations.classes
        drawn["mutations"] = ("Who is mutated in which gene, by group", lambda: oncoplot(classes, groups))
    return drawn


def _by_group(name: str, caption: str, scored: Scored, groups: pd.Series) -> Captioned:
    """The picture of what differs, or of the strongest alone; none where nothing was tested."""
    tests = scored.tests
    named, words = _called(list(tests.index[tests["associated"]]), list(tests.index[tests["p_value"].notna()]))
    if not named:
        return {}
    return {name: (caption + words, lambda: scores_by_group(scored.scores[named], groups, tests["q_value"], ylabel="score"))}


def _contrast(one: GeneContrast, correlates: Correlates) -> Section:
    drawn = _of_contrast(one, correlates)
    parts: list[Part] = [
        f"Differences are those of {one.contrast.group} less {one.contrast.other}, in {one.measured_in}. SAM by "
        f"{one.sam.permutations} permutations of the groups; {min(one.sam.pi0, 1):.0%} of the genes are estimated not to differ "
        f"(pi0), and spreads are raised by {one.sam.s0:.3g} (s0).",
        *_pictured(drawn, "volcano", "sam"),
        _genes(one),
        _moderated(one),
        _deltas(one),
    ]
    if one.enrichment is not None:
        parts += [*_pictured(drawn, *(name for name in drawn if name.startswith("gene_set"))), _sets(one.enrichment)]
    return Section(f"Genes: {one.contrast.name}", tuple(parts), one.sam.notes)


def _genes(one: GeneContrast) -> Table:
    called = len(one.called) > 0
    words = f"Genes that SAM calls at a false discovery rate of {one.rate}" if called else "No gene is called; the first ones"
    headings = {
        "difference": f"difference ({one.measured_in})",
        "fold_change": "fold change",
        "d": "SAM's d",
        "p_value": "p",
        "q_value": "q",
        "median_q_value": "q by SAM's median",
    }
    note = (
        f"d: difference over its spread. q: lowest share of false genes at which the gene is called, not exceeded with "
        f"{CERTAINTY} certainty; SAM's own, by the median, is exceeded every other time."
    )
    listed = one.called if called else one.sam.table.head(LISTED_GENES)
    table = _headed(listed, headings).rename_axis("gene")
    return Table(words, table, note, least=1 / one.sam.permutations)


def _moderated(one: GeneContrast) -> Table:
    headings = {
        "difference": f"difference ({one.measured_in})",
        "fold_change": "fold change",
        "t": "moderated t",
        "p_value": "p",
        "q_value": "q",
        "called": "differs",
    }
    table = _headed(one.moderated.table, headings).head(LISTED_GENES).rename_axis("gene")
    note = (
        "The same question by limma's moderated t: p from a distribution in place of permutations, q by Benjamini and Hochberg."
    )
    return Table("Moderated t, the first genes", table, note)


def _deltas(one: GeneContrast) -> Table:
    headings = {
        "delta": "delta",
        "called": "genes called",
        "median_false": "false genes, median",
        "false_90": "false genes, 90th percentile",
        "bound": f"false genes at most ({CERTAINTY} certain)",
        "median_fdr": "share false, median",
        "fdr_90": "share false, 90th percentile",
        "fdr_bound": f"share false at most ({CERTAINTY} certain)",
        "cut_low": "lower cut of d",
        "cut_up": "upper cut of d",
    }
    table = one.sam.delta_table
    cuts = {name: table[name].astype(object).where(np.isfinite(table[name]), "none") for name in ("cut_low", "cut_up")}
    note = "A gene is called where its d is further than delta from what permutations make one expect: beyond one of the cuts."
    return Table("SAM: genes called and false ones, by delta", _headed(table.assign(**cuts), headings), note)


def _sets(enrichment: Enrichment) -> Table:
    headings = {
        "size": "genes",
        "es": "ES",
        "nes": "NES",
        "p_value": "p, random sets",
        "q_value": "q, random sets",
        "group_p_value": "p, random groups",
        "group_q_value": "q, random groups",
        "leading_edge": "leading edge",
    }
    note = (
        "ES: enrichment score, above 0 where the set is higher; NES: over its mean in random sets. Sets are compared with random "
        "sets of as many genes and with random groups of patients: genes that vary together stand out among random sets even in "
        "noise. Enriched is what stands out in both; pictures show the larger q."
    )
    table = enrichment.table.assign(leading_edge=enrichment.table["leading_edge"].map(_short_edge))
    return Table("Gene sets, by normalised enrichment score", _headed(table, headings), note)


def _headed(table: pd.DataFrame, headings: Mapping[str, str]) -> pd.DataFrame:
    """The columns of a page, as far as they are there, by what a reader calls them."""
    return table[[name for name in headings if name in table]].rename(columns=headings)


def _short_edge(genes: tuple[str, ...]) -> str:
    more = f" and {len(genes) - NAMED_GENES} more" if len(genes) > NAMED_GENES else ""
    return ", ".join(genes[:NAMED_GENES]) + more


def _scores(caption: str, tests: pd.DataFrame, correlates: Correlates) -> Table:
    table, second, last = tests.rename(columns=_of_tests), "superiority", correlates.groups.cat.categories[-1]
    named = " or ".join(sorted({name for name in tests["test"] if name}))
    notes = [f"p by the test of {named}; q is the false discovery rate over the rows."] if named else ["No row could be tested."]
    if table[second].notna().any():
        notes.append(f"Pairs are of one patient of each group; 50% are higher in {last} where there is no difference.")
        table = table.rename(columns={second: f"share of pairs higher in {last}"})
    return Table(caption, table.drop(columns=["test", second], errors="ignore"), " ".join(notes))


def _of_tests(heading: str) -> str:
    """A heading of a table of tests in a reader's words."""
    known = {"p_value": "p", "q_value": "q", "associated": "differs", "odds_ratio": "odds ratio"}
    return known.get(heading, f"median, {heading.removeprefix('median ')}" if heading.startswith("median ") else heading)


def _mutations(mutated: MutatedByGroup, drawn: tuple[Picture, ...]) -> Section:
    frequencies = mutated.frequencies
    parts: list[Part] = [*mutated.mutations.notes, *drawn, _mutated("Mutated genes by group", "gene", frequencies.genes)]
    if len(frequencies.pathways):
        parts.append(_mutated("Pathways with a mutated gene, by group", "pathway", frequencies.pathways))
    return Section("Mutations", tuple(parts))


def _mutated(caption: str, named: str, table: pd.DataFrame) -> Table:
    """Patients who are mutated, with their share in the same cell."""
    groups = [name.removeprefix("mutated ") for name in table.columns if name.startswith("mutated ")]
    columns = {"all": ("mutated", "share")} | {name: (f"mutated {name}", f"share {name}") for name in groups}
    counted = pd.DataFrame(
        {
            heading: [f"{count:.0f} ({share:.0%})" for count, share in table[list(pair)].itertuples(index=False)]
            for heading, pair in columns.items()
        },
        index=table.index,
    )
    tested = table[["odds_ratio", "p_value", "q_value", "associated"]].rename(columns=_of_tests)
    notes = ["Patients with a mutation (% of those sequenced). Fisher's exact test; rows with too few mutated are not tested."]
    if len(groups) == 2:
        notes.append(f"The odds ratio is that of {groups[1]}.")
    else:
        tested = tested.drop(columns="odds ratio")
    return Table(caption, counted.join(tested).rename_axis(named), " ".join(notes))
