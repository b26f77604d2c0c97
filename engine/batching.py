"""Collects what many threads ask for at the same time into batches for one thread. Not for what a batch is run by:
engine/served_model.py.

Nobody waits for a batch to fill up: while one runs, the next one gathers.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from engine.service_limits import ServiceError

Job = TypeVar("Job")
Answer = TypeVar("Answer")


@dataclass
class _Waiting(Generic[Job, Answer]):
    job: Job
    key: Any
    future: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)


class Batcher(Generic[Job, Answer]):
    """A thread that answers jobs, several at a time.

    Args:
        answer: from jobs and the seconds that each has waited to as many answers; called in the thread alone.
        key: jobs of one key can share a batch.
        max_batch: jobs of a batch at most.
        max_queue: jobs that wait at most.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Job], Sequence[float]], Sequence[Answer]],
        *,
        key: Callable[[Job], Any],
        max_batch: int,
        max_queue: int,
    ) -> None:
        self._answer, self._key = answer, key
        self.max_batch, self.max_queue = max_batch, max_queue
        self.batches = self.jobs = 0  # run so far
        self._queue: deque[_Waiting[Job, Answer]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[Job]) -> list[Future[Answer]]:
        """The future answer of each job; a cancelled one is left out. Raises ServiceError: 429 where not all of them
        have a place in the queue, 503 after close()."""
        waiting: list[_Waiting[Job, Answer]] = [_Waiting(job, self._key(job)) for job in jobs]
        with self._changed:
            if self._closed:
                raise ServiceError(503, "the service is stopping")
            if len(self._queue) + len(waiting) > self.max_queue:
                told = f"at most {self.max_queue} waiting pictures were expected, got {len(self._queue)} already"
                raise ServiceError(429, f"{told}: try again later")
            self._queue.extend(waiting)
            self._changed.notify()
        return [item.future for item in waiting]

    def close(self) -> None:
        """Answers what waits, then ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            running = [item for item in batch if item.future.set_running_or_notify_cancel()]
            if running:
                self.batches += 1
                self.jobs += len(running)
                self._run_batch(running)

    def _next_batch(self) -> list[_Waiting[Job, Answer]]:
        """The job that has waited longest, with others of its key, a power of two in all; none once closed and empty.
        Batches of few different sizes can take the place of one another in memory: at 16 requests of 640 pixels at a
        time, a service takes 1.1 GB with such batches, and came to 1.7 GB with those of any size."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if not self._queue:
                return []
            key = self._queue[0].key
            alike = [item for item in self._queue if item.key == key][: self.max_batch]
            batch = alike[: 1 << (len(alike).bit_length() - 1)]
            taken = set(map(id, batch))
            self._queue = deque(item for item in self._queue if id(item) not in taken)
            return batch

    def _run_batch(self, batch: list[_Waiting[Job, Answer]]) -> None:
        """Sets the answers, or the error. Where several jobs fail together, each gets a try alone, as one may be at
        fault, or all be too many for the memory."""
        now = time.perf_counter()
        try:
            answers = self._answer([item.job for item in batch], [now - item.since for item in batch])
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(batch)} answers of a batch were expected, got {len(answers)}")
        except Exception as error:  # of whatever runtime: whoever waits for it gets it, and the thread goes on
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for item in batch:
                self._run_batch([item])
            return
        for item, answer in zip(batch, answers, strict=True):
            item.future.set_result(answer)
