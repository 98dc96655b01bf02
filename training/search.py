"""The search for a pipeline: two engines propose candidates out of one space, one evaluator ranks them.

To add an engine: a class with ``kind`` and ``propose(evaluator, limits, rng)``, and its name in ``Search``.

The inner score ranks candidates and is no estimate of performance: it is the best of many.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.metrics import roc_auc_score

from features.errors import HypoxiaError, InputError
from features.outcome import is_survival
from features.settings import Settings
from training.models import Candidate, baseline, steps
from training.options import Choice, Limits, Option, Parameter, Value
from training.progress import Progress
from training.survival.metrics import SurvivalPredictions, c_index
from training.workers import Outcome, Workers

Steps = Mapping[str, tuple[Option, ...]]

if TYPE_CHECKING:
    import optuna
    from tpot.search_spaces.base import SklearnIndividual


@dataclass(frozen=True)
class InnerFold:
    """One inner fold, its features already chosen on its own training part.

    Attributes
    ----------
    X_train, X_test : ndarray of shape (n_samples, n_selected)
        No missing value.
    y_train, y_test : ndarray of shape (n_samples,)
        Classes, or structured times and events.
    test_rows : ndarray of int
        Rows of the training cohort that this fold's test part is.
    """

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    test_rows: np.ndarray


@dataclass(frozen=True)
class Scored:
    """A candidate and how it ranked.

    Attributes
    ----------
    fold_scores : tuple of float
        ROC AUC (of times to an event: concordance) per inner fold; empty if the candidate failed.
    out_of_fold : ndarray of shape (n_samples,)
        Probability of every training sample from the fold that did not learn from it.
    standardised : ndarray of shape (n_samples,)
        The same, less the mean and over the standard deviation of the fold's model on what it learnt from: a strongly
        shrunk model spreads its probabilities so little that models of different folds differ by more than that.
    failure : str or None
        Why there is no score.
    """

    candidate: Candidate
    fold_scores: tuple[float, ...] = ()
    out_of_fold: np.ndarray = field(default_factory=lambda: np.empty(0))
    standardised: np.ndarray = field(default_factory=lambda: np.empty(0))
    seconds: float = 0.0
    failure: str | None = None

    @property
    def mean(self) -> float:
        """Mean over folds; NaN if the candidate failed."""
        return float(np.mean(self.fold_scores)) if self.fold_scores else float("nan")

    @property
    def standard_error(self) -> float:
        """Standard error of that mean over folds."""
        return float(np.std(self.fold_scores, ddof=1) / np.sqrt(len(self.fold_scores))) if len(self.fold_scores) > 1 else 0.0


@dataclass(frozen=True)
class SearchResult:
    """What was tried and what won.

    Attributes
    ----------
    winner : Scored
    trials : tuple of Scored
        All candidates in the order in which they were proposed, the failed ones too.
    random_state : int
        The random state of every step of every candidate.
    limits : Limits
        What bounded the hyperparameters.
    out_of_time : bool
        Whether a wall-clock limit ended the search or a candidate: then the same study may give another result.
    """

    winner: Scored
    trials: tuple[Scored, ...]
    random_state: int
    limits: Limits
    out_of_time: bool

    @property
    def failures(self) -> tuple[Scored, ...]:
        """Candidates without a score."""
        return tuple(trial for trial in self.trials if trial.failure)

    def trace(self) -> pd.DataFrame:
        """One row per candidate, in order."""
        return pd.DataFrame(
            {
                "number": number,
                "scaler": trial.candidate.scaler,
                "classifier": trial.candidate.classifier,
                "parameters": ", ".join(f"{name}={value}" for name, value in trial.candidate.parameters),
                "inner_c_index" if self.winner.candidate.is_survival else "inner_roc_auc": trial.mean,
                "standard_error": trial.standard_error,
                "seconds": round(trial.seconds, 3),
                "failure": trial.failure,
                "winner": trial.candidate == self.winner.candidate,
            }
            for number, trial in enumerate(self.trials)
        )


class Evaluator:
    """Scores candidates on the inner folds, each once, over the worker processes.

    Parameters
    ----------
    folds : sequence of InnerFold
    budget, generations : int
        Only for progress.
    seconds_per_candidate : float, optional
        A candidate that runs longer is ended and counts as failed.
    deadline : float, optional
        Value of ``time.monotonic()`` after which nothing more should be proposed.
    horizon : float, optional
        Time by which models of survival tell the risk.

    Attributes
    ----------
    survival : bool
        Whether times to an event are learnt.
    """

    def __init__(
        self,
        folds: Sequence[InnerFold],
        random_state: int,
        workers: Workers,
        progress: Progress,
        *,
        seconds_per_candidate: float | None = None,
        deadline: float | None = None,
        horizon: float | None = None,
    ) -> None:
        self.survival, self._horizon = is_survival(folds[0].y_train), horizon
        self.scored: dict[Candidate, Scored] = {}
        self.random_state = random_state
        self.generation = 0
        self.budget, self.generations = 0, 0
        self._folds, self._workers, self._progress = tuple(folds), workers, progress
        self._seconds_per_candidate, self._deadline = seconds_per_candidate, deadline

    @property
    def out_of_time(self) -> bool:
        """Whether the deadline has passed."""
        return self._deadline is not None and time.monotonic() > self._deadline

    def evaluate(self, candidates: Sequence[Candidate]) -> list[Scored]:
        """Score per candidate, in the order given; one generation of the search."""
        new = [candidate for candidate in dict.fromkeys(candidates) if candidate not in self.scored]
        self.generation += 1
        waiting = iter(new)

        def remember(outcome: Outcome[Scored]) -> None:
            candidate = next(waiting)
            self.scored[candidate] = outcome.value or Scored(candidate, failure=outcome.failure)
            self._report()

        tasks = [(candidate, self.random_state, self._folds, self._horizon) for candidate in new]
        self._workers.map(score_candidate, tasks, self._seconds_per_candidate, remember)
        return [self.scored[candidate] for candidate in candidates]

    def _report(self) -> None:
        scores = [scored.mean for scored in self.scored.values() if not scored.failure]
        best = max(scores) if scores else None
        self._progress.searching(len(self.scored), self.budget, self.generation, self.generations, best)


def score_candidate(candidate: Candidate, random_state: int, folds: Sequence[InnerFold], horizon: float | None = None) -> Scored:
    """Fit a candidate on each inner fold and score it there; a prediction that is no number is a failure."""
    start = time.perf_counter()
    out_of_fold = np.full(sum(len(fold.test_rows) for fold in folds), np.nan)
    standardised, scores = out_of_fold.copy(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a candidate that converges badly is judged by its score
        for fold in folds:
            pipeline = candidate.pipeline(random_state, horizon).fit(fold.X_train, fold.y_train)
            out_of_fold[fold.test_rows] = pipeline.predict_proba(fold.X_test)[:, 1]
            if not np.isfinite(out_of_fold[fold.test_rows]).all():
                return Scored(candidate, failure="predicted a value that is no number")
            centre, spread = centre_and_spread(pipeline.predict_proba(fold.X_train)[:, 1])
            standardised[fold.test_rows] = (out_of_fold[fold.test_rows] - centre) / spread
            scores.append(rank_score(fold.y_test, out_of_fold[fold.test_rows]))
    return Scored(candidate, tuple(scores), out_of_fold, standardised, time.perf_counter() - start)


def rank_score(y: np.ndarray, probability: np.ndarray) -> float:
    """Area under the ROC curve, or Harrell's concordance of times to an event; 0.5 is chance, 1 is best."""
    if is_survival(y):
        nobody = np.zeros(len(y), dtype=bool)
        return float(c_index(SurvivalPredictions(y["time"], y["event"], probability, nobody, np.ones((1, len(y))), None))[0])
    return float(roc_auc_score(y, probability))


def centre_and_spread(probability: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of a model's probabilities; a spread of one where all are the same."""
    spread = float(probability.std())
    return float(probability.mean()), spread if spread > 0 else 1.0


class _SearchSettings(Settings):
    """What every engine has.

    Parameters
    ----------
    folds : int
        Inner folds, over patients.
    choice : {"one_standard_error", "best"}
        The simplest candidate within one standard error of the best, or the best itself.
    """

    folds: int = Field(default=5, ge=2)
    choice: Literal["one_standard_error", "best"] = "one_standard_error"

    def search(self, evaluator: Evaluator, limits: Limits, rng: np.random.Generator) -> SearchResult:
        """Propose, score and choose.

        Raises
        ------
        HypoxiaError
            Every candidate failed.
        """
        self.propose(evaluator, limits, rng)
        trials = tuple(evaluator.scored.values())
        timed_out = any(trial.failure and trial.failure.startswith("ran longer") for trial in trials)
        winner = choose(trials, limits, self.choice)
        return SearchResult(winner, trials, evaluator.random_state, limits, evaluator.out_of_time or timed_out)

    def propose(self, evaluator: Evaluator, limits: Limits, rng: np.random.Generator) -> None:
        """Have the evaluator score candidates until the budget is used."""
        raise NotImplementedError


def choose(trials: Sequence[Scored], limits: Limits, choice: Literal["one_standard_error", "best"]) -> Scored:
    """The winner among scored candidates; equal scores go to the simpler one.

    References
    ----------
    Breiman et al. 1984, Classification and Regression Trees (the one-standard-error rule).
    """
    scored = [trial for trial in trials if not trial.failure]
    if not scored:
        reasons = sorted({str(trial.failure) for trial in trials})
        if all(reason.startswith("ran longer") for reason in reasons):
            raise InputError(
                f"All {len(trials)} candidates of the search were ended ({reasons[0]}); raise compute.seconds_per_candidate."
            )
        raise HypoxiaError(f"All {len(trials)} candidates of the search failed ({'; '.join(reasons[:3])}).")
    best = min(scored, key=lambda trial: (-trial.mean, trial.candidate.complexity(limits)))
    if choice == "best":
        return best
    near = [trial for trial in scored if trial.mean >= best.mean - best.standard_error]
    return min(near, key=lambda trial: (trial.candidate.complexity(limits), -trial.mean))


class TPOTSearch(_SearchSettings):
    """Evolution of pipelines by TPOT: selection, crossover and mutation are TPOT's, evaluation is ours.

    Parameters
    ----------
    generations : int
        The first population counts as one.
    population : int
    """

    kind: Literal["tpot"] = "tpot"
    generations: int = Field(default=5, ge=1)
    population: int = Field(default=20, ge=2)

    def propose(self, evaluator: Evaluator, limits: Limits, rng: np.random.Generator) -> None:
        """Evolve `generations` populations; the first one holds the baseline."""
        evolver_class = _import_evolver()

        class Evolver(evolver_class):  # type: ignore[misc, valid-type]
            """TPOT's evolver with its Dask evaluation replaced.

            Upstream gathers results as they finish, applies a candidate's time limit to the first few only and loses the run
            with a worker; ours keeps the order, limits every candidate and survives.
            """

            def evaluate_population_full(self, budget: float | None = None) -> None:
                new = self.get_unevaluated_individuals(self.objective_names)
                if len(new) == 0 or evaluator.out_of_time:
                    self.population.population = [one for one in self.population.population if one not in new]
                    return
                scored = evaluator.evaluate([_candidate_of(individual) for individual in new])
                self.population.update_column(new, column_names=self.objective_names, data=[[one.mean] for one in scored])
                errors = ["INVALID" if one.failure else None for one in scored]
                self.population.update_column(new, column_names="Eval Error", data=errors)
                self.population.remove_invalid_from_population(column_names="Eval Error")

        evaluator.budget, evaluator.generations = self.generations * self.population, self.generations
        first, options = baseline(evaluator.survival), steps(evaluator.survival)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas deprecations inside TPOT
            evaluator.evaluate([first])
            evaluator.generation = 0
            Evolver(
                individual_generator=_individuals(_tpot_space(options, limits), first, rng),
                objective_functions=[None],
                objective_function_weights=[1.0],
                objective_names=["inner_score"],
                population_size=self.population,
                generations=self.generations,
                client=object(),  # or TPOT would start a cluster of its own
                verbose=0,
                rng=rng,
            ).optimize()


class OptunaSearch(_SearchSettings):
    """Bayesian search by Optuna's tree-structured Parzen estimator, in batches of a fixed size.

    Parameters
    ----------
    trials : int
    batch : int
        Candidates proposed before any of them is known; fixed, so that the number of workers changes nothing.
    """

    kind: Literal["optuna"] = "optuna"
    trials: int = Field(default=100, ge=1)
    batch: int = Field(default=8, ge=1)

    def propose(self, evaluator: Evaluator, limits: Limits, rng: np.random.Generator) -> None:
        """Ask, score and tell batches until `trials` are used; the first trial is the baseline."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**31)), constant_liar=True, group=True, multivariate=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        first, options = baseline(evaluator.survival), steps(evaluator.survival)
        study.enqueue_trial({"scaler": first.scaler, "classifier": first.classifier, **_optuna_names(first)})
        evaluator.budget, evaluator.generations = self.trials, -(-self.trials // self.batch)
        for start in range(0, self.trials, self.batch):
            if evaluator.out_of_time and start:
                return
            asked = [study.ask() for _ in range(min(self.batch, self.trials - start))]
            found = evaluator.evaluate([_suggest(trial, options, limits) for trial in asked])
            for trial, scored in zip(asked, found, strict=True):
                failed = optuna.trial.TrialState.FAIL if scored.failure else None
                study.tell(trial, None if failed else scored.mean, state=failed)


Search = Annotated[TPOTSearch | OptunaSearch, Field(discriminator="kind")]


def _import_evolver() -> type:
    """TPOT's evolver, imported without TPOT's question to the package index for a newer version."""
    import update_checker

    ask, update_checker.update_check = update_checker.update_check, lambda *args, **kwargs: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tpot.evolvers import BaseEvolver
    finally:
        update_checker.update_check = ask
    return BaseEvolver


def _tpot_space(steps_of: Steps, limits: Limits) -> Any:
    """The search space in TPOT's terms: a sequence of choices between estimators."""
    from tpot.search_spaces.nodes import EstimatorNode
    from tpot.search_spaces.pipelines import ChoicePipeline, SequentialPipeline

    return SequentialPipeline(
        [
            # A class per option: TPOT mixes the hyperparameters of two nodes if their classes are the same.
            ChoicePipeline([EstimatorNode(type(option.name, (), {}), _configuration(option, limits)) for option in options])
            for options in steps_of.values()
        ]
    )


def _configuration(option: Option, limits: Limits) -> Any:
    from ConfigSpace import ConfigurationSpace, Constant

    space = ConfigurationSpace(seed=0)
    space.add(Constant("option", option.name))
    for parameter in option.parameters(limits):
        space.add(_configured(parameter))
    return space


def _configured(parameter: Parameter) -> Any:
    from ConfigSpace import Categorical, Constant, Float, Integer

    if isinstance(parameter, Choice):
        return Categorical(parameter.name, list(parameter.options))
    if parameter.low == parameter.high:
        return Constant(parameter.name, int(parameter.low) if parameter.whole else parameter.low)
    if parameter.whole:
        return Integer(parameter.name, (int(parameter.low), int(parameter.high)), log=parameter.log)
    return Float(parameter.name, (parameter.low, parameter.high), log=parameter.log)


def _individuals(space: Any, first: Candidate, rng: np.random.Generator) -> Iterator[SklearnIndividual]:
    yield _individual(space, first, rng)
    while True:
        yield space.generate(rng)


def _individual(space: Any, candidate: Candidate, rng: np.random.Generator) -> SklearnIndividual:
    """A TPOT individual that stands for a candidate, so that evolution may start from it."""
    individual = space.generate(rng)
    for choice, step in zip(individual.pipeline, ("scaler", "classifier"), strict=True):
        name = getattr(candidate, step)
        while choice.node.hyperparameters["option"] != name:
            choice._mutate_select_new_node(rng)
        choice.node.hyperparameters = {"option": name, **candidate.parameters_of(step)}
    return individual


def _candidate_of(individual: SklearnIndividual) -> Candidate:
    scaler, classifier = (_plain(choice.node.hyperparameters) for choice in individual.pipeline)
    return Candidate.of(str(scaler.pop("option")), scaler, str(classifier.pop("option")), classifier)


def _plain(hyperparameters: dict[str, Any]) -> dict[str, Value]:
    """Hyperparameters as Python's own numbers and strings, whatever numpy type a sampler gave."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in hyperparameters.items()}


def _optuna_names(candidate: Candidate) -> dict[str, Value]:
    owner = {"scaler": candidate.scaler, "classifier": candidate.classifier}
    return {f"{owner[name.split('.')[0]]}.{name.split('.')[1]}": value for name, value in candidate.parameters}


def _suggest(trial: optuna.Trial, steps_of: Steps, limits: Limits) -> Candidate:
    chosen: dict[str, tuple[str, dict[str, Value]]] = {}
    for step, options in steps_of.items():
        name = trial.suggest_categorical(step, [option.name for option in options])
        option = next(option for option in options if option.name == name)
        chosen[step] = name, {one.name: _suggested(trial, f"{name}.{one.name}", one) for one in option.parameters(limits)}
    return Candidate.of(*chosen["scaler"], *chosen["classifier"])


def _suggested(trial: optuna.Trial, name: str, parameter: Parameter) -> Value:
    if isinstance(parameter, Choice):
        return str(trial.suggest_categorical(name, list(parameter.options)))
    if parameter.whole:
        return trial.suggest_int(name, int(parameter.low), int(parameter.high), log=parameter.log)
    return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
