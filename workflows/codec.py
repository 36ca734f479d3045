"""What stands in the engine's history is encrypted: whoever reads it needs the shop's key."""

import os
from collections.abc import Mapping, Sequence

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverterWithEncodedAttributes, PayloadCodec, PayloadConverter

from services.shared.settings import CodecSettings

ENCODING = b"binary/encrypted"
_KEY_ID = "encryption-key-id"
_NONCE_BYTES = 12
_log = structlog.get_logger(__name__)
# No converter knows it, so whoever reads the payload fails, with these words.
_REFUSED = Payload(metadata={"encoding": b"plain text, which is refused without STREET12_CODEC_ACCEPT_PLAIN"})

# The engine's own word for an activity that was cancelled before a worker had it.
_WITHDRAWN = Payload(metadata={"encoding": b"json/plain"}, data=b'"ACTIVITY_ID_NOT_STARTED"')


class Unreadable(Exception):
    """A payload that cannot be decrypted: its key is missing, or it is not what was written. Names the key's id alone.

    No `FailureError`, so that it never fails a workflow: its task is repeated until there is a worker with the key.
    """


class HistoryCodec(PayloadCodec):
    """Encrypts payloads with the first of these keys (AES-256-GCM), and decrypts with each of them.

    Where plain ones are not accepted, a plain one is not an error here but where it is read. So a message that somebody
    sent in clear is refused by the workflow; failed here, it would keep the order's task from ever getting done.
    """

    def __init__(self, keys: Mapping[str, bytes], *, encrypt: bool = True, accept_plain: bool = False) -> None:
        self.encrypts = encrypt
        self._accept_plain = accept_plain or not encrypt
        self._keys = {key_id.encode(): AESGCM(key) for key_id, key in keys.items()}
        self._first = next(iter(self._keys))

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [self._encrypted(payload) for payload in payloads] if self.encrypts else list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Raises `Unreadable`."""
        return [self._decrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._keys[self._first].encrypt(nonce, payload.SerializeToString(), self._first)
        return Payload(metadata={"encoding": ENCODING, _KEY_ID: self._first}, data=nonce + sealed)

    def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            if self._accept_plain or payload == _WITHDRAWN:
                return payload
            _log.warning("plain text is refused: it did not come by the codec server, or is older than the keys")
            return _REFUSED
        key_id = payload.metadata.get(_KEY_ID, b"")
        named = key_id.decode(errors="replace")[:64]
        if (key := self._keys.get(key_id)) is None:
            raise Unreadable(f"a payload is encrypted with the key {named!r}, which STREET12_CODEC_KEYS does not hold")
        try:
            opened = key.decrypt(payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:], key_id)
            return Payload.FromString(opened)
        except (InvalidTag, ValueError, DecodeError):
            raise Unreadable(
                f"a payload is not what was encrypted with the key {named!r}: it was changed or cut off,"
                " or STREET12_CODEC_KEYS holds another key by that name"
            ) from None


class HistoryFailures(DefaultFailureConverterWithEncodedAttributes):
    """Lets message and trace of a failure be encrypted, too, which else stand beside the payloads.

    Details that are refused are left out: the engine may add some of its own, in clear, and no order may hang on that.
    """

    def from_failure(self, failure: Failure, payload_converter: PayloadConverter) -> BaseException:
        known = Failure()
        known.CopyFrom(failure)
        for details in (
            known.application_failure_info.details,
            known.canceled_failure_info.details,
            known.timeout_failure_info.last_heartbeat_details,
        ):
            if _REFUSED in details.payloads:
                details.Clear()
        return super().from_failure(known, payload_converter)


def history_codec(settings: CodecSettings) -> HistoryCodec | None:
    """The codec that a process is set up for; nothing where the history stands in clear and no key was ever given."""
    if settings.keys is None:
        return None
    return HistoryCodec(settings.by_id, encrypt=settings.encrypt, accept_plain=settings.accept_plain)
