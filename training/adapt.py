"""A trained model that learns one more site from unlabelled samples: a new version, in which nothing else changes.

References
----------
Johnson, Li & Rabinovic 2007, doi:10.1093/biostatistics/kxj037 (location and scale of a site, shrunk by empirical Bayes).
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from features.bundle import RESEARCH_USE_ONLY, ModelBundle, ModelCard, bundle_digest, load_bundle, save_bundle
from features.cohort import LARGEST
from features.contract import Contract, RobustDistance
from features.errors import InputError, SchemaMismatchError, did_you_mean
from features.extracted import is_as_written, read_record, refuse_other_extraction
from features.harmonise import SiteAlignment
from features.sources import read_table
from features.table import FeatureSchema
from training.judged import JudgedModel, load_judged
from training.tracking import REPORTED_VERSIONS, Store, artifacts_of, copy_numbers, register, started_run

LONGEST_SITE = 100
MOST_HINTS = 5
UNLIKE_SHARE = 0.05
# Of the bundle or about this run alone; all else that was recorded is of the known sites, whose scores stay as they are.
NOT_CARRIED_OVER = ("bundle", "schema.json", "summary.md", "adaptation.json")


@dataclass(frozen=True)
class SiteTable:
    """Unlabelled samples of one site.

    Attributes
    ----------
    site : str
    frame : DataFrame of shape (n_samples, n_columns)
        Of the site's rows only, without the columns of site and name.
    names : tuple of str
        Of the samples; empty where they have none.
    digest : str
        SHA-256 of the whole file.
    """

    path: Path
    site: str
    frame: pd.DataFrame
    names: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Adaptation:
    """A new version that knows one more site.

    Attributes
    ----------
    model : JudgedModel
        The version that it was made from.
    version, run_id : str
        Of the new one.
    samples : int
        Unlabelled samples of the site.
    unlike : float
        Share of them that the model's contract flags as unlike what it was trained on.
    """

    model: JudgedModel
    bundle: ModelBundle
    table: SiteTable
    version: str
    run_id: str
    unlike: float
    warnings: tuple[str, ...]

    @property
    def samples(self) -> int:
        """Unlabelled samples of the site."""
        return len(self.table.frame)

    @property
    def known_sites(self) -> tuple[str, ...]:
        """Sites that the model knew before."""
        return self.bundle.schema.features[_place_of_site(self.bundle)].levels[:-1]


def adapt_model(
    store: Store, reference: str, path: Path, *, site_column: str, new_site: str, sample: str | None = None
) -> Adaptation:
    """Let a registered model learn one more site, and register that as a new version; no alias is moved.

    Parameters
    ----------
    reference : str
        A run's id, ``NAME`` (its newest version), ``NAME:VERSION`` or ``NAME@ALIAS``.
    site_column : str
        Column of the table that says where a row was measured; rows of other sites are left out.
    sample : str, optional
        Column that names the rows.

    Raises
    ------
    InputError
        There is no such model, it cannot be adapted, or the table does not have what that needs.
    BundleError
        The model is not what was signed.
    """
    model = load_judged(store, reference)
    if model.name is None:
        raise InputError(f"Run {model.run_id} registered no model, so it can have no new version; name a registered one.")
    bundle = load_bundle(model.bundle_folder)
    aligning = refuse_what_cannot_be_adapted(bundle, model.title)
    refuse_bad_name(new_site, bundle, model.title)
    words = tuple(feature.name for feature in bundle.schema.with_levels)
    table = read_site(path, column=site_column, site=new_site, sample=sample, words=words)
    refuse_other_extraction(table.path, bundle.contract)
    matrix = unlabelled_matrix(table, bundle, aligning)
    adapted = adapted_bundle(bundle, matrix, new_site, origin=model.title, digest=table.digest)
    unlike = float(adapted.contract.judge(_at(matrix, bundle, _code_of_new(bundle))).flagged.mean())
    found = Adaptation(model, adapted, table, "", "", unlike, _warnings(model, bundle, table, matrix, unlike))
    return _record(store, found)


def read_site(path: Path, *, column: str, site: str, sample: str | None = None, words: Sequence[str] = ()) -> SiteTable:
    """The rows of one site in a table.

    Parameters
    ----------
    column : str
        Says where a row was measured.
    sample : str, optional
        Column that names the rows.
    words : sequence of str
        Columns that are read as they are written.

    Raises
    ------
    InputError
        The file or a column is not there, no row is of the site, or a name is there twice.
    """
    text = tuple(dict.fromkeys(name for name in (column, sample, *words) if name is not None))
    frame = read_table(path, text_columns=text)
    for option, name in (("--site-column", column), ("--sample", sample)):
        if name is not None and name not in frame.columns:
            raise InputError(f"Column {name!r} ({option}) is not in {path.name}{did_you_mean(name, list(frame.columns))}.")
    sites = frame[column].dropna().astype(str)
    own = frame.loc[sites.index[sites == site]]
    if own.empty:
        hint = did_you_mean(site, sorted(set(sites)))
        raise InputError(
            f"No row of {path.name} has {site!r} in {column!r}{hint}; name the new site with --new-site as the table writes it."
        )
    names = () if sample is None else _names(own[sample], sample, path)
    features = own.drop(columns=[name for name in (column, sample) if name is not None])
    return SiteTable(path, site, features, names, hashlib.sha256(path.read_bytes()).hexdigest())


def refuse_what_cannot_be_adapted(bundle: ModelBundle, title: str) -> SiteAlignment:
    """The model's own alignment of sites.

    Raises
    ------
    InputError
        It aligns no sites, or was not trained to be adapted.
    """
    first = bundle.pipeline.steps[0][1]
    way_out = "train one with recipe.harmonise: {kind: combat, unseen_site: adapt}"
    if not isinstance(first, SiteAlignment) or first.site is None:
        raise InputError(f"{title} aligns no sites, so there is nothing in it to adapt; {way_out}.")
    if first.unseen_site != "adapt":
        raise InputError(f"{title} was trained with unseen_site: {first.unseen_site}, and is not to be adapted; {way_out}.")
    return first


def refuse_bad_name(site: str, bundle: ModelBundle, title: str) -> None:
    """A new site needs a name that can be written and is not that of a known one.

    Raises
    ------
    InputError
    """
    if not 0 < len(site) <= LONGEST_SITE or site != site.strip() or not site.isprintable():
        raise InputError(
            f"{site[:40]!r} cannot be the name of a site; give 1 to {LONGEST_SITE} characters that can be printed, without "
            "spaces around them."
        )
    known = bundle.schema.features[_place_of_site(bundle)].levels
    same = [one for one in known if one.casefold() == site.casefold()]
    if same:
        raise InputError(
            f"Site {site!r} is known to {title} already (it knows {', '.join(known)}); score its samples as they are, or adapt a "
            "version that does not know it."
        )


def unlabelled_matrix(table: SiteTable, bundle: ModelBundle, aligning: SiteAlignment) -> np.ndarray:
    """The model's features of the site's samples; the site's own column holds the code of a known one, and is not read.

    Returns
    -------
    ndarray of shape (n_samples, n_features + 1)
        NaN for a missing value, if the model fills such.

    Raises
    ------
    InputError
        A feature is missing, has a value that is not finite or too large, or too few values to adapt to.
    """
    rows = _under_known_names(table, bundle)
    try:
        values = bundle.schema.conform(rows, impute=bundle.contract.missing == "impute")
    except SchemaMismatchError as cause:
        shown = "; ".join(f"{name!r} {fault}{_meant(name, fault, table)}" for name, fault in cause.faults[:MOST_HINTS])
        more = f"; and {len(cause.faults) - MOST_HINTS} more" if len(cause.faults) > MOST_HINTS else ""
        raise InputError(
            f"{table.path.name} does not hold what the model takes in {len(rows)} rows of site {table.site!r}: {shown}{more}; "
            "nothing is guessed, so correct these columns."
        ) from cause
    huge = values.columns[(values.abs() > LARGEST).any()]
    if len(huge):
        raise InputError(
            f"Feature {huge[0]!r} has a value above {LARGEST:g} in a row of site {table.site!r}, too large to compute with; "
            "correct or remove the row."
        )
    # With too few samples at all every feature is short; the alignment says so in words of its own.
    short = values.columns[values.notna().sum() < min(aligning.minimum_cases, len(values))]
    if len(short):
        raise InputError(
            f"Feature {short[0]!r} has a value in {int(values[short[0]].notna().sum())} of the {len(values)} samples of site "
            f"{table.site!r}, fewer than the {aligning.minimum_cases} of minimum_cases; collect more samples that have it."
        )
    return np.ascontiguousarray(values.to_numpy())


def adapted_bundle(bundle: ModelBundle, matrix: np.ndarray, site: str, *, origin: str, digest: str) -> ModelBundle:
    """The same model with one more site.

    Scores of samples of the known sites do not change at all. The contract takes the new site's code; nothing else of it moves
    but one thing: a code, which is no quantity, has no part in the distance any more.

    Parameters
    ----------
    matrix : ndarray of shape (n_samples, n_features + 1)
        Of samples of the new site, in the model's columns; the column of the site is not read.
    origin : str
        Name and version of the model, for the card.
    digest : str
        SHA-256 of the table that the samples are from.

    Raises
    ------
    InputError
        There are fewer samples than the model's ``minimum_cases``.
    """
    place, code = _place_of_site(bundle), _code_of_new(bundle)
    (name, aligning), *rest = bundle.pipeline.steps
    feature = bundle.schema.features[place]
    known = feature.model_copy(update={"levels": (*feature.levels, site)})
    return ModelBundle(
        pipeline=Pipeline([(name, aligning.adapted(matrix, code, site)), *rest]),
        schema=FeatureSchema(features=tuple(known if one is feature else one for one in bundle.schema.features)),
        card=_card(bundle.card, site, len(matrix), origin, digest),
        contract=_contract(bundle.contract, place, code),
        background=bundle.background,
    )


def described(found: Adaptation, uri: str) -> dict[str, Any]:
    """An adaptation as one JSON object; no patient and no value is in it."""
    model = found.model
    return {
        "run_id": found.run_id,
        "tracking_uri": uri,
        "model": {"name": model.name, "version": found.version},
        **_told(found),
        "research_use_only": RESEARCH_USE_ONLY,
    }


def _told(found: Adaptation) -> dict[str, Any]:
    model = found.model
    digest = bundle_digest(model.bundle_folder)
    return {
        "adapted_from": {"name": model.name, "version": model.version, "run_id": model.run_id, "digest": digest},
        "site": found.table.site,
        "known_sites": list(found.known_sites),
        "samples": found.samples,
        "table_sha256": found.table.digest,
        "rows_unlike_training": found.unlike,
        "warnings": [found.bundle.card.warnings[-1], *found.warnings],
    }


def _place_of_site(bundle: ModelBundle) -> int:
    return int(bundle.pipeline.steps[0][1].site)


def _code_of_new(bundle: ModelBundle) -> int:
    return len(bundle.schema.features[_place_of_site(bundle)].levels)


def _at(matrix: np.ndarray, bundle: ModelBundle, code: int) -> np.ndarray:
    """The same rows as they would be at a site."""
    moved = matrix.copy()
    moved[:, _place_of_site(bundle)] = code
    return moved


def _under_known_names(table: SiteTable, bundle: ModelBundle) -> pd.DataFrame:
    """Columns under the model's names, where its contract knows the others; the site as a code that is known."""
    present = set(table.frame.columns)
    other_names = {other: name for other, name in bundle.contract.aliases.items() if other in present and name not in present}
    site = bundle.schema.names[_place_of_site(bundle)]
    return table.frame.rename(columns=other_names).assign(**{site: 0.0})


def _meant(name: str, fault: str, table: SiteTable) -> str:
    return did_you_mean(name, [str(column) for column in table.frame.columns]) if fault == "is missing" else ""


def _names(values: pd.Series, sample: str, path: Path) -> tuple[str, ...]:
    if values.isna().any():
        raise InputError(f"{path.name} has a row without a value in {sample!r} (--sample); name every row.")
    if values.duplicated().any():
        raise InputError(f"{path.name} names a row twice in {sample!r} (--sample); give every row its own name.")
    return tuple(values.astype(str))


def _card(card: ModelCard, site: str, samples: int, origin: str, digest: str) -> ModelCard:
    warning = (
        f"Adapted from {origin} to site {site!r} on {samples} unlabelled samples (table {digest}): all estimates are of the "
        f"sites of training, and how well the model does at {site!r} was not judged."
    )
    return card.model_copy(
        update={
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "warnings": (*card.warnings, warning),
            "versions": {"python": platform.python_version(), **{name: version_of(name) for name in REPORTED_VERSIONS}},
        }
    )


def _contract(contract: Contract, place: int, code: int) -> Contract:
    ranges = list(contract.ranges)
    ranges[place] = ranges[place].model_copy(update={"maximum": float(code)})
    return contract.model_copy(update={"ranges": tuple(ranges), "distance": _without(contract.distance, place)})


def _without(distance: RobustDistance, place: int) -> RobustDistance:
    """The distance in all features but one: a code that training had none of would be far off for being new.

    No row comes to lie farther than it was, so none is flagged that was not.

    Examples
    --------
    >>> both = RobustDistance(center=(0, 0), scale=(1, 1), precision=((2, 1), (1, 2)), limit=3)
    >>> _without(both, 1).precision
    ((1.5, 0.0), (0.0, 0.0))
    """
    precision = distance.arrays[2].copy()
    own = precision[place, place]
    if own > 0:
        precision -= np.outer(precision[:, place], precision[place]) / own
    precision[place], precision[:, place] = 0.0, 0.0
    # A copy that is validated, since the arrays of the first one are cached in it.
    return RobustDistance.model_validate({**distance.model_dump(), "precision": tuple(map(tuple, precision.tolist()))})


def _warnings(model: JudgedModel, bundle: ModelBundle, table: SiteTable, matrix: np.ndarray, unlike: float) -> tuple[str, ...]:
    found = []
    record = read_record(table.path)
    if record is not None and not is_as_written(table.path, record):
        found.append(f"{table.path.name} was changed after its features were extracted.")
    known = len(set(table.names) & (model.learnt_from | set(model.predictions["sample"])))
    if known:
        found.append(
            f"{known} of the samples have the name of one that {model.title} was made or judged with; if they are the same, they "
            "are of a site that it knows."
        )
    copies = len(matrix) - len(np.unique(np.delete(matrix, _place_of_site(bundle), axis=1), axis=0))
    if copies:
        found.append(f"{copies} of the samples have the same features as another one: a copy tells nothing new of the site.")
    if unlike > UNLIKE_SHARE:
        found.append(
            f"{unlike:.0%} of the samples are unlike what the model was trained on, before they are aligned: answers for this "
            "site will often be flagged so."
        )
    return tuple(found)


def _record(store: Store, found: Adaptation) -> Adaptation:
    """Write the new version as a run with what its origin was judged on, and register it."""
    model = found.model
    tags = {
        "kind": "adaptation",
        "adapted_from": model.title,
        "adapted_from_run": model.run_id,
        "site": found.table.site,
        "table_sha256": found.table.digest,
        "data_hash": model.card.data_hash,
        **({"sequence": model.card.sequence} if model.card.sequence else {}),
    }
    with started_run(store, model.study, tags) as run_id, tempfile.TemporaryDirectory() as temporary:
        copy_numbers(store, model.run_id, run_id)
        folder = Path(temporary) / "run"
        _write(found, artifacts_of(store, model.run_id), folder)
        store.client.log_artifacts(run_id, str(folder))
        version = register(store, str(model.name), run_id, found.bundle.card)
        store.client.set_model_version_tag(str(model.name), version, "adapted_from", model.title)
    return replace(found, run_id=run_id, version=version)


def _write(found: Adaptation, origin: Path, folder: Path) -> None:
    shutil.copytree(origin, folder, ignore=lambda where, names: NOT_CARRIED_OVER if Path(where) == origin else ())
    schema = found.bundle.schema.model_dump(mode="json")
    (folder / "schema.json").write_text(json.dumps(schema, indent=1), encoding="utf-8")
    (folder / "adaptation.json").write_text(json.dumps(_told(found), indent=1), encoding="utf-8")
    (folder / "summary.md").write_text(_summary(found), encoding="utf-8")
    save_bundle(found.bundle, folder / "bundle", _golden(found))


def _golden(found: Adaptation) -> np.ndarray:
    """The golden rows of the origin, and the same at the new site; no patient's."""
    stored = json.loads((found.model.bundle_folder / "golden.json").read_text(encoding="utf-8"))["rows"]
    rows = np.array(stored, dtype=float)
    return np.vstack([rows, _at(rows, found.bundle, len(found.known_sites))])


def _summary(found: Adaptation) -> str:
    warnings = [found.bundle.card.warnings[-1], *found.warnings]
    lines = [
        f"# {found.model.name}, adapted to site {found.table.site}",
        "",
        RESEARCH_USE_ONLY,
        "",
        f"All else recorded here was carried over from {found.model.title} (run {found.model.run_id}), and is of its sites.",
        "",
        *(f"Warning: {warning}" for warning in warnings),
        "",
    ]
    return "\n".join(lines)
