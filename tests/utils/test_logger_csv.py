import csv

import pytest

from utils.callbacks import Callbacks
from utils.errors import InputError
from utils.logger_csv import COLUMNS, CsvLogger

STATIC = COLUMNS[:-1]


def values_of(epoch, names=STATIC):
    return {name: epoch + index / 100 for index, name in enumerate(names)}


def table(file):
    with open(file, newline="") as stream:
        return list(csv.reader(stream))


@pytest.mark.parametrize("names", [STATIC, COLUMNS])
def test_columns_are_exactly_those_of_the_specification(tmp_path, names):
    callbacks = Callbacks()
    callbacks.register_all(CsvLogger(tmp_path / "results.csv"))
    for epoch in range(2):
        callbacks.run("on_fit_epoch_end", epoch=epoch, values=dict(reversed(values_of(epoch, names).items())))
    lines = table(tmp_path / "results.csv")
    assert lines[0] == ["epoch", *names]
    assert [float(cell) for cell in lines[2]] == pytest.approx([1, *values_of(1, names).values()])
    assert len(lines) == 3


def test_a_new_run_replaces_an_old_file(tmp_path):
    (tmp_path / "results.csv").write_text("old")
    CsvLogger(tmp_path / "results.csv").on_fit_epoch_end(0, values_of(0))
    assert [line[0] for line in table(tmp_path / "results.csv")] == ["epoch", "0"]


@pytest.mark.parametrize(("resumed_at", "epochs"), [(0, "0"), (2, "0 1 2"), (3, "0 1 2 3")])
def test_resuming_appends_and_replaces_what_is_trained_again(tmp_path, resumed_at, epochs):
    file = tmp_path / "results.csv"
    first = CsvLogger(file)
    for epoch in range(3):
        first.on_fit_epoch_end(epoch, values_of(epoch))
    with open(file, "a") as stream:
        stream.write("3,0.5,0.")  # cut off by a power failure
    CsvLogger(file, resume=True).on_fit_epoch_end(resumed_at, values_of(resumed_at))
    lines = table(file)
    assert [line[0] for line in lines[1:]] == epochs.split()
    assert {len(line) for line in lines} == {1 + len(STATIC)}


def test_resuming_reads_a_padded_file_of_v61_and_needs_no_file(tmp_path):
    file = tmp_path / "results.csv"
    header, row = ",".join(f"{name:>20}" for name in ("epoch", *STATIC)), ",".join(f"{0.5:>20}" for _ in STATIC)
    file.write_text(f"{header}\n{0:>20},{row}\n")
    CsvLogger(file, resume=True).on_fit_epoch_end(1, values_of(1))
    assert table(file)[1] == ["0", *["0.5"] * len(STATIC)]
    CsvLogger(tmp_path / "new.csv", resume=True).on_fit_epoch_end(1, values_of(1))
    assert len(table(tmp_path / "new.csv")) == 2


def test_other_files_and_missing_or_late_columns_are_told(tmp_path):
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"notes\.csv"):
        CsvLogger(tmp_path / "notes.csv", resume=True).on_fit_epoch_end(1, values_of(1))
    logger = CsvLogger(tmp_path / "results.csv")
    with pytest.raises(ValueError, match="val/cls_loss"):
        logger.on_fit_epoch_end(0, {name: 0 for name in STATIC if name != "val/cls_loss"})
    logger = CsvLogger(tmp_path / "results.csv")
    logger.on_fit_epoch_end(0, values_of(0) | {"train/extra": 1.0})
    assert table(tmp_path / "results.csv")[0][-1] == "train/extra"
    with pytest.raises(ValueError, match="train/late"):
        logger.on_fit_epoch_end(1, values_of(1) | {"train/late": 1.0})
