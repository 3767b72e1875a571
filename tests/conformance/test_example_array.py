"""The example of docs/writing-a-driver.md keeps every promise, on a real array that speaks HTTP and NBD."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import time
from pathlib import Path

import pytest

from backends.drivers.base import DriverContext
from backends.drivers.conformance import PROMISES, run_promises
from backends.drivers.errors import ConnectionLost, NoSpace, NotPermitted
from backends.drivers.types import GIB, MIB, OpenMode
from tests.nbd import require_nbd
from tests.rest_array import TOKEN, rest_array

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXAMPLE = DOCS / "examples/array_driver.py"
SKIPPED = {
    "thick_volumes_take_their_room": "the pool has no thick volumes",
    "snapshots_come_and_go": "the driver has no snapshots",
    "what_was_flushed_can_be_read_beside_the_writer": "the driver does not let a volume be read while it is written",
}


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("array_driver", EXAMPLE)
    module = sys.modules["array_driver"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def array(tmp_path):
    require_nbd()
    with rest_array(tmp_path) as (url, array):
        array.url = url
        yield array


@pytest.fixture
def make_driver(example, array):
    def make(token: str = TOKEN, url: str = array.url):
        options = example.ArrayOptions(url=url, token=token)
        return example.ArrayDriver(DriverContext("h@array", "h", options))

    return make


@pytest.mark.parametrize("promise", [promise.__name__ for promise in PROMISES])
def test_example_keeps(promise, make_driver, array, tmp_path):
    array.pause_seconds = 0.002
    (result,) = run_promises(make_driver, "gold", only={promise})
    assert result.passed, result.error_text
    assert result.skipped_reason == SKIPPED.get(promise)
    assert os.listdir(tmp_path) == []
    assert array.exports == {}


def test_code_in_the_documentation_is_the_code_that_is_tested():
    page = (DOCS / "writing-a-driver.md").read_text()
    section = page.split("## An array that moves its own volumes")[1]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) >= 4
    code = EXAMPLE.read_text()
    for block in blocks:
        assert block in code, f"the page shows what the example does not have:\n{block}"
    assert len(page.splitlines()) < 300


def test_wrong_token_full_pool_and_missing_array_are_told(make_driver):
    with pytest.raises(NotPermitted, match=r"the token is wrong \(401\)") as caught:
        make_driver(token="secret-of-somebody").check()
    assert "secret-of-somebody" not in str(caught.value)
    with pytest.raises(NoSpace, match=r"the pool is full \(507\)"):
        make_driver().create("gold", "vol", 7 * GIB)
    with pytest.raises(ConnectionLost, match="Connection refused"):
        make_driver(url="http://127.0.0.1:1").check()


def test_next_worker_finds_the_move_of_a_killed_one(make_driver, array):
    array.pause_seconds = 0.05
    there = dict(make_driver().pools()[1].location_info)
    where = ("gold", "vol", there, "silver", "new")
    driver = make_driver()
    driver.create("gold", "vol", 8 * MIB)
    with driver.open("gold", "vol", OpenMode.WRITE) as port:
        port.write(0, memoryview(b"x" * MIB))
        port.flush()
    assert not driver.start_move(*where).is_finished
    # Nothing lives in the driver object.
    status = make_driver().start_move(*where)
    assert (status.is_finished, len(array.tasks)) == (False, 1)
    while not status.is_finished:
        time.sleep(0.02)
        status = make_driver().poll_move(*where)
    with make_driver().open("silver", "new", OpenMode.SOURCE) as port:
        found = bytearray(MIB)
        port.read_into(0, memoryview(found))
    assert bytes(found) == b"x" * MIB


def test_move_that_the_array_gives_up_is_begun_anew(make_driver, array):
    array.pause_seconds = 0.05
    there = dict(make_driver().pools()[1].location_info)
    where = ("gold", "vol", there, "silver", "new")
    driver = make_driver()
    driver.create("gold", "vol", 8 * MIB)
    driver.start_move(*where)
    (task,) = array.tasks.values()
    task.error = "a disk failed"
    task.thread.join()
    with pytest.raises(ConnectionLost, match="has given up the move of 'vol': a disk failed"):
        driver.poll_move(*where)
    assert not driver.start_move(*where).is_finished
    driver.cancel_move(*where)
    assert [v.name for v in driver.list_volumes("silver")] == []
