"""Commands of the guest."""

from __future__ import annotations

import subprocess


def sh(*command: str, seconds: int = 60) -> str:
    """Return what a command printed; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


def try_sh(*command: str, seconds: int = 60) -> None:
    """Run a command that may fail, for cleaning up."""
    subprocess.run(command, capture_output=True, timeout=seconds)
