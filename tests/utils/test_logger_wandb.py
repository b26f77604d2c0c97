"""With the real wandb, offline. What it would send is read from the files that `wandb sync` reads."""

import json
import re
import shutil
import struct
from collections import defaultdict

import pytest

from tests.utils.logging_run import begun_run, end, train_epochs, values_of
from utils.callbacks import Callbacks
from utils.errors import InputError
from utils.logger_wandb import NOT_GIVEN, WandbLogger, check_login, image_interval

wandb = pytest.importorskip("wandb", reason="needs requirements-wandb.txt")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No account, no network, nothing outside of the test's directory."""
    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_NAME", "WANDB_ENTITY", "WANDB_DIR", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    settings = {"MODE": "offline", "SILENT": "true", "CONSOLE": "off", "ERROR_REPORTING": "false"}
    folders = {f"{name}_DIR": str(tmp_path / name) for name in ("DATA", "CACHE", "CONFIG")}
    for name, value in (settings | folders).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()  # it reads its settings once a process
    yield
    wandb.teardown()


def record(run, epochs, **options):
    callbacks = Callbacks()
    callbacks.register_all(WandbLogger(run, **options))
    train_epochs(callbacks, run.directory, epochs)
    end(callbacks, run.directory)


def stored(data):
    """The records of a .wandb file: a header of 7 bytes, then LevelDB's log format (blocks of 32 KiB; each piece has
    checksum, length and kind: 1 whole, 2 first, 3 middle, 4 last)."""
    position, record = 7, b""
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:  # no room for a piece's header: the block's end is padding
            position += 32768 - position % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def sent(directory):
    """Kind of record -> records of the run directory's offline runs, oldest first."""
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # its other process writes the files, and has to end first
    found = defaultdict(list)
    for file in sorted(directory.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        for data in stored(file.read_bytes()):
            message = wandb_internal_pb2.Record.FromString(data)
            kind = message.WhichOneof("record_type")
            found[kind].append(getattr(message, kind))
    return found


def rows(records):
    """The logged rows as dictionaries."""
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
        for row in records["history"]
    ]


def epochs_in(records):
    """The rows that are an epoch's own."""
    return [row for row in rows(records) if "train/box_loss" in row]


def boxed(row):
    """The row's validation images with boxes."""
    return [key for key in row if re.fullmatch(r"Bounding Box Debugger/\w+/path", key)]


def test_what_a_training_leaves(tmp_path):
    run = begun_run(tmp_path)
    record(run, range(3), entity="team")
    records = sent(run.directory)
    (info,) = records["run"][:1]
    assert (info.project, info.display_name, info.entity) == ("YOLOv5", "exp", "team")
    config = {item.key: json.loads(item.value_json) for item in info.config.update}
    assert config["epochs"] == 3
    assert config["hyp"] == {"lr0": 0.01, "anchors": None}

    epochs = epochs_in(records)
    assert [row["epoch"] for row in epochs] == [0, 1, 2]
    assert all(values_of(row["epoch"]).items() <= row.items() for row in epochs)
    assert all(f"Mosaics/train_batch{row['epoch']}/path" in row for row in epochs)
    assert [len(boxed(row)) for row in epochs] == [16, 16, 16]
    assert [row["Results/results/path"].endswith(".png") for row in rows(records) if "Results/results/path" in row] == [
        True
    ]
    boxes = list(run.directory.glob("wandb/offline-run-*/files/media/metadata/boxes2D/**/*.json"))
    box = json.loads(boxes[0].read_text())["box_data"][0]
    assert box["position"] == {"minX": 2, "minY": 3, "maxX": 20, "maxY": 30}

    artifacts = [request.log_artifact.artifact for request in records["request"] if request.HasField("log_artifact")]
    artifacts += records["artifact"]
    assert [(a.name, a.type, sorted({*a.aliases} - {"latest"})) for a in artifacts] == [
        (f"run_{info.run_id}_model", "model", ["epoch 2"]),
        (f"run_{info.run_id}_model", "model", ["best", "stripped"]),
    ]
    assert [entry.path for a in artifacts for entry in a.manifest.contents] == ["epoch2.pt", "best.pt"]


def test_a_resumed_run_goes_on_under_its_id_and_a_new_one_does_not(tmp_path):
    directory, parts = begun_run(tmp_path).directory, []
    for first_epoch, resumed in ((0, False), (1, True), (0, False)):
        run = begun_run(tmp_path, first_epoch=first_epoch, resumed=resumed, epochs=3 + first_epoch)
        record(run, range(first_epoch, first_epoch + 1))
        parts.append(sent(directory))
        shutil.rmtree(directory / "wandb")  # parts of one second would share a folder
    first, second, other = ({run.run_id for run in part["run"]} for part in parts)
    assert first == second != other
    assert [[row["epoch"] for row in epochs_in(part)] for part in parts] == [[0], [1], [0]]


@pytest.mark.parametrize(
    ("given", "options", "interval"),
    [
        (NOT_GIVEN, {"epochs": 3, "noplots": False}, 1),
        (NOT_GIVEN, {"epochs": 300, "noplots": False}, 30),
        (7, {"epochs": 300, "noplots": False}, 7),
        (0, {"epochs": 300, "noplots": False}, 0),
        (7, {"epochs": 300, "noplots": True}, 0),
    ],
)
def test_how_often_boxes_are_shown(given, options, interval):
    assert image_interval(given, options) == interval


def test_the_interval_of_boxes_is_kept(tmp_path):
    run = begun_run(tmp_path)
    record(run, range(3), bbox_interval=2)
    shown = [row["epoch"] for row in epochs_in(sent(run.directory)) if boxed(row)]
    assert shown == [1]


def test_without_a_login_the_start_is_refused_and_nothing_is_asked(monkeypatch):
    check_login()
    monkeypatch.setenv("WANDB_MODE", "online")
    wandb.teardown()
    with pytest.raises(InputError, match="WANDB_MODE=offline"):
        check_login()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    wandb.teardown()
    check_login()
