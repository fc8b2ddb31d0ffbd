"""The options of a run: what a config file holds of them, and how it is read back."""

import dataclasses
from pathlib import Path

import pytest

from mcar_tf.config import (
    MAY_CHANGE,
    NOT_RECORDED,
    FitConfig,
    config_to_yaml,
    parse_fit_config,
    read_config,
)


def test_options_say_themselves_what_is_recorded_and_what_may_change():
    assert NOT_RECORDED == ("out_dir", "resume", "overwrite", "compare_baseline")
    assert MAY_CHANGE == ("source", "data_dir", "checkpoint_minutes", "keep_checkpoints")


def test_every_option_of_a_path_is_read_back_as_one(tmp_path):
    paths = {"source": Path("a"), "data_dir": Path("b"), "cache_dir": Path("c"), "init_from": Path("d")}
    written = FitConfig(**paths, drop_epochs=[3, 4], local_size=None)
    (tmp_path / "config.yaml").write_text(config_to_yaml(written))
    assert read_config(tmp_path / "config.yaml") == written
    hints = {name for name, kind in FitConfig.__annotations__.items() if "Path" in str(kind)}
    assert hints - set(NOT_RECORDED) == set(paths)  # or another option of a path is missing above


def test_an_option_that_came_later_is_at_its_default(tmp_path):
    (tmp_path / "config.yaml").write_text("dataset: coco\nimage_size: 448\n")
    assert read_config(tmp_path / "config.yaml") == FitConfig(dataset="coco", image_size=448)


@pytest.mark.parametrize("old", ["pair", "single"])
def test_the_old_name_of_learning_is_read_and_said_once(old, tmp_path, capsys):
    text = (
        config_to_yaml(FitConfig(learning=old))
        .replace("learning:", "was:")
        .replace("loss: bce", f"loss: {old}")
    )
    (tmp_path / "config.yaml").write_text(text.replace(f"was: {old}\n", ""))
    assert read_config(tmp_path / "config.yaml") == FitConfig(learning=old, loss="bce")
    assert capsys.readouterr().err == ""
    said = f"`--loss {old}` is now `--learning {old}`; `--loss` is one of bce.\n"
    for words in (["--loss", old], ["--config", str(tmp_path / "config.yaml")]):
        found = parse_fit_config(words)
        assert (found.learning, found.loss) == (old, "bce")
        assert capsys.readouterr().err == said


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match=r"`--loss` must be one of bce\. Received: mse"):
        dataclasses.replace(FitConfig(weights="none"), loss="mse").check()
