"""The API's contract as the last release had it."""

import json
from pathlib import Path
from typing import Any

RELEASED = Path(__file__).parent / "released"
"""One file, named for the release: `make contract` puts the next one in its place."""
ACCEPTED = Path(__file__).parent / "accepted.json"
"""Breaking changes that are meant: the pointer of each, and why no caller suffers. For one release."""


def last_release() -> Path:
    """The file."""
    [found] = RELEASED.iterdir()
    return found


def contract(file: Path) -> dict[str, Any]:
    """An OpenAPI document."""
    return json.loads(file.read_text())


def accepted() -> dict[str, str]:
    """Why each change is accepted, by its pointer."""
    return json.loads(ACCEPTED.read_text())
