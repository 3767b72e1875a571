"""Deciding about migrations from the command line."""

from __future__ import annotations

import json

import pytest

from backends.models import Volume
from migrations_app import services, worker
from migrations_app.models import VolumeMigration
from migrations_app.services import Options
from tests.conftest import HOST, digest, object_path

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def volume(two_backends, make_volume) -> Volume:
    return make_volume(two_backends[0])


@pytest.fixture
def queued(volume, actor) -> VolumeMigration:
    return services.request_migration(volume, f"{HOST}@b", actor, Options(force_host_copy=True))


@pytest.fixture
def moved(queued, run_to_end) -> VolumeMigration:
    return run_to_end(queued)


@pytest.fixture
def stuck(queued, volume, run_to_end, monkeypatch) -> VolumeMigration:
    """A migration with a complete copy that could not be switched to."""
    original = volume.object_name
    Volume.objects.filter(pk=volume.pk).update(object_name="somebody-changed-this")
    with monkeypatch.context() as patch:
        from migrations_app import steps

        patch.setattr(steps, "_check_identity", lambda *_: None)
        run_to_end(queued)
    Volume.objects.filter(pk=volume.pk).update(object_name=original)
    assert queued.state == "needs_operator"
    return queued


def short(migration: VolumeMigration) -> str:
    return str(migration.pk)[:8]


def refused(ran, text: str) -> None:
    assert ran.code == 3
    assert ran.document["error"]["code"] == "not_now"
    assert text in ran.document["error"]["text"]
    assert text in ran.err


# -- pause, resume, bandwidth -----------------------------------------------------------------------------------


def test_a_paused_migration_goes_on_when_resumed(run, queued, volume, no_patience):
    before = digest(object_path(volume))
    ran = run("pause_migration", short(queued))
    assert ran.code == 0
    assert f"manage.py resume_migrations {short(queued)}" in ran.out
    assert "State:     Paused" in ran.out
    assert run("pause_migration", short(queued), "--json").document["state"] == "paused"
    assert worker.advance(queued.pk) == "nothing to do"
    ran = run("resume_migrations", short(queued), "--wait")
    assert ran.code == 0, ran.err
    assert "Moved 'vol-1'" in ran.out
    assert digest(object_path(volume)) == before
    refused(run("pause_migration", short(queued), "--json"), "cannot be paused now")
    refused(run("resume_migrations", short(queued), "--json"), "cannot be resumed now")
    assert run("resume_migrations", short(queued), "--wait").code == 0


def test_resume_without_waiting_queues_it(run, queued):
    run("pause_migration", short(queued))
    ran = run("resume_migrations", short(queued), "--json")
    assert ran.code == 0
    assert (ran.document["state"], ran.document["pause_requested_at"]) == ("queued", None)


def test_waiting_for_a_paused_one_ends_and_says_how_to_go_on(run, volume, monkeypatch, no_patience):
    real = services.request_migration

    def request_and_pause(*args, **kwargs):
        return services.pause_migration(real(*args, **kwargs), services.Actor("somebody"))

    monkeypatch.setattr(services, "request_migration", request_and_pause)
    ran = run("migrate_volume", volume.name, "--to", f"{HOST}@b", "--wait", "--json")
    assert ran.code == 0
    assert ran.document["state"] == "paused"
    assert "is paused; the volume stays locked" in ran.err
    assert f"Go on:     manage.py resume_migrations {ran.document['id'][:8]}" in ran.err
    assert f"The volume is where it was: {HOST}@a#main" in ran.err


def test_bandwidth_is_set_and_taken_away(run, queued, run_to_end):
    ran = run("set_bandwidth", short(queued), "100MiB")
    assert "at most 100.0 MiB a second" in ran.out
    assert (
        run("set_bandwidth", short(queued), "none", "--json").document["bandwidth_bytes_per_second"] is None
    )
    assert "as fast as it goes" in run("set_bandwidth", short(queued), "none").out
    assert run("set_bandwidth", short(queued), "100M").code == 2
    run_to_end(queued)
    refused(run("set_bandwidth", short(queued), "none", "--json"), "cannot be throttled now")


# -- retry, finish, resolve -------------------------------------------------------------------------------------


def test_retry_of_a_cancelled_one_is_a_new_migration(run, queued, volume, no_patience):
    run("cancel_migration", short(queued), "--wait")
    listed = run("list_migrations", short(queued))
    assert f"Possible:  manage.py retry_migration {short(queued)} --wait" in listed.out
    ran = run("retry_migration", short(queued), "--wait", "--json")
    assert ran.code == 0, ran.err
    assert (ran.document["state"], ran.document["retry_of"]) == ("retained", str(queued.pk))
    refused(run("retry_migration", ran.document["id"], "--json"), "cannot be retried now")


def test_retry_says_which_migration_it_has_become(run, queued, run_to_end):
    run("cancel_migration", short(queued))
    run_to_end(queued)
    ran = run("retry_migration", short(queued))
    assert str(VolumeMigration.objects.get(retry_of=queued).pk) in ran.out


def test_finish_goes_forward_from_the_complete_copy(run, stuck, no_patience):
    assert f"manage.py finish_migration {short(stuck)}" in run("list_migrations", short(stuck)).out
    ran = run("finish_migration", short(stuck), "--wait")
    assert ran.code == 0, ran.err
    assert "Moved 'vol-1'" in ran.out
    refused(run("finish_migration", short(stuck), "--json"), "cannot be finished now")


def test_retry_and_finish_say_that_it_goes_on(run, stuck):
    assert "goes on where it stopped" in run("retry_migration", short(stuck)).out
    VolumeMigration.objects.update(state="needs_operator")
    assert "goes forward from its complete copy" in run("finish_migration", short(stuck)).out


def test_resolve_needs_the_name_and_a_word_that_fits(run, stuck, volume):
    arguments = ("resolve_migration", short(stuck), "--json", "--truth")
    refused(run(*arguments, "at_source", "--type-name", "vol"), "Type the volume's name, 'vol-1'")
    refused(run(*arguments, "settled", "--type-name", "vol-1"), "has not been switched")
    assert run(*arguments, "lost", "--type-name", "vol-1").code == 2
    assert "--truth at_source|at_destination" in run("list_migrations", short(stuck)).out
    ran = run("resolve_migration", short(stuck), "--truth", "at_source", "--type-name", "vol-1")
    assert ran.code == 0
    assert f"By an operator's word the volume is at {HOST}@a#main" in ran.out
    volume.refresh_from_db()
    assert volume.locked_by_migration is None


def test_resolved_to_the_destination_keeps_the_source_without_a_date(run, stuck):
    run("resolve_migration", short(stuck), "--truth", "at_destination", "--type-name", "vol-1")
    assert "kept until somebody deletes it" in run("list_migrations", short(stuck)).out


# -- the kept source --------------------------------------------------------------------------------------------


def test_roll_back_is_waited_for(run, moved, volume, no_patience):
    before = digest(object_path(volume))
    ran = run("roll_back_migration", short(moved), "--wait")
    assert ran.code == 0, ran.err
    assert "was rolled back" in ran.out
    assert object_path(volume).parent.name == "a"
    assert digest(object_path(volume)) == before
    refused(run("roll_back_migration", short(moved), "--json"), "cannot be rolled back now")


def test_roll_back_asks_before_something_is_lost(run, moved, volume, no_patience):
    copy = object_path(volume)
    with copy.open("r+b") as file:
        file.write(b"written after the switch")
    refused(run("roll_back_migration", short(moved), "--json"), "was written to since")
    ran = run("roll_back_migration", short(moved), "--accept-loss")
    assert ran.code == 0
    assert f"is at {HOST}@a#main again" in ran.out
    assert "Rolled back; the copy is kept" in ran.out
    assert "Copy:      kept until" in run("list_migrations", short(moved)).out
    assert run("purge_source", short(moved), "--wait").code == 0
    assert not copy.exists()


def test_a_source_is_kept_longer_and_purged(run, moved, no_patience):
    until = moved.purge_after
    ran = run("keep_source", short(moved), "--hours", "5")
    assert "Kept until" in ran.out
    moved.refresh_from_db()
    assert round((moved.purge_after - until).total_seconds()) == 5 * 3600
    for wrong in ("0", "8761", "many"):
        assert run("keep_source", short(moved), "--hours", wrong).code == 2
    assert "is being deleted" in run("purge_source", short(moved)).out
    ran = run("resume_migrations", short(moved), "--wait")
    assert ran.code == 0, ran.err
    moved.refresh_from_db()
    assert moved.state == "done"
    refused(run("purge_source", short(moved), "--json"), "cannot be purged now")
    refused(run("keep_source", short(moved), "--hours", "1", "--json"), "cannot be kept longer now")


def test_a_purge_without_a_proof_exits_4(run, moved, no_patience):
    moved.segments.update(destination_digest="")
    ran = run("purge_source", short(moved), "--wait", "--json")
    assert ran.code == 4
    assert ran.document["state"] == "needs_operator"
    assert "--truth settled" in run("list_migrations", short(moved)).out


# -- the report, and what must not be overlooked ----------------------------------------------------------------


def test_the_report_is_shown_and_written(run, moved, tmp_path):
    shown = run("migration_report", short(moved))
    assert shown.code == 0
    assert "Compared:     equal, 1 of 1 segments" in shown.out
    assert moved.destination_digest in shown.out
    assert " of zeros, " in shown.out
    assert "requested by tester" in shown.out
    document = run("migration_report", short(moved), "--json").document
    assert document["verification"]["result"] == "equal"
    assert "segments" not in document
    path = tmp_path / "report.json"
    written = run("migration_report", short(moved), "--segments", "--output", str(path))
    assert f"to {path}." in written.out
    assert len(json.loads(path.read_text())["segments"]) == 1
    again = run("migration_report", short(moved), "--output", str(path), "--json")
    assert again.code == 2
    assert "exists already" in again.document["error"]["text"]
    nowhere = run("migration_report", short(moved), "--output", str(tmp_path / "no" / "where"))
    assert (nowhere.code, "No such file" in nowhere.err) == (2, True)
    other = run("migration_report", short(moved), "--output", str(tmp_path / "other.json"), "--json")
    assert other.document["size_bytes"] == (tmp_path / "other.json").stat().st_size


def test_the_report_of_one_that_has_not_begun(run, queued):
    shown = run("migration_report", short(queued))
    assert "Compared:     not reached" in shown.out
    assert "not yet" in shown.out


def test_a_copy_that_is_not_verified_is_shouted(run, volume, no_patience):
    arguments = ("migrate_volume", volume.name, "--to", f"{HOST}@b", "--force-host-copy", "--verify", "none")
    accepted = run(*arguments)
    assert "Warning:   This copy will NOT BE VERIFIED, as asked." in accepted.out
    short_id = str(VolumeMigration.objects.get().pk)[:8]
    ran = run("resume_migrations", short_id, "--wait")
    assert ran.code == 0
    assert "Warning:   NOT VERIFIED, as asked" in ran.out
    listed = run("list_migrations", short_id)
    assert "Warning:   NOT VERIFIED, as asked" in listed.out
    document = run("list_migrations", short_id, "--json").document
    assert document["verification"] == "not verified"
    assert document["verbs"] == ["roll_back", "purge_now", "keep_longer"]
