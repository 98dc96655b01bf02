"""One registered model for all tests that only read it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from serving.app import create_app
from serving.loader import load_registered, parse_reference
from serving.predictor import Predictor
from tests.serving.registered import Registered, register, small_bundle


@dataclass(frozen=True)
class Client:
    """Asks an application without a server (Starlette's own test client warns that it wants another HTTP library)."""

    app: ASGIApp

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Answer to one request; an exception of the application is an answer of 500, as on a server."""

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
                return await client.request(method, path, **request)

        return asyncio.run(send())


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Registered:
    return register(small_bundle(), tmp_path_factory.mktemp("store"), alias="champion")


@pytest.fixture(scope="session")
def predictor(registered: Registered) -> Predictor:
    return Predictor(load_registered(parse_reference(registered.name), registered.uri))


@pytest.fixture(scope="session")
def client(predictor: Predictor) -> Client:
    return Client(create_app({predictor.loaded.name: predictor}))
