"""A volume that came by iSCSI is given up when the other host serves it no more; libiscsi would wait for ever."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from backends import services as inventory
from migrations_app.models import RemoteCall
from migrations_app.remote import port as remote_port

pytestmark = pytest.mark.django_db(transaction=True)


class _Port:
    def __init__(self) -> None:
        self.is_interrupted = threading.Event()

    def interrupt(self) -> None:
        self.is_interrupted.set()


@pytest.fixture
def call(monkeypatch):
    monkeypatch.setattr(remote_port, "_WATCH_SECONDS", 0.05)
    far = inventory.register_backend("far@disk", "directory", {"path": "/nowhere"})
    fields = {"operation": "open", "arguments": {}, "asked_at": Now(), "heard_at": Now(), "state": "serving"}
    return RemoteCall.objects.create(host="far", backend=far, **fields)


@pytest.mark.parametrize(
    "what_happens",
    [{"state": "ended"}, {"heard_at": Now() - timedelta(hours=1)}],
    ids=["it says so", "it has fallen silent"],
)
def test_port_is_given_up_when_it_is_served_no_more(what_happens, call):
    port = _Port()
    with remote_port._given_up_at_the_end_of(call, port):
        assert not port.is_interrupted.wait(0.5)
        RemoteCall.objects.filter(pk=call.pk).update(**what_happens)
        assert port.is_interrupted.wait(5)


def test_watching_ends_with_the_port(call):
    with remote_port._given_up_at_the_end_of(call, _Port()):
        pass
    assert "watch-call" not in {thread.name for thread in threading.enumerate()}
