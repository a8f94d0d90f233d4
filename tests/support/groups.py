"""Groups of exceptions, as nurseries raise them."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

import pytest

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


@contextmanager
def raises_group(kind: type[BaseException]) -> Generator[None, None, None]:
    """The block raises a group of one exception of just that type. (pytest.RaisesGroup is younger than our floor.)"""
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: ASYNC401 - as said above
        yield
    assert [type(exception) for exception in caught.value.exceptions] == [kind]
