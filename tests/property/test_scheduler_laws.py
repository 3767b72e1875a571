"""What holds for every pool and volume, whatever the numbers."""

from __future__ import annotations

import dataclasses
import math

from hypothesis import given
from hypothesis import strategies as st

from migrations_app.scheduler.capacity_filter import has_capacity
from migrations_app.scheduler.expressions import ExpressionError, evaluate
from migrations_app.scheduler.extra_specs import meets
from migrations_app.scheduler.human import at_least_text, bytes_text
from migrations_app.scheduler.types import StorageFacts
from migrations_app.scheduler.verdicts import judge, rank
from migrations_app.scheduler.weighers import normalise
from tests.unit.scheduler.values import codes, generic_copy, make_pool, make_request

sizes = st.integers(0, 2**52)
maybe_sizes = st.none() | sizes
ratios = st.floats(0, 50)


@st.composite
def pools(draw, address="store1@ssd#fast"):
    return make_pool(
        address,
        total_bytes=draw(maybe_sizes),
        free_bytes=draw(maybe_sizes),
        provisioned_bytes=draw(maybe_sizes),
        is_infinite=draw(st.booleans()),
        thin_provisioning_support=draw(st.booleans()),
        thick_provisioning_support=draw(st.booleans()),
        reserved_percentage=draw(st.integers(0, 100)),
        max_over_subscription_ratio=draw(ratios),
        reserved_by_migrations_physical_bytes=draw(sizes),
        reserved_by_migrations_provisioned_bytes=draw(sizes),
        active_migrations=draw(st.integers(0, 9)),
        volume_count=draw(st.integers(0, 10**6)),
        is_enabled=draw(st.booleans()),
        goodness_function=draw(st.sampled_from(["", "volume.size", "stats.none", "100"])),
    )


@st.composite
def requests(draw):
    size = draw(st.integers(1, 2**50))
    return make_request(
        size_bytes=size,
        facts=StorageFacts(size_bytes=size, allocated_bytes=draw(st.none() | st.integers(0, 2**50))),
        extra_specs=draw(st.sampled_from([{}, {"provisioning:type": "thick"}])),
        native_how=draw(st.sampled_from(["", "reflink", "lvconvert"])),
    )


several_pools = st.integers(0, 8).flatmap(
    lambda number: st.tuples(*(pools(f"store1@b{index}#p") for index in range(number)))
)


@given(requests(), pools(), sizes)
def test_more_free_space_never_refuses(request, pool, more):
    if not has_capacity(request, pool) and pool.free_bytes is not None:
        roomier = dataclasses.replace(pool, free_bytes=pool.free_bytes + more)
        assert has_capacity(request, roomier) == []


@given(requests(), pools(), sizes)
def test_more_promises_never_help(request, pool, more):
    promised = dataclasses.replace(
        pool,
        reserved_by_migrations_physical_bytes=pool.reserved_by_migrations_physical_bytes + more,
    )
    if has_capacity(request, pool):
        assert has_capacity(request, promised)


@given(requests(), pools())
def test_what_fits_really_fits(request, pool):
    """Whatever the ratio: data that is written stays within the physical room."""
    pool = dataclasses.replace(pool, is_enabled=True)
    verdict = judge(request, pool, plan_move=generic_copy)
    if verdict.fits and not pool.is_infinite:
        assert verdict.free_after_bytes is not None
        assert verdict.free_after_bytes >= pool.reserved_by_migrations_physical_bytes


@given(requests(), pools())
def test_the_same_question_has_the_same_answer(request, pool):
    first, second = (judge(request, pool, plan_move=generic_copy) for _ in range(2))
    assert first == second
    assert "filter_failed" not in codes(first.reasons)


@given(requests(), several_pools, st.randoms())
def test_a_ranking_is_a_permutation_that_does_not_depend_on_the_order(request, some, random):
    shuffled = list(some)
    random.shuffle(shuffled)
    ranked = rank(request, some, plan_move=generic_copy)
    assert sorted(verdict.address for verdict in ranked) == sorted(pool.address for pool in some)
    assert ranked == rank(request, shuffled, plan_move=generic_copy)
    fits = [verdict.fits for verdict in ranked]
    assert fits == sorted(fits, reverse=True)
    for verdict in ranked:
        assert math.isfinite(verdict.score)
        assert all(0 <= part.normalised <= 1 and math.isfinite(part.raw) for part in verdict.parts)


@given(st.lists(st.floats()))
def test_normalised_values_lie_between_0_and_1(values):
    normalised = normalise(values)
    assert len(normalised) == len(values)
    assert all(0 <= value <= 1 for value in normalised)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2))
def test_normalising_keeps_the_order(values):
    normalised = normalise(values)
    by_value = sorted(zip(values, normalised, strict=True))
    assert [new for _, new in by_value] == sorted(normalised)


WORDS = [
    "1",
    "2",
    "0",
    ".5",
    "+",
    "-",
    "*",
    "/",
    "^",
    "!",
    "&&",
    "||",
    "and",
    "or",
    "not",
    "<",
    "<=",
    "==",
    "<>",
    "?",
    ":",
    "(",
    ")",
    ",",
    "abs",
    "max",
    "stats.x",
    "'a'",
]


def value_or_error(text):
    try:
        return evaluate(text, {"stats": {"x": 3}})
    except ExpressionError as err:
        return f"error: {err}"


@given(st.text())
def test_any_text_is_an_expression_or_an_error(text):
    assert value_or_error(text) != "error: "


@given(st.lists(st.sampled_from(WORDS), max_size=30))
def test_any_row_of_words_is_an_expression_or_an_error(words):
    assert value_or_error(" ".join(words)) != "error: "


operands = st.booleans().map(lambda value: ("1 == 1" if value else "1 == 2", value))


@given(st.lists(operands, min_size=1, max_size=12))
def test_chains_look_at_every_part(parts):
    texts, values = zip(*parts, strict=True)
    assert evaluate(" and ".join(texts), {}) is all(values)
    assert evaluate(" || ".join(texts), {}) is any(values)


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
operators = st.sampled_from(
    ["=", "==", "!=", ">=", "<=", "s==", "s!=", "s<", "s<=", "s>", "s>=", "<in>", "<is>", "<or>", ">", "<"]
)


@given(
    values | st.lists(values) | st.just({"a": 1}),
    st.text() | st.tuples(operators, st.text()).map(" ".join),
)
def test_any_extra_spec_is_met_or_not(capability, requirement):
    assert meets(capability, requirement) in (True, False)


@given(st.integers(0, 2**63))
def test_sizes_are_short_and_what_to_free_is_enough(number):
    assert len(bytes_text(number)) <= len("1023.9 GiB")
    value, unit = at_least_text(number).split()
    power = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB").index(unit)
    assert round(float(value) * 10) * 1024**power >= number * 10
