import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy.special import logit

from features.errors import InputError
from features.partial_likelihood import PartialLikelihood
from training.cli_simulate import simulate
from training.simulate import LOGIT_MEDIAN, LOGIT_SD, STAGES, SimulationSettings, simulate_cohort


def drawn(seed: int = 0, **settings: float):
    return simulate_cohort(SimulationSettings(**settings), np.random.default_rng(seed))


def test_effects_correlation_and_events_come_out_as_they_were_put_in() -> None:
    cohort = drawn(n=20_000, events=7000, correlation=0.5, imaging_effect=2.0, gene_effect=0.8)
    table = cohort.table
    imaging = (logit(table["hypoxic_fraction"].clip(1e-4, 1 - 1e-4)) - LOGIT_MEDIAN) / LOGIT_SD
    stage = table["stage"].map({name: step for step, name in enumerate(STAGES)})
    X = np.column_stack([imaging, table["gene_score"], stage, (table["age"] - 52) / 13])
    found = np.exp(PartialLikelihood(X, table["pfs_months"].to_numpy(), table["progressed"].to_numpy() == 1).maximum())
    np.testing.assert_allclose(found, [2.0, 0.8, 1.3, 1.0], rtol=0.06)  # about four standard errors
    assert np.corrcoef(imaging, table["gene_score"])[0, 1] == pytest.approx(0.5, abs=0.025)
    assert cohort.truth.observed_events == pytest.approx(7000, rel=0.03)
    assert cohort.truth.expected_events == pytest.approx(7000, rel=1e-9)


def test_a_seed_draws_the_patients_that_it_always_drew() -> None:
    lines = drawn(seed=7).table.to_csv(index=False).splitlines()
    assert lines[1] == "SIM001,0.198,0.9277,III,41,26.92,1"
    assert lines[-1] == "SIM118,0.0947,-1.586,III,42,60.0,0"


def test_the_composite_effect_is_that_of_the_best_mixture() -> None:
    truth = drawn(n=100, correlation=0.3, imaging_effect=1.5, gene_effect=2.0).truth
    rng = np.random.default_rng(0)
    imaging, own = rng.normal(size=(2, 1_000_000))
    genes = 0.3 * imaging + np.sqrt(1 - 0.3**2) * own
    assert truth.composite_effect == pytest.approx(np.exp(np.std(imaging * np.log(1.5) + genes * np.log(2.0))), rel=5e-3)
    assert drawn(imaging_effect=1, gene_effect=1).truth.composite_effect == 1


def test_values_are_in_their_ranges_and_follow_up_ends_at_the_horizon() -> None:
    table = drawn(n=2000, events=600, horizon=36).table
    assert table["patient"].is_unique
    assert table["hypoxic_fraction"].between(0, 1).all()
    assert table["pfs_months"].between(0.01, 36).all()
    assert (table.loc[table["pfs_months"] == 36, "progressed"] == 0).all()
    assert (table["pfs_months"] == 36).mean() > 0.2  # seen to the end
    assert set(table["stage"]) == set(STAGES)
    assert table["hypoxic_fraction"].median() == pytest.approx(0.2, abs=0.02)


def test_more_events_than_patients_can_have_are_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="100 events cannot be expected among 100 patients"):
        drawn(n=100, events=100)


def run(folder: Path, *options: str):
    return CliRunner().invoke(simulate, ["--out", str(folder / "made.csv"), *options])


def test_the_command_writes_the_table_with_its_truth_beside_it_and_repeats_itself(tmp_path: Path) -> None:
    first = run(tmp_path, "--n", "50", "--events", "20", "--seed", "3", "--json")
    assert first.exit_code == 0
    told = json.loads(first.stdout)
    truth = json.loads((tmp_path / "made.truth.json").read_text())
    assert told["truth"] == truth
    assert (truth["seed"], truth["settings"]["n"], truth["settings"]["events"]) == (3, 50, 20)
    table = pd.read_csv(tmp_path / "made.csv")
    assert len(table) == 50
    assert table["progressed"].sum() == truth["observed_events"]
    before = (tmp_path / "made.csv").read_bytes()
    assert run(tmp_path, "--n", "50", "--events", "20", "--seed", "3", "--force").exit_code == 0
    assert (tmp_path / "made.csv").read_bytes() == before
    assert run(tmp_path, "--n", "50", "--events", "20", "--seed", "4", "--force").exit_code == 0
    assert (tmp_path / "made.csv").read_bytes() != before


def test_the_command_replaces_nothing_unless_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "made.truth.json").write_text("mine")
    refused = run(tmp_path)
    assert isinstance(refused.exception, InputError)
    assert "--force" in str(refused.exception)
    assert (tmp_path / "made.truth.json").read_text() == "mine"
    assert not (tmp_path / "made.csv").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--correlation", "2"], "--correlation 2 should be less than 1."),
        (["--imaging-effect", "0"], "--imaging-effect 0 should be greater than 0."),
        (["--n", "5"], "--n 5 should be greater than or equal to 20."),
        (["--events", "nan"], "--events nan should be"),
        (["--events", "118"], "118 events cannot be expected"),
        (["--out", "made.xlsx"], "made.xlsx is no CSV"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_one_sentence(tmp_path: Path, options: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        CliRunner().invoke(simulate, ["--out", str(tmp_path / "a.csv"), *options], catch_exceptions=False)


def test_help_says_how_to_ask_for_nothing_to_find() -> None:
    text = CliRunner().invoke(simulate, ["--help"]).stdout
    assert "--imaging-effect 1 --gene-effect 1" in text
    assert "Hazard ratio per standard deviation" in " ".join(text.split())
