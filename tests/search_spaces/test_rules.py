import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.deployment import Scalar
from search_spaces.errors import SpaceError
from search_spaces.rules import rule_from_text

AXES = ("precision", "batch_size", "concurrency", "threads", "graphs")
POINT: dict[str, Scalar] = {
    "precision": "int8",
    "batch_size": 8,
    "concurrency": 2,
    "threads": 3,
    "graphs": False,
}


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("concurrency * threads <= 6", True),
        ("concurrency * threads < 6", False),
        ("1 < concurrency <= batch_size", True),
        ("1 < concurrency < 2", False),
        ("precision in ('fp32', 'int8') and not graphs", True),
        ("precision not in ['int8']", False),
        ("precision != 'int8' or batch_size >= 4", True),
        ("batch_size % 4 == 0 and batch_size // 3 == 2 and batch_size / 16 == 0.5", True),
        ("-batch_size + 9 - 1 == 0", True),
        ("graphs == false", True),
        ("graphs == True", False),
    ],
)
def test_rules_read_like_python(text: str, *, allowed: bool) -> None:
    rule = rule_from_text(text, axes=AXES)

    assert rule.allows(POINT) is allowed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("concurrency <", "is no condition"),
        ("", "is no condition"),
        ("precision == '\\d'", "is no condition"),
        ("thread <= 4", "names no axis with 'thread'; did you mean 'threads'?"),
        ("precision == int8", "text stands in quotes"),
        ("1 < 2", "names no axis; use one of"),
        ("abs(threads) > 1", "'abs(threads)' is not understood"),
        ("threads.real > 1", "'threads.real' is not understood"),
        ("threads ** 9 > 1", "use + - * / // and %"),
        ("threads is 1", "use == or !="),
        ("precision in 'int8'", "list the values"),
        ("threads > None", "'None' is not understood"),
        ("[t for t in (1,)] == threads", "is not understood"),
        ("-" * 400 + "threads > 1", "nested too deeply"),
        ("threads > 1 and " * 50 + "threads > 1", "at most 500 are read"),
    ],
)
def test_what_is_no_condition_between_axes_is_refused(text: str, said: str) -> None:
    with pytest.raises(SpaceError) as caught:
        rule_from_text(text, axes=AXES)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("precision < 3", "'<' wants numbers and got 'int8'"),
        ("precision + 1 > 3", "'+' wants numbers"),
        ("graphs < 2", "'<' wants numbers and got False"),
        ("-graphs < 2", "'-' wants numbers"),
        ("precision == 3", "'int8' (text) never equals 3 (a number)"),
        ("graphs == 0", "never equals"),
        ("threads in (1, 'two', 3)", "never equals"),
        ("threads and graphs", "'and' wants a condition and got 3"),
        ("threads or graphs", "'or' wants a condition"),
        ("not threads", "'not' wants a condition"),
        ("threads", "a rule wants a condition"),
        ("1 / (threads - 3) > 1", "1 / 0 has no value"),
        ("1 % (threads - 3) > 1", "1 % 0 has no value"),
    ],
)
def test_values_of_the_wrong_kind_have_no_meaning(text: str, said: str) -> None:
    """Python would answer some of them, ``False < 2`` for one, and always by accident."""
    rule = rule_from_text(text, axes=AXES)

    with pytest.raises(SpaceError) as caught:
        rule.allows(POINT)

    assert said in str(caught.value)


def test_rule_knows_the_axes_and_the_words_that_it_speaks_of() -> None:
    rule = rule_from_text("precision in ('int8', 'fp8') or threads > 1", axes=AXES)

    assert rule.names == {"precision", "threads"}
    assert set(rule.mentions()) == {("precision", "int8"), ("precision", "fp8")}


def test_spaces_and_quotes_make_no_difference_to_the_canonical_form() -> None:
    tight = rule_from_text('precision=="int8"or(graphs==true)', axes=AXES)
    loose = rule_from_text(" precision == 'int8' or graphs == True", axes=AXES)

    assert tight.canonical() == loose.canonical()


def test_rule_survives_the_way_to_another_process() -> None:
    rule = rule_from_text("threads < 3", axes=AXES)

    travelled = pickle.loads(pickle.dumps(rule))  # noqa: S301 - our own bytes

    assert travelled == rule
    assert travelled.allows({"threads": 2})


@settings(deadline=None)
@given(
    limit=st.integers(0, 50),
    concurrency=st.integers(1, 64),
    threads=st.integers(1, 64),
)
def test_rule_agrees_with_python(limit: int, concurrency: int, threads: int) -> None:
    text = f"concurrency * threads <= {limit} or concurrency - threads in (1, 2)"

    allowed = rule_from_text(text, axes=AXES).allows(
        {"concurrency": concurrency, "threads": threads}
    )

    assert allowed == (concurrency * threads <= limit or concurrency - threads in {1, 2})


@settings(deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_is_a_rule_or_refused_in_one_line(text: str) -> None:
    try:
        rule_from_text(text, axes=AXES)
    except SpaceError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most texts are refused, a few are rules
