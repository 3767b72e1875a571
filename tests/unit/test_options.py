"""Driver options are declared once and refused all at once."""

from dataclasses import dataclass

import pytest

from backends.drivers.directory import DirectoryOptions
from backends.drivers.errors import BadOptions
from backends.drivers.fake import FakeDriver, FakeOptions
from backends.drivers.options import Options, build_options, describe_options, option
from backends.drivers.registry import driver_class, driver_names


@dataclass(frozen=True)
class Sample(Options):
    path: str = option("A path.", example="/srv")
    count: int = option("A count.", default=3)
    is_fast: bool = option("A flag.", default=False)
    key: str = option("A key.", default="", secret=True)


def test_declared_options_are_described_in_order():
    path, count, is_fast, key = describe_options(Sample)
    assert (path.name, path.type_name, path.is_required, path.example) == ("path", "str", True, "/srv")
    assert (count.default, count.is_required) == (3, False)
    assert is_fast.type_name == "bool"
    assert (key.is_secret, path.is_secret) == (True, False)


def test_strings_become_the_declared_types():
    made = build_options(Sample, {"path": "/x", "count": " 7 ", "is_fast": "Yes"})
    assert made == Sample(path="/x", count=7, is_fast=True)


def test_empty_values_are_defaults():
    assert build_options(Sample, {"path": "/x", "count": "", "is_fast": None}) == Sample(path="/x")


def test_every_wrong_option_is_named_at_once():
    with pytest.raises(BadOptions) as caught:
        build_options(Sample, {"cuont": 1, "count": "many", "is_fast": "perhaps"})
    text = str(caught.value)
    for part in (
        "unknown option 'cuont'",
        "missing option 'path' (A path.)",
        "count: 'many'",
        "is_fast: 'perhaps'",
    ):
        assert part in text
    assert "Known options: path, count, is_fast, key." in text


@pytest.mark.parametrize("name", driver_names())
def test_every_driver_declares_its_options_with_help(name):
    for info in describe_options(driver_class(name).options_class):
        assert info.help_text.endswith("."), info.name


def test_unknown_driver_is_refused_with_the_known_ones():
    with pytest.raises(BadOptions, match=r"There is no driver 'nope'.*fake"):
        driver_class("nope")


@pytest.mark.parametrize(
    ("values", "problem"),
    [({"path": "srv/volumes"}, "not an absolute path"), ({"path": "/srv", "pool": "a/b"}, "name of a pool")],
)
def test_directory_options_are_checked(values, problem):
    with pytest.raises(BadOptions, match=problem):
        build_options(DirectoryOptions, values)


def test_fake_has_a_secret_option_and_checks_its_pools():
    secrets = [info.name for info in describe_options(FakeDriver.options_class) if info.is_secret]
    assert secrets == ["password"]
    with pytest.raises(BadOptions, match="is not a list of names"):
        build_options(FakeOptions, {"pools": "a,,b"})
