"""The vectors were measured with Cinder's `extra_specs_ops.match`."""

import pytest

from migrations_app.scheduler.capabilities import pool_capabilities
from migrations_app.scheduler.extra_specs import (
    MISSING,
    is_capability,
    look_up,
    matches,
    meets,
    mistaken_operator,
)
from tests.unit.scheduler.values import make_pool


@pytest.mark.parametrize(
    ("value", "requirement", "expected"),
    [
        (True, "<is> True", True),
        ("5", "5", True),
        (10, "= 5", True),
        (10, "> 5", False),
        ("abc", "<in> b", True),
        ("iSCSI", "<or> iSCSI <or> FC", True),
        ("x", "<or> x y <or> z", True),
        (None, "<is> False", False),
        ("abc", ">= 1", False),
        (None, None, True),
        ("5", " ", False),
        ("x", "<in>", False),
    ],
)
def test_as_cinder(value, requirement, expected):
    assert matches(value, requirement) is expected


@pytest.mark.parametrize(
    ("value", "requirement", "expected"),
    [
        (4, "= 5", False),
        (5, "== 5.0", True),
        (5, "!= 5", False),
        (5, "<= 5", True),
        ("b", "s== b", True),
        ("b", "s!= b", False),
        ("b", "s< c", True),
        ("b", "s<= a", False),
        ("b", "s> a", True),
        ("b", "s>= c", False),
        ("a b", "s== a b", False),
        (False, "<is> no", True),
        ("yes", "<is> True", True),
        (7, "<in> 7", False),
        ("FC", "<or> iSCSI <or> FC", True),
        ("NFS", "<or> iSCSI <or> FC", False),
        ("x", "<or>", False),
        ("x", None, False),
    ],
)
def test_every_operator(value, requirement, expected):
    assert matches(value, requirement) is expected


@pytest.mark.parametrize("word", ["True", "true", "yes", "<is> True"])
def test_a_boolean_equals_its_word_unlike_in_cinder(word):
    assert matches(True, word)
    assert not matches(False, word)


@pytest.mark.parametrize("requirement", [True, "True"])
def test_a_requirement_need_not_be_text(requirement):
    assert matches(True, requirement)


def test_a_number_equals_its_text_unlike_in_cinder():
    assert matches(5, "5")
    assert matches(5.0, "5")
    assert not matches(5, "6")
    assert not matches(5, "five")


def test_infinite_is_more_than_any_number_unlike_in_cinder():
    assert matches("infinite", ">= 1000000")
    assert not matches("infinite", "<= 1000000")
    assert not matches("unknown", ">= 1")


def test_every_alternative_counts_unlike_in_cinder():
    assert matches("z", "<or> x y <or> z")


def test_of_a_list_one_member_is_enough():
    assert meets(["iSCSI", "iscsi"], "iscsi")
    assert meets([1, 9], ">= 5")
    assert not meets([], "<is> False")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("compression", True),
        ("capabilities:compression", True),
        ("RESKEY:availability_zones", False),
        ("provisioning:type", False),
        ("vendor:tier", False),
    ],
)
def test_other_scopes_are_left_to_others(key, expected):
    assert is_capability(key) is expected


def test_nested_capabilities_are_found():
    capabilities = {"disk": {"kind": "ssd"}, "flat": 1}
    assert look_up(capabilities, "capabilities:disk:kind") == "ssd"
    assert look_up(capabilities, "capabilities:flat") == 1
    assert look_up(capabilities, "flat") == 1
    assert look_up(capabilities, "capabilities:disk:size") is MISSING
    assert look_up(capabilities, "capabilities:flat:deeper") is MISSING
    assert look_up(capabilities, "none") is MISSING


def test_what_only_looks_like_an_operator_is_told():
    assert mistaken_operator("> 5") == (">", ">=")
    assert mistaken_operator(">= 5") is None
    assert mistaken_operator("") is None


def test_capabilities_at_the_edge_are_gib_and_words():
    pool = make_pool(free_bytes=None, storage_protocol="iscsi", capabilities={"tier": "gold"})
    reported = pool_capabilities(pool)
    assert reported["total_capacity_gb"] == 100.0
    assert reported["free_capacity_gb"] == "unknown"
    assert reported["volume_backend_name"] == "ssd"
    assert reported["pool_name"] == "fast"
    assert reported["tier"] == "gold"
    assert "iSCSI" in reported["storage_protocol"]
    assert pool_capabilities(make_pool(is_infinite=True))["free_capacity_gb"] == "infinite"


def test_a_driver_may_name_its_backend_but_not_its_free_space():
    pool = make_pool(capabilities={"volume_backend_name": "shared", "free_capacity_gb": 10**6})
    reported = pool_capabilities(pool)
    assert reported["volume_backend_name"] == "shared"
    assert reported["free_capacity_gb"] == 60.0
