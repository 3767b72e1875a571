"""A copy takes no more room than its source, however finely the data is scattered."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.directory import DirectoryDriver, DirectoryOptions
from backends.drivers.types import KIB, MIB, OpenMode
from migrations_app.copying import engine


@pytest.mark.parametrize("period", [8 * KIB, 12 * KIB, 16 * KIB, 64 * KIB, MIB])
def test_four_kibibytes_of_data_in_every_period_take_the_same_room(tmp_path: Path, period: int) -> None:
    driver = DirectoryDriver(DriverContext("h@d", "h", DirectoryOptions(path=str(tmp_path))))
    driver.check()
    size = 16 * MIB
    for name in ("source", "copy"):
        driver.create("main", name, size)
    with (tmp_path / "source.raw").open("r+b") as file:
        for offset in range(0, size, period):
            file.seek(offset)
            file.write(b"d" * 4 * KIB)
    with (
        driver.open("main", "source", OpenMode.SOURCE) as source,
        driver.open("main", "copy", OpenMode.WRITE) as copy,
    ):
        engine.copy(
            source,
            copy,
            first_segment=0,
            destination_reads_zero=True,
            guards=engine.Guards(),
            checkpoint=lambda segments: None,
        )
    blocks = {name: (tmp_path / f"{name}.raw").stat().st_blocks for name in ("source", "copy")}
    assert (tmp_path / "copy.raw").read_bytes() == (tmp_path / "source.raw").read_bytes()
    assert blocks["copy"] <= blocks["source"] * 1.02
