"""Which pictures a form is compared on."""

import dataclasses

import pytest


@pytest.mark.parametrize("count", [5, 16, 20, 100])
def test_as_many_pictures_are_compared_as_asked_for(untrained_run, tiny_set, count):
    from mcar_tf.exporting.pictures import count_batches, picture_batches
    from mcar_tf.runs.loading import load_run
    from pipelines.manifest import load_manifest

    split = load_manifest(tiny_set, "tiny").splits["test"]
    twice = dataclasses.replace(split, examples=32, shards=2 * split.shards)
    batches = list(picture_batches(twice, load_run(untrained_run).model, count))
    assert sum(len(batch["image"]) for batch in batches) == min(count, 32)
    assert len(batches) == count_batches(twice, count)
    for batch in batches:
        assert {len(value) for value in batch.values()} == {len(batch["image"])}
