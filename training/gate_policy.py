"""What a version must show before it gets an alias: settings in a YAML file, with defaults.

References
----------
Thompson et al. 2020, doi:10.7554/eLife.53498 (sequential tests on one data set, and spending the error over them).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError

from features.errors import InputError, did_you_mean
from features.settings import Settings
from training.config import read_mapping

EXAMPLE_POLICY = "configs/gate.yaml"
MOST_RESAMPLES = 20000


class Superiority(Settings):
    """The challenger must rank better: the lower limit of its AUC, or Harrell's C, minus the champion's is above 0."""

    kind: Literal["superiority"] = "superiority"


class NonInferiority(Settings):
    """The challenger may rank as well as the champion, if it brings something else that is said here.

    Parameters
    ----------
    margin : float
        The AUC, or Harrell's C, may be lower by at most this; the lower limit of the difference must be above minus the margin.
    benefit : {"fewer features", "lower Brier score", "other"}
        The first two are checked, the third is taken as said.
    reason : str
        What the benefit is for, in words; it goes into the audit line.
    """

    kind: Literal["non_inferiority"]
    margin: float = Field(default=0.05, gt=0, le=0.2)
    benefit: Literal["fewer features", "lower Brier score", "other"]
    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=10, max_length=500)]


class Evidence(Settings):
    """The fewest held-out patients, with and without the event, below which the answer is "insufficient evidence".

    Parameters
    ----------
    patients, events, non_events : int
        A patient counts as an event if any of the patient's samples is one.
    """

    patients: int = Field(default=30, ge=20)
    events: int = Field(default=10, ge=10)
    non_events: int = Field(default=10, ge=10)


class CalibrationMargins(Settings):
    """By how much the probabilities may be worse than the champion's (with no champion: than ideal ones).

    Parameters
    ----------
    brier : float
        The upper limit of the difference of Brier scores must not be above it. With no champion the difference is to
        the Brier score of a constant, the share of events. Of times to an event: Brier score at the horizon, and the risk
        of all by Kaplan-Meier.
    in_the_large : float
        The gap between mean probability and share of events (Kaplan-Meier's risk) may be wider by this.
    slope : float
        The slope may be this many times further from 1, either way. None leaves the check out.
    """

    brier: float = Field(default=0.02, ge=0, le=0.25)
    in_the_large: float = Field(default=0.1, ge=0, le=0.5)
    slope: float | None = Field(default=2.0, ge=1)


class GatePolicy(Settings):
    """What a version must show before it gets an alias. The defaults are written out in ``configs/gate.yaml``.

    Parameters
    ----------
    comparison : mapping
        What is to be shown against the version that holds the alias.
    floor : float
        With no version there yet: the lower limit of the AUC, or of Harrell's C, must be above it.
    error : float
        Chance that the gate may have of promoting a model that is no better.
    looks : {"spend", "bonferroni", "ignore"}
        What repeated use of the same held-out patients costs. With the error e, the one-sided level of look k is:
        "spend": e / (k (k + 1)), which adds up to e however many looks there are; "bonferroni": e / (2 k); "ignore":
        e / 2. All three begin with e / 2, the lower end of a two-sided interval of level 1 - e.
    count : {"gate", "runs"}
        What a look is: a judgement by this gate, or every run that opened held-out patients of the same table (a model
        that was picked among twenty was looked at twenty times).
    equal_data : bool
        Whether both models must come from the same table. False compares them on equal held-out patients all the same.
    bootstrap : int
        Resamples of patients; more are drawn where the level asks for them.
    seed : int
        Of the resamples, so that the same models get the same verdict.
    """

    comparison: Annotated[Superiority | NonInferiority, Field(discriminator="kind")] = Superiority()
    floor: float = Field(default=0.5, ge=0.5, lt=1)
    error: float = Field(default=0.05, gt=0, le=0.05)
    looks: Literal["spend", "bonferroni", "ignore"] = "spend"
    count: Literal["gate", "runs"] = "gate"
    evidence: Evidence = Evidence()
    calibration: CalibrationMargins = CalibrationMargins()
    equal_data: bool = True
    bootstrap: int = Field(default=10000, ge=500, le=MOST_RESAMPLES)
    seed: int = Field(default=0, ge=0)

    @property
    def digest(self) -> str:
        """SHA-256 of the policy: equal policies, equal digest."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def level(self, look: int) -> float:
        """One-sided level of a look at the same patients, counted from 1.

        Examples
        --------
        >>> [round(GatePolicy().level(look), 5) for look in (1, 2, 3)]
        [0.025, 0.00833, 0.00417]
        """
        shares = {"spend": 1 / (look * (look + 1)), "bonferroni": 1 / (2 * look), "ignore": 0.5}
        return self.error * shares[self.looks]


def load_policy(path: Path | None) -> GatePolicy:
    """Read a policy from its YAML file; None: the defaults.

    Raises
    ------
    InputError
        The file is absent or no YAML, or a key is unknown or has a value that it cannot have.
    """
    if path is None:
        return GatePolicy()
    content = read_mapping(path, "gate policy", EXAMPLE_POLICY, "comparison, evidence and looks")
    try:
        return GatePolicy.model_validate(content)
    except ValidationError as cause:
        raise InputError(f"{path}: {_first_fault(cause)} See {EXAMPLE_POLICY}.") from cause


def _first_fault(error: ValidationError) -> str:
    """The first fault as a sentence: misspelt keys before all else, since they explain the others."""
    fault = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in fault["loc"] if part not in ("superiority", "non_inferiority"))
    if fault["type"] == "extra_forbidden":
        return f"unknown key {where!r}{did_you_mean(str(fault['loc'][-1]), _known_keys())}; remove or correct it."
    if fault["type"] == "missing":
        return f"key {where!r} is missing; add it."
    return f"{where or 'a key'}: {str(fault['msg']).removeprefix('Value error, ').removeprefix('Input ')}."


def _known_keys() -> list[str]:
    settings = (GatePolicy, Superiority, NonInferiority, Evidence, CalibrationMargins)
    return sorted({key for one in settings for key in one.model_fields})
