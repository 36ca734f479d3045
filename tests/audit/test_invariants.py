"""Every invariant is green on sound books, and turns red, naming whom, for the breach that was planted for it."""

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from tests.audit.findings import Finding, findings_table
from tests.audit.invariants import INVARIANTS, audit
from tests.audit.plants import PLANTS, Plant
from tests.audit.shelf import Shelf, a_shop_at_rest, a_shop_in_motion, a_shop_of_last_week


def red(findings: list[Finding]) -> set[str]:
    return {finding.invariant.name for finding in findings if finding.breaches}


@pytest.mark.parametrize(
    ("shop", "settled"),
    [(a_shop_at_rest, True), (a_shop_at_rest, False), (a_shop_in_motion, False), (a_shop_of_last_week, True)],
)
def test_a_sound_shop_keeps_every_promise(shop: Callable[[], Shelf], settled: bool) -> None:
    findings = audit(shop().books(settled=settled))
    assert [str(breach) for finding in findings for breach in finding.breaches] == []
    assert [finding.invariant for finding in findings] == list(INVARIANTS)


def test_every_invariant_looks_at_something_of_a_sound_shop() -> None:
    looked_at = {
        finding.invariant.name: finding.looked_at for finding in audit(a_shop_in_motion().books(settled=False))
    }
    assert [name for name, count in looked_at.items() if not count] == []


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_a_planted_breach_is_found_and_named(plant: Plant) -> None:
    shelf = a_shop_at_rest() if plant.settled else a_shop_in_motion()
    plant.spoil(shelf)
    findings = audit(shelf.books(settled=plant.settled))
    assert red(findings) == {plant.breaks} | plant.also
    [finding] = [finding for finding in findings if finding.invariant.name == plant.breaks]
    assert [breach for breach in finding.breaches if plant.names in str(breach)] == finding.breaches


@pytest.mark.parametrize("name", [invariant.name for invariant in INVARIANTS])
def test_every_invariant_has_a_breach_planted_for_it(name: str) -> None:
    assert name in {plant.breaks for plant in PLANTS}


def test_names_are_unique_and_promises_are_made() -> None:
    assert len({invariant.name for invariant in INVARIANTS}) == len(INVARIANTS)
    assert all(invariant.promise.endswith(".") for invariant in INVARIANTS)


def test_an_empty_shop_keeps_every_promise() -> None:
    assert red(audit(Shelf().books())) == set()


def test_what_an_operator_skipped_is_excused_and_told() -> None:
    findings = audit(a_shop_at_rest().books())
    excused = [str(breach) for finding in findings for breach in finding.excused]
    assert "skipped: OrderCanceled, and pay_order stands: 2000 of 2000 charged" in excused
    assert {breach.partition(":")[0] for breach in excused} == {"skipped"}


def test_without_the_operators_word_it_is_a_breach() -> None:
    shelf = a_shop_at_rest()
    [skip] = [event for event in shelf.events if event.type == "CompensationSkipped"]
    skip.detail = {"undo": "restore_stock"}
    findings = audit(shelf.books())
    assert {"what stands of OrderCanceled", "the money adds up"} <= red(findings)
    assert not any(finding.excused for finding in findings)


def test_the_table_names_promises_counts_and_offenders() -> None:
    shelf = a_shop_at_rest()
    for number in range(7):
        shelf.add(f"waiting-{number}", ("OrderReceived", "OrderPlaced"))
    console = Console(width=200, file=StringIO())
    with console.capture() as shown:
        console.print(findings_table(audit(shelf.books())))
    said = shown.get()
    for invariant in INVARIANTS:
        assert invariant.name in said
    assert "waiting-0: still OrderPlaced, waiting for the marketing team, while nothing is under way" in said
    assert "… and 2 more" in said
