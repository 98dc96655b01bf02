"""The least that serves the model over HTTP: FastAPI takes a list of numbers, numpy and scikit-learn score it.

No names, no contract, no authentication, no log: the yardstick, not an example to follow.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

model = pickle.loads(Path(os.environ["BARE_MODEL"]).read_bytes())
app = FastAPI()


class Rows(BaseModel):
    """Rows of numbers in the model's order."""

    rows: list[list[float]]


@app.post("/predict")
async def predict(body: Rows) -> dict[str, list[float]]:
    """Probabilities of the event."""
    return {"probabilities": model.predict_proba(np.array(body.rows))[:, 1].tolist()}
