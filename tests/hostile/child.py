"""Runs a task on a hostile input in a process of its own, with little memory and time, and watches what it does."""

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from utils.errors import InputError

resource = pytest.importorskip("resource", reason="hostile input is tried in forked processes, which Windows lacks")

SECONDS, MEGABYTES = 10, 1024  # of the processor, and of memory: more of either ends the child
PATIENCE = 6  # seconds of the clock for each of these: other programs may be busy, and waiting is hanging
LONGEST_TOLD = 1000  # characters of a sentence
RUNS_SOMETHING = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "os.fork", "socket.connect")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Outcome:
    """How a task ended: "returned", "refused" (with one sentence), "raised" (what would be a traceback), "hung" or
    "killed" (by the kernel). told: the value as text, the sentence, or the traceback. acts: programs that were started
    and files that were written outside of the task's folder. grown: megabytes of the largest memory above the first.
    seconds: of the processor; where nothing came, of the clock."""

    ended: str
    told: str = ""
    acts: tuple[str, ...] = ()
    grown: float = 0.0
    seconds: float = 0.0


def attempt(task: Callable[[], Any], folder: Path, *, seconds: float = SECONDS, megabytes: int = MEGABYTES) -> Outcome:
    """Runs the task in a forked child whose working directory is `folder`."""
    reading, writing = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run(task, folder, megabytes, writing)
    os.close(writing)
    report = _read_all(reading, start + PATIENCE * seconds)
    if report is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    spent = time.monotonic() - start
    if report is None:
        return Outcome("hung", f"nothing came in {PATIENCE * seconds} s", seconds=spent)
    if not report:
        return Outcome("killed", f"ended with status {status}", seconds=spent)
    told = json.loads(report)
    return Outcome(told["ended"], told["told"], tuple(told["acts"]), told["grown"], told["seconds"])


def _read_all(pipe: int, deadline: float) -> bytes | None:
    """All that comes until the other end is closed; None where that is not before the deadline."""
    content = b""
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                return None
            chunk = os.read(pipe, 65536)
            if not chunk:
                return content
            content += chunk
    finally:
        os.close(pipe)


def _run(task: Callable[[], Any], folder: Path, megabytes: int, pipe: int) -> None:
    """The child's whole life."""
    acts: list[str] = []
    try:
        os.chdir(folder)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20,) * 2)
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        sys.addaudithook(_watching(folder, acts))
        ended, told = _result(task)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        report = {"ended": ended, "told": told[:20_000], "acts": acts[:20], "grown": grown}
        report["seconds"] = time.process_time() - begun
        os.write(pipe, json.dumps(report).encode()[:60_000])
    finally:
        os._exit(0)


def _result(task: Callable[[], Any]) -> tuple[str, str]:
    try:
        return "returned", str(task())
    except (InputError, OSError) as error:
        return "refused", " ".join(str(error).split())  # on one line, as readable_errors shows it
    except BaseException:
        return "raised", traceback.format_exc()


def _watching(folder: Path, acts: list[str]) -> Callable[[str, tuple], None]:
    """An audit hook that notes programs started, addresses connected to, and files opened for writing elsewhere."""

    def watch(event: str, arguments: tuple) -> None:
        if event in RUNS_SOMETHING:
            acts.append(f"{event} {arguments!r}"[:200])
        elif event == "open" and isinstance(arguments[0], str | bytes) and (arguments[2] or 0) & WRITES:
            path = Path(os.fsdecode(arguments[0])).resolve()
            if not path.is_relative_to(folder.resolve()) and path != Path(os.devnull):
                acts.append(f"wrote {path}")

    return watch


def bounded(outcome: Outcome, *, ends: tuple[str, ...] = ("refused",)) -> str:
    """What was told, after checks: it ended in one of these ways, and did nothing else. Refusals are one sentence."""
    assert outcome.ended in ends, f"{outcome.ended}: {outcome.told}"
    assert not outcome.acts
    assert outcome.seconds < SECONDS
    if outcome.ended == "refused":
        assert "Traceback" not in outcome.told
        assert 10 < len(outcome.told) <= LONGEST_TOLD, outcome.told
    return outcome.told
