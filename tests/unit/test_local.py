"""Which database each process of the one-machine shop gets, and what it says when that cannot be."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from deploy import apt
from deploy.apt import ProgramUnavailable
from deploy.local import MARIADB, Shop, check_data
from deploy.mariadb import prepare
from deploy.stack import StackError, StackSettings
from services.shared.settings import TEAMS, DatabaseSettings

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
