"""Run a notebook from top to bottom in an empty folder, and keep what it printed.

Cells are run by the kernel that its readers have. Paths of the folder are written as a reader's;
the notebook appears whole or not at all, and not where a cell fails.

::

    python scripts/run_notebook.py [--notebook docs/notebook.ipynb] [--to docs/notebook.ipynb]
"""

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"

_READERS_FOLDER = "/home/ada"
_NO_WIDGETS = "ignore:IProgress not found"  # tqdm misses what a whole Jupyter brings along
_PATIENCE_S = 300  # for one cell; a search on a busy machine takes a minute


def run(notebook: Path) -> str:
    """Run a notebook in a folder that goes afterwards, and return it with its outputs.

    Raises:
        CellExecutionError: A cell failed.
    """
    content = nbformat.read(notebook, as_version=4)
    with TemporaryDirectory() as folder:
        client = NotebookClient(
            content,
            timeout=_PATIENCE_S,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute(env=os.environ | {"PYTHONWARNINGS": _NO_WIDGETS})
        content.metadata.pop("language_info", None)  # of the Python that happened to run it
        text: str = nbformat.writes(content)
        return text.replace(folder, _READERS_FOLDER) + "\n"


def main() -> None:
    """Run the notebook and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--notebook", type=Path, default=NOTEBOOK)
    parser.add_argument("--to", type=Path, help="where to write it; the notebook unless told")
    chosen = parser.parse_args()
    to = chosen.to or chosen.notebook
    try:
        ran = run(chosen.notebook)
    except CellExecutionError as error:
        sys.exit(f"{chosen.notebook}: {error}")
    draft = to.with_name(f"{to.name}.{os.getpid()}")
    draft.write_text(ran, encoding="utf-8")
    draft.replace(to)


if __name__ == "__main__":
    main()
