"""What a backend says of itself."""

from __future__ import annotations

import json

from backends.drivers.conformance.bench import Bench, expect
from backends.drivers.conformance.promises.listing import promise

_STATS_ATTEMPTS = 3


@promise
def check_can_be_repeated(bench: Bench) -> None:
    """A backend that is ready says so every time it is asked."""
    driver = bench.driver()
    driver.check()


@promise
def statistics_are_sane(bench: Bench) -> None:
    """
    The statistics of a pool are not negative, free room is not more than all room, and both can be
    unknown.
    """
    stats = bench.stats(bench.driver())
    for name in ("total_bytes", "free_bytes", "provisioned_bytes", "volume_count"):
        value = getattr(stats, name)
        expect(value is None or value >= 0, f"{name} is {value}")
    if stats.total_bytes is not None and stats.free_bytes is not None:
        expect(stats.free_bytes <= stats.total_bytes, f"{stats.free_bytes} bytes free of {stats.total_bytes}")
    expect(
        stats.thin_provisioning_support or stats.thick_provisioning_support,
        "neither thin nor thick volumes are supported",
    )


@promise
def statistics_follow_volumes(bench: Bench) -> None:
    """A volume that is made counts in the statistics of its pool, and no longer when it is deleted."""
    driver = bench.driver()
    # Others may make and delete volumes on a pool in use at the same moment.
    for attempt in range(_STATS_ATTEMPTS):
        before = bench.stats(driver)
        name = bench.new_volume(driver)
        during = bench.stats(bench.driver())
        driver.delete(bench.pool, name)
        after = bench.stats(bench.driver())
        counts = (before.volume_count, during.volume_count, after.volume_count)
        sizes = (before.provisioned_bytes, during.provisioned_bytes, after.provisioned_bytes)
        has_counted = counts[1] == counts[0] + 1 == counts[2] + 1
        has_summed = None in sizes or sizes[1] == sizes[0] + bench.size_bytes == sizes[2] + bench.size_bytes
        if (has_counted and has_summed) or attempt == _STATS_ATTEMPTS - 1:
            break
    expect(has_counted, f"before, with and after a volume there were {counts} volumes")
    expect(
        has_summed, f"before, with and after a volume of {bench.size_bytes} bytes there were {sizes} bytes"
    )


@promise
def storage_id_is_stable(bench: Bench) -> None:
    """Every driver object gives a pool the same identity, and no two pools have the same."""
    first = {stats.name: stats.storage_id for stats in bench.driver().pools()}
    second = {stats.name: stats.storage_id for stats in bench.driver().pools()}
    expect(all(first.values()), f"a pool has no storage_id: {first}")
    expect(first == second, f"the storage_id was {first}, then {second}")
    expect(len(set(first.values())) == len(first), f"two pools have one storage_id: {first}")


@promise
def location_info_is_json(bench: Bench) -> None:
    """The location of a pool is a JSON object that names the driver and the version of the format."""
    driver = bench.driver()
    info = dict(bench.stats(driver).location_info)
    try:
        same = json.loads(json.dumps(info)) == info
    except TypeError as error:
        same = False
        expect(False, f"location_info is no JSON: {error}")
    expect(same, "location_info is not the same after it went through JSON")
    expect(info.get("driver") == driver.name, f"location_info names the driver '{info.get('driver')}'")
    expect("version" in info, "location_info has no version")
