"""Every promise of the conformance suite is broken by a driver that does not keep it."""

import dataclasses
import itertools
import time
import uuid

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.conformance import PROMISES, run_promises
from backends.drivers.errors import ConnectionLost, NotFound, NotReady
from backends.drivers.fake import PAGE_BYTES, FakeDriver, FakeOptions, FakePort, FakeStore, FakeVolume
from backends.drivers.ports import Extent, ExtentKind
from backends.drivers.types import Declined, MovePlan, MoveStatus, OpenMode, Usage

#: (promise that must be broken, driver that breaks it)
BROKEN = []
_counter = itertools.count()


def breaks(*promises):
    def put_on_list(cls):
        BROKEN.extend((promise, cls) for promise in promises)
        return cls

    return put_on_list


class PortDriver(FakeDriver):
    """A driver whose ports are of another class."""

    port_class = FakePort

    def _open(self, pool, name, mode):
        port = super()._open(pool, name, mode)
        port.__class__ = self.port_class
        return port


# -- the backend ---------------------------------------------------------------------------------------------


@breaks("check_can_be_repeated")
class ChecksOnce(FakeDriver):
    def check(self):
        if self.__dict__.setdefault("was_checked", False):
            raise NotReady("checked already")
        self.was_checked = True


class ChangedStats(FakeDriver):
    def change(self, stats):
        raise NotImplementedError

    def pools(self):
        return [dataclasses.replace(stats, **self.change(stats)) for stats in super().pools()]


@breaks("statistics_are_sane")
class MoreFreeThanThereIs(ChangedStats):
    def change(self, stats):
        return {"free_bytes": stats.total_bytes + 1}


@breaks("statistics_are_sane")
class NegativeRoom(ChangedStats):
    def change(self, stats):
        return {"free_bytes": -1}


@breaks("statistics_follow_volumes")
class StandingCount(ChangedStats):
    def change(self, stats):
        return {"volume_count": 0}


@breaks("statistics_follow_volumes")
class StandingSum(ChangedStats):
    def change(self, stats):
        return {"provisioned_bytes": 0}


@breaks("storage_id_is_stable")
class NewIdentityEachTime(ChangedStats):
    def change(self, stats):
        return {"storage_id": str(next(_counter))}


@breaks("storage_id_is_stable")
class OneIdentityForAll(ChangedStats):
    def change(self, stats):
        return {"storage_id": "same"}


@breaks("location_info_is_json")
class LocationWithAnObject(ChangedStats):
    def change(self, stats):
        return {"location_info": {**stats.location_info, "extra": object()}}


@breaks("location_info_is_json")
class LocationWithoutVersion(ChangedStats):
    def change(self, stats):
        return {"location_info": {"driver": self.name}}


# -- reading beside a writer ---------------------------------------------------------------------------------


@breaks("what_was_flushed_can_be_read_beside_the_writer")
class SeesTheVolumeAsItWasOpened(FakeDriver):
    def _open(self, pool, name, mode):
        port = super()._open(pool, name, mode)
        if mode is OpenMode.VERIFY:
            port._volume = dataclasses.replace(port._volume, pages=dict(port._volume.pages))
            port._check = lambda offset, length: None
        return port


class OldMapPort(FakePort):
    def extents(self, offset, length):
        if self._mode is OpenMode.VERIFY:
            self.__dict__.setdefault("known", list(super().extents(0, self.size_bytes)))
            yield from self.known
            return
        yield from super().extents(offset, length)


@breaks("what_was_flushed_can_be_read_beside_the_writer")
class KnowsHolesFromTheBeginning(PortDriver):
    port_class = OldMapPort

    def _open(self, pool, name, mode):
        port = super()._open(pool, name, mode)
        list(port.extents(0, port.size_bytes))
        return port


# -- names and sizes -----------------------------------------------------------------------------------------


@breaks("created_volume_is_found")
class ListsNothing(FakeDriver):
    def _list_volumes(self, pool):
        return iter(())


@breaks("created_volume_is_found", "sizes_are_exact", "ensure_twice_is_ensure_once")
class RoundsUp(FakeDriver):
    def _create(self, pool, name, size_bytes, thin):
        return super()._create(pool, name, size_bytes // 2**20 * 2**20 + 2**20, thin)


@breaks("size_zero_is_refused")
class MakesEmptyVolumes(FakeDriver):
    def create(self, pool, name, size_bytes, *, thin=True):
        return self._create(pool, name, size_bytes, thin)


@breaks("names_that_are_paths_or_flags_are_refused")
class AnyName(FakeDriver):
    def _check_names(self, pool, name):
        pass


@breaks("create_does_not_replace")
class Replaces(FakeDriver):
    def _create(self, pool, name, size_bytes, thin):
        self.store.volumes.pop((pool, name), None)
        return super()._create(pool, name, size_bytes, thin)


@breaks("create_does_not_replace")
class WipesBeforeRefusing(FakeDriver):
    def _create(self, pool, name, size_bytes, thin):
        if (pool, name) in self.store.volumes:
            self.store.volumes[pool, name].pages.clear()
        return super()._create(pool, name, size_bytes, thin)


@breaks("ensure_twice_is_ensure_once")
class EnsuresAnew(FakeDriver):
    def ensure(self, pool, name, size_bytes, *, thin=True):
        self.store.volumes.pop((pool, name), None)
        return self.create(pool, name, size_bytes, thin=thin)


@breaks("ensure_of_another_size_is_refused")
class EnsuresAnySize(FakeDriver):
    def ensure(self, pool, name, size_bytes, *, thin=True):
        return self._describe(pool, name)


@breaks("thick_volumes_take_their_room")
class AlwaysThin(FakeDriver):
    def _create(self, pool, name, size_bytes, thin):
        return super()._create(pool, name, size_bytes, True)


@breaks("missing_volume_is_not_found")
class MakesWhatItLooksFor(FakeDriver):
    def _find(self, pool, name, operation):
        if operation == "open":
            self.store.volumes.setdefault((pool, name), FakeVolume(name, 4096, True))
        return super()._find(pool, name, operation)


@breaks("delete_twice_is_delete_once")
class DeletesOnce(FakeDriver):
    def delete(self, pool, name):
        self._delete(pool, name)


@breaks("delete_twice_is_delete_once")
class DeletesNothing(FakeDriver):
    def _delete(self, pool, name):
        pass


@breaks("delete_twice_is_delete_once")
class DeletesNeighbours(FakeDriver):
    def _delete(self, pool, name):
        super()._delete(pool, name)
        self.store.volumes.clear()


@breaks("identity_changes_with_the_volume")
class IdentityIsTheName(FakeDriver):
    def _describe(self, pool, name):
        return dataclasses.replace(super()._describe(pool, name), identity=name)


@breaks("rename_keeps_the_data", "identity_changes_with_the_volume")
class RenamesToAnEmptyOne(FakeDriver):
    def _rename(self, pool, name, new_name):
        old = self._find(pool, name, "rename")
        super()._create(pool, new_name, old.size_bytes, True)
        super()._delete(pool, name)


@breaks("rename_keeps_the_data")
class KeepsTheOldName(FakeDriver):
    def _rename(self, pool, name, new_name):
        super()._rename(pool, name, new_name)
        self.store.volumes[pool, name] = self.store.volumes[pool, new_name]


@breaks("rename_does_not_replace")
class RenamesOverOthers(FakeDriver):
    def _rename(self, pool, name, new_name):
        if name != new_name:
            self.store.volumes.pop((pool, new_name), None)
        super()._rename(pool, name, new_name)


@breaks("rename_does_not_replace")
class RenamesOntoItself(FakeDriver):
    def _rename(self, pool, name, new_name):
        if name != new_name:
            super()._rename(pool, name, new_name)


@breaks("extended_volume_keeps_its_data")
class ForgetsWhenExtended(FakeDriver):
    def _extend(self, pool, name, size_bytes):
        self._find(pool, name, "extend").pages.clear()
        return super()._extend(pool, name, size_bytes)


@breaks("snapshots_come_and_go")
class KeepsSnapshots(FakeDriver):
    def _delete_snapshot(self, pool, name, snapshot):
        pass


# -- data ----------------------------------------------------------------------------------------------------


class OldDataPort(FakePort):
    def read_into(self, offset, buffer):
        if not self._volume.pages:
            buffer[:] = b"\x01" * len(buffer)
        else:
            super().read_into(offset, buffer)


@breaks("new_volume_reads_as_zeros")
class OldDataShines(PortDriver):
    port_class = OldDataPort


class LosingPort(FakePort):
    def close(self):
        self._volume.pages.pop(0, None)
        super().close()


@breaks("flushed_data_is_read_back")
class LosesOnClose(PortDriver):
    port_class = LosingPort


class LatePort(FakePort):
    """Writes when it is closed."""

    def write(self, offset, buffer):
        self.__dict__.setdefault("late", []).append((offset, bytes(buffer)))

    def close(self):
        for offset, content in self.__dict__.pop("late", []):
            super().write(offset, memoryview(content))
        super().close()


@breaks("data_is_read_back_while_open")
class WritesLate(PortDriver):
    port_class = LatePort


class WholePagesPort(FakePort):
    def write(self, offset, buffer):
        start = offset // PAGE_BYTES * PAGE_BYTES
        end = min(self.size_bytes, -(-(offset + len(buffer)) // PAGE_BYTES) * PAGE_BYTES)
        padded = bytes(offset - start) + bytes(buffer)
        super().write(start, memoryview(padded + bytes(end - start - len(padded))))


@breaks("edges_are_kept")
class WritesWholePages(PortDriver):
    port_class = WholePagesPort


class LazyZeroPort(FakePort):
    def zero(self, offset, length):
        self._check_writable("zero")


@breaks("zero_makes_zeros")
class ZeroDoesNothing(PortDriver):
    port_class = LazyZeroPort


class WideZeroPort(FakePort):
    def zero(self, offset, length):
        super().zero(offset, min(self.size_bytes - offset, length + 1))


@breaks("zero_makes_zeros", "edges_are_kept")
class ZeroesTooMuch(PortDriver):
    port_class = WideZeroPort


class SeekingPort(FakePort):
    """Has one position for all threads, as a file descriptor has."""

    def write(self, offset, buffer):
        self._volume.position = offset
        for at in range(0, len(buffer), 997):
            place, piece = self._volume.position, buffer[at : at + 997]
            super().write(place, piece)
            self._volume.position = place + len(piece)
            # Lets the other threads have their turn.
            time.sleep(0.0001)


@breaks("threads_do_not_disturb_each_other")
class OnePositionForAll(PortDriver):
    port_class = SeekingPort


class ThirtyTwoBitPort(FakePort):
    def write(self, offset, buffer):
        super().write(offset % 2**32, buffer)


@breaks("far_offsets_are_reached")
class ThirtyTwoBits(PortDriver):
    port_class = ThirtyTwoBitPort


class AlwaysWritablePort(FakePort):
    def _check_writable(self, operation):
        pass


@breaks("writing_needs_the_write_mode")
class AlwaysWritable(PortDriver):
    port_class = AlwaysWritablePort


# -- extents -------------------------------------------------------------------------------------------------


class WholePageExtentsPort(FakePort):
    def extents(self, offset, length):
        start = offset // PAGE_BYTES * PAGE_BYTES
        return super().extents(start, offset + length - start)


@breaks("extents_cover_the_range")
class ExtentsBeginTooEarly(PortDriver):
    port_class = WholePageExtentsPort


class HolesLeftOutPort(FakePort):
    def extents(self, offset, length):
        return (extent for extent in super().extents(offset, length) if extent.kind is ExtentKind.DATA)


@breaks("extents_cover_the_range")
class LeavesHolesOut(PortDriver):
    port_class = HolesLeftOutPort


class AllHolesPort(FakePort):
    def extents(self, offset, length):
        if length:
            yield Extent(offset, length, ExtentKind.HOLE)


@breaks("holes_hold_no_data")
class CallsDataAHole(PortDriver):
    port_class = AllHolesPort


@breaks("sparse_volumes_stay_sparse")
class SecretlyThick(FakeDriver):
    def _create(self, pool, name, size_bytes, thin):
        return super()._create(pool, name, size_bytes, False)


# -- being in use --------------------------------------------------------------------------------------------


@breaks("exclusive_ports_exclude_each_other", "open_volume_is_not_deleted")
class LocksNothing(FakeDriver):
    def _open(self, pool, name, mode):
        self._find(pool, name, "open").holder = None
        port = super()._open(pool, name, mode)
        self._find(pool, name, "open").holder = None
        return port


class ForgetfulPort(FakePort):
    """Takes everybody's lock with it, as a POSIX lock does."""

    def close(self):
        self._volume.holder = None
        super().close()


@breaks("exclusive_ports_exclude_each_other")
class DropsLocksOfOthers(PortDriver):
    port_class = ForgetfulPort


class StickyPort(FakePort):
    def close(self):
        pass


@breaks("close_gives_the_volume_back")
class NeverClosed(PortDriver):
    port_class = StickyPort


@breaks("open_volume_is_not_deleted")
class DeletesWhatIsOpen(FakeDriver):
    def _delete(self, pool, name):
        self._find(pool, name, "delete").holder = None
        super()._delete(pool, name)


@breaks("idle_volume_has_no_users")
class SeesItself(FakeDriver):
    def _usage(self, pool, name):
        return [Usage("process 1 (volmig)", "has it open")]


@breaks("new_volume_has_no_snapshots")
class InventsSnapshots(FakeDriver):
    def _snapshots(self, pool, name):
        return ["daily"]


# -- native moves --------------------------------------------------------------------------------------------


@breaks("move_to_the_same_pool_is_declined")
class MovesInPlace(FakeDriver):
    @classmethod
    def plan_move(cls, source, destination):
        return MovePlan("fake", keeps_source=True)


@breaks("move_to_the_same_pool_is_declined")
class DeclinesWithoutReason(FakeDriver):
    @classmethod
    def plan_move(cls, source, destination):
        plan = super().plan_move(source, destination)
        return Declined("") if isinstance(plan, Declined) else plan


@breaks("native_move_keeps_the_source_until_finished", "cancelled_move_leaves_nothing")
class MovesTooEarly(FakeDriver):
    def _start_move(self, pool, name, destination, destination_pool, new_name):
        status = super()._start_move(pool, name, destination, destination_pool, new_name)
        self.store.volumes.pop((pool, name), None)
        return status


@breaks("native_move_keeps_the_source_until_finished")
class MovesOnce(FakeDriver):
    def _start_move(self, pool, name, destination, destination_pool, new_name):
        self._refuse_existing(destination_pool, new_name, "start_move")
        return super()._start_move(pool, name, destination, destination_pool, new_name)


@breaks("native_move_keeps_the_source_until_finished")
class CallsNothingFinished(FakeDriver):
    def _start_move(self, pool, name, destination, destination_pool, new_name):
        return MoveStatus(MovePlan("fake", keeps_source=True), is_finished=True)


@breaks("native_move_does_not_replace")
class MovesOverOthers(FakeDriver):
    def _start_move(self, pool, name, destination, destination_pool, new_name):
        made = self.store.volumes.get((destination_pool, new_name))
        if made is not None and not made.moved_from:
            del self.store.volumes[destination_pool, new_name]
        return super()._start_move(pool, name, destination, destination_pool, new_name)


@breaks("cancelled_move_leaves_nothing")
class CancelDeletesTheSource(FakeDriver):
    def cancel_move(self, pool, name, destination, destination_pool, new_name):
        super().cancel_move(pool, name, destination, destination_pool, new_name)
        self.store.volumes.pop((pool, name), None)


# -- the tests -----------------------------------------------------------------------------------------------


def run(cls, promise):
    options = FakeOptions(store=uuid.uuid4().hex, pools="main,other")
    (result,) = run_promises(lambda: cls(DriverContext("h@fake", "h", options)), "main", only={promise})
    return result, FakeStore.named(options.store)


@pytest.mark.parametrize(("promise", "cls"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_broken_driver_fails(promise, cls):
    result, _ = run(cls, promise)
    assert not result.passed, f"{cls.__name__} passed '{result.promise}'"
    assert result.outcome == "broken"
    assert result.error_text


def test_every_promise_is_broken_by_a_driver():
    assert {promise.__name__ for promise in PROMISES} == {promise for promise, _ in BROKEN}


def test_every_promise_is_one_sentence():
    for promise in PROMISES:
        text = " ".join(promise.__doc__.split())
        assert text.endswith("."), promise.__name__
        assert text.count(". ") == 0, promise.__name__


def test_broken_promise_is_cleaned_up_after():
    _, store = run(WritesWholePages, "edges_are_kept")
    assert store.volumes == {}


def test_what_cannot_be_removed_is_reported():
    class DeletesFail(FakeDriver):
        def _delete(self, pool, name):
            raise ConnectionLost("the storage is gone")

    result, _ = run(DeletesFail, "created_volume_is_found")
    assert not result.passed
    assert "could not be deleted: the storage is gone" in result.error_text


def test_error_that_is_none_of_the_contract_is_named():
    class Crashes(FakeDriver):
        def _describe(self, pool, name):
            raise KeyError(name)

    result, store = run(Crashes, "created_volume_is_found")
    assert "KeyError, which is no DriverError" in result.error_text
    assert store.volumes == {}


def test_backend_that_is_not_ready_fails_every_promise():
    class NeverReady(FakeDriver):
        def check(self):
            raise NotReady("no such directory")

    options = FakeOptions(store=uuid.uuid4().hex)
    results = list(run_promises(lambda: NeverReady(DriverContext("h@f", "h", options)), "main"))
    assert len(results) == len(PROMISES)
    assert all("NotReady: no such directory" in result.error_text for result in results)


def test_only_objects_of_the_suite_are_touched():
    options = FakeOptions(store=uuid.uuid4().hex, pools="main,other")

    def make():
        return FakeDriver(DriverContext("h@fake", "h", options))

    driver = make()
    driver.create("main", "precious", 4096)
    with driver.open("main", "precious", OpenMode.WRITE) as port:
        port.write(0, memoryview(b"data"))
    names = []
    real = FakeStore.named(options.store).volumes
    for result in run_promises(make, "main"):
        assert result.passed, result.error_text
        names += [name for _, name in real]
    assert set(names) == {"precious"}
    assert real["main", "precious"].pages[0].startswith(b"data")
    with pytest.raises(NotFound):
        driver.describe("main", "gone")
