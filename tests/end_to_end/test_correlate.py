"""`hypoxia correlate`: from files with a planted truth to a folder of tables, pictures and one page, and its refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from asked import Answer, ask
from molecules_made import LINKED, SYMBOLS, write_molecules
from profiles_made import grouped, profile_study

Hypoxia = Callable[..., Answer]


@pytest.fixture
def hypoxia(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hypoxia:
    return lambda *arguments: ask(monkeypatch, capsys, *map(str, arguments))


def test_the_command_finds_what_is_planted_and_writes_it(tmp_path: Path, hypoxia: Hypoxia) -> None:
    study, out = write_molecules(tmp_path), tmp_path / "found"
    answer = hypoxia("correlate", study, "--out", out, "--json")
    assert answer.code == 0, answer.err
    (contrast,) = answer.json["contrasts"]
    assert set(contrast["genes_called"]) == set(LINKED)
    assert contrast["gene_sets_enriched"] == ["LINKED"]
    assert answer.json["associated"]["mutated_genes"] == [SYMBOLS[0]]
    assert answer.json["associated"]["protein_tests"] == ["HIF1A"]
    assert "10 of 300 genes differ" in answer.err
    assert json.loads((out / "summary.json").read_text())["contrasts"] == answer.json["contrasts"]
    assert set(pd.read_csv(out / "genes_severe_against_mild.csv", index_col="gene").query("called").index) == set(LINKED)
    assert (out / "figures" / "volcano_severe_against_mild.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "LINKED" in page
    assert "TCGA-AB" not in page
    assert not re.search(r"(src|href)=\"https?:", page)

    again = hypoxia("correlate", study, "--out", out)
    assert again.code == 2
    assert "is there already; name another folder with --out, or replace it with --force" in again.err
    proteins_alone = write_molecules(tmp_path, expression=None, gene_sets=None, mutations=None)
    assert hypoxia("correlate", proteins_alone, "--out", out, "--force").code == 0
    assert sorted(path.name for path in out.glob("*.csv")) == ["patients.csv", "protein_levels.csv", "protein_tests.csv"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_folder_of_other_files_is_never_replaced_nor_said_to_be(force: tuple[str], tmp_path: Path, hypoxia: Hypoxia) -> None:
    study, out = write_molecules(tmp_path), tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.txt").write_text("years of work")
    answer = hypoxia("correlate", study, "--out", out, *force)
    assert answer.code == 2
    assert answer.err.strip() == f"Error: {out} holds other files than a report of correlates; name another folder with --out."
    assert (out / "chapter.txt").exists()


def test_patients_and_samples_that_are_left_out_are_counted(tmp_path: Path, hypoxia: Hypoxia) -> None:
    study = write_molecules(tmp_path, expression=None, gene_sets=None, mutations=None)
    groups = pd.read_csv(tmp_path / "groups.csv")
    groups.loc[:4, "class"] = None
    groups.loc[5:6, "class"] = ["Severe", "Mild "]
    groups.replace({"class": {"Severe": "severe"}}).to_csv(tmp_path / "groups.csv", index=False)
    answer = hypoxia("correlate", write_combined(study, [["mild", "Mild"], ["severe"]]), "--out", tmp_path / "found", "--json")
    assert answer.code == 0, answer.err
    assert "Note: 5 patients left out: no value in 'class'." in answer.err
    assert "Warning: The groups 'Mild' and 'mild' are told apart by case alone" in answer.err
    assert answer.json["patients"] == {"mild and Mild": 17, "severe": 18}
    assert answer.json["notes"][:2] == [
        "5 patients left out: no value in 'class'.",
        "Matched by name: proteins: 35 of 35 patients.",
    ]


def write_combined(study: Path, combine: list[list[str]]) -> Path:
    study.write_text(yaml.safe_dump({**yaml.safe_load(study.read_text()), "combine": combine}))
    return study


def test_each_command_says_for_which_one_a_study_is(tmp_path: Path, hypoxia: Hypoxia) -> None:
    groups, model = write_molecules(tmp_path), profile_study(tmp_path, grouped(30))
    for command in ("train", "check"):
        answer = hypoxia(command, groups, "--tracking-uri", f"sqlite:///{tmp_path}/store/mlflow.db")
        assert answer.code == 2
        assert "is a study of groups of patients, for `hypoxia correlate`" in answer.err
    answer = hypoxia("correlate", model, "--out", tmp_path / "found")
    assert answer.code == 2
    assert "is a study of a model, for `hypoxia train`" in answer.err


def test_check_of_profiles_says_how_many_patients_were_matched_by_name(tmp_path: Path, hypoxia: Hypoxia) -> None:
    table = grouped(60)
    stained = pd.DataFrame({"patient": table["patient"], "HIF1A": np.arange(60) % 4})
    stained.iloc[::2].to_csv(tmp_path / "proteins.csv", index=False)
    answer = hypoxia("check", profile_study(tmp_path, table, molecular={"proteins": "proteins.csv"}), "--json")
    assert answer.code == 0, answer.err
    assert "Matched by name: proteins: 30 of 60 patients" in answer.err
    assert "Only 30 of 60 patients have proteins: they may not be like the others." in answer.json["warnings"]


def test_a_cluster_of_two_is_refused_in_one_sentence_and_nothing_is_written(tmp_path: Path, hypoxia: Hypoxia) -> None:
    study = write_molecules(tmp_path)
    groups = pd.read_csv(tmp_path / "groups.csv")
    groups.assign(**{"class": ["1"] * 20 + ["2"] * 18 + ["3"] * 2}).to_csv(tmp_path / "groups.csv", index=False)
    answer = hypoxia("correlate", study, "--out", tmp_path / "found")
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == (
        "Error: The group 'class 3' has 2 patients with expression, and 4 are the fewest that can be compared; combine groups, "
        "or leave it out."
    )
    assert not (tmp_path / "found").exists()


def test_groups_are_combined_as_the_study_says(tmp_path: Path, hypoxia: Hypoxia) -> None:
    study = write_molecules(tmp_path, expression=None, gene_sets=None, mutations=None)
    groups = pd.read_csv(tmp_path / "groups.csv")
    groups["class"] = groups["class"].map({"severe": 3, "mild": 1}).where(groups.index >= 6, 2)
    groups.to_csv(tmp_path / "groups.csv", index=False)
    content = yaml.safe_load(study.read_text())
    study.write_text(yaml.safe_dump({**content, "combine": [[1, 2], [3]]}))
    answer = hypoxia("correlate", study, "--out", tmp_path / "found", "--json")
    assert answer.json["patients"] == {"class 1 and 2": 23, "class 3": 17}
    assert answer.json["contrasts"] == []


def test_an_unknown_model_and_an_unknown_key_are_one_sentence(tmp_path: Path, hypoxia: Hypoxia) -> None:
    study = write_molecules(tmp_path)
    content = yaml.safe_load(study.read_text())
    study.write_text(yaml.safe_dump({**content, "grouping": {"kind": "model", "model": "none"}}))
    answer = hypoxia("correlate", study, "--out", tmp_path / "found", "--tracking-uri", f"sqlite:///{tmp_path}/none/mlflow.db")
    assert answer.code == 2
    assert "Model 'none' is to be found in" in answer.err
    study.write_text(yaml.safe_dump({**content, "groupings": {}}))
    answer = hypoxia("correlate", study, "--out", tmp_path / "found")
    assert answer.code == 2
    assert (
        "unknown key 'groupings' (did you mean 'grouping'?); remove or correct it. See `hypoxia correlate --help`." in answer.err
    )
