"""What an operator may ask of a running server; the edge asks for a token with the scope ``admin`` first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fastapi import APIRouter, HTTPException
from pydantic import Field

from features.settings import Settings
from serving.shelf import PendingProblem

if TYPE_CHECKING:
    from serving.predictor import Predictor


class ReloadedModel(Settings):
    """A model after a look into the registry."""

    name: str
    version: str = Field(description="The version that is served now by the process that answers; the others follow.")
    pending_problem: PendingProblem | None = Field(default=None, description="Why a newer version is not served.")


class Reloaded(Settings):
    """What is served after a look into the registry."""

    models: list[ReloadedModel]


def problems_of(predictors: Mapping[str, Predictor]) -> Mapping[str, PendingProblem]:
    """Why the newest versions of models are not served; nothing for a mapping that follows none."""
    problems: Mapping[str, PendingProblem] = getattr(predictors, "problems", {})
    return problems


def admin_routes(predictors: Mapping[str, Predictor], reload: Callable[[], bool]) -> APIRouter:
    """Routes under ``/v1/admin``.

    Parameters
    ----------
    reload : callable
        Looks into the registry and takes over what is new; False if it did not get to that.
    """
    router = APIRouter(prefix="/v1/admin")

    @router.post("/reload", summary="Look into the registry now, and serve what is new there")
    def reload_models() -> Reloaded:  # not async: it waits, and belongs on a thread
        if not reload():
            raise HTTPException(
                409, "Nothing was reloaded: no model is followed (see `hypoxia serve --follow`), or the registry is slow."
            )
        problems = problems_of(predictors)
        return Reloaded(
            models=[
                ReloadedModel(name=name, version=predictors[name].loaded.version, pending_problem=problems.get(name))
                for name in sorted(predictors)
            ]
        )

    return router
