"""Generate a plausible deployment table of any size, to race samplers on; nothing is measured.

Its laws are those of optimizer/replaying/laws.py. As many deployments as the product of all sizes
lie in the table; 12 variants, 5 precisions, 4 builds, 10 batch sizes, 8 concurrencies and 5 thread
counts make 96,000.

    python scripts/generate_table.py --out large.parquet --variants 12 --precisions 5 --builds 4 \
        --batches 10 --concurrencies 8 --threads 5
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from optimizer.errors import OptimizerError
from optimizer.replaying.generating import Recipe, generated_table
from optimizer.replaying.laws import PRECISIONS
from optimizer.replaying.table_file import save_table
from optimizer.replaying.words import summary_of_table

_HELP = {
    "builds": "values of the option that changes the engine",
    "batches": "batch sizes: 1, 2, 4 …; likewise the concurrencies and the threads",
    "deviation": "each deployment's own, standard deviation of the logarithm",
    "noise": "of what was measured, likewise",
    "memory_gb": "where deployments stop to fit",
    "refused": "share of variants that cannot be built in a lower precision",
}


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a Parquet file")
    for field in fields(Recipe):
        option = f"--{field.name.replace('_', '-')}"
        kind = type(field.default)
        parser.add_argument(option, type=kind, default=field.default, help=_HELP.get(field.name))
    arguments = vars(parser.parse_args())
    out: Path = arguments.pop("out")
    if not 1 <= arguments["precisions"] <= len(PRECISIONS):
        parser.error(f"--precisions is 1 to {len(PRECISIONS)}")
    table = generated_table(Recipe(**arguments))
    try:
        save_table(table, out)
    except OptimizerError as error:
        sys.exit(f"{error}\n  {error.hint}")
    print(f"{out}: {summary_of_table(table)}")


if __name__ == "__main__":
    main()
