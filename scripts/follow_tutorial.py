"""Follow a tutorial word by word in an empty folder, and say where it goes wrong.

The fenced blocks of the Markdown file are taken in order::

    python NAME, yaml NAME    written to the file NAME
    sh                        run by bash; what it exports holds for the blocks behind it
    sh until-ctrl-c           run until it speaks of Ctrl-C; its addresses are opened, then it ends
    text                      what the commands before printed, shortened

A reader sees other numbers than the tutorial, and on a busy machine other verdicts. So of the
words in a ``text`` block, four of five must have been printed; fewer, and the tutorial has rotted.

::

    python scripts/follow_tutorial.py [--tutorial docs/tutorial.md] [--folder FOLDER]
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from urllib.request import urlopen

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"

_FENCE = re.compile(r"^```(\w+) ?(.*)\n((?:.*\n)*?)^```$", re.MULTILINE)
_WORD = re.compile(r"[^\W\d]{4,}")  # shorter ones are in any output
_PRINTED = 0.8  # of the words that a text block shows
_PATIENCE_S = 300.0  # for one block; a search on a busy machine takes two minutes
_UNTIL_CTRL_C = "until-ctrl-c"
_ENDED_BY_CTRL_C = (0, 130, -signal.SIGINT)  # in good order; as shells say it; bash itself
_OURS = ("TRIFRONT_", "PYTHONPATH")  # a reader has none of these


class WrongStepError(Exception):
    """A block that did not do what the tutorial says; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block.

    Attributes:
        line: Where it begins in the tutorial, from 1.
        language: First word behind the fence.
        rest: What stands behind that word: a file's name or a way to run.
    """

    line: int
    language: str
    rest: str
    content: str


def blocks_of(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a tutorial in order."""
    for found in _FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        language, rest, content = found.groups()
        yield Block(line=line, language=language, rest=rest.strip(), content=content)


class Reader:
    """Somebody who does what the blocks say, in one folder and one shell.

    Args:
        folder: Empty.
        state: A file outside of it that remembers what the shell exported.
    """

    def __init__(self, folder: Path, state: Path) -> None:
        self._folder = folder
        self._state = state
        self._printed = ""
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_OURS)
        } | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def follow(self, block: Block) -> None:
        """Do what a block says.

        Raises:
            WrongStepError: It cannot be done, or comes to something else.
        """
        match block.language, block.rest:
            case (("python" | "yaml"), name) if name:
                (self._folder / name).write_text(block.content, encoding="utf-8")
            case "sh", "":
                self._printed = self._run(block.content)
            case "sh", way if way == _UNTIL_CTRL_C:
                self._printed = self._look(block.content)
            case "text", "":
                self._compare(block.content)
            case language, rest:
                raise WrongStepError(f"begins with an unknown fence: ```{language} {rest}")

    def _start(self, commands: str) -> subprocess.Popen[str]:
        remembered = f"if [ -f '{self._state}' ]; then . '{self._state}'; fi\n"
        script = f"{remembered}{commands}export -p > '{self._state}'\n"
        return subprocess.Popen(
            ["/bin/bash", "-euo", "pipefail", "-c", script],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _run(self, commands: str) -> str:
        process = self._start(commands)
        try:
            printed, _ = process.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise WrongStepError(f"has not ended after {_PATIENCE_S:.0f} s") from error
        finally:
            _end(process, signal.SIGKILL)
        print(printed, end="")
        if process.returncode:
            raise WrongStepError(f"ended with code {process.returncode}")
        return printed

    def _look(self, commands: str) -> str:
        """Run what serves pages until Ctrl-C, open every page, and press it."""
        process = self._start(commands)
        timer = Timer(_PATIENCE_S, _end, (process, signal.SIGKILL))
        timer.start()
        try:
            assert process.stdout is not None
            printed = ""
            for line in process.stdout:
                print(line, end="")
                printed += line
                if "Ctrl-C" in line:
                    break
            else:
                raise WrongStepError("ended before it spoke of Ctrl-C")
            for address in re.findall(r"http://[^\s,]+", printed):
                with urlopen(address, timeout=_PATIENCE_S) as answer:  # noqa: S310 (http alone)
                    print(f"[{address} answers {answer.status}]")
            _end(process, signal.SIGINT)
            process.communicate()
            if process.returncode not in _ENDED_BY_CTRL_C:
                raise WrongStepError(f"did not end at Ctrl-C, but with code {process.returncode}")
        finally:
            timer.cancel()
            _end(process, signal.SIGKILL)
        return printed

    def _compare(self, shown: str) -> None:
        words = set(_WORD.findall(shown))
        missing = sorted(words - set(_WORD.findall(self._printed)))
        if len(missing) > (1 - _PRINTED) * len(words):
            raise WrongStepError(f"was not printed by the commands before: {', '.join(missing)}")


def _end(process: subprocess.Popen[str], how: signal.Signals) -> None:
    if process.poll() is None:
        os.killpg(process.pid, how)


def follow(tutorial: Path, folder: Path) -> None:
    """Follow a tutorial to its end, or end the program at the block that goes wrong."""
    with TemporaryDirectory() as aside:
        reader = Reader(folder, Path(aside) / "exported.sh")
        began_s = time.monotonic()
        count = 0
        for block in blocks_of(tutorial.read_text(encoding="utf-8")):
            count += 1
            where = f"{tutorial.name}, line {block.line}"
            print(f"\n--- {where}: {block.language} {block.rest}".rstrip(), flush=True)
            if block.language == "sh":
                print(*(f"$ {line}" for line in block.content.splitlines()), sep="\n", flush=True)
            try:
                reader.follow(block)
            except (WrongStepError, OSError) as error:
                sys.exit(f"{where}: this {block.language} block {error}")
        print(f"\n{count} blocks followed in {time.monotonic() - began_s:.0f} s")


def main() -> None:
    """Read the options and follow."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tutorial", type=Path, default=TUTORIAL)
    parser.add_argument("--folder", type=Path, help="a new or empty folder; else one that goes")
    chosen = parser.parse_args()
    # where this runs in a shell's background, SIGINT is ignored, which its children would inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with TemporaryDirectory() as made:
        folder = chosen.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            sys.exit(f"{folder} is not empty; name a new folder")
        follow(chosen.tutorial, folder)


if __name__ == "__main__":
    main()
