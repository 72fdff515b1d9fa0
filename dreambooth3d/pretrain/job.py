"""Stage 1 on Ray Train: workers train together, the first one publishes the adapter."""

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Queue

from dreambooth3d.artifacts.adapter import find_adapter
from dreambooth3d.artifacts.key import exclusive, point_latest
from dreambooth3d.artifacts.manifest import Manifest
from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import ConfigError, InputError, RunError, StoppedError
from dreambooth3d.model.backbone import localize, read_card
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.judge import Judge, read_validations
from dreambooth3d.pretrain.loading import load_inputs
from dreambooth3d.pretrain.planning import key_of, latents_told, storage_of
from dreambooth3d.pretrain.pretrain import HELD_OUT, TRAINED_ON, train_adapter
from dreambooth3d.pretrain.publishing import manifest_sha256, publish_adapter
from dreambooth3d.pretrain.recording import UnsentRuns, record_training
from dreambooth3d.pretrain.stopping import decide, held_out_losses
from dreambooth3d.runtime.relay import relayed
from dreambooth3d.runtime.session import last_line, ray_session, stopping, threads_for
from dreambooth3d.runtime.system import SystemMetrics
from dreambooth3d.runtime.tracking import recording
from dreambooth3d.training.checkpoint import (
    Checkpoint,
    drop_checkpoints,
    load_checkpoint,
    saved_steps,
)
from dreambooth3d.training.loop import Callbacks, Progress

_MAX_RESTARTS = 3
# A preemption is announced a minute or more ahead; asking makes the workers wait for each other.
_LOOK_EVERY = 5
_STOP_NAME, _POLL_SECONDS = "stop", 0.5
# A lost worker or node: the others start again with it from the last checkpoint.
_MAX_FAILURES = 3


def run(
    config: PretrainConfig, corpus: Path | str, out: Path, *, report: Callable[[str], None] = print
) -> Manifest:
    """Train into `out/<key>`, going on from the last checkpoint of an interrupted run.

    Args:
        config: of the training.
        corpus: a folder or a URL.
        out: folder of adapters; all workers must reach it.
        report: told how far it is.
    """
    start = str(find_adapter(config.start).resolve()) if config.start else ""
    config = replace(config, backbone=localize(config.backbone), start=start)
    key = key_of(config, corpus)
    final = out / key
    storage, unsent = storage_of(config, out, key), UnsentRuns(out)
    with exclusive(out, key):
        unsent.add(key, {**asdict(config), "checkpoints": storage.parent.url})
        if final.is_dir():
            report(f"pretrain {key}: already trained, nothing to do")
            # Of a run that was killed just before it dropped them.
            drop_checkpoints(storage)
        else:
            found = PairCorpus.open(corpus, split=TRAINED_ON, verify=True)
            told = latents_told(config, found, read_card(config.backbone))
            report(f"pretrain {key}: {told}")
            _train(config, found.place, out.resolve(), storage, report)
            report(f"pretrain {key}: adapter at {final}")
    point_latest(out, key)
    with recording(report):
        # With those that a server was not there for before.
        for earlier, params in unsent.all():
            record_training(out / earlier, params, out.parent)
            unsent.remove(earlier)
    return Manifest.load(final)


def _train(
    config: PretrainConfig, corpus: Place, out: Path, storage: Place, report: Callable[[str], None]
) -> None:
    key = storage.name
    report(f"pretrain {key}: starting {config.workers} worker(s), about half a minute")
    with ray_session(), relayed(report) as lines:
        has_gpu = _has_gpus(config)
        threads = threads_for(config.workers)
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                # The storage is given apart: a URL may hold keys.
                "config": asdict(replace(config, checkpoints="")),
                "corpus": corpus,
                "corpus_sha256": manifest_sha256(corpus),
                "out": str(out),
                "storage": storage,
                "key": key,
                "threads": threads,
                "lines": lines,
                "judge": _start_judge(
                    replace(config, checkpoints=""),
                    corpus,
                    out / ".checkpoints" / key,
                    lines,
                    report,
                ),
            },
            scaling_config=ScalingConfig(
                num_workers=config.workers,
                use_gpu=has_gpu,
                resources_per_worker=None if has_gpu else {"CPU": threads},
            ),
            run_config=RunConfig(
                name=key,
                storage_path=str(out / ".ray"),
                failure_config=FailureConfig(max_failures=_MAX_FAILURES),
            ),
            torch_config=TorchConfig(backend="nccl" if has_gpu else "gloo"),
        )
        try:
            was_stopped = _fit(trainer, out / ".checkpoints" / key / _STOP_NAME, report)
        except TrainingFailedError as error:
            raise RunError(
                f"pretraining must finish, got: {last_line(error)}; "
                "run the same command again to go on from the last checkpoint"
            ) from error
    # The wish may have come in the last step.
    if was_stopped and not (out / key).is_dir():
        raise KeyboardInterrupt


def _fit(trainer: TorchTrainer, stop: Path, report: Callable[[str], None]) -> bool:
    """Train; at Ctrl-C and SIGTERM the workers save and end first. True when that was asked."""
    stop.unlink(missing_ok=True)
    # In a thread of its own: in the first one Ray Train takes Ctrl-C, and ends without saving.
    pool = ThreadPoolExecutor(1)
    try:
        with stopping() as has_to_stop:
            fitting = pool.submit(trainer.fit)
            while not wait([fitting], timeout=_POLL_SECONDS).done:
                if has_to_stop.is_set() and not stop.is_file():
                    report("pretrain: stops after the step at hand; once more ends at once")
                    stop.parent.mkdir(parents=True, exist_ok=True)
                    stop.touch()
        fitting.result()
    finally:
        pool.shutdown(wait=False)
        was_asked = stop.is_file()
        stop.unlink(missing_ok=True)
    return was_asked


def _has_gpus(config: PretrainConfig) -> bool:
    """Whether every worker gets a GPU; without asking, a cluster with too little is a mistake."""
    if config.device != "auto":
        return config.device == "gpu"
    num_workers = config.workers
    num_gpus = int(ray.cluster_resources().get("GPU", 0))
    if 0 < num_gpus < num_workers:
        raise ConfigError(
            f"workers must be at most the cluster's GPUs ({num_gpus}), got {num_workers}; "
            "lower workers, or ask for GPUs with --set device=gpu"
        )
    num_cpus = int(ray.cluster_resources().get("CPU", 0))
    if not num_gpus and num_cpus < num_workers:
        raise ConfigError(
            f"workers must be at most the cluster's cores ({num_cpus}), got {num_workers}; "
            "lower workers, or wait for more with --set device=cpu or device=gpu"
        )
    return num_gpus > 0


def _start_judge(
    config: PretrainConfig, corpus: Place, folder: Path, lines: Queue, report: Callable[[str], None]
) -> Any:
    """Start the actor that judges checkpoints; None where the corpus has nothing held out."""
    if not config.is_validated:
        return None
    # Damage that is found after the last step costs the training.
    if not len(PairCorpus.open(corpus, split=HELD_OUT, verify=True)):
        if config.patience:
            raise ConfigError(
                "patience must be 0 for a corpus without held-out subjects, "
                f"got {config.patience}; build pairs with --set held_out_share=0.05"
            )
        report(
            "pretrain: the corpus has no held-out subjects, checkpoints are not judged "
            "(build pairs with --set held_out_share=0.05)"
        )
        return None
    # A GPU that no worker takes, else none: it must never wait for the training's own.
    num_spare = int(ray.cluster_resources().get("GPU", 0)) - config.workers
    actor = ray.remote(Judge).options(
        num_cpus=0,
        num_gpus=1 if num_spare > 0 else 0,
        max_restarts=_MAX_RESTARTS,
        max_task_retries=_MAX_RESTARTS,
    )
    return actor.remote(config, corpus, folder, lines)


class _Rank:
    """What one rank tells the driver, and asks of the cluster."""

    def __init__(
        self,
        config: PretrainConfig,
        folder: Path,
        storage: Place,
        lines: Queue,
        judge: Any,
        system: SystemMetrics,
    ) -> None:
        self._config, self._folder, self._lines = config, folder, lines
        self._storage = storage
        self._judge, self._system = judge, system
        self._started = folder / "started"
        self._is_saved = False
        self._judging: list[Any] = []
        self.is_first = ray.train.get_context().get_world_rank() == 0

    @property
    def callbacks(self) -> Callbacks:
        """For the loop."""
        return Callbacks(
            on_start=self.on_start,
            on_step=self.on_step,
            must_save=self.must_save,
            on_save=self.on_save,
            scores=self.scores,
            must_stop=self.must_stop if self._config.patience else None,
            must_end=self.must_end,
        )

    def on_start(self, step: int) -> None:
        """Say where an interrupted training goes on."""
        if not self.is_first:
            return
        was_at = int(self._started.read_text() or 0) if self._started.is_file() else None
        lost = f", {was_at - step} steps were lost" if was_at is not None and was_at > step else ""
        if step:
            self.say(f"goes on from the checkpoint of step {step}/{self._config.steps}{lost}")
        elif was_at is not None:
            self.say(f"had no checkpoint yet, starts again from step 0/{self._config.steps}{lost}")
        self._started.parent.mkdir(parents=True, exist_ok=True)
        self._started.write_text(str(step))
        self._judge_again()

    def _judge_again(self) -> None:
        """Hand over what was saved and lost its judge: the queue before it ends with a driver."""
        if self._judge is None:
            return
        judged = {row["step"] for row in read_validations(self._folder)}
        for step in saved_steps(self._storage):
            if step not in judged:
                saved = load_checkpoint(self._storage, run_key=self._folder.name, step=step)
                assert saved is not None
                self.on_save(saved)

    def on_step(self, progress: Progress) -> None:
        """Tell the driver every so many updates, and Ray Train of every checkpoint."""
        config = self._config
        is_last = progress.step == config.steps
        if progress.step % config.log_every == 0 or is_last:
            self._system.sample(progress.step)
            self.say(f"{progress.line()} {config.batch_size / progress.seconds:.1f} pairs/s")
            if self.is_first:
                self._started.write_text(str(progress.step))
        # Ray Train takes a report every two seconds and lets the next one wait until then.
        if progress.step % config.save_every == 0 or is_last:
            ray.train.report({"step": progress.step, "loss": progress.loss})

    def must_save(self, step: int) -> bool:
        """Whether a node of the training has been told to go; true once."""
        if self._is_saved or step % _LOOK_EVERY or ray.train.get_preemption_info() is None:
            return False
        self._is_saved = True
        self.say(f"a node is about to go, saving at step {step}")
        return True

    def must_end(self) -> bool:
        """Whether the command was told to stop; the first rank knows."""
        return self.is_first and (self._folder / _STOP_NAME).is_file()

    def on_save(self, checkpoint: Checkpoint) -> None:
        """Hand the weights to who judges them; only patience waits, for those handed before."""
        if self._judge is None:
            return
        if self._config.patience:
            ray.get(self._judging)
        self._judging.append(
            self._judge.judge.remote(checkpoint.step, checkpoint.average or checkpoint.weights)
        )

    def scores(self) -> dict[int, float]:
        """Held-out losses of the checkpoints that have been judged so far."""
        return self._losses(read_validations(self._folder))

    def must_stop(self) -> bool:
        """Whether patience has run out; the first rank knows."""
        if not self.is_first:
            return False
        verdict = decide(self.scores(), self._config.patience)
        if verdict is None or not verdict.is_over:
            return False
        self.say(f"no better for {self._config.patience} validations, ends early")
        return True

    def choose(self) -> int | None:
        """The best checkpoint where there is patience; waits until all have been judged."""
        if not (self._config.patience and self.is_first):
            return None
        verdict = decide(self._losses(self.validations()), self._config.patience)
        if verdict is not None:
            self.say(f"the checkpoint of step {verdict.best} is the best")
        return None if verdict is None else verdict.best

    def _losses(self, validations: list[dict[str, Any]]) -> dict[int, float]:
        config = self._config
        return held_out_losses(validations, every=config.save_every, last=config.steps)

    def validations(self) -> list[dict[str, Any]]:
        """What has been found of every checkpoint; waits for the last one.

        A judge that failed costs its judgements alone, unless patience goes by them.
        """
        if self._judge is None:
            return []
        for judging in self._judging:
            try:
                ray.get(judging)
            except RayError as error:
                if self._config.patience:
                    raise
                self.say(f"held-out subjects could not all be judged, got: {last_line(error)}")
        return read_validations(self._folder)

    def say(self, line: str) -> None:
        """Tell the driver a line."""
        if self.is_first:
            self._lines.put(f"pretrain {self._folder.name}: {line}")


def _worker(arguments: Mapping[str, Any]) -> None:
    """One rank; every rank trains, the first one speaks, saves and publishes."""
    import torch

    torch.set_num_threads(int(arguments["threads"]))
    config = PretrainConfig(**arguments["config"])
    out, key = Path(arguments["out"]), str(arguments["key"])
    working, storage = out / ".checkpoints" / key, arguments["storage"]
    system = SystemMetrics()
    rank = _Rank(config, working, storage, arguments["lines"], arguments["judge"], system)
    corpus, corpus_sha256 = arguments["corpus"], arguments["corpus_sha256"]
    if manifest_sha256(corpus) != corpus_sha256:
        raise InputError(
            f"the corpus at {corpus.url} must stay as it was when the training began, got another "
            "manifest; put it back, or run the command again to train on what is there"
        )
    if (out / key).is_dir():
        # Another worker was lost after the adapter had been published.
        return
    backbone, examples = load_inputs(config, corpus)
    try:
        adapter, result = train_adapter(
            config,
            backbone,
            examples,
            run_key=key,
            folder=storage,
            callbacks=rank.callbacks,
            choose=rank.choose,
        )
    except StoppedError as stopped:
        # No failure: Ray Train would start it again.
        rank.say(str(stopped))
        return
    if rank.is_first:
        publish_adapter(
            config,
            adapter,
            result,
            rank.validations(),
            out / key,
            corpus_sha256=corpus_sha256,
            system=system.points,
        )
        drop_checkpoints(storage)
        shutil.rmtree(working, ignore_errors=True)
