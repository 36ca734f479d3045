"""A database that is asked for over TLS is reached over TLS, by whom the CA vouches for, or not at all."""

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import make_url
from sqlmodel import text
from sqlmodel.ext.asyncio.session import AsyncSession

from deploy.mariadb import MariaDb
from deploy.migrate import migrate
from deploy.stack import HOST, StackError
from services.shared.database import Database
from services.shared.errors import DatabaseUnavailable
from services.shared.settings import DatabaseSettings, PoolSettings
from services.shared.tls import CA_FILE, trust
from tests.authority import Authority
from tests.mariadb import need_mariadb, running_mariadb

NAME = "street12_order"
SETTINGS = PoolSettings(transaction_seconds=15)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that did not vouch for the server."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
async def server(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MariaDb]:
    """One that lets nobody in without TLS, but for its administrator over the socket."""
    await need_mariadb(request.config)
    own = authority.certify("mysql.example", HOST)
    options = (f"--ssl-cert={own.certificate}", f"--ssl-key={own.key}", "--require-secure-transport=ON")
    async with running_mariadb(tmp_path_factory.mktemp("encrypted") / "data", *options) as server:
        yield server


@pytest.fixture(scope="module")
async def plain(server: MariaDb) -> str:
    """The URL of a user who must use TLS and may do everything with one database, as yet without a word of TLS."""
    access = await server.create_database(NAME)
    await server.execute(f"GRANT ALL ON {NAME}.* TO '{NAME}'@'{HOST}'", f"ALTER USER '{NAME}'@'{HOST}' REQUIRE SSL")
    return access.user


def trusting(url: str, authority: Authority, *, host: str | None = None, port: int | None = None) -> str:
    changed = make_url(url).update_query_dict({CA_FILE: str(authority.file)}).set(host=host, port=port)
    return changed.render_as_string(hide_password=False)


async def cipher(database: Database) -> str:
    async def ask(session: AsyncSession) -> str:
        shown = await (await session.connection()).execute(text("SHOW SESSION STATUS LIKE 'Ssl_cipher'"))
        return shown.one()[1]

    return await database.read(ask)


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[Database]:
    database = Database(url, SETTINGS)
    try:
        yield database
    finally:
        await database.close()


async def refusal(url: str) -> str:
    async with opened(url) as database:
        with pytest.raises(DatabaseUnavailable) as refused:
            await database.ping()
    return str(refused.value)


async def test_statements_go_over_tls(plain: str, authority: Authority) -> None:
    async with opened(trusting(plain, authority)) as database:
        assert await cipher(database)


async def test_a_plain_connection_is_refused_by_such_a_server(plain: str) -> None:
    assert "Access denied" in await refusal(plain)


async def test_a_server_of_another_authority_is_refused(plain: str, stranger: Authority) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in await refusal(trusting(plain, stranger))


async def test_a_server_with_a_certificate_for_another_host_is_refused(plain: str, authority: Authority) -> None:
    assert "Hostname mismatch" in await refusal(trusting(plain, authority, host="localhost"))


async def test_a_server_that_says_it_has_no_tls_is_told_nothing(plain: str, authority: Authority) -> None:
    """Somebody between the two takes the server's word for TLS out of its greeting."""
    heard, over = bytearray(), asyncio.Event()

    async def between(reader: StreamReader, writer: StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(HOST, make_url(plain).port)
        greeting = bytearray(await server_reader.read(4096))
        flags = greeting.index(0, 5) + 1 + 4 + 8 + 1  # the version's end, connection id, salt, filler
        before = int.from_bytes(greeting[flags : flags + 2], "little")
        greeting[flags : flags + 2] = (before & ~0x0800).to_bytes(2, "little")
        writer.write(greeting)
        heard.extend(await reader.read())  # all that the client says, to its end
        for one in (server_writer, writer):
            one.close()
            await one.wait_closed()
        over.set()

    async with await asyncio.start_server(between, HOST, 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        assert "offers no TLS" in await refusal(trusting(plain, authority, port=port))
        await over.wait()
    assert not heard


async def test_migrations_go_over_tls_too(plain: str, authority: Authority, stranger: Authority) -> None:
    def settings(of: Authority) -> DatabaseSettings:
        return DatabaseSettings.model_validate({"order_database_url": trusting(plain, of)})

    with pytest.raises(StackError, match="CERTIFICATE_VERIFY_FAILED"):
        await asyncio.to_thread(migrate, "order", settings(stranger))
    await asyncio.to_thread(migrate, "order", settings(authority))
    async with opened(trusting(plain, authority)) as database:
        await database.read(lambda session: _count_orders(session))


async def _count_orders(session: AsyncSession) -> int:
    return (await (await session.connection()).execute(text("SELECT COUNT(*) FROM orders"))).scalar_one()


async def test_a_connection_that_is_lost_is_replaced_by_an_encrypted_one(
    server: MariaDb, plain: str, authority: Authority
) -> None:
    async with opened(trusting(plain, authority)) as database:
        assert await cipher(database)
        await server.execute(f"KILL CONNECTION USER '{NAME}'@'{HOST}'")
        assert await cipher(database)


def test_it_takes_a_context_that_checks(authority: Authority) -> None:
    context = trust(make_url(trusting("mysql+aiomysql://u@h/d", authority)))
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
