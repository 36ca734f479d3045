"""The disk under the databases can be full, and leaves nothing behind."""

import errno
import os
from pathlib import Path

import pytest

from tests.faults.disk import NoDisk, mounted_disk
from tests.missing import miss


def test_a_full_disk_takes_nothing_until_it_is_freed_and_is_gone_in_the_end(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    root = tmp_path / "disk"
    try:
        with mounted_disk(root) as disk:
            assert os.path.ismount(root)
            (root / "rows").write_bytes(b"x" * 4096)
            assert disk.fill() > 1 << 20
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)), (root / "rows").open("ab") as rows:
                rows.write(b"x" * (1 << 20))
            disk.free()
            (root / "rows").write_bytes(b"y" * (1 << 20))
    except NoDisk as error:
        miss(pytestconfig, "a disk of its own", str(error))
    assert not root.exists()


def test_a_disk_that_cannot_be_mounted_says_why_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoDisk, match="mount cannot be run"), mounted_disk(tmp_path / "disk"):
        pytest.fail("it was mounted")
    assert not (tmp_path / "disk").exists()
