"""The port over NBD, against real servers."""

from __future__ import annotations

import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backends.drivers import nbd_port, nbd_server
from backends.drivers.errors import (
    ConnectionLost,
    CorruptData,
    DriverError,
    NoSpace,
    NotPermitted,
    NotReady,
)
from backends.drivers.local_file_port import LocalFilePort
from backends.drivers.nbd_port import NbdPort
from backends.drivers.ports import ExtentKind, Port
from backends.drivers.types import KIB, MIB, OpenMode
from migrations_app.copying import engine
from tests.nbd import require_nbd, served

# QEMU without the page cache wants a whole number of the disk's blocks.
SIZE = 70 * MIB + 4096

pytestmark = pytest.mark.usefixtures("_nbd")


@pytest.fixture(scope="module")
def _nbd() -> None:
    require_nbd()


@pytest.fixture
def source_file(tmp_path: Path) -> Path:
    """Return a sparse volume: scattered data, written zeros, holes, an end that is no whole MiB."""
    path = tmp_path / "source.raw"
    chance = random.Random(4)
    with path.open("wb") as file:
        file.truncate(SIZE)
        for offset, length in (
            (0, 4096),
            (3 * MIB, 2 * MIB),
            (20 * MIB + 4096, 300 * KIB),
            (SIZE - 4096, 4096),
        ):
            file.seek(offset)
            file.write(chance.randbytes(length))
        file.seek(40 * MIB)
        file.write(bytes(3 * MIB))
    return path


@pytest.fixture
def make_destination(tmp_path: Path) -> Callable[..., Path]:
    def make(*, is_dirty: bool) -> Path:
        path = tmp_path / "destination.raw"
        with path.open("wb") as file:
            if is_dirty:
                file.write(b"\xa5" * SIZE)
            file.truncate(SIZE)
        return path

    return make


def copy(source: Port, destination: Port, **guards: object) -> list[str]:
    digests: list[str] = []
    engine.copy(
        source,
        destination,
        first_segment=0,
        destination_reads_zero=destination.reads_zero_when_new,
        guards=engine.Guards(checkpoint_seconds=0.0, **guards),
        checkpoint=lambda segments: digests.extend(s.digest for s in segments),
    )
    return digests


def is_same(a: Path, b: Path) -> bool:
    return subprocess.run(["cmp", str(a), str(b)], check=False).returncode == 0


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("tool", ["qemu-nbd", "nbdkit"])
@pytest.mark.parametrize("is_dirty", [False, True])
def test_copy_is_identical_and_sparse(tool, is_dirty, source_file, make_destination):
    destination = make_destination(is_dirty=is_dirty)
    with served(tool, source_file, is_read_only=True) as a, served(tool, destination) as b:
        with (
            NbdPort(a, OpenMode.SOURCE) as source,
            NbdPort(b, OpenMode.WRITE, reads_zero_when_new=not is_dirty) as target,
        ):
            written = copy(source, target)
        found: list[str] = []
        with NbdPort(b, OpenMode.VERIFY) as target:
            engine.read_back(
                target,
                first_segment=0,
                guards=engine.Guards(),
                checkpoint=lambda segments: found.extend(s.digest for s in segments),
            )
    assert written == found
    assert is_same(source_file, destination)
    assert allocated(destination) <= allocated(source_file) + MIB


@pytest.mark.parametrize("tool", ["qemu-nbd", "nbdkit"])
def test_holes_are_told(tool, source_file):
    with served(tool, source_file, is_read_only=True) as uri, NbdPort(uri, OpenMode.SOURCE) as port:
        extents = list(port.extents(0, SIZE))
        assert [e.offset for e in extents[1:]] == [e.end for e in extents[:-1]]
        assert sum(e.length for e in extents) == SIZE
        data = sum(e.length for e in extents if e.kind is ExtentKind.DATA)
        assert 5 * MIB < data < 7 * MIB
        part = list(port.extents(3 * MIB + 17, 5 * MIB))
        assert (part[0].offset, part[-1].end) == (3 * MIB + 17, 8 * MIB + 17)
        assert [e.kind for e in part] == [ExtentKind.DATA, ExtentKind.HOLE]


def test_a_server_that_cannot_tell_has_only_data(source_file):
    with (
        served("nbdkit", source_file, "--filter=noextents", is_read_only=True) as uri,
        NbdPort(uri, OpenMode.SOURCE) as port,
    ):
        assert [e.kind for e in port.extents(0, SIZE)] == [ExtentKind.DATA]


@pytest.mark.parametrize("name", ["--filter=nozero", "--filter=multi-conn"])
def test_servers_without_zeroing_or_several_connections(name, source_file, make_destination):
    destination = make_destination(is_dirty=True)
    filters = [name, "multi-conn-mode=disable"] if "conn" in name else [name]
    with (
        served("nbdkit", destination, *filters) as uri,
        NbdPort(uri, OpenMode.WRITE) as target,
        LocalFilePort(str(source_file), OpenMode.SOURCE) as source,
    ):
        copy(source, target)
    assert is_same(source_file, destination)


def test_bytes_that_are_no_whole_blocks_of_the_server(make_destination):
    destination = make_destination(is_dirty=True)
    policy = ("--filter=blocksize-policy", "blocksize-minimum=512", "blocksize-error-policy=error")
    with served("nbdkit", destination, *policy) as uri, NbdPort(uri, OpenMode.WRITE) as port:
        port.write(1000, memoryview(b"x" * 700))
        port.zero(5000, 2000)
        port.flush()
        buffer = memoryview(bytearray(8000))
        port.read_into(1, buffer)
    expected = bytearray(b"\xa5" * 8001)
    expected[1000:1700] = b"x" * 700
    expected[5000:7000] = bytes(2000)
    assert bytes(buffer) == bytes(expected[1:])


@pytest.mark.parametrize("keeps", [True, False])
def test_zeroing_keeps_the_room_when_asked(keeps, make_destination):
    destination = make_destination(is_dirty=True)
    with served("nbdkit", destination) as uri, NbdPort(uri, OpenMode.WRITE) as port:
        port.keeps_allocation = keeps
        port.zero(MIB, 60 * MIB)
        port.flush()
    assert (allocated(destination) > 60 * MIB) is keeps
    assert destination.read_bytes()[MIB : 61 * MIB] == bytes(60 * MIB)


@pytest.mark.parametrize(
    ("operation", "error", "expected"),
    [("pread", "EIO", CorruptData), ("pwrite", "EIO", CorruptData), ("pwrite", "ENOSPC", NoSpace)],
)
def test_what_the_server_reports_is_raised(operation, error, expected, make_destination):
    destination = make_destination(is_dirty=True)
    faults = ("--filter=error", f"error-{operation}={error}", f"error-{operation}-rate=100%")
    with served("nbdkit", destination, *faults) as uri, NbdPort(uri, OpenMode.WRITE) as port:
        buffer = memoryview(bytearray(MIB))
        with pytest.raises(expected) as caught:
            port.read_into(0, buffer) if operation == "pread" else port.write(0, buffer)
    assert caught.value.operation == ("read" if operation == "pread" else "write")
    assert "1048576 bytes at offset 0" in str(caught.value)


def test_a_failing_flush_fails_for_good(tmp_path):
    script = tmp_path / "plugin.sh"
    script.write_text(
        "#!/bin/sh\n"
        'case "$1" in get_size) echo 1M ;; can_write|can_flush) exit 0 ;; pwrite) cat >/dev/null ;;\n'
        'flush) [ -e "$0.failed" ] || { touch "$0.failed"; echo EIO lost >&2; exit 1; } ;;\n'
        "pread) head -c $3 /dev/zero ;; *) exit 2 ;; esac\n"
    )
    script.chmod(0o755)
    with nbd_server.nbdkit("sh", str(script)) as server, NbdPort(server.uri, OpenMode.WRITE) as port:
        port.write(0, memoryview(b"x" * 512))
        with pytest.raises(CorruptData, match="Flushing"):
            port.flush()
        # The server would say that all is well now.
        with pytest.raises(CorruptData):
            port.flush()


def test_a_server_that_hangs_is_noticed(make_destination, monkeypatch):
    monkeypatch.setattr(nbd_server, "_STOP_SECONDS", 0.5)
    monkeypatch.setattr(nbd_port, "_SILENT_FACTOR", 2)
    destination = make_destination(is_dirty=True)
    with nbd_server.nbdkit("file", str(destination)) as server:
        port = NbdPort(server.uri, OpenMode.WRITE, stall_seconds=1.0)
        port.write(0, memoryview(bytearray(MIB)))
        os.kill(server.process.pid, signal.SIGSTOP)
        started = time.monotonic()
        for call in (
            lambda: port.write(0, memoryview(bytearray(8 * MIB))),
            lambda: port.read_into(0, memoryview(bytearray(MIB))),
            port.flush,
            lambda: list(port.extents(0, SIZE)),
        ):
            with pytest.raises(ConnectionLost):
                call()
        port.close()
        assert time.monotonic() - started < 6


def test_a_hanging_call_can_be_broken_off_at_once(make_destination, monkeypatch):
    monkeypatch.setattr(nbd_server, "_STOP_SECONDS", 0.5)
    destination = make_destination(is_dirty=True)
    with (
        nbd_server.nbdkit("file", str(destination)) as server,
        NbdPort(server.uri, OpenMode.WRITE) as port,
    ):
        os.kill(server.process.pid, signal.SIGSTOP)
        threading.Timer(0.5, port.interrupt).start()
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match="broken off"):
            port.flush()
        assert time.monotonic() - started < 3


ONE_CONNECTION = ("--filter=multi-conn", "multi-conn-mode=disable")


def in_threads(count: int, call: Callable[[int], object]) -> list[object]:
    """Call from so many threads at once; return what came, errors among it."""
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(call, number) for number in range(count)]
    return [future.exception() or future.result() for future in futures]


def test_several_commands_are_under_way_on_one_connection(source_file):
    slow = ("--filter=delay", "rdelay=300ms")
    with (
        served("nbdkit", source_file, *ONE_CONNECTION, *slow, is_read_only=True) as uri,
        NbdPort(uri, OpenMode.SOURCE) as port,
    ):
        buffers = [bytearray(MIB) for _ in range(6)]
        started = time.monotonic()
        in_threads(6, lambda n: port.read_into(n * MIB, memoryview(buffers[n])))
        assert time.monotonic() - started < 1.5
    with source_file.open("rb") as file:
        assert b"".join(buffers) == file.read(6 * MIB)


@pytest.mark.parametrize("is_one", [True, False])
def test_many_threads_do_not_mix_up_their_bytes(is_one, make_destination):
    destination = make_destination(is_dirty=True)
    with (
        served("nbdkit", destination, *(ONE_CONNECTION if is_one else ())) as uri,
        NbdPort(uri, OpenMode.WRITE) as port,
    ):
        chance = [random.Random(number) for number in range(8)]

        def work(number: int) -> bool:
            for _ in range(40):
                length = chance[number].choice([512, 70_000, MIB])
                offset = number * 8 * MIB + chance[number].randrange(0, 7 * MIB)
                content, found = chance[number].randbytes(length), bytearray(length)
                port.write(offset, memoryview(content))
                port.read_into(offset, memoryview(found))
                if bytes(found) != content:
                    return False
            return True

        assert in_threads(8, work) == [True] * 8
        port.flush()


@pytest.mark.parametrize("allowed", [1, 2, 4])
def test_a_server_that_lets_few_in_is_used_with_those(allowed, source_file, make_destination):
    destination = make_destination(is_dirty=False)
    started = time.monotonic()
    with (
        nbd_server.qemu_nbd(str(destination), connections=allowed) as server,
        LocalFilePort(str(source_file), OpenMode.SOURCE) as source,
    ):
        with NbdPort(server.uri, OpenMode.WRITE, reads_zero_when_new=True) as port:
            assert time.monotonic() - started < 6
            assert len(port._connections) == allowed
            copy(source, port)
        # All of them were given back.
        NbdPort(server.uri, OpenMode.VERIFY).close()
    assert is_same(source_file, destination)


@pytest.mark.parametrize("is_one", [True, False])
def test_every_call_under_way_is_broken_off_at_once(is_one, make_destination, monkeypatch):
    monkeypatch.setattr(nbd_server, "_STOP_SECONDS", 0.5)
    destination = make_destination(is_dirty=True)
    filters = ONE_CONNECTION if is_one else ()
    with (
        nbd_server.nbdkit("file", str(destination), *filters) as server,
        NbdPort(server.uri, OpenMode.WRITE) as port,
    ):
        os.kill(server.process.pid, signal.SIGSTOP)
        threading.Timer(0.5, port.interrupt).start()
        started = time.monotonic()
        # More than can be under way: some wait for their turn.
        ended = in_threads(10, lambda n: port.write(n * MIB, memoryview(bytearray(MIB))))
        assert time.monotonic() - started < 2
        assert {type(error) for error in ended} == {ConnectionLost}


def test_a_server_that_dies_is_a_lost_connection(make_destination):
    destination = make_destination(is_dirty=True)
    with nbd_server.nbdkit("file", str(destination)) as server:
        with NbdPort(server.uri, OpenMode.WRITE) as port:
            server.process.kill()
            server.process.wait()
            for _ in range(2):
                with pytest.raises(ConnectionLost):
                    port.write(0, memoryview(bytearray(MIB)))
            with pytest.raises(ConnectionLost):
                port.flush()
        with pytest.raises(ConnectionLost):
            NbdPort(server.uri, OpenMode.SOURCE)


def test_a_slow_server_is_not_a_stalled_one(make_destination):
    """4 MiB at 2 MB/s take longer than the watchdog allows without a byte."""
    destination = make_destination(is_dirty=True)
    with (
        served("nbdkit", destination, "--filter=rate", "rate=16M", "burstiness=0.05") as uri,
        NbdPort(uri, OpenMode.VERIFY, stall_seconds=1.5) as port,
    ):
        buffer = memoryview(bytearray(256 * KIB))
        for index in range(16):
            port.read_into(index * len(buffer), buffer)
    assert bytes(buffer[:4]) == b"\xa5" * 4


def test_a_port_to_read_refuses_to_write(source_file):
    with served("nbdkit", source_file, is_read_only=True) as uri:
        with NbdPort(uri, OpenMode.SOURCE) as port, pytest.raises(NotPermitted):
            port.write(0, memoryview(b"x" * 512))
        with pytest.raises(NotPermitted):
            NbdPort(uri, OpenMode.WRITE)


def test_buffers_of_the_engine_are_filled_in_place(source_file):
    memory = mmap.mmap(-1, MIB)
    with served("nbdkit", source_file, is_read_only=True) as uri, NbdPort(uri, OpenMode.SOURCE) as port:
        port.read_into(3 * MIB, memoryview(memory)[4096:8192])
    with source_file.open("rb") as file:
        file.seek(3 * MIB)
        assert memory[4096:8192] == file.read(4096)


# -- the servers ------------------------------------------------------------------------------------------------


def test_a_missing_tool_is_named_with_its_package(monkeypatch, source_file):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotReady, match="qemu-utils"), nbd_server.qemu_nbd(str(source_file)):
        pass


def test_a_missing_module_is_named_with_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "nbd", None)
    with pytest.raises(NotReady, match="python3-libnbd"):
        NbdPort("nbd+unix:///?socket=/x", OpenMode.SOURCE)


@pytest.mark.parametrize("tool", ["qemu-nbd", "nbdkit"])
def test_a_server_that_cannot_start_says_why(tool, tmp_path):
    with pytest.raises(NotReady, match="No such file"), served(tool, tmp_path / "missing.raw"):
        pass


@pytest.mark.parametrize("tool", ["qemu-nbd", "nbdkit"])
def test_a_server_ends_with_its_parent_and_leaves_nothing(tool, source_file, tmp_path):
    call = {
        "qemu-nbd": f"nbd_server.qemu_nbd({str(source_file)!r})",
        "nbdkit": f"nbd_server.nbdkit('file', {str(source_file)!r})",
    }[tool]
    code = (
        "import os, signal\n"
        "from backends.drivers import nbd_server\n"
        f"with {call} as server:\n"
        "    print(server.process.pid, server.uri.split('=')[1], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=30
    )
    pid, socket = done.stdout.split()
    ends_at = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < ends_at, "the server outlives its parent"
        time.sleep(0.05)
    left = Path(socket).parent
    assert left.stat().st_mode & 0o777 == 0o700
    os.utime(left, (0, 0))
    subprocess.run(
        [sys.executable, "-c", f"from backends.drivers import nbd_server\nwith {call}: pass"],
        check=True,
        env=environment,
        timeout=30,
    )
    assert not left.exists()
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith("volmig-nbd-")]


def test_every_error_is_one_of_the_contract(source_file):
    with pytest.raises(DriverError):
        NbdPort("nbd+unix:///?socket=/nowhere/at/all", OpenMode.SOURCE)
    with pytest.raises(DriverError):
        NbdPort("this is no URI", OpenMode.SOURCE)
