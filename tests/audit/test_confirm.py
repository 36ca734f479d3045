"""A breach counts once it stood still; what was only moving does not."""

from collections.abc import Callable

from tests.audit.books import Books
from tests.audit.confirm import READINGS, Verdict, confirmed
from tests.audit.shelf import SENT, Shelf, a_shop_at_rest


async def audited(*readings: Callable[[Shelf], object] | None, settled: bool = False) -> tuple[Verdict, int]:
    """The verdict over readings that are each spoilt so, the last one for ever; and how many were made."""
    made = 0

    async def read() -> Books:
        nonlocal made
        spoil = readings[min(made, len(readings) - 1)]
        made += 1
        shelf = a_shop_at_rest()
        if spoil is not None:
            spoil(shelf)
        return shelf.books(settled=settled)

    async def pause() -> None:
        return

    return await confirmed(read, pause), made


def breached(verdict: Verdict) -> list[str]:
    return [breach.subject for finding in verdict.findings for breach in finding.breaches]


def lost_coupon(shelf: Shelf) -> None:
    shelf.coupon("sent").revoked_at = shelf.coupon("canceled").revoked_at


def another_lost_coupon(shelf: Shelf) -> None:
    shelf.coupon("delivered").revoked_at = shelf.coupon("canceled").revoked_at


async def test_a_sound_shop_is_read_once() -> None:
    verdict, made = await audited(None)
    assert (verdict.sound, made) == (True, 1)


async def test_a_breach_that_stays_is_certain_after_three_readings() -> None:
    verdict, made = await audited(lost_coupon)
    assert (verdict.sound, breached(verdict), verdict.moving, made) == (False, ["sent"], [], 3)


async def test_a_breach_that_is_gone_was_none() -> None:
    verdict, made = await audited(lost_coupon, lost_coupon, None)
    assert (verdict.sound, verdict.moving, made) == (True, [], 3)


async def test_what_only_comes_later_is_left_to_the_next_audit() -> None:
    verdict, made = await audited(lost_coupon, another_lost_coupon)
    assert (verdict.sound, verdict.moving, made) == (True, [], 2)


async def test_in_a_settled_shop_it_is_waited_for_until_it_is_certain_too() -> None:
    verdict, made = await audited(lost_coupon, another_lost_coupon, settled=True)
    assert (breached(verdict), made) == (["delivered"], 4)


async def test_in_a_settled_shop_nothing_moves_so_what_is_left_counts() -> None:
    verdict, made = await audited(*[lost_coupon, another_lost_coupon] * READINGS, settled=True)
    assert (breached(verdict), verdict.moving, made) == (["delivered"], [], READINGS)


async def test_a_breach_of_an_order_that_moves_is_not_judged_and_told_and_others_are() -> None:
    verdict, made = await audited(*[moving(SENT[:2]), moving(SENT[:3])] * READINGS)
    assert (breached(verdict), made) == (["sent"], READINGS)
    assert [breach.subject for breach in verdict.moving] == ["moving"]


def moving(timeline: tuple[str, ...]) -> Callable[[Shelf], None]:
    """One coupon is lost, and an order has come so far, whose view is somebody else's."""

    def spoil(shelf: Shelf) -> None:
        lost_coupon(shelf)
        shelf.add("moving", timeline)
        shelf.view("moving").user_id = "somebody-else"

    return spoil
