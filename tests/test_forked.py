"""A fork with torch in it does what a process of its own would."""

from threading import Barrier, Thread

import torch

from forked import fork

THREADS = 8
WEIGHTS = torch.ones(40_000)  # enough values to be shared among threads; made here, for nothing to be asked before


def convert_in_threads() -> None:
    """Convert a tensor in several threads at once, as transformers does with the weights that it loads."""
    start, done = Barrier(THREADS), []

    def work() -> None:
        start.wait()
        done.append(WEIGHTS.to(torch.float64))

    threads = [Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == THREADS


def test_threads_of_a_fork_can_compute():
    assert [fork(convert_in_threads) for _ in range(20)] == [0] * 20


def test_a_fork_that_fails_says_so():
    assert fork(lambda: 1 / 0) == 1
