"""Survival statistics against R: survival 3.5-3, riskRegression 2022.11.28 and fisher.test, run once, with their numbers here."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from training.survival.contingency import fourfold
from training.survival.cox import CoxFit, added_value, cox, hazard_ratio
from training.survival.curves import cumulative_incidence, kaplan_meier, log_rank, numbers_at_risk
from training.survival.discrimination import auc_at, brier_at, calibration_slope, harrell_c, uno_c
from training.survival.proportional import proportional_hazards

AGREES = {"rtol": 1e-6, "atol": 1e-8}


@pytest.fixture(scope="module")
def lung() -> pd.DataFrame:
    """North Central Cancer Treatment Group, as in R's survival but for `status`, which is 1 for a death here."""
    from lifelines.datasets import load_lung

    return load_lung()


@pytest.fixture(scope="module")
def rossi() -> pd.DataFrame:
    """Rossi's recidivism data: whole weeks, so many ties, and all who are censored are so at week 52."""
    from lifelines.datasets import load_rossi

    return load_rossi()


@pytest.fixture(scope="module")
def lung_fit(lung: pd.DataFrame) -> CoxFit:
    return cox(lung[["age", "sex", "ph.ecog"]], lung["time"], lung["status"])


@pytest.fixture(scope="module")
def rossi_risk(rossi: pd.DataFrame) -> pd.Series:
    return 1 - np.exp(-np.exp((rossi["prio"] - rossi["age"] / 2 + 8) / 8) / 3)


@pytest.fixture(scope="module")
def rossi_fit(rossi: pd.DataFrame) -> CoxFit:
    return cox(rossi[["fin", "age", "prio"]], rossi["week"], rossi["arrest"])


@pytest.mark.parametrize(
    ("transform", "expected", "median"),
    [
        ("log", [[0.82058489208126, 0.90964674618951], [0.34472158179583, 0.48583760354728]], (310, 285, 363)),
        ("log-log", [[0.812222319753539, 0.90231018051504], [0.338714269088323, 0.47838076764691]], (310, 284, 361)),
        ("plain", [[0.8194577339136809, 0.908480201376806], [0.3390285838476761, 0.479454665072453]], (310, 284, 361)),
    ],
)
def test_kaplan_meier_and_its_intervals_are_those_of_survfit(lung, transform, expected, median) -> None:
    curve = kaplan_meier(lung["time"], lung["status"], transform=transform)
    points = [curve.at(100), curve.at(365)]
    assert_allclose([point.survival for point in points], [0.86396896764524, 0.40924162446006], **AGREES)  # survfit
    assert_allclose([[point.lower, point.upper] for point in points], expected, **AGREES)  # survfit, conf.type
    assert (curve.median.value, curve.median.lower, curve.median.upper) == median  # quantile(survfit)
    assert numbers_at_risk(lung["time"], [100, 365, 900]).tolist() == [196, 65, 3]  # summary(survfit)


def test_kaplan_meier_with_many_ties_is_that_of_survfit(rossi) -> None:
    curve = kaplan_meier(rossi["week"], rossi["arrest"])
    found = [(point.survival, point.lower, point.upper) for point in map(curve.at, (10, 30, 52))]
    expected = [
        (0.9652777777778, 0.9430645979600, 0.9789209970666),
        (0.8611111111111, 0.8247865403696, 0.8904078160671),
        (0.7361111111111, 0.6918597157965, 0.7750631833747),
    ]
    assert_allclose(found, expected, **AGREES)  # survfit, log-log


def test_log_rank_of_two_and_of_four_groups_is_that_of_survdiff(lung) -> None:
    two = log_rank(lung["time"], lung["status"], lung["sex"])
    assert_allclose([two.chi2, *two.expected], [10.3267419549, 91.5817390296, 73.4182609704], **AGREES)  # survdiff
    assert two.observed.tolist() == [112, 53]
    assert two.z == pytest.approx(-np.sqrt(10.3267419549), rel=1e-6)  # women, the second group, die later
    known = lung.dropna(subset=["ph.ecog"])
    four = log_rank(known["time"], known["status"], known["ph.ecog"])
    assert_allclose([four.chi2, four.df], [21.9621316825, 3], **AGREES)  # survdiff
    assert_allclose(four.expected, [54.152697018923, 83.527564575082, 26.147353065330, 0.172385340665], **AGREES)


def test_log_rank_with_many_ties_is_that_of_survdiff(rossi) -> None:
    two = log_rank(rossi["week"], rossi["arrest"], rossi["fin"])
    assert_allclose([two.chi2, *two.expected], [3.837569576549, 55.57444276841, 58.42555723159], **AGREES)  # survdiff
    four = log_rank(rossi["week"], rossi["arrest"], rossi["prio"].clip(upper=3))
    assert_allclose(four.chi2, 13.58387092049, **AGREES)  # survdiff


def test_cox_regression_is_that_of_coxph(lung_fit) -> None:
    table = lung_fit.table
    assert_allclose(table["coefficient"], [0.011066764560073, -0.552612395703631, 0.463728475370428], **AGREES)
    assert_allclose(table["se"], [0.0092674110137005, 0.1677390537872635, 0.1135772661619966], **AGREES)
    assert_allclose(table["p_value"], [2.3241568099961e-01, 9.8605137213845e-04, 4.4470666518568e-05], **AGREES)
    assert_allclose(table["lower"], [0.99292809716985, 0.41421301854917, 1.27267517777430], **AGREES)
    assert_allclose(table["upper"], [1.02966196224215, 0.79943512738715, 1.98642358128759], **AGREES)
    assert_allclose([lung_fit.null_log_likelihood, lung_fit.log_likelihood], [-744.48045576144, -729.23012137486], **AGREES)
    assert_allclose([lung_fit.likelihood_ratio.chi2, lung_fit.score.chi2], [30.500668773157, 30.499922704949], **AGREES)
    assert lung_fit.wald.chi2 == pytest.approx(29.93, abs=0.005)  # R rounds this one to two decimals
    assert float(lung_fit.concordance) == pytest.approx(0.63713549300045, abs=1e-9)
    assert lung_fit.concordance.standard_error == pytest.approx(0.02506797385308, abs=1e-9)
    assert (lung_fit.n, lung_fit.events) == (227, 164)


def test_cox_regression_with_many_ties_is_that_of_coxph(rossi_fit) -> None:
    table = rossi_fit.table
    assert_allclose(table["coefficient"], [-0.34695446244195, -0.06710532934008, 0.09689319914475], **AGREES)
    assert_allclose(table["se"], [0.19024726548281, 0.02085054622846, 0.02725337578076], **AGREES)
    assert_allclose([rossi_fit.null_log_likelihood, rossi_fit.log_likelihood], [-675.3806323469, -660.8570253844], **AGREES)
    tests = [rossi_fit.likelihood_ratio.chi2, rossi_fit.score.chi2, rossi_fit.wald.chi2]
    assert_allclose(tests, [29.04721392491, 29.03352438915, 27.93890209507], **AGREES)
    concordance = [float(rossi_fit.concordance), rossi_fit.concordance.standard_error]
    assert_allclose(concordance, [0.63016063125264, 0.02729098083683], **AGREES)


def test_categories_are_coded_as_factors_in_coxph(lung) -> None:
    known = lung[lung["ph.ecog"] < 3]
    covariates = known[["wt.loss"]].assign(ecog=known["ph.ecog"].astype(int).astype(str))[["ecog", "wt.loss"]]
    fit = cox(covariates, known["time"], known["status"])
    assert fit.table.index.tolist() == ["ecog=1", "ecog=2", "wt.loss"]
    assert_allclose(fit.table["coefficient"], [0.397395818432803, 0.990836134088634, -0.007422224661992], **AGREES)  # coxph
    assert_allclose(proportional_hazards(fit).table["chi2"], [1.72338513293465, 0.26141929129274, 1.72338671367051], **AGREES)
    assert proportional_hazards(fit).table["df"].tolist() == [2, 1, 3]
    assert fit.notes == ("14 of 226 patients have a missing covariate and are left out",)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ("km", [0.18798767365229, 2.30543722740497, 2.05424877405441, 4.46365758875861]),
        ("identity", [0.15235031725392, 2.49191321710657, 1.57823523837676, 4.11938295147948]),
        ("log", [3.37363401074948, 2.03493687888480, 0.37049632477684, 5.38982142805895]),
        ("rank", [0.11729150699015, 2.04469468023567, 2.54487839262557, 4.71068014119877]),
    ],
)
def test_the_check_of_proportional_hazards_is_that_of_cox_zph(lung_fit, transform, expected) -> None:
    assert_allclose(proportional_hazards(lung_fit, transform).table["chi2"], expected, **AGREES)  # cox.zph of 3.5-3


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ("km", [0.06384154746565, 6.32546446007293, 0.51871057284991, 7.13673939429343]),
        ("log", [0.14152385790173, 8.68266522251893, 0.01308982220227, 8.99653805103930]),
        ("rank", [1.3925718279791, 0.9681002673861, 1.6497901056934, 3.8479578713301]),
    ],
)
def test_with_many_ties_the_check_of_proportional_hazards_is_that_of_cox_zph(rossi_fit, transform, expected) -> None:
    assert_allclose(proportional_hazards(rossi_fit, transform).table["chi2"], expected, **AGREES)  # cox.zph of 3.5-3


def test_scaled_schoenfeld_residuals_are_those_of_cox_zph(lung_fit) -> None:
    check = proportional_hazards(lung_fit)
    expected = [
        [0.059655251537313, 3.0058950037255, -2.229264571860671],  # time 5
        [-0.0241309847448459, -1.5216513894563, 2.82432788430188],  # time 814
        [-0.0538106111197591, -1.4082486161865, -0.58187342849313],  # time 883
    ]
    assert_allclose(check.residuals.iloc[[0, -2, -1]], expected, **AGREES)
    assert_allclose(check.scaled_time[[0, 1, 5]], [0, 0.0044052863436124, 0.0220264317180617], **AGREES)
    tied = check.residuals[check.time == 11]["age"].sort_values()
    assert_allclose(tied, [0.058129583023105, 0.126849087639737, 0.285197697759252], **AGREES)


def test_concordance_is_that_of_r(lung, rossi, rossi_risk) -> None:
    age = harrell_c(lung["time"], lung["status"], lung["age"])
    assert_allclose([float(age), age.standard_error], [0.550239832, 0.0251421116], rtol=0, atol=1e-9)  # concordance()
    known = lung.dropna(subset=["ph.ecog"])
    ecog = harrell_c(known["time"], known["status"], known["ph.ecog"])  # 7137 pairs tied in risk
    assert_allclose([float(ecog), ecog.standard_error], [0.604462526, 0.0239015269], rtol=0, atol=1e-9)
    weeks = harrell_c(rossi["week"], rossi["arrest"], rossi_risk)  # censored at the last week with events
    assert_allclose([float(weeks), weeks.standard_error], [0.6292799775, 0.02781884886], rtol=0, atol=1e-9)


def test_unos_concordance_is_that_of_r(lung, rossi, rossi_risk) -> None:
    found = [
        float(uno_c(lung["time"], lung["status"], lung["age"], None)),
        float(uno_c(lung["time"], lung["status"], lung["age"], 500)),
        float(uno_c(rossi["week"], rossi["arrest"], rossi_risk, 40)),
    ]
    expected = [0.549230726, 0.550282563, 0.626496711]  # concordance(timewt = "n/G2", ymax)
    assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("horizon", "auc", "brier"),
    [
        (180, 0.56663176295179, 0.27536213928456),
        (365, 0.53945605119715, 0.27222942472549),
        (500.5, 0.55877191342908, 0.26235951369540),
    ],
)
def test_auc_and_brier_score_at_a_horizon_are_those_of_riskregression(lung, horizon, auc, brier) -> None:
    risk = 1 / (1 + np.exp(-(lung["age"] - 62) / 10))
    assert float(auc_at(lung["time"], lung["status"], risk, horizon)) == pytest.approx(auc, abs=1e-9)  # Score(cens.model="km")
    assert float(brier_at(lung["time"], lung["status"], risk, horizon)) == pytest.approx(brier, abs=1e-9)


def test_calibration_slope_is_the_coefficient_of_coxph(rossi, rossi_risk) -> None:
    slope = calibration_slope(rossi["week"], rossi["arrest"], rossi_risk)
    assert slope.value == pytest.approx(0.8671584762039, rel=1e-6)
    assert (slope.upper - slope.value) / 1.959963984540054 == pytest.approx(0.1697008458175, rel=1e-6)


def test_cumulative_incidence_and_its_error_are_those_of_survfit(lung) -> None:
    """Deaths of women stand in for a competing event."""
    state = np.where(lung["status"] == 0, 0, lung["sex"])
    points = [cumulative_incidence(lung["time"], state).at(time) for time in (100, 365, 700)]
    share = np.array([point.survival for point in points])
    assert_allclose(share, [0.1053072379441, 0.4094644545363, 0.5855973805171], **AGREES)  # survfit, cuminc
    on_its_scale = np.log(-np.log([[point.lower, point.upper] for point in points])) - np.log(-np.log(share))[:, None]
    error = on_its_scale * [1, -1] / 1.959963984540054 * (-np.log(share) * share)[:, None]
    expected = np.array([0.02033291772973, 0.03495211089288, 0.03886648557779])  # survfit's infinitesimal jackknife
    assert_allclose(error, np.column_stack([expected, expected]), **AGREES)


def test_hazard_ratio_of_two_groups_is_that_of_coxph(lung) -> None:
    ratio = hazard_ratio(lung["time"], lung["status"], lung["sex"])
    expected = [0.5880028185636, 0.4237178303539, 0.8159848131714, 0.001491229204881]
    assert_allclose([ratio.value, ratio.lower, ratio.upper, ratio.p_value], expected, **AGREES)
    assert (ratio.method, ratio.reason) == ("wald", None)


def test_added_value_is_the_analysis_of_deviance_of_r(lung) -> None:
    found = added_value(lung[["age", "sex"]], lung[["ph.ecog"]], lung["time"], lung["status"])
    assert_allclose([found.chi2, found.p_value], [16.62444035, 4.556e-05], rtol=1e-4)  # anova(), printed to four digits
    assert found.chi2 == pytest.approx(2 * (737.54234155305 - 729.23012137486), rel=1e-9)
    assert_allclose([found.c_index_base, found.c_index_both], [0.602011421640471, 0.63713549300045], **AGREES)
    assert (found.df, found.n, found.events) == (1, 227, 164)


def test_fjeldbos_fourfold_table() -> None:
    sizes = [25, 18, 64, 11]  # Fjeldbo et al. 2020: both, genes only, neither, imaging only
    table = fourfold(np.repeat([True, False, False, True], sizes), np.repeat([True, True, False, False], sizes))
    assert [table.both, table.genes_only, table.neither, table.imaging_only] == sizes
    assert table.agreement == pytest.approx(0.754, abs=5e-4)
    assert table.fisher_p == pytest.approx(2.175e-6, rel=1e-3)  # fisher.test
    assert table.odds_ratio == pytest.approx(7.906, abs=5e-4)  # fisher.test, conditional
    assert table.kappa == pytest.approx(0.450, abs=5e-4)
