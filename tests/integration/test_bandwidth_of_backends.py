"""The limit of a backend is kept by all of its migrations together."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from migrations_app import bandwidth, services
from migrations_app.copying.digests import SEGMENT_BYTES
from migrations_app.lease import Lease
from migrations_app.models import VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State

pytestmark = pytest.mark.django_db


@pytest.fixture
def running(two_backends, make_volume, actor):
    """Return a function that makes a migration which a worker is copying."""
    a, b = two_backends

    def make(name, source=a, destination=b, **fields):
        volume = make_volume(source, name, 1 << 20, filled=False)
        migration = services.request_migration(
            volume, destination.address, actor, Options(force_host_copy=True)
        )
        values = {
            "state": State.COPYING,
            "owner": "w",
            "lease_expires_at": timezone.now() + timedelta(minutes=1),
        }
        VolumeMigration.objects.filter(pk=migration.pk).update(**{**values, **fields})
        return migration

    return make


def _limit(backend, bytes_per_second):
    type(backend).objects.filter(pk=backend.pk).update(max_bandwidth_bytes_per_second=bytes_per_second)


def test_no_limit_is_no_limit(running):
    assert bandwidth.share(running("v1").pk) is None


def test_limit_is_divided_by_what_is_moving(running, two_backends):
    _limit(two_backends[1], 900_000)
    migrations = [running(f"v{i}") for i in range(3)]
    assert [bandwidth.share(m.pk) for m in migrations] == [300_000, 300_000, 300_000]
    # One waits, one is verified, one has lost its worker.
    VolumeMigration.objects.filter(pk=migrations[0].pk).update(state=State.VERIFYING)
    VolumeMigration.objects.filter(pk=migrations[1].pk).update(state=State.PREPARING)
    VolumeMigration.objects.filter(pk=migrations[2].pk).update(
        lease_expires_at=timezone.now() - timedelta(seconds=1)
    )
    assert bandwidth.share(migrations[0].pk) == 900_000


def test_backend_counts_what_leaves_it_and_what_comes(running, two_backends):
    a, b = two_backends
    _limit(a, 1000_000)
    away, here = running("v1"), running("v2", b, a)
    assert bandwidth.share(away.pk) == bandwidth.share(here.pk) == 500_000


def test_smallest_limit_is_kept(running, two_backends):
    a, b = two_backends
    _limit(a, 1000_000)
    _limit(b, 700_000)
    assert bandwidth.share(running("v1", bandwidth_bytes_per_second=800_000).pk) == 700_000
    assert bandwidth.share(running("v2", bandwidth_bytes_per_second=100_000).pk) == 100_000


def test_share_is_never_so_little_that_a_segment_outlives_its_task(running, two_backends, settings):
    _limit(two_backends[0], 1)
    running("v1")
    share = bandwidth.share(running("v2").pk)
    assert SEGMENT_BYTES / share < settings.Q_CLUSTER["timeout"]


def test_change_is_seen_by_the_next_heartbeat(running, two_backends):
    _limit(two_backends[1], 1000_000)
    lease = Lease.claim(running("v1", owner="", lease_expires_at=None).pk)
    assert lease.wishes().bandwidth_bytes_per_second == 1000_000
    running("v2")
    assert lease.wishes().bandwidth_bytes_per_second == 500_000
    _limit(two_backends[1], None)
    assert lease.wishes().bandwidth_bytes_per_second is None
