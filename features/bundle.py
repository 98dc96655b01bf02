"""The one file format that leaves training: a pipeline, the features it takes, what they looked like, and its card."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from sklearn.pipeline import Pipeline

from features import signing
from features.contract import Contract
from features.errors import BundleError
from features.profiles import Assignment, NearestMedoid, assign
from features.settings import Settings
from features.table import FeatureSchema

FORMAT = 2  # 2: contract, background, signature
MANIFEST = "manifest.json"
COMPONENTS = "components"
FILES = {"pipeline.skops", "schema.json", "contract.json", "card.json", "golden.json", "background.json"}
GOLDEN_TOLERANCE = 1e-9
# Entries of a card that came after the first release.
LATER = ("score", "horizon", "time_unit", "composite", "predictions", "profile")
RESEARCH_USE_ONLY = "Research use only: not a medical device, not for decisions about a patient."

# Beyond what skops trusts by itself, a bundle may hold these classes and no others. The list is pinned here, never
# read from a bundle. None runs anything of the bundle's choosing when it is built: a dtype is read from an empty
# array with pickles forbidden, a tree from arrays, a harmoniser from its parameters.
TRUSTED_TYPES = (
    "features.composite.CompositeScore",
    "features.composite.StandardisedLogOdds",
    "features.harmonise.AcquisitionRegression",
    "features.harmonise.SiteAlignment",
    "features.platforms.PlatformCentring",
    "features.profiles.NearestMedoid",
    "features.risk.BoostedRisk",
    "features.risk.CoxRisk",
    "features.signature_scores.SignatureScore",
    "numpy.dtype",
    "sklearn.tree._tree.Tree",
)


class Estimate(Settings):
    """A number about performance, with its interval; None where it is undefined, and then the reason.

    Examples
    --------
    >>> print(Estimate(value=0.81, lower=0.7, upper=0.9, level=0.95))
    0.810 (0.700 to 0.900)
    """

    value: float | None
    lower: float | None = None
    upper: float | None = None
    level: float = 0.95
    reason: str | None = None

    def __str__(self) -> str:
        if self.value is None:
            return f"undefined ({self.reason})"
        if self.lower is None or self.upper is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.lower:.3f} to {self.upper:.3f})"


class ScoreCard(Settings):
    """The score behind a model's probability: what the last step but one of its pipeline gives.

    Attributes
    ----------
    name : str
        As readers know it: "composite score", "signature score".
    cutoff : float
        A score at or above it is called positive; the probability does not decide then.
    unit : str or None
        None: the score has none.
    words : str
        What the score is, in a sentence.
    """

    name: str
    cutoff: float = Field(allow_inf_nan=False)
    unit: str | None = None
    words: str


class Part(Settings):
    """One of the two biomarkers of a composite.

    Attributes
    ----------
    name : str
        Feature of the composite.
    source : str
        Where its values come from, in words.
    model, version : str or None
        Registered model whose score it is; None for a plain column.
    """

    name: str
    modality: Literal["imaging", "genes"]
    source: str
    model: str | None = None
    version: str | None = None
    unit: str | None = None


class CompositeCard(Settings):
    """How two biomarkers become one score.

    Attributes
    ----------
    rule : str
        Kind of the composite, such as "separating_line".
    parts : tuple of two Part
        In the order of the model's features.
    missing : {"refuse", "alone"}
        Whether a patient without one of the biomarkers is refused, or judged by the other alone.
    theta_degrees, offset : float or None
        Direction in which the score rises, in the plane of the biomarkers in their own units, and the line's distance from
        the origin along it; None for a rule without line.
    x_intercept, y_intercept : float or None
        Where the line meets each biomarker's axis, in its unit; None where it does not.
    words : str
        The rule, in a sentence.
    """

    rule: str
    parts: tuple[Part, Part]
    missing: Literal["refuse", "alone"] = "refuse"
    theta_degrees: float | None = None
    offset: float | None = None
    x_intercept: float | None = None
    y_intercept: float | None = None
    words: str


class ClusterCard(Settings):
    """A cluster of training patients.

    Attributes
    ----------
    number : int
        From 1, in ascending order of the share of patients with the event.
    patients, events : int
        Of the training patients.
    risk : float
        Share with the event, or Kaplan and Meier's risk of it by the horizon.
    limit : float
        Largest squared distance of a training patient from the medoid; a patient beyond it is unlike any cluster.
    """

    number: int
    patients: int
    events: int
    risk: float
    limit: float

    @property
    def name(self) -> str:
        """As it is called wherever a person reads."""
        return cluster_name(self.number)


class ProfileCard(Settings):
    """The clusters of a profile model.

    Attributes
    ----------
    clusters : tuple of ClusterCard
    method : str
        How the medoids were found.
    chosen_by : str
        Who said how many clusters there are: "given", or a criterion.
    exploratory : bool
        Whether the outcome had a say in how many clusters there are or which are combined.
    words : str
        The profiles, in a sentence.
    """

    clusters: tuple[ClusterCard, ...]
    method: str
    chosen_by: str
    exploratory: bool
    words: str


def cluster_name(number: int) -> str:
    """What a cluster is called.

    Examples
    --------
    >>> cluster_name(2)
    'cluster 2'
    """
    return f"cluster {number}"


class ModelCard(Settings):
    """What a model is, learnt from what, judged how.

    Attributes
    ----------
    threshold : float
        A probability at or above it is called hypoxic, unless a score decides.
    held_out, internal : dict of str to Estimate
        Out-of-sample performance by metric.
    score : ScoreCard or None
        The score behind the probability, where it has a meaning of its own; then its cutoff decides the label.
    horizon : float or None
        The probability is the risk of the event by this time; None: it is that of a class.
    time_unit : str or None
        Unit of the horizon, in the plural ("months").
    composite : CompositeCard or None
        How the model joins two biomarkers, if it does.
    predictions : dict of str to str, or None
        SHA-256 of the recorded tables of predictions that it was judged by, by file name.
    profile : ProfileCard or None
        The clusters, of a model that assigns patients to clusters.
    """

    name: str
    study: str
    sequence: str | None = None
    created: str
    intended_use: str = RESEARCH_USE_ONLY
    endpoint: str
    positive_label: str = "hypoxic"
    negative_label: str = "not hypoxic"
    samples: int
    events: int
    patients: int
    held_out_patients: int
    threshold: float
    threshold_origin: str
    pipeline: str
    held_out: dict[str, Estimate]
    internal: dict[str, Estimate] | None = None
    fingerprint: str
    data_hash: str
    repeatable: bool = True
    warnings: tuple[str, ...] = ()
    versions: dict[str, str]
    score: ScoreCard | None = None
    horizon: float | None = None
    time_unit: str | None = None
    composite: CompositeCard | None = None
    predictions: dict[str, str] | None = None
    profile: ProfileCard | None = None

    @property
    def judged_out_of_fold(self) -> bool:
        """Whether it has no held-out patients, and is judged by cross-validation over all: a composite, or profiles."""
        return self.composite is not None or self.profile is not None

    @property
    def probability_words(self) -> str:
        """What the model's probability is the probability of, in words."""
        if self.horizon is None and self.profile is not None:
            return "risk of the event in the cluster"
        if self.horizon is None:
            return f"probability that the sample is {self.positive_label}"
        return " ".join(["risk of the event by", f"{self.horizon:g}", *([self.time_unit] if self.time_unit else [])])


@dataclass(frozen=True)
class ModelBundle:
    """A fitted pipeline from a feature matrix to a probability, its schema, its contract and its card.

    Attributes
    ----------
    pipeline : Pipeline
        Takes a float matrix of shape (n_samples, n_features) with the schema's columns in the schema's order.
    contract : Contract
        What a row must look like, and when it looks unlike the training samples.
    background : ndarray of shape (n_background, n_features)
        Rows that stand for the training samples where an answer is explained; no patient's.
    components : mapping of str to ModelBundle
        By feature of a composite: the model that gives its value, where that is one. A component has none itself.

    Raises
    ------
    BundleError
        The parts of the composite are not its features, or a component is of none of them, or has components itself; or no
        step of the pipeline gives the score.
    """

    pipeline: Pipeline
    schema: FeatureSchema
    card: ModelCard
    contract: Contract
    background: np.ndarray
    components: Mapping[str, ModelBundle] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = () if self.card.composite is None else tuple(part.name for part in self.card.composite.parts)
        if parts and parts != self.schema.names:
            raise BundleError(f"The composite's parts {list(parts)} are not its features {list(self.schema.names)}.")
        _check_components(self.components, parts)
        if self.card.profile is not None and not isinstance(self.pipeline[-1], NearestMedoid):
            raise BundleError("The model has clusters on its card, and its pipeline assigns to none.")
        if self.card.score is not None and len(self.pipeline.steps) < 2:
            raise BundleError(f"The {self.card.score.name} is none: the pipeline has no step before its last that could give it.")

    def score(self, matrix: np.ndarray) -> np.ndarray:
        """Probability of the event per row.

        Parameters
        ----------
        matrix : ndarray of shape (n_samples, n_features), float

        Returns
        -------
        ndarray of shape (n_samples,)
            Between 0 and 1; higher is more hypoxic.
        """
        return np.asarray(self.pipeline.predict_proba(matrix))[:, 1]

    def raw_score(self, matrix: np.ndarray) -> np.ndarray | None:
        """The score behind the probability per row; None if the model has no such score.

        Parameters
        ----------
        matrix : ndarray of shape (n_samples, n_features), float

        Returns
        -------
        ndarray of shape (n_samples,), or None
            In the unit of ``card.score``; higher is more hypoxic, or worse.
        """
        if self.card.score is None:
            return None
        return np.asarray(self.pipeline[:-1].transform(matrix), dtype=float)[:, 0]

    def assigned(self, matrix: np.ndarray) -> Assignment | None:
        """Cluster and distances per row; None if the model has no clusters.

        Parameters
        ----------
        matrix : ndarray of shape (n_samples, n_features), float
        """
        return None if self.card.profile is None else assign(self.pipeline, matrix)

    def value(self, matrix: np.ndarray) -> np.ndarray:
        """What the model gives to a composite of which it is a component: its score if it has one, else its probability.

        Parameters
        ----------
        matrix : ndarray of shape (n_samples, n_features), float

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        raw = self.raw_score(matrix)
        return self.score(matrix) if raw is None else raw


def save_bundle(bundle: ModelBundle, folder: Path, golden: np.ndarray, components: Mapping[str, Path] | None = None) -> None:
    """Write a bundle, signed, to a folder that does not exist yet; it is there whole or not at all.

    Parameters
    ----------
    golden : ndarray of shape (n_golden, n_features)
        Rows whose scores are stored with the model and must come out again when it is loaded. They travel with the
        model, so they must be no patient's.
    components : mapping of str to Path, optional
        By feature of a composite: folder of the saved bundle that gives its value. It is copied as it is, and the copy
        is verified.

    Raises
    ------
    BundleError
        A component cannot be loaded, is of no part of the composite, or has components itself; or the bundle holds a
        component whose folder is not given.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".bundle-", dir=folder.parent))
    try:
        _write_components(bundle, stage, components or {})
        _write_files(bundle, stage, golden, list(components or {}))
        signing.sign(stage)
        for path in (*stage.rglob("*"), stage):
            _flush(path)
        stage.chmod(0o755)
        stage.rename(folder)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def load_bundle(folder: Path) -> ModelBundle:
    """Read a bundle after checking that it is whole, unchanged, signed, and holds allowed classes only.

    The components of a composite are read with it, each after the same checks.

    Raises
    ------
    BundleError
        A file is missing, changed or extra; the signature is of no trusted key; a class is not in ``TRUSTED_TYPES``; the
        golden rows score differently; a component is not the one that was saved, or has components itself. Nothing of the
        pipeline was built unless all but the golden rows had passed.
    """
    places = _check_files(folder)
    signing.verify(folder)
    components = {name: _component(name, place) for name, place in places.items()}
    try:
        bundle = _read(folder, components)
        difference = _golden_difference(bundle, folder)
    except BundleError:
        raise
    except Exception as cause:
        raise BundleError(
            f"The model's files are not those of a bundle ({type(cause).__name__}); it was not loaded. Train it again."
        ) from cause
    if not difference <= GOLDEN_TOLERANCE:
        raise BundleError(
            f"The model scores its golden rows differently here (by {difference:.1e}); it was saved with {bundle.card.versions}. "
            "Serve it with those versions."
        )
    return bundle


def bundle_digest(folder: Path) -> str:
    """What a bundle is, byte for byte: the SHA-256 of its manifest, which holds those of its files."""
    return _digest(folder / MANIFEST)


def _write_components(bundle: ModelBundle, stage: Path, components: Mapping[str, Path]) -> None:
    """Copy first and verify the copy: what changes at its old place meanwhile changes nothing here."""
    for name in bundle.components.keys() - components.keys():
        raise BundleError(f"The component {name!r} cannot be saved without the folder of its own bundle.")
    for number, folder in enumerate(components.values()):
        shutil.copytree(folder, stage / COMPONENTS / str(number), symlinks=True, copy_function=shutil.copyfile)
    copies = {name: _component(name, stage / COMPONENTS / str(number)) for number, name in enumerate(components)}
    _check_components(copies, () if bundle.card.composite is None else bundle.schema.names)


def _check_components(components: Mapping[str, ModelBundle], parts: tuple[str, ...]) -> None:
    for name, component in components.items():
        if name not in parts:
            raise BundleError(f"The component {name!r} is of no part of a composite ({', '.join(parts) or 'the model is none'}).")
        if component.components or component.card.composite is not None:
            raise BundleError(f"The component {name!r} is a composite itself; a part of a composite must be a model of one kind.")


def _component(name: str, folder: Path) -> ModelBundle:
    """A component, which may have no components itself: else a folder could hold folders without end."""
    if (folder / COMPONENTS).exists():
        raise BundleError(f"The component {name!r} is a composite itself; a part of a composite must be a model of one kind.")
    try:
        return load_bundle(folder)
    except BundleError as error:
        raise type(error)(f"The component {name!r} cannot be used. {error}") from error


def _write_files(bundle: ModelBundle, stage: Path, golden: np.ndarray, components: list[str]) -> None:
    import skops.io  # loads every estimator of scikit-learn: seconds that reading a study need not wait for

    skops.io.dump(bundle.pipeline, stage / "pipeline.skops")
    (stage / "schema.json").write_text(bundle.schema.model_dump_json(indent=1), encoding="utf-8")
    # A card without what came later stays one that an older release reads.
    later = {name for name in LATER if getattr(bundle.card, name) is None}
    (stage / "card.json").write_text(bundle.card.model_dump_json(indent=1, exclude=later), encoding="utf-8")
    (stage / "contract.json").write_text(bundle.contract.model_dump_json(indent=1), encoding="utf-8")
    (stage / "background.json").write_text(json.dumps(bundle.background.tolist()), encoding="utf-8")
    scored = {"rows": golden.tolist(), "scores": bundle.score(golden).tolist()}
    raw = bundle.raw_score(golden)
    (stage / "golden.json").write_text(json.dumps(scored if raw is None else {**scored, "raw": raw.tolist()}), encoding="utf-8")
    manifest: dict[str, Any] = {"format": FORMAT, "sha256": {name: _digest(stage / name) for name in sorted(FILES)}}
    if components:
        manifest[COMPONENTS] = [
            {"name": name, "manifest_sha256": bundle_digest(stage / COMPONENTS / str(number))}
            for number, name in enumerate(components)
        ]
    (stage / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _check_files(folder: Path) -> dict[str, Path]:
    """Raise unless the folder holds what its manifest says; the folder of each component."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        digests: dict[str, str] = dict(manifest["sha256"])
        components = {str(one["name"]): str(one["manifest_sha256"]) for one in manifest.get(COMPONENTS, [])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
        raise BundleError(f"The model has no readable {MANIFEST}; it is incomplete. Register it again.") from cause
    if manifest.get("format") != FORMAT:
        raise BundleError(f"The model is of format {manifest.get('format')!r}; this version reads {FORMAT}. Train it again.")
    present = {path.name for path in folder.iterdir()} - {MANIFEST, signing.SIGNATURE}
    for name in sorted(present ^ (FILES | {COMPONENTS} if components else FILES)):
        raise BundleError(f"The model's file {name!r} is {'extra' if name in present else 'missing'}; it was not loaded.")
    for name in sorted(FILES):
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise BundleError(f"The model's file {name!r} is no plain file; it was not loaded.")
        if _digest(folder / name) != digests.get(name):
            raise BundleError(f"The model's file {name!r} was changed after it was saved; it was not loaded.")
    return _component_folders(folder / COMPONENTS, components) if components else {}


def _component_folders(folder: Path, digests: Mapping[str, str]) -> dict[str, Path]:
    """Folders of the components, which are those that the model was saved with and no others."""
    places = {name: folder / str(number) for number, name in enumerate(digests)}
    if any(path.is_symlink() or not path.is_dir() for path in (folder, *places.values())):
        raise BundleError("The model's components are not those that it was saved with; it was not loaded.")
    for extra in sorted({path.name for path in folder.iterdir()} - {path.name for path in places.values()}):
        raise BundleError(f"The model's file '{COMPONENTS}/{extra}' is extra; it was not loaded.")
    for name, place in places.items():
        if not (place / MANIFEST).is_file() or bundle_digest(place) != digests[name]:
            raise BundleError(f"The model's component {name!r} is not the one that it was saved with; it was not loaded.")
    return places


def _read(folder: Path, components: Mapping[str, ModelBundle]) -> ModelBundle:
    import skops.io

    pipeline_file = folder / "pipeline.skops"
    refused = sorted(set(skops.io.get_untrusted_types(file=pipeline_file)) - set(TRUSTED_TYPES))
    if refused:
        raise BundleError(
            f"The model holds {refused[0]}, which is not among the classes that a bundle may hold; it was not loaded."
        )
    return ModelBundle(
        pipeline=skops.io.load(pipeline_file, trusted=list(TRUSTED_TYPES)),
        schema=FeatureSchema.model_validate_json((folder / "schema.json").read_text(encoding="utf-8")),
        card=ModelCard.model_validate_json((folder / "card.json").read_text(encoding="utf-8")),
        contract=Contract.model_validate_json((folder / "contract.json").read_text(encoding="utf-8")),
        background=np.array(json.loads((folder / "background.json").read_text(encoding="utf-8")), dtype=float),
        components=components,
    )


def _golden_difference(bundle: ModelBundle, folder: Path) -> float:
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    rows = np.array(golden["rows"], dtype=float)
    difference = _largest_difference(bundle.score(rows), golden["scores"])
    raw = bundle.raw_score(rows)
    return difference if raw is None else max(difference, _largest_difference(raw, golden["raw"]))


def _largest_difference(scores: np.ndarray, stored: list[float]) -> float:
    """Relative to a score above 1, which no probability is; infinite where either holds no number."""
    expected = np.array(stored, dtype=float)
    differences = np.abs(scores - expected) / np.maximum(1.0, np.abs(expected))
    return float(np.max(np.nan_to_num(differences, nan=np.inf), initial=0.0))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
