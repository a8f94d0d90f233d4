r"""How commands write the names of groups, and payloads: as text that is printable and exact.

Printable UTF-8 stands for itself, a backslash is written twice, and each byte of anything else is `\xNN`. Commands read
names in the same notation, so that what one prints can be given to another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from .. import _validate

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_ESCAPED: Final = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(\\))|(\\)")


def escape(data: bytes) -> str:
    """Return the notation of bytes."""
    return "".join(map(_escape_character, data.decode(errors="surrogateescape")))


def _escape_character(character: str) -> str:
    if character == "\\":
        return r"\\"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def unescape(text: str) -> bytes:
    """Return the bytes that a notation stands for.

    Raises:
        ValueError: a backslash begins neither another one nor `xNN`.
    """

    def replace(match: re.Match[bytes]) -> bytes:
        number, backslash, wrong = match.groups()
        if wrong is not None:
            raise ValueError(rf"a backslash must be followed by another one, or by xNN as in \x00, in {text!r}")
        return bytes([int(number, 16)]) if number else bytes(backslash)

    return _ESCAPED.sub(replace, os.fsencode(text))


def group_argument(function: FunctionT) -> FunctionT:
    """Add the argument GROUP to a command: the name of a group, in this notation."""
    return click.argument("group", callback=_read_group)(function)


def _read_group(_: click.Context, __: click.Parameter, text: str) -> bytes:
    try:
        return _validate.group_name(unescape(text))
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from None
