"""The blocks of code in the pages of the documentation, and how tests run them. CONTRIBUTING.md describes the marks."""

from __future__ import annotations

import ast
import contextlib
import doctest
import inspect
import io
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, Final
from unittest import mock

import attrs
import pytest
import trio
from trio.testing import MockClock

from triocoro.testing import FakeCluster

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/*/README.md"), *ROOT.glob("examples/*.md")]
)
"""The pages of the documentation."""

_BLOCK: Final = re.compile(
    r"(?P<marks>(?:^ *<!--(?:(?!-->).)*-->\n+)*)"
    r"^(?P<indent> *)(?P<fence>```+)(?P<language>[^\n]*)\n"
    r"(?P<text>.*?)^(?P=indent)(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
_COMMENT: Final = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)
_MARKS: Final = ("not run", "file", "before", "output", "endless", "real time", "one node")
_PLAIN: Final = ("text", "diff")
"""Languages of blocks that hold nothing to run."""

_MINUTE: Final = 60
_FLAGS: Final = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_PYPROJECT: Final = "[tool.pytest.ini_options]\ntrio_mode = true\n"


@attrs.frozen
class Block:
    """A block of code in a page."""

    line: int
    """The number of its first line in the page."""
    language: str
    text: str
    marks: dict[str, str]
    """The marks before it, such as ``{"not run": "it takes an hour"}``."""


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, in order."""
    for match in _BLOCK.finditer(page):
        marks: dict[str, str] = {}
        for comment in _COMMENT.findall(match["marks"]):
            name, _, value = comment.partition(":")
            marks[name] = textwrap.dedent(value).strip()
        text = textwrap.dedent(match["text"])
        yield Block(page.count("\n", 0, match.start("text")) + 1, match["language"].strip(), text, marks)


def commands(console: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that the block shows."""
    for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        match = re.fullmatch(r"((?:.*\\\n)*.*\n(?:> .*\n)*)([\s\S]*)", part)
        assert match is not None
        yield re.sub(r"^> ", "", match[1], flags=re.MULTILINE), match[2]


class Page:
    """Runs the blocks of one page, in an empty folder and one namespace."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        self._folder = pytester.path
        self._namespace: dict[str, Any] = {"__name__": "__main__"}
        self._printed = ""

    def run(self, page: str) -> None:
        """Run all blocks.

        Raises:
            AssertionError: a block fails, or is neither run nor marked with the reason.
        """
        for block in blocks(page):
            try:
                self._run(block)
            except (Exception, SystemExit, pytest.fail.Exception) as exc:
                raise AssertionError(f"the block in line {block.line}: {exc!r}") from exc
        if list(self._folder.glob("**/test_*.py")):
            if not (self._folder / "pyproject.toml").exists():
                self._write("pyproject.toml", _PYPROJECT)
            result = self._pytester.runpytest("--corosync=fake", "-p", "no:cacheprovider")
            assert result.ret == 0, "tests of the page fail"

    def _run(self, block: Block) -> None:
        unknown = block.marks.keys() - set(_MARKS)
        assert not unknown, f"unknown marks {sorted(unknown)}; there are {', '.join(_MARKS)}"
        code = f"{block.marks['before']}\n{block.text}" if "before" in block.marks else block.text
        if "not run" in block.marks:
            assert block.marks["not run"], "say why it is not run: <!-- not run: reason -->"
        elif "file" in block.marks:
            self._write(block.marks["file"], code)
        elif "output" in block.marks:
            _compare(block.text, self._printed)
        elif block.language == "python" and re.search(r"^(async )?def test_", block.text, re.MULTILINE):
            self._write(f"test_line_{block.line}.py", code)
        elif block.language == "python":
            self._printed = self._execute(code, block)
        elif block.language == "console":
            self._printed = "".join(self._command(command, shown) for command, shown in commands(block.text))
        elif block.language == "json":
            json.loads(block.text)
        else:
            assert block.language in _PLAIN or block.language.startswith("{"), (
                f"a block of the language {block.language or '(none)'!r} is not run: mark it with <!-- not run: reason "
                "-->, or with <!-- file: name --> if other blocks use it; what is no code has the language text"
            )

    def _write(self, name: str, text: str) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _command(self, command: str, shown: str) -> str:
        """Run a command in the folder of the page, and return its output, which must be as shown, if any is shown."""
        environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self._folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"`{command.strip()}` fails with {done.returncode}:\n{done.stdout}"
        if shown.strip():
            _compare(shown, done.stdout)
        return done.stdout

    def _execute(self, code: str, block: Block) -> str:
        """Run Python code, which may use `await` at the top level; return what it prints.

        Node 1 of `cluster`, a fake of three nodes or of one, is the default endpoint.
        """
        compiled = compile(
            code, f"<line {block.line}>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        run = partial(_run, endless="endless" in block.marks, real_time="real time" in block.marks)
        with (
            contextlib.redirect_stdout(io.StringIO()) as printed,
            FakeCluster(nodes=1 if "one node" in block.marks else 3) as cluster,
            cluster[1].as_default(),
            mock.patch("trio.run", run),
        ):
            self._namespace["cluster"] = cluster
            if compiled.co_flags & inspect.CO_COROUTINE:
                trio.run(FunctionType(compiled, self._namespace))
            else:
                exec(compiled, self._namespace)  # noqa: S102 - our own documentation
        return printed.getvalue()


_real_run: Final = trio.run


def _run(main: Callable[..., Awaitable[Any]], *args: Any, endless: bool, real_time: bool, **options: Any) -> Any:
    """`trio.run` with a virtual clock, which ends after a minute. Without `endless`, that is an error."""
    if not real_time:
        options.setdefault("clock", MockClock(autojump_threshold=0))
    seconds_of_real_time = 1 if endless else _MINUTE

    async def bounded() -> Any:
        token = trio.lowlevel.current_trio_token()
        with trio.move_on_after(_MINUTE) as scope:
            timer = threading.Timer(seconds_of_real_time, token.run_sync_soon, [scope.cancel])
            timer.start()
            try:
                return await main(*args)
            finally:
                timer.cancel()
        assert endless, "it did not end within a minute; is it <!-- endless -->?"
        return None

    return _real_run(bounded, **options)


def _compare(shown: str, printed: str) -> None:
    assert doctest.OutputChecker().check_output(shown, printed, _FLAGS), (
        f"the output is\n{printed}\nwhere the page has\n{shown}"
    )
