"""What the endpoint takes and answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from features.bundle import ModelCard
from features.settings import Settings
from features.table import FeatureSchema

MOST_ROWS = 256

EXAMPLE: JsonDict = {"rows": [{"id": "a", "features": {"volume": 1.5, "entropy": 4.2}}]}

# Strict: "1.5" and true are mistakes of the sender, not numbers. Infinity would come back as a null.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class Row(Settings):
    """One sample."""

    id: Annotated[str, Field(max_length=200)] | None = Field(
        default=None, description="Your name for the row; comes back with its prediction and is kept nowhere.", examples=["a"]
    )
    features: dict[str, Number] = Field(
        description="A finite number for every feature of the model (GET /v1/models/{name} lists them), by name, in any order.",
        examples=[{"volume": 1.5, "entropy": 4.2}],
    )


class PredictRequest(Settings):
    """Samples to score."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    rows: list[Row] = Field(min_length=1, max_length=MOST_ROWS, description=f"1 to {MOST_ROWS} samples.")


class ModelVersionName(Settings):
    """Which model answered."""

    name: str = Field(description="Name in the registry.")
    version: str = Field(description="Version in the registry.", examples=["3"])


class Prediction(Settings):
    """What the model says about one row."""

    id: str | None = Field(description="The row's id, if it had one.")
    probability: Probability = Field(description="Probability that the sample is positive (hypoxic), 0 to 1.")
    label: str = Field(description="The positive label if the probability is at or above the threshold, else the negative one.")
    threshold: Probability = Field(description="Threshold, chosen on development patients.")
    model_version: str = Field(description="Version of the model that scored the row.")


class PredictResponse(Settings):
    """Predictions in the order of the rows."""

    model: ModelVersionName
    threshold: Probability
    research_use_only: str
    predictions: list[Prediction]


class ModelSummary(ModelVersionName):
    """A model that is served here."""

    features: int = Field(description="Number of features that a row must have.")
    threshold: Probability


class ModelList(Settings):
    """The models that are served here."""

    models: list[ModelSummary]


class ModelDescription(ModelVersionName):
    """A model's card, and the features that it takes."""

    research_use_only: str
    card: ModelCard
    feature_schema: FeatureSchema = Field(alias="schema", description="Features in the model's order, with units where known.")


class ProblemFault(Settings):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="JSON pointer (RFC 6901) to the place in the body.", examples=["/rows/0/features/volume"])
    detail: str = Field(description="What is wrong there. Values that were sent are never repeated.", examples=["is missing"])


class Problem(Settings):
    """Why a request was refused (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[ProblemFault] | None = Field(default=None, description="The first faults, if they can be located.")
