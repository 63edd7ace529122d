"""Revisions of the repository, each checked out into a git worktree that goes when the work is done."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .errors import BenchError

OURS = Path(__file__).resolve().parent.parent
"""The package that measures."""
REPOSITORY = OURS
"""The repository whose revisions are measured."""


@contextlib.contextmanager
def checked_out(commit: str, home: Path) -> Iterator[Path]:
    """A folder to import from: `attnbench` is the revision, `attnbench_ours` this package."""
    home.mkdir()
    tree = home / "tree"
    try:
        _git("worktree", "add", "--detach", "--force", str(tree), commit)
        if not (tree / "variants" / "api.py").is_file():
            raise BenchError(f"the revision {commit[:10]} has no variants/api.py: it is from before the contract")
        (home / "attnbench").symlink_to(tree, target_is_directory=True)
        (home / "attnbench_ours").symlink_to(OURS, target_is_directory=True)
        yield home
    finally:
        with contextlib.suppress(BenchError):
            _git("worktree", "remove", "--force", str(tree))


def commit_of(revision: str) -> str:
    """The full name of a revision's commit. Raises BenchError where there is none, or no repository."""
    if not (REPOSITORY / ".git").exists():
        raise BenchError(
            f"{REPOSITORY} is no git checkout, so it has no revisions; install attnbench from a clone: pip install -e ."
        )
    try:
        return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except BenchError:
        raise BenchError(f"there is no revision {revision!r} in {REPOSITORY}; see git log") from None


def dirty() -> bool:
    """Whether a file of the repository differs from what is committed."""
    return bool(_git("status", "--porcelain", "--untracked-files=no"))


def _git(*arguments: str) -> str:
    """Output of a git command in REPOSITORY. Raises BenchError with its last words."""
    # the variables that a hook runs under name another repository
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environ,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"git cannot be run: {error}") from None
    if done.returncode:
        raise BenchError(f"git {arguments[0]} failed: {done.stderr.strip()[-400:]}")
    return done.stdout.strip()
