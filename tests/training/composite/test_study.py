"""What the file of a composite study may say, and which patients and biomarkers come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from survival_made import composite_study, two_biomarkers

from features.errors import InputError
from features.signatures import find_signature
from training.composite.biomarkers import MeasuredBiomarkers
from training.composite.stacked_study import stacked_study
from training.composite.study import PUBLISHED_FRACTION, CompositeStudy
from training.composite.train import load_biomarkers
from training.config import Study
from training.studies import json_schema, read_study

SIX = find_signature("fjeldbo2016").genes
NOWHERE = "sqlite:///nowhere/mlflow.db"
COLUMN = {"kind": "column", "column": "gene_score"}


def loaded(folder: Path, table: pd.DataFrame | None = None, **changes: Any) -> CompositeStudy:
    study = read_study(composite_study(folder, two_biomarkers() if table is None else table, **changes))
    assert isinstance(study, CompositeStudy)
    return study


def measured(folder: Path, table: pd.DataFrame | None = None, **changes: Any) -> MeasuredBiomarkers:
    return load_biomarkers(loaded(folder, table, **changes), NOWHERE)


def refusal(folder: Path, table: pd.DataFrame | None = None, **changes: Any) -> str:
    with pytest.raises(InputError) as error:
        measured(folder, table, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def with_six_genes(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    table = two_biomarkers(n, events=25)
    genes = rng.normal(8, 1, size=(n, 6)) + table["gene_score"].to_numpy()[:, None]
    return table.drop(columns=["gene_score", "stage"]).join(pd.DataFrame(genes.round(3), columns=list(SIX)))


def test_a_file_is_a_study_of_its_kind_and_of_one_model_without(tmp_path: Path) -> None:
    study = loaded(tmp_path)
    assert study.names == ("hypoxic_fraction", "gene_score")
    assert study.signs == (1, 1)
    assert study.missing == "refuse"
    single = composite_study(tmp_path, two_biomarkers(), kind=None, imaging=None, genes=None, composite=None, evaluation=None)
    assert isinstance(read_study(single), Study)


def test_an_unknown_kind_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"kind is 'composit'.*did you mean 'composite'"):
        loaded(tmp_path, kind="composit")


def test_the_schema_knows_both_kinds() -> None:
    titles = set(json_schema()["$defs"])
    assert {"Study", "CompositeStudy", "SeparatingLine", "Stacked"} <= titles


def test_the_hypoxic_fraction_has_its_published_cutoff(tmp_path: Path) -> None:
    found = measured(tmp_path)
    assert found.cutoff(0) == PUBLISHED_FRACTION == 0.27
    assert found.cutoff(1) is None
    assert measured(tmp_path, genes={**COLUMN, "cutoff": 0}).cutoff(1) == 0


def test_which_end_is_hypoxic_is_said_and_not_chosen(tmp_path: Path) -> None:
    assert loaded(tmp_path, genes={**COLUMN, "hypoxic": "lower"}).signs == (1, -1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"imaging": COLUMN}, "imaging and genes are both 'gene_score'"),
        ({"imaging": {"kind": "vector", "columns": ["a"]}}, "kind vector need composite.kind: stacked"),
        (
            {"composite": {"kind": "stacked"}, "imaging": {"kind": "vector", "columns": ["a"]}},
            "kind vector need composite.kind: stacked, and then both are vectors",
        ),
        (
            {"cohort": {"endpoint": {"kind": "binary", "column": "progressed"}, "drop": ["pfs_months"]}},
            "cohort.endpoint.kind must be survival for composite.kind: separating_line",
        ),
        ({"cohort": {"sequences": {"adc": "adc.csv"}}}, "a composite has one table"),
        ({"scores": {"hypoxia": "hypoxia-class"}}, "a composite takes a registered model's score as imaging or genes"),
        (
            {"composite": {"kind": "stacked", "recipe": {"selection": {"methods": ["chi2"], "votes": 1}}}},
            "composite.recipe.selection.methods: 'chi2' cannot rank features for times to an event",
        ),
        ({"composite": {"kind": "stacked", "recipe": {"threshold": "youden"}}}, "composite.recipe.threshold: 'youden'"),
        (
            {"composite": {"kind": "stacked", "recipe": {"signature": {"signature": "fjeldbo2016"}}}},
            "train the signature as a model",
        ),
        ({"composite": {"kind": "separating_lime"}}, "composite is of unknown kind 'separating_lime'"),
        ({"evaluation": {"permutations": 9}}, "evaluation.permutations"),
        ({"composite": {"kind": "stacked", "recipe": {"search": {"kind": "optuna", "trails": 3}}}}, "did you mean 'trials'"),
        ({"composite": {"kind": "separating_line", "monoton": True}}, "did you mean 'monotone'"),
        ({"genes": {"kind": "signature", "signature": "fjeldbo2016", "methd": "votes"}}, "did you mean 'method'"),
        ({"composit": {}}, "did you mean 'composite'"),
    ],
)
def test_what_does_not_fit_together_is_refused_in_one_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(tmp_path, **changes)


def test_nothing_else_of_the_table_is_looked_at(tmp_path: Path) -> None:
    found = measured(tmp_path, two_biomarkers().assign(remark="text", other=1.0))
    assert list(found.cohort.features.columns) == ["hypoxic_fraction", "gene_score"]
    np.testing.assert_array_equal(found.of_everyone(), two_biomarkers()[["hypoxic_fraction", "gene_score"]])


def test_several_rows_of_a_patient_are_refused(tmp_path: Path) -> None:
    table = two_biomarkers().assign(whose=lambda frame: frame["patient"])
    table.loc[1, ["whose", "pfs_months", "progressed"]] = table.loc[0, ["whose", "pfs_months", "progressed"]]
    assert refusal(tmp_path, table, cohort={"patient": "whose"}).startswith("Patient 'SIM01' has several rows; a composite is of")


def test_a_constant_biomarker_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, two_biomarkers().assign(gene_score=0.5)) == (
        "Biomarker 'gene_score' has one value in all patients; a composite needs two that vary."
    )


def test_an_absent_biomarker_is_named_with_its_side(tmp_path: Path) -> None:
    said = refusal(tmp_path, genes={"kind": "column", "column": "gene_scor"})
    assert "'gene_scor'" in said
    assert "'gene_score'" in said


def test_patients_without_one_biomarker_are_left_out_unless_the_study_scores_them_by_the_other(tmp_path: Path) -> None:
    table = two_biomarkers()
    table.loc[[2, 5], "hypoxic_fraction"] = np.nan
    found = measured(tmp_path, table)
    assert len(found.cohort.samples) == 88
    assert "2 of 90 patients lack one of the biomarkers and were left out." in found.cohort.notes
    kept = measured(tmp_path, table, missing="alone")
    assert len(kept.cohort.samples) == 90
    assert np.isnan(kept.of_everyone()).sum() == 2


def test_a_signature_is_scored_against_the_patients_who_are_learnt_from(tmp_path: Path) -> None:
    study = {"genes": {"kind": "signature", "signature": "fjeldbo2016", "method": "mean_z"}, "cohort": {"drop": ["age"]}}
    found = measured(tmp_path, with_six_genes(), **study)
    train = np.arange(0, 60, 2)
    genes = with_six_genes()[list(SIX)]
    z = (genes - genes.iloc[train].mean()) / genes.iloc[train].std(ddof=0)
    ddof_1 = (genes - genes.iloc[train].mean()) / genes.iloc[train].std(ddof=1)
    column = found.learnt_from(train)[:, 1]
    assert any(np.allclose(column, one.mean(axis=1)) for one in (z, ddof_1))
    assert np.abs(column - found.of_everyone()[:, 1]).max() > 0.01
    np.testing.assert_array_equal(found.learnt_from(train)[:, 0], with_six_genes()["hypoxic_fraction"])


def stacked(folder: Path, table: pd.DataFrame, **changes: Any) -> CompositeStudy:
    return loaded(folder, table, **{"composite": {"kind": "stacked"}, **changes})


def test_a_stacked_study_takes_the_columns_of_both_modalities_and_no_others(tmp_path: Path) -> None:
    table = with_six_genes().assign(t2w_a=np.arange(60.0), t2w_b=np.arange(60.0) ** 2, other=np.arange(60.0) % 7)
    vectors = {"imaging": {"kind": "vector", "columns": ["t2w_*"]}, "genes": {"kind": "vector", "columns": list(SIX)}}
    single, cohort, columns = stacked_study(stacked(tmp_path, table, **vectors), NOWHERE)
    assert columns == {"imaging": ["t2w_a", "t2w_b"], "genes": list(SIX)}
    assert set(cohort.features.columns) == {"t2w_a", "t2w_b", *SIX}
    assert single.cohort.features == ("t2w_*", *SIX)  # what is recorded makes the same model again


def test_stacked_studies_of_other_columns_have_other_fingerprints(tmp_path: Path) -> None:
    table = with_six_genes().assign(t2w_a=np.arange(60.0), t2w_b=np.arange(60.0) ** 2)
    fingerprints = {
        stacked_study(
            stacked(tmp_path, table, imaging={"kind": "column", "column": name}, genes={"kind": "column", "column": SIX[0]}),
            NOWHERE,
        )[0].fingerprint
        for name in ("t2w_a", "t2w_b")
    }
    assert len(fingerprints) == 2


def test_a_column_of_both_modalities_is_refused(tmp_path: Path) -> None:
    vectors = {
        "imaging": {"kind": "vector", "columns": ["hypoxic*", "age"]},
        "genes": {"kind": "vector", "columns": ["age", SIX[0]]},
    }
    with pytest.raises(InputError, match="Column 'age' is of imaging and of genes"):
        stacked_study(stacked(tmp_path, with_six_genes(), **vectors), NOWHERE)


def test_a_stacked_study_takes_a_signature_as_a_model_only(tmp_path: Path) -> None:
    signature = {"kind": "signature", "signature": "fjeldbo2016"}
    with pytest.raises(InputError, match="A stacked composite cannot take the signature 'fjeldbo2016' itself"):
        stacked_study(stacked(tmp_path, with_six_genes(), genes=signature), NOWHERE)
