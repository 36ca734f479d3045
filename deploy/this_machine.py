"""Who is this machine itself: for what the one-machine shop does for it without asking who somebody is."""

from collections.abc import Collection
from ipaddress import ip_address

OWN_NAMES = ("127.0.0.1", "localhost", "::1")


def is_this_machine(named: str | None, address: str | None, others: Collection[str] = ()) -> bool:
    """Whether a request for the host `named`, from that address, is this machine's own.

    Not that of a page which had a name of its own lead here, nor that of another machine. `others` are addresses that
    are this machine's beside the loopback.
    """
    if not named or named.lower() not in OWN_NAMES or not address:
        return False
    return ip_address(address).is_loopback or address in others
