"""Moving a volume from the command line."""

from __future__ import annotations

import os
import threading

import pytest
from django.utils import timezone
from django_q.models import OrmQ

from backends import services as inventory
from backends.models import Backend, Snapshot
from migrations_app import draining, services
from migrations_app.cli import follow as cli_follow
from migrations_app.models import VolumeMigration, WorkerHost
from tests.conftest import HOST, digest, object_path

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def volume(two_backends, make_volume):
    return make_volume(two_backends[0])


def migration() -> VolumeMigration:
    return VolumeMigration.objects.get()


@pytest.fixture
def after_request(monkeypatch):
    """Return a function: what is given to it happens as soon as the migration was accepted."""

    def register(work):
        real = services.request_migration

        def request(*args, **kwargs):
            accepted = real(*args, **kwargs)
            work(accepted)
            return accepted

        monkeypatch.setattr(services, "request_migration", request)

    return register


# -- without waiting ------------------------------------------------------------------------------------------


def test_it_is_accepted_and_says_how_to_follow(run, volume):
    ran = run("migrate_volume", volume.name, "--to", f"{HOST}@b", "--bandwidth", "100MiB")
    assert ran.code == 0
    assert str(migration().pk) in ran.out
    assert f"cancel_migration {str(migration().pk)[:8]}" in ran.out
    assert migration().requested_via == "command"
    assert migration().bandwidth_bytes_per_second == 100 * 2**20
    assert OrmQ.objects.count() == 1


def test_json_is_the_migration(run, volume):
    ran = run("migrate_volume", str(volume.pk), "--to", f"{HOST}@b#main", "--json")
    assert ran.document["id"] == str(migration().pk)
    assert ran.document["state"] == "queued"


def test_a_dry_run_changes_nothing(run, volume):
    ran = run("migrate_volume", volume.name, "--to", f"{HOST}@b", "--dry-run", "--json")
    assert ran.code == 0
    assert ran.document["accepted"] is True
    assert ran.document["verdict"]["destination"] == f"{HOST}@b#main"
    assert "Nothing was changed" in run("migrate_volume", volume.name, "--to", f"{HOST}@b", "--dry-run").out
    assert not VolumeMigration.objects.exists()
    assert not OrmQ.objects.exists()


@pytest.mark.parametrize("extra", [[], ["--dry-run"], ["--wait"]])
def test_a_refusal_tells_every_reason_and_exits_3(run, volume, extra):
    inventory.attach(volume, "web-server")
    Snapshot.objects.create(volume=volume, name="monday")
    Backend.objects.filter(name="b").update(is_enabled=False, disabled_reason="new disks")
    ran = run("migrate_volume", volume.name, "--to", f"{HOST}@b", "--json", *extra)
    assert ran.code == 3
    reasons = ran.document["error"]["reasons"]
    assert {r["code"] for r in reasons} >= {"attached", "has_snapshots", "pool_disabled"}
    for reason in reasons:
        assert reason["text"] in ran.err
        assert reason["remedy"] in ran.err
    assert not VolumeMigration.objects.exists()


def test_a_refusal_names_where_it_could_go(run, volume, make_backend):
    make_backend("c")
    Backend.objects.filter(name="b").update(is_enabled=False)
    ran = run("migrate_volume", volume.name, "--to", f"{HOST}@b")
    assert f"It could go to: {HOST}@c#main." in ran.err


def test_a_second_request_exits_3(run, volume):
    assert run("migrate_volume", volume.name, "--to", f"{HOST}@b").code == 0
    ran = run("migrate_volume", volume.name, "--to", f"{HOST}@b", "--json")
    assert ran.code == 3
    assert ran.document["error"]["code"] == "busy"


# -- waiting --------------------------------------------------------------------------------------------------


def test_waiting_without_a_worker_does_the_work_here(run, volume, no_patience):
    before = digest(object_path(volume))
    ran = run("migrate_volume", volume.name, "--to", f"{HOST}@b", "--wait", "--force-host-copy")
    assert ran.code == 0, ran.err
    assert "this process does the work" in ran.out
    assert f"Moved '{volume.name}' from {HOST}@a#main to {HOST}@b#main." in ran.out
    assert migration().destination_digest in ran.out
    assert "kept until" in ran.out
    assert digest(object_path(volume)) == before


def test_waiting_with_json_writes_one_document(run, volume, no_patience):
    arguments = ("--wait", "--force-host-copy", "--delete-source", "--verify", "none", "--json")
    ran = run("migrate_volume", volume.name, "--to", f"{HOST}@b", *arguments)
    assert ran.code == 0
    assert ran.document["state"] == "done"
    assert ran.document["progress"]["percent"] == 100
    assert "Verified:  no, as asked" in ran.err


def test_a_migration_that_fails_exits_4_and_says_where_the_data_is(run, volume, no_patience, after_request):
    path = object_path(volume)
    after_request(lambda accepted: os.truncate(path, 2 * volume.size_bytes))
    ran = run("migrate_volume", volume.name, "--to", f"{HOST}@b", "--wait", "--json")
    assert ran.code == 4
    assert ran.document["state"] == "failed"
    assert ran.document["error"]["text"] in ran.err
    assert "The volume is where it was" in ran.err


def test_a_migration_that_is_cancelled_exits_5(run, volume, no_patience, after_request):
    after_request(lambda accepted: services.cancel_migration(accepted, services.Actor("somebody")))
    ran = run("migrate_volume", volume.name, "--to", f"{HOST}@b", "--wait")
    assert ran.code == 5
    assert "was cancelled" in ran.out


def test_a_worker_that_is_alive_is_waited_for(run, volume, no_patience, monkeypatch):
    now = timezone.now()
    WorkerHost.objects.create(host=HOST, started_at=now, heartbeat_at=now, pid=1, slots=1)
    monkeypatch.setattr(cli_follow, "_EXPLAIN_SECONDS", 0.0)
    monkeypatch.setattr(cli_follow.time, "sleep", Interrupt(after=3))
    ran = run("migrate_volume", volume.name, "--to", f"{HOST}@b", "--wait")
    assert ran.code == 130
    assert "busy with other migrations" in ran.out
    assert "the migration goes on" in ran.err
    assert migration().state == "queued"


class Interrupt:
    """A `sleep` during which the person presses Ctrl-C."""

    def __init__(self, after: int = 0, when=lambda: True) -> None:
        self.after = after
        self.when = when

    def __call__(self, seconds: float) -> None:
        self.after -= 1
        threading.Event().wait(min(seconds, 0.05))
        if self.after < 0 and self.when():
            self.after = 10**9
            raise KeyboardInterrupt


def test_ctrl_c_stops_at_a_checkpoint_from_which_it_goes_on(run, volume, no_patience, monkeypatch):
    before = digest(object_path(volume))
    with monkeypatch.context() as patch:
        patch.setattr(draining, "_draining", threading.Event())
        is_copying = VolumeMigration.objects.filter(state="copying").exists
        patch.setattr(cli_follow.time, "sleep", Interrupt(when=is_copying))
        arguments = ("--wait", "--force-host-copy", "--bandwidth", "4MiB", "--json")
        ran = run("migrate_volume", volume.name, "--to", f"{HOST}@b", *arguments)
    assert ran.code == 130
    assert ran.document["interrupted"] is True
    assert "goes on from its last checkpoint" in ran.err
    assert migration().state == "copying"
    assert migration().owner == ""
    VolumeMigration.objects.update(bandwidth_bytes_per_second=None)
    ran = run("resume_migrations", str(migration().pk)[:8], "--wait")
    assert ran.code == 0, ran.err
    assert digest(object_path(volume)) == before


# -- looking, cancelling, waking ------------------------------------------------------------------------------


def test_list_migrations(run, volume, run_to_end):
    assert "no such migrations" in run("list_migrations").out
    assert run("list_migrations", "--json").document == []
    run("migrate_volume", volume.name, "--to", f"{HOST}@b", "--force-host-copy")
    assert [m["state"] for m in run("list_migrations", "--json").document] == ["queued"]
    assert run("list_migrations", "--state", "failed", "--json").document == []
    assert run("list_migrations", "--state", "nonsense").code == 2
    run_to_end(migration())
    lines = run("list_migrations").out.splitlines()
    assert len(lines) == 2
    assert "retained" in lines[1]


def test_one_migration_shows_its_steps_and_journal(run, volume, run_to_end):
    run("migrate_volume", volume.name, "--to", f"{HOST}@b", "--force-host-copy")
    queued = run("list_migrations", str(migration().pk)[:8])
    assert "Waiting for a worker" in queued.out
    run_to_end(migration())
    ran = run("list_migrations", str(migration().pk))
    assert "Read back and equal" in ran.out
    assert "switch done" in ran.out
    document = run("list_migrations", str(migration().pk), "--json").document
    assert [step["status"] for step in document["steps"]] == ["done"] * 6 + ["waiting"]
    assert document["journal"][0]["kind"] == "requested"


def test_cancel_is_accepted_repeated_and_waited_for(run, volume, no_patience):
    run("migrate_volume", volume.name, "--to", f"{HOST}@b")
    short = str(migration().pk)[:8]
    assert run("cancel_migration", short).code == 0
    assert run("cancel_migration", short, "--json").document["cancel_requested_at"]
    ran = run("cancel_migration", short, "--wait")
    assert ran.code == 0
    assert migration().state == "cancelled"
    volume.refresh_from_db()
    assert volume.locked_by_migration is None


def test_what_has_ended_cannot_be_cancelled(run, volume, run_to_end):
    run("migrate_volume", volume.name, "--to", f"{HOST}@b")
    run_to_end(migration())
    ran = run("cancel_migration", str(migration().pk), "--json")
    assert ran.code == 3
    assert ran.document["error"]["code"] == "not_now"


def test_resume_rings_for_what_waits(run, volume):
    assert run("resume_migrations", "--json").document == []
    assert "Nothing waits" in run("resume_migrations").out
    run("migrate_volume", volume.name, "--to", f"{HOST}@b")
    ran = run("resume_migrations", "--now", "--json")
    assert [m["id"] for m in ran.document] == [str(migration().pk)]
    assert OrmQ.objects.count() == 2
    assert run("resume_migrations", str(migration().pk), "--json").document["state"] == "queued"
    assert run("resume_migrations", "--wait").code == 2
