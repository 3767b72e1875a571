"""The one place where drivers run outside programs: no shell, the C locale, and an end in bounded time."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backends.drivers.errors import NotPermitted, NotReady, TimedOut

#: How long a program that was asked to end may take before it is killed.
_GRACE_SECONDS = 5.0
# A process that waits for a dead device cannot be killed; the caller must not wait for it, too.
_KILLED_SECONDS = 2.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program that has ended said.  `said` is for messages: its errors, or what it printed instead."""

    status: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return " ".join(line.strip() for line in lines[-6:]) or f"no message, status {self.status}"


def run_command(
    command: Sequence[str],
    *,
    timeout_seconds: float,
    package: str,
    environment: Mapping[str, str] | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    backend: str = "",
    operation: str = "",
    volume: str = "",
) -> Finished:
    """
    Run *command* to its end and return what it said, whatever its status.

    Args:
        package: Debian's package of the program, for the message when it is missing.
        stop_signal: Sent when the time is over; `SIGKILL` follows.

    Raises:
        NotReady: The program is not on this host.
        NotPermitted: It may not be run.
        TimedOut: It did not end in time; what it did is not known.
    """
    fields = {"backend": backend, "operation": operation, "volume": volume}
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(environment or {}),
        )
    except FileNotFoundError as error:
        raise NotReady(
            f"The tool '{command[0]}' is not on this host.",
            remedy=f"On Debian: apt-get install {package}",
            **fields,
        ) from error
    except PermissionError as error:
        raise NotPermitted(f"The tool '{command[0]}' may not be run: {error.strerror}.", **fields) from error
    try:
        out, err = process.communicate(timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        _end(process, stop_signal)
        raise TimedOut(
            f"`{' '.join(command[:2])}` has not ended within {timeout_seconds:.0f} seconds.", **fields
        ) from error
    except BaseException:
        _end(process, stop_signal)
        raise
    return Finished(process.returncode, _text(out), _text(err))


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    path = f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_SYSTEM_PATH}"
    return {**os.environ, "PATH": path, "LC_ALL": "C", **extra}


def _end(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    # Nothing is read any more: a child of the program may keep the pipes open for ever.
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    for number, seconds in ((stop_signal, _GRACE_SECONDS), (signal.SIGKILL, _KILLED_SECONDS)):
        process.send_signal(number)
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue
    # It ends when its device answers; until then somebody must be there to take note.
    threading.Thread(target=process.wait, name=f"wait-{process.pid}", daemon=True).start()


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
