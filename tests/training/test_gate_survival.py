"""What the gate lets through of models of times to an event, and of composites, whose merits are known."""

from dataclasses import replace

import numpy as np
import pytest

from tests.training.rivals import Rival, card_of, composite_rival, rival, survival_pair, survival_rival
from tests.training.rivals import pair as two_classes
from training.gate import Looks, Verdict, judge
from training.gate_measures import yardstick_of
from training.gate_policy import GatePolicy
from training.survival.discrimination import brier_at, harrell_c

POLICY = GatePolicy(bootstrap=1000)
NON_INFERIOR = {"kind": "non_inferiority", "margin": 0.1, "benefit": "lower Brier score", "reason": "risks are shown to doctors"}


def rivals(seed: int = 0, **about: object) -> tuple[Rival, Rival]:
    old, new = survival_pair(np.random.default_rng(seed), **about)  # type: ignore[arg-type]
    return survival_rival(old, "1"), survival_rival(new, "2")


def judged(old: Rival | None, new: Rival, policy: GatePolicy = POLICY, looks: Looks | None = None) -> Verdict:
    return judge(new, old, policy, alias="champion", looks=looks or Looks())


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.outcome for check in verdict.checks}


def sentence(verdict: Verdict, name: str) -> str:
    return next(check.sentence for check in verdict.checks if check.name == name)


def test_a_truly_better_model_passes_every_check_by_its_c_index() -> None:
    old, new = rivals(n=300, told=(0.3, 0.9))
    verdict = judged(old, new)
    assert set(outcomes(verdict).values()) == {"passed"}, verdict.checks
    numbers = next(check.numbers for check in verdict.checks if check.name == "superiority")
    assert set(numbers) == {"difference", "bootstrap", "jackknife", "bar"}
    c_index = [
        harrell_c(one.predictions["time"], one.predictions["label"], one.predictions["probability"]).value for one in (old, new)
    ]
    assert numbers["difference"] == pytest.approx(c_index[1] - c_index[0], abs=1e-12)
    assert sentence(verdict, "superiority").startswith(f"C-index {c_index[1]:.3f} against the champion's {c_index[0]:.3f}")


def test_both_lower_limits_of_the_c_index_are_alike_where_patients_are_many() -> None:
    verdict = judged(*rivals(n=500, told=(0.5, 0.7)))
    numbers = next(check.numbers for check in verdict.checks if check.name == "superiority")
    assert numbers["bootstrap"] == pytest.approx(numbers["jackknife"], abs=0.01)  # two constructions of one limit
    assert numbers["bootstrap"] < numbers["difference"]


def test_noise_is_refused_against_a_champion_and_as_the_first() -> None:
    old, noise = rivals(told=(0.8, 0.0))
    assert outcomes(judged(old, noise))["superiority"] == "failed"
    assert outcomes(judged(None, noise))["floor"] == "failed"


@pytest.mark.slow
def test_noise_is_promoted_first_in_no_more_cohorts_than_the_policy_allows() -> None:
    promoted = [outcomes(judged(None, rivals(seed, n=150, told=(0.0, 0.0))[1]))["floor"] == "passed" for seed in range(200)]
    assert np.mean(promoted) <= 0.05  # nominal 0.025; binomial upper 99.5% limit of 200 is 0.054


def test_an_identical_model_is_refused_and_no_reason_overrides_that() -> None:
    old, _ = rivals()
    verdict = judged(old, replace(old, version="2"))
    assert outcomes(verdict)["another model"] == "failed"
    assert not verdict.overridable


def test_a_first_version_that_ranks_and_whose_risks_are_right_is_promoted() -> None:
    _, good = rivals(n=300, told=(0.5, 0.8))
    verdict = judged(None, good)
    assert set(outcomes(verdict).values()) == {"passed"}, verdict.checks
    assert "Kaplan-Meier" in sentence(verdict, "Brier score")


def test_what_knows_nothing_is_the_kaplan_meier_risk_of_all() -> None:
    table = rivals()[1].predictions
    yardstick = yardstick_of(60.0)
    constant = yardstick.without_information(table)
    time, event = table["time"].to_numpy(), table["label"].to_numpy()
    survival = 1.0
    for at in np.unique(time[event == 1]):
        survival *= 1 - ((time == at) & (event == 1)).sum() / (time >= at).sum()
    assert constant["probability"].unique() == pytest.approx([1 - survival], abs=1e-12)
    assert yardstick.measure(constant, "brier_at_horizon") == pytest.approx(
        brier_at(time, event, constant["probability"], 60.0).value, abs=1e-12
    )


def test_risks_that_are_far_off_are_refused_although_the_ranking_is_better() -> None:
    old, new = rivals(n=300, told=(0.3, 0.9))
    low = new.with_predictions(new.predictions.assign(probability=new.predictions["probability"] ** 4))
    found = outcomes(judged(old, low))
    assert found["superiority"] == "passed"
    assert found["calibration in the large"] == "failed"


def test_risks_that_are_too_extreme_are_refused_although_they_rank() -> None:
    _, new = rivals(n=300, told=(0.3, 0.8))
    hazard = -np.log1p(-new.predictions["probability"])
    extreme = new.with_predictions(new.predictions.assign(probability=1 - np.exp(-0.5 * (hazard / 0.6) ** 4)))
    found = outcomes(judged(None, extreme))
    assert found["floor"] == "passed"
    assert found["calibration slope"] == "failed"


def test_a_lower_brier_score_at_the_horizon_is_a_benefit_that_is_checked() -> None:
    old, new = rivals(n=300, told=(0.7, 0.7))
    policy = POLICY.model_copy(update={"comparison": GatePolicy.model_validate({"comparison": NON_INFERIOR}).comparison})
    worse = old.with_predictions(old.predictions.assign(probability=old.predictions["probability"] ** 4))
    assert outcomes(judged(old, new, policy))["benefit"] == "failed"
    assert outcomes(judged(worse, new, policy))["benefit"] == "passed"


def test_few_events_are_insufficient_evidence() -> None:
    old, new = rivals(n=25, told=(0.3, 0.9))
    assert judged(old, new).outcome == "insufficient evidence"


def test_where_nobody_was_followed_to_the_horizon_calibration_is_not_judged() -> None:
    _, new = survival_pair(np.random.default_rng(0), n=200, told=(0.3, 0.9))
    late = replace(survival_rival(new, "2"), card=card_of(new, horizon=80.0))
    found = outcomes(judged(None, late))
    assert found["Brier score"] == found["calibration in the large"] == "insufficient evidence"


def test_another_horizon_or_a_model_of_classes_is_another_question() -> None:
    old, new = rivals(n=300, told=(0.3, 0.9))
    shorter = replace(new, card=card_of(new.predictions, horizon=36.0))
    verdict = judged(old, shorter)
    assert outcomes(verdict)["same patients"] == "failed"
    assert "risk of the event by 60 months, and risk of the event by 36 months" in sentence(verdict, "same patients")
    classes = rival(two_classes(np.random.default_rng(0), n=300, events=150)[0], "1")
    assert "different questions" in sentence(judged(classes, new), "same patients")


def test_other_times_of_the_same_patients_are_another_outcome() -> None:
    old, new = rivals(n=300, told=(0.3, 0.9))
    moved = new.with_predictions(new.predictions.assign(time=new.predictions["time"] * 0.9))
    assert outcomes(judged(old, moved))["same patients"] == "failed"


def test_times_that_were_edited_after_training_do_not_agree_with_the_signed_card() -> None:
    old, new = rivals()
    edited = replace(new, predictions=new.predictions.assign(time=np.sort(new.predictions["time"])))
    verdict = judged(old, edited)
    assert outcomes(verdict)["predictions"] == "failed"
    assert not verdict.overridable


def test_looking_again_lowers_the_limits() -> None:
    old, new = rivals(n=300, told=(0.3, 0.9))
    first, fourth = (
        next(check.numbers for check in judged(old, new, looks=Looks(earlier=count)).checks if check.name == "superiority")
        for count in (0, 3)
    )
    assert fourth["bootstrap"] < first["bootstrap"]
    assert fourth["jackknife"] < first["jackknife"]


def composites(told: tuple[float, float] = (0.3, 0.9), **about: object) -> tuple[Rival, Rival]:
    old, new = survival_pair(np.random.default_rng(0), n=300, told=told)
    return composite_rival(old, "1"), composite_rival(new, "2", **about)  # type: ignore[arg-type]


def test_a_better_composite_is_judged_out_of_fold_and_that_is_said() -> None:
    verdict = judged(*composites())
    calibration = {"calibration in the large", "calibration slope"}
    assert {name for name, outcome in outcomes(verdict).items() if outcome == "skipped"} == calibration
    assert verdict.outcome == "passed", verdict.checks
    assert "risk was fitted to these out-of-fold scores" in sentence(verdict, "calibration slope")
    assert any("no held-out patients" in warning for warning in verdict.warnings)
    assert "out-of-fold" in sentence(verdict, "evidence")


@pytest.mark.parametrize(("permutation_p", "said"), [(0.2, "0.2, above 0.05"), (None, "recorded no permutation p-value")])
def test_a_composite_whose_search_finds_as_much_in_permuted_outcomes_is_refused(permutation_p: float | None, said: str) -> None:
    old, new = composites(permutation_p=permutation_p)
    for champion in (None, old):
        verdict = judged(champion, new)
        assert outcomes(verdict)["permutation"] == "failed"
        assert said in sentence(verdict, "permutation")
        assert [check.name for check in verdict.in_the_way] == ["permutation"]


def test_a_composite_of_noise_is_refused() -> None:
    old, noise = composites(told=(0.8, 0.0))
    assert outcomes(judged(old, noise))["superiority"] == "failed"
    assert outcomes(judged(None, noise))["floor"] == "failed"


@pytest.mark.parametrize("column", ["probability", "fold", "patient"])
def test_a_composites_predictions_must_be_a_repeat_of_those_on_its_card(column: str) -> None:
    old, new = composites()
    changed = new.predictions.assign(**{column: new.predictions[column].iloc[::-1].to_numpy()})
    verdict = judged(old, replace(new, predictions=changed))
    assert outcomes(verdict)["predictions"] == "failed"
    assert not verdict.overridable


def test_a_composites_out_of_fold_predictions_must_give_its_card() -> None:
    old, new = composites()
    internal = new.internal.assign(probability=new.internal["probability"].iloc[::-1].to_numpy())
    assert outcomes(judged(old, replace(new, internal=internal)))["predictions"] == "failed"
