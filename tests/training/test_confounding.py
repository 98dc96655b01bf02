"""Confounding: what is planted is found, noise stays noise, and nobody is judged by a model that knew the patient."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, mannwhitneyu
from toy import toy_cohort

from features.cohort import Cohort
from features.table import FeatureTable
from training.confounding import confounding


def scanned(
    patients: int = 120,
    lesions: int = 1,
    p: int = 60,
    seed: int = 0,
    effect: float = 0.0,
    referred: float = 0.0,
    gaps: float = 0.0,
) -> Cohort:
    """A cohort of three sites; `effect` is what the scanner does to features, `referred` how often the outcome chose it."""
    cohort = toy_cohort(patients, lesions, p, signal=0, seed=seed, missing=gaps)
    rng = np.random.default_rng(seed + 500)
    labels = cohort.patient_labels.to_numpy()
    sent = rng.random(patients) < referred
    where = np.where(sent, 2 * labels, np.arange(patients) % 3)[pd.factorize(cohort.patients)[0]]
    echo = 80 + 20.0 * where + rng.normal(0, 1, len(where))
    values = cohort.features + effect * np.random.default_rng(1).normal(size=(3, p))[where]
    site = pd.Series(np.array(["Bergen", "Oslo", "Halle"])[where], index=cohort.samples, name="hospital")
    protocol = pd.DataFrame({"TE": echo, "direction": np.array(["ROW", "COL", "COL"])[where]}, index=cohort.samples)
    return Cohort(FeatureTable(values), cohort.labels, cohort.patients, protocol=protocol, site=site)


def test_a_scanner_that_marks_the_features_is_found_and_said() -> None:
    found = confounding(scanned(effect=1.0, gaps=0.05), np.random.default_rng(0))
    for estimate in (found.site_from_features, *found.protocol_from_features.values()):
        assert estimate.value > 0.9
        assert estimate.lower <= estimate.value <= estimate.upper
    site, acquisition = found.warnings
    assert site.startswith(f"The site can be predicted from the features (AUC {found.site_from_features.value:.2f}, ")
    assert "TE (AUC" in acquisition
    assert "direction (AUC" in acquisition


def test_an_outcome_that_chose_the_scanner_is_found_and_said() -> None:
    found = confounding(scanned(referred=0.6), np.random.default_rng(0))
    assert found.outcome_from_protocol.value > 0.65
    assert found.outcome_from_site.value > 0.65
    said = " ".join(found.warnings)
    assert "The outcome can be predicted from the protocol alone" in said
    assert "The outcome can be predicted from the site alone" in said
    assert "TE differs between the classes (Mann-Whitney test, p < 0.001)" in said
    assert "hospital differs between the classes (chi-squared test, p < 0.001)" in said
    assert "predicted from the features" not in said


def test_association_tests_are_scipys_with_one_value_per_patient() -> None:
    cohort = scanned(60, lesions=3, referred=0.1)
    found = {one.parameter: one.p_value for one in confounding(cohort, np.random.default_rng(0)).associations}
    labels = cohort.patient_labels
    echo = cohort.protocol["TE"].groupby(cohort.patients.to_numpy()).median().loc[labels.index]
    assert found["TE"] == pytest.approx(mannwhitneyu(echo[labels == 1], echo[labels == 0]).pvalue, rel=1e-12)
    first = cohort.site.groupby(cohort.patients.to_numpy()).first().loc[labels.index]
    table = pd.crosstab(first, labels)
    assert found["hospital"] == pytest.approx(chi2_contingency(table, correction=False).pvalue, rel=1e-12)


def test_a_patients_own_traits_do_not_pass_for_the_scanner() -> None:
    """Three lesions of a patient are alike and share a site: learning from one and judging on another would tell the site."""
    cohort = scanned(45, lesions=3)
    own = np.random.default_rng(3).normal(size=(45, 60))[pd.factorize(cohort.patients)[0]]
    alike = Cohort(
        FeatureTable(cohort.features * 0.05 + own), cohort.labels, cohort.patients, protocol=cohort.protocol, site=cohort.site
    )
    found = confounding(alike, np.random.default_rng(0))
    assert found.site_from_features.value < 0.65
    assert found.site_from_features.lower < 0.5


def test_noise_is_seldom_called_confounded() -> None:
    found = [confounding(scanned(90, seed=seed), np.random.default_rng(seed)) for seed in range(20)]
    assert np.mean([one.site_from_features.value for one in found]) == pytest.approx(0.5, abs=0.04)
    assert np.mean([one.outcome_from_protocol.value for one in found]) == pytest.approx(0.5, abs=0.06)
    assert sum("site can be predicted" in " ".join(one.warnings) for one in found) <= 3


def test_the_same_generator_gives_the_same_answer() -> None:
    one, two = (confounding(scanned(effect=0.1), np.random.default_rng(4)) for _ in range(2))
    assert one == two


def test_without_site_and_protocol_there_is_nothing_to_say() -> None:
    found = confounding(toy_cohort(), np.random.default_rng(0))
    assert found.warnings == ()
    assert found.model_dump(exclude_defaults=True) == {}


def test_a_site_of_few_patients_is_left_out_and_two_of_few_are_not_estimable() -> None:
    cohort = scanned(60, effect=1.0)
    few = cohort.site.copy()
    few.iloc[:] = "Oslo"
    few.iloc[:4] = "Bergen"
    lone = Cohort(cohort.table, cohort.labels, cohort.patients, site=few)
    estimate = confounding(lone, np.random.default_rng(0)).site_from_features
    assert estimate.value is None
    assert estimate.reason == "no two groups have 5 patients each"
    assert confounding(lone, np.random.default_rng(0)).warnings == ()


def test_gaps_and_constants_in_the_protocol_do_not_stop_it() -> None:
    cohort = scanned(60, effect=1.0)
    protocol = cohort.protocol.assign(field=1.5)
    protocol.iloc[::7, 0] = np.nan
    protocol.iloc[::5, 1] = None
    given = Cohort(cohort.table, cohort.labels, cohort.patients, protocol=protocol, site=cohort.site)
    found = confounding(given, np.random.default_rng(0))
    assert found.protocol_from_features["TE"].value > 0.9
    assert found.protocol_from_features["field"].value is None
    assert [one.parameter for one in found.associations] == ["TE", "direction", "hospital"]


def test_it_takes_seconds_for_a_thousand_features() -> None:
    cohort = scanned(150, p=1000, effect=0.2)
    start = time.perf_counter()
    confounding(cohort, np.random.default_rng(0))
    assert time.perf_counter() - start < 15  # about 1 s alone on two cores
