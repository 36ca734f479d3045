"""How fast the API says where an order stands, beside a bare handler that asks the same of the same database."""

from tests.bench.customers import customers
from tests.bench.load import Served, crowd
from tests.bench.report import Part
from tests.bench.rounds import side_by_side, taking_turns
from tests.bench.size import Say, Size
from tests.bench.stage import stage

NUMBER, TITLE = 6, "Status reads, beside a bare select"
SHOP, BARE = "GET /orders/{orderId}", "bare select"
AIM = 0.7
_ORDERS = 200
_READ = 200


async def measure(size: Size, say: Say) -> Part:
    async with stage() as here, customers(here) as who:
        # No worker: nothing happens to them meanwhile.
        orders = [order.order_id for order in await who.accept(_ORDERS)]
        await here.start_api()
        bare_url, bare_api = here.bare_api()

        async def read(url: str) -> Served:
            served = await crowd(
                *(here.cpu, f"{url}/orders", _READ), customers=size.in_flight, seconds=size.seconds, read=orders
            )
            if {*served.answers} != {_READ}:
                raise RuntimeError(f"A status read was answered {sorted({*served.answers} - {_READ})}.")
            return served

        async with here.running(bare_api):
            kinds = {SHOP: lambda: read(here.shop.urls.api), BARE: lambda: read(bare_url)}
            rounds = await taking_turns(say, "status reads", size.rounds, kinds, warm_up=False)
    table, figures = side_by_side(
        f"Reads, {size.in_flight} customers, {_ORDERS} orders",
        rounds,
        against=BARE,
        note=f"Aim: ≥ {AIM}. Both read order and view by one join and answer the same JSON. The shop's also reads the"
        " token, counts the caller's rate, holds the contract and sets tags; the bare one does none of it.",
    )
    return Part(number=NUMBER, title=TITLE, tables=[table], figures=figures)
