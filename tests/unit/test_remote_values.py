"""What crosses the database between two hosts arrives as it was."""

from __future__ import annotations

import json

import pytest

from backends.drivers import errors
from backends.drivers.errors import DriverError, Transient
from backends.drivers.types import PoolStats, StoredVolume, Usage
from migrations_app.remote.values import pack, pack_error, unpack, unpack_error
from migrations_app.saga.step import LeaseLost
from migrations_app.steps import SourceNotFit

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, DriverError)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        ["snapshot-1"],
        StoredVolume("v", 1, None, "inode 7", "text"),
        [Usage("process 1 (dd)", "holds a lock")],
        [PoolStats("main", "id", 1, None, 2, 3, True, False, location_info={"driver": "x", "list": [1]})],
    ],
)
def test_value_arrives_as_it_was(value):
    assert unpack(json.loads(json.dumps(pack(value)))) == value


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_error_arrives_with_its_class_and_words(cls):
    error = cls("What happened.", backend="h@b", operation="open", volume="v", remedy="What to do.")
    found = unpack_error(json.loads(json.dumps(pack_error(error, "h"))))
    assert type(found) is cls
    assert str(found) == "[h@b] What happened. What to do."
    assert (found.operation, found.volume) == ("open", "v")


def test_class_of_a_drivers_own_becomes_the_contracts_class():
    found = unpack_error(pack_error(SourceNotFit("no"), "h"))
    assert type(found) is errors.Permanent


def test_unforeseen_error_names_the_host_and_may_pass():
    found = unpack_error(pack_error(ZeroDivisionError("oh"), "store2"))
    assert type(found) is Transient
    assert str(found) == (
        "Unforeseen error ZeroDivisionError on host 'store2': oh. The log of that host's worker has the details."
    )


def test_lost_lease_stays_a_lost_lease():
    assert isinstance(unpack_error(pack_error(LeaseLost("gone"), "h")), LeaseLost)
