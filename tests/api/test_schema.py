"""The OpenAPI description is complete and valid."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command
from drf_spectacular.generators import SchemaGenerator

OPERATIONS = {
    "backends_list",
    "backends_retrieve",
    "doctor_examine",
    "doctor_mend",
    "migrations_bandwidth",
    "migrations_bandwidth_patch",
    "migrations_cancel",
    "migrations_events",
    "migrations_finish",
    "migrations_keep_longer",
    "migrations_list",
    "migrations_pause",
    "migrations_purge_now",
    "migrations_report",
    "migrations_resolve",
    "migrations_resume",
    "migrations_retrieve",
    "migrations_retry",
    "migrations_roll_back",
    "pools_list",
    "pools_retrieve",
    "snapshots_delete",
    "volume_types_list",
    "volume_types_retrieve",
    "volumes_attach",
    "volumes_create_snapshot",
    "volumes_delete",
    "volumes_destinations",
    "volumes_detach",
    "volumes_extend",
    "volumes_list",
    "volumes_migrate",
    "volumes_retrieve",
    "volumes_snapshots",
}


def test_the_description_is_valid_and_has_no_warnings():
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=io.StringIO())


def test_every_operation_is_there_and_tells_its_errors():
    schema = SchemaGenerator().get_schema(request=None, public=True)
    operations = [o for path in schema["paths"].values() for o in path.values()]
    assert {o["operationId"] for o in operations} == OPERATIONS
    assert len(operations) == len(OPERATIONS)
    for operation in operations:
        assert "application/problem+json" in operation["responses"]["401"]["content"]


def test_a_migration_is_accepted_with_202():
    schema = SchemaGenerator().get_schema(request=None, public=True)
    responses = schema["paths"]["/api/volumes/{id}/migrate/"]["post"]["responses"]
    assert {"Location", "Retry-After", "Idempotent-Replayed"} <= set(responses["202"]["headers"])
    assert set(responses) == {"200", "202", "400", "401", "403", "404", "409", "422"}


@pytest.mark.django_db
def test_the_description_and_its_page_are_for_staff(client, api, admin):
    assert client.get("/api/schema/").status_code == 401
    assert api.get("/api/schema/").status_code == 200
    assert client.get("/api/docs/").status_code == 302
    client.force_login(admin)
    page = client.get("/api/docs/")
    assert page.status_code == 200
    assert b"swagger-ui" in page.content
