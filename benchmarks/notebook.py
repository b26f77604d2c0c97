"""Runs tutorial.ipynb from top to bottom and saves it with what it then shows, without progress bars.

python -m benchmarks.notebook            needs requirements-dev.txt; some minutes of a CPU
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from utils.files import ROOT


def shown(outputs: list) -> list:
    """What is worth keeping: nothing of stderr (progress bars), and of a rewritten line its last state."""
    kept = [output for output in outputs if output.get("name") != "stderr"]
    for output in kept:
        if output.output_type == "stream":
            output.text = "\n".join(line.rpartition("\r")[2] for line in output.text.split("\n"))
    return kept


def main(file: Path = ROOT / "tutorial.ipynb") -> None:
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    notebook = nbformat.read(file, as_version=4)
    resources = {"metadata": {"path": str(file.parent)}}
    NotebookClient(notebook, timeout=None, kernel_name="python3", resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of this machine
        if cell.cell_type == "code":
            cell.outputs = shown(cell.outputs)
    nbformat.write(notebook, file)
    print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
