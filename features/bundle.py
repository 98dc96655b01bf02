"""The one file format that leaves training: a pipeline, the features it takes, what they looked like, and its card."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline

from features import signing
from features.contract import Contract
from features.errors import BundleError
from features.settings import Settings
from features.table import FeatureSchema

FORMAT = 2  # 2: contract, background, signature
MANIFEST = "manifest.json"
FILES = {"pipeline.skops", "schema.json", "contract.json", "card.json", "golden.json", "background.json"}
GOLDEN_TOLERANCE = 1e-9
RESEARCH_USE_ONLY = "Research use only: not a medical device, not for decisions about a patient."

# Beyond what skops trusts by itself, a bundle may hold these classes and no others. The list is pinned here, never
# read from a bundle. None runs anything of the bundle's choosing when it is built: a dtype is read from an empty
# array with pickles forbidden, a tree from arrays, a harmoniser from its parameters.
TRUSTED_TYPES = (
    "features.harmonise.AcquisitionRegression",
    "features.harmonise.SiteAlignment",
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


class ModelCard(Settings):
    """What a model is, learnt from what, judged how.

    Attributes
    ----------
    threshold : float
        A probability at or above it is called hypoxic.
    held_out, internal : dict of str to Estimate
        Out-of-sample performance by metric.
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
    """

    pipeline: Pipeline
    schema: FeatureSchema
    card: ModelCard
    contract: Contract
    background: np.ndarray

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


def save_bundle(bundle: ModelBundle, folder: Path, golden: np.ndarray) -> None:
    """Write a bundle, signed, to a folder that does not exist yet; it is there whole or not at all.

    Parameters
    ----------
    golden : ndarray of shape (n_golden, n_features)
        Rows whose scores are stored with the model and must come out again when it is loaded. They travel with the
        model, so they must be no patient's.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".bundle-", dir=folder.parent))
    try:
        _write_files(bundle, stage, golden)
        signing.sign(stage)
        for path in (*stage.iterdir(), stage):
            _flush(path)
        stage.chmod(0o755)
        stage.rename(folder)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


def load_bundle(folder: Path) -> ModelBundle:
    """Read a bundle after checking that it is whole, unchanged, signed, and holds allowed classes only.

    Raises
    ------
    BundleError
        A file is missing, changed or extra; the signature is of no trusted key; a class is not in ``TRUSTED_TYPES``; the
        golden rows score differently. Nothing of the pipeline was built unless all but the last had passed.
    """
    _check_files(folder)
    signing.verify(folder)
    try:
        bundle = _read(folder)
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


def _write_files(bundle: ModelBundle, stage: Path, golden: np.ndarray) -> None:
    import skops.io  # loads every estimator of scikit-learn: seconds that reading a study need not wait for

    skops.io.dump(bundle.pipeline, stage / "pipeline.skops")
    (stage / "schema.json").write_text(bundle.schema.model_dump_json(indent=1), encoding="utf-8")
    (stage / "card.json").write_text(bundle.card.model_dump_json(indent=1), encoding="utf-8")
    (stage / "contract.json").write_text(bundle.contract.model_dump_json(indent=1), encoding="utf-8")
    (stage / "background.json").write_text(json.dumps(bundle.background.tolist()), encoding="utf-8")
    scored = {"rows": golden.tolist(), "scores": bundle.score(golden).tolist()}
    (stage / "golden.json").write_text(json.dumps(scored), encoding="utf-8")
    digests = {path.name: _digest(path) for path in sorted(stage.iterdir())}
    (stage / MANIFEST).write_text(json.dumps({"format": FORMAT, "sha256": digests}, indent=1), encoding="utf-8")


def _check_files(folder: Path) -> None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        digests: dict[str, str] = dict(manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as cause:
        raise BundleError(f"The model has no readable {MANIFEST}; it is incomplete. Register it again.") from cause
    if manifest.get("format") != FORMAT:
        raise BundleError(f"The model is of format {manifest.get('format')!r}; this version reads {FORMAT}. Train it again.")
    present = {path.name for path in folder.iterdir()} - {MANIFEST, signing.SIGNATURE}
    for name in sorted(present ^ FILES):
        raise BundleError(f"The model's file {name!r} is {'extra' if name in present else 'missing'}; it was not loaded.")
    for name in sorted(FILES):
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise BundleError(f"The model's file {name!r} is no plain file; it was not loaded.")
        if _digest(folder / name) != digests.get(name):
            raise BundleError(f"The model's file {name!r} was changed after it was saved; it was not loaded.")


def _read(folder: Path) -> ModelBundle:
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
    )


def _golden_difference(bundle: ModelBundle, folder: Path) -> float:
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    scores = bundle.score(np.array(golden["rows"], dtype=float))
    return float(np.max(np.abs(scores - np.array(golden["scores"], dtype=float)), initial=0.0))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
