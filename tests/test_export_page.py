"""docs/export.md: its program runs as it stands, and its tables are those of the code."""

import re
import subprocess
import sys

import pytest

import detect
import export
from engine.export_proof import TOLERANCES
from engine.predictor import Predictor
from models.export_formats import EXPORTERS
from tests.conftest import ROOT
from utils.images import read_image

PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [{}, {"dynamic": True}, {"nms": True}, {"dynamic": True, "nms": True}, {"batch_size": 2, "imgsz": [480, 608]}],
    ids=["plain", "dynamic", "nms", "dynamic-nms", "batch"],
)
def test_the_program_for_plain_onnx_runtime(shared, tmp_path, flags):
    """Finds on a tall and on a wide picture what detect.py finds with the same file."""
    for package in EXPORTERS["onnx"].packages:
        pytest.importorskip(package)
    weights = tmp_path / "best.pt"
    weights.write_bytes(shared("weights/yolov5n.pt").read_bytes())
    (made,) = export.run(weights=weights, include="onnx", **flags)
    predictor = Predictor(detect.parse_opt(["--weights", str(made.file), "--device", "cpu"]))
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for name, objects in (("bus", 4), ("zidane", 2)):
        picture = tmp_path / "picture.jpg"
        picture.write_bytes(shared(f"images/{name}.jpg").read_bytes())
        answer = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert answer.returncode == 0, answer.stderr
        lines = [line.rsplit(maxsplit=5) for line in answer.stdout.splitlines()]
        printed = sorted((label, *map(int, box), float(confidence)) for label, confidence, *box in lines)
        (found,) = predictor([read_image(picture)])
        wanted = sorted((predictor.names[int(label)], *box, confidence) for *box, confidence, label in found.tolist())
        assert [row[0] for row in printed] == [row[0] for row in wanted]
        assert len(wanted) >= objects
        for (_, *box, confidence), (_, *wanted_box, wanted_confidence) in zip(printed, wanted, strict=True):
            assert box == pytest.approx(wanted_box, abs=1)
            assert confidence == pytest.approx(wanted_confidence, abs=0.011)


def test_every_format_and_its_flags():
    rows = [cells(line) for line in re.findall(r"^\| `.*` \|.*$", PAGE, re.M) if "--half` | 8" not in line]
    told = {name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert list(told) == [name for name in told if name in EXPORTERS]
    assert set(told) == set(EXPORTERS)
    for name, row in told.items():
        flags = {flag.replace("-", "_") for flag in re.findall(r"`--([\w-]+)`", row[2])}
        assert flags == EXPORTERS[name].flags, name
        if EXPORTERS[name].requirements:
            assert EXPORTERS[name].requirements in row[3]
            assert (ROOT / EXPORTERS[name].requirements).exists()


def test_the_tolerances():
    for name, tolerance in TOLERANCES.items():
        flag = name if name == "float32" else rf"`--{name}`"
        (line,) = re.findall(rf"^\| {flag} \| \S+ \| \S+ \| .*$", PAGE, re.M)
        *_, box, score, changed = cells(line)
        assert (float(box), float(score)) == (tolerance.box_px, tolerance.score)
        assert changed == (f"{tolerance.changed:.0%}".replace("%", " %") if tolerance.changed else "none")
