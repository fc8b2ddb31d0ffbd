"""Check whether every byte of a prepared set is still what was written."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelines import records
from pipelines.files import file_sha256
from pipelines.manifest import Part, Shard, load_manifest
from pipelines.words import counted

_ALL_READ = "every record can be read, but is another one"


def verify_set(data_dir: Path, name: str) -> str:
    """Read every shard of the prepared set `<data_dir>/<name>` and compare it with its checksum.

    Returns:
        One line that says how much was read.

    Raises:
        ValueError: names every shard that is damaged or gone, and the first record that cannot be read in each.
    """
    from tqdm import tqdm

    manifest = load_manifest(data_dir, name, check_files=False)
    files = [
        (file, shard)
        for split in manifest.splits.values()
        for file, shard in zip(split.files, split.shards, strict=True)
    ]
    total = sum(shard.bytes for _, shard in files)
    problems = []
    with tqdm(total=total, desc=f"{name}: verifying", unit="B", unit_scale=True, file=sys.stderr) as bar:
        for file, shard in files:
            problem = _find_problem(file, shard)
            if problem:
                problems.append(f"{file} {problem}")
            bar.update(shard.bytes)
    if problems:
        raise ValueError(
            f"{len(problems)} of {len(files)} shards are not what was written: {'; '.join(problems)}."
            " Build the set anew with --overwrite."
        )
    pictures = sum(split.examples for split in manifest.splits.values())
    found = f"{counted(pictures, 'picture')} in {counted(len(files), 'shard')}"
    return f"{Path(data_dir) / name}: {found}, every byte as it was written."


@contextlib.contextmanager
def naming_shards(files: Sequence[Path | Part]) -> Iterator[None]:
    """If reading fails in the `with` block, name the shard that can't be read: TensorFlow does not say which.

    Raises:
        ValueError: names the shard and what to do.
    """
    import tensorflow as tf

    try:
        yield
    except (tf.errors.DataLossError, tf.errors.NotFoundError) as error:
        for file in dict.fromkeys(file.path if isinstance(file, Part) else file for file in files):
            bad = _first_bad_record(file) if file.is_file() else "it is gone"
            if bad != _ALL_READ:
                raise ValueError(
                    f"{file} is not what was written ({bad}). Build the set anew: pipelines.build --overwrite."
                ) from error
        raise


def _find_problem(file: Path, shard: Shard) -> str:
    if not file.is_file():
        return "is gone"
    size = file.stat().st_size
    if size != shard.bytes:
        return f"has {size} bytes instead of {shard.bytes}"
    if file_sha256(file) != shard.sha256:
        return f"is damaged ({_first_bad_record(file)})"
    return ""


def _first_bad_record(file: Path) -> str:
    import tensorflow as tf

    last = "at the first"
    count = 0
    try:
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            sample, _ = records.parse_sample(record)
            count, last = count + 1, f"behind picture {sample.id}"
    except tf.errors.DataLossError:
        return f"record {count} cannot be read, {last}"
    return _ALL_READ
