"""tutorial.ipynb runs from top to bottom, in a copy, and what stands in it is what such a run leaves."""

import base64
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

NOTEBOOK = json.loads((ROOT / "tutorial.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def pictures(cells: list[dict]) -> list[bytes]:
    outputs = [output for cell in cells for output in cell["outputs"]]
    found = [
        output["data"][kind]
        for output in outputs
        for kind in ("image/jpeg", "image/png")
        if kind in output.get("data", {})
    ]
    return [base64.b64decode(content) for content in found]


def test_it_was_run_in_order_and_without_errors():
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert not [output for cell in CODE for output in cell["outputs"] if output["output_type"] == "error"]


def test_its_pictures_are_there_and_small():
    assert len(pictures(CODE)) >= 5
    assert (ROOT / "tutorial.ipynb").stat().st_size < 600_000


def test_it_names_no_machine():
    text = json.dumps(NOTEBOOK, ensure_ascii=False)
    assert not [place for place in ("/home/", "/root/", "/tmp/", "/work/") if place in text]


def test_what_it_shows_has_learnt():
    """Its texts say that most digits are found."""
    texts = [text for cell in CODE for output in cell["outputs"] for text in output.get("text", [])]
    assert float(re.search(r"mAP50 ([\d.]+)", "".join(texts))[1]) > 0.8
    assert "Empty DataFrame" not in json.dumps(NOTEBOOK)


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(clone: Path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="needs requirements-dev.txt")
    nbclient = pytest.importorskip("nbclient", reason="needs requirements-dev.txt")
    pytest.importorskip("ipykernel", reason="needs requirements-dev.txt")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name, value in {"OMP_NUM_THREADS": "1", "TORCH_HOME": str(clone.parent)}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(clone / "tutorial.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = re.sub(r"\bepochs=\d+", "epochs=1", cell.source)  # whether it runs, not what it learns
    resources = {"metadata": {"path": str(clone)}}
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    done = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(pictures(done)) == len(pictures(CODE))
    assert (clone / "runs" / "tutorial" / "train" / "weights" / "best.torchscript").is_file()
