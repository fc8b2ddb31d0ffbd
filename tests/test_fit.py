"""`python -m mcar_tf.fit` from the command line to the closing table, and what bad input gets."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from loading import loads
from PIL import Image

from mcar_tf.config import FitConfig, config_to_yaml, parse_fit_config, read_config
from mcar_tf.fit import Row, cost_of, main, print_result, stream_rows, telling_how_to_go_on
from mcar_tf.runs.folder import MARKS

COMMANDS = [
    *(
        f"mcar_tf.{name}"
        for name in (
            *("fit", "evaluate", "predict", "calibrate", "export", "report", "compare", "sweep"),
            "import_run",
            *("benchmark", "benchmark_gpu", "benchmark_metrics"),
        )
    ),
    *(f"pipelines.{name}" for name in ("build", "benchmark")),
]


def tiny_options(data_dir: Path, folder: Path, *more: str) -> list[str]:
    options = {
        "dataset": "tiny", "data-dir": data_dir, "out-dir": folder, "backbone": "tiny_resnet", "weights": "none",
        "image-size": 32, "top-n": 2, "batch-size": 8, "epochs": 2, "learning-rate": 0.01, "recipe": "paper",
    }  # fmt: skip
    return [word for name, value in options.items() for word in (f"--{name}", str(value))] + list(more)


@pytest.fixture(scope="module")
def finished(tiny_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    main(tiny_options(tiny_set, folder, "--compare-baseline"))
    return folder


def test_a_run_folder_holds_what_is_promised(finished):
    for name in (
        "config.yaml",
        "classes.txt",
        "environment.json",
        "history.csv",
        "metrics.json",
        "tensorboard",
    ):
        assert (finished / name).exists(), name
        assert (finished / "baseline" / name).exists(), name
    assert {p.name for p in (finished / "checkpoints").glob("*.h5")} == {"last.weights.h5", "best.weights.h5"}
    assert len((finished / "history.csv").read_text().splitlines()) == 1 + 2
    with Image.open(finished / "regions.png") as panel:
        assert panel.width == 4 * 320  # four pictures a row
    assert not (finished / "baseline" / "regions.png").exists()  # which looks at none
    metrics = json.loads((finished / "metrics.json").read_text())["test"]
    assert 0 <= metrics["fused"]["mAP"] <= 1


def test_the_closing_table_names_every_stream_and_the_baseline(tiny_set, finished, capsys):
    main(
        tiny_options(tiny_set, finished, "--compare-baseline", "--resume")
    )  # complete already: prints, trains nothing
    printed = capsys.readouterr().out
    costs = {"baseline ": "1.00", "global stream": "1.00", "local stream": "3.00", "both, fused": "3.00"}
    for row, cost in costs.items():
        assert re.search(rf"{row} +{cost} ", printed)
    assert "cost: of an answer, in looks of the plain backbone at 32 px\n" in printed
    assert f"python -m mcar_tf.predict --run {finished}" in printed


def test_one_seed_gives_one_result_to_the_last_bit(tiny_set, finished, tmp_path):
    import h5py

    main(tiny_options(tiny_set, tmp_path / "again"))

    def weights(folder):
        found = {}
        with h5py.File(folder / "checkpoints" / "last.weights.h5") as file:
            file.visititems(
                lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None
            )
        return found

    one, other = weights(finished), weights(tmp_path / "again")
    assert one.keys() == other.keys()
    assert len(one) > 20
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_every_policy_of_augmentation_is_an_option():
    from pipelines.augment import Policy

    assert get_args(get_type_hints(FitConfig)["augment"]) == get_args(Policy)


def test_a_run_can_read_resized_pictures_and_says_what_its_seed_does_not_decide(tiny_set, tmp_path, capsys):
    more = ["--augment", "gridmask", "--cache-dir", str(tmp_path / "cache"), "--epochs", "1"]
    main(tiny_options(tiny_set, tmp_path / "run", *more))
    assert "--augment gridmask draws random numbers of its own" in capsys.readouterr().out
    cached = sorted(file.name.split("-of")[0] for file in (tmp_path / "cache").iterdir())
    assert cached == ["tiny-train-00000", "tiny-validation-00000"]  # not what is read but once
    assert read_config(tmp_path / "run" / "config.yaml").cache_dir == tmp_path / "cache"


def test_the_config_of_a_run_repeats_it(finished):
    config = parse_fit_config(["--config", str(finished / "config.yaml")])
    assert config_to_yaml(config) == (finished / "config.yaml").read_text()
    assert read_config(finished / "config.yaml").image_size == 32


def test_a_run_of_a_fold_remembers_it_in_every_command(make_sample, tmp_path, capsys):
    from mcar_tf import calibrate, evaluate, report
    from pipelines.building.sets import build_set
    from pipelines.samples import RawSet

    splits = {
        fold: lambda fold=fold: iter([make_sample(fold, i) for i in range(12)])
        for fold in ("fold1", "fold2", "fold3")
    }
    build_set(RawSet("folds", ("red", "green", "blue", "rare"), splits, source="a test"), tmp_path / "data")
    folder = tmp_path / "run"
    words = tiny_options(tmp_path / "data", folder, "--epochs", "1", "--val-fraction", "0.5", "--fold", "2")
    words[words.index("tiny")] = "folds"
    main(words)
    assert "pictures: train 12, validation 12, fold2 12" in capsys.readouterr().out
    config = read_config(folder / "config.yaml")
    assert (config.fold, config.eval_split) == (2, "fold2")
    assert list(json.loads((folder / "metrics.json").read_text())) == ["fold2"]

    main([*words, "--resume"])
    evaluate.main(["--run", str(folder)])
    with np.load(folder / "predictions.npz") as found:
        assert sorted(found["ids"].tolist()) == sorted(make_sample("fold2", i).id for i in range(12))
    calibrate.main(["--run", str(folder), "--min-positives", "1"])
    report.main(["--run", str(folder)])
    with pytest.raises(ValueError, match=r"one of train, fold2, validation, .* Received: 'fold1'"):
        evaluate.main(["--run", str(folder), "--split", "fold1"])
    with pytest.raises(ValueError, match="evaluated on fold2"):
        calibrate.main(["--run", str(folder), "--split", "fold2"])


def test_the_config_of_a_fold_serves_for_other_folds(tmp_path):
    (tmp_path / "c.yaml").write_text(config_to_yaml(parse_fit_config(["--fold", "2"])))
    assert read_config(tmp_path / "c.yaml").eval_split == "fold2"
    assert parse_fit_config(["--config", str(tmp_path / "c.yaml"), "--fold", "3"]).eval_split == "fold3"
    unmeasured = parse_fit_config(["--fold", "2", "--eval-split", "none"])
    (tmp_path / "c.yaml").write_text(config_to_yaml(unmeasured))
    assert read_config(tmp_path / "c.yaml").eval_split == "none"


def test_the_best_epoch_is_never_chosen_by_what_is_known_already(make_sample, tmp_path):
    from pipelines.building.sets import build_set
    from pipelines.samples import RawSet

    splits = {s: lambda s=s: iter([make_sample(s, i) for i in range(12)]) for s in ("train", "test")}
    for name, column in (("plain", ""), ("grouped", "patient")):
        raw = RawSet(name, ("red", "green", "blue", "rare"), splits, source="a test", grouped_by=column)
        build_set(raw, tmp_path / "data")
    first = tiny_options(tmp_path / "data", tmp_path / "first", "--epochs", "1")
    first[first.index("tiny")] = "plain"
    main(first)
    second = tiny_options(tmp_path / "data", tmp_path / "second", "--epochs", "1", "--val-fraction", "0.5")
    second[second.index("tiny")] = "plain"
    with pytest.raises(
        ValueError, match=r"--init-from starts from what .*first learnt, pictures of the validation"
    ):
        main([*second, "--init-from", str(tmp_path / "first")])
    second[second.index("plain")] = "grouped"
    with pytest.raises(ValueError, match="knows nothing of groups, and grouped was divided by patient"):
        main(second)
    assert not (tmp_path / "second").exists()


def test_the_usual_folder_of_a_run_names_its_fold():
    assert parse_fit_config(["--fold", "3"]).run_dir == Path("runs/digits-tiny_resnet-fold3")


def test_command_line_goes_over_file_over_preset_over_default(tmp_path):
    (tmp_path / "c.yaml").write_text("epochs: 3\ntau: 0.4\n")
    config = parse_fit_config(["--config", str(tmp_path / "c.yaml"), "--tau", "0.3"])
    assert (config.tau, config.epochs, config.backbone, config.momentum) == (0.3, 3, "tiny_resnet", 0.9)
    assert parse_fit_config(["--dataset", "coco"]).backbone == FitConfig().backbone == "mobilenet_v2"


def test_what_a_preset_gives_is_not_taken_for_an_option_that_does_nothing():
    assert parse_fit_config(["--dataset", "digits", "--optimizer", "sgd"]).warmup_epochs == 0.5
    assert parse_fit_config(["--optimizer", "adamw", "--warmup-epochs", "3"]).warmup_epochs == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tau", "1"], r"`--tau` must be in \[0, 1\). Received: 1.0"),
        (["--epochs", "0"], r"`--epochs` must be in \[1, 65536\]. Received: 0"),
        (["--top-n", "5"], r"`--top-n` must lie in \[0, 4\], the number of classes. Received: 5"),
        (["--batch-size", "17"], r"`--batch-size` must be at most 16, the training images. Received: 17"),
        (["--eval-split", "tset"], r"must be one of train, validation, test"),
        (["--val-fraction", "0.5"], r"--val-fraction does nothing"),
        (["--fold", "1"], r"`--fold` must be a fold of the set, and tiny was not built with --folds"),
        (["--fold", "0"], r"`--fold` must be a fold of the set, and tiny was not built with --folds"),
        (["--fold", "2", "--eval-split", "test"], r"--eval-split test does nothing with --fold 2, "),
        (
            ["--fold", "1", "--eval-split", "validation"],
            r"--eval-split validation does nothing with --fold 1, ",
        ),
        (
            ["--dataset", "tinny"],
            r"must be a set prepared in .* \(tiny\) or one of digits, .* Received: 'tinny'. Did you mean `tiny`\?",
        ),
        (["--resume", "--overwrite"], r"exclude each other"),
        (["--compare-baseline", "--top-n", "0"], r"--compare-baseline does nothing with --top-n 0"),
        (["--drop-epochs", "5", "3"], r"`--drop-epochs` must be positive and ascending"),
        (["--optimizer", "adamw", "--momentum", "0.8"], r"--momentum does nothing with --optimizer adamw"),
        (
            ["--optimizer", "adamw", "--drop-epochs", "1"],
            r"--drop-epochs does nothing with --optimizer adamw",
        ),
        (["--warmup-epochs", "3"], r"--warmup-epochs does nothing with --optimizer sgd"),
        (["--pooling", "gap", "--gwp-lambda", "0.2"], r"--gwp-lambda does nothing with --pooling gap"),
        (["--weights", "a.h5", "--init-from", "run"], r"--weights does nothing with --init-from"),
        (["--backbone", "resnet-50"], r"`backbone` must be one of .* Did you mean 'resnet50'"),
        (["--backbone-width", "0"], r"`--backbone-width` must be positive. Received: 0"),
        (["--backbone", "resnet50", "--backbone-width", "0.5"], r"`--backbone-width` must be 1 for resnet50"),
        (
            ["--backbone", "mobilenet_v2", "--backbone-width", "0.6", "--weights", "imagenet"],
            r"`--backbone-width` must be one of 0.35, .* or `weights` none or a file. Received: 0.6",
        ),
        (["--backbone", "mobilenet_v2", "--image-size", "16"], r"`--image-size` must be at least 32 px"),
        (["--local-size", "8"], r"`--local-size` must be at least 16 px for tiny_resnet. Received: 8"),
        (["--weights", "imagenet"], r"`weights` of tiny_resnet must be none or a file"),
        (["--weights", "nofile.h5"], r"`weights` must be imagenet, none or an existing file. .* nofile.h5"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_written(words, message, tiny_set, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main(tiny_options(tiny_set, tmp_path / "run", *words))
    assert not (tmp_path / "run").exists()


def test_a_wrong_option_is_named_before_a_set_is_built(tmp_path):
    with pytest.raises(ValueError, match="`backbone` must be one of"):
        main(["--data-dir", str(tmp_path / "data"), "--backbone", "resnet-50"])
    assert not (tmp_path / "data").exists()


def test_a_run_that_is_there_is_not_written_over(tiny_set, finished):
    before = (finished / "metrics.json").read_bytes()
    with pytest.raises(FileExistsError, match=r"holds a run already \(complete\). --resume .* --overwrite"):
        main(tiny_options(tiny_set, finished))
    with pytest.raises(ValueError, match=r"tau was 0.5, is 0.3"):
        main(tiny_options(tiny_set, finished, "--resume", "--tau", "0.3"))
    assert (finished / "metrics.json").read_bytes() == before


def test_a_run_of_another_version_is_refused_in_one_sentence(finished, tmp_path):
    (tmp_path / "config.yaml").write_text((finished / "config.yaml").read_text() + "warp_factor: 9\n")
    with pytest.raises(ValueError, match="another version of mcar_tf, which holds warp_factor"):
        read_config(tmp_path / "config.yaml")


def test_a_run_that_starts_from_another_takes_its_classes_by_name(untrained_run, capsys):
    from mcar_tf.runs.loading import load_run
    from mcar_tf.training.model import build_trainable

    source = load_run(untrained_run)
    config = dataclasses.replace(source.config, init_from=untrained_run)
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    expected = source.model(image)["global_probs"].numpy()
    assert np.ptp(expected) > 1e-3  # or every order would do
    turned = build_trainable(config, source.classes[::-1], 1)
    np.testing.assert_allclose(turned(image)["global_probs"], expected[:, ::-1], atol=1e-6)
    # Of other classes, the rows that both know come along: "cat" is new, and whatever it says is its own.
    others = build_trainable(config, ("cat", *source.classes[1:]), 1)
    for ours, theirs in zip(others.backbone.get_weights(), source.model.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    probs = others(image)["global_probs"].numpy()
    np.testing.assert_allclose(probs[:, 1:], expected[:, 1:], atol=1e-6)
    assert np.abs(probs[:, 0] - expected[:, 0]).max() > 1e-3
    one_more = build_trainable(config, ("cat", *source.classes[::-1]), 1)(image)["global_probs"].numpy()
    np.testing.assert_allclose(one_more[:, 1:], expected[:, ::-1], atol=1e-6)
    assert "its backbone and 4 of 5 classes; anew: cat" in capsys.readouterr().out


def test_a_run_with_all_options_beyond_the_paper_is_evaluated_and_exported(tiny_set, tmp_path):
    from mcar_tf import evaluate, export

    run = tmp_path / "run"
    words = (
        "--glance-size 32 --local-size 24 --pooling csra --csra-lambda 0.3 --csra-temperature 2 --localizer moments"
        " --box-spread 2 --min-box-cells 1 --fusion mean --batch-norm per_stream --box-jitter 0.2 --distill 0.3"
        " --own-region 0.5 --loss asymmetric --gamma-positive 1 --gamma-negative 2 --margin 0.1 --optimizer adamw"
        " --schedule one_cycle --decay-kernels-only --head-rate-factor 5"
    )
    main(tiny_options(tiny_set, run, *words.split(), "--image-size", "64", "--epochs", "1"))
    evaluate.main(["--run", str(run), "--fusion", "max", "--glance-size", "64", "--flip"])
    elsewhere = run / "evaluations" / "test,glance_size=64,fusion=max,flip"
    with np.load(elsewhere / "predictions.npz") as found:
        np.testing.assert_array_equal(found["probs"], np.maximum(found["global_probs"], found["local_probs"]))
    export.main(
        ["--run", str(run), "--formats", "tflite", "--pictures", "4", "--out-dir", str(tmp_path / "exported")]
    )
    parity = json.loads((tmp_path / "exported" / "parity.json").read_text())
    assert (parity["model"]["glance_size"], parity["model"]["fusion"]) == (32, "mean")
    (measured,) = parity["forms"].values()
    assert max(measured["global_difference"], measured["local_difference"]) <= 1e-4
    card = (tmp_path / "exported" / "card.md").read_text()
    assert "| batch_norm | per_stream |" in card
    assert "| distill | 0.3 |" in card


@pytest.mark.parametrize("module", COMMANDS)
def test_help_comes_without_tensorflow(module):
    assert loads(module, "--help") == []


@pytest.mark.parametrize(
    "words", [["--tua", "0.3"], ["--epochs", "many"], ["--config", "nowhere.yaml"], ["--dataset", "x"]]
)
def test_a_mistake_ends_in_one_line_and_exit_code_2(words, tmp_path):
    command = [sys.executable, "-m", "mcar_tf.fit", "--data-dir", str(tmp_path), *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_an_interrupted_run_tells_how_to_go_on(tmp_path, capsys):
    for name in MARKS:
        (tmp_path / name).touch()
    config = FitConfig(out_dir=tmp_path)
    words = ["--out-dir", "my run", "--overwrite"]
    with pytest.raises(KeyboardInterrupt), telling_how_to_go_on(config, words, True):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "\nTo go on: python -m mcar_tf.fit --out-dir 'my run' --resume\n"


@pytest.mark.parametrize(
    ("words", "costs"),
    [
        (["--dataset", "coco"], (1, 5, 5)),
        (["--dataset", "coco", "--top-n", "0"], (1, 1, 1)),
        (
            ["--dataset", "coco", "--image-size", "448", "--glance-size", "224", "--local-size", "128"],
            (0.25, 0.5765, 0.5765),
        ),
        (
            ["--dataset", "coco", "--image-size", "448", "--glance-size", "224", "--top-n", "2"],
            (0.25, 0.75, 0.75),
        ),
        (["--dataset", "coco", "--image-size", "256", "--local-size", "128"], (1, 2, 2)),
    ],
)
def test_what_an_answer_costs_is_its_pixels_over_those_of_a_plain_look(words, costs):
    config = parse_fit_config(words)
    assert [cost_of(config, stream) for stream in ("global", "local", "fused")] == pytest.approx(
        costs, abs=1e-4
    )


@pytest.mark.parametrize(
    ("plain", "first_look", "both", "said"),
    [
        (
            0.70,
            0.76,
            0.74,
            "Here MCAR: global stream is better than looking twice, for less: evaluate, predict",
        ),
        (0.77, 0.76, 0.74, "Here baseline is better than looking twice, for less.\n"),
        (None, 0.76, 0.74, "Here MCAR: global stream is better"),
        (0.70, 0.76, 0.76, None),
        (0.70, 0.76, 0.78, None),
        (0.70, 0.76, float("nan"), None),
    ],
)
def test_what_is_better_for_less_than_looking_twice_is_said(plain, first_look, both, said, capsys):
    config = FitConfig(top_n=2)
    values = {"global": first_look, "local": 0.8, "fused": both}
    rows = stream_rows("MCAR", config, {name: {"mAP": value} for name, value in values.items()})
    print_result(config, [Row("baseline", 1.0, {"mAP": plain}), *rows])
    printed = capsys.readouterr().out
    assert said in printed if said else "better" not in printed
