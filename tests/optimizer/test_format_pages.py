"""The pages of the file formats say what the code reads and writes."""

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from pyarrow import parquet

from optimizer.export.manifest import FORMAT as MANIFEST_FORMAT
from optimizer.replaying.generating import Recipe, generated_table
from optimizer.replaying.table import PRICES, STATES
from optimizer.replaying.table_file import FORMAT as TABLE_FORMAT
from optimizer.replaying.table_file import save_table
from optimizer.saturation.result import FORMAT as SATURATION_FORMAT
from optimizer.study.attributes import FORMAT as STUDY_FORMAT
from optimizer.tracking.ledger import Delivered
from optimizer.tracking.messages import ENVELOPE_FORMAT, Envelope, Experiment, Message, Point
from optimizer.tracking.sessions import Session
from optimizer.tracking.status import Status
from optimizer.workspace import BLOCKS_FORMAT
from search_spaces.field_types import FORMAT_VERSION
from trials.backends.catalog import BACKENDS, backend_named
from trials.errors import UnsupportedError
from trials.store.entries import FORMAT as STORE_FORMAT

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "formats"
MESSAGES = get_args(Message)


def test_page_of_the_space_file_is_what_its_script_writes(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "document_space.py"

    subprocess.run([sys.executable, str(script), "--to", str(tmp_path / "space.md")], check=True)

    written = (tmp_path / "space.md").read_text(encoding="utf-8")
    mend = "run scripts/document_space.py"
    assert (PAGES / "space.md").read_text(encoding="utf-8") == written, mend


@pytest.mark.parametrize("name", BACKENDS)
def test_page_of_the_space_file_lists_every_option_that_this_machine_honours(name: str) -> None:
    page = (PAGES / "space.md").read_text(encoding="utf-8")
    listed = set(re.findall(rf"^\| `{name}`[^|]*\| `([a-z_]+)` \|", page, re.MULTILINE))
    try:
        target = "SM89" if name == "tensorrt" else None  # it builds without a GPU
        options = backend_named(name, target=target).capabilities().options
    except UnsupportedError as error:
        pytest.skip(str(error))

    assert {option.name for option in options} - listed == set()


@pytest.mark.parametrize("name", ["torch", "tensorrt"])
def test_page_of_the_space_file_lists_what_is_for_gpus(name: str) -> None:
    page = (PAGES / "space.md").read_text(encoding="utf-8")

    for option in ("cuda_graph", "transfers"):
        assert re.search(rf"^\| `{name}`[^|]*\| `{option}` \|", page, re.MULTILINE)


def test_page_of_the_spool_describes_every_key() -> None:
    page = (PAGES / "spool.md").read_text(encoding="utf-8")
    described = set(re.findall(r"\w+", page))
    records = (Envelope, Experiment, Point, Delivered, Session, Status, *MESSAGES)

    keys = {field.name for record in records for field in fields(record)}

    assert keys - described == set()
    assert f"(version {ENVELOPE_FORMAT})" in page


@pytest.mark.parametrize("message", MESSAGES, ids=lambda one: one.__name__)
def test_page_of_the_spool_lists_the_keys_of_each_kind(message: type) -> None:
    page = (PAGES / "spool.md").read_text(encoding="utf-8")
    each = {field.name: field for field in fields(message)}

    row = next(
        line for line in page.splitlines() if line.startswith(f"| `{each['kind'].default}` |")
    )

    named = set(re.findall(r"`([a-z_]+)`", row))
    assert named == {str(each["kind"].default), *each} - {"kind", "uid"}


def test_page_of_the_deployment_table_describes_every_column_and_key(tmp_path: Path) -> None:
    page = (PAGES / "deployment-table.md").read_text(encoding="utf-8")
    table = generated_table(Recipe(variants=1, precisions=1, builds=1, batches=2))
    save_table(table, tmp_path / "table.parquet")
    schema = parquet.read_schema(tmp_path / "table.parquet")
    described = set(re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE))
    axes, metrics = {axis.name for axis in table.space.axes}, table.metrics.names
    measured = {f"{name}{end}" for name in metrics for end in ("", "_low", "_high")}

    columns = set(schema.names) - axes - measured
    keys = set(json.loads(schema.metadata[b"trifront"]))

    assert described == columns | keys
    assert set(PRICES) <= columns
    assert all(f"`{state}`" in page for state in STATES)
    assert f"(format {TABLE_FORMAT})" in page


@pytest.mark.parametrize(
    ("file", "version"),
    [
        ("space file", FORMAT_VERSION),
        ("study", STUDY_FORMAT),
        ("raw blocks", BLOCKS_FORMAT),
        ("deployment table", TABLE_FORMAT),
        ("saturation of a trial", SATURATION_FORMAT),
        ("export", MANIFEST_FORMAT),
        ("records for MLflow", ENVELOPE_FORMAT),
        ("engine store", STORE_FORMAT),
    ],
)
def test_list_of_formats_has_their_versions(file: str, version: int) -> None:
    page = (PAGES / "README.md").read_text(encoding="utf-8")

    row = next(line for line in page.splitlines() if line.startswith((f"| [{file}]", f"| {file}")))

    assert row.split("|")[2].strip() == str(version)


def test_links_between_the_documents_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]

    broken = [
        (page.name, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
        if not (page.parent / link).exists()
    ]

    assert broken == []
