"""The frames of calls.

Every frame begins with the same header, in network byte order: `MAGIC`, the version (1 byte), the kind (1 byte), the
incarnation of the caller (16 bytes) and the number of its call (8 bytes). That, and the kinds 0 and 1, must stay as
they are in all versions, so that any two versions can refuse each other's requests.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

import attrs

MAGIC: Final = b"tricalls"
VERSION: Final = 1

_HEADER: Final = struct.Struct("!8sBB16sQ")


class Kind(IntEnum):
    """The kinds of frames."""

    OTHER_VERSION = 0
    """Refuses a request of another version. In all versions."""
    REQUEST = 1
    """In all versions."""
    ANSWER = 2
    FAILURE = 3
    NO_HANDLER = 4
    NOT_HERE = 5
    """Answers a probe: neither does the request wait here, nor does it run."""
    PROBE = 6
    """Asks about the calls whose numbers are the body."""


@attrs.frozen
class Frame:
    """A message of the protocol."""

    kind: int
    incarnation: bytes
    number: int
    body: bytes = b""
    version: int = VERSION

    def head(self) -> bytes:
        """The frame without its body."""
        return _HEADER.pack(MAGIC, self.version, self.kind, self.incarnation, self.number)

    def encode(self) -> bytes:
        """The whole frame."""
        return self.head() + self.body

    @staticmethod
    def decode(payload: bytes) -> Frame | None:
        """Read a frame of any version; `None` if the payload is none, but of another program."""
        if len(payload) < _HEADER.size or not payload.startswith(MAGIC):
            return None
        _, version, kind, incarnation, number = _HEADER.unpack_from(payload)
        return Frame(kind, incarnation, number, payload[_HEADER.size :], version)
