"""Aliases are moved through the gate, by the real commands, and every decision is in the audit log."""

import shutil
import sqlite3
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from asked import Answer, Hypoxia, ask
from mlflow import MlflowClient
from recorded import recorded_model, table_of

from features import cli
from features.ledger import Ledger
from training.gate_policy import GatePolicy
from training.promotion import promote
from training.tracking import open_store

NAME = "toy-hypoxia"
HELD_OUT = table_of(160, signal=1.2)
WEAK, STRONG, NOISE = ["f0"], ["f0", "f1"], ["f3", "f4"]


@dataclass(frozen=True)
class SmallStore:
    """Version 1 ranks somewhat, 2 ranks well, 3 is noise, 4 is 2 again, 5 was judged on other patients, 6 on few."""

    root: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri, registry_uri=self.uri)

    @property
    def champion(self) -> str | None:
        version = self.client.get_registered_model(NAME).aliases.get("champion")
        return None if version is None else str(version)

    @property
    def lines(self) -> list[dict]:
        return list(Ledger(self.root / "audit.jsonl").lines())

    def folder(self, version: str) -> Path:
        return Path(self.client.get_model_version(NAME, version).source.removeprefix("file://")).parent


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("promotion") / "store"
    for features in (WEAK, STRONG, NOISE, STRONG):
        recorded_model(root, NAME, features, HELD_OUT)
    recorded_model(root, NAME, STRONG, table_of(160, seed=5, signal=1.2))
    recorded_model(root, NAME, STRONG, HELD_OUT.iloc[:18])
    return root


@pytest.fixture
def store(template: Path, tmp_path: Path) -> SmallStore:
    """A store of the test's own; the artifacts, whose addresses are absolute, are moved with it in the database."""
    root = tmp_path / "store"
    shutil.copytree(template, root)
    columns = ("runs.artifact_uri", "experiments.artifact_location", "model_versions.source", "model_versions.storage_location")
    with sqlite3.connect(root / "mlflow.db") as database:
        for table, column in (name.split(".") for name in columns):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(template), str(root)))
    database.close()
    return SmallStore(root)


@pytest.fixture
def hypoxia(store: SmallStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Hypoxia:
    """The console command on the store, with its exit code."""

    def run(*arguments: str) -> Answer:
        return ask(monkeypatch, capsys, *arguments, "--tracking-uri", store.uri)

    return run


def test_a_first_version_that_ranks_becomes_champion_and_the_log_says_by_whom(store: SmallStore, hypoxia: Hypoxia) -> None:
    answer = hypoxia("promote", NAME, "1")
    assert answer.code == 0, answer.err
    assert "is now 'champion'; before it was no version" in answer.out
    assert store.champion == "1"
    (line,) = store.lines
    assert (line["action"], line["version"], line["previous_version"]) == ("promoted", "1", None)
    assert "@" in line["who"]
    assert line["policy"] == GatePolicy().digest
    assert set(line["digests"]) == {"challenger"}
    assert {check["name"] for check in line["checks"]} >= {"integrity", "card", "evidence", "floor", "Brier score"}


def test_a_better_version_takes_the_place_and_its_verdict_is_json(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "1")
    answer = hypoxia("promote", NAME, "2", "--json")
    assert answer.code == 0, answer.err
    assert store.champion == "2"
    assert answer.json["verdict"]["outcome"] == "passed"
    assert answer.json["previous"] == "1"
    assert set(store.lines[-1]["digests"]) == {"challenger", "champion"}


@pytest.mark.parametrize(
    ("version", "check"),
    [("3", "superiority"), ("4", "another model"), ("5", "same patients")],
)
def test_noise_an_identical_model_and_other_patients_are_refused_and_written_down(
    store: SmallStore, hypoxia: Hypoxia, version: str, check: str
) -> None:
    hypoxia("promote", NAME, "2")
    answer = hypoxia("promote", NAME, version, "--json")
    assert answer.code == 3
    assert answer.err.startswith("Refused: toy-hypoxia version")
    assert store.champion == "2"
    failed = [one["name"] for one in answer.json["verdict"]["checks"] if one["outcome"] == "failed"]
    assert check in failed
    assert store.lines[-1]["action"] == "refused"


def test_a_version_judged_on_few_patients_is_insufficient_evidence(store: SmallStore, hypoxia: Hypoxia) -> None:
    answer = hypoxia("promote", NAME, "6")
    assert answer.code == 3
    assert "insufficient evidence" in answer.out
    assert "promoted" not in answer.out
    assert store.champion is None


def test_the_version_in_place_is_said_to_be_there_and_nothing_is_written(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "1")
    answer = hypoxia("promote", NAME, "1")
    assert answer.code == 0
    assert "is 'champion' already" in answer.out
    assert len(store.lines) == 1


def test_an_override_promotes_against_statistics_and_is_recorded_with_its_reason(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "2")
    answer = hypoxia("promote", NAME, "3", "--override", "the tumour board decided on 2026-01-01")
    assert answer.code == 0, answer.err
    assert store.champion == "3"
    assert store.lines[-1]["override"] == "the tumour board decided on 2026-01-01"
    assert store.lines[-1]["outcome"] == "failed"


def test_an_override_is_not_recorded_where_it_was_not_needed(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "1", "--override", "just to be on the safe side")
    assert store.lines[-1]["override"] is None


def test_a_dry_run_says_what_the_override_would_do(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "2")
    answer = hypoxia("promote", NAME, "3", "--override", "the tumour board decided", "--dry-run")
    assert answer.code == 0
    assert "would be promoted, against the gate (superiority: failed" in answer.out
    assert store.champion == "2"


def test_an_override_needs_a_reason_that_says_something(store: SmallStore, hypoxia: Hypoxia) -> None:
    answer = hypoxia("promote", NAME, "1", "--override", "ok")
    assert answer.code == 2
    assert store.lines == []


@pytest.mark.parametrize("harm", ["changed byte", "extra file", "missing bundle", "edited predictions", "no predictions"])
def test_a_version_that_is_not_what_was_signed_is_refused_whatever_the_reason(
    store: SmallStore, hypoxia: Hypoxia, harm: str
) -> None:
    folder = store.folder("2")
    if harm == "changed byte":
        content = bytearray((folder / "bundle" / "pipeline.skops").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "bundle" / "pipeline.skops").write_bytes(content)
    elif harm == "extra file":
        (folder / "bundle" / "extra.pkl").write_bytes(b"\x80\x04.")
    elif harm == "missing bundle":
        shutil.rmtree(folder / "bundle")
    elif harm == "no predictions":
        (folder / "predictions.csv").unlink()
    else:
        table = pd.read_csv(folder / "predictions.csv")
        table.assign(probability=0.1 + 0.8 * table["label"]).to_csv(folder / "predictions.csv", index=False)
    answer = hypoxia("promote", NAME, "2", "--override", "we are in a great hurry today")
    assert answer.code == 3
    assert store.champion is None
    assert store.lines[-1]["action"] == "refused"
    assert "Traceback" not in answer.err


def test_a_champion_that_cannot_be_read_is_in_the_way_until_a_person_decides(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "1")
    (store.folder("1") / "bundle" / "card.json").write_text("{}")
    assert hypoxia("promote", NAME, "2").code == 3
    assert hypoxia("promote", NAME, "2", "--override", "the champion's files are damaged").code == 0
    assert store.champion == "2"


def test_a_dry_run_moves_nothing_and_counts_as_a_look(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "1")
    answer = hypoxia("promote", NAME, "2", "--dry-run")
    assert answer.code == 0
    assert "would be promoted" in answer.out
    assert store.champion == "1"
    assert store.lines[-1]["action"] == "judged"
    assert hypoxia("promote", NAME, "3", "--dry-run").code == 3
    assert store.lines[-1]["look"] == 3


def test_the_same_comparison_again_is_no_new_look_but_another_is(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "1")
    looks = [hypoxia("promote", NAME, version, "--dry-run", "--json").json["verdict"]["look"] for version in ("3", "2", "3", "2")]
    assert looks == [2, 3, 2, 3]
    assert "2 times before" in hypoxia("promote", NAME, "2", "--dry-run").out


def test_a_comparison_that_was_not_made_is_no_look(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "2")
    assert hypoxia("promote", NAME, "4").code == 3  # the same model again
    assert hypoxia("promote", NAME, "3", "--json").json["verdict"]["look"] == 2


def test_studies_that_opened_the_same_held_out_patients_are_counted_and_said(store: SmallStore, hypoxia: Hypoxia) -> None:
    for version, fingerprint in (("1", "a"), ("2", "b"), ("3", "b")):
        run_id = store.client.get_model_version(NAME, version).run_id
        store.client.set_tag(run_id, "hypoxia.data_hash", "1" * 64)
        store.client.set_tag(run_id, "hypoxia.fingerprint", fingerprint)
    answer = hypoxia("promote", NAME, "1", "--json")
    assert answer.json["verdict"]["runs"] == 2
    assert any("2 studies opened" in warning for warning in answer.json["verdict"]["warnings"])


def test_a_look_at_some_patients_is_none_at_others(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "1", "--alias", "one")
    assert hypoxia("promote", NAME, "5", "--alias", "two", "--json").json["verdict"]["look"] == 1


def test_a_policy_file_is_used_and_its_digest_recorded(store: SmallStore, hypoxia: Hypoxia, tmp_path: Path) -> None:
    policy = tmp_path / "strict.yaml"
    policy.write_text("evidence: {patients: 500}\n")
    answer = hypoxia("promote", NAME, "1", "--policy", str(policy))
    assert answer.code == 3
    assert "500 patients" in answer.out
    assert store.lines[-1]["policy"] == GatePolicy.model_validate({"evidence": {"patients": 500}}).digest


def test_rolling_back_goes_to_the_holder_before_and_then_to_the_one_before_that(store: SmallStore, hypoxia: Hypoxia) -> None:
    for version in ("1", "2", "3"):
        hypoxia("promote", NAME, version, "--override", "to have some history to go back in")
    answer = hypoxia("rollback", NAME)
    assert answer.code == 0, answer.err
    assert "went back from version 3 to version 2" in answer.out
    assert hypoxia("rollback", NAME, "--json").json == {"model": NAME, "alias": "champion", "version": "1", "previous": "2"}
    assert store.champion == "1"
    last = hypoxia("rollback", NAME)
    assert last.code == 2
    assert "No version is known that was 'champion'" in last.err
    assert [line["action"] for line in store.lines] == ["promoted"] * 3 + ["rolled back"] * 2


def test_after_a_rollback_a_promotion_and_a_rollback_come_back_to_the_same(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "1")
    hypoxia("promote", NAME, "2")
    hypoxia("rollback", NAME)
    assert hypoxia("promote", NAME, "2").code == 0
    hypoxia("rollback", NAME)
    assert store.champion == "1"


def test_rolling_back_finds_its_way_where_the_alias_was_moved_by_other_means(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "1")
    store.client.set_registered_model_alias(NAME, "champion", "4")
    assert hypoxia("rollback", NAME).code == 0
    assert store.champion == "1"


def test_rolling_back_without_the_log_goes_by_the_registry(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "1")
    hypoxia("promote", NAME, "2")
    (store.root / "audit.jsonl").unlink()
    assert hypoxia("rollback", NAME).code == 0
    assert store.champion == "1"


def test_rolling_back_to_a_bundle_that_was_changed_is_refused_and_written_down(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "1")
    hypoxia("promote", NAME, "2")
    (store.folder("1") / "bundle" / "golden.json").write_text("{}")
    answer = hypoxia("rollback", NAME)
    assert answer.code == 3
    assert "stays with version 2" in answer.err
    assert store.champion == "2"
    assert store.lines[-1]["action"] == "rollback refused"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("promote", "toy-hypoxa", "1"), "did you mean 'toy-hypoxia'"),
        (("promote", NAME, "77"), "has no version 77"),
        (("promote", NAME, "one"), "names no model"),
        (("promote", NAME, "1", "--alias", "latest"), "cannot be an alias"),
        (("promote", NAME, "1", "--policy", "absent.yaml"), "absent.yaml does not exist"),
        (("rollback", NAME), "nothing to go back from"),
        (("rollback", "nothing"), "There is no model 'nothing'"),
        (("rollback", f"{NAME}:2"), "is no model's name"),
    ],
)
def test_a_mistake_is_one_sentence(hypoxia: Hypoxia, arguments: tuple[str, ...], said: str) -> None:
    answer = hypoxia(*arguments)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hypoxia", "promote", NAME, "1", "--tracking-uri", f"sqlite:///{tmp_path}/none/mlflow.db"])
    with pytest.raises(SystemExit) as ending:
        cli.main()
    assert ending.value.code == 2
    assert not (tmp_path / "none").exists()


def test_the_log_is_listed_and_a_changed_line_is_found(store: SmallStore, hypoxia: Hypoxia) -> None:
    assert "has no line yet" in hypoxia("audit").out
    hypoxia("promote", NAME, "1")
    hypoxia("promote", NAME, "3")
    listed = hypoxia("audit")
    assert listed.code == 0
    assert "promoted" in listed.out
    assert "superiority" in listed.out
    assert hypoxia("audit", "--json").json["lines"][1]["action"] == "refused"
    assert hypoxia("audit", "--verify", "--json").json == {"path": str(store.root / "audit.jsonl"), "verified_lines": 2}
    log = store.root / "audit.jsonl"
    log.write_text(log.read_text().replace('"promoted"', '"refused"', 1))
    assert hypoxia("audit").code == 3
    refused = hypoxia("promote", NAME, "2")
    assert refused.code == 3
    assert "the log was changed" in refused.err
    assert store.champion == "1"


@pytest.mark.parametrize("kept", [0, 1])
def test_the_audit_finds_that_the_last_lines_are_missing(store: SmallStore, hypoxia: Hypoxia, kept: int) -> None:
    hypoxia("promote", NAME, "1")
    hypoxia("promote", NAME, "3")
    log = store.root / "audit.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:kept]))
    answer = hypoxia("audit")
    assert answer.code == 3
    assert "lacks the last line that was written about" in answer.err


def test_a_log_whose_end_was_cut_off_is_warned_of(store: SmallStore, hypoxia: Hypoxia) -> None:
    hypoxia("promote", NAME, "1")
    assert "may have been looked at more often" not in hypoxia("promote", NAME, "3").out
    log = store.root / "audit.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    assert Ledger(log).verify() == 1
    assert any("looked at more often" in one for one in hypoxia("promote", NAME, "3", "--json").json["verdict"]["warnings"])


def test_another_policy_is_another_look(store: SmallStore, hypoxia: Hypoxia, tmp_path: Path) -> None:
    policy = tmp_path / "other.yaml"
    policy.write_text("floor: 0.55\n")
    assert hypoxia("promote", NAME, "1", "--dry-run", "--json").json["verdict"]["look"] == 1
    assert hypoxia("promote", NAME, "1", "--dry-run", "--json", "--policy", str(policy)).json["verdict"]["look"] == 2


def test_no_patient_is_named_in_the_log_or_on_the_screen(store: SmallStore, hypoxia: Hypoxia) -> None:
    said = [hypoxia("promote", NAME, version) for version in ("1", "2", "3", "5")]
    text = (store.root / "audit.jsonl").read_text() + "".join(one.out + one.err for one in said)
    names = {*HELD_OUT["sample"], *HELD_OUT["patient"]}
    assert [name for name in names if name in text] == []


def test_promotions_at_the_same_time_do_not_interleave(store: SmallStore) -> None:
    threads = [
        threading.Thread(
            target=lambda version=version: promote(
                open_store(store.uri), NAME, version, GatePolicy(), override="several people at the same time"
            )
        )
        for version in ("1", "2", "3")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = store.lines
    assert Ledger(store.root / "audit.jsonl").verify() == 3
    assert [line["previous_version"] for line in lines] == [None, *(line["version"] for line in lines[:-1])]
    assert store.champion == lines[-1]["version"]


def test_a_log_that_cannot_be_written_keeps_the_alias_where_it_is(
    store: SmallStore, hypoxia: Hypoxia, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Ledger, "append", full)
    answer = hypoxia("promote", NAME, "1")
    assert answer.code == 2
    assert "nothing was changed" in answer.err
    assert store.champion is None
