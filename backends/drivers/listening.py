"""Where this host listens for other hosts' connections to the volumes that it serves."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from backends.drivers.errors import InUse, NotReady


def listen(address: str, ports: Sequence[int] = ()) -> socket.socket:
    """
    Return a socket that listens on *address*, on a free one of *ports*, or of all if none is given.

    Raises:
        NotReady: It is no address of this host.
        InUse: None of the ports is free now.
    """
    for port in ports or (0,):
        try:
            return _listen(address, port)
        except OSError as error:
            if ports and error.errno == errno.EADDRINUSE:
                continue
            raise NotReady(
                f"This host cannot serve volumes on '{address}'{f' port {port}' if port else ''}: "
                f"{error.strerror or error}.",
                operation="open",
                remedy="Set VOLMIG_STORAGE_ADDRESS to an address that the host has, and start its worker again.",
            ) from error
    raise InUse(
        f"None of the ports {ports[0]} to {ports[-1]} on '{address}' is free to serve a volume.",
        operation="open",
        remedy="It is tried again by itself. If that happens often, allow more ports in VOLMIG_STORAGE_PORTS.",
    )


def _listen(address: str, port: int) -> socket.socket:
    family, kind, protocol, _, place = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        # A connection that has just ended keeps its port for a minute otherwise.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener
