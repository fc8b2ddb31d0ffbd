"""Build shards, in this process or in many at once."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

from pipelines.building.shards import WORK_FOLDER, BuiltShard, ShardTask, finish_shard
from pipelines.building.spool import read_in_order, spool_file
from pipelines.command import load_tensorflow

BYTES_A_PROCESS = 64 * 2**20  # of pictures; for fewer, another process costs more time than it saves


def count_cores() -> int:
    """The cores that this process may use, if the system tells (Linux does); otherwise all cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    tasks: Sequence[ShardTask], processes: int, on_pictures: Callable[[int], object]
) -> Generator[tuple[ShardTask, BuiltShard], None, None]:
    """Build shards from their spooled samples; yield each as soon as it is finished.

    Args:
        tasks: one per shard.
        processes: how many at once; with 1 in this process.
        on_pictures: is called with the number of pictures that are done since the last call.
    """
    if processes == 1:
        for task in tasks:
            yield task, _finish(task, on_pictures)
        return
    # Spawned, not forked: TensorFlow's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    others = set(multiprocessing.active_children())
    executor = concurrent.futures.ProcessPoolExecutor(processes, context, _start_worker, (counter,))
    seen = 0
    try:
        waiting = {executor.submit(_finish_in_worker, task): task for task in tasks}
        while waiting:
            done, _ = concurrent.futures.wait(waiting, 0.5, concurrent.futures.FIRST_COMPLETED)
            on_pictures(counter.value - seen)
            seen = counter.value
            for future in done:
                yield waiting.pop(future), future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise RuntimeError(
            "a process of the build was killed, perhaps for want of memory; the same command goes on, with"
            f" --processes {max(1, processes // 2)} it needs less"
        ) from error
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


_counter: Any = None  # in a worker: how many pictures all of them have done


def _start_worker(counter: Any) -> None:
    global _counter
    _counter = counter
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends us
    load_tensorflow()
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")  # otherwise every process would take memory on it


def end_with_parent() -> None:
    """End this process when its parent ends: if the parent was killed, we might write into another build."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _finish_in_worker(task: ShardTask) -> BuiltShard:
    def on_picture(count: int) -> None:
        with _counter.get_lock():
            _counter.value += count

    return _finish(task, on_picture)


def _finish(task: ShardTask, on_pictures: Callable[[int], object]) -> BuiltShard:
    spool = spool_file(task.path.parent / WORK_FOLDER, task.split, task.shard, task.num_shards)
    return finish_shard(task, lambda: read_in_order(spool), on_pictures)
