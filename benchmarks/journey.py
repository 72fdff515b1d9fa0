"""The rows of the journey's proof."""

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.commands import (
    ROOT,
    environment,
    pipeline_command,
    run_logged,
    scratch_folder,
)
from benchmarks.rows import Row, RowSkippedError
from dreambooth3d.artifacts.adapter import load_adapter
from dreambooth3d.artifacts.clip import read_clip
from dreambooth3d.model.backbone import Backbone, load_backbone
from dreambooth3d.model.forward import denoise
from dreambooth3d.model.lora import LoraAdapter, Role, RowLoras
from dreambooth3d.model.parity import check_file
from dreambooth3d.model.routing import Routes
from dreambooth3d.pairs.subjects import photograph

SHARED = ROOT.parent / "shared"
_SMALL_PAIRS = ("--set", "samples=96", "--set", "samples_per_shard=32")
_SMALL_TRAIN = ("--set", "steps=12", "--set", "batch_size=4")


def parity(seed: int) -> float:
    """Largest difference of any output, loss or gradient of the golden vectors."""
    results = list(check_file(ROOT / "tests" / "data" / "parity_visible.safetensors"))
    found = [d for r in results for d in (r.output, r.loss, r.gradient) if d is not None]
    return max(found)


def zero_init(seed: int) -> float:
    """Elements that a zero-initialised pair of adapters changes on the embedded backbone."""
    backbone = _tiny()
    x, t, texts, views = _inputs(backbone, seed, rows=3)
    with torch.no_grad():
        base = denoise(backbone.transformer, x, t, texts, references_BVCHW=views)
        routes = Routes(
            subject=LoraAdapter(backbone.transformer, role="subject", rank=16, seed=seed),
            reference=LoraAdapter(backbone.transformer, role="reference", rank=16, seed=seed),
        )
        ours = denoise(backbone.transformer, x, t, texts, references_BVCHW=views, routes=routes)
    return float((base != ours).sum())


def mixed_batch(seed: int) -> float:
    """Largest difference between a batch of different adapters and single runs."""
    backbone = _tiny()
    x, t, texts, views = _inputs(backbone, seed, rows=4)
    subjects = [_random_lora(backbone, "subject", seed + i) for i in range(4)]
    readers = [_random_lora(backbone, "reference", seed + 9 + i) for i in range(4)]
    with torch.no_grad():
        both = denoise(
            backbone.transformer, x, t, texts, references_BVCHW=views,
            routes=Routes(subject=RowLoras(subjects), reference=RowLoras(readers)),
        )  # fmt: skip
        singles = [
            denoise(
                backbone.transformer, x[i : i + 1], t[i : i + 1], texts[i : i + 1],
                references_BVCHW=views[i : i + 1],
                routes=Routes(subject=subjects[i], reference=readers[i]),
            )
            for i in range(4)
        ]  # fmt: skip
    return float((both - torch.cat(singles)).abs().max())


def import_directions(seed: int) -> float:
    """Exit code of the architecture tests (they also check the README's first screen)."""
    return float(_run([sys.executable, "-m", "pytest", "-q", "tests/test_architecture.py"]))


def four_commands(seed: int) -> float:
    """Commands of the journey, small, in a fresh folder, that end with exit code 0 of 6."""
    with scratch_folder() as out:
        options = ["--out", str(out), "--set", f"seed={seed}"]
        commands = [
            ["build_pairs.py", *options, *_SMALL_PAIRS],
            ["pretrain.py", *options, *_SMALL_TRAIN],
            ["personalize_batch.py", str(_subjects(out, seed, count=2)), *options, *_SMALL_TRAIN],
        ]
        done = sum(_pipeline(*command) == 0 for command in commands)
        adapters = sorted(out.glob("personalize/*/adapters/*"))
        prompt = ["--prompt", "a video of a thing on a beach", "--set", "steps=4"]
        done += _pipeline("generate.py", "--adapter", str(adapters[0]), *options, *prompt) == 0
        done += _served_clip(out, adapters[0].name, seed)
        done += _pipeline("evaluate.py", "--out", str(out)) == 0
        return float(done)


def same_bytes(seed: int) -> float:
    """Shards that differ between two runs with 1 and 2 workers."""
    with scratch_folder() as first, scratch_folder() as second:
        options = ["--set", f"seed={seed}", *_SMALL_PAIRS]
        _pipeline("build_pairs.py", "--out", str(first), *options, "--set", "workers=1")
        _pipeline("build_pairs.py", "--out", str(second), *options, "--set", "workers=2")
        ours = {p.name: p.read_bytes() for p in first.glob("pairs/[!.]*/*")}
        theirs = {p.name: p.read_bytes() for p in second.glob("pairs/[!.]*/*")}
        return float(sum(ours[n] != theirs.get(n) for n in ours) + (len(ours) < 4))


def second_run_seconds(seed: int) -> float:
    """Seconds of a second run of a finished stage, the interpreter's start included."""
    with scratch_folder() as out:
        options = ["--out", str(out), "--set", f"seed={seed}", *_SMALL_PAIRS]
        _pipeline("build_pairs.py", *options)
        started = time.monotonic()
        _pipeline("build_pairs.py", *options)
        return time.monotonic() - started


def bad_rows(seed: int) -> float:
    """Broken rows of a table, of 8, that are not named while the good one is trained."""
    with scratch_folder() as out:
        table = _broken_table(out, seed)
        _pipeline("build_pairs.py", "--out", str(out), *_SMALL_PAIRS)
        _pipeline("pretrain.py", "--out", str(out), *_SMALL_TRAIN)
        done = subprocess.run(
            pipeline_command(
                "personalize_batch.py", str(table), "--skip-invalid", "--out", str(out),
                *_SMALL_TRAIN,
            ),
            capture_output=True, text=True, cwd=ROOT, env=environment(),
        )  # fmt: skip
        lines = [line for line in done.stderr.splitlines() if line.startswith("problem: ")]
        numbers = range(2, len(_BROKEN) + 2)
        unnamed = [n for n in numbers if not any(f"row {n}," in line for line in lines)]
        adapters = [p.name for p in out.glob("personalize/*/adapters/*")]
        return float(len(unnamed) + (adapters != ["good"]) + (done.returncode != 1))


def real_subjects(seed: int) -> float:
    """Captured objects, of 8, that end as an adapter and a playable clip."""
    table = _shared_table()
    with scratch_folder() as out:
        options = ["--out", str(out), "--set", f"seed={seed}"]
        _pipeline("build_pairs.py", *options, *_SMALL_PAIRS)
        _pipeline("pretrain.py", *options, *_SMALL_TRAIN)
        with (out / "real.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(table)
        _pipeline("personalize_batch.py", str(out / "real.csv"), *options, *_SMALL_TRAIN)
        ready = 0
        for folder in sorted(out.glob("personalize/*/adapters/*")):
            load_adapter(folder)
            prompt = ["--prompt", "a video of it on a beach", "--set", "steps=4"]
            _pipeline("generate.py", "--adapter", str(folder), *options, *prompt)
            clips = list(out.glob(f"clips/{folder.name}-*.mp4"))
            ready += len(clips) == 1 and len(read_clip(clips[0])[0]) > 1
        return float(ready)


def test_minutes(seed: int) -> float:
    """Minutes of `make test` in a fresh clone, its install included."""
    return _make_in_clone("test")


def demo_minutes(seed: int) -> float:
    """Minutes of `make demo` in a fresh clone, its install included."""
    return _make_in_clone("demo")


ROWS = (
    Row(name="parity", measure=parity, rule="<=", bar=1e-5),
    Row(name="zero_init", measure=zero_init, rule="==", bar=0),
    Row(name="mixed_batch", measure=mixed_batch, rule="<=", bar=1e-5),
    Row(name="import_directions", measure=import_directions, rule="==", bar=0),
    Row(name="same_bytes", measure=same_bytes, rule="==", bar=0),
    Row(name="second_run_seconds", measure=second_run_seconds, rule="<=", bar=15),
    Row(name="four_commands", measure=four_commands, rule="==", bar=6),
    Row(name="bad_rows", measure=bad_rows, rule="==", bar=0),
    Row(name="real_subjects", measure=real_subjects, rule="==", bar=8),
    Row(name="test_minutes", measure=test_minutes, rule="<=", bar=6),
    Row(name="demo_minutes", measure=demo_minutes, rule="<=", bar=15),
)


# --- parts ---------------------------------------------------------------------------------------

_BROKEN = (
    "twin", "absent", "empty", "truncated", "huge", "text", "bracket", "steps",
)  # fmt: skip


def _tiny() -> Backbone:
    return load_backbone("tiny")


def _inputs(backbone: Backbone, seed: int, *, rows: int) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(seed)
    channels = backbone.codec.num_channels
    x = torch.randn(rows, channels, 3, 8, 8, generator=generator)
    views = torch.randn(rows, 4, channels, 8, 8, generator=generator)
    words = ("a red car", "a video of a sks mug on a beach", "thing", "a duck at night, turning")
    texts = [backbone.prompts(words[i % len(words)]) for i in range(rows)]
    return x, torch.rand(rows, generator=generator) * 1000, texts, views


def _random_lora(backbone: Backbone, role: Role, seed: int) -> LoraAdapter:
    lora = LoraAdapter(backbone.transformer, role=role, rank=16, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in lora.named_weights():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.02)
    return lora


def _run(command: Sequence[str], *, cwd: Path = ROOT) -> int:
    return run_logged(command, log="journey", cwd=cwd)


def _pipeline(script: str, *arguments: str) -> int:
    return _run(pipeline_command(script, *arguments))


def _subjects(out: Path, seed: int, *, count: int) -> Path:
    rows = ["subject,class_noun,images"]
    for i in range(count):
        subject = photograph(out / f"s{i}", 1_000_100 + 10 * seed + i, id=f"s{i}", num_images=4)
        rows.append(f"s{i},{subject.class_noun},s{i}/images")
    (out / "subjects.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return out / "subjects.csv"


def _served_clip(out: Path, subject: str, seed: int) -> int:
    """Ask a real server for one clip; 1 when an mp4 with several frames came back."""
    from pipelines.client import Order, serving

    with serving(out) as client:
        order = Order(subject=subject, prompt="a video of it on a beach", seed=seed)
        (path,) = client.make_clips([order], out / "served")
    return int(len(read_clip(path)[0]) > 1)


def _broken_table(out: Path, seed: int) -> Path:
    """One good row and one broken row for each of `_BROKEN`."""
    for name in ("good", *_BROKEN):
        photograph(out / name, 1_000_200 + seed, id=name, num_images=2)
    shutil.rmtree(out / "absent")
    for folder in ("images", "references"):
        for path in (out / "empty" / folder).iterdir():
            path.unlink()
    whole = (out / "truncated/images/001.png").read_bytes()
    (out / "truncated/images/001.png").write_bytes(whole[: len(whole) // 2])
    header = bytearray(whole[:33])
    header[16:24] = (40_000).to_bytes(4, "big") * 2
    header[29:33] = _crc(bytes(header[12:29]))
    (out / "huge/images/001.png").write_bytes(bytes(header) + whole[33:])
    (out / "text/images/001.png").write_text("no picture")
    rows = [["subject", "class_noun", "images", "prompts", "steps"]]
    for name in ("good", *_BROKEN):
        prompt = "a [sks] b [c d]" if name == "bracket" else ""
        steps = "many" if name == "steps" else ""
        rows.append(["good" if name == "twin" else name, "thing", f"{name}/images", prompt, steps])
    with (out / "broken.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return out / "broken.csv"


def _crc(data: bytes) -> bytes:
    import zlib

    return zlib.crc32(data).to_bytes(4, "big")


def _shared_table() -> list[list[str]]:
    folder = SHARED / "subjects"
    if not folder.is_dir():
        raise RowSkippedError("the folder of captured objects is not beside this checkout")
    rows = [["subject", "class_noun", "images"]]
    for subject in sorted(folder.iterdir()):
        noun = json.loads((subject / "metadata.json").read_text(encoding="utf-8"))["class_noun"]
        rows.append([subject.name, noun, str(subject / "references")])
    return rows


def _make_in_clone(target: str) -> float:
    with scratch_folder() as home:
        _run(["git", "clone", "-q", str(ROOT), str(home / "clone")])
        if SHARED.is_dir():
            (home / "shared").symlink_to(SHARED)
        started = time.monotonic()
        code = _run(["make", target], cwd=home / "clone")
        minutes = (time.monotonic() - started) / 60
    return minutes if code == 0 else float(np.nan)
