"""The report: one file that needs nothing else, says what the numbers say, and makes no markup of names."""

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mcar_tf import evaluate, report
from mcar_tf.evaluating.predictions_file import read_predictions, write_predictions
from mcar_tf.reporting.evaluated_run import read_evaluated_run
from mcar_tf.runs.folder import read_run_config
from mcar_tf.runs.thresholds import chosen_for, write_calibration
from pipelines.files import write_text


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.sources, self.links, self.texts = [], [], [], []
        self.feed(content)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href"):
                (self.sources if name == "src" else self.links).append(value)
            assert not name.startswith("on"), name

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def evaluated(untrained_run, tmp_path_factory):
    folder = shutil.copytree(untrained_run, tmp_path_factory.mktemp("reported") / "a run & more")
    evaluate.main(["--run", str(folder)])
    return folder


@pytest.fixture(scope="module")
def page(evaluated):
    report.main(["--run", str(evaluated), "--pictures", "3"])
    return Page((evaluated / "report.html").read_text())


def test_the_page_needs_nothing_but_itself(page):
    assert "script" not in page.tags
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all(link.startswith(("#", "data:,")) for link in page.links)


def test_names_are_text_and_not_markup(page):
    assert "<b>rare & odd</b>" in page.text
    assert "a run & more: tiny, test" in page.text
    # Bold are the numbers of the cards alone.
    assert page.tags.count("b") == 5


def test_the_numbers_are_those_of_evaluate(page, evaluated):
    found = json.loads((evaluated / "metrics.json").read_text())["test"]
    for number, name in (
        (found["fused"]["mAP"], "mAP, both streams"),
        (found["local"]["mAP"], "mAP, local stream"),
        (found["fused"]["OF1"], "OF1"),
    ):
        assert f"{100 * number:.1f} {name}" in page.text
    assert "1 of 4 classes have no positives here and are left out of all means: <b>rare" in page.text
    assert "nan" not in page.text


def test_all_sections_are_there(page):
    for title in (
        "Training",
        "Classes",
        "What it confuses",
        "Worst errors",
        "Where it looks",
        "How it was made",
    ):
        assert title in page.text
    assert "Beside other runs" not in page.text
    # 3 curves and tables of classes, confusions; then galleries of 3; then how a region is found.
    kinds = [source.split(";")[0].removeprefix("data:image/") for source in page.sources]
    assert kinds.count("png") == 1
    assert kinds.count("jpeg") >= 6
    assert "Light blue: the class is in the picture" in page.text


def test_runs_are_compared_side_by_side(evaluated, tmp_path, capsys):
    other = shutil.copytree(evaluated, tmp_path / "baseline")
    text = (other / "config.yaml").read_text().replace("top_n: 2", "top_n: 0")
    write_text(other / "config.yaml", text)
    third = shutil.copytree(evaluated, tmp_path / "third")
    report.main(
        ["--run", str(evaluated), "--compare", str(other), str(third), "--out", str(tmp_path / "r.html")]
    )
    page = Page((tmp_path / "r.html").read_text())
    assert "Beside other runs" in page.text
    assert "baseline: global" in page.text
    assert "baseline: local" not in page.text  # it has one stream
    assert "third: local" in page.text
    assert "top_n 2 0 2" in page.text  # the option in which they differ
    assert "r.html" in capsys.readouterr().out


def test_thresholds_are_those_of_the_run(evaluated, tmp_path):
    run = shutil.copytree(evaluated, tmp_path / "run")
    report.main(["--run", str(run), "--pictures", "1"])
    assert (
        "0.6 for every class (`calibrate` finds better ones)" in Page((run / "report.html").read_text()).text
    )
    result = {
        "thresholds": {"red": 1.0, "green": 1.0, "blue": 0.0, "<b>rare & odd</b>": 1.0},
        "split": "validation",
        "temperature": 1.25,
        "before": {"OF1": 0.5, "ECE": 0.1},
        "after": {"OF1": 0.625, "ECE": 0.05},
    }
    weights = run / "checkpoints" / "last.weights.h5"
    write_calibration(run, result, chosen_for(read_run_config(run), weights))
    report.main(["--run", str(run), "--pictures", "1"])
    text = Page((run / "report.html").read_text()).text
    assert "OF1 50.0 → 62.5 there); temperature 1.25" in text
    assert "threshold on: each class's own, from" in text
    assert "blue 5 16" in text  # pictures 2, 5, 8, 11 and 14 show it, and all 16 are said to
    # Of other weights these are no thresholds.
    write_calibration(run, result, {"weights": "others", "options": {}})
    report.main(["--run", str(run), "--pictures", "1"])
    assert "0.6 for every class, since" in Page((run / "report.html").read_text()).text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pictures", "0"], "`pictures` must be at least 1. Received: 0"),
        (["--seed", "-1"], "`seed` must be 0 or more. Received: -1"),
        (["--threshold", "1.5"], r"must lie in \[0, 1\]. Received: 1.5"),
    ],
)
def test_numbers_out_of_range_are_refused(untrained_run, words, message):
    with pytest.raises(ValueError, match=message):
        report.main(["--run", str(untrained_run), *words])


def test_a_run_that_was_not_evaluated_is_refused(untrained_run):
    with pytest.raises(
        FileNotFoundError, match=r"no predictions.npz yet. Run first: .*mcar_tf.evaluate --run"
    ):
        report.main(["--run", str(untrained_run)])


def test_a_run_that_went_on_after_it_was_evaluated_is_refused(evaluated, tmp_path):
    run = shutil.copytree(evaluated, tmp_path / "run")
    written = json.loads((run / "metrics.json").read_text())
    written["test"]["fused"]["mAP"] += 0.01
    write_text(run / "metrics.json", json.dumps(written))
    with pytest.raises(ValueError, match=r"went on after its evaluation. Run again: .*evaluate --run"):
        read_evaluated_run(run, "run")


def test_a_set_that_was_divided_anew_is_refused(evaluated, tmp_path):
    run = Path(shutil.copytree(evaluated, tmp_path / "run"))
    environment = json.loads((run / "environment.json").read_text())
    write_text(run / "environment.json", json.dumps(environment | {"data": "0" * 64}))
    with pytest.raises(ValueError, match="the set has been built or divided anew"):
        report.main(["--run", str(run), "--out", str(tmp_path / "report.html")])
    assert not (tmp_path / "report.html").exists()


def test_a_picture_is_in_the_page_once(page):
    pictures = [source for source in page.sources if "image/jpeg" in source]
    assert len(pictures) == len(set(pictures))
    ids = re.findall(r"test/\d\d", page.text)
    assert len(ids) == len(set(ids)) >= 7  # of the galleries, and of the region that is explained


def test_a_run_beside_itself_is_refused(evaluated):
    with pytest.raises(ValueError, match="compared with itself"):
        report.main(["--run", str(evaluated), "--compare", str(evaluated)])


def test_runs_on_other_pictures_are_refused(evaluated, tmp_path):
    other = shutil.copytree(evaluated, tmp_path / "other")
    predictions, *of = read_predictions(other / "predictions.npz")
    predictions.ids = predictions.ids[::-1]
    write_predictions(other / "predictions.npz", predictions, *of)
    with pytest.raises(ValueError, match=r"evaluated on other pictures than .*can't be compared"):
        report.main(["--run", str(evaluated), "--compare", str(other)])


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_opens_it_without_complaint_and_it_fits_the_screen(page, evaluated, tmp_path, width):
    # A page around it, for a script to measure how wide the report wants to be.
    frame = (
        f'<iframe src="{(evaluated / "report.html").as_uri()}" width="{width}" height="800" onload="'
        'document.title = this.contentDocument.documentElement.scrollWidth"></iframe>'
    )
    (tmp_path / "frame.html").write_text(frame)
    done = subprocess.run(
        [
            "chromium",
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-logging=stderr"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *(f"--user-data-dir={tmp_path / 'chromium'}", "--allow-file-access-from-files", "--dump-dom"),
            (tmp_path / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "CONSOLE" not in done.stderr  # where a browser says what it refused, missed or failed to run
    title = re.search(r"<title>(\d+)</title>", done.stdout)
    assert title
    assert int(title[1]) <= width
