import io
import os

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.building.packing import Packed, pack, read_packed, read_packed_at
from pipelines.samples import Sample

CLASSES = st.lists(st.integers(0, 2**31), max_size=4).map(tuple)
FRACTION = st.floats(0, 1)
SAMPLES = st.builds(
    Sample,
    id=st.from_regex(r"[A-Za-z0-9_./-]{1,20}", fullmatch=True),
    image=st.binary(max_size=50),
    present=CLASSES,
    difficult=CLASSES,
    unknown=CLASSES,
    boxes=st.lists(st.tuples(FRACTION, FRACTION, FRACTION, FRACTION), max_size=3).map(tuple),
    box_labels=CLASSES,
)


@given(st.lists(SAMPLES, max_size=5))
def test_samples_come_back_as_they_went_whatever_bytes_their_pictures_have(samples):
    file = io.BytesIO()
    places = []
    for sample in samples:
        places.append(file.tell())
        file.writelines(pack(sample))
    file.seek(0)
    found = list(read_packed(file))
    assert [packed.sample() for packed in found] == samples
    assert [packed.id for packed in found] == [sample.id for sample in samples]
    assert [packed.encoded_bytes for packed in found] == [len(sample.image) for sample in samples]
    for place, sample in zip(places, samples, strict=True):
        assert read_packed_at(file, place).sample() == sample


def test_a_file_travels_as_its_path_and_says_when_it_was_changed(tmp_path):
    path = tmp_path / "b\udce9 \u2028.jpg"  # a name that is no text, with a line break of Unicode's
    path.write_bytes(b"12345")
    sample = Sample("x", path, present=(1,))
    packed = pack(sample)
    assert packed.sample() == sample
    assert (packed.encoded_bytes, packed.inline, packed.line.count(b"\n")) == (5, b"", 1)
    path.write_bytes(b"54321")
    os.utime(path, ns=(1, 1))
    assert pack(sample).line != packed.line


def test_bytes_of_another_picture_make_another_line():
    assert pack(Sample("x", b"1", ())).line != pack(Sample("x", b"2", ())).line


def test_numbers_of_numpy_become_numbers():
    sample = Sample("x", b"", present=(np.int64(3),), boxes=((np.float32(0.5), 0, 1, 1),), box_labels=(3,))
    assert Packed(*pack(sample)).sample() == Sample("x", b"", (3,), boxes=((0.5, 0, 1, 1),), box_labels=(3,))
