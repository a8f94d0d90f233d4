"""Loads the C libraries, and turns their error codes into exceptions."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from .._enums import CsError
from .._errors import (
    AccessError,
    CorosyncError,
    CorosyncUnavailableError,
    LibraryError,
    NoMemoryError,
    NotExistError,
    NotSupportedError,
    error_from_code,
)
from .._problem import Problem, reporting
from ._causes import FULL, NO_DIRECTORY, lack, why_refused, why_unanswered
from ._shim import ffi, lib

if TYPE_CHECKING:
    from ._shim import Allocation, LibraryConnection


@final
class Library:
    """One of Corosync's client libraries, loaded when it is first needed."""

    def __init__(self, index: int, soname: str, package: str) -> None:
        self.index = index
        self.soname = soname
        self.package = package
        self.service = soname.partition(".")[0].removeprefix("lib")
        self._loaded = False
        self._lock = threading.Lock()

    def load(self) -> None:
        """Load the library if it is not loaded yet. Reads the disk: to be called on a worker thread."""
        reason = self.try_to_load()
        if reason is not None:
            missing = absence([self], reason)
            raise reporting(CorosyncUnavailableError(str(missing), function="dlopen"), missing)

    def try_to_load(self) -> str | None:
        """Like `load`, but return what the loader says if it does not find the library."""
        with self._lock:
            if self._loaded:
                return None
            problem = lib.tc_load(self.index, os.fsencode(self.soname))
            if problem:
                number = lib.tc_no_descriptor()
                if number:
                    raise lack(number, "dlopen")
                return ffi.string(problem).decode(errors="replace")
            self._loaded = True
            return None

    def connect(self, pidfd: int, flags: int) -> LibraryConnection:
        """On a worker: connect in the namespaces of `pidfd`, or in our own if that is -1."""
        self.load()
        connection = ffi.new("struct tc_connection *")
        connection.flags = flags
        code = lib.tc_connect(self.index, pidfd, connection)
        if code != CsError.OK:
            error = failure_inside(code, connection)
            if code == CsError.ACCESS:
                problem = why_refused()
                raise reporting(error_from_code(code, error.function, str(problem)), problem)
            if isinstance(error, (LibraryError, NotExistError)):
                cause = why_unanswered(self.service, pidfd, error)
                if cause is not None:
                    lacking = CorosyncUnavailableError(f"{cause} ({error})", function=error.function)
                    # The library's error as the cause says that a daemon may come: that would not help here.
                    raise reporting(lacking, cause) from (None if cause is NO_DIRECTORY else error)
            raise error
        return connection

    def disconnect(self, connection: LibraryConnection) -> None:
        """On a worker: undo `connect`."""
        lib.tc_finalize(self.index, connection.handle)


CPG = Library(lib.TC_LIBCPG, "libcpg.so.4", "libcpg4")
VOTEQUORUM = Library(lib.TC_LIBVOTEQUORUM, "libvotequorum.so.8", "libvotequorum8")
QUORUM = Library(lib.TC_LIBQUORUM, "libquorum.so.5", "libquorum5")
CMAP = Library(lib.TC_LIBCMAP, "libcmap.so.4", "libcmap4")
CFG = Library(lib.TC_LIBCFG, "libcfg.so.7", "libcfg7")
LIBRARIES = (CPG, VOTEQUORUM, QUORUM, CMAP, CFG)


def absence(libraries: Sequence[Library], reason: str) -> Problem:
    """Describe that libraries are missing.

    Args:
        libraries: at least one.
        reason: what the loader says, of the first one.
    """
    several = len(libraries) > 1
    sonames = ", ".join(library.soname for library in libraries)
    packages = ", ".join(library.package for library in libraries)
    return Problem(
        "no-library",
        f"the client {'libraries' if several else 'library'} {sonames} cannot be loaded",
        f"install the package{'s' * several} {packages} (Debian, Ubuntu) or corosynclib (Fedora, RHEL); the loader"
        f" says: {reason}",
    )


def failure(code: int, function: str) -> CorosyncError:
    """Return the exception for a code of the libraries or of the shim."""
    if code == lib.TC_MISSING:
        return NotSupportedError(f"{function}: the installed version of Corosync's library lacks it", function=function)
    if code == lib.TC_SHALLOW:
        return NoMemoryError(
            f"{function}: the stack of this thread is too small: the library puts 1 MiB on it; start the thread with"
            " more (threading.stack_size), or the process (ulimit -s)",
            function=function,
        )
    return error_from_code(code, function)


def failure_inside(code: int, call: LibraryConnection | Allocation) -> CorosyncError:
    """Return the exception for a call that runs in the daemon's namespaces."""
    function = ffi.string(call.function).decode()
    number = call.error
    if code == lib.TC_LACKING:
        return lack(number, function)
    if code == CsError.NO_SPACE:
        return reporting(error_from_code(code, function, str(FULL)), FULL)
    if code != lib.TC_UNREACHABLE:
        return failure(code, function)
    if number in (errno.ENOMEM, errno.EAGAIN):
        return lack(number, function)
    kind = AccessError if number in (errno.EPERM, errno.EACCES) else CorosyncUnavailableError
    return kind(f"cannot enter the namespaces of the daemon: {function}: {os.strerror(number)}", function=function)
