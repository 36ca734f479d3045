"""What is encrypted, what can be decrypted, and what is said where it cannot."""

import base64
import os
import subprocess
import sys

import pytest
from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError, CancelledError

from deploy.local import ROOT
from services.shared.settings import CodecServerSettings, CodecSettings, WrongSetting, read_settings
from workflows.client import data_converter
from workflows.codec import HistoryCodec, Unreadable, history_codec

OLD, NEW = bytes(range(32)), bytes(range(32, 64))  # the same each time: they are in names of tests
SECRET = "얼룩말 Zebrowski"


class Wish(BaseModel):
    name: str


def plain(text: str = SECRET) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=f'"{text}"'.encode())


async def sealed(codec: HistoryCodec, payload: Payload) -> Payload:
    [one] = await codec.encode([payload])
    return one


async def opened(codec: HistoryCodec, payload: Payload) -> Payload:
    [one] = await codec.decode([payload])
    return one


async def test_what_was_encrypted_comes_back_and_can_be_read_nowhere() -> None:
    codec = HistoryCodec({"2026-11": NEW})
    payload = await sealed(codec, plain())
    assert dict(payload.metadata) == {"encoding": b"binary/encrypted", "encryption-key-id": b"2026-11"}
    assert SECRET.encode() not in payload.SerializeToString()
    assert b"json/plain" not in payload.SerializeToString()
    assert await opened(codec, payload) == plain()


async def test_the_same_thing_never_looks_the_same() -> None:
    codec = HistoryCodec({"2026-11": NEW})
    payloads = await codec.encode([plain()] * 100)
    assert len({payload.data[:12] for payload in payloads}) == 100
    assert len({payload.data[12:] for payload in payloads}) == 100


async def test_the_first_key_encrypts_and_each_of_them_decrypts() -> None:
    before = HistoryCodec({"old": OLD})
    on_the_way = HistoryCodec({"old": OLD, "new": NEW})
    turned = HistoryCodec({"new": NEW, "old": OLD})
    after = HistoryCodec({"new": NEW})
    for writer, readers in ((before, (on_the_way, turned)), (on_the_way, (before, turned)), (turned, (after,))):
        payload = await sealed(writer, plain())
        for reader in readers:
            assert await opened(reader, payload) == plain()
    with pytest.raises(Unreadable, match="'old', which STREET12_CODEC_KEYS does not hold"):
        await opened(after, await sealed(before, plain()))


@pytest.mark.parametrize("change", ["a bit", "the nonce", "cut off", "nothing left", "no data"])
async def test_what_was_changed_or_cut_off_is_not_read(change: str) -> None:
    codec = HistoryCodec({"2026-11": NEW})
    payload = await sealed(codec, plain())
    payload.data = {
        "a bit": payload.data[:-1] + bytes([payload.data[-1] ^ 1]),
        "the nonce": bytes([payload.data[0] ^ 1]) + payload.data[1:],
        "cut off": payload.data[:-1],
        "nothing left": payload.data[:5],
        "no data": b"",
    }[change]
    with pytest.raises(Unreadable, match="not what was encrypted with the key '2026-11'"):
        await opened(codec, payload)


async def test_a_keys_id_is_a_part_of_what_it_encrypted() -> None:
    codec = HistoryCodec({"old": OLD, "also-old": OLD})
    payload = await sealed(codec, plain())
    payload.metadata["encryption-key-id"] = b"also-old"
    with pytest.raises(Unreadable, match="'also-old'"):
        await opened(codec, payload)


async def test_a_payload_without_a_keys_id_is_not_read() -> None:
    with pytest.raises(Unreadable, match="''"):
        await opened(HistoryCodec({"old": OLD}), Payload(metadata={"encoding": b"binary/encrypted"}, data=b"x" * 40))


async def test_what_stands_in_clear_is_refused_where_it_is_read_unless_it_is_accepted() -> None:
    for codec in (HistoryCodec({"old": OLD}, accept_plain=True), HistoryCodec({"old": OLD}, encrypt=False)):
        assert await opened(codec, plain()) == plain()
    with pytest.raises(KeyError, match="plain text, which is refused without STREET12_CODEC_ACCEPT_PLAIN") as refused:
        await data_converter(HistoryCodec({"old": OLD})).decode([plain()], [str])
    assert SECRET not in str(refused.value)


async def test_without_encryption_everything_is_in_clear_and_what_was_encrypted_is_read() -> None:
    off = HistoryCodec({"old": OLD}, encrypt=False)
    assert await off.encode([plain()]) == [plain()]
    assert await opened(off, await sealed(HistoryCodec({"old": OLD}), plain())) == plain()


async def test_a_model_goes_through_the_shops_converter() -> None:
    converter = data_converter(HistoryCodec({"old": OLD}))
    [payload] = await converter.encode([Wish(name=SECRET)])
    assert SECRET.encode() not in payload.SerializeToString()
    assert await converter.decode([payload], [Wish]) == [Wish(name=SECRET)]


def failed() -> ApplicationError:
    try:
        try:
            raise ValueError(f"no such customer: {SECRET}")
        except ValueError as cause:
            raise ApplicationError(f"refused: {SECRET}", {"who": SECRET}, type="out-of-stock") from cause
    except ApplicationError as error:
        return error


async def test_of_a_failure_only_its_code_stands_in_clear() -> None:
    converter, failure = data_converter(HistoryCodec({"old": OLD})), Failure()
    await converter.encode_failure(failed(), failure)
    kept = failure.SerializeToString()
    assert SECRET.encode() not in kept
    assert b"test_codec.py" not in kept
    assert failure.application_failure_info.type == "out-of-stock"
    error = await converter.decode_failure(failure)
    assert isinstance(error, ApplicationError)
    assert (error.message, error.type, list(error.details)) == (f"refused: {SECRET}", "out-of-stock", [{"who": SECRET}])
    assert str(error.__cause__) == f"ValueError: no such customer: {SECRET}"


async def test_a_failure_of_before_the_keys_is_still_read() -> None:
    failure = Failure()
    await data_converter(None).encode_failure(failed(), failure)
    assert SECRET.encode() in failure.SerializeToString()
    error = await data_converter(HistoryCodec({"old": OLD}, accept_plain=True)).decode_failure(failure)
    assert SECRET in str(error)


async def test_a_failures_details_in_clear_hold_up_nothing() -> None:
    """The engine adds some of its own."""
    converter, failure = data_converter(HistoryCodec({"old": OLD})), Failure(message="cancelled")
    failure.canceled_failure_info.details.payloads.append(plain("why the engine withdrew it"))
    error = await converter.decode_failure(failure)
    assert isinstance(error, CancelledError)
    assert not error.details


def in_base64(key: bytes) -> str:
    return base64.b64encode(key).decode()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (in_base64(NEW), "pair 1 must be id:key"),
        (f":{in_base64(NEW)}", "pair 1 must be id:key"),
        (f"a b:{in_base64(NEW)}", "pair 1 must be id:key"),
        (f"{in_base64(NEW)}:new", "pair 1 must be id:key"),
        (f"new:{in_base64(NEW)},", "pair 2 must be id:key"),
        (f"new:{in_base64(NEW)},new:{in_base64(OLD)}", "pair 2 has the id of an earlier one"),
        (f"old:{in_base64(OLD)},new:{in_base64(NEW[:31])}", "the key of pair 2 must be 32 bytes in base64"),
        (f"new:{in_base64(NEW)[:-2]}", "the key of pair 1 must be 32 bytes in base64"),
        (f"new:{in_base64(NEW)}!", "the key of pair 1 must be 32 bytes in base64"),
        (f"new:{NEW.hex()}", "the key of pair 1 must be 32 bytes in base64"),
        ("new:", "the key of pair 1 must be 32 bytes in base64"),
    ],
)
def test_keys_that_cannot_be_used_are_not_repeated(given: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_CODEC_KEYS", given)
    with pytest.raises(WrongSetting) as wrong:
        read_settings(CodecSettings)
    assert str(wrong.value).startswith(f"The setting STREET12_CODEC_KEYS cannot be used: {said}")
    assert not any(part in str(wrong.value) for part in (in_base64(NEW)[:8], in_base64(OLD)[:8], NEW.hex()[:8]))
    assert wrong.value.__suppress_context__


def test_keys_are_taken_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_CODEC_KEYS", f"new:{in_base64(NEW)}, old:{in_base64(OLD)}")
    settings = read_settings(CodecSettings)
    assert list(settings.by_id.items()) == [("new", NEW), ("old", OLD)]
    assert in_base64(NEW) not in repr(settings)


@pytest.mark.parametrize("empty", [None, ""])
def test_without_a_key_nothing_is_written_in_clear_by_mistake(
    empty: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if empty is not None:
        monkeypatch.setenv("STREET12_CODEC_KEYS", empty)
    with pytest.raises(WrongSetting, match=r"STREET12_CODEC_KEYS is not set: .* set STREET12_CODEC_ENCRYPT=false"):
        read_settings(CodecSettings)
    monkeypatch.setenv("STREET12_CODEC_ENCRYPT", "false")
    assert history_codec(read_settings(CodecSettings)) is None


def test_a_worker_without_a_key_does_not_start() -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("STREET12_")}
    worker = subprocess.run(
        [sys.executable, "worker.py", "--team", "marketing"],
        cwd=ROOT,
        env=own | {"TEMPORAL_ADDRESS": "127.0.0.1:1", "STREET12_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert worker.returncode == 1
    assert worker.stderr.splitlines()[-1].startswith("The setting STREET12_CODEC_KEYS is not set: without a key,")


def test_keys_without_encryption_make_a_codec_that_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_CODEC_KEYS", f"new:{in_base64(NEW)}")
    monkeypatch.setenv("STREET12_CODEC_ENCRYPT", "false")
    codec = history_codec(read_settings(CodecSettings))
    assert codec is not None
    assert not codec.encrypts


def test_a_codec_server_without_tokens_is_for_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREET12_CODEC_HOST", "0.0.0.0")
    assert read_settings(CodecServerSettings).tokens
    monkeypatch.setenv("STREET12_CODEC_TOKENS", "false")
    with pytest.raises(WrongSetting, match=r"STREET12_CODEC_TOKENS is 'false': .* must be 127\.0\.0\.1"):
        read_settings(CodecServerSettings)
