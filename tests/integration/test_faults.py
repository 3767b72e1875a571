"""
The real steps on real files, hit at every boundary by every kind of fault, until they come to rest.

`VOLMIG_FAULTS=all` hits every boundary (`make test-faults`); otherwise every fourth.  The counts are printed at the end
of the run.
"""

from __future__ import annotations

import logging
import math
import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.db import connection

from backends.drivers.errors import ConnectionLost, CorruptData, NoSpace, TimedOut
from migrations_app import lease, services, steps, worker
from migrations_app.copying import read_behind
from migrations_app.copying.read_behind import ReadBehind
from migrations_app.errors import NotNow
from migrations_app.models import JournalEntry, VolumeMigration
from migrations_app.services import Options
from migrations_app.states import State
from tests.conftest import digest, object_path
from tests.integration.boundaries import BLOCK, SEGMENT, Boundaries, Killed, small_segments

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

STRIDE = 1 if os.environ.get("VOLMIG_FAULTS") == "all" else 4
SIZE = 3 * SEGMENT + 17
MOVED = {State.RETAINED, State.DONE}
READ_BEHIND = "copied, and read back meanwhile"
WAYS = {
    "copied": Options(force_host_copy=True, delete_source=True),
    "copied and kept": Options(force_host_copy=True),
    READ_BEHIND: Options(force_host_copy=True, delete_source=True),
    "moved natively": Options(),
}


class Prompt(ReadBehind):
    """Has read, whenever it is asked, all that it was offered."""

    def take(self):
        with self._changed:
            while self._thread and self._thread.is_alive() and self._next_segment < self._end_segment:
                self._changed.wait(0.05)
        return super().take()


@dataclass
class Ground:
    """Two directories, and a way to let one volume move from one to the other."""

    boundaries: Boundaries
    make_volume: object
    backends: tuple
    actor: services.Actor
    counted: Counter

    def live(self, options: Options, at: int = 0, act=lambda migration: None) -> VolumeMigration:
        """Migrate a new volume; `act` is called at boundary *at*.  Return the migration at rest, checked."""
        self.counted["lives"] += 1
        self.boundaries.reset()
        volume = self.make_volume(self.backends[0], f"v{self.counted['lives']}", SIZE, filled=False)
        path = object_path(volume)
        chance = random.Random(at)
        with path.open("r+b") as file:
            file.write(chance.randbytes(BLOCK + 5))
            file.seek(2 * SEGMENT - 100)
            file.write(chance.randbytes(200) + bytes(2 * BLOCK))
        before = digest(path)
        migration = services.request_migration(volume, "testhost@b", self.actor, options)
        self.boundaries.reset(at, lambda: act(migration))
        for _ in range(60):
            try:
                worker.advance(migration.pk)
            except Killed:
                self.counted["deaths"] += 1
            except Exception:
                # What the queue's task would log: the worker gives up without a word.
                self.counted["given up"] += 1
            migration.refresh_from_db()
            where = f"{self.boundaries.label}, {migration.state}: {migration.error_text}"
            assert digest(object_path(volume)) == before, f"{where}: the record points at other data"
            if not migration.is_working:
                self._require_clean(migration, volume, where)
                path.unlink(missing_ok=True)
                object_path(volume).unlink(missing_ok=True)
                return migration
        raise AssertionError(f"{where}: it never ends")

    def _require_clean(self, migration: VolumeMigration, volume, where: str) -> None:
        destination = self.backends[1].options["path"]
        left = [p for p in Path(destination).iterdir() if str(migration.pk) in p.name]
        has_moved = object_path(volume).parent == Path(destination)
        assert migration.data_location, where
        if migration.state == State.NEEDS_OPERATOR:
            assert migration.error_text, where
            if left and not has_moved:
                assert migration.destination_object_name in migration.data_location, where
            return
        assert left == ([object_path(volume)] if has_moved else []), where
        assert has_moved == (migration.state in MOVED), where
        assert (volume.locked_by_migration, migration.locks_volume) == (None, False), where
        assert (migration.owner, migration.lease_expires_at) == ("", None), where
        if migration.state in MOVED and migration.method == "generic copy":
            assert migration.source_digest == migration.destination_digest != "", where
        source = Path(self.backends[0].options["path"]) / f"{migration.source_object_name}.raw"
        assert source.exists() == (migration.state != State.DONE), where

    def hit_all(self, options: Options, act, *, is_thorough: bool = False) -> Counter:
        """
        Return how often it ended how, with `act` done at each boundary in turn.

        Without *is_thorough* what a step passes several times, such as the write of a block, is hit once.
        """
        calm = self.live(options)
        labels = list(self.boundaries.passed)
        ended: Counter = Counter()
        for at, label in enumerate(labels, start=1):
            if at % STRIDE or (not is_thorough and label in labels[: at - 1]):
                continue
            migration = self.live(options, at, act)
            self.counted["boundaries"] += 1
            ended[State(migration.state)] += 1
            if migration.state != calm.state:
                print(f"{label}: {migration.state}: {migration.error_text}")
        assert self.boundaries.illegal_moves == []
        print(f"{self.counted} {ended}")
        return ended


@pytest.fixture
def directories(tmp_path) -> Iterator[Path]:
    """A place in memory where there is one: thousands of files are made durable here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as path:
        yield Path(path)


@pytest.fixture
def ground(request, directories, make_backend, make_volume, actor, monkeypatch, settings) -> Iterator[Ground]:
    backends = (make_backend("a", directories / "a"), make_backend("b", directories / "b"))
    if connection.vendor == "sqlite":
        connection.cursor().execute("PRAGMA synchronous=OFF")
    logging.getLogger("migrations_app").setLevel(logging.CRITICAL)
    settings.VOLMIG_CHECKPOINT_SECONDS = 0
    settings.VOLMIG_RETRY_SECONDS = 0
    # The process that is simulated to be dead is this one.
    monkeypatch.setattr(lease, "is_dead", lambda owner: True)
    # Never, or always and at once, so that the boundaries are the same each time.
    is_read_behind = READ_BEHIND in getattr(getattr(request.node, "callspec", None), "params", {}).values()
    monkeypatch.setattr(read_behind, "SLOW_SOURCE_SHARE", 0.0 if is_read_behind else math.inf)
    monkeypatch.setattr(steps, "ReadBehind", Prompt)
    boundaries = Boundaries()
    boundaries.watch(monkeypatch)
    counted: Counter = Counter()
    with small_segments():
        yield Ground(boundaries, make_volume, backends, actor, counted)
    request.node.user_properties.append(("faults", [connection.vendor, dict(counted)]))
    logging.getLogger("migrations_app").setLevel(logging.INFO)
    if connection.vendor == "sqlite":
        connection.cursor().execute("PRAGMA synchronous=FULL")


def _raise(error: BaseException):
    def act(_: VolumeMigration) -> None:
        raise error

    return act


@pytest.mark.parametrize("way", WAYS)
def test_calm_migration_ends_moved(ground, way):
    assert ground.live(WAYS[way]).state in MOVED
    assert ground.boundaries.illegal_moves == []


@pytest.mark.parametrize("way", WAYS)
def test_death_at_any_boundary_changes_nothing_in_the_end(ground, way):
    ended = ground.hit_all(WAYS[way], _raise(Killed()), is_thorough=way != "copied and kept")
    assert set(ended) <= MOVED
    assert ground.counted["deaths"] == ground.counted["boundaries"] > 30 // STRIDE


@pytest.mark.parametrize(
    "error",
    [ConnectionLost("gone"), TimedOut("no answer"), RuntimeError("nobody thought of this")],
    ids=["connection lost", "lost reply", "unforeseen"],
)
@pytest.mark.parametrize("way", ["copied", READ_BEHIND, "moved natively"])
def test_failure_that_passes_at_any_boundary_is_only_a_delay(ground, way, error):
    assert set(ground.hit_all(WAYS[way], _raise(error))) <= MOVED


@pytest.mark.parametrize(
    "error", [NoSpace("full"), CorruptData("bad block")], ids=["no space", "corrupt data"]
)
@pytest.mark.parametrize("way", ["copied", READ_BEHIND, "moved natively"])
def test_failure_for_good_at_any_boundary_leaves_the_volume_somewhere_complete(ground, way, error):
    ended = ground.hit_all(WAYS[way], _raise(error))
    assert ended[State.FAILED] > 10 // STRIDE
    assert set(ended) <= MOVED | {State.FAILED, State.NEEDS_OPERATOR}


@pytest.mark.parametrize("way", ["copied", "moved natively"])
def test_accepted_cancel_at_any_boundary_is_a_cancelled_migration(ground, way, monkeypatch):
    # The worker does not look by itself: only the moments at which it must look are left.
    monkeypatch.setattr(lease, "WISHES_SECONDS", 3600)
    answers: dict[str, bool | None] = {}

    def cancel(migration: VolumeMigration) -> None:
        answers[str(migration.pk)] = None
        if connection.in_atomic_block or connection.connection is None:
            # Inside a transaction of the worker, or in one of its threads: nobody else's request comes from there.
            return
        try:
            services.cancel_migration(migration, ground.actor)
            answers[str(migration.pk)] = True
        except NotNow:
            answers[str(migration.pk)] = False

    ground.hit_all(WAYS[way], cancel)
    wrong = [
        (m.pk, m.state, accepted)
        for m in VolumeMigration.objects.all()
        if (accepted := answers.get(str(m.pk))) is not None and accepted != (m.state == State.CANCELLED)
    ]
    assert wrong == []
    assert Counter(answers.values())[True] > 10 // STRIDE


def test_death_and_then_a_failure_for_good_leaves_nothing(ground):
    """The second boundary is hit while the undo of the first failure runs."""
    for first in range(1, 60, 7 * STRIDE):
        for second in range(first + 1, first + 30, 5):

            def fail_then_die(migration, second=second) -> None:
                ground.boundaries.at = second
                ground.boundaries.act = lambda: _raise(Killed())(migration)
                raise CorruptData("bad block")

            assert ground.live(WAYS["copied"], first, fail_then_die).state != State.QUEUED


def test_every_death_is_in_the_journal(ground):
    migration = ground.live(WAYS["copied"], 20, _raise(Killed()))
    (entry,) = JournalEntry.objects.filter(migration=migration, kind="interrupted")
    assert "stopped without a word" in entry.text
