"""The watch itself: it must see what grows, and leave alone what does not."""

import pytest

from tests.soak.memory_watch import ALLOWED, MIB, Watched, lines_done, needs_proc, watch

WORK = """
import sys, time
kept = []
for number in range(1, 81):
    block = bytearray({bytes_each})
    if {keeps}:
        kept.append(block)
    print(f"picture {{number}}/80", flush=True)
    time.sleep(0.05)
"""


@needs_proc
@pytest.mark.parametrize(
    ("bytes_each", "keeps", "flat"),
    [(0, True, True), (MIB, False, True), (MIB // 2, True, False)],
    ids=["nothing", "freed", "kept"],
)
def test_growth_is_seen(tmp_path, bytes_each, keeps, flat):
    log = tmp_path / "log"
    program = ["-c", WORK.format(bytes_each=bytes_each, keeps=keeps)]
    watched = watch(program, log=log, share_done=lines_done(log, r"picture (\d+)/(\d+)"))
    assert watched.code == 0, watched.told
    assert (watched.growth < ALLOWED) == flat, watched.summary()


def test_too_few_looks_tell_nothing():
    with pytest.raises(AssertionError, match="too few"):
        _ = Watched(looks=[(0.3, 1), (0.8, 1)]).growth
