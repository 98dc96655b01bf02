"""A cohort whose truth is known: two correlated biomarkers, clinical covariates, and progression that follows from them.

The hazard of progression is constant in time and log-linear in the patient's standard-normal values of both biomarkers and in
the stage. There is no true cutpoint and no true line: as in life, a line is a summary of a slope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log, sqrt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.optimize import brentq
from scipy.special import expit

from features.errors import InputError
from features.settings import Settings

# A median hypoxic fraction of 0.2 and a middle half of 0.11 to 0.33: about what Fjeldbo et al. 2020 show.
LOGIT_MEDIAN, LOGIT_SD = -1.4, 1.0
STAGES, STAGE_SHARES = ("I", "II", "III", "IV"), (0.2, 0.45, 0.3, 0.05)
STAGE_EFFECT = 1.3
AGE_MEAN, AGE_SD = 52.0, 13.0
# Follow-up that a patient could have had: evenly spread from half the horizon to half as much again, and cut at the horizon.
SHORTEST_FOLLOW_UP, LONGEST_FOLLOW_UP = 0.5, 1.5
FIRST_VISIT = 0.01


class SimulationSettings(Settings):
    """What a simulated cohort is like.

    Parameters
    ----------
    n : int
        Patients.
    events : float
        Progressions to be expected by the horizon; how many there are is chance.
    correlation : float
        Of the two biomarkers' standard-normal values.
    imaging_effect, gene_effect : float
        Hazard ratio per standard deviation of each biomarker's standard-normal value, the other one held: 1 for none, above 1
        where higher is worse.
    horizon : float
        Months after which follow-up ends.
    """

    n: int = Field(default=118, ge=20, le=1_000_000)
    events: float = Field(default=41, gt=0)
    correlation: float = Field(default=0.3, gt=-1, lt=1)
    imaging_effect: float = Field(default=1.5, gt=0, le=20)
    gene_effect: float = Field(default=1.5, gt=0, le=20)
    horizon: float = Field(default=60, ge=1, allow_inf_nan=False)


class Truth(Settings):
    """What a simulated cohort was made from.

    Attributes
    ----------
    composite_effect : float
        Hazard ratio per standard deviation of the best mixture of both biomarkers: more than that no composite score has.
    monthly_hazard : float
        Of a patient with the mean of both biomarkers and stage I.
    expected_events, observed_events : float, int
    """

    kind: Literal["simulated cohort"] = "simulated cohort"
    settings: SimulationSettings
    seed: int | None
    composite_effect: float
    stage_effect: float
    age_effect: float = 1.0
    monthly_hazard: float
    expected_events: float
    observed_events: int
    hypoxic_fraction: str = f"logistic({LOGIT_MEDIAN} + {LOGIT_SD} * standard-normal value)"
    gene_score: str = "standard-normal value"


@dataclass(frozen=True)
class SimulatedCohort:
    """A cohort and its truth.

    Attributes
    ----------
    table : DataFrame of shape (n_patients, 7)
        Columns: patient, hypoxic_fraction (0 to 1), gene_score (standard deviations), stage (I to IV), age (years), pfs_months,
        progressed (1 at that time, 0 censored).
    truth : Truth
    """

    table: pd.DataFrame
    truth: Truth


@dataclass(frozen=True)
class FollowUp:
    """When patients progressed, or were last seen.

    Attributes
    ----------
    months : ndarray of shape (n_patients,)
    progressed : ndarray of shape (n_patients,), int
        1 where the patient progressed then, 0 where it was last seen then.
    monthly_hazard : float
        Of a patient with a logarithm of the hazard of 0.
    expected_events : float
    """

    months: np.ndarray
    progressed: np.ndarray
    monthly_hazard: float
    expected_events: float


def simulate_cohort(settings: SimulationSettings, rng: np.random.Generator, seed: int | None = None) -> SimulatedCohort:
    """Draw a cohort.

    Parameters
    ----------
    seed : int, optional
        What `rng` was made from, to be written down with the truth.

    Raises
    ------
    InputError
        More events are asked for than the patients and their follow-up can give.

    Examples
    --------
    >>> cohort = simulate_cohort(SimulationSettings(n=100, events=40), np.random.default_rng(0))
    >>> cohort.table.columns.tolist()
    ['patient', 'hypoxic_fraction', 'gene_score', 'stage', 'age', 'pfs_months', 'progressed']
    >>> round(cohort.truth.expected_events, 6), cohort.truth.observed_events
    (40.0, 37)
    """
    imaging, genes = _correlated(settings, rng)
    stage = rng.choice(len(STAGES), size=settings.n, p=STAGE_SHARES)
    age = np.clip(rng.normal(AGE_MEAN, AGE_SD, settings.n), 18, 95)
    log_hazard = imaging * log(settings.imaging_effect) + genes * log(settings.gene_effect) + stage * log(STAGE_EFFECT)
    followed = draw_follow_up(log_hazard, settings.horizon, settings.events, rng)
    table = pd.DataFrame(
        {
            "patient": patient_names(settings.n),
            "hypoxic_fraction": expit(LOGIT_MEDIAN + LOGIT_SD * imaging).round(4),
            "gene_score": genes.round(4),
            "stage": np.array(STAGES)[stage],
            "age": age.round().astype(int),
            "pfs_months": followed.months,
            "progressed": followed.progressed,
        }
    )
    truth = Truth(
        settings=settings,
        seed=seed,
        composite_effect=_composite_effect(settings),
        stage_effect=STAGE_EFFECT,
        monthly_hazard=followed.monthly_hazard,
        expected_events=followed.expected_events,
        observed_events=int(followed.progressed.sum()),
    )
    return SimulatedCohort(table, truth)


def draw_follow_up(log_hazard: np.ndarray, horizon: float, events: float, rng: np.random.Generator) -> FollowUp:
    """Draw times to progression under hazards that are constant in time.

    Parameters
    ----------
    log_hazard : ndarray of shape (n_patients,)
        Logarithm of each patient's hazard relative to the others'; higher is worse.
    horizon : float
        Months after which follow-up ends.
    events : float
        Progressions to be expected by then.

    Raises
    ------
    InputError
        So many cannot be expected.
    """
    n = len(log_hazard)
    follow_up = np.minimum(rng.uniform(SHORTEST_FOLLOW_UP, LONGEST_FOLLOW_UP, n), 1) * horizon
    monthly_hazard = _monthly_hazard(log_hazard, follow_up, events)
    progression = rng.exponential(size=n) / (monthly_hazard * np.exp(log_hazard))
    return FollowUp(
        months=np.maximum(np.minimum(progression, follow_up).round(2), FIRST_VISIT),
        progressed=(progression <= follow_up).astype(int),
        monthly_hazard=monthly_hazard,
        expected_events=_expected_events(monthly_hazard, log_hazard, follow_up),
    )


def patient_names(n: int) -> list[str]:
    """Names of one length.

    Examples
    --------
    >>> patient_names(100)[:2]
    ['SIM001', 'SIM002']
    """
    return [f"SIM{number:0{len(str(n))}d}" for number in range(1, n + 1)]


def truth_path(table: Path) -> Path:
    """Where the truth of a cohort is written: beside its table.

    Examples
    --------
    >>> truth_path(Path("cohorts/simulated.csv")).as_posix()
    'cohorts/simulated.truth.json'
    """
    return table.with_suffix(".truth.json")


def write_cohort(cohort: SimulatedCohort, table: Path, *, force: bool) -> None:
    """Write table and truth, or neither.

    Raises
    ------
    InputError
        One of them is there already and may not be replaced, or cannot be written.
    """
    refuse_no_csv(table)
    truth = cohort.truth.model_dump_json(indent=1) + "\n"
    write_files({truth_path(table): truth, table: cohort.table.to_csv(index=False)}, force=force)


def refuse_no_csv(table: Path) -> None:
    """Refuse a name of another kind of file.

    Raises
    ------
    InputError
    """
    if table.suffix.lower() != ".csv":
        raise InputError(f"{table} is no CSV; name a file that ends in .csv.")


def write_files(texts: Mapping[Path, str], *, force: bool) -> None:
    """Write files of one folder, all or none.

    Raises
    ------
    InputError
        One of them is there already and may not be replaced, or the folder cannot be written to.
    """
    there = [path for path in texts if path.is_dir() or (path.exists() and not force)]
    if there:
        raise InputError(f"{there[0]} is there already; name another file with --out, or replace it with --force.")
    folder = next(iter(texts)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise InputError(f"The folder {folder} cannot be made ({cause.strerror}); name another file with --out.") from cause
    try:
        with TemporaryDirectory(prefix=".simulated-", dir=folder) as stage:
            for path, text in texts.items():
                (Path(stage) / path.name).write_text(text, encoding="utf-8")
            for path in texts:
                (Path(stage) / path.name).replace(path)
    except OSError as cause:
        raise InputError(
            f"No file can be written to {folder} ({cause.strerror}); name a file in a folder that is yours with --out."
        ) from cause


def _correlated(settings: SimulationSettings, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    imaging, own = rng.normal(size=(2, settings.n))
    return imaging, settings.correlation * imaging + sqrt(1 - settings.correlation**2) * own


def _composite_effect(settings: SimulationSettings) -> float:
    imaging, genes = log(settings.imaging_effect), log(settings.gene_effect)
    return exp(sqrt(max(imaging**2 + genes**2 + 2 * settings.correlation * imaging * genes, 0)))


def _expected_events(monthly_hazard: float, log_hazard: np.ndarray, follow_up: np.ndarray) -> float:
    return float(-np.expm1(-monthly_hazard * np.exp(log_hazard) * follow_up).sum())


def _monthly_hazard(log_hazard: np.ndarray, follow_up: np.ndarray, events: float) -> float:
    """The hazard with which so many events are to be expected."""
    least, most = 1e-12 / follow_up.max(), 1e6 / follow_up.min()
    if not events < _expected_events(most, log_hazard, follow_up) - 0.5:
        raise InputError(
            f"{events:g} events cannot be expected among {len(log_hazard)} patients; ask for fewer, or for more patients."
        )
    found = brentq(
        lambda log_rate: _expected_events(exp(log_rate), log_hazard, follow_up) - events, log(least), log(most), xtol=1e-13
    )
    return exp(found)
