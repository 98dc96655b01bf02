"""``hypoxia predict``, ``serve`` and ``token``; each parses its options and calls one function."""

from __future__ import annotations

import json
import os
import shlex
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from features.errors import InputError
from features.files import write_whole
from features.store import tracking_uri
from serving.operation import Operation, become_server, operation_options
from serving.safety import Safety, safety_options
from serving.tokens import SCOPES, new_token
from serving.tokens import Scope as TokenScope

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from features.table import FeatureSchema
    from serving.explainer import Explainer, Explanation
    from serving.loader import LoadedModel
    from serving.predictor import Predictor
    from serving.shelf import Shelf, Shelved

# Features that a command to try, printed on a terminal, has room for.
MOST_IN_EXAMPLE = 12

_model = click.option("--model", required=True, metavar="NAME[@ALIAS|:VERSION]", help="The registered model.")
_store = click.option("--tracking-uri", "uri", metavar="URI", help="MLflow store; default: MLFLOW_TRACKING_URI, else ./mlruns.")
_machine = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")


@click.command()
@click.argument("table", type=click.Path(path_type=Path))
@_model
@click.option("-o", "--output", type=click.Path(path_type=Path), help="CSV to write; default: stdout.")
@click.option("--sample", metavar="COLUMN", help="Column that names a row; default: the first that can, else the row's number.")
@click.option(
    "--explain",
    is_flag=True,
    help="SHAP values too: in the --json object, or beside --output as NAME.shap.csv. A profile has none.",
)
@_store
@_machine
def predict(
    table: Path, model: str, output: Path | None, sample: str | None, explain: bool, uri: str | None, as_json: bool
) -> None:
    """Score TABLE (CSV, TSV or Parquet) with a registered model, as the endpoint would.

    Writes sample, probability, label, threshold, model, version and out_of_distribution (whether the row is unlike what the
    model was trained on); the score behind the probability if the model has one; the two biomarkers of a composite; and of a
    profile the cluster, the distance from every cluster, the margin to the second nearest, which that is, and whether the row
    is unlike any cluster. Columns that are no feature of the model, nor a name that stands for one, are left out; a missing
    feature is refused, and so is a missing value unless the model fills it as in training.

    A biomarker of a composite is a column, or is computed from columns with the features of the model that gives it. Of a
    survival model the probability is the risk of the event by the horizon.
    """
    from serving.predictor import Predictor

    if output is not None and output.is_dir():
        raise InputError(f"{output} is a folder; name the file to write.")
    if explain and output is None and not as_json:
        raise InputError("SHAP values need a place: name a file with --output, or ask for one object with --json.")
    predictor = Predictor(_load(model, uri))
    explainer = _explainer(predictor) if explain else None
    frame, column = _read_samples(predictor, table, sample)
    scored = _score_frame(predictor, frame, column)
    explained = [] if explainer is None else explainer.explain_all(predictor.matrix_of_table(frame))
    if output is not None:
        write_whole(output, scored.to_csv(index=False))
        if explained:
            write_whole(output.with_suffix(".shap.csv"), _shap_table(explained, scored["sample"]).to_csv(index=False))
    elif not as_json:
        click.echo(scored.to_csv(index=False), nl=False)
    summary = _summary(predictor, scored, explained, output)
    if as_json:
        click.echo(json.dumps(summary))
    click.echo(_in_words(summary), err=True)


@click.command()
@operation_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--workers", default=1, show_default=True, type=click.IntRange(min=1), help="Processes that answer.")
@safety_options
@_store
@_machine
def serve(
    models: tuple[str, ...],
    all_champions: bool,
    follow_s: float,
    shadows: tuple[str, ...],
    host: str,
    port: int,
    workers: int,
    uri: str | None,
    as_json: bool,
    **safety: Any,
) -> None:
    """Serve registered models over HTTP on this machine, until interrupted.

    A model that is named by an alias is followed: when the alias moves, the new version is fetched, verified, tried, and
    takes the place of the old one between two requests; when it fails any of that, the old one goes on.

    Another address than this machine's own needs a token (--token-file, or HYPOXIA_TOKEN and HYPOXIA_ADMIN_TOKEN) and
    encryption (--tls-cert and --tls-key, or --behind-proxy).
    """
    wanted = Safety(**safety)
    address = wanted.require(host, dict(os.environ))
    require_free(address, port)
    store, folder = _absolute(tracking_uri(uri)), _server_folder(port)
    operation = Operation(models, all_champions, follow_s, shadows)
    shelf, served = operation.stock(folder, store)
    # Before anything is said: a log that cannot be written, or tokens that cannot be read, end this.
    environment = {
        **wanted.environment(tracking_uri(uri)),
        **operation.environment(shelf, store),
        "HYPOXIA_WORKERS": str(workers),
        "BENTOML_HOME": str(folder),
    }
    url = _url(address, port, wanted)
    if as_json:
        found = [{"name": one.name, "version": one.current.version} for one in served]
        click.echo(json.dumps({"url": url, "models": found}))
    click.echo(_welcome(shelf, served, url), err=True)
    become_server(address, port, wanted.arguments(), environment)


@click.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", type=click.Choice(SCOPES), multiple=True, default=("predict",), show_default=True, help="What it may do."
)
@click.option("--hashed", is_flag=True, help="Print a line from which the token cannot be read back; the token itself on stderr.")
@_machine
def token(name: str, scopes: tuple[TokenScope, ...], hashed: bool, as_json: bool) -> None:
    """Print a new random token for NAME, as a line for `hypoxia serve --token-file`.

    Put the line into a file that only you can read (umask 077), and give the client what follows the second colon.
    """
    text, made = new_token(name, scopes)
    line = made.line() if hashed else f"{name}:{','.join(sorted(scopes))}:{text}"
    if as_json:
        click.echo(json.dumps({"name": name, "scopes": sorted(scopes), "token": text, "line": line}))
        return
    if hashed:
        click.echo(f"The token, shown only now: {text}", err=True)
    click.echo(line)


def score_file(predictor: Predictor, table: Path, sample: str | None) -> pd.DataFrame:
    """Score a table; one row per sample.

    Returns
    -------
    DataFrame of shape (n_samples, 7)
        Columns ``sample, probability, label, threshold, model, version, out_of_distribution``.
    """
    return _score_frame(predictor, *_read_samples(predictor, table, sample))


def _explainer(predictor: Predictor) -> Explainer:
    if predictor.explainer is None:
        raise InputError(
            f"{predictor.loaded.name} assigns patients to clusters and has no SHAP values; leave out --explain, and ask the "
            "endpoint (hypoxia serve) which features decided."
        )
    return predictor.explainer


def _shap_table(explained: Sequence[Explanation], samples: pd.Series) -> pd.DataFrame:
    """Sample, base value and the SHAP value of every feature; base value and values of a row sum to its probability."""
    import pandas as pd

    heads = pd.DataFrame({"sample": samples.to_numpy(), "base_value": [one.base_value for one in explained]})
    return pd.concat([heads, pd.DataFrame([one.values for one in explained], columns=list(explained[0].names))], axis=1)


def _read_samples(predictor: Predictor, table: Path, sample: str | None) -> tuple[pd.DataFrame, str | None]:
    """Table, and its column that names the rows."""
    from features.extracted import refuse_other_extraction
    from features.sources import read_table

    takers = _takers(predictor)
    words = tuple(word for one in takers for word in one.levels)
    frame = read_table(table, text_columns=(sample, *words) if sample else words)
    column = _sample_column(frame, tuple(name for one in takers for name in (*one.features, *one.aliases)), sample)
    if column is not None and sample is None:
        frame = read_table(table, text_columns=(column, *words))  # once more, so that a sample called 007 stays that
    for taker in takers:
        frame = _with_protocol(taker, frame, column, table)
    composite = predictor.composite
    for used in (predictor, *(composite.used_components(list(frame.columns)) if composite is not None else ())):
        refuse_other_extraction(table, used.loaded.bundle.contract)
    return frame, column


def _takers(predictor: Predictor) -> tuple[Predictor, ...]:
    """Who takes columns of a table: the model, and the components of a composite."""
    return (predictor, *(() if predictor.composite is None else predictor.composite.components.values()))


def _with_protocol(predictor: Predictor, frame: pd.DataFrame, column: str | None, table: Path) -> pd.DataFrame:
    """The table, with what the model must know of the acquisition if that lies beside it: `hypoxia extract` writes it apart."""
    from features.extracted import read_record
    from features.sources import read_table

    beside = table.with_name(f"acquisition{''.join(table.suffixes)}")
    ours, theirs = read_record(table), read_record(beside) if beside.is_file() else None
    if column is None or ours is None or theirs is None or theirs.settings_hash != ours.settings_hash or beside == table:
        return frame
    protocol = read_table(beside, text_columns=(column, *predictor.levels))
    wanted = [name for name in predictor.features if name in protocol.columns and name not in frame.columns]
    return frame.merge(protocol[[column, *wanted]], on=column, how="left") if wanted and column in protocol.columns else frame


def _score_frame(predictor: Predictor, frame: pd.DataFrame, column: str | None) -> pd.DataFrame:
    scored = predictor.predict_table(frame)
    scored.insert(0, "sample", range(1, len(frame) + 1) if column is None else frame[column])
    return scored


def _sample_column(frame: pd.DataFrame, features: tuple[str, ...], sample: str | None) -> str | None:
    """Column that names the rows: the one given, else the first of text or whole numbers, no feature, all different."""
    from features.errors import did_you_mean

    if sample is not None and sample not in frame.columns:
        raise InputError(f"Column {sample!r} (--sample) is not in the table{did_you_mean(sample, list(frame.columns))}.")
    named = (
        str(name)
        for name in frame.columns
        if name not in features and frame[name].dtype.kind in "iuOUT" and frame[name].notna().all() and frame[name].is_unique
    )
    return sample or next(named, None)


def _summary(predictor: Predictor, scored: pd.DataFrame, explained: Sequence[Explanation], output: Path | None) -> dict[str, Any]:
    from features.bundle import RESEARCH_USE_ONLY

    model = predictor.loaded
    card = model.bundle.card
    predictions = _predictions(predictor, scored)
    for prediction, one in zip(predictions, explained, strict=False):  # explained: all or none
        shap_values = dict(zip(one.names, one.values.tolist(), strict=True))
        prediction["explanation"] = {"base_value": one.base_value, "features": shap_values}
    return {
        "model": model.name,
        "version": model.version,
        "threshold": predictor.threshold,
        "rows": len(scored),
        "positive": int((scored["label"] == card.positive_label).sum()),
        "positive_label": card.positive_label,
        "positive_from": predictor.decides,
        "probability_of": card.probability_words,
        "out_of_distribution": int(scored["out_of_distribution"].sum()),
        **({} if predictor.profile is None else {"unlike_any_cluster": int(scored["unlike_any_cluster"].sum())}),
        "output": None if output is None else str(output),
        "research_use_only": RESEARCH_USE_ONLY,
        "extraction_hash": model.bundle.contract.extraction_hash,
        "predictions": predictions,
    }


def _predictions(predictor: Predictor, scored: pd.DataFrame) -> list[dict[str, Any]]:
    """What was said of each row, by name; of a missing biomarker None."""
    columns = ["probability", "label", "out_of_distribution"]
    columns += [] if predictor.loaded.bundle.card.score is None else ["score"]
    parts = [] if predictor.composite is None else list(predictor.composite.names)
    predictions = []
    for row in scored.to_dict("records"):
        prediction = {"sample": str(row["sample"]), **{name: row[name] for name in columns}}
        if parts:
            values = {name: row[f"part.{name}"] for name in parts}
            prediction["parts"] = {name: None if value != value else value for name, value in values.items()}
            prediction["missing"] = row["missing"] or None
        if predictor.profile is not None:
            prediction["profile"] = predictor.profile.account_of(row)
        predictions.append(prediction)
    return predictions


def _in_words(summary: dict[str, Any]) -> str:
    words = summary["probability_of"]
    return (
        f"{summary['rows']} rows scored with {summary['model']}:{summary['version']}, {summary['positive']} of them "
        f"{summary['positive_label']} ({summary['positive_from']})."
        + (f" The probability is the {words}." if words.startswith("risk") else "")
        + (f" {summary['out_of_distribution']} unlike the training samples." if summary["out_of_distribution"] else "")
        + (f" {summary['unlike_any_cluster']} unlike any cluster." if summary.get("unlike_any_cluster") else "")
        + (f" Written to {summary['output']}." if summary["output"] else "")
        + f"\n{summary['research_use_only']}"
    )


def _load(model: str, uri: str | None) -> LoadedModel:
    from serving.loader import load_registered, parse_reference

    return load_registered(parse_reference(model), tracking_uri(uri))


def require_free(address: str, port: int) -> None:
    """Raise an InputError if something listens there already."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as cause:
            raise InputError(f"Cannot listen on {address} port {port} ({cause.strerror}); choose another with --port.") from cause


def _url(address: str, port: int, safety: Safety) -> str:
    """Where to ask from this machine; "every address" is one to listen on, not one to ask."""
    asked = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - compared, not listened on
    scheme = "https" if safety.has_tls() else "http"
    return f"{scheme}://{f'[{asked}]' if ':' in asked else asked}:{port}"


def _welcome(shelf: Shelf, served: tuple[Shelved, ...], url: str) -> str:
    from features.bundle import RESEARCH_USE_ONLY
    from features.table import FeatureSchema

    first = served[0]
    schema = FeatureSchema.model_validate_json((shelf.path(first.current) / "schema.json").read_text(encoding="utf-8"))
    model = f"{url}/v1/models/{quote(first.name)}"
    listed = ", ".join(f"{one.name}:{one.current.version}" for one in served)
    return (
        f"Serving {listed} at {url} until Ctrl-C. Try {first.name} ({len(schema.names)} features), with values of yours:\n"
        f"  curl {model}/predict -H 'content-type: application/json' -d {shlex.quote(_example(schema))}\n"
        + (f'All its features: {model}/schema, or "Template CSV" of the page at {url}/\n' if _is_wide(schema) else "")
        + RESEARCH_USE_ONLY
    )


def _is_wide(schema: FeatureSchema) -> bool:
    return len(schema.names) > MOST_IN_EXAMPLE


def _example(schema: FeatureSchema) -> str:
    """A body to ask with; of many features the first two only, to show its form."""
    shown = schema.features[:2] if _is_wide(schema) else schema.features
    body = json.dumps({"rows": [{"id": "a", "features": {one.name: one.levels[0] if one.levels else 0.0 for one in shown}}]})
    return body.removesuffix("}}]}") + ", ...}}]}" if _is_wide(schema) else body


def _absolute(uri: str) -> str:
    """Address of the store from any folder: the server's is not the one in which the command was typed."""
    relative = uri.removeprefix("sqlite:///")
    return f"sqlite:///{Path(relative).absolute()}" if relative != uri else uri


def _server_folder(port: int) -> Path:
    """Folder for BentoML's own files, one per port: a second server on the same folder would delete the first one's metrics."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hypoxia" / f"serve-{port}"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # not writable, or (in a container) a user without a home
        return Path(tempfile.mkdtemp(prefix="hypoxia-serve-"))
    return folder
