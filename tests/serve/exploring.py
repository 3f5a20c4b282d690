"""Requests made from an OpenAPI document, good and bad, by schemathesis."""

from collections.abc import Collection

import httpx2 as httpx


def explore(url: str, key: str, document: str, examples: int, *, leave_out: Collection[str] = ()) -> None:
    """Check that a server never answers with 5xx, and always as its document says. `leave_out` names paths."""
    import hypothesis
    import schemathesis

    headers = {"Authorization": f"Bearer {key}"}
    found = httpx.get(f"{url}{document}", headers=headers).json()
    found["paths"] = {path: item for path, item in found["paths"].items() if path not in leave_out}
    schema = schemathesis.openapi.from_dict(found)
    schema.config.update(base_url=url)
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.checks.CHECKS.get_one("status_code_conformance"),
        schemathesis.checks.CHECKS.get_one("content_type_conformance"),
        schemathesis.checks.CHECKS.get_one("response_schema_conformance"),
    ]
    seen: dict[int, int] = {}
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(
            case=operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE)
            | operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
        )
        def send(case) -> None:
            answer = case.call(headers=headers)
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            case.validate_response(answer, checks=checks)

        send()
    assert seen.get(200)
    assert seen.get(400)
