"""What becomes of tests whose server this machine does not have: told loudly, and failed in CI."""

import os
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

import pytest

from deploy.apt import ProgramUnavailable

T = TypeVar("T")
MISSING = pytest.StashKey[dict[str, str]]()
"""Why there is none, by the server's name."""


async def need(config: pytest.Config, name: str, find: Callable[[], Awaitable[T]]) -> T:
    """What `find` finds. Where that is nothing and cannot be installed, skips the test; fails it under `CI=true`."""
    missing = config.stash.setdefault(MISSING, {})
    if name not in missing:
        try:
            return await find()
        except ProgramUnavailable as error:
            missing[name] = str(error)
    return miss(config, name, missing[name])


def miss(config: pytest.Config, name: str, why: str) -> NoReturn:
    """Skip a test for want of something, and tell of it in the end; fail it under `CI=true`."""
    config.stash.setdefault(MISSING, {})[name] = why
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI needs {name}: {why}", pytrace=False)
    pytest.skip(f"no {name}: {why}")
