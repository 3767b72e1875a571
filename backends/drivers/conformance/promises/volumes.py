"""Volumes are made, found, renamed, extended and deleted; what is bad or gone is refused."""

from __future__ import annotations

from collections.abc import Callable

from backends.drivers.conformance.bench import Bench, PromiseSkipped, expect, expect_error
from backends.drivers.conformance.promises.listing import pattern, promise
from backends.drivers.errors import AlreadyExists, NotFound, Permanent, Unsupported
from backends.drivers.types import KIB, MIB, OpenMode

_ODD_SIZES = (1, 4097, MIB + 511)


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
