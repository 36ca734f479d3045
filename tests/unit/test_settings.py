"""What is said of a setting that cannot be used, and what never is."""

import pytest

from services.shared.settings import DatabaseSettings, PoolSettings, WorkerSettings, WrongSetting, read_settings

URL = "STREET12_ORDER_DATABASE_URL"


@pytest.mark.parametrize(
    "url",
    [
        "s3cret",
        "mysql://goodman:s3cret@host/orders",
        "mysql+aiomysql://goodman:s3cret@host:port/orders",
        "mysql+aiomysql://goodman:s3cret@host:65536/orders",
        "mysql+aiomysql://goodman:p@s3cret/y@host/orders",
        "mysql+aiomysql://goodman:s3cret@host/orders?ssl_ca=/nowhere/ca.pem",
        "mysql+aiomysql://goodman:s3cret@host/orders?ssl_ca=",
        f"mysql+aiomysql://goodman:s3cret@host/orders?ssl_ca={__file__}",
        "mysql+aiomysql://goodman:s3cret@host/orders?ssl=true",
        "mysql+aiomysql://goodman:s3cret@host/orders?ssl_check_hostname=false",
    ],
)
def test_a_database_url_that_cannot_be_used_is_not_repeated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, url)
    with pytest.raises(WrongSetting, match=URL) as wrong:
        read_settings(DatabaseSettings)
    assert "s3cret" not in str(wrong.value)
    assert wrong.value.__suppress_context__


@pytest.mark.parametrize(
    "url", ["mysql+aiomysql://goodman:%40%2F@host:3306/orders?charset=utf8mb4", "sqlite+aiosqlite:////var/orders.db"]
)
def test_a_database_url_is_taken_as_it_is(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, url)
    assert read_settings(DatabaseSettings).url("order") == url


def test_an_empty_setting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_POOL_SIZE", "")
    monkeypatch.setenv(URL, "")
    assert read_settings(PoolSettings).size == PoolSettings.model_fields["size"].default
    assert "order" in read_settings(DatabaseSettings).without_url


def test_a_wrong_setting_is_named_with_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_POOL_SIZE", "many")
    with pytest.raises(WrongSetting, match="STREET12_POOL_SIZE is 'many'"):
        read_settings(PoolSettings)


def test_a_deployment_needs_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_DEPLOYMENT_NAME", "street12/worker-order")
    with pytest.raises(WrongSetting, match="STREET12_WORKER_BUILD_ID"):
        read_settings(WorkerSettings)
    monkeypatch.setenv("STREET12_WORKER_BUILD_ID", "0.2.0-1a2b3c4")
    assert read_settings(WorkerSettings).deployment_name == "street12/worker-order"
