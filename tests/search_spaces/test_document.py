"""What is wrong with a single value or key, and how it is told."""

from collections.abc import Callable

import pytest

from search_spaces.document import SpaceDocument


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("axis: 1", "axis: is an unknown key; did you mean 'axes'?"),
        ("axes: {batch_size: [1, 0]}", "axes.batch_size[1]: 0 is too small; it must be >= 1"),
        ("axes: {batch_size: [-2]}", "axes.batch_size[0]: -2 is too small; it must be >= 1"),
        ("axes: {batch_size: [true]}", "axes.batch_size[0]: True is not a whole number"),
        ("axes: {batch_size: [2.0]}", "axes.batch_size[0]: 2.0 is not a whole number"),
        ("axes: {batch_size: ['4']}", "axes.batch_size[0]: '4' is not a whole number"),
        ("axes: {batch_size: []}", "axes.batch_size: is empty; give at least 1"),
        ("axes: {batch_size: 4}", "axes.batch_size: 4 is not a list; write one such as [1, 2]"),
        ("axes: {batch_size: [4, 2, 4]}", "axes.batch_size: 4 stands twice; keep one"),
        ("axes: {batch_size: [9999999]}", "9999999 is too large; it must be <= 1000000"),
        ("axes: {concurrency: [0]}", "axes.concurrency[0]: 0 is too small"),
        (
            "axes: {batchsize: [1]}",
            "axes.batchsize: is an unknown axis; did you mean 'batch_size'",
        ),
        ("axes: {Threads: [1]}", "axes.Threads: is no axis name; use lower-case"),
        ("axes: {lambda: [1]}", "axes.lambda: is no axis name"),
        ("axes: {'true': [1]}", "axes.true: is no axis name; rules read it as a truth value"),
        ("axes: {1: [1]}", "is not text; put the key in quotes"),
        ("axes: {threads: []}", "axes.threads: is empty"),
        ("axes: {threads: [1, a]}", "axes.threads: mixes numbers and text; keep to one kind"),
        ("axes: {threads: [1, true]}", "axes.threads: mixes numbers and truth values"),
        ("axes: {threads: [1, [2]]}", "axes.threads[1]: [2] is no option value"),
        ("axes: {threads: [.nan]}", "axes.threads[0]: nan is no option value"),
        ("axes: {threads: [1, 1.0]}", "axes.threads: 1.0 stands twice"),
        (
            "axes: {precision: [int-8]}",
            "axes.precision[0]: 'int-8' is not known; did you mean 'int8'",
        ),
        ("axes:", "axes: has no value; fill it in or remove the key"),
        ("axes: [1]", "axes: [1] is not a mapping"),
        ("objectives: {}", "objectives: is empty"),
        ("objectives: {ece: down}", "objectives.ece: 'down' is not known; use one of: maximize"),
        ("rules: [1]", "rules[0]: 1 is not text; put it in quotes"),
        ("measure: {min_blocks: 3}", "measure.min_blocks: 3 is too small; it must be >= 8"),
        ("measure: {target_p50: 1}", "measure.target_p50: 1 is too large; it must be < 1"),
        ("measure: {max_s: .inf}", "measure.max_s: inf is not finite"),
        ("measure: {min_blocks: 0x1fffffffffffffff}", "an integer beyond 2^53 is too large"),
        ("measure: {max_s: ten}", "measure.max_s: 'ten' is not a number; write one such as 0.5"),
        ("measure: {max_sec: 1}", "measure.max_sec: is an unknown key; did you mean 'max_s'?"),
        ("task: {kind: clasification}", "'clasification' is not known; did you mean 'classif"),
        ("task: {metric: score}", "task.metric: 'score' names no function; write it as package"),
        ("task: {data: x.npz}", "task.data: 'x.npz' is not a mapping"),
        ("task: {data: {report: r}}", "task.data.search: is missing; add it"),
        ("task: {data: {serch: s, report: r}}", "task.data.serch: is an unknown key; did you"),
        ("task: {data: {path: a, spilt: {}}}", "task.data.spilt: is an unknown key; did you mean"),
        ("task: {data: {path: a, split: {seed: -1}}}", "task.data.split.seed: -1 is too small"),
        (
            "task: {preprocess: {dtype: float31}}",
            "task.preprocess.dtype: 'float31' is not known; did you mean 'float32'?",
        ),
        (
            "task: {preprocess: {dtype: {ids: int46}}}",
            "task.preprocess.dtype.ids: 'int46' is not known; did you mean 'int64'?",
        ),
        ("task: {preprocess: {dtype: {}}}", "task.preprocess.dtype: is empty; give at least 1"),
        ("task: {preprocess: {dtype: {1: int64}}}", "preprocess.dtype[1]: 1 is not text; put it"),
        ("task: {preprocess: {dtype: {'': int64}}}", "is empty; write something"),
        ("task: {preprocess: {dtype: [int64]}}", "['int64'] is not known; did you mean 'int64'"),
        ("task: {preprocess: {size: [1]}}", "task.preprocess.size: [1]; give at least 2"),
        ("task: {preprocess: {size: [1, 2, 3]}}", "task.preprocess.size: [1, 2, 3] is too long"),
        ("task: {preprocess: {std: [0]}}", "task.preprocess.std[0]: 0 is too small"),
    ],
)
def test_wrong_value_is_told_with_its_key_and_the_mend(
    fake: str, complaint: Callable[[str], str], added: str, said: str
) -> None:
    assert said in complaint(f"{fake}{added}\n")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version: 1", "version: 2", "version: 2 is newer than what this trifront reads; update"),
        ("version: 1", "version: 0", "version: 0 has never been one; write 1"),
        ("version: 1", "version: true", "version: True is not a whole number"),
        ("version: 1\n", "", "version: is missing; add it"),
        ("name: tiny", "nmae: tiny", "nmae: is an unknown key; did you mean 'name'?"),
        ("name: tiny", "name: 7", "name: 7 is not text; put it in quotes"),
        ("name: tiny", "name: a/b", "name: 'a/b' is no name; use up to 64 letters"),
        ("backend: fake", "backend: tensort", "'tensort' is not known; did you mean 'tensorrt'?"),
        ("accuracy: 0.91", "accuracy: 91", "variants[0].fake.accuracy: 91 is too large"),
        ("accuracy: 0.91", "acuracy: 0.9", "acuracy: is an unknown key; did you mean 'accuracy'?"),
        ("size_mb: 40", "size_mb: 40, fault: fire", "'fire' is not known; use one of: crash"),
    ],
)
def test_wrong_value_in_a_needed_key_is_told(
    fake: str, complaint: Callable[[str], str], *, old: str, new: str, said: str
) -> None:
    assert said in complaint(fake.replace(old, new, 1))


def test_all_errors_are_told_a_line_each(fake: str, complaint: Callable[[str], str]) -> None:
    said = complaint(f"{fake}axes: {{batch_size: [0, true], concurrency: 1}}\n")

    assert said.splitlines() == [
        "axes.batch_size[0]: 0 is too small; it must be >= 1",
        "  axes.batch_size[1]: True is not a whole number; write one such as 1",
        "  axes.concurrency: 1 is not a list; write one such as [1, 2]",
    ]


def test_unknown_key_is_told_first_and_the_key_that_it_is_a_slip_of_is_not_missed(
    fake: str, complaint: Callable[[str], str]
) -> None:
    said = complaint(f"{fake}axes: {{batch_size: [0]}}\n".replace("name: tiny", "nmae: tiny", 1))

    assert said.splitlines() == [
        "nmae: is an unknown key; did you mean 'name'?",
        "  axes.batch_size[0]: 0 is too small; it must be >= 1",
    ]


def test_beyond_ten_errors_are_counted(fake: str, complaint: Callable[[str], str]) -> None:
    said = complaint(f"{fake}axes: {{batch_size: [{', '.join(['0'] * 13)}]}}\n").splitlines()

    assert len(said) == 10 + 1
    assert said[9] == "  axes.batch_size[9]: 0 is too small; it must be >= 1"
    assert said[-1] == "  and 3 more"


def test_value_of_any_length_is_shown_in_a_short_line(
    fake: str, complaint: Callable[[str], str]
) -> None:
    said = complaint(f"{fake}axes: {{batch_size: {[[1] * 50] * 50}}}\n")

    assert all(len(line) < 120 for line in said.splitlines())


def test_every_field_says_what_it_is_for_and_gives_an_example() -> None:
    schema = SpaceDocument.model_json_schema()

    sections = [schema, *schema["$defs"].values()]
    fields = [
        (name, field) for each in sections for name, field in each.get("properties", {}).items()
    ]

    assert len(fields) > 40
    assert [name for name, field in fields if not field.get("description")] == []
    assert [name for name, field in fields if not field.get("examples")] == []
