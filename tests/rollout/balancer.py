"""HAProxy before the API processes. It looks where they are ready, and gives no request a second chance."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from deploy.apt import find_program
from deploy.stack import HOST, take_ports
from deploy.supervisor import Program

LOOKS_SECONDS = 0.2
"""How often it looks whether a process is ready."""
# A request that failed is not sent anywhere else, not even where it cannot have been read: what customers meet is what
# the processes do. Every connection is kept and shared, which is the hardest for a process that closes its own.
_CONFIGURATION = """\
global
    log stdout format raw local0
defaults
    mode http
    log global
    option httplog
    option dontlog-normal
    retries 0
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout check 5s
listen shop
    bind {host}:{port}
    monitor-uri /balancer
    balance roundrobin
    http-reuse always
    option httpchk GET /readyz
    default-server check inter {looks:.0f}ms fall 1 rise 1
{servers}
"""


def configuration(port: int, api_ports: Sequence[int]) -> str:
    """HAProxy's configuration: it listens on a port, and passes on to those of these that are ready."""
    servers = "\n".join(f"    server api-{number} {HOST}:{api}" for number, api in enumerate(api_ports))
    return _CONFIGURATION.format(host=HOST, port=port, looks=1000 * LOOKS_SECONDS, servers=servers)


async def balancer(directory: Path, api_ports: Sequence[int]) -> tuple[Program, str]:
    """HAProxy for API processes on these ports, and where it answers. Raises `ProgramUnavailable`."""
    binary = await find_program("haproxy", package="haproxy")
    port = take_ports({"": 0})[""]
    file = directory / "haproxy.cfg"
    await asyncio.to_thread(file.write_text, configuration(port, api_ports))
    url = f"http://{HOST}:{port}"
    command = [binary, "-db", "-f", str(file)]
    return Program(name="haproxy", command=command, environment=os.environ, ready_url=f"{url}/balancer"), url
