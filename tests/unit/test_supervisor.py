"""The one-machine shop's supervisor and what it says when it cannot run, tried with tiny children."""

import asyncio
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from deploy.local import ROOT
from deploy.stack import Stack, StackError, StackSettings, check_database, data_directory, read_settings, take_ports
from deploy.supervisor import ChildFailed, Patience, Program, Supervisor
from tests.children import IMPATIENT, READY, STUBBORN, Log, is_alive, program

SHOP = f"""
import asyncio, sys
from pathlib import Path
from deploy.local import run
from deploy.stack import Urls, data_directory, take_ports
from deploy.supervisor import Program
urls = Urls(api="http://a", temporal="t:1", temporalUi="http://u", payments="http://p", codec="http://c")
port = take_ports({{"": 0}})[""]
child = Program(name="worker-order", command=[sys.executable, "-c", {READY!r}, str(port)], environment={{}},
                ready_url=f"http://127.0.0.1:{{port}}/readyz")
with data_directory(Path(sys.argv[1])) as data_dir:
    asyncio.run(run(data_dir, urls, lambda supervisor: supervisor.start(child),
                    lambda tag, line: print(tag, "|", line, flush=True), lambda: print("OPEN", flush=True)))
"""


async def test_a_child_that_dies_is_started_again_and_the_log_says_why(supervisor: Supervisor, log: Log) -> None:
    await supervisor.start(program("worker-order", READY))
    first = supervisor.pids["worker-order"]
    os.kill(first, signal.SIGKILL)
    second = await log.said("here is", times=2)
    assert second == f"order: here is {supervisor.pids['worker-order']}"
    assert supervisor.pids["worker-order"] != first
    assert "shop: worker-order ended (exit code -9, SIGKILL); it is started again in 0.01 s" in log.lines


async def test_pauses_grow_and_begin_anew_after_a_steady_run(log: Log) -> None:
    dies_when_asked = program("api", READY)
    steady = Patience(first_pause=0.01, longest_pause=0.02, steady_after=0.0)
    for patience, pauses in ((IMPATIENT, ["0.01", "0.02", "0.04", "0.04"]), (steady, ["0.01"] * 4)):
        log.lines.clear()
        supervisor = Supervisor(log, patience=patience)
        await supervisor.start(dies_when_asked)
        for death in range(1, 5):
            os.kill(supervisor.pids["api"], signal.SIGKILL)
            await log.said("here is", times=death + 1)
        await supervisor.stop(asyncio.Event())
        assert [line.split()[-2] for line in log.lines if "started again" in line] == pauses


async def test_groups_stop_last_one_first(supervisor: Supervisor, log: Log) -> None:
    for name in ("temporal", "payments", "api"):
        await supervisor.start(program(name, READY))
    await supervisor.stop(asyncio.Event())
    stopped = [line for line in log.lines if line.endswith("asked to stop")]
    assert stopped == ["api: asked to stop", "payments: asked to stop", "temporal: asked to stop"]


async def test_a_child_that_does_not_stop_within_its_grace_is_killed(supervisor: Supervisor, log: Log) -> None:
    await supervisor.start(program("api", STUBBORN, grace_seconds=0.2))
    await supervisor.stop(asyncio.Event())
    assert log.lines[-2:] == ["api: asked to stop", "shop: api has not stopped by itself and is killed"]
    assert not is_alive(supervisor.pids["api"])


async def test_a_second_wish_to_stop_shortens_every_grace(supervisor: Supervisor, log: Log) -> None:
    await supervisor.start(program("api", STUBBORN, grace_seconds=3600))
    hurry = asyncio.Event()
    stopping = asyncio.create_task(supervisor.stop(hurry))
    await log.said("asked to stop")
    hurry.set()
    async with asyncio.timeout(10):
        await stopping
    assert not is_alive(supervisor.pids["api"])


async def test_a_child_that_keeps_dying_before_it_is_ready_ends_the_start(supervisor: Supervisor, log: Log) -> None:
    with pytest.raises(ChildFailed) as failure:
        await supervisor.start(program("api", "print('no such table'); raise SystemExit(3)"), program("other", READY))
    said = "\n  no such table" * 3
    assert str(failure.value) == f"api ended (exit code 3). The last it said:{said}"


async def test_a_child_that_never_becomes_ready_ends_the_start(log: Log) -> None:
    supervisor = Supervisor(log, patience=Patience(ready_within=0.2))
    with pytest.raises(ChildFailed, match=r"^api was not ready within 0\.2 s\."):
        await supervisor.start(program("api", "import signal; signal.pause()"))
    await supervisor.stop(asyncio.Event())
    assert not is_alive(supervisor.pids["api"])


async def test_a_command_that_does_not_exist_is_named(supervisor: Supervisor) -> None:
    missing = Program(name="temporal", command=["/nowhere/temporal"], environment={}, ready_url="http://127.0.0.1:1")
    with pytest.raises(ChildFailed, match="/nowhere/temporal cannot be run: No such file or directory"):
        await supervisor.start(missing)


async def test_a_job_runs_to_its_end_and_is_not_started_again(supervisor: Supervisor, log: Log) -> None:
    await supervisor.finish(program("databases", "print('done')"))
    with pytest.raises(ChildFailed, match=r"^databases failed \(exit code 1\)\. The last it said:\n  too bad$"):
        await supervisor.finish(program("databases", "raise SystemExit('too bad')"))
    assert log.lines == ["databases: done", "databases: too bad"]
    assert supervisor.pids == {}


async def test_endless_lines_and_broken_characters_do_not_stop_the_stream(supervisor: Supervisor, log: Log) -> None:
    code = r"import sys; sys.stdout.buffer.write(b'x' * 3_000_000 + b'\n\xff\n12\xeb\xb2\x88\xea\xb0\x80\n')"
    await supervisor.finish(program("databases", code))
    assert log.lines[-2:] == ["databases: \N{REPLACEMENT CHARACTER}", "databases: 12번가"]


async def test_the_stack_file_names_the_new_process_and_goes_with_the_shop(tmp_path: Path) -> None:
    shop = await start_shop(tmp_path)
    try:
        await line_with(shop, "OPEN")
        told = json.loads((tmp_path / "stack.json").read_text())
        urls: dict[str, object] = {
            "api": "http://a",
            "temporal": "t:1",
            "temporalUi": "http://u",
            "payments": "http://p",
            "codec": "http://c",
            "metrics": {},
        }
        first = Stack.read(tmp_path).processes["worker-order"]
        assert told == {"urls": urls, "processes": {"worker-order": first}}
        os.kill(first, signal.SIGKILL)
        await line_with(shop, "worker-order ended (exit code -9, SIGKILL)")
        second = int((await line_with(shop, "here is")).split()[-1])
        assert Stack.read(tmp_path).processes == {"worker-order": second}
        shop.terminate()
        assert await shop.wait() == 0
        assert not (tmp_path / "stack.json").exists()
        assert not is_alive(second)
    finally:
        await end(shop)


async def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    shop = await start_shop(tmp_path)
    try:
        await line_with(shop, "OPEN")
        child = Stack.read(tmp_path).processes["worker-order"]
        child_ends = os.pidfd_open(child)
        shop.kill()
        await shop.wait()
        ended, _, _ = await asyncio.to_thread(select.select, [child_ends], [], [], 10)
        os.close(child_ends)
        assert ended
        with data_directory(tmp_path):  # the next shop finds nothing in its way
            pass
    finally:
        await end(shop)


def test_two_shops_do_not_share_a_data_directory(tmp_path: Path) -> None:
    with data_directory(tmp_path), pytest.raises(StackError) as refused, data_directory(tmp_path):
        pass
    assert str(refused.value).startswith(f"Another shop is running on {tmp_path} (process {os.getpid()}): stop it")
    with data_directory(tmp_path):
        pass


def test_ports_are_free_and_differ() -> None:
    ports = take_ports(dict.fromkeys("abcdefgh", 0))
    assert len(set(ports.values())) == 8
    port = ports["a"]
    with pytest.raises(StackError, match=f"A and B are both {port}: each needs a port of its own"):
        take_ports({"A": port, "B": port})


@pytest.mark.parametrize("whole", [b"", None])
def test_a_sound_database_passes(tmp_path: Path, whole: bytes | None) -> None:
    file = tmp_path / "order.db"
    check_database(file)
    make_database(file) if whole is None else file.write_bytes(whole)
    check_database(file)


@pytest.mark.parametrize("damage", ["garbage", "cut", "scribbled", "directory"])
def test_a_damaged_database_is_named(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "order.db"
    make_database(file)
    content = file.read_bytes()
    file.unlink()
    if damage == "directory":
        file.mkdir()
    else:
        file.write_bytes(
            {"garbage": b"x", "cut": content[:6000], "scribbled": content[:12288] + b"x" * 4096 + content[16384:]}[
                damage
            ]
        )
    with pytest.raises(StackError) as refused:
        check_database(file)
    advice = "move it away, or put a backup in its place."
    assert str(refused.value) == f"{file} is not a sound SQLite database: {advice}"


def test_without_a_shop_the_reader_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"No shop runs on .*: start one with `make run`"):
        Stack.read(tmp_path)


def test_a_wrong_setting_is_named_with_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_API_PORT", "70000")
    with pytest.raises(StackError) as refused:
        read_settings(StackSettings)
    allowed = "Input should be less than or equal to 65535"
    assert str(refused.value) == f"The setting STREET12_API_PORT is '70000': {allowed}."


@pytest.mark.parametrize("fault", ["port", "setting", "file", "damage"])
def test_what_keeps_the_shop_from_starting_is_one_sentence_and_status_1(tmp_path: Path, fault: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "temporal.db").write_bytes(b"scrambled")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        setting, value, sentence = {
            "port": ("STREET12_PAYMENT_PORT", taken, f"Port {taken} is taken by another program: free it, or set"),
            "setting": ("STREET12_POOL_SIZE", "many", "The setting STREET12_POOL_SIZE is 'many': Input should be"),
            "file": ("STREET12_DATA_DIR", str(tmp_path / "file"), f"STREET12_DATA_DIR is {tmp_path / 'file'}, which"),
            "damage": ("STREET12_DATA_DIR", str(tmp_path), f"{tmp_path / 'temporal.db'} is not a sound SQLite"),
        }[fault]
        ports = dict.fromkeys(("API", "TEMPORAL", "TEMPORAL_UI", "PAYMENT", "CODEC"), "0")
        environment = {f"STREET12_{name}_PORT": port for name, port in ports.items()}
        environment |= {"STREET12_DATA_DIR": str(tmp_path / "data"), setting: value}
        shop = subprocess.run(
            [sys.executable, "-m", "deploy.local"],
            cwd=ROOT,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert shop.returncode == 1
    assert shop.stderr.startswith(f"street12: {sentence}")
    assert shop.stderr.count("\n") == 1


def make_database(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE orders (order_id TEXT PRIMARY KEY)")
        database.executemany("INSERT INTO orders VALUES (?)", [(f"order_{n:060}",) for n in range(500)])


async def start_shop(data_dir: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SHOP, str(data_dir)), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )


async def line_with(shop: asyncio.subprocess.Process, part: str) -> str:
    assert shop.stdout is not None
    async with asyncio.timeout(20):
        while line := (await shop.stdout.readline()).decode():
            if part in line:
                return line
    raise AssertionError(f"the shop ended without saying {part!r}")


async def end(shop: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        shop.kill()
    await shop.wait()
