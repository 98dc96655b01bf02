"""What the gate lets through and what it does not, on models whose merits are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from features.errors import InputError
from tests.training.rivals import Rival, card_of, pair, rival
from training.gate import Looks, Verdict, held_out_digest, judge
from training.gate_policy import GatePolicy, load_policy

ROOT = Path(__file__).parents[2]
SUPERIOR = GatePolicy()
NON_INFERIOR = {"kind": "non_inferiority", "margin": 0.1, "benefit": "fewer features", "reason": "needs no contrast agent"}


def rivals(seed: int = 0, **about: object) -> tuple[Rival, Rival]:
    old, new = pair(np.random.default_rng(seed), **about)  # type: ignore[arg-type]
    return rival(old, "1"), rival(new, "2")


def judged(old: Rival | None, new: Rival, policy: GatePolicy = SUPERIOR, looks: Looks | None = None) -> Verdict:
    return judge(new, old, policy, alias="champion", looks=looks or Looks())


def outcomes(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.outcome for check in verdict.checks}


def test_a_truly_better_model_passes_every_check() -> None:
    verdict = judged(*rivals(n=160, events=80, aucs=(0.65, 0.9)))
    assert verdict.outcome == "passed"
    assert set(outcomes(verdict).values()) == {"passed"}


def test_an_identical_model_is_refused_and_no_reason_overrides_that() -> None:
    old, _ = rivals()
    verdict = judged(old, replace(old, version="2"))
    assert outcomes(verdict)["another model"] == "failed"
    assert not verdict.overridable


def test_the_order_of_rows_does_not_make_another_model() -> None:
    old, _ = rivals()
    shuffled = old.with_predictions(old.predictions.sample(frac=1, random_state=1))
    assert outcomes(judged(old, shuffled))["another model"] == "failed"


def test_a_model_of_noise_is_refused() -> None:
    verdict = judged(*rivals(n=160, events=80, aucs=(0.8, 0.5)))
    assert outcomes(verdict)["superiority"] == "failed"
    assert verdict.overridable


def test_a_better_looking_model_whose_lower_limit_is_below_zero_is_refused() -> None:
    verdict = judged(*rivals(seed=3, aucs=(0.7, 0.75)))
    superiority = next(check for check in verdict.checks if check.name == "superiority")
    assert superiority.numbers["difference"] > 0
    assert superiority.outcome == "failed"


@pytest.mark.parametrize(("n", "events"), [(60, 9), (60, 51), (26, 13)])
def test_a_lucky_model_on_few_patients_is_insufficient_evidence_however_good_it_looks(n: int, events: int) -> None:
    verdict = judged(*rivals(n=n, events=events, aucs=(0.5, 0.9999)))
    assert verdict.outcome == "insufficient evidence"
    assert outcomes(verdict)["evidence"] == "insufficient evidence"
    assert "too few to say anything" in next(check.sentence for check in verdict.checks if check.name == "evidence")


def test_events_are_counted_by_patient_not_by_row() -> None:
    old, new = rivals(n=36, events=8, lesions=4, aucs=(0.5, 0.99))
    assert old.predictions["label"].sum() == 32
    assert judged(old, new).outcome == "insufficient evidence"


def test_a_model_judged_on_other_patients_is_refused() -> None:
    old, new = rivals(n=160, events=80, aucs=(0.6, 0.95))
    moved = new.with_predictions(new.predictions.assign(sample=lambda table: "x" + table["sample"]))
    verdict = judged(old, moved)
    assert outcomes(verdict)["same patients"] == "failed"
    assert outcomes(verdict)["superiority"] == "skipped"


@pytest.mark.parametrize("column", ["label", "patient"])
def test_other_labels_or_owners_of_the_same_samples_are_other_patients(column: str) -> None:
    old, new = rivals()
    changed = new.predictions[column].iloc[::-1].to_numpy()
    verdict = judged(old, new.with_predictions(new.predictions.assign(**{column: changed})))
    assert outcomes(verdict)["same patients"] == "failed"


def test_another_table_is_refused_unless_the_policy_says_that_equal_patients_are_enough() -> None:
    old, new = rivals(n=160, events=80, aucs=(0.65, 0.9))
    wider = replace(new, card=card_of(new.predictions, data_hash="e" * 64))
    assert outcomes(judged(old, wider))["same patients"] == "failed"
    assert judged(old, wider, GatePolicy(equal_data=False)).outcome == "passed"


def test_a_card_that_does_not_say_how_it_was_judged_is_refused_for_good() -> None:
    old, new = rivals(n=160, events=80, aucs=(0.65, 0.9))
    held_out = {name: one for name, one in new.card.held_out.items() if name != "brier"}
    verdict = judged(old, replace(new, card=new.card.model_copy(update={"held_out": held_out, "data_hash": " "})))
    card = next(check for check in verdict.checks if check.name == "card")
    assert card.outcome == "failed"
    assert "data_hash, held_out.brier" in card.sentence
    assert not verdict.overridable


def test_predictions_that_were_edited_after_training_do_not_agree_with_the_signed_card() -> None:
    old, new = rivals()
    better = new.predictions.assign(probability=np.where(new.predictions["label"] == 1, 0.9, 0.1))
    verdict = judged(old, replace(new, predictions=better))
    assert outcomes(verdict)["predictions"] == "failed"
    assert not verdict.overridable


def test_lesions_given_to_patients_of_their_own_do_not_agree_with_the_signed_card() -> None:
    old, new = rivals(lesions=3)
    apart = new.predictions.assign(patient=new.predictions["sample"])
    assert outcomes(judged(old, replace(new, predictions=apart)))["predictions"] == "failed"


def test_probabilities_that_are_far_off_are_refused_although_the_ranking_is_better() -> None:
    old, new = rivals(n=160, events=80, aucs=(0.65, 0.9))
    shifted = new.with_predictions(new.predictions.assign(probability=new.predictions["probability"] ** 6))
    found = outcomes(judged(old, shifted))
    assert found["superiority"] == "passed"
    assert found["calibration in the large"] == "failed"


def test_probabilities_that_are_too_extreme_are_refused_although_the_ranking_is_better() -> None:
    old, new = rivals(n=160, events=80, aucs=(0.65, 0.85))
    p = new.predictions["probability"]
    extreme = new.with_predictions(new.predictions.assign(probability=1 / (1 + ((1 - p) / p) ** 6)))
    found = outcomes(judged(old, extreme))
    assert found["superiority"] == "passed"
    assert found["calibration slope"] == "failed"


def test_timid_probabilities_stand_in_the_way_of_no_first_promotion_but_extreme_ones_do() -> None:
    _, new = rivals(n=160, events=80, aucs=(0.65, 0.85))
    p = new.predictions["probability"]
    timid, extreme = (new.predictions.assign(probability=1 / (1 + ((1 - p) / p) ** power)) for power in (0.2, 4.0))
    assert outcomes(judged(None, new.with_predictions(timid)))["calibration slope"] == "passed"
    assert outcomes(judged(None, new.with_predictions(extreme)))["calibration slope"] == "failed"


def test_a_first_version_must_rank_better_than_chance() -> None:
    good, noise = rivals(n=100, events=50, aucs=(0.85, 0.5))
    assert judged(None, good).outcome == "passed"
    assert outcomes(judged(None, noise))["floor"] == "failed"


def test_a_floor_of_the_policy_is_the_bar_of_a_first_version() -> None:
    good, _ = rivals(n=100, events=50, aucs=(0.8, 0.5))
    assert outcomes(judged(None, good, GatePolicy(floor=0.6)))["floor"] == "passed"
    assert outcomes(judged(None, good, GatePolicy(floor=0.79)))["floor"] == "failed"


def test_a_model_that_is_as_good_with_fewer_features_passes_where_that_was_declared() -> None:
    old, new = rivals(n=200, events=100, aucs=(0.8, 0.8), shared=0.95)
    policy = GatePolicy.model_validate({"comparison": NON_INFERIOR})
    assert judged(old, new).outcome == "failed"
    assert outcomes(judged(old, new, policy))["benefit"] == "failed"
    smaller = replace(new, schema=rival(new.predictions, features=2).schema)
    assert judged(old, smaller, policy).outcome == "passed"


def test_a_declared_benefit_in_brier_score_is_checked() -> None:
    old, new = rivals(n=200, events=100, aucs=(0.8, 0.8), shared=0.95)
    comparison = NON_INFERIOR | {"benefit": "lower Brier score", "reason": "probabilities are shown to patients"}
    policy = GatePolicy.model_validate({"comparison": comparison})
    p = old.predictions["probability"]
    worse = old.with_predictions(old.predictions.assign(probability=1 / (1 + ((1 - p) / p) ** 3)))
    assert outcomes(judged(old, new, policy))["benefit"] == "failed"
    assert outcomes(judged(worse, new, policy))["benefit"] == "passed"


def test_a_model_that_is_worse_than_the_margin_is_no_non_inferior_one() -> None:
    old, new = rivals(n=200, events=100, aucs=(0.9, 0.7))
    policy = GatePolicy.model_validate({"comparison": NON_INFERIOR})
    assert outcomes(judged(old, new, policy))["non-inferiority"] == "failed"


def test_looking_again_at_the_same_patients_costs_and_is_said() -> None:
    old, new = rivals(n=160, events=80, aucs=(0.65, 0.9))
    first, fourth = judged(old, new), judged(old, new, looks=Looks(earlier=3))
    assert (first.look, fourth.look) == (1, 4)
    assert fourth.level == pytest.approx(0.05 / 20)
    assert "3 times before" in fourth.warnings[0]
    assert first.warnings == ()
    limits = [next(check.numbers for check in one.checks if check.name == "superiority") for one in (first, fourth)]
    assert limits[1]["delong"] < limits[0]["delong"]
    assert limits[1]["bootstrap"] < limits[0]["bootstrap"]


def test_a_version_picked_among_many_studies_of_one_table_is_warned_of_or_counted() -> None:
    old, new = rivals()
    counting = judged(old, new, GatePolicy(count="runs"), Looks(runs=20))
    assert "20 studies opened" in judged(old, new, looks=Looks(runs=20)).warnings[0]
    assert counting.look == 20


@pytest.mark.parametrize("looks", ["spend", "bonferroni", "ignore"])
def test_every_way_to_count_looks_begins_with_the_two_sided_interval(looks: str) -> None:
    assert GatePolicy.model_validate({"looks": looks}).level(1) == 0.025


def test_the_error_of_all_looks_adds_up_to_what_the_policy_allows() -> None:
    assert sum(GatePolicy().level(look) for look in range(1, 10_000)) == pytest.approx(0.05, rel=1e-3)


def test_the_same_models_get_the_same_verdict() -> None:
    old, new = rivals(lesions=2)
    assert judged(old, new) == judged(old, new)


def test_the_digest_of_held_out_patients_does_not_depend_on_their_order_but_on_their_labels() -> None:
    table = rivals()[0].predictions
    assert held_out_digest(table) == held_out_digest(table.iloc[::-1])
    assert held_out_digest(table) != held_out_digest(table.assign(label=1 - table["label"]))


def test_the_policy_that_ships_is_the_default() -> None:
    path = ROOT / "configs" / "gate.yaml"
    assert load_policy(path) == GatePolicy()
    written = yaml.safe_load(path.read_text())
    assert set(written) == set(GatePolicy.model_fields)
    assert set(written["evidence"]) | set(written["calibration"]) == {
        "patients", "events", "non_events", "brier", "in_the_large", "slope",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flor: 0.6", "unknown key 'flor' (did you mean 'floor'?)"),
        ("evidence: {event: 5}", "unknown key 'evidence.event' (did you mean 'events'?)"),
        ("evidence: {events: 2}", "evidence.events: should be greater than or equal to 10"),
        ("error: 0.2", "error: should be less than or equal to 0.05"),
        ("comparison: {kind: non_inferiority, benefit: fewer features}", "key 'comparison.reason' is missing"),
        ("comparison: {kind: better}", "comparison"),
        ("looks: [", "is not valid YAML at line"),
        ("floor: 0.6\nfloor: 0.5", "is there twice"),
        ("- a", "holds no gate policy"),
    ],
)
def test_a_policy_that_cannot_be_used_is_refused_with_the_way_out(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_policy(path)
    assert said in str(error.value)
    assert "configs/gate.yaml" in str(error.value) or "gate policy" in str(error.value)
