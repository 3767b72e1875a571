"""Wrong credentials, missing rights and missing tools: each is said in a sentence that tells what to do."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.conformance import run_promises
from backends.drivers.errors import DriverError, InUse, NotPermitted, NotReady
from backends.drivers.iscsi import IscsiDriver, IscsiOptions
from backends.drivers.qcow2 import Qcow2Driver, Qcow2Options
from backends.drivers.qemu_img import qemu_error
from backends.drivers.rbd import RbdDriver, RbdOptions
from backends.drivers.rbd_cluster import Cluster
from backends.drivers.types import GIB, MIB, OpenMode
from migrations_app import services
from migrations_app.services import Options
from migrations_app.states import State
from tests import moving
from tests.ceph_lab import ceph_cluster
from tests.iscsi_lab import IQN, SECRET, USER, iscsi_target
from tests.loopfs import mounted
from tests.nbd import require_nbd

#: What docs/drivers.md tells to give.
RIGHTS = ("mon", "profile rbd", "osd", "profile rbd pool=volumes, profile rbd pool=backups")
WRONG_KEY = "[client.{}]\n\tkey = AQCBKgNrqJ2RJRAAjBdTgVs/h0csssIjd8YqPg==\n"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    require_nbd()
    with ceph_cluster(tmp_path_factory.mktemp("ceph"), ["volumes", "backups"], has_keys=True) as lab:
        lab.add_user("volmig", *RIGHTS)
        yield lab


@pytest.fixture
def make_driver(cluster):
    def make(user: str, conf: object = None, pools: str = "volumes, backups") -> RbdDriver:
        conf = conf or cluster.folder / f"{user}.conf"
        return RbdDriver(DriverContext("h@ceph", "h", RbdOptions(pools=pools, conf=str(conf), user=user)))

    return make


# -- Ceph -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "promise",
    [
        "sizes_are_exact",
        "exclusive_ports_exclude_each_other",
        "snapshots_come_and_go",
        "native_move_keeps_the_source_until_finished",
        "cancelled_move_leaves_nothing",
    ],
)
def test_documented_rights_are_enough(promise, make_driver):
    (result,) = run_promises(lambda: make_driver("volmig"), "volumes", only={promise})
    assert result.passed, result.error_text


def refused(call) -> DriverError:
    started = time.monotonic()
    with pytest.raises((NotPermitted, NotReady)) as caught:
        call()
    assert time.monotonic() - started < 5
    assert "\n" not in str(caught.value)
    return caught.value


def test_wrong_key_unknown_user_and_missing_keyring_are_told_apart(cluster, make_driver):
    wrong = cluster.add_user("wrong", *RIGHTS, keyring=WRONG_KEY.format("wrong"))
    with make_driver("wrong", wrong) as driver:
        error = refused(driver.check)
    assert f"The cluster of {wrong} refuses client.wrong: it knows no such user, or the key is" in str(error)
    assert "Compare the keyring of this host with `ceph auth get client.wrong`." in str(error)
    assert "AQCB" not in str(error)
    missing = cluster.add_user("missing", *RIGHTS)
    (cluster.folder / "keyring.missing").unlink()
    with make_driver("missing", missing) as driver:
        error = refused(driver.check)
    assert "There is no key of client.missing on this host that can be read." in str(error)
    assert f"keyring that {missing} names" in str(error)
    with make_driver("volmig", "/nowhere/ceph.conf") as driver:
        error = refused(driver.check)
    assert "The configuration file /nowhere/ceph.conf cannot be read. Copy it" in str(error)


def test_user_who_may_only_read_is_told_so_and_leaves_nothing(cluster, make_driver):
    cluster.add_user("reader", "mon", "profile rbd-read-only", "osd", "profile rbd-read-only pool=volumes")
    with make_driver("volmig") as owner, make_driver("reader", pools="volumes") as reader:
        owner.create("volumes", "vol", MIB)
        reader.check()
        assert reader.describe("volumes", "vol").size_bytes == MIB
        for what, call in {
            "Making 'new' in pool 'volumes'": lambda: reader.create("volumes", "new", MIB),
            "open of 'vol' in pool 'volumes'": lambda: reader.open("volumes", "vol", OpenMode.SOURCE),
            "Opening rbd:volumes/vol": lambda: reader.open("volumes", "vol", OpenMode.VERIFY),
            "Removing 'vol' from pool 'volumes'": lambda: reader.delete("volumes", "vol"),
        }.items():
            assert what in str(refused(call))
        error = refused(lambda: reader.create("volumes", "new", MIB))
        assert "was refused by the cluster. See `ceph auth get`" in str(error)
        # There is nothing to delete, which needs no right.
        reader.delete("volumes", "new")
        assert [v.name for v in owner.list_volumes("volumes")] == ["vol"]
        owner.delete("volumes", "vol")


def test_pool_of_others_is_named(cluster, make_driver):
    cluster.add_user("half", "mon", "profile rbd", "osd", "profile rbd pool=volumes")
    with make_driver("half") as driver:
        assert "pool 'backups' was refused by the cluster" in str(refused(driver.pools))


@pytest.mark.django_db(transaction=True)
def test_migration_to_a_pool_that_is_read_only_fails_and_leaves_nothing(
    cluster, tmp_path, run_to_end, monkeypatch
):
    conf = cluster.add_user(
        "guest", "mon", "profile rbd-read-only", "osd", "profile rbd-read-only pool=volumes"
    )
    real = Cluster.ask
    room = {"pools": [{"name": "volumes", "stats": {"max_avail": GIB, "stored": 0}}]}
    monkeypatch.setattr(Cluster, "ask", lambda self, prefix: room if prefix == "df" else real(self, prefix))
    (tmp_path / "here").mkdir()
    here = moving.register("here", "directory", {"path": str(tmp_path / "here")})
    moving.register("there", "rbd", {"pools": "volumes", "conf": str(conf), "user": "guest"})
    volume = moving.new_volume(here, "vol", 8 * MIB)
    before = moving.digest_of(volume)
    migration = run_to_end(services.request_migration(volume, "testhost@there", moving.ACTOR, Options()))
    assert migration.state == State.FAILED
    assert "was refused by the cluster" in migration.error_text
    assert moving.digest_of(volume) == before


def test_dead_client_is_waited_for_where_fencing_is_not_allowed(cluster, make_driver):
    """Without the right to fence, a killed process counts as a user until Ceph forgets it."""
    cluster.add_user("plain", "mon", "allow r", "osd", "allow rwx pool=volumes, allow rwx pool=backups")
    code = (
        "import os, signal, sys\n"
        "from backends.drivers.base import DriverContext\n"
        "from backends.drivers.rbd import RbdDriver, RbdOptions\n"
        "from backends.drivers.types import OpenMode\n"
        "options = RbdOptions(pools='volumes', conf=sys.argv[1], user=sys.argv[2])\n"
        "port = RbdDriver(DriverContext('h@ceph', 'h', options)).open('volumes', 'vol', OpenMode.WRITE)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with make_driver("volmig") as owner, make_driver("plain", pools="volumes") as plain:
        owner.create("volumes", "vol", MIB)
        for user in ("plain", "volmig"):
            conf = str(cluster.folder / f"{user}.conf")
            subprocess.run([sys.executable, "-c", code, conf, user], timeout=60)
            with pytest.raises(InUse, match="which is dead, is not yet forgotten by the cluster"):
                plain.open("volumes", "vol", OpenMode.WRITE)
            # Who may fence need not wait, and a dead process is no user.
            assert owner.usage("volumes", "vol") == []
            owner.open("volumes", "vol", OpenMode.WRITE).close()
        owner.delete("volumes", "vol")


# -- iSCSI ------------------------------------------------------------------------------------------------------


@pytest.fixture
def target(tmp_path):
    require_nbd()
    with iscsi_target(tmp_path) as target:
        (tmp_path / "disk.raw").write_bytes(bytes(MIB))
        target.add_lun(1, tmp_path / "disk.raw")
        yield target


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "it asks for a CHAP user and secret, and the backend has none"),
        (
            {"chap_user": USER, "chap_secret": "wrong-secret-0123"},
            f"it does not know the CHAP user '{USER}' with this secret",
        ),
        ({"chap_user": "nobody", "chap_secret": SECRET}, "it does not know the CHAP user 'nobody'"),
    ],
)
def test_refused_login_names_the_options(target, options, said):
    options = IscsiOptions(portal=target.portal, iqn=IQN, **options)
    driver = IscsiDriver(DriverContext("h@array", "h", options))
    for call in (driver.check, driver.pools, lambda: driver.open("luns", "lun-1", OpenMode.SOURCE)):
        error = refused(call)
        assert said in str(error)
        assert "Correct the options 'chap_user' and 'chap_secret'" in str(error)
        assert "secret-0123" not in str(error)


# -- qcow2 ------------------------------------------------------------------------------------------------------


def test_images_on_a_read_only_mount_are_read_and_not_written(tmp_path):
    require_nbd()
    with mounted("ext4", tmp_path) as folder:
        driver = Qcow2Driver(DriverContext("h@images", "h", Qcow2Options(path=str(folder))))
        driver.check()
        driver.create("main", "vol", MIB)
        with driver.open("main", "vol", OpenMode.WRITE) as port:
            port.write(0, memoryview(b"x" * MIB))
            port.flush()
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True, timeout=30)
        driver.check()
        assert driver.pools()[0].is_read_only
        with driver.open("main", "vol", OpenMode.SOURCE) as port:
            content = bytearray(MIB)
            port.read_into(0, memoryview(content))
            assert bytes(content) == b"x" * MIB
        for call in (
            lambda: driver.create("main", "new", MIB),
            lambda: driver.open("main", "vol", OpenMode.WRITE),
            lambda: driver.extend("main", "vol", 2 * MIB),
            lambda: driver.rename("main", "vol", "new"),
            lambda: driver.delete("main", "vol"),
        ):
            assert "Read-only file system" in str(refused(call))
        driver.delete("main", "never-made")


# -- missing tools ----------------------------------------------------------------------------------------------


def test_missing_tools_are_named_with_their_packages(target, make_driver, tmp_path, monkeypatch):
    array = IscsiOptions(portal=target.portal, iqn=IQN, chap_user=USER, chap_secret=SECRET)
    lun = IscsiDriver(DriverContext("h@array", "h", array))
    (tmp_path / "images").mkdir()
    image = Qcow2Driver(DriverContext("h@images", "h", Qcow2Options(path=str(tmp_path / "images"))))
    image.check()
    image.create("main", "vol", MIB)
    with make_driver("volmig") as rbd:
        rbd.create("volumes", "vol", MIB)
        with monkeypatch.context() as patch:
            patch.setattr("backends.drivers.commands._SYSTEM_PATH", "/nowhere")
            patch.setenv("PATH", "/nowhere")
            for call, tool, package in (
                (lun.check, "iscsi-readcapacity16", "libiscsi-bin"),
                (lambda: image.create("main", "new", MIB), "qemu-img", "qemu-utils"),
                (lambda: image.open("main", "vol", OpenMode.SOURCE), "qemu-nbd", "qemu-utils"),
                (lambda: rbd.open("volumes", "vol", OpenMode.SOURCE), "qemu-nbd", "qemu-utils"),
            ):
                error = refused(call)
                assert f"The tool '{tool}' is not on this host." in str(error)
                assert error.remedy == f"On Debian: apt-get install {package}"
        rbd.delete("volumes", "vol")
    assert [v.name for v in image.list_volumes("main")] == ["vol"]


@pytest.mark.parametrize("module", ["rados", "rbd"])
def test_missing_modules_of_ceph_are_named_with_their_packages(module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    driver = RbdDriver(DriverContext("h@ceph", "h", RbdOptions(pools="volumes")))
    error = refused(driver.check)
    assert "apt-get install python3-rados python3-rbd" in str(error)


def test_missing_driver_of_qemu_is_named_with_its_package():
    require_nbd()
    done = subprocess.run(["qemu-nbd", "-f", "raw", "foo:bar"], capture_output=True, text=True, timeout=30)
    error = qemu_error("Opening foo:bar", done.stderr, {})
    assert str(error) == (
        "Opening foo:bar failed: QEMU has no driver for it on this host. "
        "On Debian: apt-get install qemu-block-extra"
    )
