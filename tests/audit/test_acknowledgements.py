"""The log of what clients were told survives its writer."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.order.statuses import OrderStatus
from tests.audit.acknowledgements import (
    Acknowledgements,
    Canceled,
    Declined,
    Delivered,
    NotALog,
    OrderAccepted,
    Paid,
    Shown,
    read,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clients" / "told.jsonl"


def test_what_was_noted_is_read_in_that_order(path: Path) -> None:
    with Acknowledgements(path) as log:
        log.accepted("o1", user="굿맨", product_id="tea", qty=2, amount=2000, key="k", status=201, replayed=True)
        log.paid("o1")
        log.declined("o2")
        log.cancel("o1")
        log.delivered("o3")
        log.shown("o1", 2, "OrderPlaced")
    assert read(path) == [
        OrderAccepted(
            order_id="o1", user="굿맨", product_id="tea", qty=2, amount=2000, key="k", status=201, replayed=True
        ),
        Paid(order_id="o1"),
        Declined(order_id="o2"),
        Canceled(order_id="o1"),
        Delivered(order_id="o3"),
        Shown(order_id="o1", version=2, status=OrderStatus.ORDER_PLACED),
    ]


def test_a_note_is_on_the_disk_before_its_client_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []

    def sync(_: int) -> None:
        synced.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", sync)
    with Acknowledgements(path) as log:
        log.paid("o1")
        log.cancel("o2")
        assert [content.count(b"\n") for content in synced] == [1, 2]
        assert synced[-1] == path.read_bytes()


def test_a_killed_clients_notes_are_there(path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from tests.audit.acknowledgements import Acknowledgements;"
        "log = Acknowledgements(Path(sys.argv[1])); log.paid('o1'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    client = subprocess.run([sys.executable, "-c", script, str(path)], cwd=Path(__file__).parents[2], check=False)
    assert client.returncode == -signal.SIGKILL
    assert read(path) == [Paid(order_id="o1")]


def test_a_torn_last_line_does_not_count_and_is_not_gone_on_with(path: Path) -> None:
    with Acknowledgements(path) as log:
        log.paid("o1")
    with path.open("ab") as file:
        file.write(b'{"kind": "paid", "order_')
    assert read(path) == [Paid(order_id="o1")]
    with Acknowledgements(path) as log:
        log.cancel("o2")
    assert read(path) == [Paid(order_id="o1"), Canceled(order_id="o2")]


def test_one_that_was_begun_anew_is_empty(path: Path) -> None:
    Acknowledgements(path).close()
    assert read(path) == []


@pytest.mark.parametrize("line", [b"{", b"[]", b"{}", b'{"kind": "lost"}', b'{"kind": "paid"}', b"\xff"])
def test_another_file_is_no_log(path: Path, line: bytes) -> None:
    with Acknowledgements(path) as log:
        log.paid("o1")
    with path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(NotALog, match="line 2"):
        read(path)


def test_a_status_that_there_is_not_is_not_noted(path: Path) -> None:
    with Acknowledgements(path) as log, pytest.raises(ValueError, match="Lost"):
        log.shown("o1", 1, "Lost")
    assert read(path) == []
