"""What all commands have in common."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import pytest
from django.db import OperationalError

from backends import services
from backends.models import VolumeType
from tests.conftest import HOST

COMMANDS = {
    "add_backend": "migrations_app",
    "cancel_migration": "migrations_app",
    "create_snapshot": "backends",
    "create_volume": "backends",
    "create_volume_type": "backends",
    "delete_snapshot": "backends",
    "delete_volume": "backends",
    "doctor": "migrations_app",
    "extend_volume": "backends",
    "finish_migration": "migrations_app",
    "keep_source": "migrations_app",
    "list_backends": "backends",
    "list_migrations": "migrations_app",
    "list_volumes": "backends",
    "migrate_volume": "migrations_app",
    "migration_report": "migrations_app",
    "pause_migration": "migrations_app",
    "purge_source": "migrations_app",
    "refresh_backends": "backends",
    "resolve_migration": "migrations_app",
    "resume_migrations": "migrations_app",
    "retry_migration": "migrations_app",
    "roll_back_migration": "migrations_app",
    "set_bandwidth": "migrations_app",
    "validate_backend": "backends",
}


def command(name: str):
    return importlib.import_module(f"{COMMANDS[name]}.management.commands.{name}").Command()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_it_does_with_examples_and_exit_codes(name, capsys):
    command(name).print_help("manage.py", name)
    text = capsys.readouterr().out
    head, _, tail = text.partition("\nexamples:\n")
    assert len(command(name).help) > 20
    assert f"  manage.py {name}" in tail
    assert "exit codes:" in tail
    assert "  3   refused" in tail
    assert "--json" in head
    assert max(map(len, head.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_arguments_exit_2_and_are_json_if_asked(name, capsys, monkeypatch):
    arguments = ["manage.py", name, "--nonsense", "--json"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        command(name).run_from_argv(arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["code"] == "usage"
    assert "error:" in captured.err


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_understood(name):
    """What `--help` shows can be typed."""
    import shlex

    parser = command(name).create_parser("manage.py", name)
    for example in command(name).examples:
        parser.parse_args(shlex.split(example)[2:])


@pytest.mark.django_db
def test_a_database_that_does_not_answer_is_told_without_a_traceback(run, monkeypatch):
    def fail(*args, **kwargs):
        raise OperationalError("no such table: backends_volumetype")

    monkeypatch.setattr(services, "create_volume_type", fail)
    ran = run("create_volume_type", "gold", "--json")
    assert ran.code == 1
    assert "manage.py migrate" in ran.document["error"]["text"]


@pytest.mark.django_db
def test_something_unforeseen_is_json_and_still_raises(monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise RuntimeError("a bug")

    monkeypatch.setattr(services, "create_volume_type", fail)
    from django.core.management import call_command

    with pytest.raises(RuntimeError):
        call_command("create_volume_type", "gold", "--json")
    assert json.loads(capsys.readouterr().out)["error"] == {
        "code": "unexpected",
        "title": "Unexpected",
        "text": "a bug",
    }


def test_settings_that_are_refused_are_json_too():
    done = subprocess.run(
        [sys.executable, "manage.py", "list_volumes", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "VOLMIG_LEASE_SECONDS": "1"},
    )
    assert done.returncode == 1
    assert "VOLMIG_LEASE_SECONDS" in json.loads(done.stdout)["error"]["text"]
    assert "VOLMIG_LEASE_SECONDS" in done.stderr


@pytest.mark.django_db
def test_traceback_shows_where_a_refusal_comes_from(run):
    with pytest.raises(services.InventoryRefused):
        run("create_volume_type", "", "--traceback")


@pytest.mark.django_db
def test_keys_given_twice_are_wrong_arguments(run):
    ran = run("create_volume_type", "gold", "--spec", "tier=a", "--spec", "tier=b", "--json")
    assert ran.code == 2
    assert "tier" in ran.document["error"]["text"]
    assert not VolumeType.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("migrate_volume", "web1", "--to", "x@y"), "Did you mean 'web-1'?"),
        (("list_volumes", "--pool", f"{HOST}@B"), f"Did you mean '{HOST}@b'?"),
        (("refresh_backends", f"{HOST}@bb"), f"Did you mean '{HOST}@b'?"),
        (
            ("create_volume", "v", "--size", "1MiB", "--pool", f"{HOST}@b#mian"),
            f"Did you mean '{HOST}@b#main'?",
        ),
        (
            ("create_volume", "v", "--size", "1MiB", "--pool", f"{HOST}@b", "--type", "glod"),
            "Did you mean 'gold'?",
        ),
        (("cancel_migration", "0123"), "There is no migration '0123'"),
        (("pause_migration", "0123"), "There is no migration '0123'"),
        (("delete_snapshot", "web-1", "monday"), "has no snapshot 'monday'. It has: none."),
    ],
)
def test_names_that_do_not_exist_are_refused_with_the_nearest(
    run, make_backend, make_volume, arguments, says
):
    make_volume(make_backend("b"), "web-1", filled=False)
    VolumeType.objects.create(name="gold")
    ran = run(*arguments, "--json")
    assert ran.code == 3
    assert ran.document["error"]["code"] == "unknown"
    assert says in ran.document["error"]["text"]
    assert says in ran.err


def test_a_command_is_quick_to_explain_itself():
    """A real process: nothing on stderr, no database needed."""
    done = subprocess.run(
        [sys.executable, "manage.py", "migrate_volume", "--help"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "examples:" in done.stdout
