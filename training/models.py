"""The search space: which pipelines are tried, declared once and read by every search engine.

Every classifier gives probabilities and is a plain scikit-learn class that keeps no training row, so that a bundle
carries no patient out of the hospital (nearest neighbours, Gaussian processes and support vectors do). Every
hyperparameter is bounded by the number of samples and features. To add a kind: one ``Option``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import QuantileTransformer, RobustScaler, StandardScaler

from training.options import Choice, Limits, Option, Range, Value, tree_limits
from training.survival_models import SURVIVAL_BASELINE, SURVIVAL_MODELS


def _weight(parameters: Mapping[str, Any]) -> str | None:
    return None if parameters["class_weight"] == "none" else str(parameters["class_weight"])


WEIGHTS = Choice("class_weight", ("none", "balanced"))

SCALERS = (
    Option("standard", "z-scores", lambda p, s: [StandardScaler()]),
    Option("robust", "scaling by median and quartiles", lambda p, s: [RobustScaler()]),
    Option(
        "normal_quantiles",
        "quantiles mapped to a normal distribution",
        lambda p, s: [QuantileTransformer(n_quantiles=p["n_quantiles"], output_distribution="normal", random_state=s)],
        lambda limits: (Range("n_quantiles", 5, max(5, min(100, limits.samples)), "low", whole=True),),
    ),
)

# In order of simplicity: what is tried first, and what the one-standard-error rule prefers.
CLASSIFIERS = (
    Option(
        "ridge_logistic",
        "logistic regression with a ridge penalty",
        lambda p, s: [LogisticRegression(C=p["C"], class_weight=_weight(p), max_iter=1000)],
        lambda limits: (Range("C", 1e-4, 10.0, "low", log=True), WEIGHTS),
    ),
    Option(
        "discriminant",
        "linear discriminant analysis with shrinkage",
        lambda p, s: [LinearDiscriminantAnalysis(solver="lsqr", shrinkage=p["shrinkage"])],
        lambda limits: (Range("shrinkage", 0.05, 0.99, "high"),),
    ),
    Option(
        "naive_bayes",
        "Gaussian naive Bayes",
        lambda p, s: [GaussianNB(var_smoothing=p["var_smoothing"])],
        lambda limits: (Range("var_smoothing", 1e-6, 1.0, "high", log=True),),
    ),
    Option(
        "lasso_logistic",
        "logistic regression with a lasso penalty",
        lambda p, s: [
            LogisticRegression(l1_ratio=1.0, C=p["C"], class_weight=_weight(p), solver="liblinear", max_iter=1000, random_state=s)
        ],
        lambda limits: (Range("C", 1e-2, 10.0, "low", log=True), WEIGHTS),
    ),
    Option(
        "kernel_logistic",
        "logistic regression on random Fourier features of a Gaussian kernel",
        lambda p, s: [
            RBFSampler(gamma=p["gamma"], n_components=p["n_components"], random_state=s),
            LogisticRegression(C=p["C"], max_iter=1000),
        ],
        lambda limits: (
            Range("C", 1e-3, 10.0, "low", log=True),
            Range("gamma", 0.01 / limits.features, 1.0 / limits.features, "low", log=True),
            Range("n_components", 20, max(20, 4 * limits.samples), "low", whole=True),
        ),
    ),
    Option(
        "random_forest",
        "random forest",
        lambda p, s: [RandomForestClassifier(n_estimators=200, random_state=s, **p)],
        lambda limits: (*tree_limits(limits), Range("max_features", 0.05, 1.0, "low")),
    ),
    Option(
        "extra_trees",
        "extremely randomised trees",
        lambda p, s: [ExtraTreesClassifier(n_estimators=200, random_state=s, **p)],
        lambda limits: (*tree_limits(limits), Range("max_features", 0.05, 1.0, "low")),
    ),
    Option(
        "boosting",
        "gradient boosting",
        lambda p, s: [GradientBoostingClassifier(max_features="sqrt", random_state=s, **p)],
        lambda limits: (
            Range("n_estimators", 20, 200, "low", whole=True),
            Range("max_depth", 1, 4, "low", whole=True),
            Range("learning_rate", 0.01, 0.3, "low", log=True),
            Range("subsample", 0.5, 1.0, "low"),
            Range("min_samples_leaf", 1, max(1, limits.samples // 10), "high", whole=True),
        ),
    ),
)


SCALER = {option.name: option for option in SCALERS}
CLASSIFIER = {option.name: option for option in (*CLASSIFIERS, *SURVIVAL_MODELS)}


def steps(survival: bool) -> dict[str, tuple[Option, ...]]:
    """The options of each step of a pipeline, by step: for classes, or for times to an event."""
    return {"scaler": SCALERS, "classifier": SURVIVAL_MODELS if survival else CLASSIFIERS}


@dataclass(frozen=True)
class Candidate:
    """One point of the search space.

    Attributes
    ----------
    scaler, classifier : str
        Names of options.
    parameters : tuple of (str, value)
        ``step.name`` and value, sorted.
    label : str or None
        What it is called, where it is no point of the search space but was given (a published signature).

    Examples
    --------
    >>> BASELINE.words
    'z-scores, then logistic regression with a ridge penalty (C=0.001, class_weight=none)'
    """

    scaler: str
    classifier: str
    parameters: tuple[tuple[str, Value], ...] = ()
    label: str | None = None

    @classmethod
    def of(
        cls, scaler: str, scaler_parameters: Mapping[str, Value], classifier: str, parameters: Mapping[str, Value]
    ) -> Candidate:
        """Candidate from the options' names and their parameters."""
        named = {f"scaler.{name}": value for name, value in scaler_parameters.items()}
        named |= {f"classifier.{name}": value for name, value in parameters.items()}
        return cls(scaler, classifier, tuple(sorted(named.items())))

    def parameters_of(self, step: str) -> dict[str, Value]:
        """Parameters of one step, without the step's name."""
        return {name.removeprefix(f"{step}."): value for name, value in self.parameters if name.startswith(f"{step}.")}

    @property
    def is_survival(self) -> bool:
        """Whether it is of times to an event."""
        return CLASSIFIER.get(self.classifier) in SURVIVAL_MODELS

    def pipeline(self, random_state: int, horizon: float | None = None) -> Pipeline:
        """The unfitted scikit-learn pipeline; the random state is set in every step that has one.

        Parameters
        ----------
        horizon : float, optional
            Time by which a model of survival tells the risk of the event.
        """
        about: dict[str, Any] = {"horizon": horizon} if self.is_survival else {}
        scale = SCALER[self.scaler].build(self.parameters_of("scaler"), random_state)
        classify = CLASSIFIER[self.classifier].build({**self.parameters_of("classifier"), **about}, random_state)
        return make_pipeline(*scale, *classify)

    @property
    def words(self) -> str:
        """What the pipeline does, as a phrase."""
        if self.label is not None:
            return self.label
        settings = ", ".join(f"{name}={_short(value)}" for name, value in self.parameters_of("classifier").items())
        return f"{SCALER[self.scaler].words}, then {CLASSIFIER[self.classifier].words}" + (f" ({settings})" if settings else "")

    def complexity(self, limits: Limits) -> tuple[float, ...]:
        """Key that sorts candidates from simple to complex: classifier, scaler, then hyperparameters in declared order."""
        classifier, scaler = CLASSIFIER[self.classifier], SCALER[self.scaler]
        given = self.parameters_of("classifier")
        return (
            (SURVIVAL_MODELS if self.is_survival else CLASSIFIERS).index(classifier),
            SCALERS.index(scaler),
            *(parameter.complexity(given[parameter.name]) for parameter in classifier.parameters(limits)),
        )


def _short(value: Value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# Tried first by every engine: on small cohorts little beats a strongly shrunk linear model.
BASELINE = Candidate.of("standard", {}, "ridge_logistic", {"C": 1e-3, "class_weight": "none"})


def baseline(survival: bool) -> Candidate:
    """What every engine tries first."""
    return Candidate.of("standard", {}, SURVIVAL_BASELINE[0], SURVIVAL_BASELINE[1]) if survival else BASELINE
