"""What the endpoint takes and answers, as it is documented; a request in which something is wrong is also judged by this."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict

from features.bundle import ModelCard, Part
from features.contract import FeatureRange
from features.settings import Settings
from features.table import FeatureSchema
from serving.predictor import LARGEST
from serving.shelf import PendingProblem

MOST_ROWS = 256
MOST_EXPLAINED = 32
MOST_FEATURES = 20_000
LONGEST_ID = 200
# A composite has two; so many names are told apart from a body of another form.
MOST_COMPONENTS = 8

EXAMPLE: JsonDict = {"rows": [{"id": "a", "features": {"volume": 1.5, "entropy": 4.2}}]}

# Strict: "1.5" and true are mistakes of the sender, not numbers. Infinity would come back as a null.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


Word = Annotated[str, Field(max_length=LONGEST_ID)]
Features = Annotated[dict[str, Number | Word | None], Field(max_length=MOST_FEATURES)]


def _features_or_components(schema: JsonDict) -> None:
    schema["required"] = []
    schema["anyOf"] = [{"required": ["features"]}, {"required": ["components"], "properties": {"components": {"type": "object"}}}]


class Row(Settings):
    """One sample: its features, or (to a composite) the features of the models that give the composite's values."""

    model_config = ConfigDict(json_schema_extra=_features_or_components)

    id: Annotated[str, Field(max_length=LONGEST_ID)] | None = Field(
        default=None, description="Your name for the row; comes back with its prediction and is kept nowhere.", examples=["a"]
    )
    features: Features = Field(
        description="A finite number for every feature of the model (GET /v1/models/{name}/schema lists them), by name, in any "
        "order; a word for a feature that has levels (site, phase direction); null where missing values are filled.",
        examples=[{"volume": 1.5, "entropy": 4.2}],
    )
    components: dict[str, Features | None] | None = Field(
        default=None,
        max_length=MOST_COMPONENTS,
        description="To a composite only: by biomarker, the features of the model that gives it (GET /v1/models/{name}/schema "
        "lists them); a biomarker is sent as a value or as features, not as both.",
        examples=[{"gene_score": {"CA9": 8.1}}],
    )

    @model_validator(mode="before")
    @classmethod
    def _components_are_enough(cls, row: Any) -> Any:
        if isinstance(row, dict) and "features" not in row and row.get("components") is not None:
            return {**row, "features": {}}
        return row


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
        default=False,
        strict=True,
        description=f"Whether SHAP values are answered too; at most {MOST_EXPLAINED} samples then. A profile has none: what "
        "decided the cluster is answered, exactly, whether asked for or not (`profile.deciding`).",
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
    """SHAP values of a row: base value, features and rest sum to its probability.

    Of a composite its two biomarkers are explained; one that is missing counts for what its being missing changes.
    """

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


class PartAnswer(Settings):
    """One of the two biomarkers of a composite."""

    name: str
    modality: Literal["imaging", "genes"]
    model: str | None = Field(description="Registered model that gives the biomarker, if one does.")
    version: str | None = Field(description="Version of that model.")
    value: float | None = Field(description="Value of the biomarker in the row; null where it is missing.")
    source: Literal["sent", "model"] | None = Field(
        description="Whether the value was sent, or computed by the model from its features."
    )
    imputed: list[str] = Field(description="Features of that model that were sent as null and filled as in training.")
    replaced: list[str] = Field(description="Features of that model whose word was taken as the reference's.")
    out_of_distribution: OutOfDistribution | None = Field(
        description="How the features compare with what that model was trained on; null where the value was sent."
    )


class MissingPart(Settings):
    """A biomarker that was missing, and what was done."""

    part: str
    answered: str = Field(examples=["by gene_score alone, at its own cutpoint"])


class CompositeAnswer(Settings):
    """How a composite came to its answer."""

    score: float | None
    label: str
    cutoff: float | None = Field(description="A score at or above it gets the positive label.")
    rule: str
    parts: list[PartAnswer] = Field(min_length=2, max_length=2)
    missing: MissingPart | None


class DecidingFeature(Settings):
    """A feature that speaks for the nearest cluster against the second nearest."""

    feature: str
    contribution: float = Field(gt=0.0, description="What it adds to the margin.")


class ProfileAnswer(Settings):
    """Which cluster of training patients a row is nearest to, and why; the row's probability is the risk that these had.

    Distances are squared Euclidean distances from the cluster's medoid, in squared standard deviations of the features.
    """

    cluster: str = Field(examples=["cluster 2"])
    number: int = Field(ge=1, description="The cluster's number, in ascending order of the share of patients with the event.")
    patients: int = Field(ge=0, description="Training patients of the cluster.")
    events: int = Field(ge=0, description="Those of them with the event.")
    distances: dict[str, Annotated[float, Field(ge=0.0)]] = Field(description="Distance from every cluster, by its name.")
    margin: float | None = Field(
        ge=0.0, description="How much farther the second nearest cluster is than the nearest; null where there is one only."
    )
    runner_up: str | None = Field(description="The second nearest cluster; null where there is one only.")
    unlike_any_cluster: bool = Field(
        description="Whether the row is farther from its cluster than any training patient of the cluster (of all, if small)."
    )
    limit: float = Field(ge=0.0, description="Distance from its cluster beyond which the row is unlike any cluster.")
    deciding: list[DecidingFeature] = Field(
        max_length=5,
        description="Features that speak most for the cluster against the second nearest, largest first: exactly what each adds "
        "to the margin, and so the explanation of a profile.",
    )
    rest: float = Field(description="What the other features add to the margin; negative where they speak for the other cluster.")


class Prediction(Settings):
    """What the model says about one row; a row that was not scored has a problem instead."""

    id: str | None = Field(description="The row's id, if it had one.")
    probability: Probability | None = Field(
        description="0 to 1, higher is worse: probability that the sample is positive (hypoxic); or, of a model whose card has a "
        "horizon, risk of the event by that time."
    )
    score: float | None = Field(description="Score behind the probability, of a model whose card has one; higher is worse.")
    label: str | None = Field(
        description="The positive label if the probability is at or above the threshold (or, where the model has a score, if "
        "that is at or above its cutoff), else the negative one."
    )
    threshold: Probability = Field(description="Threshold, chosen on development patients.")
    model_version: str = Field(description="Version of the model that scored the row.")
    composite: CompositeAnswer | None = Field(description="The two biomarkers and what was made of them, of a composite.")
    profile: ProfileAnswer | None = Field(
        description="The cluster of training patients that the row is nearest to, of a profile."
    )
    imputed: list[str] = Field(description="Features that were sent as null and filled as in training.")
    replaced: list[str] = Field(description="Features whose word was not seen in training, and was taken as the reference's.")
    out_of_distribution: OutOfDistribution | None
    explanation: RowExplanation | None = Field(
        description="SHAP values, if they were asked for; null for a profile: `profile.deciding` and `rest` explain it."
    )
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


class PartDescription(Part):
    """One of the two biomarkers of a composite, and what the model that gives it takes."""

    feature_schema: FeatureSchema | None = Field(alias="schema", description="Null where no model here can compute it.")
    contract: ContractSummary | None


class ModelDescription(ModelVersionName):
    """A model's card, the features that it takes, and its contract in short."""

    research_use_only: str
    card: ModelCard
    feature_schema: FeatureSchema = Field(alias="schema", description="Features in the model's order, with units where known.")
    contract: ContractSummary
    parts: list[PartDescription] | None = Field(description="The two biomarkers, of a composite.")


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


class InputContract(Settings):
    """What is taken, feature by feature, in the model's order."""

    missing: Literal["refuse", "impute"]
    order_hash: str
    extraction_hash: str | None
    distance_limit: float
    features: list[FeatureContract]


class PartContract(Settings):
    """A biomarker of a composite that a model gives, and what may be sent in its place, under `components`."""

    name: str
    contract: InputContract


class ModelContract(ModelVersionName, InputContract):
    """What a model takes, feature by feature, in its order."""

    components: list[PartContract] | None = Field(description="Biomarkers that can be computed here, of a composite.")


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
