"""Deciding about migrations over the API: every verb, what refuses it, and who may."""

from __future__ import annotations

import pytest
from django.urls import reverse

from backends import services as inventory
from backends.models import Volume
from migrations_app import services, worker
from migrations_app.models import VolumeMigration
from migrations_app.services import Options
from tests.conftest import HOST, digest, object_path

pytestmark = pytest.mark.django_db(transaction=True)

VERBS = {
    "cancel": ("cancel_migration", {}),
    "pause": ("cancel_migration", {}),
    "resume": ("cancel_migration", {}),
    "bandwidth": ("cancel_migration", {"bandwidth_bytes_per_second": 1000}),
    "retry": ("migrate_volume", {}),
    "finish": ("decide_migration", {}),
    "roll-back": ("decide_migration", {}),
    "resolve": ("decide_migration", {"truth": "settled", "typed_name": "vol-1"}),
    "purge-now": ("decide_migration", {}),
    "keep-longer": ("decide_migration", {"hours": 1}),
}


@pytest.fixture
def volume(two_backends, make_volume) -> Volume:
    return make_volume(two_backends[0])


@pytest.fixture
def queued(volume, actor) -> VolumeMigration:
    return services.request_migration(volume, f"{HOST}@b", actor, Options(force_host_copy=True))


@pytest.fixture
def moved(queued, run_to_end) -> VolumeMigration:
    return run_to_end(queued)


def path(migration: VolumeMigration, verb: str = "") -> str:
    return f"/api/migrations/{migration.pk}/{verb}/" if verb else f"/api/migrations/{migration.pk}/"


def post(client, migration, verb, **body):
    response = client.post(path(migration, verb), body)
    assert response.status_code == 202, response.content
    return response.json()


def refusal(response, code="not_now") -> str:
    assert response.status_code == 409, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == code
    return response.json()["detail"]


# -- what all have in common ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_needs_its_permission(api, make_user, client_of, queued, verb):
    codename, body = VERBS[verb]
    others = {c for c, _ in VERBS.values()} - {codename}
    clerk = client_of(make_user("clerk", *others))
    answer = clerk.post(path(queued, verb), body)
    assert answer.status_code == 403
    assert f"migrations_app.{codename}" in answer.json()["detail"]
    allowed = client_of(make_user("operator", codename)).post(path(queued, verb), body)
    assert allowed.status_code in (202, 409)


@pytest.mark.parametrize("verb", VERBS)
def test_a_misspelt_field_is_refused_and_nothing_is_done(api, queued, verb):
    before = queued.journal.count()
    answer = api.post(path(queued, verb), {**VERBS[verb][1], "nonsense": 1})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "#/nonsense"
    assert queued.journal.count() == before


@pytest.mark.parametrize(
    "verb", [v for v in VERBS if v not in ("cancel", "purge-now", "keep-longer", "roll-back")]
)
def test_what_does_not_fit_the_state_is_409_and_says_why(api, moved, verb):
    detail = refusal(api.post(path(moved, verb), VERBS[verb][1]))
    assert "'vol-1'" in detail


def test_every_verb_has_an_address(api, moved):
    for verb in VERBS:
        assert reverse(f"migration-{verb}", args=[moved.pk]) == path(moved, verb)
    body = api.get(path(moved)).json()
    assert body["verbs"] == ["roll_back", "purge_now", "keep_longer"]
    assert body["_links"]["verbs"] == {
        "roll_back": path(moved, "roll-back"),
        "purge_now": path(moved, "purge-now"),
        "keep_longer": path(moved, "keep-longer"),
    }


def test_the_verbs_follow_the_state(api, queued):
    assert api.get(path(queued)).json()["verbs"] == ["pause", "cancel", "set_bandwidth"]
    assert post(api, queued, "pause")["verbs"] == ["resume", "cancel", "set_bandwidth"]
    body = api.get(path(queued)).json()
    assert body["_links"]["verbs"]["set_bandwidth"] == path(queued, "bandwidth")


# -- pause, resume, bandwidth -----------------------------------------------------------------------------------


def test_pause_and_resume(api, queued, volume, run_to_end):
    before = digest(object_path(volume))
    etag = api.get(path(queued))["ETag"]
    for _ in range(2):
        body = post(api, queued, "pause")
        assert body["state"] == "paused"
        assert body["progress"]["state_text"] == "Paused"
        assert body["pause_requested_at"]
    assert api.get(path(queued), headers={"If-None-Match": etag}).status_code == 200
    assert worker.advance(queued.pk) == "nothing to do"
    for _ in range(2):
        assert post(api, queued, "resume")["state"] == "queued"
    run_to_end(queued)
    assert api.get(path(queued)).json()["state"] == "retained"
    assert digest(object_path(volume)) == before
    assert "'retained' and cannot be paused now" in refusal(api.post(path(queued, "pause")))
    assert "cannot be resumed now" in refusal(api.post(path(queued, "resume")))


def test_bandwidth_is_set_and_taken_away(api, queued):
    assert (
        post(api, queued, "bandwidth", bandwidth_bytes_per_second=5000)["bandwidth_bytes_per_second"] == 5000
    )
    body = api.patch(path(queued, "bandwidth"), {"bandwidth_bytes_per_second": None}, format="json").json()
    assert body["bandwidth_bytes_per_second"] is None
    for wrong in ({"bandwidth_bytes_per_second": 0}, {"bandwidth_bytes_per_second": 2**63}, {}):
        assert api.post(path(queued, "bandwidth"), wrong, format="json").status_code == 400


# -- retry, finish, resolve -------------------------------------------------------------------------------------


def test_retry_of_an_ended_one_leads_to_the_new_migration(api, queued, run_to_end):
    post(api, queued, "cancel")
    run_to_end(queued)
    response = api.post(path(queued, "retry"))
    assert response.status_code == 202
    new = VolumeMigration.objects.exclude(pk=queued.pk).get()
    assert response["Location"] == path(new)
    assert response.json()["retry_of"] == str(queued.pk)
    assert run_to_end(new).state == "retained"
    assert refusal(api.post(path(queued, "retry")), "no_valid_pool")


def test_retry_without_verification_needs_the_permission_for_that(
    api, make_user, client_of, queued, run_to_end
):
    VolumeMigration.objects.update(verify="none")
    post(api, queued, "cancel")
    run_to_end(queued)
    operator = client_of(make_user("operator", "migrate_volume"))
    answer = operator.post(path(queued, "retry"))
    assert answer.status_code == 403
    assert "migrations_app.skip_verification" in answer.json()["detail"]
    chief = client_of(make_user("chief", "migrate_volume", "skip_verification"))
    body = post(chief, queued, "retry")
    assert (body["verify"], body["warning"]) == ("none", "This copy will NOT BE VERIFIED, as asked.")


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


def test_finish_goes_forward_from_the_complete_copy(api, stuck, volume, run_to_end):
    before = digest(object_path(volume))
    assert api.get(path(stuck)).json()["verbs"] == ["finish", "cancel", "retry", "resolve"]
    assert post(api, stuck, "finish")["state"] == "queued"
    assert run_to_end(stuck).state == "retained"
    assert digest(object_path(volume)) == before
    assert "cannot be finished now" in refusal(api.post(path(stuck, "finish")))


@pytest.mark.parametrize(
    ("truth", "state", "place"), [("at_source", "failed", "a"), ("at_destination", "retained", "b")]
)
def test_an_operator_says_where_the_data_is(api, stuck, volume, truth, state, place):
    wrong = api.post(path(stuck, "resolve"), {"truth": truth, "typed_name": "vol-1 "})
    assert "Type the volume's name, 'vol-1'" in refusal(wrong)
    early = api.post(path(stuck, "resolve"), {"truth": "settled", "typed_name": "vol-1"})
    assert "has not been switched" in refusal(early)
    assert api.post(path(stuck, "resolve"), {"truth": "lost", "typed_name": "vol-1"}).status_code == 400
    body = post(api, stuck, "resolve", truth=truth, typed_name="vol-1")
    assert body["state"] == state
    assert "By an operator's word" in body["data_location"]
    assert object_path(volume).parent.name == place


# -- the kept source --------------------------------------------------------------------------------------------


def test_roll_back_returns_to_the_source(api, moved, volume, run_to_end):
    before = digest(object_path(volume))
    body = post(api, moved, "roll-back")
    assert body["progress"]["state_text"] == "Rolled back; deleting the copy"
    assert object_path(volume).parent.name == "a"
    assert run_to_end(moved).state == "rolled_back"
    assert digest(object_path(volume)) == before
    assert "cannot be rolled back now" in refusal(api.post(path(moved, "roll-back")))


def test_roll_back_asks_before_something_is_lost(api, moved, volume):
    with object_path(volume).open("r+b") as file:
        file.write(b"written after the switch")
    assert "was written to since" in refusal(api.post(path(moved, "roll-back")))
    assert "was written to since" in refusal(api.post(path(moved, "roll-back"), {"accepts_loss": False}))
    body = post(api, moved, "roll-back", accepts_loss=True)
    assert body["state"] == "rolled_back"
    assert body["verbs"] == ["purge_now", "keep_longer"]


def test_the_source_is_kept_longer_then_purged(api, moved, volume, run_to_end):
    source = object_path(volume).parents[1] / "a" / f"{moved.source_object_name}.raw"
    until = moved.purge_after
    body = post(api, moved, "keep-longer", hours=5)
    moved.refresh_from_db()
    assert round((moved.purge_after - until).total_seconds()) == 5 * 3600
    assert body["purge_after"]
    for wrong in ({"hours": 0}, {"hours": 8761}, {}):
        assert api.post(path(moved, "keep-longer"), wrong).status_code == 400
    assert source.exists()
    assert post(api, moved, "purge-now")["state"] == "deleting_source"
    assert run_to_end(moved).state == "done"
    assert not source.exists()
    assert "cannot be purged now" in refusal(api.post(path(moved, "purge-now")))
    assert "cannot be kept longer now" in refusal(api.post(path(moved, "keep-longer"), {"hours": 1}))


def test_a_volume_that_is_used_is_not_rolled_back(api, moved, volume):
    inventory.attach(volume, "server-1")
    answer = api.post(path(moved, "roll-back"), {"accepts_loss": True})
    assert "Detach it first" in refusal(answer)


# -- the report -------------------------------------------------------------------------------------------------


def test_the_report_is_a_file_with_everything(api, moved):
    response = api.get(f"{path(moved)}report/")
    assert response.status_code == 200
    assert response["Content-Disposition"] == f'attachment; filename="migration-{moved.pk}.json"'
    body = response.json()
    assert body["verification"]["result"] == "equal"
    assert body["journal"][0]["kind"] == "requested"
    assert "segments" not in body
    full = api.get(f"{path(moved)}report/?segments=true").json()
    assert len(full["segments"]) == body["verification"]["segments"] == 1
    assert api.get(f"{path(moved)}report/?segment=true").status_code == 400
    assert api.get(path(moved)).json()["_links"]["report"] == f"{path(moved)}report/"
