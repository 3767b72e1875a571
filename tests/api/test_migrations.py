"""Asking for migrations, watching and cancelling them over the API."""

from __future__ import annotations

import threading

import pytest
from django.db import connection
from django_q.models import OrmQ

from backends import services as inventory
from backends.models import Backend, Snapshot, Volume
from migrations_app.models import JournalEntry, VolumeMigration
from tests.conftest import HOST

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def volume(two_backends, make_volume) -> Volume:
    return make_volume(two_backends[0])


def migrate(client, volume, destination=f"{HOST}@b", **body):
    return client.post(f"/api/volumes/{volume.pk}/migrate/", {"destination": destination, **body})


def codes(response) -> set[str]:
    return {reason["code"] for reason in response.json()["reasons"]}


# -- asking --------------------------------------------------------------------------------------------------


def test_destinations_show_every_pool_with_its_reasons(api, volume):
    answer = api.get(f"/api/volumes/{volume.pk}/destinations/").json()
    assert answer["can_move"] is True
    best, here = answer["destinations"]
    assert best["destination"] == f"{HOST}@b#main"
    assert best["fits"]
    assert not here["fits"]
    assert here["reasons"][0]["text"]
    copied = api.get(f"/api/volumes/{volume.pk}/destinations/?force_host_copy=true").json()
    assert copied["destinations"][0]["method"] == "generic copy"


def test_destinations_refuse_a_query_that_is_not_understood(api, volume):
    path = f"/api/volumes/{volume.pk}/destinations/"
    assert api.get(f"{path}?force_host_copy=maybe").json()["errors"][0]["parameter"] == "force_host_copy"
    assert "force_host_copy" in api.get(f"{path}?force_host=true").json()["errors"][0]["detail"]


def test_migrate_answers_202_with_where_to_look(api, volume):
    response = migrate(api, volume, verify="full", bandwidth_bytes_per_second=10**9)
    assert response.status_code == 202, response.content
    migration = VolumeMigration.objects.get()
    assert response["Location"] == f"/api/migrations/{migration.pk}/"
    assert response["Retry-After"] == "2"
    body = response.json()
    assert body["state"] == "queued"
    assert body["migration_status"] == "starting"
    assert body["destination"] == f"{HOST}@b#main"
    assert body["requested_by"] == "admin"
    assert body["requested_via"] == "api"
    assert body["bandwidth_bytes_per_second"] == 10**9
    assert api.get(response["Location"]).json() == body
    assert api.get(body["_links"]["volume"]).json()["active_migration"] == body["id"]
    assert OrmQ.objects.count() == 1


def test_a_second_request_for_the_volume_is_409(api, volume):
    assert migrate(api, volume).status_code == 202
    second = migrate(api, volume)
    assert second.status_code == 409
    assert second["Content-Type"] == "application/problem+json"
    assert second.json()["code"] == "busy"
    assert second.json()["reasons"]
    assert VolumeMigration.objects.count() == 1


def test_of_two_requests_at_the_same_time_one_is_accepted(admin, client_of, volume):
    answers = []
    start = threading.Barrier(2)

    def ask():
        try:
            client = client_of(admin)
            start.wait()
            answers.append(migrate(client, volume).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [202, 409]
    assert VolumeMigration.objects.count() == 1


def test_every_reason_is_told_at_once(api, volume):
    inventory.attach(volume, "web-1")
    Snapshot.objects.create(volume=volume, name="monday")
    Backend.objects.filter(name="b").update(
        is_enabled=False, filter_function="volume.size > 100", reserved_percentage=100
    )
    response = migrate(api, volume, force_host_copy=True)
    assert response.status_code == 409
    assert response.json()["code"] == "no_valid_pool"
    expected = {"attached", "has_snapshots", "pool_disabled", "filter_function_refuses", "no_space"}
    assert expected <= codes(response)
    assert all(reason["text"] and reason["remedy"] for reason in response.json()["reasons"])
    assert not VolumeMigration.objects.exists()


def test_an_unknown_destination_names_the_nearest(api, volume):
    response = migrate(api, volume, f"{HOST}@B")
    assert response.status_code == 409
    assert response.json()["code"] == "unknown_destination"
    assert f"Did you mean {HOST}@b?" in response.json()["reasons"][0]["remedy"]


def test_the_pool_that_holds_it_is_refused(api, volume):
    assert codes(migrate(api, volume, f"{HOST}@a")) == {"already_there"}


def test_a_dry_run_writes_nothing(api, volume):
    response = migrate(api, volume, dry_run=True)
    assert response.status_code == 200
    assert response.json()["verdict"]["destination"] == f"{HOST}@b#main"
    assert migrate(api, volume, f"{HOST}@a", dry_run=True).status_code == 409
    assert not VolumeMigration.objects.exists()
    assert not JournalEntry.objects.exists()
    assert not OrmQ.objects.exists()
    volume.refresh_from_db()
    assert volume.locked_by_migration is None
    assert volume.migration_status is None


def test_mistakes_in_the_body_are_told_at_once(api, volume):
    response = api.post(
        f"/api/volumes/{volume.pk}/migrate/",
        {"destinaton": f"{HOST}@b", "verify": "some", "dry_run": "no", "bandwidth_bytes_per_second": 0},
    )
    assert response.status_code == 400
    found = {error["pointer"]: error for error in response.json()["errors"]}
    assert set(found) == {
        "#/destination",
        "#/destinaton",
        "#/verify",
        "#/dry_run",
        "#/bandwidth_bytes_per_second",
    }
    assert found["#/destinaton"]["code"] == "unknown_field"
    assert "Did you mean 'destination'?" in found["#/destinaton"]["detail"]
    assert not VolumeMigration.objects.exists()


@pytest.mark.parametrize("value", [2**63, 10**30, -1, "fast"])
def test_a_bandwidth_that_cannot_be_stored_is_400(api, volume, value):
    assert migrate(api, volume, bandwidth_bytes_per_second=value).status_code == 400


@pytest.mark.parametrize("body", [[], "text", 5])
def test_a_body_that_is_no_object_is_400(api, volume, body):
    response = api.post(f"/api/volumes/{volume.pk}/migrate/", body, format="json")
    assert response.status_code == 400
    assert response["Content-Type"] == "application/problem+json"


# -- permissions ---------------------------------------------------------------------------------------------


def test_migrating_needs_its_permission(make_user, client_of, volume):
    response = migrate(client_of(make_user("clerk")), volume, dry_run=True)
    assert response.status_code == 403
    assert "migrations_app.migrate_volume" in response.json()["detail"]
    assert migrate(client_of(make_user("operator", "migrate_volume")), volume).status_code == 202


def test_skipping_the_verification_needs_its_permission(make_user, client_of, volume):
    operator = client_of(make_user("operator", "migrate_volume"))
    response = migrate(operator, volume, verify="none")
    assert response.status_code == 403
    assert "migrations_app.skip_verification" in response.json()["detail"]
    chief = client_of(make_user("chief", "migrate_volume", "skip_verification"))
    assert migrate(chief, volume, verify="none").status_code == 202


def test_cancelling_needs_its_permission(api, make_user, client_of, volume):
    path = f"{migrate(api, volume)['Location']}cancel/"
    assert client_of(make_user("clerk", "migrate_volume")).post(path).status_code == 403
    assert client_of(make_user("operator", "cancel_migration")).post(path).status_code == 202


# -- watching ------------------------------------------------------------------------------------------------


def test_a_finished_migration_tells_what_was_done(api, volume, run_to_end):
    location = migrate(api, volume, force_host_copy=True)["Location"]
    run_to_end(VolumeMigration.objects.get())
    body = api.get(location).json()
    assert body["state"] == "retained"
    assert body["progress"]["percent"] == 100
    assert body["method"] == "generic copy"
    assert body["source_digest"] == body["destination_digest"] != ""
    assert body["error"] is None
    assert f"{HOST}@b#main" in body["data_location"]
    assert body["purge_after"]
    steps = {step["name"]: step for step in body["steps"]}
    assert steps["verify"]["status"] == "done"
    assert steps["verify"]["finished_at"]
    assert steps["delete_source"]["status"] == "waiting"
    events = api.get(body["_links"]["events"]).json()["results"]
    assert [events[0]["kind"], events[-1]["kind"]] == ["requested", "ended"]


def test_the_list_is_newest_first_and_filtered(api, two_backends, make_volume):
    first, second = (make_volume(two_backends[0], name, filled=False) for name in ("one", "two"))
    for volume in (first, second):
        migrate(api, volume)
    VolumeMigration.objects.filter(volume=first).update(state="failed")

    def listed(query=""):
        return [row["volume_name"] for row in api.get(f"/api/migrations/{query}").json()["results"]]

    assert listed() == ["two", "one"]
    assert listed("?state=failed") == ["one"]
    assert listed("?state=failed&state=queued") == ["two", "one"]
    assert listed(f"?volume={second.pk}") == ["two"]


def test_nothing_new_is_304(api, volume, run_to_end):
    location = migrate(api, volume)["Location"]
    etag = api.get(location)["ETag"]
    same = api.get(location, headers={"If-None-Match": etag})
    assert same.status_code == 304
    assert not same.content
    assert same["ETag"] == etag
    run_to_end(VolumeMigration.objects.get())
    assert api.get(location, headers={"If-None-Match": etag}).status_code == 200


# -- cancelling ----------------------------------------------------------------------------------------------


def test_cancelling_twice_is_cancelling_once(api, volume, run_to_end):
    location = migrate(api, volume)["Location"]
    for _ in range(2):
        response = api.post(f"{location}cancel/")
        assert response.status_code == 202
        assert response["Location"] == location
        assert response.json()["progress"]["state_text"] == "Cancelling"
    run_to_end(VolumeMigration.objects.get())
    assert api.get(location).json()["state"] == "cancelled"
    assert api.post(f"{location}cancel/").status_code == 202
    assert JournalEntry.objects.filter(kind="wish").count() == 1


def test_what_has_ended_cannot_be_cancelled(api, volume, run_to_end):
    location = migrate(api, volume)["Location"]
    run_to_end(VolumeMigration.objects.get())
    response = api.post(f"{location}cancel/")
    assert response.status_code == 409
    assert response.json()["code"] == "not_now"
    assert api.post(f"{location}cancel/", {"force": True}).status_code == 400
