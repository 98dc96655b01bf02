"""What the endpoint takes and answers, as it is documented; a request in which something is wrong is also judged by this."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from features.bundle import ModelCard
from features.contract import FeatureRange
from features.settings import Settings
from features.table import FeatureSchema
from serving.predictor import LARGEST
from serving.shelf import PendingProblem

MOST_ROWS = 256
MOST_EXPLAINED = 32
MOST_FEATURES = 20_000
LONGEST_ID = 200

EXAMPLE: JsonDict = {"rows": [{"id": "a", "features": {"volume": 1.5, "entropy": 4.2}}]}

# Strict: "1.5" and true are mistakes of the sender, not numbers. Infinity would come back as a null.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


Word = Annotated[str, Field(max_length=LONGEST_ID)]


class Row(Settings):
    """One sample."""

    id: Annotated[str, Field(max_length=LONGEST_ID)] | None = Field(
        default=None, description="Your name for the row; comes back with its prediction and is kept nowhere.", examples=["a"]
    )
    features: dict[str, Number | Word | None] = Field(
        max_length=MOST_FEATURES,
        description="A finite number for every feature of the model (GET /v1/models/{name}/schema lists them), by name, in any "
        "order; a word for a feature that has levels (site, phase direction); null where missing values are filled.",
        examples=[{"volume": 1.5, "entropy": 4.2}],
    )


class RequestOptions(Settings):
    """How rows are to be answered."""

    out_of_distribution: Literal["flag", "refuse"] = Field(
        default="flag", description="Whether a row that is unlike the training samples is flagged or refused."
    )
    invalid_rows: Literal["refuse", "report"] = Field(
        default="refuse", description="Whether one invalid row refuses the request, or is reported among the others' predictions."
    )
    extraction_hash: Annotated[str, Field(max_length=LONGEST_ID)] | None = Field(
        default=None,
        description="Of the settings with which your features were extracted (settings_hash of the record beside the table). "
        "Features that were extracted otherwise than the model's are refused.",
    )


class PredictRequest(RequestOptions):
    """Samples to score."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    rows: list[Row] = Field(min_length=1, max_length=MOST_ROWS, description=f"1 to {MOST_ROWS} samples.")
    explain: bool = Field(
        default=False, strict=True, description=f"Whether SHAP values are answered too; at most {MOST_EXPLAINED} samples then."
    )


class ExplainRequest(PredictRequest):
    """Samples to score and explain, whatever `explain` says."""

    rows: list[Row] = Field(min_length=1, max_length=MOST_EXPLAINED, description=f"1 to {MOST_EXPLAINED} samples.")


class ModelVersionName(Settings):
    """Which model answered."""

    name: str = Field(description="Name in the registry.")
    version: str = Field(description="Version in the registry.", examples=["3"])


class OutsideRange(Settings):
    """A feature outside its training range."""

    feature: str
    side: Literal["below", "above"]


class OutOfDistribution(Settings):
    """How a row compares with what the model was trained on."""

    flagged: bool = Field(
        description="Whether the row is unlike the training samples: the distance is beyond the limit, a feature is farther "
        "outside its training range than left-out training samples are, or most values are missing."
    )
    distance: float = Field(ge=0.0, description="Robust distance from the middle of the training samples.")
    limit: float = Field(description="Distance within which nearly all training samples lie.")
    outside_range: list[OutsideRange] = Field(description="Features outside their training range, far or only just.")
    drivers: list[str] = Field(description="Features because of which the row is flagged, if it is.")


class Contribution(Settings):
    """What a feature adds to the probability."""

    feature: str
    shap: float


class RowExplanation(Settings):
    """SHAP values of a row: base value, features and rest sum to its probability."""

    base_value: float = Field(description="Mean probability of the rows that stand for the training samples.")
    features: list[Contribution] = Field(max_length=10, description="Those that matter most, largest first.")
    rest: float = Field(description="Sum of the others.")
    rest_count: int = Field(ge=0, description="Number of the others.")


class ProblemFault(Settings):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="JSON pointer (RFC 6901) to the place in the body.", examples=["/rows/0/features/volume"])
    detail: str = Field(description="What is wrong there. Values that were sent are never repeated.", examples=["is missing"])


class RowProblem(Settings):
    """Why a row was not scored."""

    detail: str
    errors: list[ProblemFault]


class Prediction(Settings):
    """What the model says about one row; a row that was not scored has a problem instead."""

    id: str | None = Field(description="The row's id, if it had one.")
    probability: Probability | None = Field(description="Probability that the sample is positive (hypoxic), 0 to 1.")
    label: str | None = Field(
        description="The positive label if the probability is at or above the threshold, else the negative one."
    )
    threshold: Probability = Field(description="Threshold, chosen on development patients.")
    model_version: str = Field(description="Version of the model that scored the row.")
    imputed: list[str] = Field(description="Features that were sent as null and filled as in training.")
    replaced: list[str] = Field(description="Features whose word was not seen in training, and was taken as the reference's.")
    out_of_distribution: OutOfDistribution | None
    explanation: RowExplanation | None
    problem: RowProblem | None


class PredictResponse(Settings):
    """Predictions in the order of the rows."""

    model: ModelVersionName
    threshold: Probability
    research_use_only: str
    extraction_hash: str | None = Field(
        description="Of the settings with which the model's features were extracted, where known: yours must be the same."
    )
    predictions: list[Prediction]


class ModelSummary(ModelVersionName):
    """A model that is served here."""

    features: int = Field(description="Number of features that a row must have.")
    threshold: Probability
    pending_problem: PendingProblem | None = Field(
        default=None, description="Why the version that should be served is not; the one before it still is."
    )


class ModelList(Settings):
    """The models that are served here."""

    models: list[ModelSummary]


class ContractSummary(Settings):
    """What a model takes, in short."""

    features: int
    missing: Literal["refuse", "impute"] = Field(description="What becomes of an explicit null.")
    order_hash: str = Field(description="Of the ordered names; rows without names are taken only from who sends the same.")
    extraction_hash: str | None = Field(description="Of the settings with which the features were extracted, where known.")
    distance_limit: float


class ModelDescription(ModelVersionName):
    """A model's card, the features that it takes, and its contract in short."""

    research_use_only: str
    card: ModelCard
    feature_schema: FeatureSchema = Field(alias="schema", description="Features in the model's order, with units where known.")
    contract: ContractSummary


class FeatureContract(FeatureRange):
    """A feature: its unit, and where it lay in training."""

    unit: str | None
    reference: str | None
    sequence: str | None
    family: str | None = Field(description="Family of radiomic features; `acquisition` for what describes the measurement.")
    levels: list[str] = Field(description="Words that it takes in place of numbers.")
    unseen: str | None = Field(description="Level that stands for a word that was not seen in training; null: it is refused.")
    may_be_null: bool = Field(description="Whether a null is filled as in training.")
    aliases: list[str] = Field(description="Other names under which it may be sent.")


class ModelContract(ModelVersionName):
    """What a model takes, feature by feature, in its order."""

    missing: Literal["refuse", "impute"]
    order_hash: str
    extraction_hash: str | None
    distance_limit: float
    features: list[FeatureContract]


class ModelCardAnswer(ModelVersionName):
    """What a model is, learnt from what, judged how."""

    research_use_only: str
    card: ModelCard


class Problem(Settings):
    """Why a request was refused (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[ProblemFault] | None = Field(default=None, description="The first faults, if they can be located.")
