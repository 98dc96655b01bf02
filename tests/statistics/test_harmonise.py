"""What harmonisation promises, over many simulated cohorts: acquisition goes, biology stays, noise is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from features.harmonise import AcquisitionRegression, SiteAlignment


def protocol_of(n: int, rng: np.random.Generator) -> np.ndarray:
    """Nine parameters as in Halle et al.: quantities, a phase direction, and two that say the same twice."""
    thickness, pixel = rng.choice([3.0, 4.0, 5.0], n), rng.uniform(0.4, 0.9, n)
    echo = rng.normal(100, 10, n)
    return np.column_stack(
        [
            thickness * pixel**2,
            thickness / pixel,
            rng.normal(4000, 800, n),
            echo,
            rng.choice([90.0, 150.0], n),
            rng.integers(1, 5, n),
            np.full(n, 1.5),
            echo / 10,
            rng.integers(0, 2, n),
        ]
    )


def shift_between(X: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Difference of the means of two groups in standard deviations within groups, per feature."""
    one, other = X[group == 0], X[group == 1]
    spread = np.sqrt((one.var(axis=0, ddof=1) + other.var(axis=0, ddof=1)) / 2)
    return np.asarray((one.mean(axis=0) - other.mean(axis=0)) / spread)


def test_of_132_patients_and_293_features_nothing_is_explained_after_it() -> None:
    """science.md 1A: 244 of 293 before, 0 after (paper: 252)."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        protocol = protocol_of(132, rng)
        z = np.nan_to_num((protocol - protocol.mean(axis=0)) / protocol.std(axis=0).clip(1e-9))
        effect = rng.normal(0, 0.25, (9, 293)) * (np.arange(293) < 260)
        X = rng.normal(size=(132, 293)) + z @ effect
        positions, codes = tuple(range(293, 302)), (301,)
        before = AcquisitionRegression(positions, codes).fit(np.hstack([X, protocol]))
        left = before.transform(np.hstack([X, protocol]))
        after = AcquisitionRegression(positions, codes).fit(np.hstack([left, protocol]))
        assert 200 <= before.gated_.sum() <= 275
        assert after.gated_.sum() == 0
        np.testing.assert_allclose(after.p_values_[before.gated_], 1.0, atol=1e-12)


def gates_on_noise(repeats: int) -> np.ndarray:
    """Whether anything is gated where the protocol explains nothing."""
    found = []
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        matrix = np.hstack([rng.normal(size=(100, 60)), protocol_of(100, rng)])
        found.append(AcquisitionRegression(tuple(range(60, 69)), (68,)).fit(matrix).gated_.any())
    return np.array(found)


def test_features_that_the_protocol_does_not_touch_are_seldom_changed() -> None:
    assert gates_on_noise(60).mean() <= 0.15  # 5% is promised; 3 standard errors above it are 13%


@pytest.mark.slow
def test_features_that_the_protocol_does_not_touch_are_changed_in_one_cohort_of_twenty() -> None:
    assert gates_on_noise(1000).mean() == pytest.approx(0.05, abs=0.021)  # 3 standard errors


def cohort_of_two_sites(rng: np.random.Generator, n: int = 160, p: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half of the features differ by 0.8 standard deviations between classes; site shifts all by 2 and stretches them."""
    y, site = np.arange(n) % 2, (np.arange(n) // 2) % 2
    biology = 0.8 * np.outer(y, np.arange(p) < p // 2)
    X = (rng.normal(size=(n, p)) + biology) * np.where(site == 1, 1.6, 1.0)[:, None]
    return X + np.outer(site, rng.normal(0, 2, p)), y, site


def test_a_planted_site_shift_goes_and_planted_biology_stays_in_patients_that_were_not_learnt_from() -> None:
    before, after, kept, noise = [], [], [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, y, site = cohort_of_two_sites(rng, 320)
        train = np.arange(320) < 160
        matrix = np.column_stack([X, site])
        aligned = SiteAlignment(site=50).fit(matrix[train]).transform(matrix[~train])
        before.append(np.abs(shift_between(X[~train], site[~train])).mean())
        after.append(np.abs(shift_between(aligned, site[~train])).mean())
        difference = -shift_between(aligned, y[~train])
        kept.append(difference[:25].mean())
        noise.append(difference[25:].mean())
    assert np.mean(before) > 1.0
    assert np.mean(after) < 0.2  # 0.18 is what two samples of 80 differ by, with what training could not know
    assert np.mean(kept) == pytest.approx(0.8, abs=0.08)
    assert np.mean(noise) == pytest.approx(0, abs=0.05)


def test_a_site_is_no_longer_told_by_any_feature_after_alignment() -> None:
    areas = []
    for seed in range(10):
        X, _, site = cohort_of_two_sites(np.random.default_rng(seed))
        aligned = SiteAlignment(site=50).fit_transform(np.column_stack([X, site]))
        areas.append([abs(roc_auc_score(site, column) - 0.5) for column in aligned.T])
    assert np.mean(areas) < 0.05


def test_a_site_that_was_adapted_to_is_aligned_as_well_as_one_of_training() -> None:
    left = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, _, site = cohort_of_two_sites(rng, 400)
        new = rng.normal(size=(200, 50)) * 0.7 + rng.normal(0, 2, 50)
        fitted = SiteAlignment(site=50, unseen_site="adapt", minimum_cases=100).fit(np.column_stack([X, site]))
        rows = np.column_stack([new, np.full(200, 2.0)])
        out = fitted.adapted(rows[:100], 2).transform(rows[100:])
        left.append(np.abs((out.mean(axis=0) - fitted.grand_mean_) / fitted.pooled_sd_).mean())
    assert np.mean(left) < 0.2
