"""A Ceph cluster of one host in memory, for tests: a monitor and an object store, up in two seconds."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from backends.drivers.errors import NotReady
from backends.drivers.rbd_cluster import Cluster, load_modules
from backends.drivers.types import GIB
from tests.loopfs import skip_or_fail

_CONF = """
[global]
fsid = {fsid}
mon_host = {mon_host}
public_addr = {address}
cluster_addr = {address}
ms_bind_ipv6 = false
auth_cluster_required = {auth}
auth_service_required = {auth}
auth_client_required = {auth}
keyring = {folder}/keyring
run_dir = {folder}
log_file = {folder}/$name.log
log_to_stderr = false
pid_file =
admin_socket =
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
rbd_default_features = 61
[client]
log_file =
{client}
[mon]
mon_data = {folder}/mon
mon_allow_pool_size_one = true
mon_data_avail_crit = 1
mon_data_avail_warn = 2
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
mon_tick_interval = 1
[osd]
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 2147483648
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 2
osd_class_update_on_start = false
"""


@contextmanager
def ceph_cluster(
    folder: Path,
    pools: Sequence[str],
    *,
    client: str = "",
    has_keys: bool = False,
    address: str = "127.0.0.1",
) -> Iterator[CephLab]:
    """
    Yield a running cluster with *pools*, ready for RBD.

    It has no manager daemon, which takes long to start: nobody knows how much room there is.

    Args:
        client: Lines for the section `[client]` of the configuration.
        has_keys: Users must prove who they are (cephx).
        address: Where it listens.  Daemons tell it to their clients, so it must be the same one for all of them.
    """
    for tool in ("ceph-mon", "ceph-osd", "monmaptool"):
        if shutil.which(tool) is None:
            skip_or_fail("rbd", f"`{tool}` is not on this machine")
    try:
        load_modules()
    except NotReady as error:
        skip_or_fail("rbd", str(error))
    lab = CephLab(folder, address)
    try:
        lab.start(pools, client, has_keys)
        yield lab
    finally:
        lab.stop()


class CephLab:
    """The cluster; `conf` is its configuration file, `mon_host` the address of its monitor as it stands there."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self._address = address
        self._mon_address = f"v2:{address}:{_free_port(address)}"
        self.mon_host = f"[{self._mon_address}/0]"
        self.conf = folder / "ceph.conf"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, pools: Sequence[str], client: str = "", has_keys: bool = False) -> None:
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        values = {
            "fsid": fsid,
            "mon_host": self.mon_host,
            "address": self._address,
            "folder": self.folder,
            "client": client,
            "auth": "cephx" if has_keys else "none",
        }
        self.conf.write_text(_CONF.format(**values))
        for name in ("mon", "osd"):
            (self.folder / name).mkdir()
        monmap = ("--create", "--clobber", "--addv", "a", f"[{self._mon_address}]", "--fsid", fsid)
        self._run("monmaptool", *monmap, "monmap")
        keys = self._make_keys() if has_keys else ()
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", "monmap", *keys)
        self._start("mon", "ceph-mon", "-f", "-i", "a")
        # Asks the monitor.
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        rados, rbd = load_modules()
        with rados.Rados(conffile=str(self.conf)) as cluster:
            _command(cluster, prefix="osd new", uuid=osd, id=0)
            self._start("osd", "ceph-osd", "-f", "-i", "0")
            ends_at = time.monotonic() + 60
            while _command(cluster, prefix="osd stat", format="json")["num_up_osds"] < 1:
                assert time.monotonic() < ends_at, "the object store did not come up"
                time.sleep(0.05)
            for pool in pools:
                _command(cluster, prefix="osd pool create", pool=pool, pg_num=8, pgp_num=8)
                with cluster.open_ioctx(pool) as io:
                    rbd.RBD().pool_init(io, True)

    def _make_keys(self) -> tuple[str, str]:
        everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
        for name, caps in (
            ("client.admin", everything),
            ("mon.", everything),
            ("osd.0", ("--cap", "mon", "allow profile osd", "--cap", "osd", "allow *")),
        ):
            new = () if (self.folder / "keyring").exists() else ("--create-keyring",)
            self._run("ceph-authtool", "keyring", *new, "--gen-key", "-n", name, *caps)
        return "--keyring", "keyring"

    def add_user(self, user: str, *caps: str, keyring: str | None = None) -> Path:
        """
        Make a user and return a configuration file for it.

        Args:
            caps: Pairs, such as `mon`, `profile rbd`.
            keyring: What stands in the keyring, in place of the right key.
        """
        rados, _ = load_modules()
        with rados.Rados(conffile=str(self.conf)) as cluster:
            made = _command(
                cluster, prefix="auth get-or-create", entity=f"client.{user}", caps=caps, format="json"
            )
        text = f"[client.{user}]\n\tkey = {made[0]['key']}\n" if keyring is None else keyring
        (self.folder / f"keyring.{user}").write_text(text)
        conf = self.folder / f"{user}.conf"
        conf.write_text(
            self.conf.read_text().replace(f"{self.folder}/keyring", f"{self.folder}/keyring.{user}")
        )
        return conf

    def stop(self) -> None:
        for name, process in self.processes.items():
            if process.poll() is not None:
                said = "\n".join(self.folder.joinpath(f"{name}.said").read_text().splitlines()[-40:])
                print(f"ceph-{name} had ended by itself with status {process.returncode}:\n{said}")
            process.kill()
            process.wait(20)

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.said").open("wb") as said:
            self.processes[name] = subprocess.Popen(
                [*command, "-c", str(self.conf)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            [*command, "-c", str(self.conf)], cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            skip_or_fail("rbd", f"`{' '.join(command)}` failed: {done.stderr.strip()[-500:]}")


def _command(cluster: object, **arguments: object) -> dict:
    status, answer, said = cluster.mon_command(json.dumps(arguments), b"", timeout=60)
    assert status == 0, said
    return json.loads(answer) if arguments.get("format") == "json" else {}


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


@contextmanager
def ceph_cluster_with_room(folder: Path, pools: Sequence[str], *, client: str = "") -> Iterator[CephLab]:
    """Yield such a cluster with room for the scheduler."""
    with ceph_cluster(folder, pools, client=client) as lab, told_room(pools):
        yield lab


@contextmanager
def told_room(pools: Sequence[str]) -> Iterator[None]:
    """Tell the room of *pools* as a manager daemon would tell it, so that the scheduler takes them."""
    real, room = Cluster.ask, {"max_avail": 2 * GIB, "stored": 0}

    def ask(self: Cluster, prefix: str) -> object:
        if prefix != "df":
            return real(self, prefix)
        return {"pools": [{"name": pool, "stats": room} for pool in pools]}

    with mock.patch.object(Cluster, "ask", ask):
        yield
