"""Which column is what: follow-up, clinical covariates, features by name, genes left out, scores of other models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from survival_made import ENDPOINT, followed

from features.cohort import Cohort, CohortSettings, load_cohort
from features.errors import InputError
from features.signatures import find_signature


def settings(**changes: Any) -> CohortSettings:
    body = {
        "source": {"kind": "table", "path": "followed.csv", "sample": "ID"},
        "endpoint": ENDPOINT,
        "patient": "patient",
        "clinical": ["age"],
    }
    return CohortSettings.model_validate(body | changes)


def load(folder: Path, frame: pd.DataFrame, scores: dict[str, pd.Series] | None = None, **changes: Any) -> Cohort:
    frame.to_csv(folder / "followed.csv", index=False)
    return load_cohort(settings(**changes), folder, scores)


def refusal(folder: Path, frame: pd.DataFrame, **changes: Any) -> str:
    with pytest.raises(InputError) as error:
        load(folder, frame, **changes)
    assert "\n" not in str(error.value)
    return str(error.value)


def with_genes(signature: str, extra: tuple[str, ...] = ()) -> pd.DataFrame:
    """Patients with the genes of a signature beside four that are of none."""
    table = followed(30, p=4)
    rng = np.random.default_rng(1)
    genes = [*find_signature(signature).genes, *extra]
    return table.join(pd.DataFrame(rng.normal(size=(30, len(genes))), columns=genes))


def test_times_event_and_clinical_covariates_are_no_features(tmp_path: Path) -> None:
    table = followed(30, p=3)
    cohort = load(tmp_path, table)
    assert list(cohort.features.columns) == ["g00", "g01", "g02"]
    assert cohort.clinical.columns.tolist() == ["age"]
    np.testing.assert_allclose(cohort.times, table["months"].clip(upper=60))
    assert cohort.y.tolist() == ((table["relapse"] == 1) & (table["months"] <= 60)).astype(int).tolist()
    assert (cohort.horizon, cohort.time_unit) == (60, "months")
    np.testing.assert_array_equal(cohort.outcome["time"], cohort.times)
    np.testing.assert_array_equal(cohort.outcome["event"], cohort.y == 1)


def test_the_outcome_of_classes_is_the_labels(tmp_path: Path) -> None:
    cohort = load(tmp_path, followed(30), endpoint={"kind": "binary", "column": "relapse"}, drop=["months"])
    np.testing.assert_array_equal(cohort.outcome, cohort.y)
    assert cohort.times is None
    assert cohort.horizon is None


def test_patients_of_unknown_outcome_are_left_out_with_all_that_is_known_of_them(tmp_path: Path) -> None:
    table = followed(30)
    table["relapse"] = table["relapse"].astype(float)
    table.loc[4, "relapse"] = np.nan
    table.loc[7, "months"] = np.nan
    cohort = load(tmp_path, table, endpoint={**ENDPOINT, "competing": [7]})
    for part in (cohort.features, cohort.labels, cohort.times, cohort.competing, cohort.clinical, cohort.patients):
        assert list(part.index) == [name for name in table["ID"] if name not in ("s004", "s007")]
    assert cohort.notes == ("2 of 30 samples have no outcome and were left out.",)


def test_a_subset_keeps_times_competing_events_and_covariates_of_a_sample_together(tmp_path: Path) -> None:
    table = followed(30)
    table.loc[::5, "relapse"] = 2
    whole = load(tmp_path, table, endpoint={**ENDPOINT, "competing": [2]})
    part = whole.subset(pd.Index(["s020", "s003", "s011"]))
    assert part.times.tolist() == [whole.times[name] for name in ("s020", "s003", "s011")]
    assert part.competing.tolist() == [whole.competing[name] for name in ("s020", "s003", "s011")]
    assert part.clinical["age"].tolist() == [whole.clinical.loc[name, "age"] for name in ("s020", "s003", "s011")]
    assert part.horizon == whole.horizon


@pytest.mark.parametrize(
    ("change", "endpoint"),
    [
        (lambda frame: frame.assign(months=frame["months"].where(frame.index != 2, 1.25)), {}),
        (lambda frame: frame.assign(relapse=frame["relapse"].where(frame.index != 2, 1 - frame["relapse"])), {}),
        (lambda frame: frame.assign(age=frame["age"].where(frame.index != 2, 18)), {}),
        (lambda frame: frame, {"horizon": 30}),
    ],
    ids=["time", "event", "covariate", "horizon"],
)
def test_the_data_hash_knows_of_follow_up_and_covariates(tmp_path: Path, change: Any, endpoint: dict[str, Any]) -> None:
    changed = load(tmp_path, change(followed(30)), endpoint={**ENDPOINT, **endpoint})
    assert changed.data_hash != load(tmp_path, followed(30)).data_hash


def test_samples_of_one_patient_must_tell_one_outcome(tmp_path: Path) -> None:
    table = followed(30)
    two_lesions = pd.concat([table, table.iloc[:1].assign(ID="s000b", g00=0.5)])
    assert load(tmp_path, two_lesions).patients.value_counts()["p000"] == 2
    said = refusal(tmp_path, two_lesions.assign(months=lambda frame: frame["months"].where(frame["ID"] != "s000b", 2.5)))
    assert said == "Patient 'p000' has samples with different times or events; a patient has one outcome: correct the rows."


def test_features_are_what_the_study_names_by_name_or_pattern(tmp_path: Path) -> None:
    table = followed(30, p=4).assign(other=1.5)
    assert list(load(tmp_path, table, features=["g0[12]", "other"]).features.columns) == ["g01", "g02", "other"]
    assert refusal(tmp_path, table, features=["g*", "h01"]).startswith(
        "'h01' (cohort.features, or a biomarker) is no column of the table, or has another role"
    )
    assert "'age' (cohort.features, or a biomarker) is no column" in refusal(tmp_path, table, features=["age"])


def test_a_name_may_hold_what_is_special_in_patterns(tmp_path: Path) -> None:
    table = followed(30, p=2).rename(columns={"g01": "ADC [mm2/s]"})
    assert list(load(tmp_path, table, features=["ADC [mm2/s]"]).features.columns) == ["ADC [mm2/s]"]


def test_text_columns_that_are_no_features_do_no_harm(tmp_path: Path) -> None:
    table = followed(30, p=2).assign(remark="seen")
    assert "Feature 'remark' holds text" in refusal(tmp_path, table)
    assert list(load(tmp_path, table, features=["g*"]).features.columns) == ["g00", "g01"]


def test_genes_of_a_published_signature_are_left_out_under_any_of_their_names(tmp_path: Path) -> None:
    table = with_genes("fjeldbo2016").rename(columns={"HILPDA": "HIG2"})
    cohort = load(tmp_path, table, without_signatures=["fjeldbo2016"])
    assert list(cohort.features.columns) == ["g00", "g01", "g02", "g03"]
    assert cohort.notes[-1].startswith("6 genes of published signatures were left out (")


def test_genes_of_every_signature_can_be_left_out(tmp_path: Path) -> None:
    table = with_genes("buffa2010_15", extra=("CA9", "GAPDH_like"))
    cohort = load(tmp_path, table, without_signatures=["all"])
    assert list(cohort.features.columns) == ["g00", "g01", "g02", "g03", "GAPDH_like"]


def test_an_unknown_signature_to_leave_out_is_refused(tmp_path: Path) -> None:
    assert "'fjeldbo2061'" in refusal(tmp_path, with_genes("fjeldbo2016"), without_signatures=["fjeldbo2061"])


def test_nothing_left_over_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, followed(30), features=[]).startswith("No feature column is left in the table")


def test_clinical_covariates_are_numbers_or_words_and_never_empty(tmp_path: Path) -> None:
    table = followed(30).assign(stage=["I", "II", "III"] * 10, nothing=np.nan)
    clinical = load(tmp_path, table, clinical=["age", "stage"], drop=["nothing"]).clinical
    assert clinical["stage"].tolist() == ["I", "II", "III"] * 10
    assert clinical["age"].dtype == float
    assert refusal(tmp_path, table, clinical=["nothing"], drop=["stage"]) == (
        "Column 'nothing' (cohort.clinical) holds no value; take it out of the list."
    )


def test_a_column_has_one_role() -> None:
    for changes in ({"clinical": ["months"]}, {"clinical": ["age"], "site": "age"}, {"clinical": ["age", "age"]}):
        with pytest.raises(ValidationError, match=r"is named as \w+ and as clinical"):
            settings(**changes)
    with pytest.raises(ValidationError, match="named under clinical and under drop"):
        settings(drop=["age"])


def test_a_score_is_a_feature_by_patient_and_those_without_one_are_left_out(tmp_path: Path) -> None:
    table = followed(30)
    table = pd.concat([table, table.iloc[:1].assign(ID="s000b")])
    scores = pd.Series(np.linspace(0, 1, 25), index=[f"p{number:03d}" for number in range(25)])
    cohort = load(tmp_path, table, {"hypoxia": scores}, features=[])
    assert list(cohort.features.columns) == ["hypoxia"]
    assert cohort.features["hypoxia"].tolist() == [*scores, scores["p000"]]
    assert cohort.notes == ("5 of 31 samples have no out-of-sample score 'hypoxia' and were left out.",)


def test_a_score_stands_beside_the_features_that_are_named(tmp_path: Path) -> None:
    scores = pd.Series(np.linspace(0, 1, 30), index=followed(30)["patient"])
    assert list(load(tmp_path, followed(30), {"hypoxia": scores}, features=["g00"]).features.columns) == ["g00", "hypoxia"]


def test_a_score_of_no_patient_of_the_table_or_named_as_a_column_is_refused(tmp_path: Path) -> None:
    followed(30).to_csv(tmp_path / "followed.csv", index=False)
    of_others = pd.Series([0.1, 0.2], index=["q1", "q2"])
    with pytest.raises(InputError, match="No patient of the table has a score 'hypoxia'; check that both studies name patients"):
        load_cohort(settings(), tmp_path, {"hypoxia": of_others})
    with pytest.raises(InputError, match="Column 'g00' is in the table, and a score is to be called so too"):
        load_cohort(settings(), tmp_path, {"g00": of_others})
