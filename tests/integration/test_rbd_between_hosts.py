"""One Ceph cluster that two hosts reach: images move inside it, or over the network when that is asked for."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest
from django.db import connections
from django.db.models.functions import Now

from backends import services as inventory
from migrations_app import process_tree, services
from migrations_app.models import GENERIC, RemoteCall, WorkerHost
from migrations_app.remote.attendant import Attendant
from tests import moving
from tests.ceph_lab import ceph_cluster_with_room
from tests.nbd import require_nbd

pytestmark = pytest.mark.django_db(transaction=True)

OTHER = "otherhost"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    require_nbd()
    with ceph_cluster_with_room(tmp_path_factory.mktemp("ceph"), ["volumes", "backups"]) as lab:
        yield lab


@pytest.fixture
def two_hosts(cluster, settings, transactional_db):
    """A backend on each host, both of the one cluster, and an attendant of the other host."""
    here = moving.register("ceph", "rbd", {"pools": "volumes", "conf": str(cluster.conf)})
    settings.VOLMIG_HOST, settings.VOLMIG_STORAGE_ADDRESS = OTHER, "127.0.0.1"
    options = {"pools": "backups", "conf": str(cluster.conf)}
    there = inventory.register_backend(f"{OTHER}@ceph", "rbd", options)
    connections.close_all()
    pid = os.fork()
    if pid == 0:
        process_tree.die_with_parent()
        os._exit(Attendant(OTHER).run())
    settings.VOLMIG_HOST, settings.VOLMIG_STORAGE_ADDRESS = moving.HOST, ""
    WorkerHost.objects.create(
        host=OTHER,
        started_at=Now(),
        heartbeat_at=Now() + timedelta(hours=1),
        pid=pid,
        slots=1,
        storage_address="127.0.0.1",
    )
    yield here, there
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
    with inventory.make_driver(there) as driver:
        for volume in driver.list_volumes("backups"):
            driver.delete("backups", volume.name)


def test_pools_of_one_cluster_move_natively_from_host_to_host(two_hosts, run_to_end):
    here, _ = two_hosts
    volume = moving.new_volume(here, "vol")
    verdict = services.dry_run(volume, f"{OTHER}@ceph").verdict
    assert (verdict.native_how, verdict.network) == ("rbd deep copy", "")
    migration = moving.move(run_to_end, volume, f"{OTHER}@ceph")
    assert migration.method == "rbd deep copy"
    assert not RemoteCall.objects.filter(operation="open").exists()


def test_image_goes_over_the_network_when_that_is_asked_for(two_hosts, run_to_end):
    here, _ = two_hosts
    volume = moving.new_volume(here, "vol")
    migration = moving.move(run_to_end, volume, f"{OTHER}@ceph", force_host_copy=True)
    assert migration.method == GENERIC
    assert RemoteCall.objects.filter(operation="open", result__kind="nbd").count() == 2
