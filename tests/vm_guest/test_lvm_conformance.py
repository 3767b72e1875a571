"""The LVM driver keeps every promise, on real device-mapper devices."""

from functools import partial

import pytest

from backends.drivers.conformance import PROMISES, Peer, run_promises
from backends.drivers.lvm import LvmDriver
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
    "thin": {
        "thick_volumes_take_their_room": "the pool has no thick volumes",
        "what_was_flushed_can_be_read_beside_the_writer": (
            "the driver does not let a volume be read while it is written"
        ),
    },
}


class AsChecked(LvmDriver):
    """Is not checked again: promises ask for new objects all the time, and a report of LVM's takes long here."""

    def check(self) -> None:
        pass


@pytest.mark.parametrize("kind", ["thick", "thin"])
@pytest.mark.parametrize("promise", [promise.__name__ for promise in PROMISES])
def test_lvm_driver_keeps(promise, kind, volume_groups, volumes_left):
    one, two = (Place(vg, kind == "thin") for vg in volume_groups)
    kind_of_driver = LvmDriver if promise == "check_can_be_repeated" else AsChecked
    makers = [partial(place.driver, kind_of_driver) for place in (one, two)]
    (result,) = run_promises(makers[0], one.pool, peer=Peer(makers[1], two.pool), only={promise})
    assert result.passed, result.error_text
    assert result.skipped_reason == (SKIPPED | SKIPPED_BY_KIND[kind]).get(promise)
    assert volumes_left() == set()
