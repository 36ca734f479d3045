"""What is wrong with the values of a request: where, as a JSON pointer, and why, in the caller's language.

The values themselves are never repeated, nor a name that nobody would give a field.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

_NAME = re.compile(r"[\w .~/$-]{1,64}")
# By the kind of error that pydantic tells of, or how its name begins: Korean, English.
_WORDS: dict[str, tuple[str, str]] = {
    "missing": ("필수 값입니다.", "This is required."),
    "extra_forbidden": ("알 수 없는 항목입니다.", "This is not known here."),
    "repeated": ("한 번만 보낼 수 있습니다.", "This may be given only once."),
    "not_yours": ("로그인한 사용자와 다릅니다.", "This is not who is calling."),
    "unreadable_text": (
        "읽을 수 있는 글자가 있어야 하며 제어 문자나 방향 표시는 쓸 수 없습니다.",
        "This needs something to read, and no control characters or marks of direction.",
    ),
    "phone_number": (
        "010-1234-5678과 같은 한국 전화번호여야 합니다.",
        "This must be a Korean phone number, such as 010-1234-5678.",
    ),
    "zero": ("0은 쓸 수 없습니다.", "This must not be zero."),
    "string_too_short": ("{min_length}자 이상이어야 합니다.", "This needs at least {min_length} characters."),
    "string_too_long": ("{max_length}자 이하여야 합니다.", "This may have at most {max_length} characters."),
    "string_pattern_mismatch": ("형식이 올바르지 않습니다.", "This does not have the form that is asked for."),
    "string_": ("문자열이어야 합니다.", "This must be text."),
    "greater_than_equal": ("{ge} 이상이어야 합니다.", "This must be at least {ge}."),
    "greater_than": ("{gt}보다 커야 합니다.", "This must be greater than {gt}."),
    "less_than_equal": ("{le} 이하여야 합니다.", "This must be at most {le}."),
    "int_": ("정수여야 합니다.", "This must be a whole number."),
    "bool_": ("true 또는 false여야 합니다.", "This must be true or false."),
    "datetime_": ("시간대를 포함한 RFC 3339 시각이어야 합니다.", "This must be an RFC 3339 time with its offset."),
    "timezone_": ("시간대를 포함한 RFC 3339 시각이어야 합니다.", "This must be an RFC 3339 time with its offset."),
    "literal_error": ("다음 중 하나여야 합니다: {expected}.", "This must be one of {expected}."),
    "enum": ("다음 중 하나여야 합니다: {expected}.", "This must be one of {expected}."),
    "model_": ("JSON 객체여야 합니다.", "This must be a JSON object."),
    "": ("올바르지 않은 값입니다.", "This value is not valid."),
}


def wrong_values(found: Iterable[Mapping[str, Any]], language: str) -> list[dict[str, str]]:
    """The `errors` of a problem document for what the validation found."""
    return [_wrong_value(one, language) for one in found]


def _wrong_value(found: Mapping[str, Any], language: str) -> dict[str, str]:
    where, *path = map(str, found["loc"])
    kind = str(found["type"])
    korean, english = next(words for start, words in _WORDS.items() if kind.startswith(start))
    return {
        "in": where,
        "pointer": "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path if _NAME.fullmatch(part)),
        "detail": (korean if language == "ko" else english).format_map(found.get("ctx", {})),
    }
