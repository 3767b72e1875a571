"""The port over a local file."""

import errno
import mmap
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends.drivers import local_file_port
from backends.drivers.errors import (
    ConnectionLost,
    CorruptData,
    InUse,
    NoSpace,
    NotFound,
    NotPermitted,
    Unsupported,
)
from backends.drivers.local_file_port import LocalFilePort
from backends.drivers.ports import ExtentKind
from backends.drivers.types import MIB, OpenMode
from tests.loopfs import loop_device

SIZE = 5 * 4096 + 123


@pytest.fixture
def make_file(tmp_path):
    def make(size=SIZE, content=b""):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.raw"
        path.write_bytes(content)
        os.truncate(path, size)
        return str(path)

    return make


@pytest.fixture
def page_buffer():
    def make(content):
        buffer = memoryview(mmap.mmap(-1, len(content)))
        buffer[:] = content
        return buffer

    return make


def read(port, offset=0, length=None):
    buffer = bytearray(port.size_bytes - offset if length is None else length)
    port.read_into(offset, memoryview(buffer))
    return bytes(buffer)


changes = st.lists(
    st.tuples(
        st.sampled_from(["write", "direct", "zero", "flush", "reopen"]),
        st.integers(0, SIZE - 1),
        st.integers(1, SIZE),
        st.integers(1, 255),
    ),
    max_size=12,
)


@pytest.mark.parametrize("can_punch", [True, False])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=changes)
def test_port_is_a_row_of_bytes(can_punch, page_buffer, changes):
    """Any writes and zeros leave what the same changes leave in a bytearray, and the extents are true."""
    expected = bytearray(SIZE)
    with tempfile.NamedTemporaryFile() as file:
        os.truncate(file.name, SIZE)
        port = LocalFilePort(file.name, OpenMode.WRITE)
        for kind, offset, length, fill in changes:
            length = min(length, SIZE - offset)
            port._can_punch = port._can_punch and can_punch
            if kind == "reopen":
                port.close()
                port = LocalFilePort(file.name, OpenMode.WRITE)
            elif kind == "flush":
                port.flush()
            elif kind == "zero":
                port.zero(offset, length)
                expected[offset : offset + length] = bytes(length)
            else:
                # A buffer that begins where the offset does in its page can be written directly in part.
                lead = offset % 4096 if kind == "direct" else 1
                buffer = page_buffer(bytes(lead) + bytes([fill]) * length)[lead:]
                port.write(offset, buffer)
                expected[offset : offset + length] = buffer
        port.flush()
        assert read(port) == expected
        check_extents(port, expected)
        with LocalFilePort(file.name, OpenMode.VERIFY) as verified:
            assert read(verified) == expected
        port.close()
        assert os.path.getsize(file.name) == SIZE


def check_extents(port, expected):
    position = 0
    for extent in port.extents(0, SIZE):
        assert extent.offset == position
        assert extent.length > 0
        if extent.kind is ExtentKind.HOLE:
            assert not any(expected[extent.offset : extent.end])
        position = extent.end
    assert position == SIZE


def test_aligned_ranges_bypass_the_page_cache(make_file, page_buffer, monkeypatch):
    with LocalFilePort(make_file(MIB + 5), OpenMode.WRITE) as port:
        if port._direct_fd < 0:
            pytest.skip("os.open(…, O_DIRECT) failed on the file system of the temporary directory")
        used = []
        real = os.pwritev
        monkeypatch.setattr(os, "pwritev", lambda fd, views, at: used.append((fd, at)) or real(fd, views, at))
        port.write(0, page_buffer(bytes(MIB + 5)))
        assert used == [(port._direct_fd, 0), (port._fd, MIB)]
        used.clear()
        port.write(4096, memoryview(bytearray(8193))[1:])
        assert [fd for fd, _ in used] == [port._fd]
        port.zero(0, MIB)
        port.flush()


def test_short_transfers_are_continued(make_file, monkeypatch):
    real_read, real_write = os.preadv, os.pwritev
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: real_read(fd, [views[0][:1000]], at))
    monkeypatch.setattr(os, "pwritev", lambda fd, views, at: real_write(fd, [views[0][:777]], at))
    content = os.urandom(SIZE)
    with LocalFilePort(make_file(), OpenMode.WRITE) as port:
        port.write(0, memoryview(content))
        assert read(port) == content


def test_file_system_that_refuses_direct_io_later_is_served_through_the_cache(
    make_file, page_buffer, monkeypatch
):
    real = os.pwritev
    with LocalFilePort(make_file(MIB), OpenMode.WRITE) as port:

        def refuse_direct(fd, views, at):
            if fd == port._direct_fd:
                raise OSError(errno.EINVAL, "Invalid argument")
            return real(fd, views, at)

        monkeypatch.setattr(os, "pwritev", refuse_direct)
        port.write(0, page_buffer(b"x" * MIB))
        port.flush()
        assert read(port) == b"x" * MIB


def test_end_of_file_inside_the_volume_is_corrupt_data(make_file):
    path = make_file(MIB)
    with LocalFilePort(path, OpenMode.SOURCE) as port:
        os.truncate(path, 5000)
        with pytest.raises(CorruptData, match="ends inside"):
            read(port)
        with pytest.raises(CorruptData, match="ends inside"):
            list(port.extents(0, MIB))


def test_nothing_is_written_behind_the_end(make_file):
    path = make_file()
    with LocalFilePort(path, OpenMode.WRITE) as port:
        for call in (
            lambda: port.write(SIZE - 1, memoryview(b"ab")),
            lambda: port.zero(SIZE, 1),
            lambda: port.read_into(-1, memoryview(bytearray(1))),
            lambda: list(port.extents(0, SIZE + 1)),
        ):
            with pytest.raises(ValueError, match="are not inside"):
                call()
    assert os.path.getsize(path) == SIZE


def test_failed_flush_is_remembered(make_file, monkeypatch):
    with LocalFilePort(make_file(), OpenMode.WRITE) as port:
        port.write(0, memoryview(b"abc"))

        def fail(fd):
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(CorruptData, match="may be lost"):
                port.flush()
        with pytest.raises(CorruptData, match="may be lost"):
            port.flush()


def test_every_descriptor_that_was_written_is_flushed(make_file, page_buffer, monkeypatch):
    with LocalFilePort(make_file(MIB + 5), OpenMode.WRITE) as port:
        flushed = []
        monkeypatch.setattr(os, "fdatasync", flushed.append)
        port.flush()
        assert flushed == []
        port.write(0, page_buffer(bytes(MIB + 5)))
        port.flush()
        assert set(flushed) == {port._fd, port._direct_fd} - {-1}


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EIO, CorruptData),
        (errno.EROFS, NotPermitted),
        (errno.ESTALE, ConnectionLost),
    ],
)
def test_errors_of_the_kernel_are_translated(make_file, monkeypatch, number, error):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    path = make_file()
    with LocalFilePort(path, OpenMode.WRITE, backend="h@b", volume="v") as port:
        monkeypatch.setattr(os, "pwritev", fail)
        with pytest.raises(error, match=f"Writing 3 bytes at offset 7 of {path} failed") as caught:
            port.write(7, memoryview(b"abc"))
        assert (caught.value.backend, caught.value.operation, caught.value.volume) == ("h@b", "write", "v")
        assert isinstance(caught.value.__cause__, OSError)


def test_zero_gives_room_back(make_file):
    path = make_file(MIB, os.urandom(MIB))
    with LocalFilePort(path, OpenMode.WRITE) as port:
        port.zero(0, MIB)
        port.flush()
    assert os.stat(path).st_blocks == 0
    assert os.path.getsize(path) == MIB


def test_without_seek_hole_all_is_data(make_file, monkeypatch):
    def fail(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    with LocalFilePort(make_file(), OpenMode.SOURCE) as port:
        monkeypatch.setattr(os, "lseek", fail)
        (extent,) = port.extents(10, 5000)
        assert (extent.offset, extent.length, extent.kind) == (10, 5000, ExtentKind.DATA)


def test_source_needs_no_descriptor_for_writing_unless_the_lock_does(make_file, monkeypatch):
    """NFS: an exclusive flock is given only to a descriptor that is open for writing."""
    real = local_file_port.lock_file
    locked = []

    def lock_like_nfs(fd, *, for_writing):
        if os.readlink(f"/proc/self/fd/{fd}") and not _is_open_for_writing(fd):
            raise OSError(errno.EBADF, "Bad file descriptor")
        locked.append(fd)
        real(fd, for_writing=for_writing)

    path = make_file()
    monkeypatch.setattr(local_file_port, "lock_file", lock_like_nfs)
    with LocalFilePort(path, OpenMode.SOURCE) as port:
        assert locked == [port._lock_fd]
        with pytest.raises(InUse, match="this process itself holds a lock"):
            LocalFilePort(path, OpenMode.WRITE)
    LocalFilePort(path, OpenMode.WRITE).close()


def _is_open_for_writing(fd):
    with open(f"/proc/self/fdinfo/{fd}") as info:
        flags = next(line for line in info if line.startswith("flags:"))
    return int(flags.split()[1], 8) & os.O_ACCMODE == os.O_RDWR


def test_what_is_no_file_is_refused(tmp_path, make_file):
    with pytest.raises(NotFound):
        LocalFilePort(str(tmp_path / "none"), OpenMode.SOURCE)
    with pytest.raises(Unsupported, match="neither a regular file nor a block device"):
        LocalFilePort(str(tmp_path), OpenMode.SOURCE)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Unsupported):
        LocalFilePort(str(tmp_path / "fifo"), OpenMode.SOURCE)
    os.symlink(make_file(), tmp_path / "link")
    with pytest.raises(Exception, match="ELOOP"):
        LocalFilePort(str(tmp_path / "link"), OpenMode.SOURCE)


def test_refused_port_leaves_no_descriptor_open(make_file):
    path = make_file()
    before = len(os.listdir("/proc/self/fd"))
    with LocalFilePort(path, OpenMode.WRITE):
        for _ in range(3):
            with pytest.raises(InUse):
                LocalFilePort(path, OpenMode.SOURCE)
    assert len(os.listdir("/proc/self/fd")) == before


def test_block_device_is_a_volume_too(make_file, page_buffer):
    """Edges that a device cannot punch are written; it has no holes to report."""
    with loop_device(Path(make_file(4 * MIB))) as device:
        expected = bytearray(os.urandom(4 * MIB))
        with LocalFilePort(device, OpenMode.WRITE) as port:
            assert port.size_bytes == 4 * MIB
            port.write(0, page_buffer(expected))
            for offset, length in ((1000, 100), (4097, MIB), (2 * MIB, MIB), (4 * MIB - 1, 1)):
                port.zero(offset, length)
                expected[offset : offset + length] = bytes(length)
            port.write(5000, memoryview(b"abc"))
            expected[5000:5003] = b"abc"
            port.flush()
            assert [extent.kind for extent in port.extents(0, 4 * MIB)] == [ExtentKind.DATA]
            with pytest.raises(InUse):
                LocalFilePort(device, OpenMode.SOURCE)
        with LocalFilePort(device, OpenMode.VERIFY) as port:
            assert read(port) == expected


def test_verify_reads_what_the_device_holds(make_file, page_buffer):
    """Changed below the page cache, the device's bytes are read and not the remembered ones."""
    image = make_file(MIB)
    with loop_device(Path(image)) as device, open(device, "rb") as cached:
        assert not any(cached.read(MIB))
        with open(image, "r+b") as below:
            below.write(b"x" * MIB)
            below.flush()
            os.fsync(below.fileno())
        for buffer in (page_buffer(bytes(MIB)), memoryview(bytearray(MIB + 1))[1:]):
            with LocalFilePort(device, OpenMode.VERIFY) as port:
                port.read_into(0, buffer)
            assert bytes(buffer) == b"x" * MIB
