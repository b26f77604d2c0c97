"""Does dynamic convolution help? Trains every variant on every data set with several seeds, and tabulates the results.

    python -m benchmarks.experiment --bccd path/to/bccd.yaml --weights yolov5n.pt
    python -m benchmarks.experiment --table            only tabulates what docs/experiment.csv holds

It can be stopped at any moment: a run that is in docs/experiment.csv is not made again. Runs are ordered so that each
seed is complete before the next one starts. Every run has one thread; --jobs of them run side by side.
"""

import argparse
import csv
import itertools
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import yaml

from benchmarks.pages import write_table
from models.weights import save_checkpoint
from models.yolo import DetectionModel
from utils.data_config import load_data_config
from utils.files import ROOT
from utils.metrics import fitness
from utils.torch_utils import seed_everything

TABLE = "experiment"  # its markers' name in the pages
RESULTS = ROOT / "docs" / "experiment.csv"
HEAD = "| variant | seeds | mAP50 | mAP50-95 | against static, seed by seed |"
COLUMNS = ("data", "variant", "seed", "epochs", "mAP50", "mAP50-95", "classes", "minutes", "commit")


class Variant(NamedTuple):
    """A model and what it changes in the data set's hyperparameters."""

    cfg: str
    hyp: tuple[tuple[str, float], ...] = ()


CONSTANT = (("temperature_epochs", -1),)  # the temperature stays, as in trainings that follow the tutorials
FROM_NOTHING = (("kernel_noise", -1),)  # the static kernels are not spread over the K kernels
VARIANTS = {
    "static": Variant("yolov5n.yaml"),
    "bare, T = 34": Variant("yolov5n_dynamic.yaml", CONSTANT + FROM_NOTHING),
    "bare, annealed": Variant("yolov5n_dynamic.yaml", FROM_NOTHING),
    "DyConv, annealed": Variant("yolov5n_dyconv.yaml", FROM_NOTHING),
    "DyConv, annealed, spread": Variant("yolov5n_dyconv.yaml"),
    "C3DyLast, annealed": Variant("yolov5n_c3dylast.yaml", FROM_NOTHING),
    "C3DyLast, annealed, spread": Variant("yolov5n_c3dylast.yaml"),
    "C3Dy, annealed": Variant("yolov5n_c3dy.yaml", FROM_NOTHING),
    "C3Dy, annealed, spread": Variant("yolov5n_c3dy.yaml"),
}
# "spread" is from the data set's static weights; from scratch from a static model of the same seed that is not trained,
# so that a layer's kernels start alike.
SKIPPED = {
    "digits": ("C3DyLast, annealed, spread", "C3Dy, annealed, spread"),
    "bccd": ("C3DyLast, annealed", "C3Dy, annealed"),
}
LOCK = threading.Lock()  # of docs/experiment.csv and of the random generator


class Task(NamedTuple):
    """A data set and how it is trained on."""

    data: str
    hyp: str
    weights: str
    imgsz: int
    epochs: int


class Run(NamedTuple):
    """One training of the experiment."""

    data: str
    variant: str
    seed: int


def tasks(options: argparse.Namespace) -> dict[str, Task]:
    """The data sets by name. BCCD's validation pictures are its val and test pictures together: 159 instead of 87."""
    found = {"digits": Task("data/digits.yaml", "data/hyps/hyp.digits.yaml", "", 128, 40)}
    if options.bccd:
        described = yaml.safe_load(Path(options.bccd).read_text(encoding="utf-8"))
        described.update(path=str(Path(options.bccd).resolve().parent), val=[described["val"], described["test"]])
        file = options.runs / "bccd.yaml"
        file.write_text(yaml.safe_dump(described), encoding="utf-8")
        found["bccd"] = Task(str(file), "data/hyps/hyp.scratch-low.yaml", options.weights, 320, 60)
    return found


def plan(options: argparse.Namespace, names: list[str]) -> list[Run]:
    """All runs, seed by seed."""
    every = itertools.product(range(options.seeds), names, VARIANTS)
    return [Run(data, variant, seed) for seed, data, variant in every if variant not in SKIPPED[data]]


def untrained(task: Task, seed: int, file: Path) -> str:
    """A file with the static model that a training from scratch with this seed begins with."""
    seed_everything(seed, True)
    names = load_data_config(task.data).names
    save_checkpoint(file, model=DetectionModel(ROOT / "models" / VARIANTS["static"].cfg, nc=len(names), names=names))
    return str(file)


def read_results() -> list[dict[str, str]]:
    """The rows of docs/experiment.csv, none where it is missing."""
    if not RESULTS.exists():
        return []
    with open(RESULTS, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def train(run: Run, task: Task, runs: Path) -> None:
    """One training in a process of its own; its result becomes a row of docs/experiment.csv."""
    variant, commit, started = VARIANTS[run.variant], current_commit(), time.time()
    name = f"{run.data} {run.variant} {run.seed}".replace(",", "").replace(" ", "_")
    hyp = runs / f"{name}.yaml"
    given = yaml.safe_load((ROOT / task.hyp).read_text(encoding="utf-8"))
    hyp.write_text(yaml.safe_dump(given | dict(variant.hyp)), encoding="utf-8")
    command = [sys.executable, "train.py", "--data", task.data, "--hyp", str(hyp), "--cfg", f"models/{variant.cfg}"]
    command += ["--imgsz", str(task.imgsz), "--epochs", str(task.epochs), "--seed", str(run.seed), "--cache", "ram"]
    command += ["--project", str(runs), "--name", name, "--exist-ok", "--noplots", "--workers", "1"]
    weights = task.weights
    if not weights and run.variant.endswith(", spread"):
        with LOCK:  # torch's generator is one for all threads
            weights = untrained(task, run.seed, runs / f"{name}_start.pt")
    if weights:
        command += ["--weights", weights]
    with open(runs / f"{name}.log", "w", encoding="utf-8") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=True, env=environment)
    record(run, task, runs / name, facts=(f"{(time.time() - started) / 60:.1f}", commit))


def current_commit() -> str:
    """The commit that is checked out, with a mark where files other than the results differ from it."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    results = f":(exclude){RESULTS.relative_to(ROOT).as_posix()}"
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", ".", results], cwd=ROOT).returncode
    return commit.stdout.strip() + "-changed" * bool(changed)


def record(run: Run, task: Task, run_dir: Path, *, facts: tuple[str, str]) -> None:
    """Adds the row of the epoch with the best fitness, and each class's AP as the log's last lines tell it."""
    with open(run_dir / "results.csv", encoding="utf-8", newline="") as file:
        epochs = list(csv.DictReader(file))
    best = max(reversed(epochs), key=row_fitness)  # the later of equals, as best.pt
    scores = (best["metrics/mAP_0.5"], best["metrics/mAP_0.5:0.95"], class_scores(run_dir.with_suffix(".log")))
    row = (*run, task.epochs, *scores, *facts)
    with LOCK, open(RESULTS, "a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if file.tell() == 0:
            writer.writerow(COLUMNS)
        writer.writerow(row)
    print(*row, sep="  ", flush=True)


def row_fitness(row: dict[str, str]) -> float:
    """The fitness that best.pt is chosen by."""
    names = ("precision", "recall", "mAP_0.5", "mAP_0.5:0.95")
    return fitness(*(float(row[f"metrics/{name}"]) for name in names))


def class_scores(log: Path) -> str:
    """ "Platelets .31 RBC .55 WBC .70": mAP50-95 by class from the final validation in a log."""
    lines = log.read_text(encoding="utf-8").splitlines()
    last = max(number for number, line in enumerate(lines) if line.split()[:1] == ["all"])
    rows = [line.split() for line in lines[last + 1 :] if len(line.split()) == 7]
    return " ".join(f"{row[0]} {float(row[-1]):.3f}" for row in rows)


def table(rows: list[dict[str, str]]) -> str:
    """A Markdown table per data set: mean and spread over the seeds, and the difference from static, seed by seed."""
    parts = []
    for data in dict.fromkeys(row["data"] for row in rows):
        parts += [f"**{data}**\n", HEAD, "|---" * 5 + "|"]
        scores: dict[str, dict[str, dict[str, str]]] = {}
        for row in rows:
            if row["data"] == data:
                scores.setdefault(row["variant"], {})[row["seed"]] = row
        parts += [table_row(variant, by_seed, scores.get("static", {})) for variant, by_seed in scores.items()]
        parts.append("")
    return "\n".join(parts)


def table_row(variant: str, by_seed: dict[str, dict[str, str]], static: dict[str, dict[str, str]]) -> str:
    """One variant's line."""
    map50, map5095 = ([float(row[key]) for row in by_seed.values()] for key in ("mAP50", "mAP50-95"))
    shared = [seed for seed in by_seed if seed in static] if variant != "static" else []
    gaps = [float(by_seed[seed]["mAP50-95"]) - float(static[seed]["mAP50-95"]) for seed in shared]
    compared = f"{mean_and_deviation(gaps, sign=True)} ({', '.join(f'{gap:+.3f}' for gap in gaps)})" if gaps else ""
    return f"| {variant} | {len(by_seed)} | {mean_and_deviation(map50)} | {mean_and_deviation(map5095)} | {compared} |"


def mean_and_deviation(values: list[float], *, sign: bool = False) -> str:
    """ "0.532 ± 0.008": mean and standard deviation over the seeds."""
    shown = f"{mean(values):+.3f}" if sign else f"{mean(values):.3f}"
    return shown + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def parse_opt(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bccd", help="data YAML of BCCD; without it digits alone")
    parser.add_argument("--weights", default="yolov5n.pt", help="official weights that BCCD's trainings start from")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default 3)")
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side (default 2)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no training after so many minutes")
    parser.add_argument("--runs", type=Path, default=Path("runs/experiment"), help="where the run directories go")
    parser.add_argument("--table", action="store_true", help="make no training, only the table")
    parser.add_argument(
        "--write", action="store_true", help="also write the table into docs/dynamic.md, in both languages"
    )
    return parser.parse_args(argv)


def main(options: argparse.Namespace) -> None:
    """Trains what is missing and prints the table."""
    if not options.table:
        options.runs = options.runs.resolve()
        options.runs.mkdir(parents=True, exist_ok=True)
        known, deadline = tasks(options), time.time() + 60 * options.minutes
        done = {(row["data"], row["variant"], int(row["seed"]), int(row["epochs"])) for row in read_results()}

        def start(run: Run) -> None:
            if time.time() < deadline:
                train(run, known[run.data], options.runs)

        wanted = [run for run in plan(options, list(known)) if (*run, known[run.data].epochs) not in done]
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(start, wanted))
    text = table(read_results())
    print(text)
    if options.write:
        write_table(text, name=TABLE)


if __name__ == "__main__":
    main(parse_opt())
