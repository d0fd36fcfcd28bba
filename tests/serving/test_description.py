"""The OpenAPI description and what the service does are the same thing."""

from __future__ import annotations

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving.conftest import Live
from tests.turns import looped, turns

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
ROUTES = ["/health", "/version", "/predict", "/batch", "/reload"]


@looped
@pytest.mark.parametrize("route", ROUTES)
def test_generated_requests_get_described_answers(live: Live, route: str) -> None:
    live.reload(live.place.second)
    schema = schemathesis.openapi.from_url(f"{live.service.url}/openapi.json")
    method = "GET" if route in ("/health", "/version") else "POST"

    @settings(
        max_examples=turns(10, 40),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[route][method].as_strategy())
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=live.service.headers, checks=list(CHECKS))

    check()
    assert live.client.get("/health").json()["model_loaded"] is True


def test_the_description_is_public_and_names_the_key(live: Live) -> None:
    text = httpx.get(f"{live.service.url}/openapi.json").json()
    assert text["components"]["securitySchemes"]["ApiKey"]["name"] == "X-API-Key"
    assert "security" not in text["paths"]["/health"]["get"]
    assert text["paths"]["/predict"]["post"]["security"] == [{"ApiKey": []}]
    assert httpx.get(f"{live.service.url}/docs").status_code == 200


def test_an_unknown_route_and_method_are_answered_in_our_shape(live: Live) -> None:
    missing, wrong = live.client.get("/nothing"), live.client.get("/predict")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["Allow"]
