"""Every error is a problem document, whatever went wrong."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from rest_framework.test import APIClient

from backends.drivers.errors import ConnectionLost, NotReady
from migrations_app import services
from migrations_app.errors import RequestRefused

pytestmark = pytest.mark.django_db


def assert_problem(response, status, code):
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"urn:volmig:problem:{code}"
    assert body["title"]
    assert body["detail"]
    assert body["instance"].startswith("/api/")
    return body


def test_without_credentials_is_401_and_says_how(client):
    response = client.get("/api/volumes/")
    assert_problem(response, 401, "not_authenticated")
    assert response["WWW-Authenticate"] == "Token"


def test_a_wrong_token_is_401():
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION="Token nonsense")
    assert_problem(client.get("/api/volumes/"), 401, "authentication_failed")


def test_users_who_are_not_staff_are_refused(make_user, client_of):
    user = make_user("guest", is_staff=False)
    for path in ("volumes/", "backends/", "migrations/", "nonsense/", "schema/"):
        assert_problem(client_of(user).get(f"/api/{path}"), 403, "permission_denied")


def test_an_unknown_address_is_404(api):
    assert_problem(api.get("/api/volume/"), 404, "not_found")
    assert_problem(api.post("/api/nothing/here"), 404, "not_found")
    body = assert_problem(api.get("/api/volumes"), 404, "not_found")
    assert "/api/volumes/ (with the slash)" in body["detail"]


@pytest.mark.parametrize("pk", ["nonsense", "00000000-0000-0000-0000-000000000000"])
def test_an_unknown_row_is_404_with_its_name(api, pk):
    assert pk in assert_problem(api.get(f"/api/volumes/{pk}/"), 404, "not_found")["detail"]
    assert_problem(api.get(f"/api/migrations/{pk}/"), 404, "not_found")
    assert_problem(api.post(f"/api/volumes/{pk}/migrate/", {"destination": "a@b"}), 404, "not_found")


def test_a_wrong_method_is_405(api):
    response = api.delete("/api/volumes/")
    assert_problem(response, 405, "method_not_allowed")
    assert "GET" in response["Allow"]


def test_a_wrong_content_type_is_415(api, make_backend, make_volume):
    volume = make_volume(make_backend("a"))
    response = api.post(f"/api/volumes/{volume.pk}/migrate/", "destination=a", content_type="text/plain")
    assert_problem(response, 415, "unsupported_media_type")


def test_a_body_that_is_no_json_is_400(api, make_backend, make_volume):
    volume = make_volume(make_backend("a"))
    response = api.post(f"/api/volumes/{volume.pk}/migrate/", "{", content_type="application/json")
    assert_problem(response, 400, "parse_error")


def test_a_session_needs_the_csrf_token(admin, make_backend, make_volume):
    volume = make_volume(make_backend("a"))
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(admin)
    assert client.get("/api/volumes/").status_code == 200
    response = client.post(f"/api/volumes/{volume.pk}/detach/", {})
    assert "CSRF" in assert_problem(response, 403, "permission_denied")["detail"]


def test_an_unforeseen_error_is_500_and_tells_nothing(api, monkeypatch, make_backend, make_volume, caplog):
    volume = make_volume(make_backend("a"))

    def break_down(*args, **kwargs):
        raise RuntimeError("the secret plan")

    monkeypatch.setattr(services, "destinations", break_down)
    response = api.get(f"/api/volumes/{volume.pk}/destinations/")
    assert "secret plan" not in str(assert_problem(response, 500, "unexpected"))
    assert "secret plan" in caplog.text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OperationalError("database is locked"), 503, "database_unavailable"),
        (ConnectionLost("The storage went away.", backend="a@b"), 503, "connection_lost"),
        (NotReady("It is not mounted.", backend="a@b"), 502, "not_ready"),
        (RequestRefused("Not today."), 409, "refused"),
    ],
)
def test_what_the_services_raise(api, monkeypatch, make_backend, make_volume, error, status, code):
    def fail(*args, **kwargs):
        raise error

    volume = make_volume(make_backend("a"), filled=False)
    monkeypatch.setattr(services, "destinations", fail)
    response = api.get(f"/api/volumes/{volume.pk}/destinations/")
    assert_problem(response, status, code)
    assert response.has_header("Retry-After") == (status == 503)


def test_the_address_of_the_api_itself_leads_to_its_description(api):
    assert "/api/docs/" in assert_problem(api.get("/api/"), 404, "not_found")["detail"]


def test_a_misspelt_filter_is_refused_with_a_suggestion(api):
    error = assert_problem(api.get("/api/volumes/?statu=available"), 400, "invalid")["errors"][0]
    assert error["parameter"] == "statu"
    assert error["code"] == "unknown_parameter"
    assert "'status'" in error["detail"]


@pytest.mark.parametrize("query", ["status=gone", "pool=nonsense%23", "backend=x", "migration_status=maybe"])
def test_a_filter_value_that_cannot_be_is_refused(api, query):
    assert_problem(api.get(f"/api/volumes/?{query}"), 400, "invalid")
