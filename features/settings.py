"""The base of everything that a study file can say."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Frozen settings that refuse a key they do not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
