"""Frees and takes an array of 96 MiB again, 20 times in a thread; prints how many pages the kernel had to provide."""

import resource
import threading

import numpy as np

from pipelines.allocator import keep_freed_memory


def work() -> None:
    np.ones(12 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(12 << 20)
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


pages: list[int] = []
taken = keep_freed_memory()
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(taken, pages[0])
