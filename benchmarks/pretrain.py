"""The rows of the proof of the pretrain stage."""

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from statistics import median

import torch

from benchmarks.commands import must, newest, pipeline_command, scratch_folder
from benchmarks.pretrain_faults import FAULTS
from benchmarks.pretrain_jobs import submit_twice
from benchmarks.pretrain_runs import (
    BATCH,
    LOG,
    SAVE_EVERY,
    STEPS,
    Training,
    build_corpus,
    command,
    difference,
    kill_at,
    random_steps,
    stop_at,
    train,
)
from benchmarks.rows import Row
from dreambooth3d.artifacts.adapter import load_adapter
from dreambooth3d.artifacts.place import Place
from dreambooth3d.evaluate import suite_reference
from dreambooth3d.evaluate.config import ReferenceSuiteConfig
from dreambooth3d.model.backbone import load_backbone
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.loading import load_inputs
from dreambooth3d.pretrain.pretrain import batch_rules, build_task
from dreambooth3d.training.order import DataOrder
from dreambooth3d.training.task import build_batch

_SPREADS = (
    ("strategy=ddp", "workers=1"),
    ("strategy=ddp", "workers=2"),
    ("strategy=zero2", "workers=1"),
    ("strategy=zero2", "workers=2"),
    ("strategy=zero3", "workers=2"),
)
_SINGLE = ("strategy=single",)
_LEARNING_STEPS = 2400
_COST_STEPS = 60
# This machine has slow spells of ten seconds and more.
_COST_REPEATS = 5
_kept = ExitStack()


@cache
def _pairs(seed: int) -> Path:
    """The corpus of a seed; it stays until the proof ends."""
    home = Path(_kept.enter_context(tempfile.TemporaryDirectory(prefix="dreambooth3d-")))
    build_corpus(home, seed)
    return newest(home, "pairs")


@cache
def _encoded(seed: int) -> Path:
    """A corpus with latents: time goes to the training, not to encoders that run once a pair."""
    home = Path(_kept.enter_context(tempfile.TemporaryDirectory(prefix="dreambooth3d-")))
    _build("build_pairs.py", "--out", str(home), "--set", f"seed={seed}", "--set", "samples=256",
           "--set", "encode=tiny")  # fmt: skip
    return newest(home, "pairs")


@cache
def _uninterrupted(seed: int) -> Training:
    with scratch_folder() as out:
        return train(out, _pairs(seed), seed, *_SINGLE)


def same_training(seed: int) -> float:
    """Largest relative difference of any step's loss from a plain loop's, by any strategy."""
    plain, _ = plain_loop(seed, _pairs(seed), STEPS)
    worst = 0.0
    for settings in (_SINGLE, *_SPREADS):
        with scratch_folder() as out:
            losses = train(out, _pairs(seed), seed, *settings).losses
        off = max(abs(a / b - 1) for a, b in zip(losses, plain, strict=True))
        _say(f"{', '.join(settings)}: {off:.2e} from the plain loop")
        worst = max(worst, off)
    return worst


def plain_loop(seed: int, pairs: Path, steps: int) -> tuple[list[float], float]:
    """Losses and the median seconds of a step of a loop in plain PyTorch, without our engines."""
    config = PretrainConfig(seed=seed, steps=steps, batch_size=BATCH, lr=1e-3, strategy="single")
    backbone, examples = load_inputs(config, Place.parse(str(pairs)))
    task = build_task(config, backbone)
    parameters = [p for p in task.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=0.0)
    order = DataOrder(num_samples=len(examples.corpus), batch_size=BATCH, seed=seed)
    rules = batch_rules(config, examples)
    losses, seconds = [], []
    for step in range(steps):
        began = time.monotonic()
        batch = build_batch(
            order.batch(step), examples, rules, device=torch.device("cpu"), dtype=torch.float32
        )
        loss = task(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        seconds.append(time.monotonic() - began)
    return losses, median(seconds)


def exact_resume(seed: int) -> float:
    """Largest difference of a weight after `kill -9` of a driver, a worker or a node, ten times."""
    kinds = ("worker", "driver", "node")
    worst = 0.0
    for number, step in enumerate(random_steps(seed, 10)):
        who = kinds[number % len(kinds)]
        with scratch_folder() as out:
            found, lost = kill_at(out, _pairs(seed), seed, who, step, *_SINGLE)
        off = difference(found, _uninterrupted(seed))
        _say(f"{who} killed at step {step}: {lost} steps lost, weights differ by {off:.1e}")
        if lost > SAVE_EVERY:
            return float("nan")
        worst = max(worst, off)
    return worst


def elastic(seed: int) -> float:
    """Relative difference of the last losses: 2 workers, killed, 1 worker, killed, 2 workers."""
    with scratch_folder() as out:
        pairs = _pairs(seed)
        for workers, step in ((2, 9), (1, 19)):
            order = command(out, pairs, seed, "strategy=zero2", f"workers={workers}")
            stop_at(order, step)
        found = train(out, pairs, seed, "strategy=zero2", "workers=2")
    expected = _uninterrupted(seed)
    return max(abs(a / b - 1) for a, b in zip(found.losses[-5:], expected.losses[-5:], strict=True))


def machinery(seed: int) -> float:
    """Median of `machinery_ratios`."""
    return median(machinery_ratios(seed))


def machinery_ratios(seed: int) -> list[float]:
    """Time of a step with Ray Train and DeepSpeed on one worker over that of a plain loop.

    Both take their batches from latents; they take turns.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    ratios = []
    for _ in range(_COST_REPEATS):
        _, plain = plain_loop(seed, _encoded(seed), _COST_STEPS)
        with scratch_folder() as out:
            ours = train(out, _encoded(seed), seed, "strategy=zero2", "log_every=10",
                         steps=_COST_STEPS)  # fmt: skip
        ratios.append(ours.step_seconds / plain)
        _say(f"a step: {ours.step_seconds:.3f} s, plain {plain:.3f} s")
    torch.set_num_threads(threads)
    return ratios


def data_wait(seed: int) -> float:
    """Share of the time of all steps spent waiting for batches, from an encoded corpus."""
    with scratch_folder() as out:
        return train(out, _encoded(seed), seed, *_SINGLE, steps=_COST_STEPS).data_share


@cache
def _learned(seed: int) -> tuple[float, float]:
    """Gain and share after half an hour on two cores."""
    with scratch_folder() as out:
        sets = ["--recipe", "packaged", "--out", str(out)]
        _build("build_pairs.py", *sets, "--set", f"seed={seed + 1}", "--set", "samples=6144")
        _build("pretrain.py", *sets, "--set", f"seed={seed}", "--set", f"steps={_LEARNING_STEPS}")
        adapter = load_adapter(newest(out, "pretrain"))
    backbone = load_backbone("tiny")
    config = ReferenceSuiteConfig(seed=seed)
    use = suite_reference.place(adapter, backbone)
    cases = suite_reference.make_cases(config, size=backbone.card.train_side)
    right, wrong = suite_reference.losses(config, backbone, use, cases)
    return 1 - float(right.mean() / wrong.mean()), float((right < wrong).float().mean())


def interruptions(seed: int) -> float:
    """Difference of the weights of a training by `ray job submit`, stopped and submitted again."""
    with scratch_folder() as out:
        found = submit_twice(out, _pairs(seed), seed, random_steps(seed, 1)[0], *_SINGLE)
    return difference(found, _uninterrupted(seed))


def bad_input(seed: int) -> float:
    """Cases, of five, that end without one clear sentence or lose something."""
    unclear = 0
    for name, fault in FAULTS.items():
        with scratch_folder() as out:
            problem = fault(out, _pairs(seed), seed)
        _say(f"{name}: {problem or 'clear, and nothing lost'}")
        unclear += bool(problem)
    return float(unclear)


def _build(script: str, *arguments: str) -> None:
    must(pipeline_command(script, *arguments), log=LOG)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


ROWS = (
    Row(name="same_training", measure=same_training, rule="<=", bar=1e-4),
    Row(name="exact_resume", measure=exact_resume, rule="<=", bar=1e-5),
    Row(name="elastic", measure=elastic, rule="<=", bar=0.01),
    Row(name="machinery", measure=machinery, rule="<=", bar=1.10),
    Row(name="data_wait", measure=data_wait, rule="<=", bar=0.03),
    Row(name="interruptions", measure=interruptions, rule="<=", bar=1e-5),
    Row(name="bad_input", measure=bad_input, rule="==", bar=0),
    Row(name="gain", measure=lambda seed: _learned(seed)[0], rule=">=", bar=0.06),
    Row(name="share", measure=lambda seed: _learned(seed)[1], rule=">=", bar=0.85),
)
