"""How a process of the shop ends."""

import logging
import os
import sys
from typing import NoReturn


def end(status: int) -> NoReturn:
    """End this process with that exit status, once what it said is written out. Nothing registered for its end runs.

    Not by `sys.exit`: a thread of Temporal's SDK that is just giving back what it held makes Python's own end abort
    (SIGABRT, SIGSEGV), whatever the process had to tell by its exit status. So ends whatever has had such a client.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # whoever read it is gone
            continue
    os._exit(status)
