"""Registering backends, creating and listing."""

from __future__ import annotations

import shutil

import pytest
from django_q.models import OrmQ, Schedule

from backends.drivers.conformance import PromiseResult
from backends.drivers.types import GIB, MIB
from backends.management.commands import validate_backend
from backends.models import Backend, Volume, VolumeType
from tests.conftest import HOST

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "pool"
    path.mkdir()
    return path


def test_add_backend_registers_it_with_its_schedules(run, directory):
    arguments = (f"{HOST}@ssd", "--driver", "directory", "--option", f"path={directory}")
    ran = run("add_backend", *arguments, "--capability", "tier=gold", "--reserved-percentage", "5", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["pools"] == [f"{HOST}@ssd#main"]
    backend = Backend.objects.get()
    assert backend.extra_capabilities == {"tier": "gold"}
    assert backend.reserved_percentage == 5
    assert Schedule.objects.filter(cluster=HOST).count() == 2
    again = run("add_backend", *arguments)
    assert again.code == 3
    assert "already" in again.err


def test_add_backend_of_another_host_lets_its_worker_report(run):
    ran = run("add_backend", "elsewhere@ssd", "--driver", "directory", "--option", "path=/srv/ssd")
    assert ran.code == 0
    assert "worker of host 'elsewhere'" in ran.out
    assert OrmQ.objects.filter(key="elsewhere").count() == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--option", "pth=/srv"], "unknown option 'pth'"),
        ([], "missing option 'path'"),
        (["--option", "path=/nowhere/at/all"], "/nowhere/at/all"),
        (["--option", "path=/srv", "--reserved-percentage", "101"], "100"),
        (["--option", "path=/srv", "--max-over-subscription-ratio", "0.5"], "1.0"),
    ],
)
def test_add_backend_refuses_what_cannot_work(run, options, says):
    ran = run("add_backend", f"{HOST}@ssd", "--driver", "directory", *options, "--json")
    assert ran.code == 3, ran.out
    assert says in ran.document["error"]["text"]
    assert not Backend.objects.exists()
    assert not Schedule.objects.exists()


def test_add_backend_reads_secrets_from_files_and_never_shows_them(run, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    arguments = ("add_backend", "elsewhere@x", "--driver", "fake", "--json", "--secret-option-file")
    ran = run(*arguments, f"password={secret}")
    assert ran.code == 0, ran.err
    assert "open sesame" not in ran.out + str(Backend.objects.values())
    assert ran.document["options"]["password"]
    missing = run(*arguments, f"password={tmp_path / 'missing'}")
    assert missing.code == 2
    assert "No such file" in missing.document["error"]["text"]


def test_list_backends_shows_state_and_why(run, make_backend):
    assert "add_backend" in run("list_backends").out
    backend = make_backend("a")
    ran = run("list_backends", "--json")
    assert ran.document[0]["pools"][0]["address"] == f"{HOST}@a#main"
    assert ran.document[0]["pools"][0]["state"] == "up"
    Backend.objects.create(host="elsewhere", name="new", driver="directory")
    backend.is_enabled, backend.disabled_reason = False, "new disks"
    backend.save()
    lines = run("list_backends").out.splitlines()
    assert len(lines) == 3
    assert "elsewhere@new" in lines[1]
    assert "never reported" in lines[1]
    assert "disabled" in lines[2]
    assert "new disks" in lines[2]


def test_volumes_and_types_are_created_and_listed(run, make_backend):
    make_backend("a")
    ran = run("create_volume_type", "gold", "--spec", "free_capacity_gb=>= 1", "--json")
    assert ran.document["extra_specs"] == {"free_capacity_gb": ">= 1"}
    assert VolumeType.objects.get().name == "gold"
    assert run("create_volume_type", "gold").code == 3
    pool = f"{HOST}@a#main"
    ran = run("create_volume", "web-1", "--size", "1GiB", "--pool", pool, "--type", "gold", "--json")
    assert ran.document["size_bytes"] == GIB
    assert ran.document["volume_type"] == "gold"
    assert run("create_volume", "web-2", "--size", "1MiB", "--pool", f"{HOST}@a").code == 0
    assert [v["name"] for v in run("list_volumes", "--json").document] == ["web-2", "web-1"]
    limited = run("list_volumes", "--limit", "1", "--json", "--pool", pool)
    assert [v["name"] for v in limited.document] == ["web-2"]
    assert "--limit" in limited.err
    assert run("list_volumes", "--limit", "0").code == 2
    assert "1.0 GiB" in run("list_volumes", "--pool", f"{HOST}@a").out


def test_create_volume_refuses_an_ambiguous_size(run, make_backend):
    make_backend("a")
    ran = run("create_volume", "web-1", "--size", "10G", "--pool", f"{HOST}@a")
    assert ran.code == 2
    assert "10GiB" in ran.err
    assert not Volume.objects.exists()


def test_refresh_backends_tells_each_that_fails(run, make_backend, tmp_path):
    make_backend("a")
    make_backend("b")
    assert run("refresh_backends").code == 0
    shutil.rmtree(tmp_path / "b")
    ran = run("refresh_backends", "--json")
    assert ran.code == 3
    assert [(row["backend"], row["ok"]) for row in ran.document] == [
        (f"{HOST}@a", True),
        (f"{HOST}@b", False),
    ]
    assert "FAILED" in ran.err
    assert run("refresh_backends", f"{HOST}@a").code == 0
    Backend.objects.create(host="elsewhere", name="c", driver="directory")
    assert run("refresh_backends", "elsewhere@c").code == 3


def test_validate_backend_tries_every_promise(run, make_backend, tmp_path):
    make_backend("a")
    ran = run("validate_backend", f"{HOST}@a", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["broken"] == 0
    assert ran.document["passed"] > 5
    assert not list((tmp_path / "a").glob("*.raw"))


def test_validate_backend_exits_4_when_a_promise_is_broken(run, make_backend, monkeypatch):
    make_backend("a")
    broken = PromiseResult("reads_back", "What is written is read.", False, None, "read zeros", 0.1)
    skipped = PromiseResult("moves", "It moves.", True, "no second pool", None, 0.1)
    monkeypatch.setattr(validate_backend, "run_promises", lambda *args: iter([broken, skipped]))
    ran = run("validate_backend", f"{HOST}@a")
    assert ran.code == 4
    assert "FAILED  reads back: read zeros" in ran.out
    assert "skipped  moves: no second pool" in ran.out


def test_validate_backend_runs_on_the_backends_host_only(run):
    backend = Backend.objects.create(host="elsewhere", name="c", driver="directory", options={"path": "/srv"})
    backend.pools.create(name="main", total_bytes=MIB)
    ran = run("validate_backend", "elsewhere@c", "--json")
    assert ran.code == 3
    assert "'elsewhere'" in ran.document["error"]["text"]
