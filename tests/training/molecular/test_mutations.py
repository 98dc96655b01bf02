"""Mutations by group: the file as it comes, who was sequenced, Fisher's test of two groups and more, and nothing from noise."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from features.errors import InputError
from training.molecular.mutations import Mutations, fisher_p_values, mutation_frequencies, mutations_of, read_maf

HEADER = "Hugo_Symbol\tEntrez_Gene_Id\tVariant_Classification\tTumor_Sample_Barcode"
VARIANTS = [
    ("TP53", "Missense_Mutation", "TCGA-AB-0001-01A-11D"),
    ("TP53", "Nonsense_Mutation", "TCGA-AB-0001-01A-11D"),
    ("MLL2", "Frame_Shift_Del", "TCGA-AB-0001-01A-11D"),
    ("TP53", "Splice_Site", "TCGA-AB-0002-01A-11D"),
    ("PTEN", "Silent", "TCGA-AB-0003-01A-11D"),
    ("Unknown", "Missense_Mutation", "TCGA-AB-0003-01A-11D"),
    ("TP53", "Missense_Mutation", "TCGA-ZZ-9999-01A-11D"),
]
PATIENTS = ["TCGA-AB-0001", "TCGA-AB-0002", "TCGA-AB-0003", "TCGA-AB-0004"]


def maf(path: Path, variants: list[tuple[str, str, str]] = VARIANTS, header: str = HEADER) -> Path:
    lines = ["#version 2.4", "#filedate 20200101", header, *("\t".join([gene, "0", kind, who]) for gene, kind, who in variants)]
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["variants.maf", "variants.maf.gz"])
def test_variants_are_those_of_the_patients_whose_names_begin_their_barcodes(tmp_path: Path, name: str) -> None:
    found = mutations_of(read_maf(maf(tmp_path / name)), PATIENTS)
    assert found.classes.to_dict("index") == {
        "TCGA-AB-0001": {"TP53": "Several", "KMT2D": "Frame_Shift_Del"},
        "TCGA-AB-0002": {"TP53": "Splice_Site", "KMT2D": ""},
        "TCGA-AB-0003": {"TP53": "", "KMT2D": ""},
    }


def test_it_is_said_who_was_sequenced_and_what_was_left_out(tmp_path: Path) -> None:
    notes = " ".join(mutations_of(read_maf(maf(tmp_path / "v.maf")), PATIENTS).notes)
    assert "3 of 4 patients were sequenced" in notes
    assert "counted: 4 of 6; the others leave the protein as it is, or are of no gene or of no patient" in notes
    assert "none of the patients and were left out: 1" in notes


def test_silent_variants_count_where_that_is_asked_for(tmp_path: Path) -> None:
    assert "PTEN" in mutations_of(read_maf(maf(tmp_path / "v.maf")), PATIENTS, silent=True).classes


def test_the_sequenced_without_a_variant_have_no_mutation(tmp_path: Path) -> None:
    found = mutations_of(read_maf(maf(tmp_path / "v.maf")), PATIENTS, sequenced=PATIENTS)
    assert list(found.classes.index) == PATIENTS
    assert not found.mutated.loc["TCGA-AB-0004"].any()


@pytest.mark.parametrize(
    ("variants", "header", "words"),
    [
        (VARIANTS, HEADER.replace("Hugo_Symbol", "hugo_symbol"), "did you mean 'hugo_symbol'"),
        (VARIANTS, "gene,sample", "Column 'Hugo_Symbol' is not in v.maf"),
        ([("TP53", "missense", "P1")], HEADER, "'missense' is no class of a mutation annotation file"),
        ([("TP53", "Silent", "")], HEADER, "without Tumor_Sample_Barcode"),
        ([], HEADER, "holds no variants"),
    ],
)
def test_a_file_that_is_none_is_refused_in_a_sentence(
    tmp_path: Path, variants: list[tuple[str, str, str]], header: str, words: str
) -> None:
    with pytest.raises(InputError, match=r"^[^\n]+$") as refused:
        read_maf(maf(tmp_path / "v.maf", variants, header))
    assert words in str(refused.value)


def test_a_file_that_is_cut_or_absent_is_refused(tmp_path: Path) -> None:
    whole = maf(tmp_path / "v.maf.gz").read_bytes()
    (tmp_path / "cut.maf.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="check that it is whole"):
        read_maf(tmp_path / "cut.maf.gz")
    with pytest.raises(InputError, match="does not exist"):
        read_maf(tmp_path / "none.maf")


def test_a_file_of_other_patients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No variant is of one of the 2 patients"):
        mutations_of(read_maf(maf(tmp_path / "v.maf")), ["P1", "P2"])


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12)), min_size=2, max_size=2))
def test_two_groups_give_the_p_value_of_scipy(groups: list[tuple[int, int]]) -> None:
    sizes, mutated = [size for size, _ in groups], [min(size, count) for size, count in groups]
    table = [mutated, [size - count for size, count in zip(sizes, mutated, strict=True)]]
    assert fisher_p_values(np.array([mutated]), sizes)[0] == pytest.approx(fisher_exact(table).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("mutated", "sizes", "p_value"),
    [  # R 4.2.2: fisher.test(matrix(c(mutated, not mutated), ncol = 2))$p.value
        ([8, 2, 3], (9, 7, 12), 0.00807140934176875),
        ([30, 12, 9], (50, 37, 47), 0.000134575445065223),
        ([4, 1, 0, 6], (14, 21, 15, 14), 0.00226293343121491),
    ],
)
def test_more_groups_give_the_p_value_of_r(mutated: list[int], sizes: tuple[int, ...], p_value: float) -> None:
    assert fisher_p_values(np.array([mutated]), sizes)[0] == pytest.approx(p_value, rel=1e-10)


def test_many_patients_in_many_groups_are_tested_by_chi_square() -> None:
    """Six groups of a hundred have more tables than can be added up; R 4.2.2: chisq.test(rbind(m, 100 - m))."""
    mutated, sizes = np.array([20, 30, 40, 40, 45, 50]), 100
    classes = pd.DataFrame(
        {"TP53": np.concatenate([np.repeat(["Missense_Mutation", ""], [one, sizes - one]) for one in mutated])}
    )
    row = mutation_frequencies_of(classes, pd.Series(np.repeat(list("abcdef"), sizes))).iloc[0]
    assert row["test"] == "chi-square"
    assert row["p_value"] == pytest.approx(0.0001352640041, rel=1e-9)


def test_genes_are_listed_by_p_value_then_by_how_many_are_mutated() -> None:
    def mutated(*rows: int) -> list[str]:
        return ["Missense_Mutation" if row in rows else "" for row in range(16)]

    genes = {"few": mutated(0, 8, 1, 9), "linked": mutated(*range(7)), "many": mutated(*range(2, 14)), "rare": mutated(3)}
    found = mutation_frequencies_of(pd.DataFrame(genes), pd.Series(["a"] * 8 + ["b"] * 8))
    assert found.index.tolist() == ["linked", "many", "few", "rare"]
    assert found["p_value"].round(4).tolist()[:3] == [0.0014, 1, 1]
    assert found["test"].tolist() == ["Fisher's exact", "Fisher's exact", "Fisher's exact", ""]


def mutation_frequencies_of(classes: pd.DataFrame, groups: pd.Series, fewest: int = 3) -> pd.DataFrame:
    return mutation_frequencies(Mutations(classes), groups, {}, fewest=fewest).genes


def cohort(rng: np.random.Generator, planted: float) -> tuple[pd.DataFrame, pd.Series]:
    """60 genes mutated in one patient of eight, but for one in the second group; 66 patients in three groups."""
    groups = pd.Series(np.arange(66) % 3).map({0: "cluster 1", 1: "cluster 2", 2: "cluster 3"})
    hit = rng.uniform(size=(66, 60)) < 0.125
    hit[groups == "cluster 3", 0] = rng.uniform(size=22) < planted
    return pd.DataFrame(np.where(hit, "Missense_Mutation", ""), columns=[f"G{i}" for i in range(60)]), groups


def test_a_planted_gene_is_found_and_noise_is_not() -> None:
    planted = [cohort(np.random.default_rng(seed), 0.8) for seed in range(20)]
    found = [mutation_frequencies_of(*one).query("associated").index.tolist() for one in planted]
    assert sum(one == ["G0"] for one in found) >= 18
    noise = [mutation_frequencies_of(*cohort(np.random.default_rng(seed), 0.125))["associated"].any() for seed in range(20)]
    assert sum(noise) <= 3


def test_a_pathway_is_hit_if_any_of_its_genes_is() -> None:
    classes = pd.DataFrame({"A": ["x"] * 4 + [""] * 12, "B": [""] * 4 + ["x"] * 4 + [""] * 8})
    groups = pd.Series(["one"] * 8 + ["two"] * 8)
    found = mutation_frequencies(Mutations(classes), groups, {"both": ["A", "B", "A"], "neither": ["C"]}).pathways
    assert found.index.tolist() == ["both"]
    assert found.loc["both", ["mutated one", "mutated two", "share one"]].tolist() == [8, 0, 1.0]
    assert found.loc["both", "p_value"] == pytest.approx(1 / 6435)  # 2 of choose(16, 8) = 12870 tables


def test_genes_mutated_too_rarely_are_listed_and_not_tested() -> None:
    classes = pd.DataFrame({"often": ["x"] * 5 + [""] * 5, "twice": ["x"] * 2 + [""] * 8, "nearly all": ["x"] * 8 + [""] * 2})
    found = mutation_frequencies_of(classes, pd.Series(["a"] * 5 + ["b"] * 5))
    assert found["p_value"].notna().to_dict() == {"often": True, "nearly all": False, "twice": False}
    assert found.loc["often", "q_value"] == found.loc["often", "p_value"]
    assert found.loc["often", "odds_ratio"] == 0


def test_patients_of_no_group_are_left_out() -> None:
    classes = pd.DataFrame({"TP53": ["x"] * 10})
    found = mutation_frequencies_of(classes, pd.Series(["a"] * 4 + ["b"] * 4))
    assert found.loc["TP53", "mutated"] == 8


def test_patients_without_any_counted_variant_are_no_fault(tmp_path: Path) -> None:
    found = mutations_of(read_maf(maf(tmp_path / "v.maf", [("TP53", "Silent", "P1"), ("TP53", "Silent", "P2")])), ["P1", "P2"])
    assert found.classes.shape == (2, 0)
    tables = mutation_frequencies(found, pd.Series(["a", "b"], index=["P1", "P2"]), {"set": ["TP53"]})
    assert tables.genes.empty
    assert tables.pathways.empty
