"""Each block of code in the documentation runs, or says why it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.pages import PAGES, ROOT, Page, blocks, commands

pytestmark = pytest.mark.corosync_fake_only(reason="the code in pages runs with a virtual clock")


_WITH_BLOCKS = [page for page in PAGES if list(blocks(page.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("page", _WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(pytester: pytest.Pytester, page: Path) -> None:
    Page(pytester).run(page.read_text(encoding="utf-8"))


_GOOD = """
A script, which goes on for ever:

<!-- endless -->
```python
import trio
import triocoro

async def main():
    async with triocoro.open_group("chat") as group:
        print(f"node {group.address.nodeid}")
        async for event in group:
            print(type(event).__name__)

trio.run(main)
```

<!-- output: -->
```text
node 1
ConfigChange
```

A part of a program, which uses what came before:

<!-- before:
async def handle(quorate):
    print("quorate:", quorate)
-->
```python
async with triocoro.open_quorum() as quorum:
    await handle(await quorum.is_quorate())
```

<!-- output: -->
```text
quorate: ...
```

- In a list, a module, its test, and a command:

  <!-- file: src/answer.py -->
  ```python
  ANSWER = 42
  ```

  <!-- file: pyproject.toml -->
  ```toml
  [tool.pytest.ini_options]
  pythonpath = ["src"]
  trio_mode = true
  ```

  ```python
  from answer import ANSWER

  async def test_answer(corosync):
      assert ANSWER == 42
  ```

  ```console
  $ python -c "
  > from src.answer import ANSWER
  > print(ANSWER)"  # what follows is its output
  42
  $ ls \\
      src
  ...answer.py...
  $ cat src/answer.py
  ```

<!-- not run: it takes an hour -->
```console
$ sleep 3600
```

```text
no code
```
"""


def test_blocks_run(pytester: pytest.Pytester) -> None:
    Page(pytester).run(_GOOD)


@pytest.mark.parametrize(
    "page, complaint",
    [
        ("```python\nassert 1 == 2\n```", "line 2: AssertionError"),
        ("```python\nawait nothing()\n```", "NameError"),
        ("```python\ndef test_it():\n    assert 1 == 2\n```", "tests of the page fail"),
        ("```python\nimport trio\nawait trio.sleep_forever()\n```", "it did not end within a minute"),
        ("```console\n$ false\n```", "`false` fails with 1"),
        ("```console\n$ echo one\ntwo\n```", "the output is\none"),
        ("```python\nprint(1)\n```\n<!-- output: -->\n```text\n2\n```", "the output is\n1"),
        ("```json\n{\n```", "JSONDecodeError"),
        ("```yaml\na: b\n```", "'yaml' is not run"),
        ("```\nsomething\n```", "'(none)' is not run"),
        ("```bash\nls\n```", "'bash' is not run"),
        ("<!-- not run: -->\n```bash\nls\n```", "say why"),
        ("<!-- skip: it is slow -->\n```bash\nls\n```", "unknown marks ['skip']"),
    ],
)
def test_a_block_that_fails_or_is_not_run_is_found(pytester: pytest.Pytester, page: str, complaint: str) -> None:
    with pytest.raises(AssertionError) as caught:
        Page(pytester).run(page + "\n")
    assert complaint in str(caught.value).replace("\\n", "\n")


def test_a_command_may_have_several_lines() -> None:
    console = "$ cat <<END\n> text\n> END\ntext\n$ echo \\\n  one\n"
    assert list(commands(console)) == [("cat <<END\ntext\nEND\n", "text\n"), ("echo \\\n  one\n", "")]
