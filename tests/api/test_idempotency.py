"""A request that is sent twice with one key is done once."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from backends.models import Backend, Volume
from migrations_app import tasks
from migrations_app.idempotency import ApiRequest
from migrations_app.models import VolumeMigration
from tests.conftest import HOST

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def volume(two_backends, make_volume) -> Volume:
    return make_volume(two_backends[0])


def migrate(client, volume, key="key-1", **body):
    return client.post(
        f"/api/volumes/{volume.pk}/migrate/",
        {"destination": f"{HOST}@b", **body},
        headers={"Idempotency-Key": key},
    )


def test_the_same_request_is_answered_with_the_same_migration(api, volume, run_to_end):
    first = migrate(api, volume)
    assert first.status_code == 202
    assert not first.has_header("Idempotent-Replayed")
    again = migrate(api, volume, verify="full")
    assert again.status_code == 202
    assert again["Idempotent-Replayed"] == "true"
    assert again["Location"] == first["Location"]
    assert again.json() == first.json()
    run_to_end(VolumeMigration.objects.get())
    assert migrate(api, volume).json()["state"] == "done"
    assert VolumeMigration.objects.count() == 1


def test_another_request_with_the_key_is_422(api, volume, two_backends, make_volume):
    first = migrate(api, volume).json()
    other = make_volume(two_backends[0], "vol-2")
    for response in (migrate(api, volume, delete_source=True), migrate(api, other)):
        assert response.status_code == 422
        assert response["Content-Type"] == "application/problem+json"
        assert response.json()["code"] == "key_reused"
        assert first["id"] in response.json()["detail"]
    assert VolumeMigration.objects.count() == 1


def test_each_user_has_keys_of_their_own(api, make_user, client_of, volume):
    assert migrate(api, volume).status_code == 202
    other = client_of(make_user("operator", "migrate_volume"))
    assert migrate(other, volume).status_code == 409


def test_a_refusal_is_not_remembered(api, volume):
    Backend.objects.filter(name="b").update(is_enabled=False)
    assert migrate(api, volume).status_code == 409
    Backend.objects.filter(name="b").update(is_enabled=True)
    assert migrate(api, volume).status_code == 202


def test_a_dry_run_needs_no_memory(api, volume):
    assert migrate(api, volume, dry_run=True).status_code == 200
    assert not ApiRequest.objects.exists()


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_cannot_be_kept_is_400(api, volume, key):
    response = migrate(api, volume, key)
    assert response.status_code == 400
    assert "1 to 255 characters" in response.json()["errors"][0]["detail"]
    assert not VolumeMigration.objects.exists()


def test_two_at_the_same_time_become_one_migration(admin, client_of, volume):
    answers = []
    start = threading.Barrier(2)

    def ask():
        try:
            client = client_of(admin)
            start.wait()
            answers.append(migrate(client, volume))
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a.status_code for a in answers] == [202, 202]
    assert len({a["Location"] for a in answers}) == 1
    assert sorted(a.has_header("Idempotent-Replayed") for a in answers) == [False, True]
    assert VolumeMigration.objects.count() == ApiRequest.objects.count() == 1


def test_the_sweep_forgets_keys_after_a_day(api, volume):
    migrate(api, volume)
    tasks.sweep()
    assert ApiRequest.objects.count() == 1
    ApiRequest.objects.update(created_at=timezone.now() - timedelta(hours=24, seconds=1))
    tasks.sweep()
    assert not ApiRequest.objects.exists()
    assert migrate(api, volume).status_code == 409
