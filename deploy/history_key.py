"""The key by which the one-machine shop encrypts what the engine keeps: made once, in its data directory."""

import base64
import mmap
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr

from deploy.stack import StackError, read_settings
from services.shared.settings import CodecSettings, codec_keys
from workflows.codec import ENCODING

_VARIABLE = "STREET12_CODEC_KEYS"
# How an encrypted payload begins, as it stands in the engine's database.
_ENCRYPTED = b"\n\x08encoding\x12" + bytes([len(ENCODING)]) + ENCODING


def codec_settings(data_dir: Path) -> CodecSettings:
    """How a data directory's histories are encrypted: with the person's own keys, or with the one kept there.

    Raises `StackError`, also where the kept one is gone and there are histories that need it.
    """
    if os.environ.get(_VARIABLE):
        return read_settings(CodecSettings)
    return read_settings(CodecSettings, keys=SecretStr(_kept(data_dir)))


def key_file(data_dir: Path) -> Path:
    """Where the key is kept, as `STREET12_CODEC_KEYS` takes it."""
    return data_dir / "codec.key"


def _kept(data_dir: Path) -> str:
    file = key_file(data_dir)
    try:
        if not file.exists():
            _must_not_be_needed(file, data_dir / "temporal.db")
            _make(file)
        text = file.read_text().strip()
        codec_keys(text)
    except OSError as error:
        raise StackError(f"The key {file} cannot be read or made ({error.strerror}).") from None
    except ValueError as error:
        raise StackError(f"{file} is damaged ({error}): put a backup in its place.") from None
    return text


def _must_not_be_needed(key: Path, database: Path) -> None:
    for file in (database, database.with_name(f"{database.name}-wal")):
        if file.exists() and file.stat().st_size:
            with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as bytes_of_it:
                if bytes_of_it.find(_ENCRYPTED) >= 0:
                    raise StackError(
                        f"The histories in {database} are encrypted, and their key {key} is gone: put it back from a"
                        f" backup, or set {_VARIABLE}. Without it no order goes on; to begin anew, set"
                        " STREET12_DATA_DIR to another directory."
                    )


def _make(file: Path) -> None:
    """A key that only its owner can read, whole or not at all, and on disk before anything is encrypted with it."""
    key = f"local-{secrets.token_hex(4)}:{base64.b64encode(secrets.token_bytes(32)).decode()}\n"
    new, name = tempfile.mkstemp(dir=file.parent)  # its owner alone can read it
    with open(new, "w") as output:
        output.write(key)
        output.flush()
        os.fsync(output.fileno())
    with suppress(FileExistsError):
        os.link(name, file)
    os.unlink(name)
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
