"""The logger behind results.csv. Not for the picture that is drawn from it: that is utils/plots.py."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.files import atomic_write
from utils.log import LOGGER

LOSSES = ("box_loss", "obj_loss", "cls_loss")
COLUMNS = (
    *(f"train/{loss}" for loss in LOSSES),
    *(f"metrics/{figure}" for figure in ("precision", "recall", "mAP_0.5", "mAP_0.5:0.95")),
    *(f"val/{loss}" for loss in LOSSES),
    *(f"x/{setting}" for setting in ("lr0", "lr1", "lr2", "temperature")),
)
OPTIONAL = ("x/temperature",)  # only where a dynamic layer is in the model
LONGEST_EPOCH = 12  # digits, and not so many: Python refuses to read numbers of thousands of digits


class CsvLogger:
    """Writes results.csv: one row an epoch. With `resume` it goes on in the file that is there: rows of epochs that are
    trained again are replaced. Rows that cannot be written, as on a full disk, are kept for the next epoch.

    Differs from v6.1: cells are not padded with spaces, and a resumed run leaves no row twice.
    """

    def __init__(self, file: str | Path, *, resume: bool = False) -> None:
        self.file = Path(file)
        self._resume = resume
        self._header: list[str] | None = None
        self._text = ""  # what should be in the file
        self._is_whole = False  # whether that is in it

    def on_fit_epoch_end(self, epoch: int, values: Mapping[str, float], **_: Any) -> None:
        """Adds the epoch's row. The columns are those of COLUMNS and after them whatever else the first row has; a
        column that is missing then, or new later, is a ValueError."""
        if self._header is None:
            self._header = self._begin(epoch, values)
        if unknown := set(values) - set(self._header):
            raise ValueError(f"expected the columns of the first row, got also {sorted(unknown)} for {self.file}")
        row = [str(epoch), *(format(float(values[name]), ".5g") if name in values else "" for name in self._header[1:])]
        self._write(",".join(row) + "\r\n")

    def _write(self, row: str) -> None:
        """Adds the row; where the file is gone, or was not written whole the last time, it is made anew with all rows.
        What cannot be written (a full disk, ...) is told."""
        self._text += row
        try:
            if self._is_whole and self.file.exists():
                with open(self.file, "ab") as stream:
                    stream.write(row.encode())
            else:
                with atomic_write(self.file) as stream:
                    stream.write(self._text.encode())
            self._is_whole = True
        except OSError as error:
            self._is_whole = False
            LOGGER.warning(f"{self.file} cannot be written now ({error}); its rows are kept for the next epoch")

    def _begin(self, epoch: int, values: Mapping[str, float]) -> list[str]:
        """Sets the text that the file begins with: the header and, on resume, the rows before this epoch. Returns the
        names in the header."""
        if missing := [name for name in COLUMNS if name not in values and name not in OPTIONAL]:
            raise ValueError(f"expected a value for each column of results.csv, got none for {missing}")
        known = [name for name in COLUMNS if name in values]
        header = ["epoch", *known, *(name for name in values if name not in COLUMNS)]
        earlier = read_results(self.file) if self._resume and self.file.exists() else []
        text = io.StringIO()
        writer = csv.DictWriter(text, header, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row for row in earlier if int(row["epoch"]) < epoch)
        self._text = text.getvalue()
        return header


def read_results(file: Path) -> list[dict[str, str]]:
    """The rows of a results.csv, also of one that v6.1 padded: column -> cell. Rows that are not of an epoch, such as
    one that was cut off in writing, are left out. Raises InputError for a file that is no such table."""
    try:
        with open(file, encoding="utf-8", newline="") as stream:
            table = [[cell.strip() for cell in line] for line in csv.reader(stream) if line]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"expected a table of results in {file}, got: {error}") from error
    if table and table[0][0] != "epoch":
        raise InputError(f"expected a results file whose first column is `epoch`, got `{table[0][0]}` in {file}")
    if table and not set(COLUMNS) & set(table[0]):
        raise InputError(f"expected a results file with columns such as {COLUMNS[0]}, got none of them in {file}")
    whole = [dict(zip(table[0], line, strict=True)) for line in table[1:] if len(line) == len(table[0])]
    return [row for row in whole if row["epoch"].isdecimal() and len(row["epoch"]) < LONGEST_EPOCH]
