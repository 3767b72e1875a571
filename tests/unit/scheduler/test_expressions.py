import pytest

from migrations_app.scheduler.expressions import MAX_LENGTH, ExpressionError, evaluate

VARIABLES = {
    "stats": {"free_capacity_gb": 3.7, "total_capacity_gb": "infinite", "name": "main", "x2": 9},
    "capabilities": {"disk": {"kind": "ssd"}, "thin": True},
    "volume": {"size": 4},
    "extra": {"iops": "500", "flag": "True"},
    "qos": {},
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("10 - 4 - 3", 3),
        ("2 ^ 3 ^ 2", 512),
        ("-2 ^ 2", -4),
        ("2 ^ -1", 0.5),
        ("7 / 2", 3.5),
        ("(1 + 2) * 3", 9),
        (".5 + 1.5", 2.0),
        ("abs(-5) + max(1, 2, 3) + min(4, 2)", 10),
        ("1 < 2", True),
        ("1 < 2 < 3", True),
        ("3 > 2 > 2", False),
        ("1 <> 2", True),
        ("1 != 1", False),
        ("!1 == 2", False),
        ("not 0 and 1 == 1", True),
        ("NOT (1 == 2) AND 2 == 2", True),
        ("1 == 2 || 2 == 2", True),
        ("1 == 1 && 2 == 3", False),
        ("1 < 2 ? 10 : 20", 10),
        ("1 > 2 ? 10 : 2 > 3 ? 20 : 30", 30),
        ("(1 == 1 and 1 == 2) ? 10 : 20", 20),
        ("'a' == 'a'", True),
        ('"it\'s" == "its"', False),
        ("'5' == 5", True),
        ("stats.name == 'main'", True),
        ("stats.x2 == 9", True),
        ("stats.free_capacity_gb > 3.5", True),
        ("stats.total_capacity_gb > 1000", True),
        ("capabilities.disk.kind == 'ssd'", True),
        ("capabilities.thin == True", True),
        ("extra.flag == 'True'", True),
        ("extra.iops >= 500", True),
        ("volume.size < 5", True),
        ("volume.size < 5 ? 100 : qos.none", 100),
    ],
)
def test_values(expression, expected):
    assert evaluate(expression, VARIABLES) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1==1 and 1==1 and 1==2", False),
        ("1==2 or 1==2 or 1==1", True),
        ("1==1 && 1==1 && 1==1 && 1==2", False),
    ],
)
def test_long_chains_are_right_unlike_in_cinder(expression, expected):
    assert evaluate(expression, VARIABLES) is expected


def test_question_mark_binds_tighter_than_and_as_in_cinder():
    assert evaluate("1 == 2 and 1 == 1 ? 100 : 50", VARIABLES) is False


@pytest.mark.parametrize("text", ["a && b", "x || y", "! not", "a ? b : c", "<>", "1 ^ 2"])
def test_texts_are_left_alone(text):
    variables = {"stats": {"name": text}}
    assert evaluate(f"stats.name == '{text}'", variables) is True


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ("", "a value is missing"),
        ("1 +", "a value is missing at the end"),
        ("(1 + 2", "')' is missing"),
        ("1 < 2 ? 3", "':' is missing"),
        ("1 2", "'2' is not expected"),
        ("volume.size = 4", "'=='"),
        ("free_space > 4", "'free_space' is not a name"),
        ("other.thing > 4", "'other.thing' is not a name"),
        ("stats.nothing > 4", "there is no 'stats.nothing'"),
        ("stats.name.deeper > 4", "there is no 'stats.name.deeper'"),
        ("stats.name > 4", "cannot compare 'main' with 4"),
        ("stats.name * 1000000", "needs numbers"),
        ("1000000 * stats.name", "needs numbers"),
        ("1 / 0", "divides by zero"),
        ("9 ^ 9 ^ 9", "too large"),
        ("(-8) ^ 0.5", "not a number"),
        ("abs(1, 2)", "argument"),
        ("max(stats.name, 1)", "needs numbers"),
        ("'open", "cannot be read"),
        ("1; 2", "cannot be read"),
        ("[1]", "cannot be read"),
        ("1" * (MAX_LENGTH + 1), "longer than"),
        ("(" * 900 + "1" + ")" * 900, "nested too deeply"),
        ("!" * 1900 + "1", "nested too deeply"),
    ],
)
def test_errors_say_why(expression, part):
    with pytest.raises(ExpressionError, match=None) as caught:
        evaluate(expression, VARIABLES)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "expression",
    [
        "stats.__class__",
        "stats.keys",
        "extra.update",
        "__import__('os')",
        "().__class__",
        "lambda: 1",
        "open('/etc/passwd')",
        "stats.name.format",
    ],
)
def test_nothing_of_python_can_be_reached(expression):
    with pytest.raises(ExpressionError):
        evaluate(expression, VARIABLES)
