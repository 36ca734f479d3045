"""Which database and which keys each process of the one-machine shop gets, and what it says when that cannot be."""

import os
import sqlite3
import threading
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr
from temporalio.api.common.v1 import Payload

from deploy import apt
from deploy.apt import ProgramUnavailable
from deploy.history_key import codec_settings, key_file
from deploy.local import MARIADB, Shop, check_data
from deploy.mariadb import prepare
from deploy.probes import LIVENESS, STARTUP
from deploy.stack import StackError, StackSettings
from services.shared.settings import TEAMS, DatabaseSettings, codec_keys
from workflows.codec import HistoryCodec

ON_SQLITE = StackSettings(api_port=0, temporal_port=0, temporal_ui_port=0, payment_port=0, codec_port=0)
ON_MYSQL = ON_SQLITE.model_copy(update={"database": "mysql"})
ELSEWHERE = "mysql+aiomysql://elsewhere/orders"


def left_by_nobody(_data_dir: Path) -> None:
    """A first start."""


def left_by_sqlite(data_dir: Path) -> None:
    (data_dir / "order.db").touch()


def left_by_mysql(data_dir: Path) -> None:
    (data_dir / MARIADB).mkdir()


def test_each_worker_gets_its_own_teams_database_alone_and_the_api_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREET12_ORDER_DATABASE_URL", ELSEWHERE)
    shop = Shop(ON_SQLITE, DatabaseSettings(data_dir=tmp_path), tmp_path)
    given = {
        "order": ELSEWHERE,
        "delivery": f"sqlite+aiosqlite:///{tmp_path}/delivery.db",
        "marketing": f"sqlite+aiosqlite:///{tmp_path}/marketing.db",
    }
    everything = {f"STREET12_{team.upper()}_DATABASE_URL": given[team] for team in TEAMS}
    assert everything.items() <= shop.api().environment.items()
    assert everything.items() <= shop.databases().environment.items()
    for team in TEAMS:
        environment = shop.worker(team).environment
        assert {name for name in environment if name.endswith("_DATABASE_URL")} == {
            f"STREET12_{team.upper()}_DATABASE_URL"
        }
        assert environment[f"STREET12_{team.upper()}_DATABASE_URL"] == given[team]


def keys_in(data_dir: Path) -> str:
    keys = codec_settings(data_dir).keys
    assert keys is not None
    return keys.get_secret_value()


def test_only_who_reads_and_writes_histories_gets_their_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_CODEC_KEYS", keys_in(tmp_path))
    shop = Shop(ON_SQLITE, DatabaseSettings(data_dir=tmp_path), tmp_path)
    for program in (*map(shop.worker, TEAMS), shop.api(), shop.codec_server()):
        assert program.environment["STREET12_CODEC_KEYS"] == keys_in(tmp_path)
    for program in (shop.temporal(), shop.payments(), shop.databases()):
        assert "STREET12_CODEC_KEYS" not in program.environment
        assert not any(keys_in(tmp_path) in part for part in program.command)
    assert shop.urls.codec in shop.temporal().command
    told = shop.codec_server().environment
    assert told["STREET12_CODEC_ORIGINS"].split(",")[0] == shop.urls.temporalUi
    assert (told["STREET12_CODEC_TOKENS"], told["STREET12_CODEC_HOST"]) == ("false", "127.0.0.1")


def test_who_has_an_event_loop_of_the_shops_is_watched_over_by_the_file_that_it_touches(tmp_path: Path) -> None:
    shop = Shop(ON_SQLITE, DatabaseSettings(data_dir=tmp_path), tmp_path)
    files: set[Path] = set()
    for program, setting in (
        *((shop.worker(team), "STREET12_WORKER_LIVENESS_FILE") for team in TEAMS),
        (shop.api(), "STREET12_API_LIVENESS_FILE"),
        (shop.codec_server(), "STREET12_CODEC_LIVENESS_FILE"),
    ):
        assert program.liveness is not None
        assert program.environment[setting] == str(program.liveness.file)
        assert f"{program.liveness.url}/readyz" == program.ready_url
        assert (program.liveness.startup, program.liveness.probe) == (STARTUP, LIVENESS)
        files.add(program.liveness.file)
    assert len(files) == len(TEAMS) + 2
    assert all(program.liveness is None for program in (shop.temporal(), shop.payments(), shop.databases()))


def test_the_key_is_made_once_for_its_owner_alone_and_whole(tmp_path: Path) -> None:
    made: list[str] = []
    together = threading.Barrier(8)

    def start() -> None:
        together.wait()
        made.append(keys_in(tmp_path))

    starts = [threading.Thread(target=start) for _ in range(8)]
    for one in starts:
        one.start()
    for one in starts:
        one.join()
    assert made == [keys_in(tmp_path)] * 8
    assert key_file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [key_file(tmp_path).name]


def test_a_persons_own_keys_are_taken_and_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = f"mine:{b64encode(os.urandom(32)).decode()}"
    monkeypatch.setenv("STREET12_CODEC_KEYS", mine)
    assert keys_in(tmp_path) == mine
    assert not key_file(tmp_path).exists()
    monkeypatch.setenv("STREET12_CODEC_KEYS", f"{mine}x")
    with pytest.raises(StackError, match="STREET12_CODEC_KEYS cannot be used") as refused:
        codec_settings(tmp_path)
    assert mine not in str(refused.value)


async def keep(data_dir: Path, codec: HistoryCodec | None, *, in_the_log: bool) -> sqlite3.Connection:
    """An engine's database that holds some histories, or so much of it as matters here."""
    payload = Payload(metadata={"encoding": b"json/plain"}, data=b"{}")
    [kept] = await codec.encode([payload]) if codec else [payload]
    database = sqlite3.connect(data_dir / "temporal.db", isolation_level=None)
    database.execute(f"PRAGMA journal_mode={'wal' if in_the_log else 'delete'}")
    database.execute("CREATE TABLE history_node (data BLOB)")
    database.execute("INSERT INTO history_node VALUES (?)", [b"\x0a\x80\x01" + kept.SerializeToString() + bytes(2000)])
    return database


@pytest.mark.parametrize("in_the_log", [True, False])
async def test_without_its_key_an_encrypted_engine_gets_no_new_one(tmp_path: Path, in_the_log: bool) -> None:
    codec = HistoryCodec(codec_keys(keys_in(tmp_path)))
    with closing(await keep(tmp_path, codec, in_the_log=in_the_log)):
        codec_settings(tmp_path)
        key_file(tmp_path).rename(tmp_path / "kept elsewhere")
        with pytest.raises(StackError, match="is gone: put it back from a backup, or set STREET12_CODEC_KEYS"):
            codec_settings(tmp_path)
        assert not key_file(tmp_path).exists()
        (tmp_path / "kept elsewhere").rename(key_file(tmp_path))
        codec_settings(tmp_path)


async def test_an_older_shop_whose_histories_are_in_clear_gets_a_key(tmp_path: Path) -> None:
    (await keep(tmp_path, None, in_the_log=False)).close()
    assert keys_in(tmp_path) == key_file(tmp_path).read_text().strip()
    assert Shop(ON_SQLITE, DatabaseSettings(data_dir=tmp_path), tmp_path).api().environment[
        "STREET12_CODEC_ACCEPT_PLAIN"
    ] == ("true")


def test_a_damaged_key_is_told_and_not_repeated(tmp_path: Path) -> None:
    key_file(tmp_path).write_text("local:s3cret\n")
    with pytest.raises(StackError, match=r"codec\.key is damaged .* put a backup in its place") as refused:
        codec_settings(tmp_path)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "left", "other"), [(ON_MYSQL, left_by_sqlite, "sqlite"), (ON_SQLITE, left_by_mysql, "mysql")]
)
def test_orders_taken_with_the_other_database_are_not_left_behind(
    settings: StackSettings, left: Callable[[Path], None], other: str, tmp_path: Path
) -> None:
    left(tmp_path)
    with pytest.raises(StackError, match=f"STREET12_DATABASE={other}"):
        check_data(settings, DatabaseSettings(data_dir=tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("settings", "left"), [(ON_SQLITE, left_by_sqlite), (ON_MYSQL, left_by_mysql), (ON_MYSQL, left_by_nobody)]
)
def test_a_shop_goes_on_with_the_database_that_it_has(
    settings: StackSettings, left: Callable[[Path], None], tmp_path: Path
) -> None:
    left(tmp_path)
    check_data(settings, DatabaseSettings(data_dir=tmp_path), tmp_path)


def test_a_team_with_a_url_of_its_own_is_nobodys_leftover(tmp_path: Path) -> None:
    left_by_sqlite(tmp_path)
    databases = DatabaseSettings(data_dir=tmp_path, order_database_url=SecretStr(ELSEWHERE))
    check_data(ON_MYSQL, databases, tmp_path)


def no_such_program(_program: str) -> None:
    """Neither the server nor what would install it."""


async def test_without_a_server_and_without_the_right_to_install_one_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "which", no_such_program)
    with pytest.raises(ProgramUnavailable, match="install the package mariadb-server"):
        await prepare(tmp_path, port=1)
