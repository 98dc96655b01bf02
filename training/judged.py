"""A recorded model with what it was judged on: the way in for comparing, promoting and validating."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import ValidationError

from features.bundle import Estimate, ModelCard
from features.errors import BundleError, InputError, did_you_mean
from features.sources import TableSource
from features.table import FeatureSchema
from training.config import Study, StudyBase
from training.studies import KINDS
from training.tracking import TAG, Store, artifacts_of, find_run

RUN_ID = re.compile(r"[0-9a-f]{32}")
REFERENCE = re.compile(r"(?P<name>[^@:/,]+)(?:@(?P<alias>[A-Za-z][\w-]*)|:(?P<version>[1-9][0-9]*))?")
CALLED = {"True": True, "False": False}


@dataclass(frozen=True)
class JudgedModel:
    """A model, its held-out predictions and the study that made it.

    Attributes
    ----------
    reference : str
        As the user wrote it.
    name, version : str or None
        In the registry; None for a run that registered nothing.
    predictions : DataFrame
        Held out, as in ``Evaluation.predictions``; names of samples and patients are text. Of a composite or a profile, which
        have no held-out patients: out of fold, one repeat of the cross-validation.
    internal : DataFrame or None
        Out of fold, over development patients; all repeats.
    learnt_from, learnt_patients : frozenset of str
        Samples for development.
    split_hash : str
        SHA-256 of the samples' names on either side.
    extraction_hash : str or None
        Of the settings by which the features were extracted, where the bundle's contract has it.
    bundle_folder : Path
        On this machine; not verified here, `features.bundle.load_bundle` does that.
    permutation_p : float or None
        Of a composite or a profile: how often its whole search found as much where the outcome had been dealt to the patients
        anew.
    """

    reference: str
    name: str | None
    version: str | None
    run_id: str
    card: ModelCard
    predictions: pd.DataFrame
    internal: pd.DataFrame | None
    study: StudyBase
    split_hash: str
    schema: FeatureSchema
    versions: dict[str, str]
    bundle_folder: Path
    learnt_from: frozenset[str] = frozenset()
    learnt_patients: frozenset[str] = frozenset()
    extraction_hash: str | None = None
    permutation_p: float | None = None

    @property
    def horizon(self) -> float | None:
        """Time by which the probability is the risk of the event; None for a model of two classes."""
        return self.card.horizon

    @property
    def alternative(self) -> str:
        """Of the Mann-Whitney test between the classes."""
        return self.study.evaluation.alternative if isinstance(self.study, Study) else "two-sided"

    @property
    def title(self) -> str:
        """Name and version, else the run's id."""
        return f"{self.name}:{self.version}" if self.name else f"run {self.run_id[:8]}"

    @property
    def sample_columns(self) -> tuple[str, ...]:
        """The column that named the samples in the study's tables, if it had tables."""
        source = self.study.cohort.source
        return (source.sample,) if isinstance(source, TableSource) else ()


@dataclass(frozen=True)
class Found:
    """Where a reference leads: a run, and the registered version if there is one."""

    run_id: str
    name: str | None = None
    version: str | None = None


def load_judged(store: Store, reference: str) -> JudgedModel:
    """Find a model and read what it was judged on.

    Parameters
    ----------
    reference : str
        A run's id, ``NAME`` (its newest version), ``NAME:VERSION`` or ``NAME@ALIAS``.

    Raises
    ------
    InputError
        There is no such run, model, version or alias, or it recorded no model.
    BundleError
        A file of the run cannot be read.
    """
    found = find_model(store, reference)
    folder = artifacts_of(store, found.run_id)
    missing = [name for name in ("predictions.csv", "study.yaml", "splits.json", "bundle") if not (folder / name).exists()]
    if missing:
        raise InputError(f"{reference!r} recorded no model that was judged ({missing[0]} is missing); name a finished run.")
    try:
        return _read(reference, found, folder, _permutation_p(store, found.run_id))
    except (ValidationError, yaml.YAMLError, ValueError, KeyError, OSError) as cause:
        raise BundleError(
            f"The files of {reference!r} cannot be read by this version ({type(cause).__name__}); train the model again."
        ) from cause


def find_model(store: Store, reference: str) -> Found:
    """The run, and the registered version, that a reference names."""
    if RUN_ID.fullmatch(reference):
        run = find_run(store, reference)
        if run is None:
            raise InputError(f"There is no run {reference!r} in {_shown(store)}; `hypoxia runs` lists them.")
        return _of_run(store, reference, run.data.tags)
    parts = REFERENCE.fullmatch(reference.strip())
    if parts is None:
        raise InputError(f"{reference!r} names no model; write NAME, NAME:VERSION, NAME@ALIAS or the id of a run.")
    name = parts["name"]
    quoted = name.replace("'", "''")
    versions = {str(one.version): one for one in store.client.search_model_versions(f"name = '{quoted}'")}
    if not versions:
        raise InputError(_no_such_model(store, name))
    version = versions[_version(store, name, parts["alias"], parts["version"], sorted(versions, key=int))]
    if not version.run_id:
        raise InputError(f"{name}:{version.version} was registered without a run, so nothing says how it was judged.")
    _refuse_foreign_files(store, str(version.run_id), str(version.source), f"{name}:{version.version}")
    return Found(str(version.run_id), name, str(version.version))


def children_of(store: Store, reference: str) -> list[str]:
    """Run ids of the sequences of a multi-sequence study, in the order of their training; none if it is not one."""
    if not RUN_ID.fullmatch(reference):
        return []
    run = find_run(store, reference)
    if run is None:
        return []
    query = f"tags.`mlflow.parentRunId` = '{reference}'"
    children = store.client.search_runs([run.info.experiment_id], query, order_by=["attributes.start_time ASC"])
    return [one.info.run_id for one in children if one.info.status == "FINISHED"]


def read_predictions(path: Path) -> pd.DataFrame:
    """Predictions as they were recorded: names are text, also where they look like numbers."""
    numbers = {name: [""] for name in ("probability", "time", "score")}
    table = pd.read_csv(path, dtype={"sample": str, "patient": str}, keep_default_na=False, na_values=numbers)
    called = table["called"].astype(str).map(CALLED)
    if called.isna().any() or not table["label"].isin((0, 1)).all() or not table["probability"].between(0, 1).all():
        raise ValueError("no predictions")
    if "time" in table and not (table["time"] > 0).all():
        raise ValueError("no follow-up")
    return table.assign(called=called.astype(bool))


def signed_judgement(
    card: ModelCard, predictions: pd.DataFrame, internal: pd.DataFrame | None
) -> tuple[dict[str, Estimate], pd.DataFrame]:
    """Estimates of the signed card by which a model is judged, and the recorded predictions that must give them.

    Those of the held-out patients; of a composite or a profile, which have none, those of all out-of-fold predictions: of a
    composite without the hazard ratio, which the card has from the typical repeat.
    """
    if not card.judged_out_of_fold:
        return card.held_out, predictions
    elsewhere = {"hazard_ratio"} if card.composite is not None else set()
    said = {name: one for name, one in (card.internal or {}).items() if name not in elsewhere}
    return said, predictions if internal is None else internal


def split_digest(splits: dict[str, list[str]]) -> str:
    """SHA-256 over the names of the samples on either side, in any order.

    Examples
    --------
    >>> one = split_digest({"train": ["a", "b"], "test": ["c"]})
    >>> one == split_digest({"train": ["b", "a"], "test": ["c"]}), one == split_digest({"train": ["a"], "test": ["b", "c"]})
    (True, False)
    """
    ordered = {side: sorted(map(str, splits[side])) for side in ("train", "test")}
    return hashlib.sha256(json.dumps(ordered, sort_keys=True).encode()).hexdigest()


def _permutation_p(store: Store, run_id: str) -> float | None:
    run = find_run(store, run_id)
    return None if run is None else run.data.metrics.get("permutation_p")


def _study_of(content: dict[str, Any]) -> StudyBase:
    return KINDS[content.get("kind", "classifier")].model_validate(content)


def _read(reference: str, found: Found, folder: Path, permutation_p: float | None) -> JudgedModel:
    bundle, inner = folder / "bundle", folder / "predictions_internal.csv"
    splits = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
    card = ModelCard.model_validate_json((bundle / "card.json").read_text(encoding="utf-8"))
    return JudgedModel(
        reference=reference,
        name=found.name,
        version=found.version,
        run_id=found.run_id,
        card=card,
        predictions=read_predictions(folder / "predictions.csv"),
        internal=read_predictions(inner) if inner.exists() else None,
        study=_study_of(yaml.safe_load((folder / "study.yaml").read_text(encoding="utf-8"))),
        split_hash=split_digest(splits),
        schema=FeatureSchema.model_validate_json((bundle / "schema.json").read_text(encoding="utf-8")),
        versions=dict(card.versions),
        bundle_folder=bundle,
        learnt_from=frozenset(map(str, splits["train"])),
        learnt_patients=frozenset(map(str, splits.get("train_patients", ()))),
        extraction_hash=_extraction_hash(bundle / "contract.json"),
        permutation_p=permutation_p,
    )


def _extraction_hash(contract: Path) -> str | None:
    return json.loads(contract.read_text(encoding="utf-8")).get("extraction_hash") if contract.exists() else None


def _of_run(store: Store, run_id: str, tags: Mapping[str, str]) -> Found:
    sequences = tags.get(TAG + "sequences")
    if sequences:
        raise InputError(f"Run {run_id} holds several models, one per sequence ({sequences}); name one of them.")
    versions = store.client.search_model_versions(f"run_id = '{run_id}'")
    if not versions:
        return Found(run_id)
    newest = max(versions, key=lambda one: int(one.version))
    return Found(run_id, newest.name, str(newest.version))


def _version(store: Store, name: str, alias: str | None, version: str | None, known: list[str]) -> str:
    if alias is not None:
        aliases = {one: str(number) for one, number in store.client.get_registered_model(name).aliases.items()}
        if alias not in aliases:
            raise InputError(
                f"Model {name!r} has no alias {alias!r}{did_you_mean(alias, list(aliases))}; its aliases: "
                f"{_listed(sorted(aliases)) or 'none'}; its versions: {_listed(known)}."
            )
        return aliases[alias]
    if version is not None and version not in known:
        raise InputError(f"Model {name!r} has no version {version}; its versions: {_listed(known)}.")
    return version or known[-1]


def _refuse_foreign_files(store: Store, run_id: str, source: str, title: str) -> None:
    """A version whose files are not its run's would be judged by another model's predictions."""
    run = find_run(store, run_id)
    if run is None:
        raise InputError(f"The run that made {title} was deleted, so nothing says how it was judged; restore it, or train again.")
    if source.removeprefix("file://") != f"{run.info.artifact_uri}/bundle".removeprefix("file://"):
        raise BundleError(f"The files of {title} are not those of its run, so its judgement is not its own; train it again.")


def _no_such_model(store: Store, name: str) -> str:
    known = sorted(one.name for one in store.client.search_registered_models())
    if not known:
        return f"No model is registered in {_shown(store)}; train one first (hypoxia train STUDY.yaml)."
    return f"There is no model {name!r}{did_you_mean(name, known)}; registered: {_listed(known)}."


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _shown(store: Store) -> str:
    return re.sub(r"//[^/@]*@", "//", store.uri)
