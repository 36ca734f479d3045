"""A small disk of its own for the databases, so that it can be full without anybody else's being so."""

import errno
import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_SIZE = "400m"  # an empty MariaDB takes a third


class NoDisk(Exception):
    """This machine lets nobody mount one; the message says why."""


class Disk:
    """A mounted disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._filler = root / "filler"

    def fill(self) -> int:
        """Take all the room that is left; says how many bytes that is."""
        taken = 0
        with self._filler.open("wb") as filler:
            while room := self._room():
                try:
                    os.posix_fallocate(filler.fileno(), taken, room)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                else:  # if not, somebody else took some of it just now
                    taken += room
        return taken

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink(missing_ok=True)

    def _room(self) -> int:
        found = os.statvfs(self.root)
        return found.f_bavail * found.f_frsize


@contextmanager
def mounted_disk(root: Path) -> Generator[Disk]:
    """A disk at a new directory. Both are gone in the end, with all that is on it. Raises `NoDisk`.

    It blocks, for some milliseconds: what is being cancelled has no other way to be sure that it is gone.
    """
    root.mkdir()
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=0700", "street12-faults", str(root))
    except NoDisk:
        root.rmdir()
        raise
    try:
        yield Disk(root)
    finally:
        _unmount(root)
        root.rmdir()


def _unmount(root: Path) -> None:
    try:
        _run("umount", str(root))
    except NoDisk:  # somebody is looking into it: it goes when they do
        _run("umount", "--lazy", str(root))


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise NoDisk(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        raise NoDisk(done.stderr.strip() or f"{command[0]} failed")
