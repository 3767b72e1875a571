"""Real migrations between file systems and images on them: every byte arrives, and nothing is left behind."""

from __future__ import annotations

import pytest

from backends import services as inventory
from migrations_app.models import GENERIC
from tests import moving
from tests.loopfs import mounted
from tests.nbd import require_nbd

pytestmark = pytest.mark.django_db(transaction=True)

KINDS = ("ext4", "xfs", "qcow2")


@pytest.fixture(scope="module")
def file_systems(tmp_path_factory):
    folder = tmp_path_factory.mktemp("file-systems")
    with mounted("ext4", folder) as ext4, mounted("xfs", folder) as xfs:
        yield {"ext4": ext4, "xfs": xfs}


@pytest.mark.parametrize("destination", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_every_byte_arrives(source, destination, file_systems, tmp_path, run_to_end):
    backends = []
    for name, kind in (("here", source), ("there", destination)):
        if kind == "qcow2":
            require_nbd()
        path = file_systems["ext4" if kind == "qcow2" else kind] / f"{tmp_path.name}-{name}"
        path.mkdir()
        driver = "qcow2" if kind == "qcow2" else "directory"
        backends.append(moving.register(name, driver, {"path": str(path)}))
    volume = moving.new_volume(backends[0], "vol")
    migration = moving.move(run_to_end, volume, "testhost@there", force_host_copy=True)
    assert migration.method == GENERIC
    inventory.delete_volume(volume)
    assert moving.names_on(volume.pool.backend) == set()
