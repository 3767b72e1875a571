"""The LVM driver keeps every promise, on real device-mapper devices."""

import pytest

from backends.drivers.conformance import PROMISES, Peer, run_promises
from tests.vm_guest.conftest import Place

#: What LVM does not have, by the beginning of the reason.
SKIPPED = {
    "native_move_keeps_the_source_until_finished": "the driver has no native moves",
    "native_move_does_not_replace": "the driver has no native moves",
    "cancelled_move_leaves_nothing": "the driver has no native moves",
}
SKIPPED_BY_KIND = {
    "thick": {
        "new_volume_reads_as_zeros": "the pool does not promise that new volumes read as zeros",
        "far_offsets_are_reached": "a volume that large would take its room; the pool has no thin ones",
        "sparse_volumes_stay_sparse": "the pool has no thin volumes",
    },
    "thin": {"thick_volumes_take_their_room": "the pool has no thick volumes"},
}


@pytest.mark.parametrize("kind", ["thick", "thin"])
@pytest.mark.parametrize("promise", [promise.__name__ for promise in PROMISES])
def test_lvm_driver_keeps(promise, kind, volume_groups, volumes_left):
    one, two = (Place(vg, kind == "thin") for vg in volume_groups)
    (result,) = run_promises(one.driver, one.pool, peer=Peer(two.driver, two.pool), only={promise})
    assert result.passed, result.error_text
    assert result.skipped_reason == (SKIPPED | SKIPPED_BY_KIND[kind]).get(promise)
    assert volumes_left() == set()
