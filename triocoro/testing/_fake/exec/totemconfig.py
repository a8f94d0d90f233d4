"""The runtime values of Totem's configuration, from the keys of a daemon's map: exec/totemconfig.c."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ...._enums import CmapType
from ...._types import TypedValue
from .coroparse import ConfigurationError, addresses
from .icmap import Icmap

# Each node above this number adds totem.token_coefficient to the token timeout.
_COEFFICIENT_ABOVE: Final = 2

_MODULUS: Final = 2**32
"""The numbers are unsigned, of 32 bits."""

# Settings that depend on nothing else, with their defaults: those set before the timeouts, and those set after them.
_BEFORE: Final = {
    "max_network_delay": 50,
    "window_size": 50,
    "max_messages": 17,
    "miss_count_const": 5,
    "knet_pmtud_interval": 30,
    "knet_mtu": 0,
}
_AFTER: Final = {
    "merge": 200,
    "downcheck": 1000,
    "fail_recv_const": 2500,
    "seqno_unchanged_const": 30,
    "send_join": 0,
    "heartbeat_failures_allowed": 0,
    "knet_compression_threshold": 0,
}
_LEAST: Final = {
    "max_network_delay": ("max_network_delay", 30),
    "token": ("token timeout", 30),
    "token_retransmit": ("token retransmit timeout", 30),
    "hold": ("token hold timeout", 14),
    "join": ("join timeout", 30),
    "consensus": ("consensus timeout", 30),
    "merge": ("merge timeout", 30),
    "downcheck": ("downcheck timeout", 30),
}
"""The least values in milliseconds, three ticks of the clock that Corosync assumes, with their names in messages."""
_ALWAYS: Final = 100
_FLAGS: Final = {"block_unlisted_ips": 1, "cancel_token_hold_on_retransmit": 0}


def check(icmap: Icmap) -> None:
    """Raise `ConfigurationError` for what Totem refuses (totem_volatile_config_validate)."""
    prefix = "runtime.config.totem."
    # The token timeout may come twice; the last one counts.
    values = {key.removeprefix(prefix): typed.value for key, typed in runtime(icmap) if typed.type is CmapType.UINT32}
    for name, (title, least) in _LEAST.items():
        value = int(values[name])
        if value >= least:
            continue
        if name == "token_retransmit" and icmap.get("totem.token_retransmit") is None:
            raise _refusal("Not appropriate token or token_retransmits_before_loss_const value set")
        raise _refusal(f"The {title} parameter ({value} ms) may not be less than ({least} ms).")
    if (warning := int(values["token_warning"])) > _ALWAYS:
        raise _refusal(f"The token warning parameter ({warning}%) must be between 0 (disabled) and {_ALWAYS}.")
    join, consensus = int(values["join"]), int(values["consensus"])
    if consensus < join:
        raise _refusal(
            f"The consensus timeout parameter ({consensus} ms) may not be less than join timeout ({join} ms)."
        )


def _refusal(reason: str) -> ConfigurationError:
    return ConfigurationError(f"parse error in config: {reason}")


def runtime(icmap: Icmap, *, deleted: str = "") -> Iterator[tuple[str, TypedValue]]:
    """The runtime keys and values, in the order in which Totem sets them. The token timeout may come twice.

    Args:
        icmap: the map with the configured values.
        deleted: a key that is being deleted: it is still in the map, but does not count.
    """

    def configured(name: str, type_: CmapType) -> TypedValue | None:
        typed = icmap.get(f"totem.{name}")
        return typed if typed is not None and typed.type is type_ and f"totem.{name}" != deleted else None

    def number(name: str, default: int) -> int:
        typed = configured(name, CmapType.UINT32)
        # 0 stands for the default, except for token_warning, where it means no warning.
        return default if typed is None or (not typed.value and name != "token_warning") else int(typed.value)

    def numbers() -> Iterator[tuple[str, int]]:
        yield "token_retransmits_before_loss_const", (retransmits := number("token_retransmits_before_loss_const", 4))
        yield "token", (token := number("token", 3000))
        yield "token_warning", number("token_warning", 75)
        more = len(addresses(icmap)) - _COEFFICIENT_ABOVE
        if more > 0:
            # This key counts even while it is being deleted, as in Corosync.
            coefficient = icmap.get("totem.token_coefficient")
            known = coefficient is not None and coefficient.type is CmapType.UINT32
            token += more * (int(coefficient.value) if coefficient is not None and known else 650)
            yield "token", token
        for name, default in _BEFORE.items():
            yield name, number(name, default)
        yield "token_retransmit", (retransmit := number("token_retransmit", int(token / (retransmits + 0.2))))
        # 10 ms is the tick of the clock that Corosync assumes.
        yield "hold", number("hold", int(retransmit * 0.8 - 10))
        yield "join", number("join", 50)
        yield "consensus", number("consensus", int(1.2 * token))
        for name, default in _AFTER.items():
            yield name, number(name, default)

    prefix = "runtime.config.totem."
    for name, value in numbers():
        yield prefix + name, TypedValue(CmapType.UINT32, value % _MODULUS)
    level = configured("knet_compression_level", CmapType.INT32)
    yield f"{prefix}knet_compression_level", level or TypedValue(CmapType.INT32, 0)
    model = configured("knet_compression_model", CmapType.STRING)
    yield f"{prefix}knet_compression_model", model or TypedValue(CmapType.STRING, "none")
    for name, default in _FLAGS.items():
        typed = configured(name, CmapType.STRING)
        flag = default if typed is None else {"yes": 1, "no": 0}.get(str(typed.value), default)
        yield prefix + name, TypedValue(CmapType.UINT32, flag)
