"""Every setting that comes from the environment: one table, read once."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable: `kind` converts its text; `default` is used when it is unset or empty."""

    name: str
    default: Any
    kind: type
    unit: str
    help_text: str
    choices: tuple[str, ...] = ()


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "DATABASE_URL",
        "",
        str,
        "",
        "Database; empty means SQLite in the state directory. PostgreSQL: postgres://user:password@host/name",
    ),
    Setting(
        "VOLMIG_STATE_DIR",
        "var",
        str,
        "path",
        "Directory of the database, the keys, the caches and the demo pools. Two instances need two of them.",
    ),
    Setting(
        "VOLMIG_HOST",
        "",
        str,
        "",
        "Name of this storage host, the part before the @ of an address; empty means the machine's host name.",
    ),
    Setting(
        "VOLMIG_SECRET_KEY",
        "",
        str,
        "",
        "Django's signing key; empty means one made in the state directory. All hosts of one installation need the same.",
    ),
    Setting(
        "VOLMIG_ENCRYPTION_KEYS",
        "",
        str,
        "",
        "Fernet keys for stored driver secrets, comma-separated, newest first; empty means one made in the state directory.",
    ),
    Setting("VOLMIG_DEBUG", False, bool, "", "Show tracebacks in the browser. Never in production."),
    Setting(
        "VOLMIG_ALLOWED_HOSTS",
        "localhost,127.0.0.1,[::1]",
        str,
        "",
        "Host names under which the site may be opened, comma-separated.",
    ),
    Setting(
        "VOLMIG_TRUSTED_ORIGINS",
        "",
        str,
        "",
        "Origins (https://...) that may post forms when a proxy stands in front, comma-separated.",
    ),
    Setting("VOLMIG_TIME_ZONE", "UTC", str, "", "Time zone of the pages."),
    Setting("VOLMIG_WORKERS", 2, int, "processes", "Migrations that one host works on at the same time."),
    Setting(
        "VOLMIG_LEASE_SECONDS",
        30,
        int,
        "seconds",
        "How long a worker owns a migration without renewing. After that another one may go on.",
    ),
    Setting(
        "VOLMIG_SLICE_SECONDS",
        300,
        int,
        "seconds",
        "How long one queue task works on a migration before it saves a checkpoint and queues itself again.",
    ),
    Setting(
        "VOLMIG_HANG_SECONDS",
        20,
        int,
        "seconds",
        "A worker that leaves a migration lying so long although it has a free slot is started again.",
    ),
    Setting(
        "VOLMIG_IO_PRIORITY",
        "low",
        str,
        "",
        "I/O priority of migrations: low lets everything else on the host go first, idle copies only while the disk has nothing else to do, normal is like everything else.",
        choices=("normal", "low", "idle"),
    ),
    Setting(
        "VOLMIG_IO_MAX_BYTES_PER_SECOND",
        0,
        int,
        "bytes per second",
        "Most that this host's worker may read from, and write to, one local disk; 0 means no limit. The kernel keeps it, where the worker may write its own cgroup v2 (systemd: Delegate=io).",
    ),
    Setting("VOLMIG_CHECKPOINT_SECONDS", 5, int, "seconds", "Longest time of copying that a crash can cost."),
    Setting(
        "VOLMIG_MAX_ATTEMPTS",
        5,
        int,
        "attempts",
        "How often a step is tried when the storage fails in a way that may pass.",
    ),
    Setting(
        "VOLMIG_RETRY_SECONDS", 5, int, "seconds", "Wait before the first such retry; it doubles each time."
    ),
    Setting(
        "VOLMIG_STORAGE_ADDRESS",
        "",
        str,
        "",
        "Address of this host on the storage network, on which its worker serves volumes that come from other hosts; empty means that none can.",
    ),
    Setting(
        "VOLMIG_STORAGE_PORTS",
        "",
        str,
        "",
        "First and last port for that, such as 49152-49215, one for each volume that is served at the same time; empty means any free one.",
    ),
    Setting(
        "VOLMIG_EXPORT",
        "nbd",
        str,
        "",
        "How volumes are served to other hosts: nbd (encrypted), or iscsi (CHAP, not encrypted; volumes that are no path go by nbd).",
    ),
    Setting(
        "VOLMIG_SILENCE_SECONDS",
        60,
        int,
        "seconds",
        "How long the worker of another host may take to answer before it counts as away.",
    ),
    Setting("VOLMIG_RETENTION_HOURS", 24, int, "hours", "How long the source is kept after a migration."),
    Setting(
        "VOLMIG_STALE_REPORT_SECONDS",
        180,
        int,
        "seconds",
        "A backend whose report is older than this is down.",
    ),
    Setting(
        "VOLMIG_MAX_OVER_SUBSCRIPTION_RATIO",
        20.0,
        float,
        "ratio",
        "Provisioned over total capacity that thin pools may reach, unless the backend says otherwise.",
    ),
    Setting(
        "VOLMIG_SCHEDULER_FILTERS",
        "",
        str,
        "",
        "Dotted paths of filter functions to run beside the built-in ones, comma-separated.",
    ),
)

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def read(name: str) -> Any:
    """Return the value of the declared setting *name* from the environment; `ValueError` names a bad one."""
    setting = next(s for s in SETTINGS if s.name == name)
    text = os.environ.get(name, "").strip()
    if not text:
        return setting.default
    if setting.kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError(f"{name}='{text}': write true or false.")
    if setting.choices and text not in setting.choices:
        raise ValueError(f"{name}='{text}': write one of {', '.join(setting.choices)}.")
    try:
        return setting.kind(text)
    except ValueError:
        raise ValueError(f"{name}='{text}' is not a number ({setting.unit}).") from None


def read_list(name: str) -> list[str]:
    """Return the comma-separated setting *name* as a list."""
    return [part.strip() for part in read(name).split(",") if part.strip()]


def read_ports(name: str) -> range:
    """Return the ports of the setting *name*, none when it is empty; `ValueError` names a bad one."""
    text = read(name)
    if not text:
        return range(0)
    first, _, last = text.partition("-")
    if not (first.strip().isdecimal() and last.strip().isdecimal()):
        raise ValueError(f"{name}='{text}': write the first and the last port, such as 49152-49215.")
    ports = range(int(first), int(last) + 1)
    if not ports or ports[0] < 1 or ports[-1] > 65535:
        raise ValueError(f"{name}='{text}': the first port must not be behind the last; both are 1 to 65535.")
    return ports


def host_name() -> str:
    """Return the name of this storage host."""
    return read("VOLMIG_HOST") or socket.gethostname().split(".")[0]


def state_dir() -> Path:
    """Return the state directory, made if needed, readable by its owner alone."""
    path = Path(read("VOLMIG_STATE_DIR"))
    path = path if path.is_absolute() else BASE_DIR / path
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def key_from_file(name: str, make: Any) -> str:
    """
    Return the key kept in the state directory under *name*, made by `make()` the first time.

    Two processes that start together end with the same key: the file appears whole or not at all.
    """
    path = state_dir() / name
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        draft = path.with_name(f".{name}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(make())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return path.read_text().strip()
