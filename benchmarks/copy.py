"""
Copy volumes with volmig's engine and with the usual tools, side by side: `python benchmarks/copy.py --help`.

Every tool makes its copy durable (a checked flush or fsync is part of the time), every result is compared with the
source byte for byte, the rounds are interleaved, and no tool finds its source in the page cache.  Times are medians.
"""

# ruff: noqa: E402 - the path must be right before anything else is imported.
from __future__ import annotations

import os
import sys

# The project in place of this folder, whose `copy.py` would be taken for the standard library's.
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import json
import platform
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from backends.drivers import nbd_server
from benchmarks import data_sets
from benchmarks.compare import first_difference

MIB = 1 << 20
GIB = 1 << 30

DATA = tuple(data_sets.MAKERS)
PLACES = ("here", "ext4", "xfs", "btrfs", "nbd")
TOOLS = ("volmig", "dd", "dd-sparse", "qemu-img", "nbdcopy", "cp", "volmig+verify", "dd+cmp")
#: What the copying of a whole volume is compared with; the others are compared with `dd+cmp`.
PEERS = ("dd", "dd-sparse", "qemu-img", "nbdcopy", "cp")
NBD_TOOLS = ("volmig", "qemu-img", "nbdcopy", "volmig+verify")


@dataclass
class Run:
    """One copy: seconds to the end of the flush, CPU of the client, its largest resident memory."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    cached_bytes: int
    allocated_bytes: int


@dataclass
class Case:
    place: str
    data: str
    size_bytes: int
    data_bytes: int
    runs: dict[str, list[Run]] = field(default_factory=dict)
    disk_seconds: list[float] = field(default_factory=list)


def main() -> None:
    arguments = _arguments()
    report: list[Case] = []
    print(f"# {platform.release()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}", flush=True)
    for place in arguments.place:
        for data in arguments.data:
            with _place(place, arguments) as folder:
                case = _measure(place, data, folder, arguments)
            report.append(case)
            print(_table(case), flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(_as_json(report), indent=1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--size", type=_size, default=4 * GIB, help="of each volume, such as 4G (default)")
    parser.add_argument("--quick", action="store_true", help="512 MiB and two rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=_list_of(DATA), default=DATA, help=",".join(DATA))
    parser.add_argument("--place", type=_list_of(PLACES), default=PLACES, help=",".join(PLACES))
    parser.add_argument("--tools", type=_list_of(TOOLS), default=TOOLS, help=",".join(TOOLS))
    parser.add_argument("--directory", default=".", help="a place on the disk to measure (default: here)")
    parser.add_argument("--nbd-server", choices=("qemu-nbd", "nbdkit"), default="qemu-nbd")
    parser.add_argument("--json", help="write every run into this file")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.size, arguments.rounds = 512 * MIB, 2
    return arguments


def _size(text: str) -> int:
    units = {"K": 1024, "M": MIB, "G": GIB}
    return int(text[:-1]) * units[text[-1].upper()] if text[-1].upper() in units else int(text)


def _list_of(allowed: tuple[str, ...]):
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := set(names) - set(allowed):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(allowed)}")
        return names

    return parse


# -- places ---------------------------------------------------------------------------------------------------


@contextmanager
def _place(place: str, arguments: argparse.Namespace) -> Iterator[Path]:
    """Yield an empty directory: below --directory, or on a loop-mounted file system whose image lies there."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="volmig-benchmark-", dir=arguments.directory))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if place in ("here", "nbd"):
            yield folder
            return
        image, mount_point = folder / "image", folder / "mount"
        mount_point.mkdir()
        with image.open("wb") as file:
            file.truncate(2 * arguments.size + 2 * GIB)
        _call(f"mkfs.{place}", "-q", *(["-F"] if place == "ext4" else []), str(image))
        device = _call("losetup", "--find", "--show", "--direct-io=on", str(image)).strip()
        stack.callback(_call, "losetup", "--detach", device)
        _call("mount", device, str(mount_point))
        stack.callback(_call, "umount", str(mount_point))
        yield mount_point


def _call(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# -- measuring ------------------------------------------------------------------------------------------------


def _measure(place: str, data: str, folder: Path, arguments: argparse.Namespace) -> Case:
    source, destination = folder / "source.raw", folder / "destination.raw"
    data_sets.MAKERS[data](source, arguments.size, random.Random(arguments.seed))
    os.sync()
    size = source.stat().st_size
    case = Case(place, data, size, source.stat().st_blocks * 512)
    order = random.Random(arguments.seed)
    tools = [tool for tool in arguments.tools if _is_there(tool, place)]
    for _ in range(arguments.rounds):
        order.shuffle(tools)
        for tool in tools:
            _fresh(destination, size)
            if place == "nbd":
                run = _run_nbd(tool, source, destination, arguments.nbd_server)
            else:
                run = _run(_command(tool, str(source), str(destination), size), source, destination)
            case.runs.setdefault(tool, []).append(run)
            if (at := first_difference(source, destination)) is not None:
                raise SystemExit(f"{tool} made a copy that differs at byte {at}")
            print(
                f"  {place} {data} {tool}: {run.seconds:.2f} s, CPU {run.cpu_seconds:.2f} s", file=sys.stderr
            )
        if data == "full" and place != "nbd" and shutil.which("fio"):
            case.disk_seconds.append(_disk_limit(source, destination, size))
    return case


def _is_there(tool: str, place: str) -> bool:
    if place == "nbd" and tool not in NBD_TOOLS:
        return False
    program = {"dd-sparse": "dd", "dd+cmp": "dd"}.get(tool, tool)
    return tool.startswith("volmig") or shutil.which(program) is not None


def _fresh(path: Path, size: int) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def _command(tool: str, source: str, destination: str, size: int) -> list[str]:
    # The flags of dd are those of Cinder's `volume_utils.copy_volume`, with a flush added.
    dd = ["dd", f"if={source}", f"of={destination}", f"count={size}", "bs=1M", "status=none"]
    dd += ["iflag=count_bytes,direct", "oflag=direct"]
    ours = [sys.executable, str(Path(__file__).with_name("one_copy.py")), source, destination]
    return {
        "volmig": ours,
        "volmig+verify": [*ours, "--verify"],
        "dd": [*dd, "conv=notrunc,fdatasync"],
        "dd-sparse": [*dd, "conv=notrunc,sparse,fdatasync"],
        "qemu-img": [
            *("qemu-img", "convert", "-n", "-W", "-m", "16", "-t", "none", "-T", "none"),
            *("-f", "raw", "-O", "raw", source, destination),
        ],
        "nbdcopy": ["nbdcopy", "--flush", "--destination-is-zero", source, destination],
        "cp": ["cp", "--sparse=always", "--reflink=never", source, destination],
        "dd+cmp": ["sh", "-c", '"$@" && cmp "$SOURCE" "$DESTINATION"', "sh", *dd, "conv=notrunc,fdatasync"],
    }[tool]


def _run(command: list[str], source: Path, destination: Path) -> Run:
    _forget(source)
    _forget(destination)
    environment = {**os.environ, "SOURCE": str(source), "DESTINATION": str(destination)}
    with tempfile.TemporaryFile() as said:
        started = time.monotonic()
        actions = [(os.POSIX_SPAWN_DUP2, said.fileno(), 1)]
        pid = os.posix_spawnp(command[0], command, environment, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)} failed with status {os.waitstatus_to_exitcode(status)}")
        fd = os.open(destination, os.O_RDWR)
        os.fsync(fd)
        seconds, cpu = time.monotonic() - started, usage.ru_utime + usage.ru_stime
        os.close(fd)
        said.seek(0)
        if text := said.read():
            # volmig's engine: without the time that Python and Django take to start.
            seconds, cpu = json.loads(text)["seconds"], json.loads(text)["cpu_seconds"]
    cached = _cached(source) + _cached(destination)
    return Run(seconds, cpu, usage.ru_maxrss * 1024, cached, destination.stat().st_blocks * 512)


def _run_nbd(tool: str, source: Path, destination: Path, server: str) -> Run:
    def serve(path: Path, is_read_only: bool):
        if server == "qemu-nbd":
            return nbd_server.qemu_nbd(str(path), is_read_only=is_read_only)
        return nbd_server.nbdkit("file", str(path), is_read_only=is_read_only)

    with serve(source, True) as a, serve(destination, False) as b:
        return _run(_command(tool, a.uri, b.uri, 0), source, destination)


def _forget(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def _cached(path: Path) -> int:
    try:
        return int(_call("fincore", "--bytes", "--noheadings", "--output", "RES", str(path)).strip() or 0)
    except (OSError, subprocess.CalledProcessError):
        return -1


def _disk_limit(source: Path, destination: Path, size: int) -> float:
    """Return the seconds that fio takes to read the source and write as much at the same time."""
    _fresh(destination, size)
    _forget(source)
    common = ["--ioengine=libaio", "--direct=1", "--bs=1M", "--iodepth=8", f"--size={size}", "--thread"]
    started = time.monotonic()
    subprocess.run(
        [
            *("fio", *common, "--name=read", "--rw=read", f"--filename={source}"),
            *("--name=write", "--rw=write", f"--filename={destination}", "--end_fsync=1"),
        ],
        check=True,
        capture_output=True,
    )
    return time.monotonic() - started


# -- telling --------------------------------------------------------------------------------------------------


def _table(case: Case) -> str:
    lines = [
        f"\n{case.data} on {case.place}: {case.size_bytes / GIB:.2f} GiB, {case.data_bytes / GIB:.2f} GiB allocated; "
        f"load {os.getloadavg()[0]:.1f}",
        "| tool | median s | best | CPU s/GiB | peak MiB | cached MiB | allocated GiB | volmig / it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for tool in (name for name in TOOLS if name in case.runs):
        runs = case.runs[tool]
        lines.append(
            f"| {tool} | {_median(runs):.2f} | {min(r.seconds for r in runs):.2f} "
            f"| {statistics.median(r.cpu_seconds for r in runs) / (case.size_bytes / GIB):.2f} "
            f"| {max(r.peak_bytes for r in runs) / MIB:.0f} | {max(r.cached_bytes for r in runs) / MIB:.0f} "
            f"| {statistics.median(r.allocated_bytes for r in runs) / GIB:.2f} | {_ratio(case, tool)} |"
        )
    if case.disk_seconds:
        lines.append(f"| fio, reader and writer | {statistics.median(case.disk_seconds):.2f} | | | | | | |")
    return "\n".join(lines)


def _ratio(case: Case, tool: str) -> str:
    ours = {**dict.fromkeys(PEERS, "volmig"), "dd+cmp": "volmig+verify"}.get(tool)
    if ours not in case.runs:
        return ""
    return f"{_median(case.runs[ours]) / _median(case.runs[tool]):.2f}"


def _median(runs: list[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


def _as_json(report: list[Case]) -> dict[str, object]:
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "cases": [asdict(case) for case in report],
    }


if __name__ == "__main__":
    main()
