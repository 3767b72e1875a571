"""Volumes are served on the ports that a firewall lets through."""

from __future__ import annotations

import socket

import pytest

from backends.drivers.errors import InUse, NotReady
from backends.drivers.listening import listen
from volmig_site import config


def _two_free_ports() -> range:
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = first.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except OSError:
                continue
            return range(port, port + 2)


def test_ports_are_taken_one_by_one_and_given_back():
    ports = _two_free_ports()
    with listen("127.0.0.1", ports) as first:
        assert first.getsockname() == ("127.0.0.1", ports[0])
        with listen("127.0.0.1", ports) as second:
            assert second.getsockname()[1] == ports[1]
            with pytest.raises(InUse) as full:
                listen("127.0.0.1", ports)
    assert str(full.value) == (
        f"None of the ports {ports[0]} to {ports[1]} on '127.0.0.1' is free to serve a volume. It is tried again by "
        "itself. If that happens often, allow more ports in VOLMIG_STORAGE_PORTS."
    )
    listen("127.0.0.1", ports).close()


def test_any_port_where_none_is_named():
    with listen("127.0.0.1") as listener:
        assert listener.getsockname()[1] > 0


@pytest.mark.parametrize("ports", [(), (49152,)])
def test_address_of_another_host_is_refused(ports):
    with pytest.raises(NotReady, match="cannot serve volumes on '203.0.113.1'.*VOLMIG_STORAGE_ADDRESS"):
        listen("203.0.113.1", ports)


@pytest.mark.parametrize(
    ("text", "ports"), [("", range(0)), ("49152-49215", range(49152, 49216)), (" 7 - 7 ", range(7, 8))]
)
def test_setting_is_read(monkeypatch, text, ports):
    monkeypatch.setenv("VOLMIG_STORAGE_PORTS", text)
    assert config.read_ports("VOLMIG_STORAGE_PORTS") == ports


@pytest.mark.parametrize("text", ["49152", "a-b", "10-9", "0-5", "65000-65536", "1-2-3"])
def test_bad_setting_is_named(monkeypatch, text):
    monkeypatch.setenv("VOLMIG_STORAGE_PORTS", text)
    with pytest.raises(ValueError, match=f"VOLMIG_STORAGE_PORTS='{text}': "):
        config.read_ports("VOLMIG_STORAGE_PORTS")
