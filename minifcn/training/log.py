"""The log of a run: one CSV row a step, and nothing in it that depends on the clock."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from minifcn.errors import InputError
from minifcn.training.files import cannot_write, write_atomically


class Log:
    """Rows of numbers in a CSV file, appended as they come and flushed at once.

    The first column is the step. Floats are written in full (`repr`), so that equal runs give
    equal bytes; a value that a step lacks is an empty cell.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: int = 0):
        """Open for appending after step `keep`: later rows, of a run cut off, are dropped."""
        self.path = path
        self.columns = tuple(columns)
        rows = [] if keep == 0 else read_rows(path)[:keep]
        # Row number i is step i; a log in which it is not was edited, or is another run's.
        if [row.get("step") for row in rows] != [str(step) for step in range(1, keep + 1)]:
            raise InputError(
                f"{path} does not hold the steps 1 to {keep} in order, as the checkpoint wants; "
                "restore the log that belongs to it"
            )
        lines = [",".join(self.columns)] + [
            ",".join(row.get(column, "") for column in self.columns) for row in rows
        ]
        text = "".join(line + "\n" for line in lines).encode()
        write_atomically(path, lambda file: file.write(text))
        self._file = open(path, "a", newline="", encoding="utf-8")

    def add(self, values: Mapping[str, float | int]) -> None:
        """Append one row. Raises InputError when the disk refuses."""
        cells = (_cell(values.get(column)) for column in self.columns)
        try:
            self._file.write(",".join(cells) + "\n")
            self._file.flush()
        except OSError as error:
            raise InputError(cannot_write(self.path, error)) from error

    def close(self) -> None:
        """Close the file; every row is already in it."""
        try:
            self._file.close()
        except OSError as error:  # a full disk can refuse here what it refused before
            raise InputError(cannot_write(self.path, error)) from error

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except InputError:
            if error is None:  # do not cover the first failure with the second
                raise


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows as text. A last row that a crash cut short is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); restore the log of the run") from error
    whole = text[: text.rfind("\n") + 1]
    return list(csv.DictReader(whole.splitlines()))


def read_columns(path: Path) -> dict[str, list[float]]:
    """Each column as floats; NaN where a cell is empty."""
    rows = read_rows(path)
    names = rows[0].keys() if rows else ()
    return {name: [float(row[name] or "nan") for row in rows] for name in names}


def _cell(value: float | int | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(value) if isinstance(value, int) else repr(float(value))
