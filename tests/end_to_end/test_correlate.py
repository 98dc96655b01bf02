"""`hypoxia correlate`: from files with a planted truth to a folder of tables, pictures and one page, and its refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from asked import Answer, ask
from molecules_made import LINKED, SYMBOLS, write_molecules

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


def test_a_folder_of_other_files_is_never_replaced(tmp_path: Path, hypoxia: Hypoxia) -> None:
    study, out = write_molecules(tmp_path), tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.txt").write_text("years of work")
    answer = hypoxia("correlate", study, "--out", out, "--force")
    assert answer.code == 2
    assert "holds other files than a report of correlates" in answer.err
    assert (out / "chapter.txt").exists()


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
    assert answer.json["patients"] == {"class 1+2": 23, "class 3": 17}
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
    assert "unknown key 'groupings' (did you mean 'grouping'?)" in answer.err
