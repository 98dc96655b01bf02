"""Clusters against columns of the table; reference numbers are of R 4.2.2 unless another source is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from features.errors import InputError
from training.profile.associations import (
    RANDOM_TABLES,
    Associations,
    associate,
    chi_square,
    compare_counts,
    compare_quantities,
    fisher,
    kruskal_wallis,
)

# Job satisfaction by income, Agresti 2002, table 2.8: the example of R's fisher.test.
JOB = [[1, 2, 1, 0], [3, 3, 6, 1], [10, 10, 14, 9], [6, 7, 12, 11]]
# Cylinders by gears of 32 cars, R's mtcars.
GEARS = [[1, 8, 2], [2, 4, 1], [12, 0, 2]]
# Party by gender, Agresti 2007, page 39: the example of R's chisq.test.
PARTY = [[762, 327, 468], [484, 239, 477]]
# Insects after each of six sprays, R's InsectSprays (Beall 1942).
SPRAYS = [
    [10, 7, 20, 14, 14, 12, 10, 23, 17, 20, 14, 13],
    [11, 17, 21, 11, 16, 14, 17, 17, 19, 21, 7, 13],
    [0, 1, 7, 2, 3, 1, 2, 1, 3, 0, 1, 4],
    [3, 5, 12, 6, 4, 3, 5, 5, 5, 5, 2, 4],
    [3, 5, 3, 5, 3, 6, 1, 1, 3, 2, 6, 4],
    [11, 9, 15, 22, 15, 16, 13, 10, 26, 26, 24, 13],
]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def only(labels: np.ndarray, values: object, role: str = "clinical") -> Associations:
    return associate(labels, pd.DataFrame({"it": values}), {"it": role}, rng())


@pytest.mark.parametrize(
    ("counts", "statistic", "df", "p_value"),
    [
        (PARTY, 30.0701491, 2, 2.95358918e-07),
        (JOB, 5.965514589, 9, 0.743364725),
        (GEARS, 18.03636364, 4, 0.00121406603),
    ],
)
def test_chi_square_is_that_of_r(counts, statistic, df, p_value) -> None:
    found = chi_square(counts)
    assert (found.statistic, found.df) == (pytest.approx(statistic, rel=1e-9), df)
    assert found.p_value == pytest.approx(p_value, rel=1e-8)


@pytest.mark.parametrize(("counts", "p_value"), [(JOB, 0.782684939), (GEARS, 8.25971568e-05)])
def test_fisher_of_a_large_table_is_that_of_r_within_its_random_error(counts, p_value) -> None:
    found = fisher(counts, rng()).p_value
    assert found == pytest.approx(p_value, abs=4 * np.sqrt(p_value / RANDOM_TABLES) + 1 / RANDOM_TABLES)


def test_fisher_of_a_fourfold_table_is_exact() -> None:
    # Fjeldbo et al. 2020: imaging by genes (science.md, 1A: 2.175e-6).
    assert fisher([[25, 11], [18, 64]], rng()).p_value == pytest.approx(2.175e-6, rel=1e-3)


def test_kruskal_wallis_with_ties_is_that_of_r() -> None:
    found = kruskal_wallis([np.array(counts) for counts in SPRAYS])
    assert (found.statistic, found.df) == (pytest.approx(54.69134462, rel=1e-9), 5)
    assert found.p_value == pytest.approx(1.51084444e-10, rel=1e-8)
    assert found.effect == pytest.approx(54.69134462 / 71, rel=1e-9)  # eta-squared of ranks is H / (n - 1)


def test_counts_too_small_for_chi_square_go_to_fisher() -> None:
    assert compare_counts(PARTY, rng()).test == "chi-square"
    assert compare_counts(JOB, rng()).test.startswith("Fisher's exact (9999")
    assert compare_counts([[3, 1], [1, 3]], rng()).test == "Fisher's exact"
    # One of ten cells expects 4.5, the others 5 or more: Cochran allows it.
    assert compare_counts([[5, 4], [20, 21], [30, 30], [25, 25], [20, 20]], rng()).test == "chi-square"
    # One cell expects less than 1.
    assert compare_counts([[1, 0], [50, 50], [50, 50], [50, 50], [50, 50], [50, 50]], rng()).test.startswith("Fisher")


@pytest.mark.parametrize("counts", [[[1, -1], [2, 2]], [[1.5, 1], [2, 2]], [1, 2, 3]])
def test_what_are_no_counts_is_refused(counts) -> None:
    with pytest.raises(InputError, match="one whole number from 0 per level and cluster"):
        chi_square(counts)


def test_a_table_with_one_level_is_refused() -> None:
    with pytest.raises(InputError, match="1 levels by 2 clusters"):
        chi_square([[5, 6], [0, 0]])


@given(arrays(int, (3, 4), elements=st.integers(1, 30)))
def test_counts_may_be_turned_round_and_reordered(counts) -> None:
    found = chi_square(counts)
    for same in (counts.T, counts[::-1], np.insert(counts, 1, 0, axis=1)):
        assert chi_square(same).p_value == pytest.approx(found.p_value)
        assert chi_square(same).effect == pytest.approx(found.effect)
    assert 0 <= found.effect <= 1


def test_anova_is_taken_where_its_assumptions_hold_and_only_there() -> None:
    groups = [rng(7).normal(centre, 1, 40) for centre in (0, 0.4, 0.8)]
    assert compare_quantities(groups).test == "ANOVA"
    few = [groups[0], groups[1], groups[2][:9]]
    skewed = [np.exp(2 * group) for group in groups]
    unequal = [groups[0], 4 * groups[1], groups[2]]
    assert {compare_quantities(other).test for other in (few, skewed, unequal)} == {"Kruskal-Wallis"}


def test_a_quantity_that_the_cluster_gives_has_the_largest_effect() -> None:
    # No residual is left to be judged normal.
    found = compare_quantities([np.full(12, value) for value in (1.0, 2.0, 3.0)])
    assert (found.test, found.effect) == ("Kruskal-Wallis", 1)


@pytest.mark.parametrize(
    ("values", "test"),
    [
        (["I", "II", "III"] * 40, "chi-square"),
        ([True, False, True] * 40, "chi-square"),
        ([1.5, 3.0, 1.5] * 40, "chi-square"),
        (pd.Categorical(["I", "II", "III"] * 40), "chi-square"),
        (rng(1).normal(size=120), "ANOVA"),
        (rng(1).exponential(size=120), "Kruskal-Wallis"),
        (["rare", *["common", "usual"] * 59, "rare"], "Fisher's exact (9999 random tables)"),
    ],
)
def test_the_test_is_chosen_by_type_and_counts(values, test) -> None:
    assert only(rng(2).integers(0, 3, 120), values).table["test"].item() == test


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([f"name {one}" for one in range(60)], "60 of 60 values are different words"),
        (["same"] * 60, "the same in all patients"),
        ([2.0] * 59 + [np.nan], "the same in all patients"),
        ([np.nan] * 60, "no value"),
        ([np.inf] * 60, "no value"),
        ([1.0, 2.0] * 10 + [np.nan] * 40, "one cluster"),
    ],
)
def test_what_cannot_be_tested_is_listed_with_the_reason(values, reason) -> None:
    found = only(np.repeat([0, 1, 2], 20), values)
    assert len(found.table) == len(found.table2) == len(found.warnings) == 0
    assert reason in found.not_tested.set_index("column").loc["it", "reason"]


def test_no_name_of_a_patient_is_printed() -> None:
    found = only(np.repeat([0, 1, 2], 20), [f"Jane {one}" for one in range(60)])
    assert "Jane" not in found.table2.to_csv() + found.not_tested.to_csv() + found.table.to_csv()


def test_the_values_of_a_few_patients_are_not_listed_one_by_one() -> None:
    found = only(np.array([0, 0, 1, 1]), [61.5, 70.25, 55.75, 48.5])
    assert found.table["test"].item() == "Kruskal-Wallis"
    assert found.table2["level"].tolist() == ["median (quartiles)"]


def test_patients_without_a_value_are_left_out_of_its_test_and_counted() -> None:
    labels, age = np.repeat([0, 1], 30), rng().normal(60, 10, 60)
    gaps = np.where(np.arange(60) % 3 == 0, np.nan, age)
    row = only(labels, gaps).table.iloc[0]
    known = ~np.isnan(gaps)
    assert (row["n"], row["missing"]) == (40, 20)
    assert row["p_value"] == only(labels[known], age[known]).table["p_value"].item()


def test_false_discoveries_are_controlled_within_each_role() -> None:
    labels = np.repeat([0, 1, 2], 40)
    columns = pd.DataFrame(rng().normal(size=(120, 5)), columns=list("abcde"))
    table = associate(labels, columns, dict(zip("abcde", ["clinical"] * 3 + ["site"] * 2, strict=True)), rng()).table
    for _, rows in table.groupby("role"):
        p = rows["p_value"].sort_values()
        expected = (p * len(p) / np.arange(1, len(p) + 1))[::-1].cummin()[::-1]  # Benjamini & Hochberg 1995
        np.testing.assert_allclose(rows["q_value"].loc[p.index], expected)


def test_one_cluster_is_refused() -> None:
    with pytest.raises(InputError, match="All 10 patients are in one cluster"):
        only(np.zeros(10, dtype=int), np.arange(10))


def test_table_2_counts_every_patient_once() -> None:
    labels = np.array([0] * 4 + [1] * 6)
    stage = ["I", "I", "II", None, "II", "II", "II", "I", "II", "II"]
    age = np.array([40.0, 50, 60, np.nan, 1000, 2000, 3000, 4000, 5000, 6000])
    found = associate(labels, pd.DataFrame({"stage": stage, "age": age}), {"stage": "clinical", "age": "clinical"}, rng())
    assert found.table2.drop(columns=["test", "p", "q"]).to_numpy().tolist() == [
        ["stage", "I", "3 (33%)", "2 (67%)", "1 (17%)"],
        ["", "II", "6 (67%)", "1 (33%)", "5 (83%)"],
        ["", "missing", "1", "1", "0"],
        ["age", "median (quartiles)", "2000 (60 to 4000)", "50 (45 to 55)", "3500 (2250 to 4750)"],
        ["", "missing", "1", "1", "0"],
    ]
    assert list(found.table2.columns) == [
        "characteristic",
        "level",
        "all (n = 10)",
        "cluster 1 (n = 4)",
        "cluster 2 (n = 6)",
        "test",
        "p",
        "q",
    ]
    assert found.table2["p"].dropna().tolist() == found.table["p_value"].tolist()


def scanner_and_protocol(labels: np.ndarray, following: float, draws: np.random.Generator) -> pd.DataFrame:
    """A scanner that is the cluster's own in a share of the patients, and any in the others; its echo time with it."""
    scanner = np.where(draws.random(len(labels)) < following, labels, draws.integers(0, 3, len(labels)))
    echo_time = 80 + 10 * scanner + draws.normal(0, 2, len(labels))
    return pd.DataFrame({"scanner": np.array(["Avanto", "Aera", "Skyra"])[scanner], "echo_time": echo_time})


ACQUISITION = {"scanner": "acquisition", "echo_time": "acquisition"}


def test_clusters_that_follow_the_scanner_are_warned_about_in_one_sentence() -> None:
    draws = rng()
    labels = draws.integers(0, 3, 132)
    found = associate(labels, scanner_and_protocol(labels, 0.9, draws), ACQUISITION, draws)
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("Clusters follow the scanner: ")
    assert "'scanner' (chi-square p = " in found.warnings[0]
    assert "'echo_time' (Kruskal-Wallis p = " in found.warnings[0]
    assert found.warnings[0].endswith("harmonise by acquisition, or they are of the scanner and not of the tumour.")


def test_scanners_that_have_nothing_to_do_with_the_clusters_are_hardly_ever_warned_about() -> None:
    warned = {True: 0, False: 0}
    for seed in range(100):
        draws = rng(seed)
        labels = draws.integers(0, 3, 132)
        for following in warned:
            warned[following] += len(
                associate(labels, scanner_and_protocol(labels, 0.6 * following, draws), ACQUISITION, draws).warnings
            )
    assert warned[False] <= 1
    assert warned[True] == 100


def test_a_small_effect_in_a_large_cohort_and_a_clinical_column_are_no_reason_to_warn() -> None:
    draws = rng()
    labels = draws.integers(0, 3, 5000)
    columns = scanner_and_protocol(labels, 0.1, draws)
    found = associate(labels, columns, ACQUISITION, draws)
    assert (found.table["q_value"] < 0.001).all()
    assert found.warnings == ()
    clinical = scanner_and_protocol(labels, 0.9, draws)
    assert associate(labels, clinical, dict.fromkeys(ACQUISITION, "clinical"), draws).warnings == ()


def test_the_site_has_a_warning_of_its_own_and_many_columns_are_not_all_named() -> None:
    labels = np.repeat([0, 1], 60)
    columns = pd.DataFrame({f"p{one}": labels + 2.0 for one in range(8)} | {"hospital": np.where(labels, "A", "B")})
    roles = {f"p{one}": "acquisition" for one in range(8)} | {"hospital": "site"}
    scanner, site = associate(labels, columns, roles, rng()).warnings
    assert "and 3 more differ between clusters" in scanner
    assert "'hospital' (chi-square p = " in site
    assert site.endswith("harmonise by site, or they are of the site and not of the tumour.")


@pytest.mark.parametrize("cohorts", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_columns_without_a_link_are_significant_as_often_as_they_may_be(cohorts) -> None:
    draws = rng(5)
    p = {"chi-square": [], "Fisher": [], "quantity": []}
    for _ in range(cohorts):
        labels = draws.integers(0, 3, 90)
        columns = pd.DataFrame(
            {
                "chi-square": draws.choice(["a", "b", "c"], 90),
                "Fisher": draws.choice(["a", "b", "c", "d"], 90, p=[0.6, 0.3, 0.06, 0.04]),
                "quantity": draws.normal(size=90),
            }
        )
        found = associate(labels, columns, dict.fromkeys(columns, "clinical"), draws).table.set_index("column")
        for name in p:
            p[name].append(found.loc[name, "p_value"])
    for name, values in p.items():
        assert np.mean(np.array(values) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / cohorts), name


def test_equal_generators_give_equal_answers() -> None:
    labels = rng(3).integers(0, 3, 30)
    words = rng(4).choice(["a", "b", "c", "d"], 30)
    assert only(labels, words).table.equals(only(labels, words).table)
