"""What applications need above a process group, built on the public names of `triocoro` alone."""

from ._calls import Calls, open_calls
from ._calls_replies import Answer, Failure, Replies, Reply, Request, Unknown

__all__ = [
    "Answer",
    "Calls",
    "Failure",
    "Replies",
    "Reply",
    "Request",
    "Unknown",
    "open_calls",
]

for _value in list(globals().values()):
    # Reprs, tracebacks, pickles and the documentation show this module's name.
    if getattr(_value, "__module__", "").startswith("triocoro.recipes._"):
        setattr(_value, "__module__", __name__)  # noqa: B010 - not every object is known to have one
