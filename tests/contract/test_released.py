"""The API breaks no caller of the last release."""

import re

from deploy.openapi import FILE
from tests.contract.against import told
from tests.contract.operations import breaking_changes
from tests.contract.released import accepted, contract, last_release
from tests.replay.histories import release


def test_the_api_breaks_no_caller_of_the_last_release() -> None:
    changes = breaking_changes(contract(last_release()), contract(FILE))
    broken = {change: places for change, places in changes.items() if change.pointer not in accepted()}
    assert not broken, "\n".join(["what to do is in docs/changing-the-api.md:", *told(broken)])


def test_what_was_accepted_is_still_there_to_be_accepted() -> None:
    """An acceptance that is left behind would let the next break at the same place pass."""
    changes = breaking_changes(contract(last_release()), contract(FILE))
    assert accepted().keys() <= {change.pointer for change in changes}
    assert all(len(reason.split()) > 2 for reason in accepted().values()), "say why no caller suffers"


def test_the_contract_is_that_of_a_release_and_not_of_one_to_come() -> None:
    file = last_release()
    assert contract(file)["info"]["version"] == file.stem
    assert [*map(int, file.stem.split("."))] <= [*map(int, re.findall(r"\d+", release()))]
