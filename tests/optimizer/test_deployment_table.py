"""Deployment tables: what is written is read, and what cannot be is refused in one line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from replay_fakes import CROWDED, TABLE, same

from optimizer.errors import TableError, UsageError, WorkspaceError
from optimizer.replaying.generating import Recipe, generated_table
from optimizer.replaying.table import STATES, bounded, check_whole
from optimizer.replaying.table_file import save_table, table_from_parquet
from optimizer.workspace import save_blocks
from search_spaces.errors import SpaceError
from search_spaces.space import Axis
from trials.measurement import Block

Edit = Callable[[pa.Table], pa.Table]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "table.parquet"


@given(
    recipe=st.builds(
        Recipe,
        seed=st.integers(0, 99),
        variants=st.integers(1, 3),
        precisions=st.integers(1, 6),
        builds=st.integers(1, 2),
        batches=st.integers(1, 4),
        concurrencies=st.integers(1, 2),
        threads=st.just(1),
        memory_gb=st.sampled_from([0.2, 24.0]),
        refused=st.sampled_from([0.0, 0.5]),
    )
)
@settings(max_examples=15, deadline=None)
def test_table_that_was_written_is_read_as_it_was(
    recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("round") / "table.parquet"
    table = generated_table(recipe)

    save_table(table, path)

    assert same(table_from_parquet(path), table)


@pytest.mark.parametrize(
    "values", [("auto", 1, 2), (False, True), (0.5, 1), ("a", "b"), (0.5, "b", True)]
)
def test_axis_of_any_values_is_read_as_it_was(values: tuple[Any, ...], path: Path) -> None:
    *axes, last = TABLE.space.axes
    axis = Axis(name=last.name, values=(values[0],))
    one = replace(TABLE, space=replace(TABLE.space, axes=(*axes, axis)))
    whole = replace(one, space=replace(one.space, axes=(*axes, replace(axis, values=values))))
    whole = replace(whole, flat=whole.flat * len(values))

    save_table(whole, path)

    assert same(table_from_parquet(path), whole)


def test_rows_may_lie_in_any_order_in_the_file(path: Path) -> None:
    save_table(CROWDED, path)
    content = parquet.read_table(path)
    order = np.random.default_rng(0).permutation(len(content))

    parquet.write_table(content.take(order), path)

    assert same(table_from_parquet(path), CROWDED)


def test_every_row_is_found_by_its_deployment() -> None:
    for row in range(len(TABLE)):
        assert TABLE.row_of(TABLE.deployment(row)) == row


def test_deployments_of_a_table_are_those_of_its_space() -> None:
    assert [TABLE.deployment(row) for row in range(len(TABLE))] == list(TABLE.space.deployments())


def test_deployment_that_the_table_lacks_is_not_found() -> None:
    deployment = TABLE.deployment(0)

    with pytest.raises(KeyError):
        TABLE.row_of(replace(deployment, batch_size=3))


def test_same_recipe_makes_the_same_table_and_another_seed_another() -> None:
    recipe = Recipe(variants=2, precisions=2, builds=1, batches=2, threads=1)
    one, again, other = (
        generated_table(each).metrics.values for each in (recipe, recipe, replace(recipe, seed=1))
    )

    assert np.array_equal(one, again, equal_nan=True)
    assert not np.array_equal(one, other, equal_nan=True)


def test_table_of_a_hundred_thousand_deployments_is_made_whole() -> None:
    recipe = Recipe(variants=13, precisions=5, builds=4, batches=10, concurrencies=8, threads=5)

    table = generated_table(recipe)

    assert len(table) == 104_000
    assert {STATES[at] for at in np.unique(table.states)} == {"completed", "infeasible"}
    assert set(table.kinds) == {"", "memory", "unsupported"}


def edited(name: str, row: int, value: Any) -> Edit:
    def edit(content: pa.Table) -> pa.Table:
        values = content[name].to_pylist()
        values[row] = value
        at = content.column_names.index(name)
        return content.set_column(at, name, pa.array(values))

    return edit


def with_document(change: Callable[[dict[str, Any]], None]) -> Edit:
    def edit(content: pa.Table) -> pa.Table:
        document = json.loads(content.schema.metadata[b"trifront"])
        change(document)
        return content.replace_schema_metadata({b"trifront": json.dumps(document)})

    return edit


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda content: content.drop_columns("build_s"), "column build_s is missing"),
        (lambda content: content.drop_columns("state"), "column state is missing"),
        (lambda content: content.drop_columns("batch_size"), "column batch_size is missing"),
        (lambda content: content.drop_columns("accuracy_low"), "column accuracy_low is missing"),
        (
            lambda content: content.drop_columns(["accuracy", "accuracy_low", "accuracy_high"]),
            "column accuracy is missing, which the space is about",
        ),
        (edited("state", 3, "done"), "column state holds 'done'; it may hold completed, inf"),
        (edited("batch_size", 3, 3), "column batch_size holds 3; it may hold 1, 2, 4"),
        (edited("batch_size", 0, 4), "batch_size=4 concurrency=1 build_level=1 threads=1 has two"),
        (edited("kind", 3, None), "column kind holds None, which is no text"),
        (edited("load_s", 3, -1.0), "column load_s, row 3: -1.0 s; a price is 0 or more"),
        (edited("other_s", 3, None), "column other_s, row 3: nan s"),
        (edited("convert_s", 3, 0.1), "column convert_s: model m0 has more than one price"),
        (edited("score_s", 3, 0.1), "column score_s: engine e0 has more than one price"),
        (edited("latency_p99_ms", 0, None), "column latency_p99_ms: nan for variant=v0 precis"),
        (edited("latency_p99_ms", 0, 0.0), "column latency_p99_ms: 0.0 for variant=v0 precis"),
        (edited("threads", 0, None), "column threads holds None; it may hold 1"),
        (with_document(lambda one: one.update(format=2)), "is of format 2, this trifront reads 1"),
        (with_document(lambda one: one.pop("digests")), "metadata: digests: Field required"),
        (with_document(lambda one: one.update(more=1)), "metadata: more: Extra inputs are not"),
        (with_document(lambda one: one["space"].pop("axes")), "metadata: space.axes: Field req"),
        (lambda content: content.replace_schema_metadata({}), "no deployment table: its metadata"),
    ],
)
def test_table_that_says_what_cannot_be_is_refused_in_one_line(
    edit: Edit, complaint: str, path: Path
) -> None:
    save_table(TABLE, path)
    parquet.write_table(edit(parquet.read_table(path)), path)

    with pytest.raises(TableError) as caught:
        table_from_parquet(path)

    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_column_of_another_type_is_refused(path: Path) -> None:
    save_table(TABLE, path)
    content = parquet.read_table(path)
    texts = pa.array(["fast"] * len(content))

    parquet.write_table(
        content.set_column(content.column_names.index("load_s"), "load_s", texts), path
    )

    with pytest.raises(TableError, match="column load_s is of type string; it must be double"):
        table_from_parquet(path)


def test_missing_file_is_said_to_be_missing(path: Path) -> None:
    with pytest.raises(TableError, match="there is no deployment table"):
        table_from_parquet(path)


def test_raw_blocks_are_no_table(path: Path) -> None:
    block = Block(start_s=0.0, window_s=0.1, latencies_s=np.full(3, 0.01), batch_size=1)
    save_blocks((block,), path)

    with pytest.raises(TableError, match="holds something else than a deployment table"):
        table_from_parquet(path)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PAR1" + bytes(64) + b"PAR1"])
def test_file_that_is_no_parquet_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)

    with pytest.raises(TableError, match="is no Parquet file, or is damaged"):
        table_from_parquet(path)


def test_damaged_byte_is_noticed(path: Path) -> None:
    """Parquet itself would read other numbers; the checksums of its pages tell."""
    save_table(CROWDED, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)

    with pytest.raises(TableError, match="damaged"):
        table_from_parquet(path)


def test_table_is_not_half_written(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError) as caught:
        save_table(TABLE, tmp_path / "nowhere" / "table.parquet")

    assert "choose another --out" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_bounds_of_a_table_can_be_others_than_its_spaces() -> None:
    found = bounded(TABLE, ["accuracy >= 0.5", "latency_p99_ms <= 10"])

    assert [str(one) for one in found.space.constraints] == [
        "latency_p99_ms <= 10",
        "accuracy >= 0.5",
    ]
    assert bounded(found, []).space.constraints == ()


def test_bound_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(SpaceError, match="no bound"):
        bounded(TABLE, ["accuracy"])
    with pytest.raises(UsageError, match="has no energy_per_sample_mj"):
        bounded(TABLE, ["energy_per_sample_mj <= 1"])


def test_partial_table_is_no_race_track() -> None:
    with pytest.raises(TableError, match="has 24 of the 25 deployments"):
        check_whole(TABLE, 25)
    check_whole(TABLE, 24)
    check_whole(TABLE, None)
