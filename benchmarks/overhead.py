"""
What one migration costs beside the copying: an empty volume of 1 GiB, from the request to `success`.

Starts a worker of its own in a temporary state directory, runs warm migrations one after the other and prints the
median, the extremes and the CPU seconds of the worker's process tree.  Usage: python benchmarks/overhead.py [RUNS]
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# This directory has a `copy.py`, which must not stand in the way of the library's.
sys.path[0] = str(ROOT)

import os  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

GIB = 2**30


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory(prefix="volmig-overhead-") as state:
        os.environ.update(
            VOLMIG_STATE_DIR=state, VOLMIG_HOST="bench", DJANGO_SETTINGS_MODULE="volmig_site.settings"
        )
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        worker = subprocess.Popen([sys.executable, ROOT / "manage.py", "volmig_worker"], cwd=ROOT)
        try:
            time.sleep(4)
            _measure(Path(state), runs, worker.pid)
        finally:
            worker.terminate()
            worker.wait()


def _measure(state: Path, runs: int, worker_pid: int) -> None:
    from backends import services as inventory
    from migrations_app import services
    from migrations_app.models import VolumeMigration

    for name in "ab":
        (state / name).mkdir()
        inventory.register_backend(f"bench@{name}", "directory", {"path": str(state / name)})
    volume = inventory.create_volume("empty", GIB, inventory.find_pool("bench@a"))
    options = services.Options(force_host_copy=True, delete_source=True)
    walls, cpu_before = [], _cpu_seconds(worker_pid)
    for number in range(runs + 1):
        started = time.monotonic()
        target = "bench@b" if number % 2 == 0 else "bench@a"
        migration = services.request_migration(volume, target, services.Actor("benchmark"), options)
        while VolumeMigration.objects.get(pk=migration.pk).state != "done":
            time.sleep(0.01)
        # The first one is cold: the queue's worker imports everything.
        walls += [time.monotonic() - started] if number else []
    cpu = (_cpu_seconds(worker_pid) - cpu_before) / (runs + 1)
    print(
        f"{runs} migrations of an empty GiB, verified, source deleted: "
        f"median {statistics.median(walls):.2f} s, fastest {min(walls):.2f} s, slowest {max(walls):.2f} s; "
        f"worker CPU {cpu:.2f} s each.  Load {os.getloadavg()[0]:.1f}.\n"
        "Cinder 29 (NFS driver, same kind of machine): median 2.02 s, 1.1 CPU seconds, not verified."
    )


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of *pid* and its descendants, dead children included."""
    from migrations_app.process_tree import descendants_of

    ticks = 0
    for one in [pid, *descendants_of(pid)]:
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
