"""Molecular correlates in words, tables and pictures: what a run and a page show of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd

from training.html_report import Section
from training.molecular.figures import enrichment_plot, enrichment_summary, oncoplot, sam_plot, scores_by_group, volcano
from training.molecular.run import Correlates, GeneContrast, MutatedByGroup, Scored

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = dict[str, Callable[[], "Figure"]]
# Sets whose running sum is drawn, genes that are listed where none is called, and genes of a leading edge that are named.
DRAWN_SETS, LISTED_GENES, NAMED_GENES = 3, 25, 8


def molecular_figures(correlates: Correlates) -> Drawn:
    """All figures by the name of their file, drawn when called."""
    drawn: Drawn = {}
    for one in correlates.genes:
        drawn |= {f"{name}_{one.slug}": draw for name, (_, draw) in _of_contrast(one, correlates).items()}
    return drawn | {name: draw for name, (_, draw) in _of_groups(correlates).items()}


def molecular_sections(correlates: Correlates) -> list[Section]:
    """Parts of a page: who has which data, then genes by contrast, then scores, mutations and proteins."""
    overview = Section(
        "Molecular correlates",
        (*(f"{words}." for words in correlates.words), *correlates.notes),
        (("Patients by group, and of how many there are data", correlates.patients),),
        (),
        correlates.warnings,
    )
    figures = {name: (caption, draw()) for name, (caption, draw) in _of_groups(correlates).items()}
    sections = [overview, *(_contrast(one, correlates) for one in correlates.genes)]
    for name, title, scored in (
        ("gene_set_scores", "Scores of gene sets in single patients", correlates.single_sample),
        ("microenvironment", "Stromal and immune scores", correlates.microenvironment),
    ):
        sections += [] if scored is None else [Section(title, (), (("By group", scored.tests),), (figures[name],))]
    if correlates.mutated is not None:
        sections.append(_mutations(correlates.mutated, figures["mutations"]))
    if correlates.proteins is not None:
        found = correlates.proteins.differences
        tables = (("Protein scores by group", found.tests), ("Patients of each level", found.levels))
        sections.append(Section("Proteins", (), tables, (figures["proteins"],)))
    return sections


def _of_contrast(one: GeneContrast, correlates: Correlates) -> dict[str, tuple[str, Callable[[], Figure]]]:
    """Caption and picture, by name."""
    name, table, fold_change = one.contrast.name, one.sam.table, correlates.settings.fold_change
    drawn: dict[str, tuple[str, Callable[[], Figure]]] = {
        "volcano": (
            "Genes by how much they differ and by the p value of the moderated t, since SAM's ends at its permutations",
            lambda: volcano(table.assign(p_value=one.moderated.table["p_value"]), fold_change=fold_change, title=name),
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
    for place, named in enumerate(sets.index[:DRAWN_SETS], start=1):
        drawn[f"gene_set_{place}"] = (f"Where the genes of {named} lie", _running(one, str(named)))
    return drawn


def _running(one: GeneContrast, named: str) -> Callable[[], Figure]:
    def draw() -> Figure:
        assert one.enrichment is not None  # noqa: S101 - asked of contrasts with gene sets alone
        found = one.enrichment
        es, nes, of_sets, of_groups = (found.table[name].to_dict()[named] for name in ("es", "nes", "q_value", "group_q_value"))
        q_value = max(of_sets, of_groups)
        running, hits, metric = found.running_sum(named), found.hits(named), found.ranking.to_numpy()
        return enrichment_plot(running, hits, es, nes, q_value, named, metric=metric, group=one.contrast.group)

    return draw


def _of_groups(correlates: Correlates) -> dict[str, tuple[str, Callable[[], Figure]]]:
    groups, drawn = correlates.groups, {}
    scored = {
        "gene_set_scores": (correlates.single_sample, "Scores of gene sets by group, those that differ most surely"),
        "microenvironment": (correlates.microenvironment, "Stromal and immune scores by group"),
    }
    for name, (one, caption) in scored.items():
        if one is not None:
            drawn[name] = (caption, _by_group(one, groups))
    if correlates.mutated is not None:
        classes = correlates.mutated.mutations.classes
        drawn["mutations"] = ("Who is mutated in which gene, by group", lambda: oncoplot(classes, groups))
    if correlates.proteins is not None:
        proteins = correlates.proteins
        drawn["proteins"] = ("Protein scores by group", _by_group(Scored(proteins.scores, proteins.differences.tests), groups))
    return drawn


def _by_group(scored: Scored, groups: pd.Series) -> Callable[[], Figure]:
    return lambda: scores_by_group(scored.scores, groups, scored.tests["q_value"], ylabel="score")


def _contrast(one: GeneContrast, correlates: Correlates) -> Section:
    listed = one.called if len(one.called) else one.sam.table.head(LISTED_GENES)
    what = (
        f"Genes that SAM calls at a false discovery rate of {one.rate}"
        if len(one.called)
        else "No gene is called; the first ones"
    )
    tables = [(what, listed.rename_axis("gene")), ("Moderated t, the first genes", one.moderated.table.head(LISTED_GENES))]
    tables += [("SAM: genes called and false ones, by delta", one.sam.delta_table)]
    paragraphs = [
        f"Differences are those of {one.contrast.group} less {one.contrast.other}, in log2. {one.sam.permutations} permutations "
        f"of the groups; s0 {one.sam.s0:.3g}, pi0 {one.sam.pi0:.2f}."
    ]
    if one.enrichment is not None:
        tables.append(("Gene sets, by normalised enrichment score", _with_short_edges(one.enrichment.table)))
        paragraphs.append(
            "Gene sets are compared with random sets of as many genes (q_value) and with random groups of patients "
            "(group_q_value): genes that vary together stand out among random sets even in noise. Enriched is what stands out in "
            "both; pictures show the larger q."
        )
    drawn = _of_contrast(one, correlates)
    figures = tuple((caption, draw()) for caption, draw in drawn.values())
    return Section(f"Genes: {one.contrast.name}", tuple(paragraphs), tuple(tables), figures, one.sam.notes)


def _with_short_edges(table: pd.DataFrame) -> pd.DataFrame:
    def short(genes: tuple[str, ...]) -> str:
        more = f" and {len(genes) - NAMED_GENES} more" if len(genes) > NAMED_GENES else ""
        return ", ".join(genes[:NAMED_GENES]) + more

    return table.assign(leading_edge=table["leading_edge"].map(short))


def _mutations(mutated: MutatedByGroup, drawn: tuple[str, Figure]) -> Section:
    frequencies = mutated.frequencies
    tables = [("Mutated genes by group (Fisher's exact test)", frequencies.genes)]
    if len(frequencies.pathways):
        tables.append(("Pathways with a mutated gene, by group", frequencies.pathways))
    return Section("Mutations", mutated.mutations.notes, tuple(tables), (drawn,))
