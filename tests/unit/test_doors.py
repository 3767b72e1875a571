"""What can be served as a LUN, and what goes through the other door."""

from __future__ import annotations

import pytest

from backends.drivers.local_file_port import LocalFilePort
from backends.drivers.mounts import FileSystem
from backends.drivers.types import OpenMode
from migrations_app.remote import doors


@pytest.fixture
def open_file(tmp_path):
    """Return a function that opens a file of a size, to be written; `path` is where it lies."""
    ports = []

    def open_file(size_bytes: int) -> LocalFilePort:
        open_file.path.write_bytes(bytes(size_bytes))
        ports.append(LocalFilePort(str(open_file.path), OpenMode.WRITE))
        return ports[-1]

    open_file.path = tmp_path / "vol.raw"
    yield open_file
    for port in ports:
        port.close()


def test_file_of_whole_sectors_can_be_a_lun(open_file):
    assert doors._path_for_iscsi(open_file(4096)) == str(open_file.path)


def test_part_of_a_sector_cannot(open_file):
    assert doors._path_for_iscsi(open_file(4097)) == ""


def test_file_that_was_replaced_cannot(open_file, tmp_path):
    port = open_file(4096)
    open_file.path.rename(tmp_path / "other")
    assert doors._path_for_iscsi(port) == ""
    open_file.path.symlink_to(tmp_path / "other")
    assert doors._path_for_iscsi(port) == ""


def test_file_without_holes_cannot_unless_it_keeps_its_room(open_file, monkeypatch):
    monkeypatch.setattr(doors, "file_system_of", lambda fd: FileSystem("nfs", keeps_holes=False))
    port = open_file(4096)
    assert doors._path_for_iscsi(port) == ""
    port.keeps_allocation = True
    assert doors._path_for_iscsi(port) == str(open_file.path)
