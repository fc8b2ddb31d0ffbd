"""metrics.json is read by its types; what a split has measured stays when another is written."""

import math

import pytest

from mcar_tf.evaluating.metrics_file import read_metrics, write_metrics


def test_other_splits_stay_and_unknown_numbers_are_null(tmp_path):
    path = tmp_path / "metrics.json"
    assert read_metrics(path) == {}
    write_metrics(path, "validation", {"images": 3, "fused": {"mAP": 0.5, "top3": {"CP": 0.25}}})
    write_metrics(path, "test", {"images": 2, "fused": {"mAP": math.nan}})
    assert read_metrics(path) == {
        "validation": {"images": 3, "fused": {"mAP": 0.5, "top3": {"CP": 0.25}}},
        "test": {"images": 2, "fused": {"mAP": None}},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"metrics\.json is damaged: it must hold an object"),
        ("{", r"metrics\.json is damaged: it is not JSON"),
        ("[" * 100_000, r"metrics\.json is damaged: it is nested too deep"),
        ('{"test": 0.5}', r"metrics\.json: `test` must be an object with measures. Received: '0.5'"),
        ('{"test": {"fused": 0.5}}', r"`test\.fused` must be an object with measures. Received: '0.5'"),
        (
            '{"test": {"fused": {"mAP": "high"}}}',
            r"`test\.fused\.mAP` must be a number or null. Received: 'high'",
        ),
        (
            '{"test": {"fused": {"mAP": NaN}}}',
            r"`test\.fused\.mAP` must be a number or null. Received: 'nan'",
        ),
        ('{"test": {"fused": {"top3": {"CP": true}}}}', r"`test\.fused\.top3\.CP` must be a number or null"),
        ('{"test": {"images": [1]}}', r"`test\.images` must be a number or null"),
        ('{"test": {"fused": {"mAP": {}}}}', r"`test\.fused\.mAP` must be a number or null. Received: '{}'"),
        ('{"test": {"fused": {}}}', r"metrics\.json: `test\.images` is missing"),
        (
            '{"test": {"images": 3, "localization": 7}}',
            r"`test\.localization` must be an object with measures",
        ),
        ('{"test": {"images": 3, "localization": {}}}', r"`test\.localization\.regions` is missing"),
        (
            '{"test": {"images": 3, "steadiness": {"rounded": {}}}}',
            r"`test\.steadiness\.rounded\.changed` is m",
        ),
        (
            '{"test": {"images": 3, "steadiness": {"rounded": {"changed": null}}}}',
            r"`test\.steadiness\.rounded\.changed` must be a number. Received: 'None'",
        ),
    ],
)
def test_what_is_no_measure_is_named(tmp_path, content, message):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_metrics(tmp_path / "metrics.json")
