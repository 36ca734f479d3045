"""Keep the contract as that of this release: `make contract`. What it promises then, the next release must keep."""

import sys

from deploy.openapi import FILE
from tests.contract.against import told
from tests.contract.operations import breaking_changes
from tests.contract.released import ACCEPTED, RELEASED, accepted, contract, last_release
from tests.replay.histories import release


def main() -> int:
    """Put it in the place of the last one, unless it breaks its callers."""
    last, new = last_release(), RELEASED / f"{release()}.json"
    changes = breaking_changes(contract(last), contract(FILE))
    broken = told({change: places for change, places in changes.items() if change.pointer not in accepted()})
    if broken:
        print("\n".join([*broken, "Nothing was recorded: docs/changing-the-api.md"]), file=sys.stderr)  # noqa: T201
        return 1
    last.unlink()
    new.write_text(FILE.read_text())
    ACCEPTED.write_text("{}\n")
    print(f"The contract of release {release()} is {new}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
