"""The options of a run: what a config file holds of them, and how it is read back."""

import dataclasses
import re
from pathlib import Path

import pytest

from mcar_tf.config import (
    MAY_CHANGE,
    NOT_RECORDED,
    FitConfig,
    change_without_training,
    config_to_yaml,
    parse_fit_config,
    read_config,
)

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def test_options_say_themselves_what_is_recorded_and_what_may_change():
    assert NOT_RECORDED == ("out_dir", "resume", "overwrite", "compare_baseline")
    assert MAY_CHANGE == ("source", "data_dir", "recipe", "xla", "checkpoint_minutes", "keep_checkpoints")


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
    said = f"`--loss {old}` is now `--learning {old}`; `--loss` is one of bce, asymmetric.\n"
    for words in (["--loss", old], ["--config", str(tmp_path / "config.yaml")]):
        found = parse_fit_config(words)
        assert (found.learning, found.loss) == (old, "bce")
        assert capsys.readouterr().err == said


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match=r"`--loss` must be one of bce, asymmetric\. Received: mse"):
        dataclasses.replace(FitConfig(weights="none"), loss="mse").check()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        *(
            (
                [*option, "--top-n", "0"],
                f"`{option[0]}` does nothing with `--top-n 0`, which looks once. Leave it out",
            )
            for option in (
                ["--local-size", "32"],
                ["--box-jitter", "0.1"],
                ["--fusion", "mean"],
                ["--distill", "0.5"],
                ["--own-region", "0.5"],
                ["--localizer", "moments"],
                ["--min-box-cells", "1"],
            )
        ),
        (["--glance-size", "32", "--top-n", "0"], "looks once: `--image-size 32` is the plain model at that size."),
        (["--batch-norm", "per_stream", "--top-n", "0"], "--batch-norm per_stream does nothing with --top-n 0"),
        (["--backbone", "convnext_tiny", "--batch-norm", "frozen"], "--batch-norm` does nothing for convnext_tiny"),
        (["--backbone", "convnext_tiny", "--sync-batch-norm"], "--sync-batch-norm` does nothing for convnext_tiny"),
        (["--batch-norm", "frozen", "--sync-batch-norm"], "--sync-batch-norm does nothing with --batch-norm fro"),
        (["--gamma-negative", "2"], "--gamma-negative does nothing with --loss bce"),
        (["--margin", "0.1"], "--margin does nothing with --loss bce"),
        (["--csra-lambda", "0.3"], "--csra-lambda does nothing with --pooling gwp"),
        (["--pooling", "csra", "--gwp-lambda", "0.3"], "--gwp-lambda does nothing with --pooling csra"),
        (["--box-spread", "2"], "--box-spread does nothing with --localizer threshold"),
        (["--localizer", "moments", "--tau", "0.3"], "--tau does nothing with --localizer moments"),
        (["--distill", "0.5", "--learning", "single"], "--distill does nothing with --learning single"),
        (["--own-region", "1", "--learning", "single"], "--own-region does nothing with --learning single"),
        (["--schedule", "cosine", "--drop-factor", "0.5"], "--drop-factor does nothing with --schedule cosine"),
        (
            ["--schedule", "one_cycle", "--warmup-epochs", "2"],
            "--warmup-epochs does nothing with --schedule one_cycle",
        ),
        (["--optimizer", "sgd", "--head-rate-factor", "3"], "--head-rate-factor does nothing with --optimizer sgd"),
        (["--glance-size", "30"], "`--glance-size` must divide `--image-size`, 64; the nearest that does is 32"),
        (["--glance-size", "8"], "`--glance-size` must be at least 16 px for tiny_resnet"),
        (["--glance-size", "256"], "`--glance-size` must divide `--image-size`, 64; the nearest that does is 32"),
        (
            ["--glance-size", "64", "--image-size", "127"],
            "`--glance-size` must divide `--image-size`, 127; the nearest `--image-size` for it is 128. Received: 64",
        ),
        (["--glance-size", "64", "--image-size", "16"], "the nearest `--image-size` for it is 128. Received: 64"),
        (["--glance-size", "32", "--local-size", "80"], "`--local-size` must be at most `--image-size`, 64"),
        (["--local-size", "80"], "`--local-size` must be at most `--image-size`, 64"),
        (["--box-jitter", "0.6"], "`--box-jitter` must be in .0, 0.5.. Received: 0.6"),
        (["--distill", "2"], "`--distill` must be in .0, 1.. Received: 2"),
        (["--csra-temperature", "0", "--pooling", "csra"], "`--csra-temperature` must be positive"),
        (["--loss", "asymmetric", "--margin", "1"], "`--margin` must be in"),
    ],
)  # fmt: skip
def test_options_beyond_the_paper_are_refused_where_they_do_nothing(words, message):
    optimizer = [] if "--optimizer" in words or "--schedule" in words else ["--optimizer", "adamw"]
    with pytest.raises(ValueError, match=message):
        parse_fit_config([*words, *optimizer])


def test_options_beyond_the_paper_go_together():
    words = (
        "--optimizer sgd --schedule cosine --warmup-epochs 2 --decay-kernels-only --loss asymmetric"
        " --gamma-negative 2 --distill 0.5 --own-region 0.5 --box-jitter 0.5 --glance-size 32 --fusion mean"
        " --pooling csra --csra-lambda 0.3 --csra-temperature 99 --localizer moments --box-spread 2"
        " --batch-norm per_stream"
    )
    found = parse_fit_config(words.split())
    assert (found.rate_schedule, found.glance_size, found.fusion) == ("cosine", 32, "mean")
    words = "--optimizer adamw --schedule step --drop-epochs 2 4 --head-rate-factor 5"
    stepped = parse_fit_config(words.split())
    assert (stepped.rate_schedule, stepped.drop_epochs) == ("step", [2, 4])


def test_each_optimizer_has_a_schedule_of_its_own():
    assert FitConfig().rate_schedule == "step"
    assert FitConfig(optimizer="adamw").rate_schedule == "cosine"


def test_the_plain_backbone_of_a_run_leaves_out_what_needs_regions():
    plain = FitConfig(
        fusion="mean",
        box_jitter=0.2,
        glance_size=128,
        local_size=96,
        batch_norm="per_stream",
        loss="asymmetric",
    )
    plain = dataclasses.replace(plain.plain_backbone(), weights="none")
    plain.check()
    assert plain == FitConfig(top_n=0, loss="asymmetric", weights="none")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"fusion": "mean", "top_n": 0},
            "`--fusion` does nothing with `--top-n 0`, which looks once. Leave it out.",
        ),
        ({"look_band": [0.1, 0.9], "top_n": 0}, "`--look-band` does nothing with `--top-n 0`"),
        ({"glance_size": 64, "top_n": 0}, "`--image-size 64` is the plain model at that size."),
        ({"local_size": 64, "top_n": 0}, "`--local-size` does nothing with `--top-n 0`, which looks once."),
        ({"look_band": [0.9, 0.1]}, "such as 0.1 0.9. Received: 0.9 0.1"),
        ({"tau": 1.5}, "`--tau` must be in [0, 1). Received: 1.5"),
        ({"glance_size": 0, "top_n": 0}, "`--glance-size` must be in [1, 65536]. Received: 0"),
        ({"local_size": 300}, "`--local-size` must be at most `--image-size`, 256: a region has no more"),
    ],
)
def test_what_would_do_nothing_is_not_changed_without_training(changes, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        change_without_training(FitConfig(), changes)


GLANCING = FitConfig(image_size=128, glance_size=64)


@pytest.mark.parametrize("changes", [{"glance_size": 32}, {"glance_size": 64, "image_size": 192}])
def test_a_look_that_a_run_has_not_learnt_is_no_answer_of_it(changes):
    width = changes.get("image_size", 128)
    said = (
        f"`--glance-size {changes['glance_size']}` of `--image-size {width}` is no look that the run has learnt,"
        f" whose glance is 64 of 128 px. Give `--image-size {2 * changes['glance_size']}`."
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        change_without_training(GLANCING, {"top_n": 0, **changes})


def test_one_look_of_a_run_that_glances_may_be_of_another_size():
    for size in (64, 128, 192):
        changed = change_without_training(
            GLANCING, {"top_n": 0, "image_size": size, "glance_size": size // 2}
        )
        assert (changed.top_n, changed.image_size, changed.glance_size) == (0, size, size // 2)
    assert change_without_training(GLANCING, {"glance_size": 32}).glance_size == 32  # with regions, any


@pytest.mark.parametrize(
    ("size", "works"), [(100, "64 or 128"), (300, "256 or 320"), (48, "64"), (127, "64 or 128")]
)
def test_a_size_that_does_not_go_with_the_runs_glance_is_blamed_itself(size, works):
    said = (
        f"`--image-size` must be a multiple of 64, the run's glance-size, such as {works}. Received: {size}"
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        change_without_training(GLANCING, {"image_size": size})


def test_a_size_below_the_runs_crops_is_blamed_itself():
    run = FitConfig(image_size=448, glance_size=224, local_size=256)
    said = (
        "`--image-size` must be at least 256, the run's local-size, unless `--local-size` is smaller, too."
        " Received: 224"
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        change_without_training(run, {"image_size": 224})
    assert change_without_training(run, {"image_size": 224, "local_size": 128}).local_size == 128
    assert change_without_training(run, {"image_size": 224, "top_n": 0}).local_size is None  # it has no crops


def test_an_error_about_a_change_names_the_option_as_the_caller_does():
    with pytest.raises(ValueError, match=re.escape("`image_sizes` must be in [1, 65536]. Received: 0")):
        change_without_training(FitConfig(), {"image_size": 0}, "{}s".format)


def test_a_runs_own_band_is_gone_where_it_looks_once():
    changed = change_without_training(FitConfig(look_band=[0.1, 0.9], tau=0.3), {"top_n": 0, "fusion": None})
    assert (changed.top_n, changed.look_band, changed.tau, changed.fusion) == (0, None, 0.3, "max")


def test_a_band_is_two_numbers_on_the_command_line():
    assert parse_fit_config(["--look-band", "0.05", "0.95"]).look_band == [0.05, 0.95]


def test_sets_of_ones_own_are_learnt_by_the_modern_recipe_and_the_papers_by_the_papers():
    mine, coco, digits = (parse_fit_config(["--dataset", name]) for name in ("mine", "coco", "digits"))
    assert (mine.recipe, mine.fusion, mine.localizer, mine.schedule) == (
        "modern",
        "mean",
        "moments",
        "one_cycle",
    )
    assert dataclasses.replace(coco, dataset="digits", recipe=None) == FitConfig()
    assert (digits.recipe, digits.backbone, digits.fusion) == ("paper", "tiny_resnet", "max")


def test_what_is_given_goes_before_the_recipe(tmp_path):
    given = parse_fit_config(["--dataset", "mine", "--fusion", "max", "--epochs", "3"])
    assert (given.fusion, given.epochs, given.localizer) == ("max", 3, "moments")
    assert parse_fit_config(["--dataset", "mine", "--recipe", "paper"]).fusion == "max"
    assert parse_fit_config(["--dataset", "coco", "--recipe", "modern"]).fusion == "mean"
    file = tmp_path / "options.yaml"
    file.write_text("dataset: mine\nrecipe: paper\n")
    assert parse_fit_config(["--config", str(file)]).recipe == "paper"


def test_a_plain_backbone_by_the_modern_recipe_looks_at_nothing():
    plain = parse_fit_config(["--dataset", "mine", "--top-n", "0"])
    assert (plain.fusion, plain.localizer) == ("max", "threshold")
    assert plain.schedule == "one_cycle"


def test_an_unknown_recipe_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"`--recipe` must be one of paper, modern.*Did you mean `modern`\?"):
        parse_fit_config(["--recipe", "modrn"])


def test_the_modern_rates_are_those_of_one_cycle_of_sgd():
    modern = parse_fit_config(["--dataset", "mine"])
    assert (modern.epochs, modern.learning_rate, modern.schedule) == (20, 0.003, "one_cycle")
    lite = parse_fit_config(["--dataset", "mine", "--backbone", "efficientnet_lite0"])
    assert (lite.learning_rate, lite.head_learning_rate) == (0.005, 0.05)
    for words in (["--optimizer", "adamw"], ["--schedule", "step"]):
        other = parse_fit_config(["--dataset", "mine", *words])
        assert (other.epochs, other.learning_rate, other.decay_kernels_only) == (60, 0.001, True)
        assert other.drop_epochs == [30, 50]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tau", "0.3"], "--tau does nothing with --localizer moments, which is --recipe modern's."),
        (
            ["--drop-epochs", "3"],
            "--drop-epochs does nothing with --schedule one_cycle, which is --recipe modern's.",
        ),
        (
            ["--localizer", "moments", "--recipe", "paper", "--tau", "0.3"],
            "with --localizer moments. Leave it out.",
        ),
    ],
)
def test_an_option_that_the_recipe_makes_idle_is_refused_by_the_recipe_s_name(words, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_fit_config(["--dataset", "mine", *words])


def test_a_run_goes_on_by_the_recipe_that_it_was_started_with(tmp_path):
    words = ["--dataset", "mine", "--resume", "--out-dir", str(tmp_path)]
    assert parse_fit_config(words).recipe == "modern"
    (tmp_path / "config.yaml").write_text("dataset: mine\n")  # of before there were recipes
    assert (parse_fit_config(words).recipe, parse_fit_config(words).fusion) == ("paper", "max")
    (tmp_path / "config.yaml").write_text("dataset: mine\nrecipe: modern\n")
    assert parse_fit_config(words).recipe == "modern"
    assert parse_fit_config([*words, "--recipe", "paper"]).recipe == "paper"


def test_the_file_of_a_modern_run_gives_its_plain_backbone_too(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(config_to_yaml(parse_fit_config(["--dataset", "mine"])))
    plain = parse_fit_config(["--config", str(file), "--top-n", "0"])
    assert (plain.top_n, plain.box_jitter, plain.one_look_share) == (0, 0.0, 0.0)


def test_the_modern_recipe_looks_once_for_two_thirds_of_its_epochs_if_it_has_two():
    shares = [parse_fit_config(["--dataset", "mine", "--epochs", n]).one_look_share for n in ("1", "2", "20")]
    assert shares == [0.0, 0.67, 0.67]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--dataset", "coco"], "recipe: paper, by which others report results on coco"),
        (["--dataset", "coco", "--recipe", "modern"], "recipe: modern, as asked for"),
        (
            ["--recipe", "paper", "--dataset", "mine", "--fusion", "mean"],
            "recipe: paper, as asked for; but for fusion",
        ),
    ],
)
def test_the_line_about_the_recipe_says_in_what_a_run_differs(words, line):
    from mcar_tf.training.recipes import recipe_line

    assert recipe_line(vars(parse_fit_config(words)), vars(FitConfig())) == line


@pytest.mark.parametrize(("share", "epochs", "looks_once"), [("0.9", "4", 4), ("0.05", "8", 0)])
def test_a_share_of_the_epochs_leaves_some_to_both_looks(share, epochs, looks_once):
    with pytest.raises(ValueError, match=rf"one-look-share.* {share} of {epochs} epochs are {looks_once}:"):
        FitConfig(one_look_share=float(share), epochs=int(epochs)).check_values()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_says_its_command_and_its_result(path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert head[1].startswith(f"# python -m mcar_tf.fit --config configs/{path.name} --source ")
    assert any(line.startswith("# Result here: ") for line in head)
    config = parse_fit_config(["--config", str(path)])
    assert path.stem.startswith(f"{config.dataset}-{config.backbone}-{config.image_size}")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_with_a_glance_says_what_an_answer_costs(path):
    config = parse_fit_config(["--config", str(path)])
    said = re.search(r"\((\d+)² \+ (\d) x (\d+)²\) / (\d+)² = (0\.\d\d) plain looks", path.read_text())
    if config.glance_size is None:
        assert said is None
        return
    numbers = [int(part) for part in said.groups()[:4]]
    assert numbers == [config.glance_size, config.top_n, config.local_size, config.image_size]
    glance, regions, local, image = numbers
    assert float(said[5]) == round((glance**2 + regions * local**2) / image**2, 2)


def test_each_set_and_network_of_the_paper_has_a_config_with_a_glance():
    configs = [read_config(path) for path in CONFIGS]
    found = {(config.dataset, config.backbone) for config in configs if config.glance_size}
    assert found == {(data, net) for data in ("coco", "voc2007") for net in ("mobilenet_v2", "resnet101")}


@pytest.mark.parametrize("field", dataclasses.fields(FitConfig), ids=lambda field: field.name)
def test_an_empty_option_in_a_file_is_refused_by_name_unless_none_is_a_value(field, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(f"{field.name}:\n" + ("seed: 1\n" if field.name != "seed" else ""))
    readers = [lambda: parse_fit_config(["--config", str(file)])]
    if field.name not in NOT_RECORDED:
        readers.append(lambda: read_config(file))
    for read in readers:
        if field.default is None:
            read()
            continue
        with pytest.raises(ValueError, match="is empty: it must be") as refused:
            read()
        assert str(refused.value).startswith(f"{file}: `{field.name}` is empty: it must be ")


def test_no_element_of_a_list_in_a_file_may_be_empty(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("drop_epochs: [3, null]\n")
    with pytest.raises(ValueError, match=rf"{file}: `drop_epochs: .*it must be a list of values, each a "):
        read_config(file)
