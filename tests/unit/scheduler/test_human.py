import pytest

from migrations_app.scheduler.human import (
    at_least_text,
    bytes_text,
    count_text,
    differing_texts,
    duration_text,
    list_text,
    sentence,
    without_period,
)

GIB = 1024**3


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "unknown"),
        (0, "0 B"),
        (512, "512 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (GIB, "1.0 GiB"),
        (GIB * 5 // 2, "2.5 GiB"),
        (-GIB, "-1.0 GiB"),
        (1024**4 * 3, "3.0 TiB"),
        (1024**7, "1024.0 EiB"),
    ],
)
def test_bytes_are_told_in_binary_units(number, text):
    assert bytes_text(number) == text


def test_what_must_be_freed_is_never_rounded_down():
    assert bytes_text(GIB + 1) == "1.0 GiB"
    assert at_least_text(GIB + 1) == "1.1 GiB"
    assert at_least_text(GIB) == "1.0 GiB"
    assert at_least_text(1024 * GIB - 1) == "1.0 TiB"


def test_two_sizes_can_be_told_apart():
    assert differing_texts(4 * GIB, 4 * GIB - 1) == ("4294967296 B", "4294967295 B")
    assert differing_texts(4 * GIB, GIB) == ("4.0 GiB", "1.0 GiB")
    assert differing_texts(GIB, GIB) == ("1.0 GiB", "1.0 GiB")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "unknown"),
        (0.2, "less than 1 s"),
        (1, "about 1 s"),
        (59.4, "about 59 s"),
        (59.6, "about 1 min"),
        (180, "about 3 min"),
        (3599, "about 1 h"),
        (3600, "about 1 h"),
        (7800, "about 2 h 10 min"),
        (86_399, "about 1 day"),
        (2 * 86_400 + 3 * 3600, "about 2 days 3 h"),
    ],
)
def test_durations_are_told_coarsely(seconds, text):
    assert duration_text(seconds) == text


def test_long_lists_are_cut_and_say_so():
    assert list_text([]) == ""
    assert list_text(["a"]) == "a"
    assert list_text(["a", "b"]) == "a and b"
    assert list_text(["a", "b", "c", "d"]) == "a, b, c and d"
    assert list_text(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_small_helpers():
    assert count_text(1, "snapshot") == "1 snapshot"
    assert count_text(2, "snapshot") == "2 snapshots"
    assert without_period(" It is down. ") == "It is down"


def test_a_sentence_ends_once():
    assert [sentence(text) for text in (" It is down", "It is down.", "Is it\nup?")] == [
        "It is down.",
        "It is down.",
        "Is it up?",
    ]
