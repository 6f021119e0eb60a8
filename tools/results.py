#!/usr/bin/env python3
"""Runs what a table of docs/results.md is made of: arms × seeds (or folds), trained, measured and compared.

    tools/results.py TABLE --data DIR --out DIR [--jobs N] [--gpus G] [--deadline SECONDS] [--set key=value]...

DIR holds the folder of the data set (--data DIR: DIR/flickr8k, DIR/easy-vqa, …); worlds of our own are made under --out/TABLE. Models
are judged at the end of training alone. A run that is done is not done again, so a cut-off table goes on where it stopped, and several
processes may share one. Prints a Markdown table (mean, lowest to highest over the seeds or folds) and, for tables with a baseline,
`fathom compare` of every arm with it over the seeds that both have. Needs python3 alone.
"""
import argparse
import contextlib
import fcntl
import hashlib
import json
import os
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
    data: tuple = ("data.train.path={data}",)  # settings that name it
    folds: list = None  # of (settings, eval options); None: seeds
    world: list = None  # arguments of `fathom data make scenes`
    prepare: callable = None  # of the data's folder and one to write to: what {world} then is, in settings of starts too
    start: tuple = None  # (recipe, file, settings): trained once a seed, before the arms; {start}, {starts} and {world} need one
    one_start: bool = False  # once for all; {starts}, those of seeds 2 and 3, need more
    start_arm: str = None  # what begins with the recipe's own model may be held against that: an arm of this name
    evals: list = field(default_factory=list)  # more options of `fathom eval`, one measurement each; figures "1:accuracy"
    trained: bool = False  # figures of training's own evaluation, in its precision, instead of `fathom eval`
    baselines: tuple = ()  # arms that the others are compared with
    decimals: int = 1


@contextlib.contextmanager
def locked(path):
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fifths():
    for k in range(5):
        others = ",".join(str(i) for i in range(5) if i != k)
        yield [f'data.train.split="{others} of 5"', f'data.val.split="{k} of 5"'], ["--split", f"{k} of 5"]


def esc10_folds():
    for k in range(1, 5):
        others = ",".join(str(i) for i in range(1, 5) if i != k)
        yield ['data.train.columns=["fold=split","split=part"]', f'data.train.split="{others}"', f'data.val.split="{k}"'], []


def conversations(data, folder):
    """TREC's questions, answered by their class; film reviews beside them."""
    folder.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in (data / "text-cls" / "trec6.jsonl").read_text().splitlines()]
    for part in ("train", "val"):
        chats = [{"prompt": row["text"], "response": row["label"]} for row in rows if row["split"] == part]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
        (folder / f"reviews-{part}.txt").write_bytes((data / "text-lm" / f"movie-reviews-{part}.txt").read_bytes())


def both_gates(*settings):
    return [f"model.{tower}.gate.{setting}" for tower in ("vision", "text") for setting in settings]


FUSIONS = {name: [f"model.fusion={name}"] for name in ("progressive", "concat_pooled", "concat_tokens", "question_only")}
LESS_DROP = "model.vision.drop_path=0.2"  # what the recipe had before
PUBLISHED_SWIN = [LESS_DROP, "model.vision.local_mixing=0", "model.vision.mlp_mixing=0", "model.vision.convolution_stem=false"]
FLICKR_PICTURES = [f"model.vision.{setting}" for setting in (
    "image_size=160", "patch_size=4", "dim=96", "depths=[2,2,6,2]", "heads=[3,6,12,24]", "window=5")]
GUESSES = ("concat_pooled", "concat_tokens", "question_only")
BOTH_WAYS = [f"{way}.r{k}" for way in ("t2i", "i2t") for k in (1, 5, 10)]
DIRECTIONS = ("t2i", "i2t", "i2a", "a2i", "t2a", "a2t")

LATE = ["model.region=late", "contrastive.region_weight=0.3"]
HARD = ["contrastive.hard_negatives.refresh=200", "contrastive.hard_negatives.group=2"]
MASKED_START = ['init=[{{from="{start}",as="vision.*"}}]']
SHORT = ["training.epochs=60", LESS_DROP]
CONVOLUTIONS = ["model.vision.local_mixing=3", "model.vision.mlp_mixing=3", "model.vision.convolution_stem=true"]

SMALL_DECODER = ["model.dim=128", "model.layers=4", "model.heads=4", "model.mlp_dim=352", "model.max_positions=128"]
WHOLE = ["lora.rank=0", "lora.patterns=[]", "lora.also_train=[]"]

TABLES = {
    "flickr8k-convolved-parts": Table(  # as flickr8k-parts, upon a Swin with convolutions and with region scores at 0.3
        "flickr8k", ["mean"] + BOTH_WAYS,
        {name: [*SHORT, *settings] for name, settings in {
            "global": [], "late interaction": LATE, "hard negatives": LATE + HARD,
            "attention": ["model.region=attention", "contrastive.region_weight=0.3", *HARD],
            "attention alone": ["model.region=attention", "contrastive.region_weight=0.3"], "hard negatives alone": HARD,
            "masked start": LATE + HARD + MASKED_START}.items()} | {
            # At full length:
            "all parts": [LESS_DROP, *LATE, *HARD, *MASKED_START], "captions": ["contrastive.caption_weight=0.2", LESS_DROP]},
        file="flickr8k", start=("flickr8k-masked", "flickr8k", [setting.replace("vision.", "") for setting in CONVOLUTIONS]),
        baselines=("global", "hard negatives")),
    "flickr8k-distilled": Table(  # taught by two of the recipe's own models; --seeds 1,4,5 leaves the teachers' seeds out
        "flickr8k", ["mean"] + BOTH_WAYS, {"none": [], "taught": ["contrastive.distillation.teachers=[{starts}]"]},
        file="flickr8k", start=("flickr8k", "flickr8k", []), start_arm="teachers", baselines=("none", "teachers")),
    "flickr8k": Table("flickr8k", [way.replace(".", "_") for way in BOTH_WAYS], file="flickr8k", trained=True),
    "flickr8k-parts": Table(  # hard negatives and the masked start beside late interaction; attention in its place
        "flickr8k", ["mean"] + BOTH_WAYS,
        {name: ["training.epochs=60", *PUBLISHED_SWIN, *settings] for name, settings in (lambda late, hard: {
            "global": [],
            "late interaction": late,
            "hard negatives": late + hard,
            "attention": ["model.region=attention"] + hard,
            "words": ["contrastive.word_weight=3"],
            "mix": ["contrastive.mixup=1"],
            "cutmix": ["contrastive.mixup=1", "contrastive.cutmix_share=1"],
            "soft": ["contrastive.soft_targets=0.2"],
            "mixing": ["model.vision.local_mixing=3"],
            "mixing wide": ["model.vision.local_mixing=7"],
            "all convolutions": CONVOLUTIONS,
            "masked start": late + hard + ['init=[{{from="{start}",as="vision.*"}}]'],
        })(["model.region=late"], ["contrastive.hard_negatives.refresh=200", "contrastive.hard_negatives.group=4"]).items()},
        file="flickr8k", start=("flickr8k-masked", "flickr8k", []), baselines=("global",)),
    "flickr8k-gates": Table(  # which windows and tokens each block of both towers computes, at one density
        "flickr8k-gated", ["mean"] + BOTH_WAYS + ["density"],
        {name: [*SHORT, *settings] for name, settings in {
            "dense": both_gates("kind=none", "layer_density=[]"),
            "learned": [],
            "random": both_gates("kind=random"),
            # A density that rounds to no block: those that gates thin are left out.
            "alternate": both_gates("kind=alternate") + ["model.vision.gate.layer_density=[1,0.01,0.01,1,1,0.01,0.01,1,1,0.01,0.01,1]",
                                                         "model.text.gate.layer_density=[1,0.01,1,0.01]"],
            "top_k in texts": ["model.text.gate.kind=top_k"],
            "pooled": both_gates("kind=pooled"),
        }.items()},
        file="flickr8k", baselines=("learned",)),
    "easy-vqa": Table("easy-vqa", ["accuracy", "blind_accuracy"], FUSIONS, file="easy-vqa", baselines=GUESSES),
    "daquar": Table("daquar", ["accuracy", "blind_accuracy"], FUSIONS, file="daquar", folds=list(fifths()), baselines=GUESSES),
    "daquar-started": Table(  # with a picture encoder that knows other photographs, and stays as it is
        "daquar", ["accuracy", "blind_accuracy"],
        {name: settings + ([*FLICKR_PICTURES, 'init=[{{from="{start}",take="vision.*"}}]', 'optimizer.freeze=["vision.*"]']
                           if name != "question_only" else []) for name, settings in FUSIONS.items()},
        file="daquar", folds=list(fifths()), start=("flickr8k", "flickr8k", ["training.epochs=60", *PUBLISHED_SWIN]), one_start=True, baselines=GUESSES),
    "daquar-tuned": Table(  # the same encoder, learning on: at one rate, or slower the deeper it lies
        "daquar", ["accuracy", "blind_accuracy"],
        {name: [*FLICKR_PICTURES, 'init=[{{from="{start}",take="vision.*"}}]', *settings]
         for name, settings in {"frozen": ['optimizer.freeze=["vision.*"]'], "whole": [], "layer decay": ["optimizer.layer_decay=0.75"]}.items()},
        file="daquar", folds=list(fifths()), start=("flickr8k", "flickr8k", ["training.epochs=60", *PUBLISHED_SWIN]), one_start=True,
        baselines=("frozen",)),
    "scenes-vqa": Table(
        "scenes-vqa", ["accuracy", "groups.unseen=true.accuracy", "blind_accuracy"],
        {name: settings + (['init=[{{from="{start}",take="vision.*"}}]'] if name != "question_only" else [])
         for name, settings in FUSIONS.items()},
        file="questions.jsonl", world=["--train", "60000", "--val", "1000", "--seed", "7"],
        start=("scenes-vision", "captions.jsonl", []), baselines=GUESSES),
    "scenes-vqa-rates": Table(  # a learning rate for each: a fifth of the steps, and as many tries for every fusion
        "scenes-vqa", ["accuracy"],
        {f"{name} {rate}": [f"model.fusion={name}", f"optimizer.learning_rate={rate}", "training.max_steps=3000",
                            'init=[{{from="{start}",take="vision.*"}}]']
         for name in ("progressive", "concat_pooled", "concat_tokens") for rate in ("5e-4", "1e-3", "2e-3")},
        file="questions.jsonl", world=["--train", "60000", "--val", "1000", "--seed", "7"],
        start=("scenes-vision", "captions.jsonl", [])),
    "scenes-written": Table(  # answers that are written, token by token, beside answers that are chosen
        "scenes-vqa", ["accuracy", "groups.unseen=true.accuracy", "blind_accuracy"],
        {name: ["training.max_steps=1000", "evaluation.every=0", 'init=[{{from="{start}",take="vision.*"}}]', *settings]
         for name, settings in {"chosen": [], "written": ["model.answer=generated", "model.text.attention=causal"]}.items()},
        file="questions.jsonl", world=["--train", "60000", "--val", "1000", "--seed", "7"],
        start=("scenes-vision", "captions.jsonl", []), one_start=True, baselines=("chosen",)),
    "scenes-captions": Table(  # captions, by what fuses picture and text
        "scenes-vqa", ["caption_nats", "blind_caption_nats", "accuracy"],
        {name: ["training.max_steps=1000", "evaluation.every=0", 'init=[{{from="{start}",take="vision.*"}}]', f"model.fusion={name}",
                "model.answer=generated", "model.text.attention=causal", "data.question.max_answer_tokens=64",
                "model.text.max_positions=256", "data.pairing.questions_per_image=1"]
         for name in ("progressive", "concat_tokens")},
        file="captions.jsonl", world=["--train", "60000", "--val", "1000", "--seed", "7"],
        start=("scenes-vision", "captions.jsonl", []), one_start=True, decimals=3),
    "missing": Table(  # a caption as one more modality: what is left when one is missing
        "scenes-vqa", ["accuracy", "image_only_accuracy", "caption_only_accuracy", "agreement"],
        {name: ["model.vision.local_mixing=0", "model.captions=true", "data.question.captions={world}/captions.jsonl",
                'init=[{{from="{start}",take="vision.*"}}]', *settings]
         for name, settings in {"neither": [], "modality dropout": ["answering.modality_dropout=0.5"],
                                "consistency": ["answering.consistency=0.3"],
                                "both": ["answering.modality_dropout=0.5", "answering.consistency=0.3"],
                                "reversal": ["answering.reversal=0.1"], "plain projections": ["model.adapter_dim=0"]}.items()},
        file="questions.jsonl", world=["--train", "60000", "--val", "1000", "--seed", "7"],
        start=("scenes-vision", "captions.jsonl", ["model.vision.local_mixing=0"]), baselines=("neither",)),
    "scenes-regions": Table(  # where captions name single things
        "demo", ["mean"] + BOTH_WAYS,
        {name: ["training.epochs=9", "evaluation.every=0", "schedule.warmup_steps=50", *settings]
         for name, settings in {"global": [], "late interaction": ["model.region=late"], "attention": ["model.region=attention"],
                                "hard negatives": ["contrastive.hard_negatives.refresh=20", "contrastive.hard_negatives.group=4"],
                                "both": ["model.region=late", "contrastive.hard_negatives.refresh=20",
                                               "contrastive.hard_negatives.group=4"]}.items()},
        file="captions.jsonl", world=["--train", "3000", "--val", "500", "--seed", "11"], baselines=("global",)),
    "modalities": Table(
        "demo", BOTH_WAYS + ["1:accuracy"],
        {name: ["training.epochs=9", "evaluation.every=0", "schedule.warmup_steps=50", *settings]
         for name, settings in {"none": [], "centred": ["model.centred=true"],
                                "adapters": ["model.adapters=32"], "adapters and reversal": ["model.adapters=32", "contrastive.reversal=0.1"],
                                "consistency": ["contrastive.consistency=0.1"]}.items()},
        file="captions.jsonl", world=["--train", "3000", "--val", "500", "--seed", "11"],
        evals=[["--task", "modality_probe"]], baselines=("none",)),
    "fsdd": Table("fsdd", ["accuracy"], {"from nothing": [], "masked start": ['init=[{{from="{start}",as="audio.*"}}]']}, file="fsdd",
                  start=("fsdd-masked", "fsdd", []), baselines=("from nothing",)),
    "fsdd-parts": Table(  # what hearing in sub-bands, and each change of a clip, brings
        "fsdd", ["accuracy"],
        {"the recipe": [], "sub-bands": ["model.audio.front_end=sub_bands"],
         "no masks": ["data.audio.augment.time_masks=0", "data.audio.augment.band_masks=0"],
         "no gain, no speed": ["data.audio.augment.gain_db=0", "data.audio.augment.speed=0"],
         "shift": ["data.audio.augment.shift_seconds=0.1"]},
        file="fsdd", baselines=("the recipe",)),
    "esc10": Table(
        "esc10", ["accuracy"], {"from nothing": [], "masked start": ['init=[{{from="{start}",as="audio.*"}}]']}, file="esc10",
        folds=list(esc10_folds()), trained=True,
        start=("fsdd-masked", "esc10", ["data.audio.max_seconds=5.0", "data.audio.augment.shift_seconds=5.0", "model.stride=4",
                                        "model.max_frames=500", "training.epochs=500", "training.batch_size=32"])),
    "tuxpaint": Table("tuxpaint", BOTH_WAYS, file="tuxpaint-stamps", folds=list(fifths())),
    "text-lm-gates": Table(  # which tokens each block computes, at one density
        "text-lm-gated", ["bits_per_byte/gutenberg-val", "bits_per_byte/movie-reviews-val", "density"],
        {"dense": ["model.gate.kind=none", "model.gate.layer_density=[]"], "causal": [], "random": ["model.gate.kind=random"],
         "top_k": ["model.gate.kind=top_k"], "alternate": ["model.gate.kind=alternate", "model.gate.layer_density=[]"],
         "causal everywhere": ["model.gate.layer_density=[]"],
         "causal everywhere, warmed up": ["model.gate.layer_density=[]", "gating.dense_warmup=200"]},
        file="text-lm", trained=True, decimals=4,
        data=tuple(f"data.{part}_files=[{', '.join(chr(34) + '{data}/' + name + f'-{part}.txt' + chr(34) for name in names)}]"
                   for part, names in (("train", ("gutenberg", "us-speeches", "movie-reviews")), ("val", ("gutenberg", "movie-reviews"))))),
    "trec-chat": Table(  # answers to questions, by a small language model that has read film reviews
        "chat-lora", ["answer_nats", "answer_accuracy"],
        {name: [*SMALL_DECODER, 'data.chat.train_files=["{world}/train.jsonl"]', 'data.chat.val_files=["{world}/val.jsonl"]',
                "training.epochs=2", "training.batch_size=8", *settings]
         for name, settings in {
             "from the seed": [*WHOLE, 'init_from=""', "tokenizer.path={start}/tokenizer.json"],
             "all weights": [*WHOLE, "init_from={start}"],
             "lower half frozen": [*WHOLE, "init_from={start}", "optimizer.freeze_layers=2"],
             "adapters": ["init_from={start}", "optimizer.learning_rate=3e-3"],
             "adapters, embedding frozen": ["init_from={start}", "optimizer.learning_rate=3e-3", "lora.also_train=[]"]}.items()},
        prepare=conversations, data=(), trained=True, decimals=3,
        start=("text-lm", "", [*SMALL_DECODER, 'data.train_files=["{world}/reviews-train.txt"]',
                               'data.val_files=["{world}/reviews-val.txt"]', "tokenizer.vocab_size=2048",
                               'tokenizer.special_tokens=["<|endoftext|>","<|pad|>","<|im_start|>","<|im_end|>"]',
                               "training.epochs=0", "training.max_steps=400", "training.batch_size=8",
                               "optimizer.learning_rate=3e-3"]), one_start=True),
    "scenes-sound": Table("scenes-sound", [f"{way}.r1" for way in DIRECTIONS], file="captions.jsonl", world=["--sounds"]),
}


@dataclass
class Run:
    name: str
    variant: str
    arm: str  # None: what arms begin with, not measured itself
    recipe: str
    data: str
    settings: list
    eval_options: list
    needs: tuple = ()  # the names of runs that must be done before


class Runner:
    def __init__(self, options, table):
        self.options, self.table, self.begun = options, table, time.monotonic()
        self.out = Path(options.out).resolve() / options.table
        self.out.mkdir(parents=True, exist_ok=True)
        self.arms = [arm for arm in table.arms if not options.arms or arm in options.arms.split(",")]
        self.plan = list(self.runs())
        if table.start_arm and any(run.arm == table.start_arm for run in self.plan):
            self.arms.insert(0, table.start_arm)

    def fathom(self, *words, device=None, log=None):
        environment = dict(os.environ)
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = str(device)
        done = subprocess.run([self.options.program, *words], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT if log else subprocess.PIPE)
        if log:
            log.write_text(done.stdout)
        if done.returncode != 0:
            said = (done.stdout if log else done.stderr).strip().splitlines()
            raise RuntimeError(f"fathom {' '.join(words[:2])}: status {done.returncode}: {said[-1] if said else ''}")
        return done.stdout

    def runs(self):
        table, options = self.table, self.options
        data = Path(options.data or ".").resolve()
        if table.world is not None:
            data = self.out / "world"
            with locked(self.out / "world.lock"):
                self.fathom("data", "make", "scenes", str(data), *table.world, log=self.out / "world.log")
        if table.prepare is not None:
            with locked(self.out / "world.lock"):
                table.prepare(data, self.out / "world")
            data = self.out / "world"
        numbers = options.seeds.split(",") if options.seeds else None
        if table.folds:
            variants = [(f"fold {i + 1}", *fold) for i, fold in enumerate(table.folds) if not numbers or str(i + 1) in numbers]
        else:
            variants = [(f"seed {seed}", [f"seed={seed}"], []) for seed in numbers or ("1", "2", "3")]
        wanted = [setting for arm in self.arms for setting in table.arms[arm]]
        starts = {variant: "start" if table.one_start else f"start, {variant}" for variant, _, _ in variants}
        made = {}  # by name
        if any("{start}" in setting for setting in wanted):
            made = {starts[variant]: [] if table.one_start else settings for variant, settings, _ in variants}
        elif any("{starts}" in setting for setting in wanted):
            made = {f"start, seed {seed}": [f"seed={seed}"] for seed in (2, 3)}
        for name, settings in made.items():
            recipe, file, extra = table.start
            extra = [setting.format(world=data) for setting in extra]
            yield Run(name, name.removeprefix("start, "), table.start_arm, recipe, str(data / file), extra + settings, [])
        all_starts = ",".join(f'"{self.model(name)}"' for name in made)
        for variant, settings, eval_options in variants:
            for arm in self.arms:
                own = table.arms[arm]
                needs = (starts[variant],) if any("{start}" in setting for setting in own) else \
                    tuple(made) if any("{starts}" in setting for setting in own) else ()
                extra = [setting.format(start=self.model(starts[variant]), starts=all_starts, world=data) if table.start else setting
                         for setting in own]
                yield Run(f"{arm}, {variant}" if arm else variant, variant, arm, table.recipe, str(data / table.file),
                          extra + settings + options.set, eval_options, needs)

    def folder(self, name):
        return self.out / name.replace(", ", "-").replace(" ", "_")

    def model(self, name):
        return self.folder(name) / "run" / "model"

    def is_done(self, name):
        return (self.folder(name) / "result.json").exists()

    def do(self, run, device):
        folder = self.folder(run.name)
        folder.mkdir(exist_ok=True)
        with locked(folder / "lock"):
            self.do_alone(run, device, folder)

    def do_alone(self, run, device, folder):
        settings = [setting.format(data=run.data) for setting in self.table.data] + ["evaluation.every=0", *run.settings]
        recipe = ROOT / "recipes" / f"{run.recipe}.toml"
        made_of = {"recipe": hashlib.sha256(recipe.read_bytes()).hexdigest(), "settings": settings}
        kept = folder / "settings.json"
        if kept.exists() and json.loads(kept.read_text()) != made_of:
            raise RuntimeError(f"{folder} is of another recipe or other settings: choose another --out")
        kept.write_text(json.dumps(made_of))
        if self.is_done(run.name):
            return
        said = self.fathom("train", str(recipe), "--out", str(folder / "run"), "--resume",
                           *[word for setting in settings for word in ("--set", setting)], device=device, log=folder / "train.log")
        if "\nrequested after " in said:
            raise RuntimeError("stopped by a signal; the same command goes on from there")
        (folder / "result.json").write_text(json.dumps(self.measure(run, device)))

    def measure(self, run, device):
        if run.arm is None:
            return []
        if self.table.trained:
            return [json.loads((self.model(run.name) / "fathom.json").read_text())["record"]["evaluation"]]
        keeps = ["--per-sample", str(self.folder(run.name) / "samples.jsonl")] if self.table.baselines else []
        return [json.loads(self.fathom("eval", str(self.model(run.name)), "--data", run.data, "--json", *run.eval_options, *more,
                                       device=device)) for more in [keeps, *self.table.evals]]

    def run_all(self):
        """Runs in the plan's order, each as soon as what it needs is done. True if none failed."""
        changed = threading.Condition()
        pending, running, failed = list(self.plan), set(), []

        def next_run():
            with changed:
                while pending:
                    if self.options.deadline and time.monotonic() - self.begun > self.options.deadline:
                        return None
                    ready = [run for run in pending if all(self.is_done(name) and name not in running for name in run.needs)]
                    if ready:
                        pending.remove(ready[0])
                        running.add(ready[0].name)
                        return ready[0]
                    if not any(name in running for run in pending for name in run.needs):
                        return None
                    changed.wait()
            return None

        def work(device):
            while run := next_run():
                try:
                    self.do(run, device)
                    outcome = "done"
                except Exception as error:  # one run's end is not the table's
                    failed.append(run.name)
                    outcome = f"{type(error).__name__}: {error}"
                print(f"[{time.monotonic() - self.begun:6.0f} s] {run.name}: {outcome}", file=sys.stderr, flush=True)
                with changed:
                    running.discard(run.name)
                    changed.notify_all()

        threads = [threading.Thread(target=work, args=(lane % self.options.gpus if self.options.gpus else None,))
                   for lane in range(self.options.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return not failed

    def results(self, arm):
        """By variant."""
        return {run.variant: (self.folder(run.name), json.loads((self.folder(run.name) / "result.json").read_text()))
                for run in self.plan if run.arm == arm and self.is_done(run.name)}

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
        for arm in self.arms:
            rows = [results for _, results in self.results(arm).values()]
            cells = []
            for path in figures:
                values = [value for value in (self.figure(results, path) for results in rows) if value is not None]
                three = (sum(values) / len(values), min(values), max(values)) if values else ()
                cells.append("{:.{d}f} ({:.{d}f}–{:.{d}f})".format(*three, d=self.table.decimals) if values else "")
            print(f"| {arm or self.table.recipe} | {len(rows)} | {' | '.join(cells)} |")
        for baseline in self.table.baselines:
            base = self.results(baseline)
            for arm in self.arms:
                both = [variant for variant in self.results(arm) if variant in base] if arm != baseline else []
                if not both:
                    continue
                print(f"\n{arm} against {baseline} ({', '.join(both)}):", flush=True)
                print(self.fathom("compare", *self.samples(arm, both), "--against", *self.samples(baseline, both)))

    def samples(self, arm, variants):
        """Files for `fathom compare`: one a seed, or one of all folds, which ask different things."""
        files = [self.results(arm)[variant][0] / "samples.jsonl" for variant in variants]
        if self.table.folds:
            joined = self.out / f"{self.folder(arm).name}-samples.jsonl"
            joined.write_text("".join(file.read_text() for file in files))
            files = [joined]
        return [str(file) for file in files]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=sorted(TABLES))
    parser.add_argument("--data", help="folder that holds the data set's folder")
    parser.add_argument("--out", required=True, help="runs and results")
    parser.add_argument("--program", default=str(ROOT / "build/src/fathom"))
    parser.add_argument("--seeds", help="or folds, between commas; without it seeds 1 to 3, or all folds")
    parser.add_argument("--arms", default="", help="these only, between commas")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs they are spread over")
    parser.add_argument("--deadline", type=float, default=0, help="seconds after which no run is begun")
    parser.add_argument("--set", action="append", default=[], help="a setting of every arm's recipe")
    options = parser.parse_args()
    if TABLES[options.table].world is None and not options.data:
        parser.error("this table needs --data")
    runner = Runner(options, TABLES[options.table])
    succeeded = runner.run_all()
    runner.report()
    sys.exit(0 if succeeded else 1)


if __name__ == "__main__":
    main()
