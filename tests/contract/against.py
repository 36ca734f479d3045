"""What callers of one contract stumble over in another: `python -m tests.contract.against EARLIER.json [NEW.json]`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.openapi import FILE
from tests.contract.nodes import Change
from tests.contract.operations import breaking_changes
from tests.contract.released import contract


def told(changes: dict[Change, list[str]]) -> list[str]:
    """A line a change, with an operation that it concerns."""
    return [
        f"{change} ({places[0]}{f' and {len(places) - 1} more' if places[1:] else ''})"
        for change, places in changes.items()
    ]


def main(names: Sequence[str]) -> int:
    """Say what breaks. Exit status 1 when something does."""
    earlier, new = [*map(Path, names), FILE][:2]
    lines = told(breaking_changes(contract(earlier), contract(new)))
    print("\n".join(lines) or f"{new} breaks no caller of {earlier}")  # noqa: T201
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
