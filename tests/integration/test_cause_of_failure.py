"""A failed migration says why it failed, whatever went wrong while it was undone."""

from __future__ import annotations

import pytest

from backends.drivers.directory import DirectoryDriver
from backends.drivers.errors import ConnectionLost, CorruptData
from backends.drivers.local_file_port import LocalFilePort
from migrations_app import services
from migrations_app.services import Options
from migrations_app.states import State

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def broken(two_backends, make_volume, actor, monkeypatch):
    """Return a migration to a disk with a bad block."""

    def write(*_):
        raise CorruptData("A bad block.")

    monkeypatch.setattr(LocalFilePort, "write", write)
    volume = make_volume(two_backends[0])
    return services.request_migration(volume, two_backends[1].address, actor, Options(force_host_copy=True))


def test_undo_that_is_tried_again_does_not_hide_the_cause(broken, monkeypatch, run_to_end):
    real, calls = DirectoryDriver._delete, []

    def delete(*arguments):
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionLost("The share is away.")
        return real(*arguments)

    monkeypatch.setattr(DirectoryDriver, "_delete", delete)
    migration = run_to_end(broken)
    assert len(calls) == 2
    assert (migration.state, migration.error_code) == (State.FAILED, "corrupt_data")
    assert "A bad block." in migration.error_text


def test_decision_about_the_undo_does_not_hide_the_cause(broken, monkeypatch, run_to_end, actor):
    def delete(*_):
        raise CorruptData("The directory is damaged.")

    with monkeypatch.context() as undo:
        undo.setattr(DirectoryDriver, "_delete", delete)
        migration = run_to_end(broken)
    assert migration.state == State.NEEDS_OPERATOR
    assert "The directory is damaged." in migration.error_text
    migration = run_to_end(services.retry_migration(migration, actor))
    assert (migration.state, migration.error_code) == (State.FAILED, "corrupt_data")
    assert "A bad block." in migration.error_text
