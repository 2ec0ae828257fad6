"""The description of the API: valid, of every route, and of nothing else."""

import asyncio
import json
import re
from typing import Any, get_args

import pytest
from openapi_spec_validator import validate
from starlette.applications import Starlette
from starlette.requests import Request

from jobs import __version__, runs
from jobs.health import State
from jobs.outcomes import Outcome
from jobs.settings import BOOLEAN_WORDS
from service.openapi import openapi
from service.routes import ROUTES


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """As GET /openapi.json gives it."""
    answer = asyncio.run(openapi(Request({"type": "http", "app": Starlette(routes=ROUTES)})))
    return dict(json.loads(bytes(answer.body)))


def test_it_is_valid_openapi(document: dict[str, Any]) -> None:
    """Of version 3.1, ids unique, every reference resolved; with this release's version."""
    validate(document)
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["version"] == __version__


def test_every_route_is_in_it_with_its_methods(document: dict[str, Any]) -> None:
    """HEAD and OPTIONS apart."""
    routes = {route.path: {method.lower() for method in route.methods or ()} - {"head"} for route in ROUTES}
    assert {path: set(operations) for path, operations in document["paths"].items()} == routes


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every operation by its id."""
    return {one["operationId"]: one for path in document["paths"].values() for one in path.values()}


def test_every_operation_says_what_it_does_and_who_may(document: dict[str, Any]) -> None:
    """In a sentence, its handler's; a token is asked for but by these."""
    found = operations(document)
    assert all(re.fullmatch(r"[A-Z].+\.", one["summary"]) for one in found.values())
    scopes = {name: one["security"][0]["bearer"][0] for name, one in found.items() if one["security"]}
    assert set(found) - set(scopes) == {"index_get", "livez_get", "readyz_get", "openapi_get"}
    starting = {name for name, scope in scopes.items() if scope == "run"}
    runs_of_both = {f"{name}_{method}" for name in ("run", "legacy_run") for method in ("get", "post")}
    assert starting == {*runs_of_both, "process_queue_post", "cancel_post"}


def test_nothing_is_declared_that_no_route_uses(document: dict[str, Any]) -> None:
    """Every component is referred to."""
    text, components = json.dumps(document), document["components"]
    kinds = ("parameters", "requestBodies", "headers", "responses", "schemas")
    unused = [f"{k}/{name}" for k in kinds for name in components[k] if f'"#/components/{k}/{name}"' not in text]
    assert unused == []


def test_words_are_those_of_the_code(document: dict[str, Any]) -> None:
    """States, outcomes, statuses and booleans, which are written elsewhere, too."""
    parameters, schemas = document["components"]["parameters"], document["components"]["schemas"]
    assert tuple(parameters["state"]["schema"]["enum"]) == get_args(State)
    kinds = {outcome.kind for outcome in Outcome} - {"dispatched"}
    assert set(parameters["outcome"]["schema"]["enum"]) == kinds
    assert set(schemas["RunSummary"]["properties"]["status"]["enum"]) == runs.FINAL | {"queued", "running"}
    words = set(re.findall(r"[a-z]+|[01]", BOOLEAN_WORDS.replace(" or ", " ")))
    assert words <= set(re.findall(r"\w+", parameters["ga"]["description"]))
