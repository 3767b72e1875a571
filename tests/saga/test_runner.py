"""The runner against every death, every failure and every combination of two."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from migrations_app.saga.runner import Result
from migrations_app.steps import STEPS
from tests.saga.world import (
    BROKEN,
    DATA,
    DESTINATION,
    LOST,
    SOURCE,
    UNFORESEEN,
    Story,
    World,
    live,
    steps_of,
    twice,
)

NAMES = [s.name for s in steps_of(World(Story()))]
UNDOABLE = [s.name for s in steps_of(World(Story())) if s.undo]
SHAPES = {
    "copied, source kept": {},
    "copied, source deleted": {"deletes_source": True},
    "moved, source kept": {"moves_natively": True},
    "moved, source gone": {"moves_natively": True, "keeps_source": False},
}
#: Result by the step that fails for good: a complete copy is not thrown away.
AFTER_FAILURE = {
    **dict.fromkeys(NAMES[:5], Result.UNDONE),
    **dict.fromkeys(NAMES[5:], Result.NEEDS_OPERATOR),
}


def _same_in_all(story_of, kills: int) -> Counter:
    """Live the story with every combination of up to *kills* deaths; return how often it ended how."""
    results: Counter = Counter()
    calm = live(story_of(()))
    results[calm.outcome.result] += 1
    results["boundaries"] = len(calm.ticks)
    for first in range(1, len(calm.ticks) + 1):
        once = live(story_of((first,)))
        results[once.outcome.result] += 1
        results["runs"] += 1
        if kills > 1:
            for second in range(first + 1, len(once.ticks) + 1):
                results[live(story_of((first, second))).outcome.result] += 1
                results["runs"] += 1
    return results


def test_world_has_the_shape_of_the_real_steps():
    assert [(s.name, s.undo is not None, s.final, s.completes_copy) for s in steps_of(World(Story()))] == [
        (s.name, s.undo is not None, s.final, s.completes_copy) for s in STEPS
    ]


@pytest.mark.parametrize("shape", SHAPES)
def test_calm_run_moves_the_volume(shape):
    world = live(Story(**SHAPES[shape]))
    assert world.db.record == DESTINATION
    assert world.storage[DESTINATION] == DATA
    is_kept = shape.endswith("kept")
    assert world.outcome.result is (Result.PARKED if is_kept else Result.FINISHED)


@pytest.mark.parametrize("shape", SHAPES)
def test_everything_done_twice_is_everything_done_once(shape):
    world = live(Story(**SHAPES[shape]), make_steps=lambda world: twice(steps_of(world)))
    assert world.storage == live(Story(**SHAPES[shape])).storage


@pytest.mark.parametrize("name", NAMES[:5])
def test_everything_undone_twice_is_everything_undone_once(name):
    story = Story(errors={(name, "reply"): [BROKEN]})
    world = live(story, make_steps=lambda world: twice(steps_of(world)))
    assert world.outcome.result is Result.UNDONE
    assert world.storage == {SOURCE: DATA}


@pytest.mark.parametrize("kills", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_death_at_any_boundary_changes_nothing_in_the_end(shape, kills):
    results = _same_in_all(lambda deaths: Story(kills=deaths, **SHAPES[shape]), kills)
    print(f"{shape}: {results}")
    expected = live(Story(**SHAPES[shape])).outcome.result
    assert {key for key in results if isinstance(key, Result)} == {expected}
    assert results["runs"] > 40


@pytest.mark.parametrize("when", ["do", "reply"])
@pytest.mark.parametrize("error", [BROKEN, LOST, UNFORESEEN], ids=["permanent", "transient", "unforeseen"])
@pytest.mark.parametrize("name", NAMES)
def test_step_that_fails_for_ever_is_undone_or_waits_for_a_person(name, error, when):
    def story(deaths=()) -> Story:
        return Story(kills=deaths, deletes_source=True, errors={(name, when): [error]})

    results = _same_in_all(story, 2 if error is BROKEN else 1)
    assert {key for key in results if isinstance(key, Result)} == {AFTER_FAILURE[name]}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("error", [LOST, UNFORESEEN], ids=["transient", "unforeseen"])
@pytest.mark.parametrize("name", NAMES)
def test_failure_that_passes_is_only_a_delay(name, error, times):
    world = live(Story(deletes_source=True, errors={(name, "do"): [error] * times + [None]}))
    assert world.outcome.result is Result.FINISHED


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [LOST, UNFORESEEN], ids=["transient", "unforeseen"])
def test_failure_that_passes_and_a_death_anywhere(name, error):
    results = _same_in_all(
        lambda deaths: Story(kills=deaths, deletes_source=True, errors={(name, "do"): [error, None]}), 1
    )
    assert {key for key in results if isinstance(key, Result)} == {Result.FINISHED}


@pytest.mark.parametrize("error", [BROKEN, LOST, UNFORESEEN], ids=["permanent", "transient", "unforeseen"])
@pytest.mark.parametrize("undone", UNDOABLE)
def test_undo_that_fails_for_ever_waits_for_a_person(undone, error):
    def story(deaths=()) -> Story:
        return Story(kills=deaths, errors={("verify", "do"): [BROKEN], (undone, "undo"): [error]})

    results = _same_in_all(story, 1)
    assert {key for key in results if isinstance(key, Result)} == {Result.NEEDS_OPERATOR}
    assert live(story()).outcome.step.name == undone


@pytest.mark.parametrize("undone", UNDOABLE)
def test_undo_that_fails_once_is_tried_again(undone):
    def story(deaths=()) -> Story:
        return Story(kills=deaths, errors={("copy", "do"): [BROKEN], (undone, "undo"): [LOST, None]})

    results = _same_in_all(story, 1)
    assert {key for key in results if isinstance(key, Result)} == {Result.UNDONE}


@pytest.mark.parametrize("check", range(1, len(NAMES) + 2))
def test_cancel_before_the_switch_leaves_nothing_and_after_it_comes_too_late(check):
    results = _same_in_all(lambda deaths: Story(kills=deaths, cancel_at_check=check), 2)
    ended = {key for key in results if isinstance(key, Result)}
    # The record has moved with the sixth step; a death makes the run pass more checks before it.
    assert ended <= {Result.UNDONE, Result.PARKED}
    if check <= 6:
        assert ended == {Result.UNDONE}


@pytest.mark.parametrize("check", range(1, len(NAMES) + 1))
def test_interruption_decides_nothing(check):
    world = live(Story(deletes_source=True, interrupt_at_check=check))
    assert world.outcome.result is Result.FINISHED
    assert not [kind for _, kind, _ in world.db.log if kind in ("failed", "undo_decided")]


def test_failures_and_cancel_together_end_in_one_of_both():
    for name, check in itertools.product(NAMES[:5], range(1, 7)):
        world = live(Story(errors={(name, "do"): [BROKEN]}, cancel_at_check=check))
        assert world.outcome.result is Result.UNDONE
        assert len([kind for _, kind, _ in world.db.log if kind == "undo_decided"]) == 1
