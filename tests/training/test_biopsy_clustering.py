"""The curve that tells more from less clustered tumours against R's mgcv, and what its residuals mean."""

import numpy as np
import pytest

from features.errors import InputError
from features.heterogeneity import virtual_biopsies
from training.biopsy_clustering import clustering, discordance

K = np.arange(60)
FRACTION = 0.02 + 0.88 * K / 59
DEVIATION = np.sqrt(FRACTION * (1 - FRACTION)) * (0.35 + 0.5 * ((17 * K * K + 31 * K) % 59) / 59)
# R mgcv 1.8.41: signs of residuals(gam(deviation ~ s(fraction)))
MGCV = "-+--+++++--+++++--+-+--++-+-++--+-+--+-+-+--+-+--++-+-++--+-"


def test_residuals_have_the_signs_of_mgcvs() -> None:
    found = clustering(FRACTION, DEVIATION)
    assert np.mean(found.more == [sign == "+" for sign in MGCV]) >= 0.95
    np.testing.assert_allclose(found.expected + found.residual, DEVIATION)


def test_tumours_hypoxic_in_one_block_are_more_clustered_than_speckled_ones() -> None:
    rng = np.random.default_rng(0)
    mask, rows = np.ones((36, 36), dtype=bool), np.arange(36)[:, np.newaxis]
    block = np.arange(40) % 2 == 0
    taken = [
        virtual_biopsies(mask, np.broadcast_to(rows < 36 * part, mask.shape) if one else rng.random(mask.shape) < part, rng)
        for part, one in zip(np.linspace(0.1, 0.9, 40), block, strict=True)
    ]
    found = clustering(np.array([one.fraction for one in taken]), np.array([one.deviation for one in taken]))
    np.testing.assert_array_equal(found.more, block)


def test_nineteen_tumours_are_too_few_and_twenty_are_not() -> None:
    with pytest.raises(InputError, match="There are 19 tumours"):
        clustering(FRACTION[:19], DEVIATION[:19])
    assert len(clustering(FRACTION[::3], DEVIATION[::3]).more) == 20


def test_tumours_that_are_hypoxic_all_over_or_nowhere_may_be_among_them() -> None:
    fraction, deviation = np.concatenate([[0, 0, 1, 1], FRACTION]), np.concatenate([np.zeros(4), DEVIATION])
    assert np.isfinite(clustering(fraction, deviation).residual).all()


@pytest.mark.parametrize(
    ("fraction", "deviation", "message"),
    [
        (FRACTION, np.zeros(60), "spread alike"),
        (FRACTION, np.where(FRACTION > 0.5, np.nan, DEVIATION), "is missing"),
        (np.where(FRACTION > 0.5, np.inf, FRACTION), DEVIATION, "is missing"),
    ],
)
def test_what_has_no_curve_is_refused_in_a_sentence(fraction: np.ndarray, deviation: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clustering(fraction, deviation)


def test_discordance_is_fishers_test_as_r_gives_it() -> None:
    # Fjeldbo's fourfold table stands for one of clustering and discordance: p 2.175e-6, odds ratio 7.906 (science.md 1A, R).
    sizes = [25, 11, 18, 64]
    found = discordance(np.repeat([True, True, False, False], sizes), np.repeat([True, False, True, False], sizes))
    assert (found.more_discordant, found.more_concordant, found.less_discordant, found.less_concordant) == tuple(sizes)
    assert found.p_value == pytest.approx(2.175e-6, rel=1e-3)
    assert found.odds_ratio == pytest.approx(7.906, abs=1e-3)


def test_without_a_discordant_tumour_there_is_no_odds_ratio() -> None:
    found = discordance(np.array([True, False]), np.array([False, False]))
    assert found.odds_ratio is None
    assert found.p_value == 1


@pytest.mark.parametrize(("more", "discordant"), [([], []), ([True], [True, False])])
def test_calls_that_do_not_pair_are_refused(more: list[bool], discordant: list[bool]) -> None:
    with pytest.raises(InputError, match="called by both biomarkers"):
        discordance(np.array(more), np.array(discordant))
