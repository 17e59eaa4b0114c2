"""Bodies of a registry's answers: bounded, and an error's words for people."""

from __future__ import annotations

import json
import math
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from limpet.errors import LimpetError
from limpet.registry import redact
from limpet.registry.transport import explain

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

MAX_DOCUMENT = 1 << 20


def document(response: BaseHTTPResponse, limit: int) -> bytes:
    """The whole body of at most `limit` bytes. Raises LimpetError or TransferError."""
    try:
        data = response.read(limit + 1, decode_content=False)
        if len(data) > limit:
            response.close()
            raise LimpetError(f"the registry's answer is larger than {limit} bytes")
        response.read(1)  # reaches the end, so that the connection can be used again
    except HTTPError as e:
        raise explain(e, "") from e
    response.release_conn()
    return data


def finish(response: BaseHTTPResponse) -> None:
    """Throws away a short body so that the connection can be used again."""
    try:
        document(response, 1 << 16)
    except LimpetError:
        response.close()


def words(response: BaseHTTPResponse) -> str:
    """What the registry says is wrong, in one line (distribution spec, "Error codes"); consumes the body."""
    try:
        first = json.loads(document(response, MAX_DOCUMENT))["errors"][0]
        text = f"{first.get('code', '')} {first.get('message', '')}".strip()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, LimpetError):
        text = ""
    text = redact.clean(" ".join("".join(c if c.isprintable() else " " for c in text).split()))
    return f"HTTP {response.status}{': ' if text else ''}{text[:300]}"


def codes(data: bytes) -> set[str]:
    """The error codes in an answer."""
    try:
        return {error["code"] for error in json.loads(data)["errors"]}
    except (ValueError, LookupError, TypeError, RecursionError):
        return set()


def later(wait: float) -> str:
    """What to do about an answer with a Retry-After of so many seconds."""
    return f"try again in {math.ceil(wait)} s" if wait else ""


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date (RFC 9110, section 10.2.3); 0 for neither."""
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
