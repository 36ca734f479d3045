"""Take the pictures of the Web UI that docs/operations.md shows: `make screenshots`.

In headless Chromium, of a shop of its own, through its codec server: as an operator sees it.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from deploy.apt import ProgramUnavailable, find_program
from deploy.local import ROOT
from deploy.stack import Stack
from tests.e2e.shop import OPERATOR, Shop, Wish, open_shop
from workflows.messages import SEARCH_ATTRIBUTES

_PATIENCE_SECONDS = 30
_PAGE = (By.TAG_NAME, "body")
# Chromium of its own accord calls home at its start, for which there is no need.
_QUIETLY = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
)


def main() -> int:
    """The process's exit status: 1 where there is no browser."""
    console = Console(highlight=False)
    try:
        asyncio.run(_take(console))
    except ProgramUnavailable as error:
        console.print(f"No pictures: {error}", style="red", soft_wrap=True)
        return 1
    return 0


async def _take(console: Console) -> None:
    browser = await find_program("chromium", package="chromium")
    driver = await find_program("chromedriver", package="chromium-driver")
    with tempfile.TemporaryDirectory() as directory:
        async with open_shop(Path(directory) / "shop", {}) as shop:
            stuck = await _something_to_see(shop)
            ui = f"{Stack.read(shop.data_dir).urls.temporalUi}/namespaces/default/workflows"
            for picture in await asyncio.to_thread(_pictures, browser, driver, ui, stuck):
                console.print(picture)


async def _something_to_see(shop: Shop) -> str:
    """Orders that were delivered, wait, are cancelled and are stuck; answers the one that is stuck."""
    delivered, canceled, stuck = [
        await shop.place(wish)
        for wish in (
            Wish("2001", user="goodman"),
            Wish("1001", 2, user="minji"),
            Wish("2001", user="haneul", pay="pm_sim_refundRefused"),
        )
    ]
    for order in (delivered, canceled, stuck):
        await shop.until(order.orderId, "DeliveryStarted")
    (await shop.deliver(delivered.orderId)).raise_for_status()
    await shop.cancel(canceled)
    await shop.until(canceled.orderId, "OrderCanceled")
    why = {"reason": "the parcel was lost"}
    (await shop.http.post(f"/orders/{stuck.orderId}/cancel", json=why, headers=OPERATOR)).raise_for_status()
    await shop.until_event(stuck.orderId, "AttentionRaised")
    async with shop.away("worker-marketing"):
        waiting = await shop.place(Wish("3001", user="sora"))
        await shop.until(waiting.orderId, "OrderPlaced")
    return stuck.orderId


def _pictures(browser: str, driver: str, ui: str, order_id: str) -> list[Path]:
    options = ChromeOptions()
    options.binary_location = browser
    for argument in (*_QUIETLY, "--window-size=1700,900"):
        options.add_argument(argument)
    with Chrome(options, Service(driver)) as chrome:
        chrome.get(ui)
        columns = [{"label": label} for label in ("Status", "Workflow ID", *SEARCH_ATTRIBUTES)]
        chrome.execute_script(  # pyright: ignore[reportUnknownMemberType]  (selenium leaves it without a type)
            "localStorage.setItem('namespace-workflow-table-columns', arguments[0])", json.dumps({"default": columns})
        )
        chrome.get(ui)
        orders = _picture(chrome, "web-ui-orders.png", "OrderCanceling")
        chrome.get(f"{ui}/{order_id}")
        _wait(chrome, "User Metadata")
        chrome.get(f"{chrome.current_url.rsplit('/', 1)[0]}/user-metadata")
        return [orders, _picture(chrome, "web-ui-order.png", "to settle")]


def _picture(chrome: Chrome, name: str, shows: str) -> Path:
    """The page, once it shows this."""
    _wait(chrome, shows)
    picture = ROOT / "docs" / name
    picture.write_bytes(chrome.get_screenshot_as_png())
    return picture


def _wait(chrome: Chrome, text: str) -> None:
    """Until the page shows it, or a frame of the page: that is where the Web UI puts Markdown."""

    def shown(chrome: WebDriver) -> bool:
        if text in chrome.find_element(*_PAGE).text:
            return True
        for frame in chrome.find_elements(By.TAG_NAME, "iframe"):
            chrome.switch_to.frame(frame)
            found = text in chrome.find_element(*_PAGE).text
            chrome.switch_to.default_content()
            if found:
                return True
        return False

    WebDriverWait(chrome, _PATIENCE_SECONDS, ignored_exceptions=[WebDriverException]).until(shown)


if __name__ == "__main__":
    sys.exit(main())
