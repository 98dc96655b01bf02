"""Everything that is written to MLflow, and nothing else.

The science runs without this module; it takes finished results and writes them as readable files.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import platform
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import distributions, version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import psutil
import yaml
from filelock import FileLock

from features.bundle import Estimate, ModelBundle, ModelCard, save_bundle
from features.contract import contract_of
from features.errors import InputError
from features.signatures import gene_aliases
from features.store import switch_telemetry_off
from features.table import FeatureSchema
from training.config import StudyBase
from training.report import figures, summary_text, warnings_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from features.audit import Audit
    from features.cohort import Cohort
    from training.recipe import Recipe
    from training.run import StudyResult

TAG = "hypoxia."
RATIO_OF = {"": "hazard_ratio", "_lower": "lower", "_upper": "upper"}
HEADLINES = ("roc_auc", "brier", "c_index", "brier_at_horizon", "hazard_ratio")
GOLDEN_ROWS = 5
BACKGROUND_ROWS = 24
REPORTED_VERSIONS = ("numpy", "scipy", "scikit-learn", "pandas", "skops", "tpot", "optuna", "shap", "lightgbm")


@dataclass(frozen=True)
class Store:
    """An open MLflow store.

    Attributes
    ----------
    client : MlflowClient
    uri : str
    folder : Path or None
        Where the database and the artifacts lie, for a store in a local file.
    """

    client: MlflowClient
    uri: str
    folder: Path | None


@dataclass(frozen=True)
class Recorded:
    """Where a result went.

    Attributes
    ----------
    run_id, model, version : str
    """

    run_id: str
    model: str
    version: str


def open_store(uri: str) -> Store:
    """Connect to a store, create it if it is a local file that is not there, and mark runs whose process died.

    Raises
    ------
    InputError
        The address is not one that MLflow can use.
    """
    switch_telemetry_off()
    import logging

    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import DatabaseError

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    folder = Path(uri.removeprefix("sqlite:///")).resolve().parent if uri.startswith("sqlite:///") else None
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as cause:
            raise InputError(f"The folder {folder} cannot be made ({cause.strerror}); choose another --tracking-uri.") from cause
    elif not uri.startswith(("http://", "https://", "postgresql", "mysql")):
        raise InputError(
            f"{uri!r} is no address of an MLflow store; use sqlite:///FILE, postgresql://... or http(s)://HOST:PORT."
        )
    try:
        with store_lock(folder):  # connecting creates the tables; two that do so at once spoil the database
            client = MlflowClient(uri, registry_uri=uri)
            client.search_experiments(max_results=1)
            client.search_registered_models(max_results=1)
    except MlflowException as cause:
        raise InputError(
            f"The MLflow store at {_without_password(uri)} does not answer ({cause.error_code}); is it running?"
        ) from cause
    except DatabaseError as cause:
        raise InputError(f"{_without_password(uri)} holds no MLflow database that can be opened; name another store.") from cause
    store = Store(client, uri, folder)
    _mark_dead_runs(store)
    return store


def store_lock(folder: Path | None) -> AbstractContextManager[object]:
    """Held while a local store is created or written to by several steps; a server keeps order itself."""
    return FileLock(folder / ".lock") if folder else nullcontext()


def store_exists(uri: str) -> bool:
    """Whether there is anything to open, so that looking does not create a store."""
    return not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).exists()


def open_existing(uri: str, model: str) -> Store:
    """Open a store to look up a model in it, without making one.

    Raises
    ------
    InputError
        There is no store, so there is no such model.
    """
    if not store_exists(uri):
        raise InputError(
            f"Model {model!r} is to be found in {uri}, which does not exist; train it first, or name another --tracking-uri."
        )
    return open_store(uri)


def artifacts_of(store: Store, run_id: str, wanted: str = "") -> Path:
    """Folder (or file) of a run's artifacts on this machine: in place for a local store, else downloaded until the process ends.

    Raises
    ------
    InputError
        The run has no such artifact, or its files are not where the store says.
    """
    from mlflow.exceptions import MlflowException

    folder = None
    if urlsplit(store.client.get_run(run_id).info.artifact_uri).scheme not in {"", "file"}:
        folder = tempfile.mkdtemp(prefix="hypoxia-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        found = Path(store.client.download_artifacts(run_id, wanted, folder))
    except (MlflowException, OSError) as cause:
        raise InputError(
            f"The files of run {run_id} cannot be read; put the folder back where it was, or train the model again."
        ) from cause
    if not found.exists():
        raise InputError(f"Run {run_id} has no {wanted or 'files'}; put the folder back where it was, or train the model again.")
    return found


def place_of(store: Store, run_id: str, name: str) -> str:
    """Where an artifact of a run is: a path for a store in a local file, else an address."""
    return f"{store.client.get_run(run_id).info.artifact_uri}/{name}".removeprefix("file://")


def find_run(store: Store, run_id: str) -> Run | None:
    """A run that is not deleted, or None."""
    from mlflow.exceptions import MlflowException

    try:
        run = store.client.get_run(run_id)
    except MlflowException as cause:
        if cause.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return run if run.info.lifecycle_stage == "active" else None


@contextmanager
def started_run(store: Store, study: StudyBase, tags: Mapping[str, str], parent: str | None = None) -> Iterator[str]:
    """A run that is RUNNING inside the block and FINISHED, FAILED or KILLED after it.

    Yields
    ------
    str
        The run's id.
    """
    process = psutil.Process()
    about = {
        **{TAG + name: value for name, value in tags.items()},
        TAG + "fingerprint": study.fingerprint,
        TAG + "host": socket.gethostname(),
        TAG + "pid": str(process.pid),
        TAG + "process_started": f"{process.create_time():.2f}",
        TAG + "version": version("hypoxia-biomarkers"),
        TAG + "python": platform.python_version(),
        **({"mlflow.parentRunId": parent} if parent else {}),
    }
    name = study.name if "sequence" not in tags else f"{study.name}-{tags['sequence']}"
    run_id = store.client.create_run(_experiment(store, study.name), tags=about, run_name=name).info.run_id
    previous = signal.signal(signal.SIGTERM, _end_by_exception)
    status = "FAILED"
    try:
        yield run_id
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
        store.client.set_terminated(run_id, status)


def record(store: Store, run_id: str, result: StudyResult, model: str, sequence: str | None = None) -> Recorded:
    """Write a finished result into its run and register the model."""
    log_numbers(store, run_id, _metrics(result), _parameters(result))
    store.client.set_tag(run_id, TAG + "repeatable", str(result.repeatable).lower())
    bundle = model_bundle(result, model, sequence)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _write_tables(result, folder)
        bundle = replace(bundle, card=bundle.card.model_copy(update={"predictions": digests_of_predictions(folder)}))
        write_figures(figures(result), folder / "figures")
        (folder / "summary.md").write_text(summary_text(result, model), encoding="utf-8")
        golden = shuffled_quantiles(_learnt_from(result), result.fitted.schema, GOLDEN_ROWS, result.study.rng("golden rows"))
        save_bundle(bundle, folder / "bundle", golden)
        store.client.log_artifacts(run_id, str(folder))
    return Recorded(run_id, model, register(store, model, run_id, bundle.card))


def log_numbers(store: Store, run_id: str, metrics: Mapping[str, float], parameters: Mapping[str, str]) -> None:
    """Write metrics and parameters into a run, all at once."""
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    logged = [Metric(name, value, now, 0) for name, value in metrics.items()]
    store.client.log_batch(run_id, metrics=logged, params=[Param(name, value[:500]) for name, value in parameters.items()])


def digests_of_predictions(folder: Path) -> dict[str, str]:
    """SHA-256 of the tables of predictions of a run, by file name: what a card signs."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("predictions*.csv"))}


def copy_numbers(store: Store, source: str, target: str) -> None:
    """Metrics and parameters of one run written into another, but for the time that it took."""
    found = store.client.get_run(source).data
    log_numbers(store, target, {name: value for name, value in found.metrics.items() if name != "seconds"}, found.params)


def register(store: Store, model: str, run_id: str, card: ModelCard) -> str:
    """Make the run's bundle a new version of a registered model; returns the version."""
    from mlflow.exceptions import MlflowException

    source = f"{store.client.get_run(run_id).info.artifact_uri}/bundle"
    tags = {
        "fingerprint": card.fingerprint,
        "data_hash": card.data_hash,
        "study": card.study,
        "threshold": f"{card.threshold:.6g}",
        **{f"held_out_{name}": str(card.held_out[name]) for name in HEADLINES if name in card.held_out},
        **{f"internal_{name}": str((card.internal or {})[name]) for name in HEADLINES if name in (card.internal or {})},
    }
    with store_lock(store.folder):
        try:
            store.client.create_registered_model(model)
        except MlflowException as exists:
            if exists.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = store.client.create_model_version(model, source, run_id, tags=tags, description=card.pipeline)
    return str(made.version)


def model_bundle(result: StudyResult, model: str, sequence: str | None) -> ModelBundle:
    """What ships of a result."""
    fitted, cohort, study = result.fitted, result.cohort, result.study
    development = _learnt_from(result)
    patients = cohort.patients.loc[result.split.train]
    return ModelBundle(
        pipeline=fitted.pipeline,
        schema=fitted.schema,
        card=model_card(result, model, sequence),
        contract=contract_of(development, study.contract, patients, gene_aliases(fitted.schema.names), cohort.extraction_hash),
        background=shuffled_quantiles(development, fitted.schema, BACKGROUND_ROWS, study.rng("background rows")),
    )


def _learnt_from(result: StudyResult) -> pd.DataFrame:
    """What the model saw of the development samples: numbers, in the model's order."""
    return result.fitted.schema.conform(result.cohort.inputs.loc[result.split.train], impute=True)


def model_card(result: StudyResult, model: str, sequence: str | None) -> ModelCard:
    """The card of a result: what ships with the model."""
    fitted, cohort = result.fitted, result.cohort
    return ModelCard(
        name=model,
        sequence=sequence,
        **learnt_from(result.study, cohort),
        **called_of(cohort),
        score=fitted.score,
        held_out_patients=cohort.patients.loc[result.split.test].nunique(),
        threshold=fitted.threshold,
        threshold_origin=_threshold_origin(result),
        pipeline=", ".join(filter(None, [fitted.harmonised, fitted.search.winner.candidate.words])),
        held_out=result.held_out.estimates,
        internal=result.internal.estimates if result.internal else None,
        repeatable=result.repeatable,
        warnings=warnings_of(result),
    )


def learnt_from(study: StudyBase, cohort: Cohort) -> dict[str, Any]:
    """What every card says of the study, of its patients and of when and with what the model was made."""
    return {
        "study": study.name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "endpoint": json.dumps(study.cohort.endpoint.model_dump(mode="json")),
        "samples": len(cohort.samples),
        "events": int(cohort.y.sum()),
        "patients": cohort.patients.nunique(),
        "fingerprint": study.fingerprint,
        "data_hash": cohort.data_hash,
        "versions": reported_versions(),
    }


def reported_versions() -> dict[str, str]:
    """Versions of what a model is made with."""
    return {"python": platform.python_version(), **{name: version(name) for name in REPORTED_VERSIONS}}


def _threshold_origin(result: StudyResult) -> str:
    if result.fitted.score is not None:
        return "the score's cutoff"
    rule = result.study.recipe.threshold_rule(result.cohort.times is not None)
    origins = {
        "youden": "highest Youden index on development out-of-fold predictions",
        "median": "median of development out-of-fold predictions",
    }
    return origins[rule] if isinstance(rule, str) else "fixed in the study"


def called_of(cohort: Cohort) -> dict[str, Any]:
    """What the two sides of the threshold are called, and by when the event is looked for."""
    if cohort.times is None:
        return {}
    labels = {"positive_label": "high risk", "negative_label": "low risk"}
    return {**labels, "horizon": cohort.horizon, "time_unit": cohort.time_unit}


def shuffled_quantiles(features: pd.DataFrame, schema: FeatureSchema, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows within the training range that are no patient's: quantiles of each feature, shuffled independently.

    Parameters
    ----------
    features : DataFrame of shape (n_samples, n_features)
    schema : FeatureSchema
        Of the same features: a word has no value between two words.

    Returns
    -------
    ndarray of shape (count, n_features)
    """
    shares = np.linspace(0.05, 0.95, count)
    quantiles = features.quantile(shares)
    words = [feature.name for feature in schema.with_levels]
    quantiles[words] = features[words].quantile(shares, interpolation="nearest")
    return rng.permuted(quantiles.to_numpy(), axis=0)


def _metrics(result: StudyResult) -> dict[str, float]:
    logged: dict[str, float] = {}
    for where, evaluation in (("held_out", result.held_out), ("internal", result.internal)):
        if evaluation is None:
            continue
        for name, estimate in evaluation.estimates.items():
            logged |= three(f"{where}_{name}", estimate)
        if evaluation.p_value is not None:
            logged[f"{where}_{'log_rank' if evaluation.horizon else 'mann_whitney'}_p"] = evaluation.p_value
    if result.internal and result.internal.stability is not None:
        logged["selection_stability"] = result.internal.stability
    search = result.fitted.search
    logged |= _about_signatures(result)
    return logged | {
        "threshold": result.fitted.threshold,
        "selected_features": len(result.fitted.selection.selected),
        "candidates_tried": len(search.trials),
        "candidates_failed": len(search.failures),
        **({"inner_score_of_winner_not_a_performance": search.winner.mean} if search.trials else {}),
        "seconds": result.seconds,
    }


def _about_signatures(result: StudyResult) -> dict[str, float]:
    """Signatures as baselines, and what scores say of times to an event."""
    logged: dict[str, float] = {}
    for name, baseline in result.baselines.items():
        headline = baseline.evaluation.headline
        logged |= three(f"internal_{headline}_of_{name}", baseline.evaluation.estimates[headline])
    for name, one in result.prognosis.items():
        ratio = one.as_json()["hazard_ratio_per_sd"]
        if ratio is not None:
            logged |= {f"{name.replace(' ', '_')}_hazard_ratio_per_sd{end}": ratio[key] for end, key in RATIO_OF.items()}
    return logged


def three(name: str, estimate: Estimate) -> dict[str, float]:
    """An estimate as metrics of a run: its value and its interval, as far as they are defined."""
    three = {name: estimate.value, f"{name}_lower": estimate.lower, f"{name}_upper": estimate.upper}
    return {key: value for key, value in three.items() if value is not None}


def _parameters(result: StudyResult) -> dict[str, str]:
    study, cohort = result.study, result.cohort
    return {
        "samples": str(len(cohort.samples)),
        "events": str(int(cohort.y.sum())),
        "patients": str(cohort.patients.nunique()),
        "features": str(cohort.features.shape[1]),
        "seed": str(study.seed),
        **_decided_by(study.recipe, cohort),
        "votes_used": str(result.fitted.selection.votes_used),
        "pipeline": result.fitted.search.winner.candidate.words,
    }


def _decided_by(recipe: Recipe, cohort: Cohort) -> dict[str, str]:
    """How features and model were chosen, as parameters of a run."""
    if recipe.signature:
        return {"signature": recipe.signature.signature, "signature_method": recipe.signature.method or "as published"}
    survival, selection = cohort.times is not None, recipe.selection
    return {
        "search": recipe.search.kind,
        "selection": f"{selection.needed(survival)} of {len(selection.voters(survival))}, top {selection.top}",
    }


def _write_tables(result: StudyResult, folder: Path) -> None:
    fitted = result.fitted
    patients = sorted(set(result.cohort.patients.loc[result.split.train].astype(str)))
    write_json(folder / "splits.json", {**result.split.as_json(), "train_patients": patients})
    write_json(folder / "estimates.json", estimates_json(result))
    write_about(folder, result.study, result.audit, fitted.schema)
    if result.cohort.gene_names is not None:
        result.cohort.gene_names.to_csv(folder / "gene_names.csv", index=False)
    selection = fitted.selection.votes.astype(int).assign(votes=fitted.selection.votes.sum(axis=1))
    selection["selected"] = selection.index.isin(fitted.selection.selected)
    selection.sort_values("votes", ascending=False, kind="stable").rename_axis("feature").to_csv(folder / "selection.csv")
    fitted.search.trace().to_csv(folder / "search.csv", index=False)
    _out_of_fold(result).to_parquet(folder / "search_out_of_fold.parquet")
    result.held_out.predictions.to_csv(folder / "predictions.csv", index=False)
    if result.baselines:
        write_json(folder / "baselines.json", {name: one.as_json() for name, one in result.baselines.items()})
    if result.prognosis:
        write_json(folder / "prognosis.json", {name: one.as_json() for name, one in result.prognosis.items()})
    if result.internal:
        result.internal.predictions.to_csv(folder / "predictions_internal.csv", index=False)
        write_json(folder / "selected_per_resample.json", [list(names) for names in result.internal.selected])
    result.explanation.values.rename_axis("sample").to_csv(folder / "shap_values.csv")
    result.explanation.importance().rename_axis("feature").to_csv(folder / "shap_importance.csv")
    write_json(folder / "shap.json", {"base_value": result.explanation.base_value, "unit": "probability of the event"})


def write_about(folder: Path, study: StudyBase, found: Audit, schema: FeatureSchema) -> None:
    """Write what every run has: the study, what was found in its table, what the model takes, and what is installed."""
    write_json(folder / "audit.json", found.model_dump(mode="json"))
    write_json(folder / "schema.json", schema.model_dump(mode="json"))
    (folder / "study.yaml").write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    (folder / "environment.txt").write_text(environment(), encoding="utf-8")


def write_split_of_everyone(folder: Path, cohort: Cohort) -> None:
    """Write down that a model, judged out of fold, was learnt from all patients."""
    samples, patients = [str(one) for one in cohort.samples], sorted(map(str, cohort.patients))
    write_json(folder / "splits.json", {"train": samples, "test": [], "train_patients": patients})


def run_json(study: StudyBase, cohort: Cohort, recorded: Recorded, uri: str) -> dict[str, Any]:
    """What ``hypoxia train --json`` says of every run."""
    return {
        "run_id": recorded.run_id,
        "study": study.name,
        "fingerprint": study.fingerprint,
        "data_hash": cohort.data_hash,
        "tracking_uri": uri,
        "model": {"name": recorded.model, "version": recorded.version},
        "samples": len(cohort.samples),
        "patients": int(cohort.patients.nunique()),
        "events": int(cohort.y.sum()),
    }


def _out_of_fold(result: StudyResult) -> pd.DataFrame:
    """Out-of-fold probability of every development sample (rows) by every candidate (columns, as numbered in search.csv)."""
    scored = {str(number): trial.out_of_fold for number, trial in enumerate(result.fitted.search.trials) if not trial.failure}
    return pd.DataFrame(scored, index=result.split.train.astype(str).rename("sample"))


def estimates_json(result: StudyResult) -> dict[str, Any]:
    """Estimates of a result as they are printed for machines."""
    return {
        "held_out": {name: estimate.model_dump() for name, estimate in result.held_out.estimates.items()},
        "internal": {name: one.model_dump() for name, one in result.internal.estimates.items()} if result.internal else None,
        "held_out_mann_whitney_p": None if result.held_out.horizon else result.held_out.p_value,
        "alternative": result.held_out.alternative,
        "held_out_p": {"value": result.held_out.p_value, "test": result.held_out.test},
        "selection_stability": result.internal.stability if result.internal else None,
        "bootstrap_resamples_redrawn": result.held_out.redrawn,
    }


def write_figures(drawn: Mapping[str, Callable[[], Figure]], folder: Path) -> None:
    """Draw figures into a folder that is not there yet."""
    folder.mkdir()
    for name, draw in drawn.items():
        draw().savefig(folder / f"{name}.png", dpi=130)


def write_json(path: Path, content: Any) -> None:
    """Write JSON that a person can read; what is undefined becomes null."""
    path.write_text(json.dumps(plain(content), indent=1, allow_nan=False), encoding="utf-8")


def plain(content: Any) -> Any:
    """Content of which JSON can be made: numpy's numbers as Python's, and null for what is not finite.

    Examples
    --------
    >>> plain({"a": np.float64("nan"), "b": (np.int64(1), "x")})
    {'a': None, 'b': [1, 'x']}
    """
    if isinstance(content, Mapping):
        return {str(name): plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple | np.ndarray):
        return [plain(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    return None if isinstance(content, float) and not np.isfinite(content) else content


def environment() -> str:
    """Versions of everything that is installed, one per line."""
    installed = sorted({f"{one.metadata['Name']}=={one.version}" for one in distributions()}, key=str.lower)
    return (
        "\n".join([f"python=={platform.python_version()}", f"platform=={platform.system()}-{platform.machine()}", *installed])
        + "\n"
    )


def _experiment(store: Store, name: str) -> str:
    from mlflow.exceptions import MlflowException

    with store_lock(store.folder):
        found = store.client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                store.client.restore_experiment(found.experiment_id)
            return str(found.experiment_id)
        location = (store.folder / "artifacts").as_uri() if store.folder else None
        try:
            return str(store.client.create_experiment(name, artifact_location=location))
        except MlflowException as exists:
            if exists.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return _experiment(store, name)  # made on the server by someone else just now


def _mark_dead_runs(store: Store) -> None:
    """Mark as killed what a process of this machine left RUNNING when it died (SIGKILL leaves it no time to say so)."""
    here = socket.gethostname()
    experiments = [experiment.experiment_id for experiment in store.client.search_experiments()]
    for run in store.client.search_runs(experiments, "attributes.status = 'RUNNING'") if experiments else []:
        if run.data.tags.get(TAG + "host") == here and not _is_alive(run):
            store.client.set_terminated(run.info.run_id, "KILLED")


def _is_alive(run: Run) -> bool:
    try:
        process = psutil.Process(int(run.data.tags[TAG + "pid"]))
        return abs(process.create_time() - float(run.data.tags[TAG + "process_started"])) < 2
    except psutil.NoSuchProcess:
        return False


def _end_by_exception(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _without_password(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
