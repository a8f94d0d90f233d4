"""The notation of names and payloads."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies

from triocoro._cli.names import escape, unescape


@pytest.mark.parametrize(
    "data,text",
    [
        (b"chat", "chat"),
        ("grüße".encode(), "grüße"),
        (b"chat\0", r"chat\x00"),
        (b"a\\b", r"a\\b"),
        (b"\xff\n", r"\xff\x0a"),
        ("\u0085\u200b".encode(), r"\xc2\x85\xe2\x80\x8b"),
        (b"\xed\xb2\x80", r"\xed\xb2\x80"),
    ],
)
def test_escape(data: bytes, text: str) -> None:
    assert escape(data) == text
    assert unescape(text) == data


@given(strategies.binary())
def test_what_is_written_is_read(data: bytes) -> None:
    text = escape(data)
    assert text.isprintable()
    assert unescape(text) == data


@pytest.mark.parametrize("text", ["\\", r"a\n", r"\x0", r"\xgg", "\\\\\\"])
def test_a_wrong_escape(text: str) -> None:
    with pytest.raises(ValueError, match="a backslash must be followed by another one"):
        unescape(text)
