"""Which commit of trifront is running, where it runs from a checkout."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_GIT_LIMIT_S = 5.0  # a network folder may hang; the fact is not worth waiting for
_MAX_HOPS = 5  # symbolic references point at symbolic references, in theory


def checkout_facts(root: Path) -> Iterator[tuple[str, str]]:
    """Yield ``git_commit`` and ``git_dirty`` of a checkout in ``root``, or ``none`` for both.

    Folders above are not looked at: an installed trifront may lie in somebody else's checkout.
    The commit is read from git's files; only whether files were changed needs the program.
    """
    folder = _git_folder(root)
    commit = None if folder is None else _commit(folder)
    if commit is None:
        yield from (("git_commit", "none"), ("git_dirty", "none"))
    else:
        yield "git_commit", commit
        yield "git_dirty", _dirty(root)


def _git_folder(root: Path) -> Path | None:
    git = root / ".git"
    if git.is_dir():
        return git
    pointer = _text(git)  # a worktree or submodule: a file that says where
    return (root / pointer.removeprefix("gitdir: ")) if pointer.startswith("gitdir: ") else None


def _commit(folder: Path) -> str | None:
    shared = folder / _text(folder / "commondir")  # a worktree's branches lie with its parent's
    value = _text(folder / "HEAD")
    for _ in range(_MAX_HOPS):
        if not value.startswith("ref: "):
            break
        name = value.removeprefix("ref: ")
        value = _text(folder / name) or _text(shared / name) or _packed(shared, name)
    return value if _COMMIT.fullmatch(value) else None


def _packed(folder: Path, name: str) -> str:
    for line in _text(folder / "packed-refs").splitlines():
        commit, _, reference = line.partition(" ")
        if reference == name:
            return commit
    return ""


def _dirty(root: Path) -> str:
    # no optional locks: a status must not get in the way of the user's own git
    command = ["git", "--no-optional-locks", "-C", str(root), "status", "--porcelain"]
    try:
        status = subprocess.run(
            [*command, "--untracked-files=no"],
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            timeout=_GIT_LIMIT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return "yes" if status.stdout.strip() else "no"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
