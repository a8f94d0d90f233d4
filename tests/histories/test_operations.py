"""Operations of the application, as a history records them."""

from __future__ import annotations

import pytest
import trio

from triocoro import Address
from triocoro.testing import History, Note, Operation, OutcomeStatus


class NotPrimaryError(Exception):
    pass


async def test_how_operations_end() -> None:
    """Each that returned has its result; one that never took effect is left out; the others stay open to the end."""
    history = History()
    with history.operation("put", "key", [1, 2], client="one", node=1) as operation:
        with history.operation("get", "key", client="two") as inner:
            inner.result = {2, 1}
        operation.result = Address(1, 7)
    for error, refused in ((KeyError, KeyError), (NotPrimaryError, ())):
        with pytest.raises(error), history.operation("delete", client="one", refused=refused):
            raise error
    with pytest.raises(OSError, match="gone"), history.operation("cas", client="two"):
        raise OSError("gone")
    with trio.CancelScope() as scope, history.operation("lock"):
        scope.cancel()
        await trio.sleep_forever()

    put, get, cas, lock = history.operations()
    assert put == Operation(client="one", name="put", arguments=("key", (1, 2)), result=Address(1, 7), began=0, ended=3)
    assert (get.client, get.result, get.began, get.ended) == ("two", (1, 2), 1, 2)
    assert (cas.name, cas.status, cas.ended) == ("cas", OutcomeStatus.UNKNOWN, None)
    assert (lock.status, lock.client) == (OutcomeStatus.UNKNOWN, trio.lowlevel.current_task().name)


async def test_one_that_has_not_ended_is_open() -> None:
    history = History()
    with history.operation("put", client="one"):
        (put,) = history.operations()
    assert (put.status, put.ended) == (OutcomeStatus.UNKNOWN, None)


async def test_values_that_cannot_be_kept() -> None:
    history = History()
    with pytest.raises(TypeError, match="a history cannot keep <object"):
        history.operation("put", object(), client="one").__enter__()
    with (
        pytest.raises(TypeError, match="a history cannot keep <object"),
        history.operation("put", client="one") as operation,
    ):
        operation.result = object()
    with pytest.raises(TypeError, match="name must be str"):
        history.operation(b"put")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="text must be str"):
        history.note(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_operations_and_notes_are_saved_and_merged() -> None:
    history = History()
    with history.operation("put", "key", b"\x00", client="one") as operation:
        operation.result = 1.5
    history.note("half time", node=2)
    assert History.from_json_lines(history.to_json_lines()) == history
    assert isinstance(history[2], Note)

    other = History()
    with other.operation("put", client="one"):
        pass
    with pytest.raises(ValueError, match="two histories have a client 'one' each"):
        History.merge([history, other])
    # A history that is read again goes on counting.
    loaded = History.from_json_lines(history.to_json_lines())
    with loaded.operation("get", client="one"):
        pass
    assert [operation.name for operation in loaded.operations()] == ["put", "get"]
