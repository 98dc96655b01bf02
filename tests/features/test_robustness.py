"""Robustness: the published correlations, pingouin's numbers, and a filter that looks at no one held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pingouin
import pytest
from pydantic import ValidationError

from features.errors import InputError
from features.robustness import RobustFilter, intraclass_correlations, robustness_table

# Six targets, four judges: Shrout & Fleiss 1979, table 2.
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)


def test_the_table_of_shrout_and_fleiss_gives_their_correlations() -> None:
    found = intraclass_correlations(SHROUT_FLEISS[:, :, None])
    assert found.icc_2_1[0] == pytest.approx(0.29, abs=0.005)  # Shrout & Fleiss 1979, table 4
    assert found.icc_3_1[0] == pytest.approx(0.71, abs=0.006)  # the same; 0.7148
    assert (found.lower_2_1[0], found.upper_2_1[0]) == pytest.approx((0.019, 0.761), abs=0.001)  # McGraw & Wong; R psych ICC
    assert (found.lower_3_1[0], found.upper_3_1[0]) == pytest.approx((0.342, 0.946), abs=0.001)  # R psych ICC


def measured(n: int = 20, k: int = 3, p: int = 6, seed: int = 0) -> np.ndarray:
    """Features from useless to perfect, with a shift between replicates."""
    rng = np.random.default_rng(seed)
    noise = np.geomspace(1.5, 0.05, p)
    return rng.normal(size=(n, 1, p)) + rng.normal(size=(1, k, p)) * 0.2 + rng.normal(size=(n, k, p)) * noise


@pytest.mark.parametrize(("n", "k"), [(20, 3), (8, 2), (5, 5)])
def test_correlations_and_intervals_are_those_of_pingouin(n: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pingouin.options, "round.column.CI95", None)
    values = measured(n, k)
    found = intraclass_correlations(values)
    for feature in range(values.shape[2]):
        long = pd.DataFrame(values[:, :, feature]).reset_index().melt("index")
        theirs = pingouin.intraclass_corr(long, targets="index", raters="variable", ratings="value").set_index("Type")
        for ours, kind in (("2_1", "ICC(A,1)"), ("3_1", "ICC(C,1)")):
            expected = [theirs.loc[kind, "ICC"], *theirs.loc[kind, "CI95"]]
            got = [getattr(found, f"{part}_{ours}")[feature] for part in ("icc", "lower", "upper")]
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8)  # pingouin, issue 4


def test_replicates_that_agree_wholly_have_correlation_one_and_constant_features_none() -> None:
    values = np.stack([measured()[:, 0], measured()[:, 0]], axis=1)
    values[:, :, 0] = 3.3
    found = intraclass_correlations(values)
    for name in ("icc_2_1", "lower_2_1", "upper_2_1", "icc_3_1", "lower_3_1", "upper_3_1"):
        np.testing.assert_allclose(getattr(found, name), [np.nan] + [1] * 5, atol=1e-9)


def test_a_shift_between_replicates_counts_for_agreement_only() -> None:
    first = measured()[:, 0]
    found = intraclass_correlations(np.stack([first, first + 3], axis=1))
    np.testing.assert_allclose(found.icc_3_1, 1, atol=1e-9)
    assert found.icc_2_1.max() < 0.6
    assert (found.lower_2_1 <= found.icc_2_1).all()
    assert (found.icc_2_1 <= found.upper_2_1).all()


def frames(values: np.ndarray) -> list[pd.DataFrame]:
    names, samples = [f"f{i}" for i in range(values.shape[2])], [f"s{i}" for i in range(len(values))]
    return [pd.DataFrame(values[:, k], index=samples, columns=names) for k in range(values.shape[1])]


def test_samples_are_matched_by_name_and_only_complete_ones_count() -> None:
    first, second, third = frames(measured())
    second = second.iloc[::-1, ::-1]
    third = third.drop(index="s3", columns="f5")
    third.loc["s7", "f2"] = np.nan
    table = robustness_table([first, second, third]).set_index("feature")
    kept = np.delete(measured(), 3, axis=0)
    expected = intraclass_correlations(kept)
    np.testing.assert_allclose(table["icc_2_1"].drop("f2"), np.delete(expected.icc_2_1[:5], 2), rtol=1e-12)
    gap = intraclass_correlations(np.delete(kept, 6, axis=0))
    np.testing.assert_allclose(table.loc["f2", ["icc_3_1", "upper_3_1"]].astype(float), [gap.icc_3_1[2], gap.upper_3_1[2]])
    assert table["n"].to_dict() == {"f0": 19, "f1": 19, "f2": 18, "f3": 19, "f4": 19}
    assert table.attrs["notes"] == (
        "1 of 20 samples are not in all tables and were left out.",
        "1 of 6 features are not in all tables.",
        "1 features have missing values; samples with one were left out of them.",
    )


def test_tables_that_cannot_be_compared_are_refused() -> None:
    first, second, _ = frames(measured())
    for replicates, sentence in (
        ([first], "needs two tables"),
        ([first, second.rename(index=lambda name: f"x{name}")], "0 samples are in all tables"),
        ([first, second.add_prefix("x")], "No feature is in all tables"),
        ([first, pd.concat([second, second])], "Sample 's0' is in a table of replicates twice"),
    ):
        with pytest.raises(InputError, match=sentence):
            robustness_table(replicates)


def written(folder: Path, replicates: list[pd.DataFrame], **settings: object) -> RobustFilter:
    for number, frame in enumerate(replicates):
        frame.rename_axis("sample").to_csv(folder / f"scan{number}.csv")
    names = tuple(f"scan{number}.csv" for number in range(len(replicates)))
    return RobustFilter.model_validate({"tables": names, **settings}).located(folder)


def test_the_filter_keeps_what_reaches_the_minimum_by_value_or_by_lower_bound(tmp_path: Path) -> None:
    table = robustness_table(frames(measured())).set_index("feature")
    features = pd.Index(["f5", "f0", "f1", "f2", "f3", "f4"])
    everyone = pd.Index([f"s{i}" for i in range(20)])
    counts = []
    for icc, by, column in (("2,1", "value", "icc_2_1"), ("2,1", "lower", "lower_2_1"), ("3,1", "value", "icc_3_1")):
        chosen = written(tmp_path, frames(measured()), icc=icc, by=by, minimum=0.6)
        kept = chosen.robust(chosen.read(), features, everyone)
        assert list(kept) == [name for name in features if table.loc[name, column] >= 0.6]
        counts.append(len(kept))
    assert counts[1] < counts[0] <= counts[2] < 6


def test_held_out_samples_have_no_say_in_which_features_are_robust(tmp_path: Path) -> None:
    values = measured()
    learnt_from = pd.Index([f"s{i}" for i in range(12)])
    spoilt = values.copy()
    spoilt[12:] = np.random.default_rng(1).normal(size=spoilt[12:].shape) * 100
    chosen = [written(tmp_path, frames(one), minimum=0.5) for one in (values, spoilt)]
    kept = [
        one.robust(frames(given), pd.Index([f"f{i}" for i in range(6)]), learnt_from)
        for one, given in zip(chosen, (values, spoilt), strict=True)
    ]
    assert list(kept[0]) == list(kept[1])
    with pytest.raises(InputError, match="2 samples are in all tables of replicates"):
        chosen[0].robust(frames(values), pd.Index(["f5"]), learnt_from[:2])


def test_measurements_of_others_all_count_but_must_not_be_of_the_study(tmp_path: Path) -> None:
    chosen = written(tmp_path, frames(measured()), samples="others", minimum=0.5)
    features = pd.Index([f"f{i}" for i in range(6)])
    assert list(chosen.robust(chosen.read(), features, pd.Index(["p1", "p2"])))
    with pytest.raises(InputError, match=r"Sample 's4' .* is one of this study; set recipe\.robust\.samples: cohort"):
        chosen.robust(chosen.read(), features, pd.Index(["p1", "s4"]))


def test_what_the_filter_cannot_know_is_refused(tmp_path: Path) -> None:
    chosen, everyone = written(tmp_path, frames(measured()), minimum=1.0), pd.Index([f"s{i}" for i in range(20)])
    with pytest.raises(InputError, match=r"Feature 'g' is not in scan0\.csv"):
        chosen.robust(chosen.read(), pd.Index(["f0", "g"]), everyone)
    with pytest.raises(InputError, match=r"No feature reaches ICC\(2,1\) 1 .* on 20 samples"):
        chosen.robust(chosen.read(), pd.Index(["f0"]), everyone)
    with pytest.raises(ValidationError, match="at least 2 items"):
        RobustFilter(tables=("one.csv",))


def test_where_the_tables_lie_is_no_setting(tmp_path: Path) -> None:
    chosen = RobustFilter(tables=("a.csv", "b.csv"))
    assert chosen.located(tmp_path).model_dump() == chosen.model_dump()
