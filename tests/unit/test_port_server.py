"""A port that is served is the same port: its bytes, its holes, its errors, its fence."""

from __future__ import annotations

import pytest

from backends.drivers.errors import ConnectionLost, CorruptData, DriverError, NoSpace, NotPermitted
from backends.drivers.local_file_port import LocalFilePort
from backends.drivers.nbd_port import NbdPort
from backends.drivers.port_server import PortServer
from backends.drivers.ports import ExtentKind
from backends.drivers.types import MIB, OpenMode

SIZE = 5 * MIB + 4097


@pytest.fixture
def volume(tmp_path):
    path = tmp_path / "volume.raw"
    with path.open("wb") as file:
        file.truncate(SIZE)
        file.seek(MIB)
        file.write(b"data" * 1024)
    return path


@pytest.fixture
def serve(volume, tmp_path):
    """Return a function that serves the volume and returns the server and a client of it."""
    open_now = []

    def start(mode=OpenMode.WRITE, port=None, client_mode=None, **more):
        port = port or LocalFilePort(str(volume), mode)
        socket = str(tmp_path / f"socket{len(open_now)}")
        server = PortServer(port, socket, mode, **more)
        client = NbdPort(f"nbd+unix:///?socket={socket}", client_mode or mode)
        open_now.append((client, server, port))
        return server, client

    yield start
    for client, server, port in open_now:
        client.close()
        server.close()
        port.close()


def read(client, offset, length):
    buffer = memoryview(bytearray(length))
    client.read_into(offset, buffer)
    return bytes(buffer)


def test_size_is_exact_and_holes_are_told(serve):
    _, client = serve(OpenMode.SOURCE)
    assert client.size_bytes == SIZE
    kinds = [(e.kind, e.offset) for e in client.extents(0, SIZE)]
    assert kinds == [(ExtentKind.HOLE, 0), (ExtentKind.DATA, MIB), (ExtentKind.HOLE, MIB + 4096)]


def test_bytes_go_both_ways_at_any_offset(serve, volume):
    _, client = serve()
    client.write(SIZE - 3, memoryview(b"end"))
    client.write(1, memoryview(b"x" * 70_001))
    client.zero(MIB + 1, 2)
    client.flush()
    content = volume.read_bytes()
    assert content[-3:] == b"end"
    assert content[:70_003] == b"\0" + b"x" * 70_001 + b"\0"
    assert content[MIB : MIB + 4] == b"d\0\0a"
    assert read(client, SIZE - 4, 4) == b"\0end"


def test_more_than_one_request_can_carry_is_read_whole(serve):
    _, client = serve(OpenMode.SOURCE)
    assert read(client, 0, SIZE).count(b"data") == 1024


def test_only_a_volume_that_is_to_be_written_can_be_written(serve):
    with pytest.raises(NotPermitted, match="read-only"):
        serve(OpenMode.VERIFY, client_mode=OpenMode.WRITE)


def test_nothing_passes_the_fence(serve, volume):
    is_over = []

    def fence():
        if is_over:
            raise RuntimeError("the lease is over")

    _, client = serve(fence=fence)
    client.write(0, memoryview(b"before"))
    is_over.append(True)
    for change in (lambda: client.write(0, memoryview(b"behind")), lambda: client.zero(0, 4096)):
        with pytest.raises(ConnectionLost):
            change()
    assert volume.read_bytes()[:6] == b"before"


class BrokenPort(LocalFilePort):
    """Fails as it is told."""

    error: DriverError

    def write(self, offset, buffer):
        raise self.error


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (NoSpace("full"), NoSpace),
        (NotPermitted("read-only"), NotPermitted),
        (ConnectionLost("gone"), ConnectionLost),
        (CorruptData("broken"), CorruptData),
    ],
)
def test_error_of_the_port_is_kept_and_its_kind_is_told(error, seen, serve, volume):
    kept = []
    port = BrokenPort(str(volume), OpenMode.WRITE)
    port.error = error
    _, client = serve(port=port, on_error=kept.append)
    with pytest.raises(seen):
        client.write(0, memoryview(b"x"))
    assert kept == [error]


def test_room_is_kept_when_the_client_wants_it(serve):
    server, client = serve()
    client.keeps_allocation = True
    client.zero(MIB, MIB)
    assert server.port.keeps_allocation
    client.keeps_allocation = False
    client.zero(MIB, MIB)
    assert not server.port.keeps_allocation


def test_closed_server_answers_nobody(serve):
    server, client = serve()
    server.close()
    with pytest.raises(ConnectionLost):
        client.write(0, memoryview(b"x"))
