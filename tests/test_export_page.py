"""docs/export.md: its program runs as it stands, and its tables are those of the code."""

import re
import subprocess
import sys

import pytest

import export
from engine.export_proof import TOLERANCES
from models.export_formats import EXPORTERS
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.slow
def test_the_program_for_plain_onnx_runtime(shared, tmp_path):
    """Finds on the bus what detect.py finds."""
    for package in EXPORTERS["onnx"].packages:
        pytest.importorskip(package)
    weights = tmp_path / "best.pt"
    weights.write_bytes(shared("weights/yolov5n.pt").read_bytes())
    (tmp_path / "picture.jpg").write_bytes(shared("images/bus.jpg").read_bytes())
    export.run(weights=weights, include="onnx", nms=True)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    answer = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert sorted(line.split()[0] for line in lines) == ["bus", "person", "person", "person", "person"]


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
