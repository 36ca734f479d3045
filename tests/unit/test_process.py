"""A process ends with the exit status that it chose, and says all that it had to say."""

import asyncio
import os
import sys

ENDING = """
import asyncio, logging, os, sys
from temporalio.client import Client
from services.shared.process import end

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the SDK's threads are late to give back what they held
print("the engine is away")
logging.error("and somebody was told")

async def unanswered():
    try:
        await Client.connect("127.0.0.1:1")
    except RuntimeError:
        pass

asyncio.run(unanswered())
end(3)
"""


async def test_a_process_that_had_a_client_of_the_engine_ends_with_its_own_exit_status() -> None:
    for _ in range(12):  # by `sys.exit` one of four was aborted
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ENDING, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert (process.returncode, out, err) == (3, b"the engine is away\n", b"ERROR:root:and somebody was told\n")


async def test_a_process_ends_though_nobody_reads_what_it_says() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from services.shared.process import end; print('heard?'); end(4)",
            stdout=writing,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
    finally:
        os.close(writing)
    assert await process.wait() == 4
