"""What becomes of tests that need MariaDB on a machine that has none: told loudly, and failed in CI."""

import os

import pytest

from deploy.mariadb import MariaDbUnavailable, find_server

MISSING = pytest.StashKey[str]()


async def need_mariadb(config: pytest.Config) -> None:
    """Skips the test where there is no MariaDB and none can be installed; fails it under `CI=true`."""
    if MISSING not in config.stash:
        try:
            await find_server()
        except MariaDbUnavailable as error:
            config.stash[MISSING] = str(error)
        else:
            return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs MariaDB: {config.stash[MISSING]}", pytrace=False)
    pytest.skip(f"no MariaDB: {config.stash[MISSING]}")
