import threading
import time
from concurrent.futures import CancelledError

import pytest

from engine.batching import Batcher
from engine.service_limits import ServiceError


class Doubler:
    """Doubles numbers; its first call waits for `go`. Remembers the batches."""

    def __init__(self) -> None:
        self.go, self.begun, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, jobs, waited):
        self.begun.set()
        assert self.go.wait(30)
        self.batches.append(list(jobs))
        assert len(waited) == len(jobs)
        assert min(waited) >= 0
        if "bad" in jobs:
            raise ValueError("bad")
        return [2 * job for job in jobs]


@pytest.fixture
def doubler():
    return Doubler()


def batcher_of(doubler, key=lambda job: 0, max_batch=4, max_queue=100):
    return Batcher(doubler, key=key, max_batch=max_batch, max_queue=max_queue)


def occupied(batcher, doubler):
    """The batcher with its thread held in a first batch, [0]."""
    first = batcher.submit([0])
    assert doubler.begun.wait(30)
    return first


@pytest.mark.parametrize(
    ("jobs", "batches"),
    [
        ([], [[0]]),
        ([1], [[0], [1]]),
        ([1, 2, 3], [[0], [1, 2], [3]]),
        ([1, 2, 3, 4], [[0], [1, 2, 3, 4]]),
        ([1, 2, 3, 4, 5], [[0], [1, 2, 3, 4], [5]]),
    ],
)
def test_what_waits_shares_a_batch(doubler, jobs, batches):
    batcher = batcher_of(doubler)
    futures = occupied(batcher, doubler) + [future for job in jobs for future in batcher.submit([job])]
    doubler.go.set()
    assert [future.result(30) for future in futures] == [2 * job for job in [0, *jobs]]
    assert doubler.batches == batches
    assert (batcher.batches, batcher.jobs) == (len(batches), 1 + len(jobs))
    batcher.close()


def test_batches_are_of_one_key_and_the_one_that_waits_longest_is_next(doubler):
    batcher = batcher_of(doubler, key=lambda job: job % 2)
    futures = occupied(batcher, doubler) + batcher.submit([1, 2, 3, 4, 5])
    doubler.go.set()
    assert [future.result(30) for future in futures] == [0, 2, 4, 6, 8, 10]
    assert doubler.batches == [[0], [1, 3], [2, 4], [5]]
    batcher.close()


def test_an_error_is_that_of_its_job_alone(doubler):
    batcher = batcher_of(doubler)
    futures = occupied(batcher, doubler) + batcher.submit([1, "bad", 2])
    doubler.go.set()
    assert [futures[i].result(30) for i in (0, 1, 3)] == [0, 2, 4]
    with pytest.raises(ValueError, match="bad"):
        futures[2].result(30)
    assert batcher.submit([7])[0].result(30) == 14  # it goes on
    batcher.close()


@pytest.mark.parametrize(("answers", "got"), [([], 0), ([1, 2, 3], 3)])
def test_a_wrong_number_of_answers_is_an_error_of_that_batch(answers, got):
    batcher = Batcher(lambda jobs, _: answers if "bad" in jobs else jobs, key=str, max_batch=4, max_queue=100)
    with pytest.raises(RuntimeError, match=f"1 answers of a batch were expected, got {got}"):
        batcher.submit(["bad"])[0].result(5)
    assert batcher.submit([7])[0].result(5) == 7  # it goes on
    batcher.close()


def test_a_full_queue_takes_all_or_nothing(doubler):
    batcher = batcher_of(doubler, max_queue=2)
    occupied(batcher, doubler)
    with pytest.raises(ServiceError) as refused:
        batcher.submit([1, 2, 3])
    assert refused.value.status == 429
    futures = batcher.submit([1, 2])
    with pytest.raises(ServiceError, match="at most 2 waiting pictures were expected, got 2"):
        batcher.submit([3])
    doubler.go.set()
    assert [future.result(30) for future in futures] == [2, 4]
    batcher.close()


def test_what_nobody_waits_for_is_left_out(doubler):
    batcher = batcher_of(doubler)
    occupied(batcher, doubler)
    dropped, kept = batcher.submit([1, 2])
    assert dropped.cancel()
    doubler.go.set()
    assert kept.result(30) == 4
    with pytest.raises(CancelledError):
        dropped.result(30)
    assert doubler.batches == [[0], [2]]
    batcher.close()


def test_closing_answers_what_waits_and_refuses_the_rest(doubler):
    batcher = batcher_of(doubler)
    futures = occupied(batcher, doubler) + batcher.submit([1, 2])
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while not batcher._closed:
        time.sleep(0.001)
    with pytest.raises(ServiceError, match="stopping") as refused:
        batcher.submit([3])
    assert refused.value.status == 503
    doubler.go.set()
    closing.join(30)
    assert [future.result(0) for future in futures] == [0, 2, 4]
