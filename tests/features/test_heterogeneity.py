"""Variance within and between tumours against published numbers, lme4 and statsmodels; and what holds of every virtual biopsy."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from features.errors import InputError
from features.heterogeneity import (
    empirical_logit,
    reduced_share,
    share_interval,
    variance_components,
    virtual_biopsies,
)

# Six batches, five yields each: Davies & Goldsmith 1972, Statistical Methods in Research and Production, table 6.1.
DYESTUFF = np.array(
    [
        [1545, 1440, 1440, 1520, 1580],
        [1540, 1555, 1490, 1560, 1495],
        [1595, 1550, 1605, 1510, 1560],
        [1445, 1440, 1595, 1465, 1545],
        [1595, 1630, 1515, 1635, 1625],
        [1520, 1455, 1450, 1480, 1445],
    ],
    dtype=float,
).ravel()
BATCH = np.repeat(list("ABCDEF"), 5)
KEPT = np.setdiff1d(np.arange(30), [9, 13, 14, 22, 23, 24])  # leaves 5, 4, 3, 5, 2 and 5
# Box & Tiao 1973, Bayesian Inference in Statistical Analysis, table 5.1.4: less between the batches than by chance.
DYESTUFF_2 = np.array(
    [
        [7.298, 3.846, 2.434, 9.566, 7.990],
        [5.220, 6.556, 0.608, 11.788, -0.892],
        [0.110, 10.386, 13.434, 5.510, 8.166],
        [2.212, 4.852, 7.092, 9.288, 4.980],
        [0.282, 9.014, 4.458, 9.446, 7.198],
        [1.722, 4.782, 8.106, 0.758, 3.758],
    ]
).ravel()


def test_the_share_within_batches_of_dyestuff_is_the_known_one() -> None:
    found = variance_components(DYESTUFF, BATCH)
    assert (found.within, found.between) == pytest.approx((2451.25, 1764.05), rel=1e-12)  # R aov
    assert found.within_share == pytest.approx(0.5815125851, abs=1e-10)  # science.md 1A
    assert (found.tumours, found.samples) == (6, 30)


def test_on_balanced_data_restricted_maximum_likelihood_gives_the_same() -> None:
    found = variance_components(DYESTUFF, BATCH, "reml")
    assert (found.within, found.between) == pytest.approx((2451.25, 1764.05), rel=1e-6)  # R lme4 1.1.31


def test_unequal_numbers_of_samples_are_as_in_r() -> None:
    anova, reml = (variance_components(DYESTUFF[KEPT], BATCH[KEPT], method) for method in ("anova", "reml"))
    assert (anova.within, anova.between) == pytest.approx((2445.995370370379, 1729.630414312612), rel=1e-10)  # R aov, with n0
    assert (reml.within, reml.between) == pytest.approx((2483.83939182321, 1972.30709424058), rel=1e-5)  # R lme4 1.1.31


@pytest.mark.parametrize("method", ["anova", "reml"])
def test_less_between_than_by_chance_is_nothing_between(method) -> None:
    found = variance_components(DYESTUFF_2, BATCH, method)
    assert found.between == 0
    assert found.within_share == 1
    if method == "reml":
        assert found.within == pytest.approx(13.8063096275862, rel=1e-9)  # R lme4 1.1.31: all around one mean


@pytest.mark.parametrize("seed", range(6))
def test_restricted_maximum_likelihood_is_that_of_statsmodels(seed: int) -> None:
    from statsmodels.regression.mixed_linear_model import MixedLM

    rng = np.random.default_rng(seed)
    tumour = np.repeat(np.arange(15), rng.integers(1, 6, size=15))
    values = rng.normal(size=15)[tumour] * 1.2 + rng.normal(size=len(tumour))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = MixedLM(values, np.ones(len(values)), tumour).fit(reml=True, method="powell", xtol=1e-10, ftol=1e-14)
    ours = variance_components(values, tumour, "reml")
    assert ours.within == pytest.approx(theirs.scale, rel=1e-3)
    assert ours.between == pytest.approx(float(theirs.cov_re[0, 0]), rel=1e-3)


@pytest.mark.parametrize(("biopsies", "expected"), [(1, 0.33), (2, 0.1976), (3, 0.1410), (4, 0.1096)])
def test_several_biopsies_reduce_the_published_share(biopsies: int, expected: float) -> None:
    assert reduced_share(0.33, biopsies) == pytest.approx(expected, abs=5e-5)  # Fjeldbo et al. 2020: .33, .20, .14, .11


@given(st.integers(0, 1000), st.floats(-5, 5), st.floats(0.1, 10))
def test_the_share_does_not_know_the_unit_nor_the_order(seed: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(30)
    for method in ("anova", "reml"):
        other = variance_components((shift + scale * DYESTUFF)[order], BATCH[order], method)
        assert other.within_share == pytest.approx(variance_components(DYESTUFF, BATCH, method).within_share, abs=1e-6)


@pytest.mark.parametrize("method", ["anova", "reml"])
def test_samples_that_are_equal_within_every_tumour_have_no_share_within(method) -> None:
    found = variance_components(np.array([1.0, 1, 3, 3, 8, 8]), np.repeat([0, 1, 2], 2), method)
    assert (found.within, found.between) == pytest.approx((0, 13))


def test_the_interval_holds_the_value_repeats_itself_and_narrows_with_more_tumours() -> None:
    def width(tumours: int) -> float:
        rng = np.random.default_rng(1)
        tumour = np.repeat(np.arange(tumours), 3)
        values = rng.normal(size=tumours)[tumour] + rng.normal(size=len(tumour))
        found, again = (share_interval(values, tumour, np.random.default_rng(2), 300) for _ in range(2))
        assert found == again
        assert found.value == variance_components(values, tumour).within_share
        assert found.lower < found.value < found.upper
        return found.upper - found.lower

    assert width(100) < width(20)


def test_a_resample_is_the_analysis_of_the_tumours_that_were_drawn() -> None:
    rng = np.random.default_rng(5)
    weights = rng.multinomial(6, np.full(6, 1 / 6), size=200)
    expected = []
    for drawn in weights:
        rows = [np.flatnonzero(name == BATCH) for name, times in zip("ABCDEF", drawn, strict=True) for _ in range(times)]
        expected.append(variance_components(DYESTUFF[np.concatenate(rows)], np.repeat(np.arange(6), 5)).within_share)
    found = share_interval(DYESTUFF, BATCH, np.random.default_rng(5), 200, level=0.9)
    assert (found.lower, found.upper) == pytest.approx(tuple(np.quantile(expected, [0.05, 0.95])), rel=1e-9)


@pytest.mark.slow
def test_the_interval_covers_the_truth_in_most_of_many_cohorts() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        tumour = np.repeat(np.arange(40), 2)
        values = np.sqrt(0.67) * rng.normal(size=40)[tumour] + np.sqrt(0.33) * rng.normal(size=80)
        found = share_interval(values, tumour, rng, 500)
        covered += found.lower <= 0.33 <= found.upper
    assert 0.87 <= covered / 400 <= 0.97  # nominally 0.95; measured 0.91


def test_the_empirical_logit_is_finite_and_nearly_the_logit_in_between() -> None:
    logits = empirical_logit(np.array([0.0, 0.3, 1.0]), np.array([1000, 1000, 1000]))
    np.testing.assert_allclose(logits, [np.log(0.5 / 1000.5), np.log(300.5 / 700.5), np.log(1000.5 / 0.5)])


@pytest.mark.parametrize(
    ("values", "tumour", "message"),
    [
        ([1.0, 2, 3], ["a", "a", "a"], "3 samples of 1 tumours"),
        ([1.0, 2, 3], ["a", "b", "c"], "3 samples of 3 tumours"),
        ([1.0, np.nan, 3], ["a", "a", "b"], "1 of 3 values are no numbers"),
        ([2.0, 2, 2], ["a", "a", "b"], "All values are the same"),
    ],
)
def test_what_cannot_be_parted_is_refused_in_a_sentence(values, tumour, message: str) -> None:
    with pytest.raises(InputError, match=message):
        variance_components(np.array(values), np.array(tumour))


@pytest.mark.parametrize(
    ("fraction", "voxels", "message"), [(30.0, 12.0, "not between 0 and 1"), (0.3, 0.0, "less than one voxel")]
)
def test_what_is_no_fraction_of_voxels_is_refused(fraction: float, voxels: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        empirical_logit(np.array([fraction]), np.array([voxels]))


# Virtual biopsies


MASKS = st.one_of(
    arrays(bool, st.tuples(st.integers(3, 15), st.integers(3, 15)), elements=st.booleans()),
    arrays(
        bool, st.tuples(st.integers(1, 3), st.integers(3, 12), st.integers(3, 12)), elements=st.sampled_from([True, True, False])
    ),
)


def parts(mask: np.ndarray, patch: np.ndarray) -> int:
    """In how many parts a patch is, connected by faces within slices."""
    taken = np.zeros(mask.shape, dtype=bool)
    taken.ravel()[patch] = True
    return int(sum(ndimage.label(layer)[1] for layer in (taken[np.newaxis] if taken.ndim == 2 else taken)))


@given(MASKS, st.integers(0, 1000))
def test_every_biopsy_is_twelve_connected_voxels_of_one_slice_inside_the_tumour(mask: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    below = rng.random(mask.shape) < 0.4
    try:
        found = virtual_biopsies(mask, below, rng)
    except InputError:
        layers = mask[np.newaxis] if mask.ndim == 2 else mask
        sizes = [np.bincount(ndimage.label(layer)[0].ravel())[1:] for layer in layers]
        assert max((size.max(initial=0) for size in sizes), default=0) < 12
        assume(False)
    assert len(found.patches) == max(1, int(mask.sum() / 12 + 0.5))
    for patch, fraction in zip(found.patches, found.fractions, strict=True):
        assert len(set(patch.tolist())) == 12
        assert mask.ravel()[patch].all()
        assert fraction == below.ravel()[patch].mean()
        assert parts(mask, patch) == 1
    assert found.fraction == below[mask].mean()


def test_rectangles_come_both_ways_round_and_from_everywhere() -> None:
    mask = np.ones((2, 10, 10), dtype=bool)
    rng = np.random.default_rng(0)
    patches = np.concatenate([virtual_biopsies(mask, mask, rng).patches for _ in range(400)])
    layer, rows, columns = np.unravel_index(patches, mask.shape)
    heights = np.ptp(rows, axis=1) + 1
    assert set(zip(heights, np.ptp(columns, axis=1) + 1, strict=True)) == {(3, 4), (4, 3)}
    assert (layer == layer[:, :1]).all()
    corners = pd.Series(zip(layer[:, 0], heights, rows.min(axis=1), columns.min(axis=1), strict=True)).value_counts()
    assert len(corners) == 2 * (8 * 7 + 7 * 8)  # every place there is
    chi2 = float(((corners - corners.mean()) ** 2 / corners.mean()).sum())
    assert abs(chi2 - 223) < 4 * np.sqrt(2 * 223)  # uniformly: 224 places


def test_where_no_rectangle_fits_biopsies_grow() -> None:
    thin = np.zeros((30, 30), dtype=bool)
    thin[5, :] = thin[:, 9] = True
    found = virtual_biopsies(thin, thin, np.random.default_rng(0))
    assert len(found.patches) == 5
    assert all(parts(thin, patch) == 1 for patch in found.patches)
    assert len({tuple(sorted(patch)) for patch in found.patches}) > 1


def test_biopsies_grow_only_in_parts_that_are_large_enough() -> None:
    mask = np.zeros((20, 20), dtype=bool)
    mask[0, :14], mask[10, :5] = True, True
    for seed in range(20):
        found = virtual_biopsies(mask, mask, np.random.default_rng(seed))
        assert (found.patches < 20).all()


def test_a_map_at_random_spreads_by_little_more_than_chance_and_half_a_plane_by_much() -> None:
    rng = np.random.default_rng(0)
    mask = np.ones((40, 40), dtype=bool)
    spread = np.mean([virtual_biopsies(mask, rng.random(mask.shape) < 0.3, rng).deviation for _ in range(100)])
    assert spread == pytest.approx(np.sqrt(0.3 * 0.7 / 12), rel=0.05)  # binomial, 0.132
    half = np.broadcast_to(np.arange(40)[:, np.newaxis] < 12, (40, 40))
    deviations = [virtual_biopsies(mask, half, np.random.default_rng(seed)).deviation for seed in range(50)]
    assert min(deviations) > 0.38  # science.md 1A: 0.432
    assert max(deviations) < 0.5


@pytest.mark.parametrize("hypoxic", [True, False])
def test_a_tumour_that_is_hypoxic_all_over_or_nowhere_does_not_spread(hypoxic: bool) -> None:
    mask = np.ones((12, 12), dtype=bool)
    found = virtual_biopsies(mask, np.full(mask.shape, hypoxic), np.random.default_rng(0))
    assert (found.fraction, found.deviation) == (float(hypoxic), 0.0)


def test_one_biopsy_has_no_spread() -> None:
    found = virtual_biopsies(np.ones((3, 4), dtype=bool), np.eye(3, 4, dtype=bool), np.random.default_rng(0))
    assert len(found.fractions) == 1
    assert np.isnan(found.deviation)


def test_the_same_generator_takes_the_same_biopsies() -> None:
    mask = np.ones((30, 30), dtype=bool)
    once, again = (virtual_biopsies(mask, mask, np.random.default_rng(3)).patches for _ in range(2))
    np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize(
    ("mask", "below", "message"),
    [
        (np.ones((3, 3), dtype=bool), np.ones((3, 3), dtype=bool), "No slice of the tumour has 12 connected voxels"),
        (np.eye(20, dtype=bool), np.eye(20, dtype=bool), "No slice of the tumour has 12 connected voxels"),
        (np.ones((5, 5), dtype=bool), np.ones((5, 6), dtype=bool), r"shape \(5, 5\) and the map \(5, 6\)"),
        (np.ones(20, dtype=bool), np.ones(20, dtype=bool), "both must be one slice, or one volume"),
    ],
)
def test_a_tumour_too_small_for_a_biopsy_is_refused(mask: np.ndarray, below: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        virtual_biopsies(mask, below, np.random.default_rng(0))
