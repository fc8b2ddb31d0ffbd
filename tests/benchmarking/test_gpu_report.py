"""What is measured on a card, in which order, and the table that it becomes."""

import sys

from mcar_tf.benchmarking import gpu_report

SETTING = {"backbone": "tiny_resnet", "image_size": 32, "batch_size": 2}
MEASURED = {**SETTING, "precision": "float32", "top_n": 2, "rounds": 3, "device": "A card"}


def times(train, infer, **more):
    return {
        "mcar_train_ms": train,
        "plain_train_ms": 10.0,
        "mcar_infer_ms": infer,
        "plain_infer_ms": 2.0,
        "first_step_s": 7.04,
        **more,
    }


def test_what_fit_does_and_pytorch_come_first_in_the_first_precision():
    planned = gpu_report.plan(
        [SETTING], ["mixed_float16", "float32"], list(gpu_report.VARIANTS), top_n=2, rounds=3
    )
    assert [one["variant"] for one in planned] == [*gpu_report.VARIANTS] * 2
    assert [*gpu_report.VARIANTS][:3] == ["default", "pytorch", "xla"]
    assert [one["precision"] for one in planned] == ["mixed_float16"] * 6 + ["float32"] * 6
    assert len(planned) == 12


def test_ratios_are_to_pytorch_in_the_same_setting():
    page = gpu_report.report(
        [
            {**MEASURED, "variant": "default", **times(90.0, 12.0, peak_mib=1536)},
            {**MEASURED, "variant": "pytorch", **times(60.0, 16.0)},
            {**MEASURED, "variant": "xla", "batch_size": 4, **times(30.0, 8.0)},
        ]
    )
    rows = [row for row in page.splitlines() if row.startswith("| tiny_resnet")]
    assert rows == [
        "| tiny_resnet | 32 | 2 | float32 | default | 90.0 | 10.0 | 12.0 | 2.0 | 1.50 | 0.75 | 7.0 s | 1.5 GiB |",
        "| tiny_resnet | 32 | 2 | float32 | pytorch | 60.0 | 10.0 | 16.0 | 2.0 | 1.00 | 1.00 | 7.0 s | - |",
        "| tiny_resnet | 32 | 4 | float32 | xla | 30.0 | 10.0 | 8.0 | 2.0 | - | - | 7.0 s | - |",
    ]
    assert "Device: A card." in page


def test_what_failed_is_a_row_with_its_reason():
    page = gpu_report.report([{**MEASURED, "variant": "xla", "error": "XlaError: no | such op"}])
    (row,) = [row for row in page.splitlines() if row.startswith("| tiny_resnet")]
    assert row.startswith("| tiny_resnet | 32 | 2 | float32 | xla | XlaError: no / such op |")
    assert row.count("|") == 14


def test_the_reason_is_the_line_that_names_the_error():
    stderr = "Traceback:\n  File x\nModuleNotFoundError: No module named 'torch'\n"
    assert gpu_report.reason(stderr, 1) == "ModuleNotFoundError: No module named 'torch'"
    assert gpu_report.reason("Killed\n", -9) == "Killed"
    assert gpu_report.reason("", -9) == "exit code -9"


def test_an_interpreter_that_is_not_there_is_a_reason_too():
    measurement = {**SETTING, "variant": "pytorch", "precision": "float32", "top_n": 2, "rounds": 3}
    (result,) = gpu_report.measure_all([measurement], "/no/such/python")
    assert "No such file" in result["error"]


def test_a_setting_of_its_environment_reaches_the_process(monkeypatch):
    seen = {}

    def fake(command, env, **_):
        seen[command[0] == sys.executable] = env[gpu_report.PERSISTENT]
        return type("Done", (), {"returncode": 0, "stdout": "a line\n{}\n", "stderr": ""})

    monkeypatch.setattr(gpu_report.subprocess, "run", fake)
    for variant, expected in (("transposed", "0"), ("default", "1")):
        assert gpu_report.run({"variant": variant}, "python") == {}
        assert seen == {True: expected}
