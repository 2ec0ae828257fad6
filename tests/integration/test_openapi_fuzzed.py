"""The running service keeps to its own /openapi.json, whatever schemathesis makes up from it, right or wrong."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from jobs import keys
from tests.integration.stack import Stack
from wordpress.demo_network import DemoNetwork

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 12  # for each operation and mode
PATIENT = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,  # the same calls each time
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


def operations(web: Stack) -> Iterator[Any]:
    """Every operation that the service describes."""
    document = web.client.get("/openapi.json").json()
    found: Any = schemathesis.openapi.from_dict(document).get_all_operations()
    for operation in found:
        yield operation.ok()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_call_gets_what_is_not_described(web: Stack, sites: DemoNetwork, mode: GenerationMode) -> None:
    """No 5xx, no other status, media type, header or body than it says; of a run that there is and of others."""
    run_id, called = web.trigger().json()["run_id"], 0
    for operation in operations(web):
        if mode is GenerationMode.NEGATIVE and not [*operation.iter_parameters(), *operation.body]:
            continue  # nothing about it can be wrong

        @PATIENT
        @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
        def call(case: Any, known: bool) -> None:
            nonlocal called
            if known and "run_id" in case.path_parameters:
                case.path_parameters["run_id"] = run_id
            web.redis.delete(keys.COOLDOWN)
            case.call_and_validate(
                base_url=str(web.client.base_url), headers=dict(web.client.headers), checks=CHECKS, timeout=10
            )
            called += 1

        call()
    assert called > 5 * EXAMPLES
    assert sites.sites.calls > 6
