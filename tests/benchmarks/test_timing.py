import logging
from pathlib import Path

import pytest
import torch

from benchmarks import dynamic_conv, experiment, model_cost, pages
from benchmarks.timing import interleave, machine, medians, ratios
from models.weights import read_checkpoint
from utils.errors import InputError

START, END = pages.markers(model_cost.TABLE)


@pytest.mark.parametrize(("times", "expected"), [([2.0], (2, 2, 2)), ([2.0, 4.0, 9.0], (2, 2, 2.5))])
def test_ratios_are_taken_within_a_round(times, expected):
    found = ratios({"a": [1.0, 2.0, 3.0][: len(times)], "b": times}, "a")
    assert found["b"] == pytest.approx(expected)
    assert found["a"] == (1, 1, 1)


def test_variants_take_turns(monkeypatch):
    monkeypatch.setattr("benchmarks.timing.SHORTEST", 0)  # each call once
    called = []
    times = interleave({name: lambda name=name: called.append(name) for name in "ab"}, rounds=3)
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}
    assert "".join(called) == "ab" + "ab" + "ab" + "ba" + "ab"  # warm-up, one to learn the length, rounds
    assert set(medians(times)) == {"a", "b"}


def test_no_more_rounds_than_the_time_allows(monkeypatch):
    monkeypatch.setattr("benchmarks.timing.SHORTEST", 0)
    assert len(interleave({"a": lambda: None}, rounds=50, at_most=0, at_least=4)["a"]) == 4


def test_the_machine_is_told():
    assert "threads, torch" in machine()


def test_formulations_are_timed(monkeypatch):
    lines = []
    monkeypatch.setattr(logging.getLogger("yolov5"), "info", lines.append)
    monkeypatch.setattr("benchmarks.timing.SHORTEST", 0)
    options = ["--models", "n", "--batches", "1", "2", "--imgsz", "64", "--rounds", "1", "--seconds", "0"]
    dynamic_conv.main(dynamic_conv.parse_opt(options))
    rows = [line for line in lines if line.startswith("| n ")]
    assert len(rows) in (4 * 2 * 2, 4 * 2 * 2 * 2)  # places, batches, passes, and bfloat16 where the CPU has it
    assert {row.count("|") for row in rows} == {lines[1].split("\n")[0].count("|")}
    assert f"of {len(rows)} rows" in lines[-1]


@pytest.mark.slow
def test_cost_of_models_is_written_between_the_markers(monkeypatch, tmp_path):
    pages_written = {tmp_path / "page.md": {}, tmp_path / "page.zh-CN.md": pages.CHINESE}
    for page in pages_written:
        page.write_text(f"# before\n{START}\nold\n{END}\nafter\n")
    monkeypatch.setattr(pages, "PAGES", pages_written)
    model_cost.main(model_cost.parse_opt(["--models", "n", "--imgsz", "64", "--rounds", "1", "--write"]))
    english, chinese = (page.read_text(encoding="utf-8").split("\n") for page in pages_written)
    assert english[:3] == ["# before", START, model_cost.HEAD.split("\n")[0]]
    assert [line.split(" | ")[0] for line in english[4:7]] == ["| yolov5n", "| yolov5n_dynamic", "| yolov5n_dyconv"]
    assert english[-4:] == [english[-4], END, "after", ""]
    assert "old" not in english
    assert chinese[:2] + chinese[3:] == english[:2] + english[3:]
    assert chinese[2].startswith("| 模型 | 参数量 (M) | GFLOPs |")


@pytest.mark.parametrize("head", [model_cost.HEAD.split("\n")[0], experiment.HEAD])
def test_every_column_has_a_name_in_chinese(head):
    cells = head.strip("| ").split(" | ")
    assert pages.translated(head, dict(zip(cells, map(str.upper, cells), strict=True))) == head.upper()
    assert set(cells) <= pages.CHINESE.keys() | {"GFLOPs", "mAP50", "mAP50-95"}


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize("name", [model_cost.TABLE, experiment.TABLE])
def test_the_markers_are_in_both_pages(page, name):
    assert "-->\nnew\n<!--" in pages.replace_between(page.read_text(encoding="utf-8"), "new", page=page, name=name)


@pytest.mark.parametrize("text", ["", START, f"{END}{START}"])
def test_a_page_without_markers_is_left_alone(text):
    with pytest.raises(InputError, match="cost table"):
        pages.replace_between(text, "table", page=Path("page.md"), name=model_cost.TABLE)


def test_the_experiment_is_planned_seed_by_seed():
    runs = experiment.plan(experiment.parse_opt(["--seeds", "2"]), ["digits", "bccd"])
    assert len(runs) == len(set(runs)) == 2 * 2 * (len(experiment.VARIANTS) - 2)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert {run.variant for run in runs} == set(experiment.VARIANTS)


def test_kernels_that_start_alike_come_from_the_static_model_of_the_same_seed(tmp_path):
    task = experiment.Task("data/digits.yaml", "", "", 128, 1)
    files = [experiment.untrained(task, seed, tmp_path / f"{number}.pt") for number, seed in enumerate((3, 3, 4))]
    one, same, other = (read_checkpoint(file).state["model.0.conv.weight"] for file in files)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_experiments_table_pairs_the_seeds():
    rows = [("static", 0, 0.5), ("static", 1, 0.6), ("bare", 1, 0.7), ("bare", 0, 0.55)]
    told = [{"data": "d", "variant": v, "seed": str(s), "mAP50": "0.9", "mAP50-95": str(m)} for v, s, m in rows]
    assert experiment.table([]) == ""
    assert "| bare | 2 | 0.900 ± 0.000 | 0.625 ± 0.106 | +0.075 ± 0.035 (+0.100, +0.050) |" in experiment.table(told)
