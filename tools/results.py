#!/usr/bin/env python3
"""Runs what a table of docs/results.md is made of: arms × seeds (or folds), trained, measured and compared.

    tools/results.py TABLE --data DIR --out DIR [--jobs N] [--gpus G] [--deadline SECONDS] [--set key=value]...

DIR holds the data set that the table names; worlds of our own are made under --out. A run that is done is not done again, so a
cut-off table goes on where it stopped. Prints a Markdown table (mean, lowest to highest over the seeds or folds) and, for tables
with a baseline, `fathom compare` of every arm with it. Needs python3 alone.
"""
import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Table:
    recipe: str
    figures: list  # of what `fathom eval --json` prints: paths, "t2i.r1"
    arms: dict = field(default_factory=lambda: {"": []})  # name: settings; {start} is the model of `start`
    file: str = ""  # below --data or the world
    folds: list = None  # of (settings, eval options); None: seeds
    world: list = None  # arguments of `fathom data make scenes`
    start: tuple = None  # (recipe, file, settings): trained once a seed, before the arms; {start} and {world} need one
    evals: list = field(default_factory=list)  # more options of `fathom eval`, one measurement each; figures "1:accuracy"
    baseline: str = None


def fifths():
    for k in range(5):
        others = ",".join(str(i) for i in range(5) if i != k)
        yield [f'data.train.split="{others} of 5"', f'data.val.split="{k} of 5"'], ["--split", f"{k} of 5"]


def esc10_folds():
    for k in range(1, 5):
        others = ",".join(str(i) for i in range(1, 5) if i != k)
        yield ['data.train.columns=["fold=split","split=part"]', f'data.train.split="{others}"', f'data.val.split="{k}"'], \
              ["--columns", "fold=split,split=part", "--split", str(k)]


FUSIONS = {name: [f"model.fusion={name}"] for name in ("progressive", "concat_pooled", "concat_tokens", "question_only")}
BOTH_WAYS = [f"{way}.r{k}" for way in ("t2i", "i2t") for k in (1, 5, 10)]
DIRECTIONS = ("t2i", "i2t", "i2a", "a2i", "t2a", "a2t")

TABLES = {
    "flickr8k": Table("flickr8k", BOTH_WAYS, file="flickr8k"),
    "flickr8k-parts": Table(  # each arm adds to the one before
        "flickr8k", ["mean"] + BOTH_WAYS,
        {name: ["training.epochs=60", *settings] for name, settings in (lambda late, hard: {
            "global": [],
            "late interaction": late,
            "hard negatives": late + hard,
            "attention": ["model.region=attention"] + hard,
            "masked start": late + hard + ['init=[{{from="{start}",as="vision.*"}}]'],
        })(["model.region=late"], ["contrastive.hard_negatives.refresh=200", "contrastive.hard_negatives.group=4"]).items()},
        file="flickr8k", start=("flickr8k-masked", "flickr8k", []), baseline="global"),
    "easy-vqa": Table("easy-vqa", ["accuracy", "blind_accuracy"], FUSIONS, file="easy-vqa", baseline="concat_pooled"),
    "daquar": Table("daquar", ["accuracy", "blind_accuracy"], FUSIONS, file="daquar", folds=list(fifths()), baseline="concat_pooled"),
    "scenes-vqa": Table(
        "scenes-vqa", ["accuracy", "groups.unseen=true.accuracy", "blind_accuracy"],
        {name: settings + (['init=[{{from="{start}",take="vision.*"}}]'] if name != "question_only" else [])
         for name, settings in FUSIONS.items()},
        file="questions.jsonl", world=["--train", "60000", "--val", "1000", "--seed", "7"],
        start=("scenes-vision", "captions.jsonl", ["training.epochs=4"]), baseline="concat_pooled"),
    "missing": Table(  # a caption as one more modality: what is left when one is missing
        "scenes-vqa", ["accuracy", "image_only_accuracy", "caption_only_accuracy", "agreement"],
        {name: ["model.captions=true", "data.question.captions={world}/captions.jsonl",
                'init=[{{from="{start}",take="vision.*"}}]', *settings]
         for name, settings in {"neither": [], "modality dropout": ["answering.modality_dropout=0.5"],
                                "consistency": ["answering.consistency=0.3"],
                                "both": ["answering.modality_dropout=0.5", "answering.consistency=0.3"]}.items()},
        file="questions.jsonl", world=["--train", "60000", "--val", "1000", "--seed", "7"],
        start=("scenes-vision", "captions.jsonl", ["training.epochs=4"]), baseline="neither"),
    "modalities": Table(
        "demo", BOTH_WAYS + ["1:accuracy"],
        {name: ["training.epochs=9", "evaluation.every=0", "schedule.warmup_steps=50", *settings]
         for name, settings in {"none": [], "centred": ["model.centred=true"],
                                "adapters and reversal": ["model.adapters=32", "contrastive.reversal=0.1"],
                                "consistency": ["contrastive.consistency=0.1"]}.items()},
        file="captions.jsonl", world=["--train", "3000", "--val", "500", "--seed", "11"],
        evals=[["--task", "modality_probe"]], baseline="none"),
    "fsdd": Table("fsdd", ["accuracy"], file="fsdd"),
    "esc10": Table("esc10", ["accuracy"], file="esc10", folds=list(esc10_folds())),
    "tuxpaint": Table("tuxpaint", BOTH_WAYS, file="tuxpaint-stamps", folds=list(fifths())),
    "scenes-sound": Table("scenes-sound", [f"{way}.r1" for way in DIRECTIONS], file="captions.jsonl", world=["--sounds"]),
}


@dataclass
class Run:
    name: str
    recipe: str
    data: str
    settings: list
    eval_options: list
    needs: str = ""  # a run that must be done before


class Runner:
    def __init__(self, options, table):
        self.options, self.table, self.start = options, table, time.monotonic()
        self.out = Path(options.out).resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()

    def fathom(self, *words, device=None, log=None):
        environment = dict(os.environ)
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(device)
        done = subprocess.run([self.options.program, *words], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT if log else subprocess.PIPE)
        if log:
            log.write_text(done.stdout)
        if done.returncode != 0:
            raise RuntimeError(f"fathom {' '.join(words[:2])}: status {done.returncode}: "
                               f"{(done.stdout if log else done.stderr).strip().splitlines()[-1:]}")
        return done.stdout

    def runs(self):
        table, options = self.table, self.options
        data = Path(options.data or ".").resolve()
        if table.world is not None:
            data = self.out / "world"
            self.fathom("data", "make", "scenes", str(data), *table.world, log=self.out / "world.log")
        variants = [(f"fold {i + 1}", *fold) for i, fold in enumerate(table.folds)] if table.folds else \
                   [(f"seed {seed}", [f"seed={seed}"], []) for seed in options.seeds.split(",")]
        for variant, settings, eval_options in variants:
            start = ""
            if table.start:
                recipe, file, extra = table.start
                start = f"start, {variant}"
                yield Run(start, recipe, str(data / file), extra + settings, [])
            for arm in self.arms():
                extra = [setting.format(start=self.model(start), world=data) if start else setting for setting in table.arms[arm]]
                yield Run(f"{arm}, {variant}" if arm else variant, table.recipe, str(data / table.file),
                          extra + settings + options.set, eval_options, start)

    def arms(self):
        return [arm for arm in self.table.arms if not self.options.arms or arm in self.options.arms.split(",")]

    def folder(self, run):
        return self.out / run.replace(", ", "-").replace(" ", "_")

    def model(self, run):
        return self.folder(run) / "run" / "model"

    def do(self, run, device):
        folder = self.folder(run.name)
        if (folder / "result.json").exists():
            return
        folder.mkdir(exist_ok=True)
        settings = [word for setting in [f"data.train.path={run.data}", *run.settings] for word in ("--set", setting)]
        self.fathom("train", str(ROOT / "recipes" / f"{run.recipe}.toml"), "--out", str(folder / "run"), "--resume", *settings,
                    device=device, log=folder / "train.log")
        results = []
        if run.name.startswith("start"):  # is not measured itself
            (folder / "result.json").write_text("[]")
            return
        keeps = ["--per-sample", str(folder / "samples.jsonl")] if self.table.baseline else []
        for more in [keeps, *self.table.evals]:
            words = ["eval", str(self.model(run.name)), "--data", run.data, "--json", *run.eval_options, *more]
            results.append(json.loads(self.fathom(*words, device=device)))
        (folder / "result.json").write_text(json.dumps(results))

    def work(self, waiting, failures):
        while True:
            try:
                run, device = waiting.get_nowait()
            except queue.Empty:
                return
            spent = time.monotonic() - self.start
            if self.options.deadline and spent > self.options.deadline:
                continue
            while run.needs and not (self.folder(run.needs) / "result.json").exists():
                if run.needs in failures:
                    break
                time.sleep(0.2)
            try:
                self.do(run, device)
                outcome = "done"
            except RuntimeError as error:
                failures[run.name] = outcome = str(error)
            print(f"[{time.monotonic() - self.start:6.0f} s] {run.name}: {outcome}", file=sys.stderr, flush=True)

    def run_all(self):
        lanes = [queue.Queue() for _ in range(self.options.jobs)]
        failures = {}
        for i, run in enumerate(self.runs()):
            lane = i % len(lanes)
            lanes[lane].put((run, lane % self.options.gpus if self.options.gpus else None))
        threads = [threading.Thread(target=self.work, args=(lane, failures)) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return failures

    def results(self, arm):
        found = []
        for path in sorted(self.out.glob("*/result.json")):
            name = path.parent.name
            if name.startswith(("seed_", "fold_") if not arm else (arm.replace(" ", "_") + "-seed_", arm.replace(" ", "_") + "-fold_")):
                found.append((path.parent, json.loads(path.read_text())))
        return found

    def figure(self, results, path):
        if path == "mean":  # of the six recalls
            return sum(self.figure(results, way) for way in BOTH_WAYS) / len(BOTH_WAYS)
        which, _, keys = path.rpartition(":")
        value = results[int(which or 0)]
        for key in keys.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def report(self):
        figures = self.table.figures
        print(f"| | runs | {' | '.join(figures)} |\n|---|---|{'---|' * len(figures)}")
        for arm in self.arms():
            rows = [results for _, results in self.results(arm)]
            cells = []
            for path in figures:
                values = [value for value in (self.figure(results, path) for results in rows) if value is not None]
                cells.append(f"{sum(values) / len(values):.1f} ({min(values):.1f}–{max(values):.1f})" if values else "")
            print(f"| {arm or self.table.recipe} | {len(rows)} | {' | '.join(cells)} |")
        base = self.table.baseline
        files = lambda arm: [str(folder / "samples.jsonl") for folder, _ in self.results(arm)]
        for arm in self.arms():
            if base and arm != base and files(arm) and len(files(arm)) == len(files(base)):
                print(f"\n{arm} against {base}:\n{self.fathom('compare', *files(arm), '--against', *files(base))}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--data", help="folder that holds the data set's folder")
    parser.add_argument("--out", required=True, help="runs and results")
    parser.add_argument("--program", default=str(ROOT / "build/src/fathom"))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--arms", default="", help="these only, between commas")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs they are spread over")
    parser.add_argument("--deadline", type=float, default=0, help="seconds after which no run is begun")
    parser.add_argument("--set", action="append", default=[], help="a setting of every arm's recipe")
    options = parser.parse_args()
    if TABLES[options.table].world is None and not options.data:
        parser.error("this table needs --data")
    runner = Runner(options, TABLES[options.table])
    failures = runner.run_all()
    runner.report()
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
