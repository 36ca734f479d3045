"""A connection to MySQL that is encrypted, or there is none.

aiomysql, asked for TLS, goes on in clear where a server says that it has none. Whoever stands between the two could say
so, and would be shown the password and all orders.
"""

import ssl
from typing import Any

import aiomysql  # pyright: ignore[reportMissingTypeStubs]
from pymysql.constants import CLIENT  # pyright: ignore[reportMissingModuleSource]

TLS_FAILED = 2026
"""MySQL's own number for it."""


class _Encrypted(aiomysql.Connection):
    """Says nothing of its user to a server without TLS."""

    async def _get_server_information(self) -> None:
        await super()._get_server_information()  # pyright: ignore[reportUnknownMemberType]  (has no types)
        if not self.server_capabilities & CLIENT.SSL:
            raise aiomysql.OperationalError(TLS_FAILED, "the server offers no TLS")

    def close(self) -> None:
        """At once, as in clear: MySQL's goodbye has been said, and TLS's would have to be waited for."""
        if self._writer is not None:
            self._writer.transport.abort()
        super().close()


async def connect_encrypted(**options: Any) -> aiomysql.Connection:
    """As `aiomysql.connect`, with TLS by the context in `ssl`. Raises its `OperationalError`, which then says why."""
    connection = _Encrypted(**options)
    try:
        await connection._connect()  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
    except aiomysql.OperationalError as error:
        if isinstance(cause := error.__cause__, ssl.SSLError):
            raise aiomysql.OperationalError(TLS_FAILED, f"no TLS with {options['host']}: {cause}") from cause
        raise
    return connection
