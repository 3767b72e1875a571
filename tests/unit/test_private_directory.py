"""Directories with keys and sockets: nobody else's, gone at the end, and swept when their process was killed."""

from __future__ import annotations

import os

from backends.drivers import tls_front
from backends.drivers.private_directory import PrivateDirectory, private_directories, private_directory, sweep

PREFIX = "volmig-test-"


def test_directory_is_this_users_alone_and_gone_at_the_end(tmp_path):
    with private_directory(PREFIX, tmp_path) as path:
        assert path.parent == tmp_path
        assert path.stat().st_mode & 0o777 == 0o700
        assert list(private_directories(PREFIX, tmp_path)) == [(path, True)]
        (path / "key").write_text("secret")
    assert list(tmp_path.iterdir()) == []


def test_only_what_a_killed_process_left_is_swept_and_not_too_soon(tmp_path):
    left, used = PrivateDirectory(PREFIX, tmp_path), PrivateDirectory(PREFIX, tmp_path)
    left.leave()
    sweep(PREFIX, parent=tmp_path)
    assert left.path.exists()
    for directory in (left, used):
        os.utime(directory.path, (0, 0))
    sweep(PREFIX, parent=tmp_path)
    assert (left.path.exists(), used.path.exists()) == (False, True)
    used.remove()


def test_key_is_gone_with_its_use(monkeypatch, tmp_path):
    monkeypatch.setattr(tls_front, "_MEMORY", tmp_path)
    with tls_front.key_file("abc") as path:
        assert oct(os.stat(path).st_mode & 0o777) == "0o600"
    assert list(tmp_path.iterdir()) == []


def test_several_may_ask_at_once_whether_a_process_is_alive(tmp_path):
    dead, alive = (PrivateDirectory(PREFIX, tmp_path) for _ in range(2))
    dead.leave()
    first = private_directories(PREFIX, tmp_path)
    second = private_directories(PREFIX, tmp_path)
    expected = {(dead.path, False), (alive.path, True)}
    # Each is still looking at a directory when the other does.
    assert {answer for pair in zip(first, second, strict=True) for answer in pair} == expected
    alive.remove()
    assert dict(private_directories(PREFIX, tmp_path)) == {dead.path: False}
