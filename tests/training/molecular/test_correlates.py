"""Molecular correlates as a whole: whose the samples are, what is found and what is not, and which mistakes are sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from molecules_made import GENES, LINKED, PATIENTS, SYMBOLS, write_molecules
from pydantic import ValidationError

from features.errors import InputError
from training.html_report import html_report
from training.molecular.groups import load_groups
from training.molecular.molecules import by_patient, load_molecules
from training.molecular.report import molecular_figures, molecular_sections
from training.molecular.run import Correlates, correlate, write_correlates
from training.molecular.study import MolecularSettings, load_correlates


def found_in(folder: Path, seed: int = 0, groups: pd.Series | None = None, **changes: Any) -> Correlates:
    study = load_correlates(write_molecules(folder, seed, **changes))
    known = load_groups(study, "").groups if groups is None else groups
    return correlate(study.molecular, load_molecules(study.molecular, study.folder), known, study.rng)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Correlates:
    return found_in(tmp_path_factory.mktemp("correlates"))


def test_what_is_planted_is_found_and_nothing_else(found: Correlates) -> None:
    (contrast,) = found.genes
    assert contrast.contrast.name == "severe against mild"
    assert set(contrast.called.index) == set(LINKED)
    assert (contrast.called["difference"] > 1.5).all()
    assert contrast.enriched is not None
    assert contrast.enriched.index.tolist() == ["LINKED"]
    assert found.as_json()["associated"] == {
        "gene_set_scores_tests": ["LINKED"],
        "mutated_genes": [SYMBOLS[0]],
        "mutated_pathways": [],
        "protein_tests": ["HIF1A"],
    }


@pytest.mark.parametrize("seeds", [range(1, 5), pytest.param(range(1, 21), marks=pytest.mark.slow)])
def test_what_is_planted_is_found_and_nothing_else_in_nine_seeds_of_ten(seeds: range, tmp_path: Path) -> None:
    whole, clean = [], []
    for seed in seeds:
        contrast = found_in(tmp_path, seed).genes[0]
        assert contrast.enriched is not None
        genes, sets = set(contrast.called.index), set(contrast.enriched.index)
        whole.append(genes >= set(LINKED) and sets >= {"LINKED"})
        clean.append(genes <= set(LINKED) and sets <= {"LINKED"})
    assert min(sum(whole), sum(clean)) >= 0.9 * len(seeds) - 1e-9


def test_the_expression_of_a_patient_is_the_mean_of_the_tumours_samples(tmp_path: Path) -> None:
    study = load_correlates(write_molecules(tmp_path))
    patients = [f"TCGA-AB-{number:04d}" for number in range(PATIENTS)]
    known = by_patient(study.molecular, load_molecules(study.molecular, study.folder), patients)
    assert known.expression is not None
    assert known.expression.shape == (PATIENTS, GENES)
    assert list(known.expression.index) == patients
    written = pd.read_csv(tmp_path / "expression.csv", index_col="sample")
    np.testing.assert_allclose(known.expression.loc[patients[0]], written.loc[f"{patients[0]}-01A"] + 0.5)
    assert "Samples of normal tissue, by their barcodes, that were left out: 1." in known.notes


def test_patients_of_several_groups_are_compared_with_the_rest_at_a_shared_rate(tmp_path: Path) -> None:
    patients = [f"TCGA-AB-{number:04d}" for number in range(PATIENTS)]
    groups = pd.Series(np.arange(PATIENTS) % 4, index=patients).map(
        {0: "cluster 1", 1: "cluster 3", 2: "cluster 2", 3: "cluster 3"}
    )
    one = found_in(tmp_path, groups=groups, proteins=None)
    assert [contrast.contrast.name for contrast in one.genes] == [f"cluster {number} against the rest" for number in (1, 2, 3)]
    assert [contrast.false_discovery for contrast in one.genes] == pytest.approx([0.05 / 3] * 3)
    assert set(one.genes[2].called.index) == set(LINKED)
    assert one.patients["expression"].to_dict() == {"cluster 1": 10, "cluster 2": 10, "cluster 3": 20}
    assert one.proteins is None


def test_the_same_seed_gives_the_same_tables(found: Correlates, tmp_path: Path) -> None:
    again = found_in(tmp_path)
    for name, table in found.tables().items():
        pd.testing.assert_frame_equal(table, again.tables()[name])


def test_every_table_and_picture_is_written(found: Correlates, tmp_path: Path) -> None:
    write_correlates(found, tmp_path / "molecular")
    names = {path.stem for path in (tmp_path / "molecular").glob("*.csv")}
    assert names == set(found.tables())
    assert {"genes_severe_against_mild", "gene_sets_severe_against_mild", "mutated_genes", "protein_levels"} <= names
    genes = pd.read_csv(tmp_path / "molecular" / "genes_severe_against_mild.csv", index_col="gene")
    assert set(genes.index[genes["called"]]) == set(LINKED)
    drawn = molecular_figures(found)
    assert {"volcano_severe_against_mild", "sam_severe_against_mild", "mutations", "proteins", "gene_set_scores"} <= set(drawn)


def test_the_page_has_every_part_and_names_no_patient(found: Correlates) -> None:
    page = html_report("what lies behind", "", molecular_sections(found))
    assert all(words in page for words in ("Genes: severe against mild", "Mutations", "Proteins", "LINKED"))
    assert "TCGA-AB" not in page


def test_gene_sets_can_be_scored_by_ranks_within_the_patient(tmp_path: Path) -> None:
    one = found_in(tmp_path, set_scores="ssgsea", mutations=None, proteins=None)
    assert one.single_sample is not None
    assert one.single_sample.tests.loc["LINKED", "associated"]
    assert one.single_sample.scores.abs().max().max() > 5  # ranks, not z scores


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": (
        {"expression": None, "mutations": None, "proteins": None, "gene_sets": None},
        "name expression, mutations or proteins",
    ),
    "sets of nothing": ({"expression": None, "mutations": None}, "gene_sets need expression or mutations"),
    "sequenced of nothing": ({"mutations": None, "sequenced": "groups.csv"}, "sequenced goes with mutations"),
    "scores of nothing": ({"expression": None, "microenvironment": True}, "microenvironment: true needs expression"),
    "units of nothing": ({"expression": None, "gene_sets": None, "units": "log2"}, "units are those of expression"),
    "a fold change of other units": ({"units": "other", "fold_change": 2}, "fold_change goes with units: log2"),
    "sizes": ({"smallest_set": 600}, "smallest_set (600) is above largest_set (500)"),
    "few permutations": ({"permutations": 10}, "permutations"),
    "misspelt": ({"mutation": "variants.maf"}, "did you mean 'mutations'"),
    "no file": ({"mutations": "none.maf"}, "none.maf does not exist"),
    "no sets": ({"gene_sets": ["none.gmt"]}, "none.gmt"),
    "no such column": ({"patient": "ID"}, "Column 'ID'"),
    "large sets": ({"smallest_set": 100}, "None of the 11 gene sets has 100 to 500 genes"),
    "no stroma": ({"microenvironment": True}, "fewer than half of the stromal"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence(mistake: str, tmp_path: Path) -> None:
    changes, words = MISTAKES[mistake]
    with pytest.raises(InputError, match=r"^[^\n]+$") as refused:
        found_in(tmp_path, **changes)
    assert words in str(refused.value)


def test_a_group_of_three_is_refused(tmp_path: Path) -> None:
    groups = pd.Series(["a"] * 37 + ["b"] * 3, index=[f"TCGA-AB-{number:04d}" for number in range(PATIENTS)])
    with pytest.raises(InputError, match="The group 'b' has 3 patients with expression, and 4 are the fewest"):
        found_in(tmp_path, groups=groups)


def test_patients_of_another_cohort_are_refused(tmp_path: Path) -> None:
    groups = pd.Series(["a", "b"] * 10, index=[f"P{number}" for number in range(20)])
    with pytest.raises(InputError, match="None of the 41 samples of the expression is of one of the 20 patients"):
        found_in(tmp_path, groups=groups)
    with pytest.raises(InputError, match="None of the 40 samples of the proteins"):
        found_in(tmp_path, groups=groups, expression=None, mutations=None, gene_sets=None)


def test_data_of_few_of_the_patients_is_warned_of(tmp_path: Path) -> None:
    groups = pd.Series(["a", "b"] * 30, index=[f"TCGA-AB-{number:04d}" for number in range(60)])
    one = found_in(tmp_path, groups=groups, expression=None, mutations=None, gene_sets=None)
    assert one.warnings == ("Only 40 of 60 patients have proteins: they may not be like the others.",)


def test_those_who_were_sequenced_are_named_by_a_table(tmp_path: Path) -> None:
    one = found_in(tmp_path, expression=None, gene_sets=None, proteins=None, sequenced="groups.csv")
    assert one.patients["mutations"].sum() == PATIENTS
    assert any("40 of 40 patients were sequenced." in note for note in one.notes)


def as_z_scores(folder: Path) -> None:
    """Turn the table of expression into z scores."""
    values = pd.read_csv(folder / "expression.csv", index_col="sample")
    ((values - values.mean()) / values.std()).to_csv(folder / "expression.csv")


def test_z_scores_differ_in_their_own_units_and_have_no_fold_change(tmp_path: Path) -> None:
    study = load_correlates(write_molecules(tmp_path, mutations=None, proteins=None))
    as_z_scores(tmp_path)
    molecules = load_molecules(study.molecular, study.folder)
    one = correlate(study.molecular, molecules, load_groups(study, "").groups, study.rng)
    (contrast,) = one.genes
    assert contrast.measured_in == "the table's units"
    assert set(contrast.called.index) == set(LINKED)
    assert one.tables()["genes_severe_against_mild"]["fold_change"].isna().all()
    assert one.tables()["moderated_t_severe_against_mild"]["fold_change"].isna().all()
    assert one.as_json()["contrasts"][0]["units"] == "other"
    assert any(note.startswith("Differences are in the table's units and no fold changes are given") for note in one.notes)


def test_a_fold_change_of_z_scores_is_refused_unless_they_are_said_to_be_log_ratios(tmp_path: Path) -> None:
    study = load_correlates(write_molecules(tmp_path, fold_change=1.5))
    as_z_scores(tmp_path)
    with pytest.raises(InputError, match=r"fold_change is 1.5, but the expression looks like z scores .*; take fold_change out"):
        load_molecules(study.molecular, study.folder)
    told = study.molecular.model_copy(update={"units": "log2"})
    assert load_molecules(told, study.folder).units == "log2"


def test_fold_changes_are_those_of_logarithms(found: Correlates) -> None:
    (contrast,) = found.genes
    assert contrast.measured_in == "log2"
    np.testing.assert_allclose(contrast.sam.table["fold_change"], 2 ** contrast.sam.table["difference"])


def test_words_say_in_which_group_it_is_higher(found: Correlates) -> None:
    words = " ".join(found.words)
    assert "10 of 300 genes differ, 10 higher in severe and 0 lower; with 95% certainty at most 5% of them falsely" in words
    assert "first: LINKED (higher in severe, NES " in words
    assert f"first: {SYMBOLS[0]} (more often in severe)" in words
    assert "first: HIF1A (higher in severe)" in words


def test_what_is_known_of_how_many_is_said(found: Correlates) -> None:
    assert "Matched by name: expression: 40 of 40 patients; mutations: 40 of 40 patients; proteins: 40 of 40 patients." in (
        found.notes
    )
    assert "Gene sets tested in the expression: 11 of 11." in found.notes


def test_settings_alone_say_what_is_missing() -> None:
    with pytest.raises(ValidationError, match="there is nothing else to compare groups by"):
        MolecularSettings()
