"""What every kind of pipeline must do to be shipped."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from features.bundle import Estimate, ModelBundle, ModelCard, load_bundle, save_bundle
from features.contract import ContractSettings, contract_of
from features.table import FeatureSchema
from training.models import CLASSIFIERS, SCALERS, Candidate
from training.options import Choice, Limits, Option

CARD = ModelCard(
    name="m", study="s", created="2026-01-01T00:00:00Z", endpoint="{}", samples=60, events=30, patients=60,
    held_out_patients=15,
    threshold=0.5, threshold_origin="fixed", pipeline="p", held_out={"roc_auc": Estimate(value=0.5)},
    fingerprint="f", data_hash="d", versions={},
)  # fmt: skip


def simplest(option: Option) -> dict[str, object]:
    values: dict[str, object] = {}
    for parameter in option.parameters(Limits(40, 6)):
        middle = parameter.options[0] if isinstance(parameter, Choice) else (parameter.low + parameter.high) / 2
        values[parameter.name] = round(middle) if getattr(parameter, "whole", False) else middle
    return values


@pytest.mark.parametrize("classifier", CLASSIFIERS, ids=lambda option: option.name)
@pytest.mark.parametrize("scaler", SCALERS, ids=lambda option: option.name)
def test_a_pipeline_survives_the_bundle_with_equal_scores_and_without_a_patient(
    scaler: Option, classifier: Option, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 6)), np.arange(60) % 2
    steps = Candidate.of(scaler.name, simplest(scaler), classifier.name, simplest(classifier)).pipeline(3).steps
    pipeline = make_pipeline(SimpleImputer(strategy="median"), *(step for _, step in steps)).fit(X, y)
    contract = contract_of(pd.DataFrame(X, columns=list("abcdef")), ContractSettings())
    bundle = ModelBundle(pipeline, FeatureSchema.of("abcdef"), CARD, contract, background=X[:2] * 0.5)
    save_bundle(bundle, tmp_path / "bundle", X[:2] * 0.5)
    loaded = load_bundle(tmp_path / "bundle")
    new = rng.normal(size=(40, 6))
    np.testing.assert_array_equal(loaded.score(new), pipeline.predict_proba(new)[:, 1])
    arrays = [value for _, step in loaded.pipeline.steps for value in vars(step).values() if isinstance(value, np.ndarray)]
    assert not any(array.shape == X.shape for array in arrays)
