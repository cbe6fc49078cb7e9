"""A contestant's side of a contest (benchmarks/contest.py). Standard library only.

Each contestant is a process with its own Python and packages. It answers on standard output with
lines of JSON: first what it is, then, for each line with a number of batches that it reads, how
many images those had and how long they took.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


class Channel:
    """Standard input and output of this process; whatever else is printed goes to the error log."""

    def __init__(self):
        self._answers = os.fdopen(os.dup(1), 'w')
        os.dup2(2, 1)

    def say(self, **answer: Any) -> None:
        """Answers with one line of JSON."""
        self._answers.write(json.dumps(answer) + '\n')
        self._answers.flush()

    def serve(self, batches: Iterator[Any], **about: Any) -> None:
        """Takes as many endless batches [images, ...] as each line asks for, until input ends.

        `about` is what else to say of this contestant, such as versions.
        """
        first = next(batches)
        self.say(shape=[int(side) for side in first.shape], dtype=str(first.dtype), **about)
        for line in sys.stdin:
            start = time.perf_counter()
            images = sum(len(next(batches)) for _ in range(int(line)))
            self.say(images=images, seconds=time.perf_counter() - start)


def use_cores(count: int) -> None:
    """Restricts this process to `count` of its cores; before any library counts them."""
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def run(contestant: Callable[[Channel, dict[str, Any]], None]) -> None:
    """Calls contestant(channel, work) with the work that argv[1] describes in JSON."""
    channel = Channel()
    try:
        contestant(channel, json.loads(sys.argv[1]))
    except ImportError as error:
        channel.say(missing=error.name or str(error))
