"""
The directory driver beyond the contract: the marker, locks of real processes, native moves, kills, full
disks.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends.drivers import directory as directory_module
from backends.drivers.base import DriverContext
from backends.drivers.directory import DirectoryDriver, DirectoryOptions
from backends.drivers.errors import (
    AlreadyExists,
    CorruptData,
    InUse,
    NoSpace,
    NotFound,
    NotPermitted,
    NotReady,
    Unsupported,
)
from backends.drivers.pool_directory import MARKER, NewFile, PoolDirectory
from backends.drivers.types import MIB, Declined, MovePlan, OpenMode
from tests.loopfs import mounted, skip_or_fail

SIZE = MIB + 4096 + 5


def make_driver(path, known=None, pool="main"):
    options = DirectoryOptions(path=str(path), pool=pool)
    return DirectoryDriver(
        DriverContext("h@files", "h", options, known_storage_ids={pool: known} if known else {})
    )


def ready_driver(path):
    path.mkdir(exist_ok=True)
    driver = make_driver(path)
    driver.check()
    return driver


@pytest.fixture
def driver(tmp_path):
    return ready_driver(tmp_path / "pool")


@pytest.fixture(scope="module")
def xfs(tmp_path_factory):
    with mounted("xfs", tmp_path_factory.mktemp("xfs")) as mount_point:
        yield mount_point


@pytest.fixture(scope="module")
def ext4(tmp_path_factory):
    with mounted("ext4", tmp_path_factory.mktemp("ext4")) as mount_point:
        yield mount_point


def write(driver, name, content, offset=0):
    with driver.open("main", name, OpenMode.WRITE) as port:
        port.write(offset, memoryview(content))
        port.flush()


def read(driver, name):
    with driver.open("main", name, OpenMode.VERIFY) as port:
        buffer = bytearray(port.size_bytes)
        port.read_into(0, memoryview(buffer))
        return bytes(buffer)


def files(driver):
    return set(os.listdir(driver.options.path)) - {MARKER}


def path_of(driver, name):
    return os.path.join(driver.options.path, f"{name}.raw")


def location(driver):
    return json.loads(json.dumps(dict(driver.pools()[0].location_info)))


@contextmanager
def other_process(code, *arguments):
    """Run Python code in another process, until it has printed a line, and then beside the block."""
    program = f"import fcntl, os, struct, sys\n{code}\nprint('ready', flush=True)\nsys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.communicate(timeout=10)


OPEN = "fd = os.open(sys.argv[1], os.O_RDWR)"
FLOCK = f"{OPEN}; fcntl.flock(fd, fcntl.LOCK_SH)"
OFD = f"{OPEN}; fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack('@hhqqi0q', fcntl.F_RDLCK, 0, 101, 1, 0))"
POSIX = f"{OPEN}; fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 5)"


# -- the marker ----------------------------------------------------------------------------------------------


def test_marker_is_made_once_and_names_the_pool(driver):
    storage_id = driver.pools()[0].storage_id
    assert uuid.UUID(storage_id)
    assert make_driver(driver.options.path).pools()[0].storage_id == storage_id
    assert make_driver(driver.options.path, known=storage_id).pools()[0].storage_id == storage_id


def test_empty_mount_point_is_not_ready_and_nothing_is_made_there(tmp_path):
    driver = make_driver(tmp_path, known=str(uuid.uuid4()))
    for call in (
        driver.check,
        driver.pools,
        lambda: driver.create("main", "a", SIZE),
        lambda: driver.delete("main", "a"),
        lambda: list(driver.list_volumes("main")),
    ):
        with pytest.raises(NotReady, match=r"marker missing.*is the file system mounted"):
            call()
    assert os.listdir(tmp_path) == []


def test_file_system_that_was_unmounted_since_check_is_noticed(driver):
    known = driver.pools()[0].storage_id
    again = make_driver(driver.options.path, known=known)
    again.check()
    os.rename(driver.options.path, f"{driver.options.path}.away")
    os.mkdir(driver.options.path)
    with pytest.raises(NotReady, match="is the file system mounted"):
        again.create("main", "a", SIZE)
    assert files(driver) == set()


def test_marker_of_another_pool_is_not_ready(driver):
    with pytest.raises(NotReady, match="marker is that of another pool"):
        make_driver(driver.options.path, known=str(uuid.uuid4())).check()


def test_without_a_marker_only_check_and_pools_make_one(tmp_path):
    with pytest.raises(NotReady, match="marker missing"):
        make_driver(tmp_path).create("main", "a", SIZE)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", '{"storage_id": 7}', '["x"]', '{"storage_id": "no uuid"}'])
def test_damaged_marker_is_not_ready_and_stays(driver, text):
    marker = os.path.join(driver.options.path, MARKER)
    with open(marker, "w") as file:
        file.write(text)
    with pytest.raises(NotReady, match="is damaged"):
        make_driver(driver.options.path).check()
    with open(marker) as file:
        assert file.read() == text


@pytest.mark.parametrize("can_make_unnamed", [True, False])
def test_racing_creators_of_a_marker_agree(tmp_path, monkeypatch, can_make_unnamed):
    monkeypatch.setattr(PoolDirectory, "can_make_unnamed", can_make_unnamed)
    barrier, found = threading.Barrier(8), []

    def work():
        driver = make_driver(tmp_path)
        barrier.wait()
        found.append(driver.pools()[0].storage_id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert os.listdir(tmp_path) == [MARKER]


# -- the directory -------------------------------------------------------------------------------------------


def test_missing_directory_is_not_ready(tmp_path):
    with pytest.raises(NotReady, match=r"does not exist\. Create it, or mount"):
        make_driver(tmp_path / "none").check()


def test_file_instead_of_a_directory_is_not_ready(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotReady, match="is not a directory"):
        make_driver(tmp_path / "file").check()


def test_other_pool_is_not_ready(driver):
    with pytest.raises(NotReady, match="There is no pool 'other'; the pool is 'main'"):
        driver.describe("other", "a")


CHECK_AS_NOBODY = """
import os, sys
from backends.drivers.base import DriverContext
from backends.drivers.directory import DirectoryDriver, DirectoryOptions
from backends.drivers.errors import NotPermitted
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    DirectoryDriver(DriverContext("h@b", "h", DirectoryOptions(path=sys.argv[1]))).check()
except NotPermitted as error:
    print(error)
"""


@pytest.mark.parametrize("has_marker", [True, False])
def test_directory_that_cannot_be_written_is_not_permitted(has_marker):
    # Not below pytest's own directory, which only its owner may enter.
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        path = Path(parent) / "pool"
        path.mkdir()
        if has_marker:
            make_driver(path).check()
        path.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", CHECK_AS_NOBODY, str(path)], capture_output=True, text=True, check=False
        )
        assert str(path) in done.stdout, done.stderr
        assert "Check the rights of the volmig user" in done.stdout


def test_read_only_file_system_says_so_and_can_still_be_a_source(ext4):
    driver = ready_driver(ext4 / "read_only")
    driver.create("main", "a", SIZE)
    write(driver, "a", b"abc")
    subprocess.run(["mount", "-o", "remount,ro", str(ext4)], check=True)
    try:
        fresh = make_driver(driver.options.path)
        fresh.check()
        (stats,) = fresh.pools()
        assert stats.is_read_only
        assert not stats.location_info["reflink"]
        with fresh.open("main", "a", OpenMode.SOURCE) as port:
            buffer = bytearray(3)
            port.read_into(0, memoryview(buffer))
            assert buffer == b"abc"
        with pytest.raises(NotPermitted, match="EROFS"):
            fresh.create("main", "b", SIZE)
        with pytest.raises(NotPermitted, match="EROFS"):
            fresh.delete("main", "a")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(ext4)], check=True)


def test_statistics_count_a_file_with_two_names_once(driver):
    driver.create("main", "a", SIZE)
    driver.create("main", "b", 4096)
    os.link(path_of(driver, "a"), path_of(driver, "again"))
    (stats,) = driver.pools()
    assert stats.provisioned_bytes == SIZE + 4096
    assert 0 < stats.free_bytes <= stats.total_bytes


def test_only_regular_files_are_volumes(driver):
    driver.create("main", "a", 4096)
    os.mkdir(path_of(driver, "folder"))
    os.symlink("/etc/passwd", path_of(driver, "link"))
    for name in ("notes.txt", ".hidden.raw", "-flag.raw"):
        open(os.path.join(driver.options.path, name), "w").close()
    assert [volume.name for volume in driver.list_volumes("main")] == ["a"]
    with pytest.raises(Unsupported, match="not a regular file"):
        driver.describe("main", "link")
    with pytest.raises(AlreadyExists):
        driver.create("main", "link", 4096)


def test_new_files_are_private(driver):
    driver.create("main", "a", SIZE)
    assert stat.S_IMODE(os.stat(path_of(driver, "a")).st_mode) == 0o600


# -- locks and usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [FLOCK, OFD, POSIX], ids=["flock", "ofd", "posix"])
def test_lock_of_another_process_refuses_open_and_delete_and_names_it(driver, code):
    driver.create("main", "a", SIZE)
    with other_process(code, path_of(driver, "a")) as process:
        for mode in (OpenMode.SOURCE, OpenMode.WRITE):
            with pytest.raises(InUse, match=rf"process {process.pid} \(python"):
                driver.open("main", "a", mode)
        with pytest.raises(InUse, match=f"was not deleted: process {process.pid}"):
            driver.delete("main", "a")
        assert [str(user) for user in driver.usage("main", "a")] == [
            f"process {process.pid} ({_command(process)}) holds a lock"
        ]
    assert driver.usage("main", "a") == []
    driver.open("main", "a", OpenMode.WRITE).close()


def _command(process):
    with open(f"/proc/{process.pid}/comm") as file:
        return file.read().strip()


def test_process_that_only_has_the_file_open_is_seen(driver):
    driver.create("main", "a", SIZE)
    with other_process(OPEN, path_of(driver, "a")) as process:
        (user,) = driver.usage("main", "a")
        assert (user.by, user.how) == (f"process {process.pid} ({_command(process)})", "has it open")
        with pytest.raises(InUse, match="has it open"):
            driver.delete("main", "a")
        assert files(driver) == {"a.raw"}


def test_lock_of_a_process_that_cannot_be_seen_is_reported_without_a_name(driver, monkeypatch):
    driver.create("main", "a", SIZE)
    with other_process(FLOCK, path_of(driver, "a")):
        monkeypatch.setattr("backends.drivers.file_usage._processes", lambda identity: iter(()))
        assert [str(user) for user in driver.usage("main", "a")] == ["another process or host holds a lock"]


def test_own_port_is_no_use_by_others(driver):
    driver.create("main", "a", SIZE)
    for mode in OpenMode:
        with driver.open("main", "a", mode):
            assert driver.usage("main", "a") == []


@pytest.mark.parametrize("mode", [OpenMode.SOURCE, OpenMode.WRITE])
def test_asking_who_uses_an_open_volume_does_not_drop_its_locks(driver, mode):
    driver.create("main", "a", SIZE)
    with driver.open("main", "a", mode):
        driver.usage("main", "a")
        attempt = (
            "try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\nexcept BlockingIOError: pass\nelse: raise 1"
        )
        with other_process(f"{OPEN}\n{attempt}", path_of(driver, "a")):
            pass


def test_loop_device_is_seen(driver):
    driver.create("main", "a", MIB)
    done = subprocess.run(
        ["losetup", "--find", "--show", path_of(driver, "a")], capture_output=True, text=True, check=False
    )
    if done.returncode:
        skip_or_fail("loop", f"`losetup --find --show` failed: {done.stderr.strip()}")
    device = done.stdout.strip()
    try:
        assert f"loop device {device} is backed by it" in [str(user) for user in driver.usage("main", "a")]
        with pytest.raises(InUse, match=device):
            driver.delete("main", "a")
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    driver.delete("main", "a")


@pytest.mark.parametrize("mode", [OpenMode.SOURCE, OpenMode.WRITE])
def test_qemu_does_not_write_to_an_open_volume(driver, mode):
    if shutil.which("qemu-io") is None:
        skip_or_fail("qemu", "`qemu-io` is not installed")
    driver.create("main", "a", MIB)
    command = ["qemu-io", "-f", "raw", "-c", "write 0 4096", path_of(driver, "a")]
    with driver.open("main", "a", mode):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "lock" in done.stderr
    subprocess.run(command, capture_output=True, check=True)


@pytest.mark.parametrize("read_only", [False, True])
def test_volume_that_qemu_has_open_is_refused(driver, read_only):
    if shutil.which("qemu-io") is None:
        skip_or_fail("qemu", "`qemu-io` is not installed")
    driver.create("main", "a", MIB)
    command = ["qemu-io", "-f", "raw", *(["-r"] if read_only else []), path_of(driver, "a")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.stdin.write(b"read 0 512\n")
        process.stdin.flush()
        assert b"read 512/512" in process.stdout.readline() + process.stdout.readline()
        for mode in (OpenMode.SOURCE, OpenMode.WRITE):
            with pytest.raises(InUse, match="qemu-io"):
                driver.open("main", "a", mode)
        assert "qemu-io" in str(driver.usage("main", "a")[0])
    finally:
        process.communicate(b"quit\n", timeout=10)


def test_volume_replaced_between_open_and_lock_is_opened_anew(driver, monkeypatch):
    driver.create("main", "a", SIZE)
    real = directory_module.LocalFilePort
    replaced = []

    def replace_first(*args, **kwargs):
        port = real(*args, **kwargs)
        if not replaced:
            replaced.append(True)
            os.unlink(path_of(driver, "a"))
            driver.create("main", "a", 4096)
        return port

    monkeypatch.setattr(directory_module, "LocalFilePort", replace_first)
    with driver.open("main", "a", OpenMode.WRITE) as port:
        assert port.size_bytes == 4096


# -- kills and leftovers -------------------------------------------------------------------------------------


def named_files(monkeypatch):
    monkeypatch.setattr(PoolDirectory, "can_make_unnamed", False)


class Killed(BaseException):
    """Stands for SIGKILL: nothing that follows is run, clean-up included."""


def kill_at(monkeypatch, target, method, *, before=True):
    """Let the next call of *method* be the last thing that the process did."""
    real = getattr(target, method)

    def killed(*args, **kwargs):
        if not before:
            real(*args, **kwargs)
        raise Killed

    monkeypatch.setattr(target, method, killed)
    monkeypatch.setattr(NewFile, "close", lambda self: os.close(self.fd))


def test_leftover_of_a_killed_create_is_replaced(driver, monkeypatch):
    named_files(monkeypatch)
    with monkeypatch.context() as patch:
        kill_at(patch, NewFile, "publish")
        with pytest.raises(Killed):
            driver.create("main", "a", 4096)
    assert files(driver) == {".a.making"}
    with pytest.raises(NotFound):
        driver.describe("main", "a")
    assert driver.ensure("main", "a", SIZE).size_bytes == SIZE
    assert files(driver) == {"a.raw"}


def test_leftover_of_a_killed_create_is_deleted(driver, monkeypatch):
    named_files(monkeypatch)
    with monkeypatch.context() as patch:
        kill_at(patch, NewFile, "publish")
        with pytest.raises(Killed):
            driver.create("main", "a", SIZE)
    driver.delete("main", "a")
    assert files(driver) == set()


def test_leftover_that_is_a_volume_by_now_is_not_written_to(driver, monkeypatch):
    """Killed after the volume got its name and before the temporary one was taken away; then renamed."""
    named_files(monkeypatch)
    with monkeypatch.context() as patch:
        kill_at(patch, NewFile, "_unlink_temporary")
        with pytest.raises(Killed):
            driver.create("main", "a", SIZE)
    assert files(driver) == {".a.making", "a.raw"}
    write(driver, "a", b"precious")
    driver.rename("main", "a", "b")
    driver.create("main", "a", SIZE)
    assert read(driver, "b").startswith(b"precious")
    assert not any(read(driver, "a"))
    assert files(driver) == {"a.raw", "b.raw"}


def test_volume_with_a_leftover_name_is_still_protected_by_its_locks(driver, monkeypatch):
    named_files(monkeypatch)
    driver.create("main", "a", SIZE)
    os.link(path_of(driver, "a"), os.path.join(driver.options.path, ".a.making"))
    with driver.open("main", "a", OpenMode.WRITE), pytest.raises(InUse):
        driver.delete("main", "a")
    assert "a.raw" in files(driver)


def test_file_that_another_process_is_making_is_left_alone(driver, monkeypatch):
    named_files(monkeypatch)
    temporary = os.path.join(driver.options.path, ".a.making")
    open(temporary, "w").close()
    with other_process(f"{OPEN}; fcntl.flock(fd, fcntl.LOCK_EX)", temporary):
        for call in (lambda: driver.create("main", "a", SIZE), lambda: driver.delete("main", "a")):
            with pytest.raises(InUse, match="is making"):
                call()
    driver.create("main", "a", SIZE)


def test_nothing_is_left_of_a_create_that_is_killed_without_a_name(driver, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, NewFile, "publish")
        with pytest.raises(Killed):
            driver.create("main", "a", SIZE)
    assert files(driver) == set()


def test_rename_is_finished_after_a_kill_between_its_halves(driver):
    driver.create("main", "a", SIZE)
    write(driver, "a", b"data")
    os.link(path_of(driver, "a"), path_of(driver, "b"))
    driver.rename("main", "a", "b")
    assert files(driver) == {"b.raw"}
    assert read(driver, "b").startswith(b"data")


# -- native moves --------------------------------------------------------------------------------------------

HERE = {
    "driver": "directory",
    "version": 1,
    "host": "h",
    "path": "/a",
    "device": 1,
    "storage_id": "one",
    "reflink": True,
    "hardlink": True,
}
THERE = {**HERE, "path": "/b", "storage_id": "two"}


def test_move_is_planned_by_what_the_file_system_can():
    plan = DirectoryDriver.plan_move
    assert plan(HERE, THERE) == MovePlan("reflink", keeps_source=True)
    assert plan(HERE, {**THERE, "reflink": False}) == MovePlan("rename", keeps_source=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"driver": "fake"}, "one directory to another"),
        ({"version": 2}, "another version"),
        ({"host": "other"}, "two hosts, h and other"),
        ({"storage_id": "one"}, "same directory"),
        ({"device": 2}, "/a and /b are on two file systems"),
        ({"reflink": False, "hardlink": False}, "neither reflinks nor hard links"),
    ],
)
def test_move_is_declined_with_a_reason(change, reason):
    answer = DirectoryDriver.plan_move(HERE, {**THERE, **change})
    assert isinstance(answer, Declined)
    assert reason in answer.reason


def two_pools(parent):
    folder = parent / uuid.uuid4().hex
    folder.mkdir()
    return ready_driver(folder / "one"), ready_driver(folder / "two")


def start(source, target, new_name="moved", destination=None):
    return source.start_move("main", "a", destination or location(target), "main", new_name)


def filled(driver):
    content = os.urandom(SIZE)
    driver.create("main", "a", SIZE)
    write(driver, "a", content)
    return content


def test_reflink_makes_a_second_volume_that_shares_nothing_visible(xfs):
    source, target = two_pools(xfs)
    content = filled(source)
    for _ in range(2):
        status = start(source, target)
        assert (status.plan.how, status.is_finished, status.done_bytes) == ("reflink", True, SIZE)
    assert source.describe("main", "a").identity != target.describe("main", "moved").identity
    write(source, "a", b"changed")
    assert read(target, "moved") == content
    source.finish_move("main", "a", location(target), "main", "moved")
    source.finish_move("main", "a", location(target), "main", "moved")
    assert (files(source), files(target)) == (set(), {"moved.raw"})


def test_clone_of_a_source_that_was_written_since_is_not_taken_for_finished(xfs):
    source, target = two_pools(xfs)
    filled(source)
    start(source, target)
    write(source, "a", b"newer")
    with pytest.raises(AlreadyExists):
        start(source, target)


def test_copy_of_the_same_size_is_not_taken_for_a_finished_clone(xfs):
    source, target = two_pools(xfs)
    filled(source)
    target.create("main", "moved", SIZE)
    with pytest.raises(AlreadyExists):
        start(source, target)


@pytest.mark.parametrize("can_make_unnamed", [True, False])
@pytest.mark.parametrize("method", ["publish", "_unlink_temporary"])
def test_reflink_killed_anywhere_is_finished_by_a_repetition(xfs, monkeypatch, method, can_make_unnamed):
    monkeypatch.setattr(PoolDirectory, "can_make_unnamed", can_make_unnamed)
    source, target = two_pools(xfs)
    content = filled(source)
    there = location(target)
    with monkeypatch.context() as patch:
        kill_at(patch, NewFile, method)
        with pytest.raises(Killed):
            start(source, target, destination=there)
    assert start(source, target).is_finished
    assert read(target, "moved") == content
    assert read(source, "a") == content
    target.delete("main", "moved")
    assert files(target) == set()


def test_reflink_is_refused_while_somebody_writes(xfs):
    source, target = two_pools(xfs)
    filled(source)
    with source.open("main", "a", OpenMode.WRITE), pytest.raises(InUse):
        start(source, target)
    assert files(target) == set()


def test_rename_move_gives_a_second_name_and_takes_the_first_at_the_end(ext4):
    source, target = two_pools(ext4)
    content = filled(source)
    for _ in range(2):
        status = start(source, target)
        assert (status.plan.how, status.plan.keeps_source, status.is_finished) == ("rename", False, True)
    assert read(source, "a") == read(target, "moved") == content
    # The volume may be in use under its new name by the time the old one goes.
    with target.open("main", "moved", OpenMode.WRITE):
        source.finish_move("main", "a", location(target), "main", "moved")
    assert (files(source), files(target)) == (set(), {"moved.raw"})
    assert read(target, "moved") == content


def test_cancelled_rename_move_leaves_the_source(ext4):
    source, target = two_pools(ext4)
    content = filled(source)
    start(source, target)
    source.cancel_move("main", "a", location(target), "main", "moved")
    target.delete("main", "moved")
    assert read(source, "a") == content
    assert os.stat(path_of(source, "a")).st_nlink == 1


def test_last_name_is_not_deleted_when_the_destination_is_not_there(ext4):
    source, target = two_pools(ext4)
    content = filled(source)
    there = location(target)
    with pytest.raises(NotFound, match="was kept"):
        source.finish_move("main", "a", there, "main", "moved")
    shutil.rmtree(target.options.path)
    with pytest.raises(NotFound, match="was kept"):
        source.finish_move("main", "a", there, "main", "moved")
    assert read(source, "a") == content


def test_move_is_declined_when_the_destination_is_another_pool_than_planned(ext4):
    source, target = two_pools(ext4)
    filled(source)
    for change, reason in (
        ({"storage_id": str(uuid.uuid4())}, "does not hold the pool"),
        ({"path": target.options.path + ".none"}, "cannot be opened on this host"),
    ):
        answer = start(source, target, destination={**location(target), **change})
        assert isinstance(answer, Declined)
        assert reason in answer.reason
    assert files(target) == set()


def test_move_is_declined_when_the_devices_turn_out_to_differ(ext4, tmp_path):
    source, target = ready_driver(ext4 / "somewhere"), ready_driver(tmp_path / "elsewhere")
    filled(source)
    answer = start(source, target)
    assert isinstance(answer, Declined)
    forged = {**location(target), "device": location(source)["device"]}
    answer = start(source, target, destination=forged)
    assert isinstance(answer, Declined)
    assert "two file systems" in answer.reason
    assert files(target) == set()


def test_move_that_the_file_system_refuses_is_declined(ext4, tmp_path):
    """Two mounts of one file system: the device is the same, link(2) answers EXDEV."""
    source, target = two_pools(ext4)
    filled(source)
    mount_point = tmp_path / "bind"
    mount_point.mkdir()
    subprocess.run(["mount", "--bind", target.options.path, str(mount_point)], check=True)
    try:
        answer = start(source, make_driver(mount_point))
        assert isinstance(answer, Declined)
        assert "The file system refuses a rename" in answer.reason
    finally:
        subprocess.run(["umount", str(mount_point)], check=True)
    assert files(target) == set()


def test_move_of_a_missing_volume_is_not_found(ext4):
    source, target = two_pools(ext4)
    with pytest.raises(NotFound):
        start(source, target)


# -- full and failing disks ----------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    with mounted("ext4", tmp_path, 16 * MIB) as mount_point:
        yield ready_driver(mount_point / "pool")


def fill(port):
    for offset in range(0, port.size_bytes, MIB):
        port.write(offset, memoryview(b"x" * MIB))
    port.flush()


def test_full_file_system_is_no_space(tiny):
    tiny.create("main", "a", 64 * MIB)
    with tiny.open("main", "a", OpenMode.WRITE) as port, pytest.raises(NoSpace, match="ENOSPC"):
        fill(port)
    tiny.delete("main", "a")
    assert files(tiny) == set()


def test_thick_volume_that_does_not_fit_leaves_nothing(tiny, monkeypatch):
    with pytest.raises(NoSpace, match="bytes free; 'a' needs 67108864"):
        tiny.create("main", "a", 64 * MIB, thin=False)
    free = tiny.pools()[0].free_bytes
    for can_make_unnamed in (True, False):
        monkeypatch.setattr(PoolDirectory, "can_make_unnamed", can_make_unnamed)
        with monkeypatch.context() as patch:
            patch.setattr(
                DirectoryDriver, "_allocate", lambda self, d, fd, n, size: os.posix_fallocate(fd, 0, size)
            )
            with pytest.raises(NoSpace, match="ENOSPC"):
                tiny.create("main", "a", 64 * MIB, thin=False)
        assert files(tiny) == set()
    assert tiny.pools()[0].free_bytes == free


def test_damaged_file_system_is_corrupt_data(driver, monkeypatch):
    driver.create("main", "a", SIZE)

    def fail(*args, **kwargs):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(CorruptData, match=r"Delete in .* of 'a' failed: Input/output error") as caught:
        driver.delete("main", "a")
    assert (caught.value.backend, caught.value.operation, caught.value.volume) == ("h@files", "delete", "a")


def test_asking_for_users_is_cheap(driver):
    driver.create("main", "a", SIZE)
    started = time.monotonic()
    driver.usage("main", "a")
    # Tens of milliseconds on an idle host; the limit only catches a scan that has become another one.
    assert time.monotonic() - started < 1
