"""The names that the shop's first version had. They answer what their successors answer, and are read only."""

from datetime import UTC, datetime
from typing import Any

from fastapi import Depends, Response

from services.gateway.openapi import headers, refusals

_SINCE = datetime(2026, 11, 24, tzinfo=UTC)


def classic(successor: str, *codes: str) -> dict[str, Any]:
    """What a route of a classic name is declared with, beside its path: it is deprecated (RFC 9745), and for what.

    `codes` are those of the problems that it may answer.
    """

    async def deprecated(response: Response) -> None:
        response.headers["Deprecation"] = f"@{int(_SINCE.timestamp())}"
        response.headers["Link"] = f'<{successor}>; rel="successor-version"'

    responses = {200: {"headers": headers("Deprecation", "Link")}} | refusals(*codes)
    return {"deprecated": True, "dependencies": [Depends(deprecated)], "responses": responses}
