"""The errors of triocoro: one class for each `cs_error_t`, and some of its own.

The docstrings of its own errors say who caused it: the caller, or the environment.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Generator
from contextlib import contextmanager
from typing import ClassVar

import trio

from ._enums import CsError


class CorosyncError(Exception):
    """A call to Corosync failed.

    Attributes:
        code: the `CsError` that the C library returned, or the nearest one if triocoro itself found the failure.
        function: the C function that failed, such as ``"cpg_join"``.
    """

    default_code: ClassVar[CsError] = CsError.LIBRARY

    def __init__(self, message: str, *, function: str = "", code: CsError | None = None) -> None:
        super().__init__(message)
        self.function = function
        self.code: CsError = self.default_code if code is None else code

    def __reduce__(self) -> tuple[object, ...]:
        # The keyword-only arguments live in __dict__, which pickle restores as the state.
        return type(self), self.args, self.__dict__


class LibraryError(CorosyncError):
    """`CS_ERR_LIBRARY`: no daemon answers, it does not know the request, or shared memory failed.

    Remedy: start Corosync, or connect again; the message names the cause.
    """


class VersionError(CorosyncError):
    """`CS_ERR_VERSION`: the versions of the library and the daemon are incompatible.

    Remedy: install both from one release.
    """

    default_code = CsError.VERSION


class InitError(CorosyncError):
    """`CS_ERR_INIT`: the service is not initialised. Remedy: load the service in corosync.conf(5)."""

    default_code = CsError.INIT


class CorosyncTimeoutError(CorosyncError):
    """`CS_ERR_TIMEOUT`: the daemon did not get an answer in time. Remedy: see the daemon's log, and call again."""

    default_code = CsError.TIMEOUT


class TryAgainError(CorosyncError):
    """`CS_ERR_TRY_AGAIN`: the daemon is busy. Only `triocoro.lowlevel` raises it, others retry. Remedy: call again."""

    default_code = CsError.TRY_AGAIN


class InvalidParamError(CorosyncError):
    """`CS_ERR_INVALID_PARAM`: the daemon refused an argument. Remedy: see the manual page of `function`."""

    default_code = CsError.INVALID_PARAM


class NoMemoryError(CorosyncError):
    """`CS_ERR_NO_MEMORY`: this process or the daemon ran out of memory, or the stack of a thread is too small.

    If that happened while events were dispatched, the connection is lost, and the block raises this and not
    `ConnectionLostError`. Remedy: free memory or raise the limit; for a thread, `threading.stack_size`.
    """

    default_code = CsError.NO_MEMORY


class BadHandleError(CorosyncError):
    """`CS_ERR_BAD_HANDLE`: the handle was finalized. Remedy: open another."""

    default_code = CsError.BAD_HANDLE


class BusyError(CorosyncError):
    """`CS_ERR_BUSY`: the resource is in use. Remedy: wait until it is free, and call again."""

    default_code = CsError.BUSY


class AccessError(CorosyncError):
    """`CS_ERR_ACCESS`: permission denied, or the object is read-only.

    Remedy: run as root or with group root, or allow the user in a `uidgid` section of corosync.conf(5).
    """

    default_code = CsError.ACCESS


class NotExistError(CorosyncError):
    """`CS_ERR_NOT_EXIST`: the named object does not exist. Remedy: check the name or id; join before you send."""

    default_code = CsError.NOT_EXIST


class NameTooLongError(CorosyncError):
    """`CS_ERR_NAME_TOO_LONG`: a name is too long. Remedy: shorten it."""

    default_code = CsError.NAME_TOO_LONG


class ExistError(CorosyncError):
    """`CS_ERR_EXIST`: the object exists already. Remedy: use it, or another name."""

    default_code = CsError.EXIST


class NoSpaceError(CorosyncError):
    """`CS_ERR_NO_SPACE`: there is no space left, in most cases in /dev/shm. Remedy: make room there."""

    default_code = CsError.NO_SPACE


class InterruptError(CorosyncError):
    """`CS_ERR_INTERRUPT`: the operation was interrupted. Remedy: call again."""

    default_code = CsError.INTERRUPT


class NameNotFoundError(CorosyncError):
    """`CS_ERR_NAME_NOT_FOUND`: the name is unknown. Remedy: check the name."""

    default_code = CsError.NAME_NOT_FOUND


class NoResourcesError(CorosyncError):
    """`CS_ERR_NO_RESOURCES`: the daemon or this process lacks a resource, such as file descriptors or threads.

    Remedy: free some, or raise the limit that the message names.
    """

    default_code = CsError.NO_RESOURCES


class NotSupportedError(CorosyncError):
    """`CS_ERR_NOT_SUPPORTED`, or a function that the installed library or the configuration does not have.

    Remedy: use a newer Corosync, or do without; for `open_views`, configure a quorum provider.
    """

    default_code = CsError.NOT_SUPPORTED


class BadOperationError(CorosyncError):
    """`CS_ERR_BAD_OPERATION`: it is invalid in the present state. Remedy: see the manual page of `function`."""

    default_code = CsError.BAD_OPERATION


class FailedOperationError(CorosyncError):
    """`CS_ERR_FAILED_OPERATION`: the daemon tried the operation, and failed. Remedy: see the daemon's log."""

    default_code = CsError.FAILED_OPERATION


class MessageError(CorosyncError):
    """`CS_ERR_MESSAGE_ERROR`: the message is invalid, or out of date. Remedy: use the present ring id."""

    default_code = CsError.MESSAGE_ERROR


class QueueFullError(CorosyncError):
    """`CS_ERR_QUEUE_FULL`: a queue is full. Remedy: call again later."""

    default_code = CsError.QUEUE_FULL


class QueueNotAvailableError(CorosyncError):
    """`CS_ERR_QUEUE_NOT_AVAILABLE`: a queue is not available. Remedy: call again later."""

    default_code = CsError.QUEUE_NOT_AVAILABLE


class BadFlagsError(CorosyncError):
    """`CS_ERR_BAD_FLAGS`: the flags are invalid. Remedy: see the manual page of `function`."""

    default_code = CsError.BAD_FLAGS


class TooBigError(CorosyncError):
    """`CS_ERR_TOO_BIG`: the object is too large for Corosync. Remedy: send less at once."""

    default_code = CsError.TOO_BIG


class NoSectionsError(CorosyncError):
    """`CS_ERR_NO_SECTIONS`: the iteration has reached its end. Remedy: stop iterating."""

    default_code = CsError.NO_SECTIONS


class ContextNotFoundError(CorosyncError):
    """`CS_ERR_CONTEXT_NOT_FOUND`: no such context. Remedy: set the context first."""

    default_code = CsError.CONTEXT_NOT_FOUND


class TooManyGroupsError(CorosyncError):
    """`CS_ERR_TOO_MANY_GROUPS`: the daemon's table of groups is full. Remedy: use fewer groups."""

    default_code = CsError.TOO_MANY_GROUPS


class SecurityError(CorosyncError):
    """`CS_ERR_SECURITY`: refused for security reasons. Remedy: see the daemon's log."""

    default_code = CsError.SECURITY


class CorosyncUnavailableError(CorosyncError):
    """There is no Corosync to talk to: no daemon answers, or a library is missing. Caused by the environment.

    Remedy: start Corosync, or install what the message names.
    """


class ConnectionLostError(CorosyncError, trio.BrokenResourceError):
    """The connection to the daemon broke: the daemon died or disconnected us. Caused by the environment.

    Remedy: connect again, as `sessions` does. If a connection broke because this process lacks something,
    such as memory, another error names that.

    Attributes:
        unconfirmed: how many of our messages had been sent and had not been delivered back to us. Each of them may or
            may not have been delivered to the group.
    """

    def __init__(self, message: str, *, function: str = "", code: CsError | None = None, unconfirmed: int = 0) -> None:
        super().__init__(message, function=function, code=code)
        self.unconfirmed = unconfirmed


class KeyNotFoundError(NotExistError, KeyError):
    """The map has no such key. Caused by the caller, or by another program that deleted it. Remedy: set the key."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which is ugly for a sentence.
        return Exception.__str__(self)


class SlowConsumerError(CorosyncError):
    """The caller received events more slowly than they arrived, until they exceeded `max_buffered_bytes`.

    The connection is closed. Events that fitted can still be received; after them, this is raised.
    Caused by the caller. Remedy: receive in a task of its own and hand slow work to another, or raise the bound.
    """

    default_code = CsError.NO_SPACE


class MessageLostError(CorosyncError):
    """The daemon dropped a message of ours that it had accepted: no member has received it. Send it again.

    Caused by load on the daemon. Remedy: send the payloads again, if they still matter.

    Attributes:
        payloads: the messages that were lost, oldest first.
    """

    default_code = CsError.MESSAGE_ERROR

    def __init__(
        self, message: str, *, function: str = "", code: CsError | None = None, payloads: tuple[bytes, ...] = ()
    ) -> None:
        super().__init__(message, function=function, code=code)
        self.payloads = payloads


class InterruptedSendError(InterruptError):
    """A membership change interrupted a message above the atomic size: no member receives it. Send it again.

    Caused by the environment. Remedy: send it again, in parts if that goes on: messages up to
    `Cpg.max_atomic_message_size` cannot be interrupted.
    """


_CLASSES: dict[CsError, type[CorosyncError]] = {
    cls.default_code: cls
    for cls in (
        LibraryError,
        VersionError,
        InitError,
        CorosyncTimeoutError,
        TryAgainError,
        InvalidParamError,
        NoMemoryError,
        BadHandleError,
        BusyError,
        AccessError,
        NotExistError,
        NameTooLongError,
        ExistError,
        NoSpaceError,
        InterruptError,
        NameNotFoundError,
        NoResourcesError,
        NotSupportedError,
        BadOperationError,
        FailedOperationError,
        MessageError,
        QueueFullError,
        QueueNotAvailableError,
        BadFlagsError,
        TooBigError,
        NoSectionsError,
        ContextNotFoundError,
        TooManyGroupsError,
        SecurityError,
    )
}

_ADVICE: dict[CsError, str] = {
    CsError.LIBRARY: "the connection to the daemon is broken, or the daemon does not run",
    CsError.TRY_AGAIN: "the daemon is busy; try again",
    CsError.ACCESS: (
        "permission denied; run as root or with group root, or allow this user with a file in"
        " /etc/corosync/uidgid.d (see corosync.conf(5), uidgid)"
    ),
    CsError.BAD_HANDLE: "the handle was finalized",
    CsError.NO_MEMORY: (
        "this process, or the daemon, gets no more memory; free some, or raise its limit (ulimit -v, or that of its"
        " cgroup)"
    ),
}


def no_descriptor(number: int, function: str) -> NoResourcesError | None:
    """Return the exception for an errno that says that no file descriptor can be had; `None` for another errno.

    Args:
        number: the errno.
        function: the C function that needs the descriptor.
    """
    if number == errno.EMFILE:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        reason = (
            f"this process has too few file descriptors left of the {limit} that it may have (RLIMIT_NOFILE); close"
            " some, or raise the limit (ulimit -n, or LimitNOFILE= of its systemd unit)"
        )
    elif number == errno.ENFILE:
        reason = "the system has no file descriptors left; end some processes, or raise the limit (sysctl fs.file-max)"
    else:
        return None
    return NoResourcesError(f"{function}: {os.strerror(number)}: {reason}", function=function)


@contextmanager
def naming_descriptors(function: str) -> Generator[None, None, None]:
    """Within the block, an `OSError` that says that no file descriptor can be had becomes a `NoResourcesError`."""
    try:
        yield
    except OSError as exc:
        error = no_descriptor(exc.errno or 0, function)
        if error is None:
            raise
        raise error from exc


def error_from_code(code: int, function: str, advice: str = "") -> CorosyncError:
    """Return the exception for an error code of the C library.

    An unknown code is treated as a broken connection: the library has been seen to return uninitialised memory then.

    Args:
        code: what the C function returned.
        function: the name of that function.
        advice: what to tell the user, instead of the usual advice for the code.
    """
    try:
        known = CsError(code)
    except ValueError:
        known = CsError.LIBRARY
        advice = f"an unknown code ({code}), as the library gives when its connection is broken"
    text = advice or _ADVICE.get(known, "")
    name = f"CS_ERR_{known.name}"
    return _CLASSES[known](f"{function}: {name}: {text}" if text else f"{function}: {name}", function=function)
