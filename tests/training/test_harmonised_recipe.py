"""A recipe that harmonises or filters: learnt inside every split, shipped with what it needs, refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.metrics import roc_auc_score
from toy import toy_cohort, toy_study

from features.bundle import TRUSTED_TYPES
from features.cohort import Cohort
from features.errors import InputError
from features.feature import Feature
from features.harmonise import AcquisitionRegression, SiteAlignment
from features.table import FeatureTable
from training import recipe as recipe_module
from training.evaluation import validate_internally
from training.partition import hold_out
from training.recipe import FittedRecipe, Recipe, fit_recipe, refuse_what_cannot_be_fitted
from training.workers import Workers

HERE = Workers(isolated=False)
HARMONISERS = ["features.harmonise.AcquisitionRegression", "features.harmonise.SiteAlignment"]


def measured_cohort(patients: int = 90, seed: int = 0, signal: float = 1.5, effect: float = 4.0, referred: float = 0.0) -> Cohort:
    """A toy cohort of three sites with protocols of their own, on which all features depend.

    `referred` is how much likelier a positive patient is than a negative one to have been measured with a long echo time.
    """
    cohort = toy_cohort(patients, seed=seed, signal=signal)
    rng = np.random.default_rng(seed + 1000)
    where = rng.permutation(np.arange(patients) % 3)
    sent = rng.random(patients) < abs(referred)
    where = np.where(sent, np.where(cohort.y == (referred > 0), 2, 0), where)
    echo_time = np.array([80.0, 100, 120])[where] + rng.normal(0, 2, patients)
    names = cohort.samples
    shift = np.random.default_rng(5).normal(size=cohort.features.shape[1]) * effect
    features = cohort.features + np.outer((echo_time - 100) / 20, shift)
    protocol = pd.DataFrame({"TE": echo_time, "direction": np.array(["ROW", "COL", "COL"])[where]}, index=names)
    site = pd.Series(np.array(["Oslo", "Bergen", "Halle"])[where], index=names, name="hospital")
    return Cohort(FeatureTable(features), cohort.labels, cohort.patients, protocol=protocol, site=site)


def recipe(**changes: object) -> Recipe:
    selection = {"methods": ["correlation", "chi2"], "top": 8, "votes": 2}
    return Recipe.model_validate({"selection": selection, "search": {"kind": "optuna", "trials": 1, "folds": 3}, **changes})


REGRESSION = {"kind": "regression"}
COMBAT = {"kind": "combat"}


def fitted_on(cohort: Cohort, seed: int = 0, **changes: object) -> FittedRecipe:
    return fit_recipe(recipe(**changes), cohort, np.random.default_rng(seed), HERE)


@pytest.mark.parametrize("harmonise", [REGRESSION, COMBAT], ids=["regression", "combat"])
def test_harmonising_takes_out_what_a_model_would_learn_of_the_acquisition(harmonise: dict[str, str]) -> None:
    """Positive patients were sent to the scanner with the long echo time; new ones are sent there as often as any."""
    training = measured_cohort(150, referred=0.5)
    plain, harmonised = (fitted_on(training, **change) for change in ({}, {"harmonise": harmonise}))
    new = measured_cohort(150, seed=1, referred=-0.5)
    assert roc_auc_score(new.y, plain.predict(new.inputs)) < 0.6
    assert roc_auc_score(new.y, harmonised.predict(new.inputs)) > 0.85


def test_the_shipped_model_asks_for_the_chosen_features_and_the_acquisition_only() -> None:
    cohort = measured_cohort()
    for harmonise, kind, asked in (
        (REGRESSION, AcquisitionRegression, ["TE", "direction"]),
        (COMBAT, SiteAlignment, ["hospital"]),
    ):
        fitted = fitted_on(cohort, harmonise=harmonise)
        chosen = len(fitted.selection.selected)
        assert list(fitted.schema.names) == [*fitted.selection.selected, *asked]
        assert fitted.pipeline.n_features_in_ == chosen + len(asked) < cohort.features.shape[1]
        first, imputer = fitted.pipeline.steps[0][1], fitted.pipeline.steps[1][1]
        assert isinstance(first, kind)
        assert imputer.n_features_in_ == chosen
    assert fitted.schema.features[-1].levels == ("Bergen", "Halle", "Oslo")
    assert {feature.family for feature in fitted.schema.features[chosen:]} == {"acquisition"}


def test_a_report_can_say_how_the_features_were_harmonised() -> None:
    cohort = measured_cohort()
    assert fitted_on(cohort).harmonised is None
    regressed = fitted_on(cohort, harmonise=REGRESSION)
    chosen = len(regressed.selection.selected)
    assert regressed.harmonised == f"regression on 2 acquisition parameters ({chosen} of {chosen} features)"
    assert fitted_on(cohort, harmonise={**COMBAT, "reference": "Oslo"}).harmonised == "ComBat over 3 sites to site Oslo"


def test_the_shipped_model_scores_as_the_one_that_was_judged() -> None:
    """The harmoniser cut to the chosen features gives the probabilities that the whole of it gives."""
    cohort = measured_cohort()
    fitted = fitted_on(cohort, harmonise=REGRESSION)
    matrix = np.column_stack([cohort.features, cohort.protocol["TE"], (cohort.protocol["direction"] == "ROW").astype(float)])
    whole = AcquisitionRegression((40, 41), (41,)).fit(matrix)
    positions = cohort.features.columns.get_indexer(list(fitted.selection.selected))
    rest = fitted.pipeline[1:]
    np.testing.assert_allclose(
        fitted.predict(cohort.inputs), rest.predict_proba(whole.transform(matrix)[:, positions])[:, 1], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("harmonise", [REGRESSION, COMBAT], ids=["regression", "combat"])
def test_nothing_of_the_held_out_patients_reaches_the_model(harmonise: dict[str, str]) -> None:
    cohort = measured_cohort()
    split = hold_out(cohort, 0.25, np.random.default_rng(0))
    spoilt = cohort.features.copy()
    spoilt.loc[split.test] = 1e6 * np.random.default_rng(1).normal(size=(len(split.test), 40))
    other = Cohort(FeatureTable(spoilt), cohort.labels, cohort.patients, protocol=cohort.protocol, site=cohort.site)
    one, two = (fitted_on(given.subset(split.train), harmonise=harmonise) for given in (cohort, other))
    development = cohort.subset(split.train).inputs
    np.testing.assert_array_equal(one.predict(development), two.predict(development))


@pytest.mark.parametrize("harmonise", [REGRESSION, COMBAT], ids=["regression", "combat"])
def test_every_inner_fold_harmonises_by_its_own_training_side(harmonise: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    cohort, seen = measured_cohort(), []
    original = recipe_module._inner_fold
    monkeypatch.setattr(recipe_module, "_inner_fold", lambda *args: seen.append(args[1:3]) or original(*args))
    fitted_on(cohort, harmonise=harmonise)
    assert len(seen) == 3
    for split, part in seen:
        _, features = recipe_module.harmonise_part(
            recipe(harmonise=harmonise).harmonise.estimator([Feature(name=str(n)) for n in range(40)], part.inputs),
            coded(cohort, part.inputs).loc[split.train],
            coded(cohort, part.inputs).loc[split.test[:1]],
        )
        np.testing.assert_array_equal(part.features.loc[split.train], features.loc[split.train])
        np.testing.assert_array_equal(part.features.loc[split.test[:1]], features.loc[split.test[:1]])


def coded(cohort: Cohort, inputs: tuple) -> pd.DataFrame:
    return pd.concat([cohort.features, recipe_module.coded_inputs(cohort, inputs)], axis=1)


def test_a_harmonised_model_survives_skops() -> None:
    cohort = measured_cohort()
    for harmonise in (REGRESSION, COMBAT):
        fitted = fitted_on(cohort, harmonise=harmonise)
        trusted = [*TRUSTED_TYPES, *HARMONISERS]
        stored = skops.io.dumps(fitted.pipeline)
        assert set(skops.io.get_untrusted_types(data=stored)) <= set(trusted)
        matrix = fitted.schema.conform(cohort.inputs).to_numpy()
        loaded = skops.io.loads(stored, trusted=trusted)
        np.testing.assert_array_equal(loaded.predict_proba(matrix), fitted.pipeline.predict_proba(matrix))


def at_another_site(cohort: Cohort, samples: int = 3) -> Cohort:
    site = cohort.site.copy()
    site.iloc[:samples] = "Trondheim"
    return Cohort(cohort.table, cohort.labels, cohort.patients, protocol=cohort.protocol, site=site)


def test_a_site_that_was_not_seen_stops_a_prediction_or_is_taken_for_the_reference() -> None:
    new = at_another_site(measured_cohort(60, seed=1))
    sentence = (
        r"^Site 'Trondheim' was not seen in training \(seen: Bergen, Halle, Oslo\)\. "
        r"Set unseen_site: reference to score it against the reference site\.$"
    )
    with pytest.raises(InputError, match=sentence):
        fitted_on(measured_cohort(), harmonise=COMBAT).predict(new.inputs)
    lenient = fitted_on(measured_cohort(), harmonise={**COMBAT, "unseen_site": "reference", "reference": "Oslo"})
    as_oslo = new.inputs.assign(hospital=new.site.replace("Trondheim", "Oslo"))
    np.testing.assert_array_equal(lenient.predict(new.inputs), lenient.predict(as_oslo))


@pytest.mark.parametrize("isolated", [False, True], ids=["here", "in worker processes"])
def test_a_site_that_an_inner_fold_has_not_seen_stops_the_run_with_its_sentence(isolated: bool) -> None:
    cohort = measured_cohort()
    one_patient = Cohort(
        cohort.table,
        cohort.labels,
        pd.Series(np.where(np.arange(90) < 3, "p0", cohort.patients), index=cohort.samples),
        protocol=cohort.protocol,
        site=at_another_site(cohort).site,
    )
    with (
        Workers(1, isolated=isolated) as workers,
        pytest.raises(
            InputError, match=r"^Site 'Trondheim' was not seen in training \(seen: Bergen, Halle, Oslo\)\. Set unseen_site"
        ),
    ):
        fit_recipe(recipe(harmonise=COMBAT), one_patient, np.random.default_rng(0), workers)


def test_what_stops_a_harmoniser_is_said_before_anything_is_learnt() -> None:
    cohort = measured_cohort()
    bare = toy_cohort(60)
    gap = cohort.protocol.copy()
    gap.iloc[3, 0] = np.nan
    holed = Cohort(cohort.table, cohort.labels, cohort.patients, protocol=gap, site=at_another_site(cohort, 1).site)
    for harmonise, given, sentence in (
        (REGRESSION, bare, r"name its columns under cohort\.acquisition"),
        (COMBAT, bare, r"name their column under cohort\.site"),
        (REGRESSION, holed, r"Acquisition parameter 'TE' is missing.* in 1 of 90 samples"),
        (COMBAT, holed, r"Site 'Trondheim' has one sample in a training part"),
    ):
        with pytest.raises(InputError, match=sentence):
            refuse_what_cannot_be_fitted(recipe(harmonise=harmonise), given)
    refuse_what_cannot_be_fitted(recipe(harmonise={**REGRESSION, "missing": "median"}), holed)
    refuse_what_cannot_be_fitted(recipe(harmonise=COMBAT), cohort)
    refuse_what_cannot_be_fitted(recipe(), bare)


def test_a_missing_parameter_is_refused_or_imputed_as_the_study_says() -> None:
    cohort, new = measured_cohort(), measured_cohort(20, seed=1)
    gap = new.inputs.copy()
    gap.loc[gap.index[0], ["TE", "direction"]] = None
    with pytest.raises(InputError, match="'TE' has a value that is missing"):
        fitted_on(cohort, harmonise=REGRESSION).predict(gap)
    lenient = fitted_on(cohort, harmonise={**REGRESSION, "missing": "median"})
    first = lenient.pipeline.steps[0][1]
    filled = new.inputs.copy()
    filled.loc[filled.index[0], ["TE", "direction"]] = [first.medians_[0], ("COL", "ROW")[int(first.medians_[1])]]
    np.testing.assert_allclose(lenient.predict(gap), lenient.predict(filled), rtol=1e-12)
    filled.loc[filled.index[0], "direction"] = "OBLIQUE"
    np.testing.assert_allclose(lenient.predict(gap), lenient.predict(filled), rtol=1e-12)
    with pytest.raises(InputError, match=r"'direction' is 'OBLIQUE', which was not seen in training \(seen: COL, ROW\)"):
        fitted_on(cohort, harmonise=REGRESSION).predict(filled)


def test_internal_validation_harmonises_anew_and_noise_stays_noise() -> None:
    study = toy_study(recipe=recipe(harmonise=COMBAT).model_dump())
    found = [
        validate_internally(
            study.recipe, measured_cohort(60, seed=seed, signal=0), study.evaluation, np.random.default_rng(0), HERE
        )
        for seed in range(3)
    ]
    assert 0.35 <= np.mean([one.estimates["roc_auc"].value for one in found]) <= 0.65


def replicates(folder: Path, cohort: Cohort, steady: range) -> dict[str, object]:
    """Two scans of every sample in which only some features come out alike."""
    rng = np.random.default_rng(0)
    noise = np.where(np.isin(np.arange(cohort.features.shape[1]), list(steady)), 0.01, 50.0)
    for name in ("first.csv", "second.csv"):
        again = cohort.features + rng.normal(size=cohort.features.shape) * noise
        again.rename_axis("sample").to_csv(folder / name)
    return {"tables": [str(folder / "first.csv"), str(folder / "second.csv")]}


def test_only_robust_features_may_be_chosen(tmp_path: Path) -> None:
    cohort = toy_cohort(60)
    robust = replicates(tmp_path, cohort, range(3, 30))
    fitted = fitted_on(cohort, robust=robust)
    assert set(fitted.selection.votes.index) == {f"f{i:03d}" for i in range(3, 30)}
    assert {"f003", "f004"} <= set(fitted.schema.names)
    with pytest.raises(InputError, match=r"set recipe\.robust\.samples: cohort"):
        fitted_on(cohort, robust={**robust, "samples": "others"})


def test_replicates_of_held_out_patients_have_no_say(tmp_path: Path) -> None:
    cohort = toy_cohort(60)
    robust = replicates(tmp_path, cohort, range(40))
    split = hold_out(cohort, 0.25, np.random.default_rng(0))
    before = fitted_on(cohort.subset(split.train), robust=robust)
    table = pd.read_csv(tmp_path / "second.csv", index_col="sample")
    table.loc[split.test] = 1e3
    table.to_csv(tmp_path / "second.csv")
    after = fitted_on(cohort.subset(split.train), robust=robust)
    np.testing.assert_array_equal(before.predict(cohort.inputs), after.predict(cohort.inputs))
