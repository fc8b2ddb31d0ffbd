"""Predicts the shards of a plan on Apache Beam.

A worker gets the number of a shard and writes that shard; nothing else travels between workers. This is a plain step
with one model a process, and not Beam's RunInference: that forms batches by the time of day, so the last digits of
rows would differ from run to run, and it gives single rows, of which no worker could say that a shard is complete.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcar_tf.bulk.task import ShardTask, read_counts
from pipelines.command import load_tensorflow


def predict_on_beam(export: Path, task: ShardTask, beam_options: Sequence[str] = ()) -> None:
    """Predict the shards that are not finished.

    Args:
        export: the export folder.
        task: how.
        beam_options: Beam's own, as on a command line: `["--runner=FlinkRunner", "--parallelism=64"]`.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.utils.shared import Shared

    left = [shard for shard in range(task.shards) if read_counts(task, shard) is None]
    if not left:
        return
    with beam.Pipeline(options=PipelineOptions(list(beam_options))) as pipeline:
        (
            pipeline
            | "Shards" >> beam.Create(left)
            | beam.Reshuffle()
            | "Predict" >> beam.Map(_predict, export, task, Shared())
        )


def _predict(shard: int, export: Path, task: ShardTask, shared: Any) -> None:
    from apache_beam.metrics import Metrics

    load_tensorflow()
    from mcar_tf.bulk.shards import predict_shard
    from mcar_tf.serving.served_model import load_served_model

    # The threads of a process share one model.
    counts = predict_shard(task, shard, lambda: shared.acquire(functools.partial(load_served_model, export)))
    Metrics.counter("mcar_tf", "pictures").inc(counts.readable + counts.unreadable)
