"""The entry of the image: `python -m deploy ROLE …` runs one process of the shop, with the arguments of that role.

As the first process of a container it would be deaf to SIGTERM: the kernel ends such a process only by a signal that
it handles. So it handles it before anything of the role is loaded, until a role that ends in an orderly way takes over.
"""

import importlib
import os
import signal
import sys
from importlib.util import find_spec
from types import FrameType
from typing import NoReturn

ROLES = {
    "api": "api",
    "worker": "worker",
    "migrate": "deploy.migrate",
    "namespace": "deploy.namespace",
    "codec-server": "deploy.codec_server",
    "payments": "deploy.payments",
    "local-api": "deploy.local_api",
}
"""The module of each role. A release lacks the last two: what signs tokens for everybody is in no release."""
_WITH_ARGUMENTS = ("worker", "migrate", "payments")
_WRONG_USE = 2


def main(arguments: list[str]) -> int:
    """Load what the role needs and nothing else, run it, and answer its exit status; 2 where there is no such role."""
    roles = [role for role, module in ROLES.items() if find_spec(module) is not None]
    role, *rest = arguments or [""]
    if role not in roles:
        wish = f"there is no role {role!r}" if role else "a role is missing"
        print(f"python -m deploy ROLE …: {wish}; the roles are {', '.join(roles)}.", file=sys.stderr)
        return _WRONG_USE
    module = importlib.import_module(ROLES[role])
    sys.argv = [f"python -m deploy {role}", *rest]
    if role not in _WITH_ARGUMENTS:
        _take_no_arguments(module.__doc__)
    return module.main()


def _take_no_arguments(description: str | None) -> None:
    """So that nobody takes one for heard: exit status 2, and 0 after `--help`."""
    from argparse import ArgumentParser

    ArgumentParser(description=description).parse_args()


def _end_at_once(number: int, _: FrameType | None) -> NoReturn:
    """End as an ordinary process does that a signal ends; not by an exception, which a module being loaded may eat."""
    os._exit(128 + number)


if __name__ == "__main__":
    for _number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(_number, _end_at_once)
    from services.shared.process import end

    end(main(sys.argv[1:]))
