"""The page of molecular correlates: readers' words, and pictures of what is called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from molecules_made import SYMBOLS, write_molecules

from training.html_report import Picture, Section, Table, html_report
from training.molecular.groups import load_groups
from training.molecular.molecules import load_molecules
from training.molecular.report import molecular_figures, molecular_sections
from training.molecular.run import Correlates, correlate
from training.molecular.study import load_correlates


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Correlates:
    study = load_correlates(write_molecules(tmp_path_factory.mktemp("report")))
    return correlate(study.molecular, load_molecules(study.molecular, study.folder), load_groups(study, "").groups, study.rng)


@pytest.fixture(scope="module")
def sections(found: Correlates) -> dict[str, Section]:
    return {one.title: one for one in molecular_sections(found)}


def tables_of(section: Section) -> list[Table]:
    return [part for part in section.parts if isinstance(part, Table)]


def captions_of(section: Section) -> list[str]:
    return [part.caption for part in section.parts if isinstance(part, Picture)]


def test_headings_are_words_and_every_table_of_numbers_is_explained(sections: dict[str, Section]) -> None:
    tables = [table for section in sections.values() for table in tables_of(section)]
    headings = [str(name) for table in tables for name in table.frame.columns]
    assert not [name for name in headings if "_" in name]
    assert not {"superiority", "associated", "es", "nes", "d", "s"} & set(headings)
    assert all(table.note for table in tables if {"p", "delta"} & set(table.frame.columns))


def test_who_is_mutated_is_counted_with_a_share_in_one_cell(found: Correlates, sections: dict[str, Section]) -> None:
    assert found.mutated is not None
    table, frequencies = tables_of(sections["Mutations"])[0].frame, found.mutated.frequencies.genes
    assert list(table.columns) == ["all", "mild", "severe", "odds ratio", "p", "q", "differs"]
    row = frequencies.loc[SYMBOLS[0]]
    assert table.loc[SYMBOLS[0], "all"] == f"{row['mutated']:.0f} ({row['share']:.0%})"
    assert table.loc[SYMBOLS[0], "differs"]


def test_only_what_is_called_is_drawn(found: Correlates, sections: dict[str, Section]) -> None:
    drawn = molecular_figures(found)
    assert [name for name in drawn if name.startswith("gene_set_")] == ["gene_set_1_severe_against_mild", "gene_set_scores"]
    titles = [axes.get_title().partition("\n")[0] for axes in drawn["gene_set_scores"]().axes if axes.get_visible()]
    assert titles == ["LINKED"]
    assert not any("not significant" in caption for section in sections.values() for caption in captions_of(section))


def test_of_nothing_called_the_strongest_is_drawn_and_said_not_to_be_significant(found: Correlates) -> None:
    single, contrast = found.single_sample, found.genes[0]
    assert single is not None
    assert contrast.enrichment is not None
    enrichment = replace(contrast.enrichment, table=contrast.enrichment.table.assign(group_q_value=1.0))
    none = replace(
        found,
        genes=(replace(contrast, enrichment=enrichment),),
        single_sample=replace(single, tests=single.tests.assign(associated=False)),
    )
    sections = {one.title: one for one in molecular_sections(none)}
    captions = captions_of(sections["Genes: severe against mild"])
    assert [one for one in captions if "not significant" in one] == [
        "Where the genes of LINKED lie: the strongest, and not significant"
    ]
    assert "not significant" in captions_of(sections["Scores of gene sets in single patients"])[0]
    assert len([axes for axes in molecular_figures(none)["gene_set_scores"]().axes if axes.get_visible()]) == 1


def test_scores_that_could_not_be_tested_are_not_drawn(found: Correlates) -> None:
    single = found.single_sample
    assert single is not None
    tests = single.tests.assign(associated=False, p_value=np.nan, test="", superiority=np.nan)
    none = replace(found, single_sample=replace(single, tests=tests))
    assert "gene_set_scores" not in molecular_figures(none)
    section = {one.title: one for one in molecular_sections(none)}["Scores of gene sets in single patients"]
    assert tables_of(section)[0].note == "No row could be tested."


def test_no_q_is_printed_as_zero(found: Correlates) -> None:
    page = html_report("", "", molecular_sections(found))
    assert "&lt; 0.0" in page
    assert not [cell for cell in (">-inf<", ">inf<", ">nan<") if cell in page]


def test_without_logarithms_there_is_no_fold_change(found: Correlates) -> None:
    one = found.genes[0]
    plain = replace(one, units="other", sam=replace(one.sam, table=without(one.sam.table)))
    plain = replace(plain, moderated=replace(one.moderated, table=without(one.moderated.table)))
    section = molecular_sections(replace(found, genes=(plain,)))[1]
    headings = [name for table in tables_of(section) for name in table.frame.columns]
    assert "difference (the table's units)" in headings
    assert "fold change" not in headings


def without(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns="fold_change")
