"""The promises of the driver contract: one function each, its docstring is the promise."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable

from backends.drivers.base import Driver
from backends.drivers.conformance.bench import (
    Bench,
    Peer,
    PromiseSkipped,
    expect,
    expect_error,
    read_range,
)
from backends.drivers.errors import (
    AlreadyExists,
    InUse,
    NoSpace,
    NotFound,
    NotPermitted,
    Permanent,
    Unsupported,
)
from backends.drivers.ports import Extent, ExtentKind
from backends.drivers.types import GIB, KIB, MIB, Declined, MoveStatus, OpenMode, Support

PROMISES: list[Callable[[Bench], None]] = []

_ODD_SIZES = (1, 4097, MIB + 511)
_STATS_ATTEMPTS = 3


def promise(function: Callable[[Bench], None]) -> Callable[[Bench], None]:
    """Put the function on the list."""
    PROMISES.append(function)
    return function


def pattern(length: int, seed: str = "") -> bytes:
    """Return *length* bytes that are nowhere zero for long and differ from place to place."""
    return hashlib.shake_128(f"volmig {seed}".encode()).digest(length)


# -- the backend ---------------------------------------------------------------------------------------------


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


# -- names and sizes -----------------------------------------------------------------------------------------


@promise
def created_volume_is_found(bench: Bench) -> None:
    """A volume that was made is described with its exact size and is listed, for every driver object."""
    made = bench.driver()
    name = bench.new_volume(made)
    other = bench.driver()
    found = other.describe(bench.pool, name)
    expect(found.name == name, f"'{name}' is described as '{found.name}'")
    expect(
        found.size_bytes == bench.size_bytes,
        f"{bench.size_bytes} bytes were asked for, not {found.size_bytes}",
    )
    listed = [volume for volume in other.list_volumes(bench.pool) if volume.name == name]
    expect(len(listed) == 1, f"'{name}' is listed {len(listed)} times")
    expect(listed[0].size_bytes == bench.size_bytes, f"'{name}' is listed with {listed[0].size_bytes} bytes")
    expect(
        listed[0].identity == found.identity,
        f"identity {listed[0].identity} in the list, not {found.identity}",
    )


@promise
def sizes_are_exact(bench: Bench) -> None:
    """A volume has exactly the size asked for, also when that is no multiple of anything."""
    driver = bench.driver()
    for size in _ODD_SIZES:
        name = bench.new_volume(driver, size)
        found = bench.driver().describe(bench.pool, name).size_bytes
        expect(found == size, f"a volume of {size} bytes is described with {found}")
        content = pattern(size, "odd")
        bench.write(name, (0, content))
        expect(bench.read(name) == content, f"a volume of {size} bytes is not read back as written")


@promise
def size_zero_is_refused(bench: Bench) -> None:
    """A volume of no bytes, or fewer, is not made."""
    driver = bench.driver()
    for size in (0, -1):
        name = bench.name()
        with expect_error(Permanent, when=f"create with {size} bytes"):
            driver.create(bench.pool, name, size)
        with expect_error(NotFound, when="describe of what was refused"):
            driver.describe(bench.pool, name)


@promise
def names_that_are_paths_or_flags_are_refused(bench: Bench) -> None:
    """A name that is a path, a flag, hidden, empty or too long is refused by every method."""
    driver = bench.driver()
    good = bench.new_volume(driver)
    for bad in ("../escape", "a/b", "/abs", "-rf", ".hidden", "", "a b", "a\n", "a\0b", "x" * 129):
        calls: dict[str, Callable[[], object]] = {
            "create": lambda bad=bad: driver.create(bench.pool, bad, bench.size_bytes),
            "describe": lambda bad=bad: driver.describe(bench.pool, bad),
            "delete": lambda bad=bad: driver.delete(bench.pool, bad),
            "rename": lambda bad=bad: driver.rename(bench.pool, good, bad),
            "open": lambda bad=bad: driver.open(bench.pool, bad, OpenMode.SOURCE).close(),
        }
        for method, call in calls.items():
            with expect_error(Permanent, when=f"{method} with the name {bad!r}"):
                call()
    driver.describe(bench.pool, good)


@promise
def create_does_not_replace(bench: Bench) -> None:
    """Making a volume of a name that exists is refused, whatever its size, and its data stays as it was."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    content = pattern(64 * KIB)
    bench.write(name, (0, content))
    for size in (bench.size_bytes, bench.size_bytes * 2):
        with expect_error(AlreadyExists, when=f"the second create, with {size} bytes"):
            bench.driver().create(bench.pool, name, size, thin=bench.is_thin(driver))
    expect(
        driver.describe(bench.pool, name).size_bytes == bench.size_bytes, "the second create changed the size"
    )
    expect(bench.read(name, 0, len(content)) == content, "the second create changed the data")


@promise
def ensure_twice_is_ensure_once(bench: Bench) -> None:
    """Ensuring a volume again returns the one there is, with its data."""
    driver = bench.driver()
    name = bench.name()
    thin = bench.is_thin(driver)
    first = driver.ensure(bench.pool, name, bench.size_bytes, thin=thin)
    content = pattern(64 * KIB)
    bench.write(name, (0, content))
    second = bench.driver().ensure(bench.pool, name, bench.size_bytes, thin=thin)
    expect(first.identity == second.identity, "the second ensure returned another volume")
    expect(bench.read(name, 0, len(content)) == content, "the second ensure changed the data")


@promise
def ensure_of_another_size_is_refused(bench: Bench) -> None:
    """Ensuring a volume that exists with another size is refused."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    with expect_error(AlreadyExists, when="ensure with another size"):
        driver.ensure(bench.pool, name, bench.size_bytes + MIB, thin=bench.is_thin(driver))
    expect(driver.describe(bench.pool, name).size_bytes == bench.size_bytes, "ensure changed the size")


@promise
def thick_volumes_take_their_room(bench: Bench) -> None:
    """A thick volume has all its room from the beginning."""
    driver = bench.driver()
    if not bench.stats(driver).thick_provisioning_support:
        raise PromiseSkipped("the pool has no thick volumes")
    name = bench.name()
    driver.create(bench.pool, name, bench.size_bytes, thin=False)
    found = bench.driver().describe(bench.pool, name)
    expect(
        found.size_bytes == bench.size_bytes, f"it has {found.size_bytes} bytes instead of {bench.size_bytes}"
    )
    if found.allocated_bytes is not None:
        expect(found.allocated_bytes >= bench.size_bytes, f"only {found.allocated_bytes} bytes are allocated")


@promise
def missing_volume_is_not_found(bench: Bench) -> None:
    """A volume that does not exist is reported as not found by everything but delete."""
    driver = bench.driver()
    name = bench.name()
    calls: dict[str, Callable[[], object]] = {
        "describe": lambda: driver.describe(bench.pool, name),
        "rename": lambda: driver.rename(bench.pool, name, bench.name()),
        "usage": lambda: driver.usage(bench.pool, name),
        "snapshots": lambda: driver.snapshots(bench.pool, name),
    }
    for mode in OpenMode:
        calls[f"open as {mode.value}"] = lambda mode=mode: driver.open(bench.pool, name, mode).close()
    for method, call in calls.items():
        with expect_error(NotFound, when=f"{method} of a volume that does not exist"):
            call()
    expect(
        name not in [volume.name for volume in driver.list_volumes(bench.pool)],
        "looking for a volume made it",
    )


@promise
def delete_twice_is_delete_once(bench: Bench) -> None:
    """Deleting a volume that is gone, or never was, succeeds; a deleted volume does not come back."""
    driver = bench.driver()
    driver.delete(bench.pool, bench.name())
    name = bench.new_volume(driver)
    neighbour = bench.new_volume(driver)
    driver.delete(bench.pool, name)
    driver.delete(bench.pool, name)
    with expect_error(NotFound, when="describe after delete"):
        bench.driver().describe(bench.pool, name)
    bench.driver().describe(bench.pool, neighbour)


@promise
def identity_changes_with_the_volume(bench: Bench) -> None:
    """The identity of a volume stays while it lives, and its data and a rename do not change it."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    first = driver.describe(bench.pool, name).identity
    bench.write(name, (0, pattern(4096)))
    expect(bench.driver().describe(bench.pool, name).identity == first, "a write changed the identity")
    other = bench.new_volume(driver)
    expect(driver.describe(bench.pool, other).identity != first, "two volumes have one identity")
    renamed = bench.name("renamed")
    driver.rename(bench.pool, name, renamed)
    expect(driver.describe(bench.pool, renamed).identity == first, "a rename changed the identity")


@promise
def rename_keeps_the_data(bench: Bench) -> None:
    """A renamed volume is found under its new name only, with its data."""
    driver = bench.driver()
    name, new_name = bench.new_volume(driver), bench.name("new")
    content = pattern(64 * KIB)
    bench.write(name, (0, content))
    driver.rename(bench.pool, name, new_name)
    with expect_error(NotFound, when="describe of the old name"):
        bench.driver().describe(bench.pool, name)
    expect(bench.read(new_name, 0, len(content)) == content, "rename changed the data")


@promise
def rename_does_not_replace(bench: Bench) -> None:
    """Renaming a volume to a name that exists is refused, its own included, and both stay as they were."""
    driver = bench.driver()
    name, other = bench.new_volume(driver), bench.new_volume(driver)
    contents = {name: pattern(4096, "one"), other: pattern(4096, "two")}
    for volume, content in contents.items():
        bench.write(volume, (0, content))
    for target in (other, name):
        with expect_error(AlreadyExists, when=f"rename onto {'another' if target == other else 'itself'}"):
            driver.rename(bench.pool, name, target)
    for volume, content in contents.items():
        expect(bench.read(volume, 0, 4096) == content, "a refused rename changed data")


@promise
def extended_volume_keeps_its_data(bench: Bench) -> None:
    """A larger volume has its old data, and behind it zeros if new volumes have; it is never made smaller."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    size = driver.describe(bench.pool, name).size_bytes
    content = pattern(4096)
    bench.write(name, (size - 4096, content))
    try:
        driver.extend(bench.pool, name, size + 8192)
    except Unsupported as error:
        raise PromiseSkipped("the driver cannot extend volumes") from error
    found = bench.driver().extend(bench.pool, name, size + 8192)
    expect(found.size_bytes >= size + 8192, f"{found.size_bytes} bytes after extend to {size + 8192}")
    expect(bench.read(name, size - 4096, 4096) == content, "extend changed the data")
    with driver.open(bench.pool, name, OpenMode.VERIFY) as port:
        adds_zeros = port.reads_zero_when_new
    if adds_zeros:
        expect(bench.read(name, size, 8192) == bytes(8192), "what extend added does not read as zeros")
    with expect_error(Unsupported, when="extend to a smaller size"):
        driver.extend(bench.pool, name, size)


@promise
def snapshots_come_and_go(bench: Bench) -> None:
    """A snapshot that was made is listed until it is deleted; both may be asked for twice."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    snapshot = f"{name}-snapshot"
    try:
        for _ in range(2):
            driver.create_snapshot(bench.pool, name, snapshot)
    except Unsupported as error:
        raise PromiseSkipped("the driver has no snapshots") from error
    expect(bench.driver().snapshots(bench.pool, name) == [snapshot], "the snapshot is not listed, once")
    for _ in range(2):
        driver.delete_snapshot(bench.pool, name, snapshot)
    expect(bench.driver().snapshots(bench.pool, name) == [], "the snapshot is listed after it was deleted")


# -- data ----------------------------------------------------------------------------------------------------


@promise
def new_volume_reads_as_zeros(bench: Bench) -> None:
    """A new volume reads as zeros from end to end, if its port says so, also where a deleted one lay."""
    driver = bench.driver()
    used = bench.new_volume(driver)
    bench.write(used, (0, pattern(bench.size_bytes, "old data")))
    driver.delete(bench.pool, used)
    name = bench.new_volume(driver)
    with bench.open(driver, name, OpenMode.SOURCE) as port:
        if not port.reads_zero_when_new:
            raise PromiseSkipped("the pool does not promise that new volumes read as zeros")
        expect(not any(read_range(port, 0, port.size_bytes)), "a new volume holds something else than zeros")


@promise
def flushed_data_is_read_back(bench: Bench) -> None:
    """What was written and flushed is read back from end to end by another driver object, in every mode."""
    name = bench.new_volume(bench.driver())
    content = pattern(bench.size_bytes)
    bench.write(name, *((at, content[at : at + MIB]) for at in range(0, len(content), MIB)))
    for mode in OpenMode:
        expect(
            bench.read(name, mode=mode) == content, f"as {mode.value}, other bytes are read than were written"
        )


@promise
def data_is_read_back_while_open(bench: Bench) -> None:
    """What was written and flushed can be verified while the port that wrote it is still open."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    content = pattern(256 * KIB)
    with bench.open(driver, name, OpenMode.WRITE) as port:
        port.write(0, memoryview(content))
        port.flush()
        expect(bench.read(name, 0, len(content)) == content, "other bytes are verified than were written")
        expect(read_range(port, 0, len(content)) == content, "other bytes are read than were written")


@promise
def edges_are_kept(bench: Bench) -> None:
    """A write or a zero of any length at any offset changes those bytes and no others."""
    name = bench.new_volume(bench.driver(), MIB + 511)
    expected = bytearray(pattern(MIB + 511, "ground"))
    bench.write(name, (0, bytes(expected)))
    places = [(0, 1), (1, 511), (4095, 2), (8191, 4097), (100_001, 70_003), (MIB + 510, 1), (MIB - 3, 514)]
    with bench.open(bench.driver(), name, OpenMode.WRITE) as port:
        for offset, length in places:
            piece = pattern(length, f"edge {offset}")
            port.write(offset, memoryview(piece))
            expected[offset : offset + length] = piece
        for offset, length in ((20_001, 3), (30_000, 9_001), (200_123, 300_000), (MIB + 500, 11)):
            port.zero(offset, length)
            expected[offset : offset + length] = bytes(length)
        port.flush()
    found = bench.read(name)
    wrong = next((at for at in range(len(expected)) if found[at] != expected[at]), None)
    expect(wrong is None, f"the byte at {wrong} is not what was written")


@promise
def zero_makes_zeros(bench: Bench) -> None:
    """A range that was zeroed in the middle of data reads as zeros, durably, and its neighbours stay."""
    name = bench.new_volume(bench.driver())
    content = bytearray(pattern(bench.size_bytes))
    bench.write(name, (0, bytes(content)))
    start, length = bench.size_bytes // 4, bench.size_bytes // 2
    with bench.open(bench.driver(), name, OpenMode.WRITE) as port:
        port.zero(start, length)
        port.flush()
    content[start : start + length] = bytes(length)
    expect(not any(bench.read(name, start, length)), "the range does not read as zeros")
    expect(bench.read(name) == content, "zeroing changed bytes outside the range")


@promise
def threads_do_not_disturb_each_other(bench: Bench) -> None:
    """Several threads may write, zero and read one port at the same time, on ranges of their own."""
    name = bench.new_volume(bench.driver())
    share = bench.size_bytes // 4
    content = pattern(bench.size_bytes)
    failures: list[str] = []

    with bench.open(bench.driver(), name, OpenMode.WRITE) as port:

        def work(start: int) -> None:
            try:
                for at in range(start, start + share, 33_333):
                    piece = content[at : min(at + 33_333, start + share)]
                    port.zero(at, len(piece))
                    port.write(at, memoryview(piece))
                    if read_range(port, at, len(piece)) != piece:
                        failures.append(f"other bytes were read at {at} than were written")
            except Exception as error:  # Reported by the promise, whatever it is.
                failures.append(str(error))

        threads = [threading.Thread(target=work, args=(share * number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        port.flush()
    expect(not failures, "; ".join(failures[:3]))
    expect(bench.read(name, 0, share * 4) == content[: share * 4], "other bytes are read than were written")


@promise
def far_offsets_are_reached(bench: Bench) -> None:
    """Bytes beyond 4 GiB are where they belong."""
    driver = bench.driver()
    if not bench.is_thin(driver):
        raise PromiseSkipped("a volume that large would take its room; the pool has no thin ones")
    size = 5 * GIB + 12_345
    try:
        name = bench.new_volume(driver, size)
    except (NoSpace, Unsupported) as error:
        raise PromiseSkipped(f"a volume of {size} bytes does not fit: {error.message}") from error
    content = pattern(8 * KIB, "far")
    places = (0, 4 * GIB - 4 * KIB, size - len(content))
    bench.write(name, *((at, content) for at in places))
    for at in places:
        expect(bench.read(name, at, len(content)) == content, f"the bytes written at {at} are not there")


@promise
def writing_needs_the_write_mode(bench: Bench) -> None:
    """A port that was opened for reading refuses to write, zero, or go beyond the end."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    content = pattern(4096)
    bench.write(name, (0, content))
    for mode in (OpenMode.SOURCE, OpenMode.VERIFY):
        with bench.open(driver, name, mode) as port:
            with expect_error(NotPermitted, Unsupported, when=f"write on a port opened as {mode.value}"):
                port.write(0, memoryview(bytes(4096)))
            with expect_error(NotPermitted, Unsupported, when=f"zero on a port opened as {mode.value}"):
                port.zero(0, 4096)
    expect(bench.read(name, 0, 4096) == content, "a refused write changed data")


@promise
def what_was_flushed_can_be_read_beside_the_writer(bench: Bench) -> None:
    """Where the driver says so: a VERIFY port that is open meanwhile sees the bytes, and no hole in their place."""
    driver = bench.driver()
    if not driver.reads_beside_writer:
        raise PromiseSkipped("the driver does not let a volume be read while it is written")
    name = bench.new_volume(driver)
    with (
        bench.open(driver, name, OpenMode.WRITE) as writer,
        bench.open(driver, name, OpenMode.VERIFY) as reader,
    ):
        for at in (0, bench.size_bytes // 2):
            content = pattern(64 * KIB, str(at))
            writer.write(at, memoryview(content))
            writer.flush()
            kinds = {extent.kind for extent in reader.extents(at, len(content))}
            expect(kinds == {ExtentKind.DATA}, f"what was written and flushed at {at} is called a hole")
            expect(read_range(reader, at, len(content)) == content, f"other bytes are read at {at}")


# -- extents -------------------------------------------------------------------------------------------------


@promise
def extents_cover_the_range(bench: Bench) -> None:
    """The extents of any range follow each other without a gap, are not empty, and end with the range."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    size = bench.size_bytes
    bench.write(name, (size // 4, pattern(5000)), (size // 2 + 1, pattern(70_000)))
    with bench.open(driver, name, OpenMode.SOURCE) as port:
        expect(port.size_bytes == size, f"the port has {port.size_bytes} bytes, the volume {size}")
        for offset, length in (
            (0, size),
            (0, 1),
            (size - 1, 1),
            (size // 4 + 7, 3),
            (4097, size // 2),
            (5, 0),
        ):
            extents = list(port.extents(offset, length))
            _expect_cover(extents, offset, length)


def _expect_cover(extents: list[Extent], offset: int, length: int) -> None:
    position = offset
    for extent in extents:
        expect(extent.offset == position, f"an extent begins at {extent.offset} instead of {position}")
        expect(extent.length > 0, f"the extent at {position} has {extent.length} bytes")
        position = extent.end
    expect(position == offset + length, f"the extents end at {position} instead of {offset + length}")


@promise
def holes_hold_no_data(bench: Bench) -> None:
    """Whatever is reported as a hole reads as zeros: data is never in a hole, also after a zero."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    size = bench.size_bytes
    bench.write(name, (0, pattern(100)), (size // 4, pattern(70_001)), (size - 100, pattern(100)))
    with bench.open(driver, name, OpenMode.WRITE) as port:
        port.write(size // 2, memoryview(pattern(40_000)))
        port.zero(size // 4 + 20_000, 30_000)
        # Not flushed: the report must be true of what was written a moment ago, too.
        for extent in port.extents(0, size):
            if extent.kind is ExtentKind.HOLE:
                content = read_range(port, extent.offset, extent.length)
                expect(not any(content), f"the hole at {extent.offset} ({extent.length} bytes) holds data")


@promise
def sparse_volumes_stay_sparse(bench: Bench) -> None:
    """A thin volume takes room for what was written, not for its size."""
    driver = bench.driver()
    if not bench.is_thin(driver):
        raise PromiseSkipped("the pool has no thin volumes")
    size = max(bench.size_bytes, 64 * MIB)
    name = bench.new_volume(driver, size)
    bench.write(name, (size // 2, pattern(4096)))
    allocated = bench.driver().describe(bench.pool, name).allocated_bytes
    if allocated is None:
        raise PromiseSkipped("the storage does not say what a volume takes")
    expect(allocated > 0, "4096 bytes were written and nothing is allocated")
    expect(allocated <= size // 2, f"{allocated} bytes are allocated for 4096 written of {size}")


# -- being in use --------------------------------------------------------------------------------------------


@promise
def exclusive_ports_exclude_each_other(bench: Bench) -> None:
    """While a volume is open for reading as a source or for writing, nobody else can open it as either."""
    one, other = bench.driver(), bench.driver()
    name = bench.new_volume(one)
    for first in (OpenMode.SOURCE, OpenMode.WRITE):
        with bench.open(one, name, first) as port:
            if not port.is_exclusive:
                raise PromiseSkipped("the ports of this pool do not promise to be exclusive")
            for second in (OpenMode.SOURCE, OpenMode.WRITE):
                with expect_error(InUse, when=f"open as {second.value} of what is open as {first.value}"):
                    other.open(bench.pool, name, second).close()
            # A port that was refused, and one for verifying, must not take the lock with them when they go.
            with bench.open(other, name, OpenMode.VERIFY):
                pass
            with expect_error(InUse, when=f"open for writing of what is still open as {first.value}"):
                other.open(bench.pool, name, OpenMode.WRITE).close()


@promise
def close_gives_the_volume_back(bench: Bench) -> None:
    """
    A closed port holds nothing: the volume can be opened again at once, and closing twice is closing
    once.
    """
    name = bench.new_volume(bench.driver())
    for mode in (OpenMode.WRITE, OpenMode.SOURCE, OpenMode.WRITE):
        port = bench.driver().open(bench.pool, name, mode)
        port.close()
        port.close()
    bench.driver().delete(bench.pool, name)


@promise
def open_volume_is_not_deleted(bench: Bench) -> None:
    """A volume that is open for writing is not deleted, and its data stays."""
    name = bench.new_volume(bench.driver())
    content = pattern(4096)
    with bench.open(bench.driver(), name, OpenMode.WRITE) as port:
        if not port.is_exclusive:
            raise PromiseSkipped("the ports of this pool do not promise to be exclusive")
        port.write(0, memoryview(content))
        port.flush()
        with expect_error(InUse, when="delete of a volume that is open for writing"):
            bench.driver().delete(bench.pool, name)
    expect(bench.read(name, 0, 4096) == content, "a refused delete changed data")


@promise
def idle_volume_has_no_users(bench: Bench) -> None:
    """A volume that nobody uses is reported as used by nobody, also when it was open before."""
    driver = bench.driver()
    if driver.capabilities.usage_detection is Support.NONE:
        raise PromiseSkipped("the driver cannot tell who uses a volume")
    name = bench.new_volume(driver)
    bench.write(name, (0, pattern(4096)))
    users = bench.driver().usage(bench.pool, name)
    expect(not users, f"a volume that nobody uses is used by {', '.join(map(str, users))}")


@promise
def new_volume_has_no_snapshots(bench: Bench) -> None:
    """A new volume has no snapshots."""
    driver = bench.driver()
    name = bench.new_volume(driver)
    snapshots = driver.snapshots(bench.pool, name)
    expect(not snapshots, f"a new volume has the snapshots {snapshots}")


# -- native moves --------------------------------------------------------------------------------------------


@promise
def move_to_the_same_pool_is_declined(bench: Bench) -> None:
    """A native move of a pool onto itself is declined, with a reason; nothing is made."""
    driver = bench.driver()
    here = bench.stats(driver).location_info
    answer = driver.plan_move(here, here)
    expect(isinstance(answer, Declined), "plan_move would move a volume onto its own pool")
    expect(bool(answer.reason), "plan_move declines without a reason")
    name, new_name = bench.new_volume(driver), bench.name("new")
    answer = driver.start_move(bench.pool, name, here, bench.pool, new_name)
    expect(isinstance(answer, Declined), "start_move did move a volume onto its own pool")
    with expect_error(NotFound, when="describe of the destination of a declined move"):
        driver.describe(bench.pool, new_name)


@promise
def native_move_keeps_the_source_until_finished(bench: Bench) -> None:
    """
    A native move makes a complete volume, leaves the source readable until it is finished, and can be
    repeated.
    """
    driver, peer, there = _movable(bench)
    name, new_name = bench.new_volume(driver), bench.name("moved")
    content = pattern(bench.size_bytes)
    bench.write(name, (0, content))
    bench.will_move(name, there, peer.pool, new_name)
    for _ in range(2):
        status = _move(driver, bench.pool, name, there, peer.pool, new_name)
        expect(bench.read(name) == content, "the source is not what it was before the move")
        with bench.open(bench.peer_driver(), new_name, OpenMode.SOURCE, peer.pool) as port:
            expect(read_range(port, 0, port.size_bytes) == content, "the destination holds other bytes")
    for _ in range(2):
        driver.finish_move(bench.pool, name, there, peer.pool, new_name)
    if not status.plan.keeps_source:
        with expect_error(NotFound, when="describe of the source after the move was finished"):
            driver.describe(bench.pool, name)
    found = bench.peer_driver().describe(peer.pool, new_name)
    expect(found.size_bytes == bench.size_bytes, f"the moved volume has {found.size_bytes} bytes")


@promise
def native_move_does_not_replace(bench: Bench) -> None:
    """A native move to a name that is taken by another volume is refused, and that volume stays as it was."""
    driver, peer, there = _movable(bench)
    name, taken = bench.new_volume(driver), bench.name("taken")
    other = bench.peer_driver()
    other.create(
        peer.pool, taken, bench.size_bytes, thin=bench.stats(other, peer.pool).thin_provisioning_support
    )
    content = pattern(4096, "taken")
    with bench.open(other, taken, OpenMode.WRITE, peer.pool) as port:
        port.write(0, memoryview(content))
        port.flush()
    with expect_error(AlreadyExists, when="start_move to a name that is taken"):
        driver.start_move(bench.pool, name, there, peer.pool, taken)
    with bench.open(other, taken, OpenMode.SOURCE, peer.pool) as port:
        expect(read_range(port, 0, 4096) == content, "the volume that was in the way was changed")


@promise
def cancelled_move_leaves_nothing(bench: Bench) -> None:
    """A native move that was cancelled leaves the source as it was, and nothing at the destination."""
    driver, peer, there = _movable(bench)
    name, new_name = bench.new_volume(driver), bench.name("moved")
    content = pattern(4096)
    bench.write(name, (0, content))
    bench.will_move(name, there, peer.pool, new_name)
    driver.start_move(bench.pool, name, there, peer.pool, new_name)
    other = bench.peer_driver()
    for _ in range(2):
        driver.cancel_move(bench.pool, name, there, peer.pool, new_name)
        other.delete(peer.pool, new_name)
    with expect_error(NotFound, when="describe of the destination of a cancelled move"):
        other.describe(peer.pool, new_name)
    expect(bench.read(name, 0, 4096) == content, "the cancelled move changed the source")


def _movable(bench: Bench) -> tuple[Driver, Peer, dict]:
    """Return the driver, the other pool and where that is; skip when there is no native move to it."""
    driver = bench.driver()
    if driver.capabilities.move is Support.NONE:
        raise PromiseSkipped("the driver has no native moves")
    other = bench.peer_driver()
    assert bench.peer is not None, "peer_driver() has skipped otherwise"
    there = dict(bench.stats(other, bench.peer.pool).location_info)
    plan = driver.plan_move(bench.stats(driver).location_info, there)
    if isinstance(plan, Declined):
        raise PromiseSkipped(plan.reason)
    return driver, bench.peer, there


def _move(driver: Driver, pool: str, name: str, there: dict, other_pool: str, new_name: str) -> MoveStatus:
    status = driver.start_move(pool, name, there, other_pool, new_name)
    if isinstance(status, Declined):
        raise PromiseSkipped(status.reason)
    for _ in range(1000):
        if status.is_finished:
            return status
        status = driver.poll_move(pool, name, there, other_pool, new_name)
    expect(False, "the move is not finished after it was looked at 1000 times")
    return status
