"""Moving an alias from one version to another, with a gate before it and a line in the audit log behind it."""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from filelock import FileLock

from features.bundle import bundle_digest, load_bundle
from features.errors import BundleError, InputError
from features.ledger import Ledger, LedgerError
from features.store import state_folder
from training.gate import Check, GateError, Looks, Verdict, check_predictions, held_out_digest, judge
from training.gate_policy import GatePolicy
from training.judged import JudgedModel, find_model, load_judged
from training.tracking import TAG, Store, artifacts_of, store_lock

LEDGER = "audit.jsonl"
LAST_LINE = f"{TAG}audit"
ALIAS = re.compile(r"[A-Za-z][\w-]{0,254}")
NO_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)  # MLflow keeps these for itself
MOST_RUNS = 1000
LONGEST_REASON = 500
JUDGED = ("promoted", "refused", "judged")
Action = Literal["promoted", "refused", "judged", "unchanged"]


@dataclass(frozen=True)
class Promotion:
    """What came of the wish to promote a version.

    Attributes
    ----------
    action : {"promoted", "refused", "judged", "unchanged"}
        "judged": nothing was to be changed (a dry run); "unchanged": the version holds the alias already.
    verdict : Verdict or None
        None where there was nothing to judge.
    override : str or None
        Why it was promoted, or in a dry run would be, against the verdict.
    """

    action: Action
    model: str
    version: str
    alias: str
    previous: str | None
    verdict: Verdict | None = None
    override: str | None = None

    @property
    def sentence(self) -> str:
        """What came of it, in words."""
        title, holder = f"{self.model} version {self.version}", f"version {self.previous}" if self.previous else "no version"
        if self.action == "unchanged":
            return f"{title} is {self.alias!r} already; nothing was judged and nothing was changed."
        why = "" if self.verdict is None else f" ({', '.join(f'{one.name}: {one.outcome}' for one in self.verdict.in_the_way)})"
        if self.action == "promoted":
            against = f", against the gate{why}, because: {self.override}" if self.override else ""
            return f"{title} is now {self.alias!r}; before it was {holder}{against}."
        if self.action == "judged":
            stands = bool(self.verdict and self.verdict.in_the_way)
            against = f", against the gate{why}, because: {self.override}" if self.override else ""
            would = f"would be refused{why}" if stands and not self.override else f"would be promoted{against}"
            return f"Dry run: {title} {would}; {self.alias!r} stays with {holder}."
        return f"{title} was not promoted{why}; {self.alias!r} stays with {holder}."


@dataclass(frozen=True)
class Rollback:
    """An alias that was given back."""

    model: str
    alias: str
    version: str
    previous: str

    @property
    def sentence(self) -> str:
        """What was done, in words."""
        return (
            f"{self.model}: {self.alias!r} went back from version {self.previous} to version {self.version}, "
            "whose bundle was verified first."
        )


def promote(
    store: Store,
    model: str,
    version: str,
    policy: GatePolicy,
    *,
    alias: str = "champion",
    override: str | None = None,
    dry_run: bool = False,
) -> Promotion:
    """Give a version an alias, if it passes the gate; what was decided is in the audit log before anything is changed.

    Parameters
    ----------
    override : str, optional
        Why to promote although statistical checks stand in the way. What concerns integrity cannot be overridden.
    dry_run : bool
        Judge only. It is written down all the same, since it is a look at the held-out patients.

    Raises
    ------
    InputError
        There is no such model or version, or the alias or the reason cannot be used.
    """
    _refuse_bad_alias(alias)
    reason = _reason(override)
    reference = f"{model}:{version}"
    with suppress(BundleError):  # becomes a check that fails, and a line in the log
        find_model(store, reference)
    with exclusive(store):
        _refuse_changed_log(store)
        previous = holder(store, model, alias)
        if previous == version:
            return Promotion("unchanged", model, version, alias, previous)
        judgement = _judge(store, reference, f"{model}:{previous}" if previous else None, policy, alias)
        verdict = judgement.verdict
        passed = not verdict.in_the_way
        overridden = not passed and reason is not None and verdict.overridable
        action: Action = "judged" if dry_run else "promoted" if passed or overridden else "refused"
        entry = judgement.entry | {"override": reason if overridden else None}
        _write(store, action, model, alias, version, previous, entry)
        if action == "promoted":
            _move(store, action, model, alias, version, previous)
    return Promotion(action, model, version, alias, previous, verdict, reason if overridden else None)


def rollback(store: Store, model: str, alias: str = "champion") -> Rollback:
    """Give an alias back to the version that held it before, after verifying that version's bundle.

    Raises
    ------
    InputError
        The alias has no holder, or none before it is known.
    GateError
        The bundle of the earlier version is not whole.
    """
    _refuse_bad_alias(alias)
    if find_model(store, model).name != model:
        raise InputError(f"{model!r} is no model's name; give the name alone, as `hypoxia models` lists it.")
    with exclusive(store):
        current = holder(store, model, alias)
        if current is None:
            raise InputError(
                f"No version of {model!r} is {alias!r}, so there is nothing to go back from; `hypoxia models` lists them."
            )
        target = _before(earlier_holders(store, model, alias), current)
        if target is None:
            raise InputError(
                f"No version is known that was {alias!r} of {model!r} before version {current}; "
                f"name one yourself: hypoxia promote {model} VERSION --alias {alias}."
            )
        integrity, found = _opened(store, f"{model}:{target}")
        entry = {"checks": [_shortly(integrity)], "digests": {"bundle": bundle_digest(found.bundle_folder)} if found else {}}
        if found is None:
            _write(store, "rollback refused", model, alias, target, current, entry)
            raise GateError(f"{model}: {alias!r} stays with version {current}. {integrity.sentence}")
        _write(store, "rolled back", model, alias, target, current, entry)
        _move(store, "rolled back", model, alias, target, current)
    return Rollback(model, alias, target, current)


def ledger_of(store_uri: str) -> Ledger:
    """The audit log that belongs to a store."""
    return Ledger(state_folder(store_uri) / LEDGER)


@contextmanager
def exclusive(store: Store) -> Iterator[None]:
    """Held from the first look at an alias until it is moved, so that two promotions on this machine do not interleave."""
    folder = state_folder(store.uri)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = FileLock(folder / ".promotion.lock").acquire()
    except OSError as cause:
        raise InputError(f"The folder {folder} cannot be written ({cause.strerror}); give yourself the right to.") from cause
    with held:
        yield


def holder(store: Store, model: str, alias: str) -> str | None:
    """Version that holds an alias."""
    version = store.client.get_registered_model(model).aliases.get(alias)
    return None if version is None else str(version)


def earlier_holders(store: Store, model: str, alias: str) -> list[str]:
    """Versions that an alias was given to and not taken back from, the latest last.

    The audit log of this machine says so; where it knows nothing (another machine promoted), a tag in the registry does.
    """
    held: list[str] = []
    with suppress(LedgerError, ValueError):  # a log that was changed is not believed; going back must still be possible
        ledger_of(store.uri).verify()
        for line in ledger_of(store.uri).lines():
            if (line.get("model"), line.get("alias")) == (model, alias):
                held = _after(held, line)
    if held:
        return held
    return str(store.client.get_registered_model(model).tags.get(_history_tag(alias), "")).split()


def _after(held: list[str], line: dict[str, Any]) -> list[str]:
    """Holders after what a line of the log says was done."""
    version, previous = line.get("version"), line.get("previous_version")
    if line.get("action") == "promoted":
        before = held if previous is None or held[-1:] == [previous] else [*held, str(previous)]
        return [*before, str(version)]
    if line.get("action") == "rolled back" and version in held:
        return held[: len(held) - held[::-1].index(version)]
    if line.get("action") == "not done" and line.get("undone") == "promoted":
        return held[:-1]
    return held


def _before(held: list[str], current: str) -> str | None:
    """The holder before the current one; where the alias was moved by other means, the last that is known."""
    if current in held:
        held = held[: len(held) - 1 - held[::-1].index(current)]
    return next((version for version in reversed(held) if version != current), None)


@dataclass(frozen=True)
class _Judgement:
    verdict: Verdict
    entry: dict[str, Any]


def _judge(store: Store, challenger: str, champion: str | None, policy: GatePolicy, alias: str) -> _Judgement:
    integrity, new = _opened(store, challenger)
    if new is None:
        return _unjudged(challenger, champion, policy, alias, (integrity,))
    checks: tuple[Check, ...] = (integrity,)
    old = None
    if champion is not None:
        check, old = _opened_champion(store, champion)
        checks += (check,)
        if old is None:
            return _unjudged(challenger, champion, policy, alias, checks)
    digests = {"challenger": bundle_digest(new.bundle_folder), **({"champion": bundle_digest(old.bundle_folder)} if old else {})}
    entry = {
        "digests": digests,
        "data_hash": new.card.data_hash,
        "split_hash": new.split_hash,
        "held_out": held_out_digest(new.predictions),
        "comparison": _comparison(digests, policy),
    }
    looks = Looks(_earlier_looks(store, entry), _runs_on(store, new.card.data_hash))
    verdict = judge(new, old, policy, alias=alias, looks=looks, integrity=checks)
    missing = _lines_are_missing(store, verdict.model)
    verdict = verdict.model_copy(update={"warnings": (*verdict.warnings, *missing)})
    return _Judgement(verdict, entry | _spoken(verdict))


def _unjudged(challenger: str, champion: str | None, policy: GatePolicy, alias: str, checks: tuple[Check, ...]) -> _Judgement:
    """A verdict before the held-out patients were looked at."""
    model, _, version = challenger.rpartition(":")
    before = champion.rpartition(":")[2] if champion else None
    verdict = Verdict(model=model, version=version, alias=alias, champion=before, checks=checks, policy=policy.digest)
    return _Judgement(verdict, _spoken(verdict))


def _opened(store: Store, reference: str) -> tuple[Check, JudgedModel | None]:
    """Does the bundle load (manifest, signature, classes, golden vectors), and is there what it was judged on?"""
    try:
        load_bundle(artifacts_of(store, find_model(store, reference).run_id, "bundle"))
        found = load_judged(store, reference)
    except (BundleError, InputError) as error:
        return Check(name="integrity", outcome="failed", sentence=f"{reference}: {error}", overridable=False), None
    words = f"{reference} loads: manifest, signature, classes and golden vectors are as they were signed."
    return Check(name="integrity", outcome="passed", sentence=words, overridable=False), found


def _opened_champion(store: Store, reference: str) -> tuple[Check, JudgedModel | None]:
    """A champion that cannot be read must not keep its place for that: a person may decide."""
    check, found = _opened(store, reference)
    if found is not None and (told := check_predictions(found)).stands_in_the_way:
        check = told
    return Check(name="champion's integrity", outcome=check.outcome, sentence=check.sentence), found


def _comparison(digests: dict[str, str], policy: GatePolicy) -> str:
    """What was compared by which policy: the same again is no new look."""
    return hashlib.sha256("|".join([digests["challenger"], digests.get("champion", ""), policy.digest]).encode()).hexdigest()


def _earlier_looks(store: Store, entry: dict[str, Any]) -> int:
    """Other comparisons on the same held-out patients, before this one was made for the first time."""
    seen: list[str] = []
    for line in ledger_of(store.uri).lines():
        if line.get("action") in JUDGED and line.get("looked") and line.get("held_out") == entry["held_out"]:
            comparison = str(line.get("comparison"))
            if comparison == entry["comparison"]:
                break
            if comparison not in seen:
                seen.append(comparison)
    return len(seen)


def _runs_on(store: Store, data_hash: str) -> int:
    """Different studies that were run on the same table to the end."""
    experiments = [one.experiment_id for one in store.client.search_experiments()]
    query = f"tags.`{TAG}data_hash` = '{data_hash}' and attributes.status = 'FINISHED'"
    found = store.client.search_runs(experiments, query, max_results=MOST_RUNS)
    return max(1, len({run.data.tags.get(TAG + "fingerprint") for run in found}))


def _spoken(verdict: Verdict) -> dict[str, Any]:
    return {
        "outcome": verdict.outcome,
        "checks": [_shortly(check) for check in verdict.checks],
        "looked": verdict.looked,
        "look": verdict.look,
        "level": verdict.level,
        "policy": verdict.policy,
    }


def _shortly(check: Check) -> dict[str, Any]:
    return {"name": check.name, "outcome": check.outcome, "numbers": check.numbers}


def _write(store: Store, action: str, model: str, alias: str, version: str, previous: str | None, entry: dict[str, Any]) -> None:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"action": action, "model": model, "alias": alias, "version": version, "previous_version": previous}
    try:
        line = ledger_of(store.uri).append({"when": when, "who": _who(), **about, **entry})
    except OSError as cause:
        raise InputError(
            f"The audit log {ledger_of(store.uri).path} cannot be written ({cause.strerror or cause}), so nothing was changed; "
            "make room or give yourself the right to write there."
        ) from cause
    store.client.set_registered_model_tag(model, LAST_LINE, line)


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _move(store: Store, action: str, model: str, alias: str, version: str, previous: str | None) -> None:
    """The log says already what is done here; what keeps it from being done is written there too."""
    with store_lock(store.folder):
        now = holder(store, model, alias)
        if now == previous:
            store.client.set_registered_model_alias(model, alias, version)
            store.client.set_registered_model_tag(model, _history_tag(alias), " ".join(earlier_holders(store, model, alias)))
            return
    _write(store, "not done", model, alias, version, now, {"undone": action})
    raise GateError(
        f"{alias!r} of {model!r} was moved by someone else in the meantime (to version {now}); look at it and try again."
    )


def _history_tag(alias: str) -> str:
    return f"{TAG}{alias}.history"


def _lines_are_missing(store: Store, model: str) -> tuple[str, ...]:
    """A chain whose end was cut off is whole; the registry knows the last line that was written about the model."""
    last = store.client.get_registered_model(model).tags.get(LAST_LINE)
    log = ledger_of(store.uri).path
    written = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    if last is None or any(hashlib.sha256(line).hexdigest() == last for line in written):
        return ()
    words = (
        "The audit log here lacks the last line that was written about this model (it was cut, moved or is on another machine)"
    )
    return (f"{words}: these held-out patients may have been looked at more often than is counted.",)


def require_whole_log(store: Store) -> None:
    """Check that the log holds the last line that the registry knows of, for every model.

    Raises
    ------
    LedgerError
        It was cut, moved or removed, or it is another machine's.
    """
    for model in sorted(one.name for one in store.client.search_registered_models()):
        if _lines_are_missing(store, model):
            raise LedgerError(
                f"{ledger_of(store.uri).path} lacks the last line that was written about {model}: it was cut, moved or removed, "
                "or the line was written on another machine."
            )


def _refuse_changed_log(store: Store) -> None:
    """The log says how often these patients were looked at; a promotion must not rest on one that was changed."""
    log = ledger_of(store.uri)
    try:
        log.verify()
    except LedgerError as cause:
        raise GateError(f"{cause} Look at it with `hypoxia audit`; to begin a new log, move {log.path} aside.") from cause


def _refuse_bad_alias(alias: str) -> None:
    if not ALIAS.fullmatch(alias) or NO_ALIAS.fullmatch(alias):
        raise InputError(
            f"{alias!r} cannot be an alias; use letters, digits, - and _, for example champion (not latest, not v1)."
        )


def _reason(override: str | None) -> str | None:
    if override is None:
        return None
    reason = " ".join(override.split())
    if not 10 <= len(reason) <= LONGEST_REASON:
        raise InputError(f"The reason of --override goes into the audit log; say it in 10 to {LONGEST_REASON} characters.")
    return reason
