"""Our scripts as people call them."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def shell(script: str, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    """python <script> <arguments>, run in that directory; stdout and stderr as text."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)
