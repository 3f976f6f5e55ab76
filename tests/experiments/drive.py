"""Runs a bench with stub workers in a process of its own: `python drive.py MATRIX FOLDER WORKERS`."""

from __future__ import annotations

import sys
from pathlib import Path

from subspace.core.errors import SubspaceError
from subspace.experiments.bench import Bench
from subspace.experiments.cells import read_matrix

STUB = str(Path(__file__).with_name("stub_worker.py"))


def main() -> None:
    matrix, folder, workers = sys.argv[1:]
    try:
        result = Bench(read_matrix(Path(matrix)), Path(folder), int(workers), program=(STUB,)).run()
    except SubspaceError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
    sys.exit(1 if result.failures else 0)


if __name__ == "__main__":
    main()
