"""The lines of OpenAI's batch files: what a line of the output and of the error file says, as its reference has them.

Source: https://platform.openai.com/docs/api-reference/batch, the request input, request output and error objects.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.formats.json_line import is_encodable, parse_line
from pipelines.formats.json_values import dump_json

BATCH_FORMAT = "openai-batch"
"""The word of `input.format` and `output.format`."""

LINE_KEYS = ("custom_id", "method", "url", "body")

SUCCESS = 200


def answered_line(digits: str, custom_id: str | None, status: int, body: Mapping[str, Any]) -> bytes:
    """A request that the API answered, whatever it said. `digits` tell it from all others."""
    response = {"status_code": status, "request_id": digits, "body": body}
    return _line(digits, custom_id, response=response, error=None)


def unanswered_line(digits: str, custom_id: str | None, *, code: str, message: str) -> bytes:
    """A request that never got to the API."""
    return _line(digits, custom_id, response=None, error={"code": code, "message": message})


def _line(digits: str, custom_id: str | None, **rest: Any) -> bytes:
    return dump_json({"id": f"batch_req_{digits}", "custom_id": custom_id, **rest})


def error_line(digits: str, letter: Mapping[str, Any]) -> bytes:
    """The line of a dead letter, as `pipelines.ledger.unit_files` writes them."""
    custom_id, answer = _custom_id(letter["input"]), letter.get("answer")
    if answer is None:
        return unanswered_line(digits, custom_id, code=letter["kind"], message=letter["message"])
    return answered_line(digits, custom_id, answer["status"], answer["body"])


def _custom_id(given: Any) -> str | None:
    """What a line called itself, if it did."""
    found = given.get("custom_id") if isinstance(given, dict) else None
    return found if isinstance(found, str) and is_encodable(found) else None


def usage_in(body: Mapping[str, Any]) -> tuple[int, int, int]:
    """Tokens of the prompt, those of them that were cached, and those generated, as the API counts them in an answer."""
    usage = body.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return usage.get("prompt_tokens") or 0, cached, usage.get("completion_tokens") or 0


def shown_row(line: bytes) -> dict[str, Any]:
    """A line of the output as a row for people, with its counts of tokens as other outputs have them."""
    found = parse_line(line)
    prompt, _, completion = usage_in(found["response"]["body"])
    return {
        "custom_id": found["custom_id"],
        "body": found["response"]["body"],
        "prompt_tokens": prompt,
        "completion_tokens": completion,
    }
