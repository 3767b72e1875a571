"""What templates say of how long something took."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from volmig_site.templatetags.volmig import took

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.04, "0.0 s"),
        (0.8, "0.8 s"),
        (1.25, "1.2 s"),
        (9.94, "9.9 s"),
        (9.96, "9.9 s"),
        (10.3, "10 s"),
        (59.9, "59 s"),
        (61, "1 min 01 s"),
        (2 * 3600 + 59, "2 h 00 min"),
    ],
)
def test_time_taken_is_exact(seconds, text):
    assert took(START, START + timedelta(seconds=seconds)) == text


def test_what_is_not_over_yet_counts_in_seconds():
    assert took(datetime.now(UTC) - timedelta(seconds=3.2)) == "3 s"
    assert took(None) == ""
