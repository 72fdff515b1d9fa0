"""Settings of the pretrain stage (arXiv 2603.18524, stage 1)."""

import math
from dataclasses import dataclass
from typing import Literal

from dreambooth3d.artifacts.settings import require_choices, require_range, resource
from dreambooth3d.errors import ConfigError
from dreambooth3d.model.choices import ReferenceAttention
from dreambooth3d.training.settings import (
    AVERAGED_EVERY,
    OptimConfig,
    OptimizerName,
    Schedule,
    Strategy,
)


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How the 3Dapter is trained; defaults are the published recipe.

    Attributes:
        backbone: `tiny`, a diffusers folder or a hub id.
        start: a 3Dapter to train on from, a folder or the name of a packaged one; empty starts
            anew.
        strategy: `single` (no process group), `ddp`, `zero2` or `zero3`; with `zero3` no worker
            ever holds more of the frozen transformer than its share and one weight.
        workers: Ray Train workers.
        device: `gpu` asks the cluster for one for each worker and waits until it has them, `cpu`
            takes none, `auto` takes those that are there at the start.
        steps, batch_size, lr, schedule, warmup_steps: of the optimization; batch over all workers.
        optimizer: `adamw`; `muon` or `prodigy` (with lr=1) where every worker has whole matrices,
            which are `single` and `ddp`.
        micro_batch_size: samples of a worker that are run at a time, to save memory; 0 runs all of
            its share at once.
        rank: of the LoRA.
        sigma_shift: k of the noise-level shift; 3 published.
        text_dropout, reference_dropout: share of samples without text, with blank views.
        reference_attention: `joint` (published) or `isolated` (references see references only).
        reference_time_offset: added to the time index of every view; 0 published.
        size: side of the square training pictures; 0 takes the backbone's own.
        seed: of the data order, the noise and the first weights.
        precision: `fp32` or `bf16` for the forward; adapters are fp32 either way.
        average_decay: of the weights' average, which is then what is published; 0 publishes the
            last weights.
        is_checkpointed: recompute blocks in the backward pass to save memory.
        is_validated: judge every checkpoint on the corpus's held-out subjects, in a process apart.
        patience: validations in a row without a lower held-out loss that end the training; what is
            published is then the best checkpoint. 0 trains all steps and publishes the end.
        checkpoints: folder or URL of checkpoints, such as s3://bucket/prefix; empty puts them
            beside the adapters.
        keep, keep_best: checkpoints that stay: the newest ones, and those with the lowest held-out
            loss.
        save_every, log_every: updates between checkpoints and between printed lines.
    """

    backbone: str = "tiny"
    start: str = ""
    strategy: Strategy = resource("zero2")
    workers: int = resource(1)
    device: Literal["auto", "gpu", "cpu"] = resource("auto")
    steps: int = 25_000
    batch_size: int = 32
    optimizer: OptimizerName = "adamw"
    micro_batch_size: int = resource(0)
    lr: float = 1e-4
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    rank: int = 16
    sigma_shift: float = 3.0
    text_dropout: float = 0.1
    reference_dropout: float = 0.1
    reference_attention: ReferenceAttention = "joint"
    reference_time_offset: int = 0
    size: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"
    average_decay: float = 0.0
    is_checkpointed: bool = resource(False)
    seed: int = 0
    is_validated: bool = resource(True)
    patience: int = 0
    checkpoints: str = resource("")
    keep: int = resource(2)
    keep_best: int = resource(1)
    save_every: int = resource(250)
    log_every: int = resource(10)

    def __post_init__(self) -> None:
        """Check ranges."""
        require_choices(self)
        require_range(
            self, "workers", "steps", "batch_size", "rank", "keep", "save_every", "log_every",
            least=1,
        )  # fmt: skip
        require_range(self, "micro_batch_size", "patience", "keep_best", least=0)
        if self.patience and not (self.is_validated and self.keep_best):
            raise ConfigError(
                f"patience must be 0 without is_validated and keep_best, got {self.patience}; "
                "it ends a training by the held-out loss and publishes the best checkpoint"
            )
        require_range(self, "text_dropout", "reference_dropout", "average_decay", least=0, below=1)
        require_range(self, "seed", "size", least=0, below=2**63)
        require_range(self, "sigma_shift", above=0, below=math.inf)
        if self.average_decay and min(self.steps, self.save_every) < AVERAGED_EVERY:
            raise ConfigError(
                f"steps and save_every must be at least {AVERAGED_EVERY} with average_decay, got "
                f"{self.steps} and {self.save_every}; the average begins there"
            )
        if self.strategy == "single" and self.workers != 1:
            raise ConfigError(
                f"workers must be 1 with strategy single, got {self.workers}; use ddp or zero2"
            )
        if self.batch_size % self.workers:
            raise ConfigError(
                f"batch_size must be a multiple of workers ({self.workers}), "
                f"got {self.batch_size}; change one of them"
            )
        if self.micro_batch_size and self.batch_share % self.micro_batch_size:
            raise ConfigError(
                f"micro_batch_size must divide the {self.batch_share} samples of a worker, "
                f"got {self.micro_batch_size}; change it or batch_size"
            )
        if self.optimizer != "adamw" and self.strategy not in ("single", "ddp"):
            raise ConfigError(
                f"strategy must be single or ddp with optimizer {self.optimizer}, "
                f"got {self.strategy}; DeepSpeed cuts the matrices that it needs whole"
            )
        self.optim.lr_at(0, self.steps)

    @property
    def optim(self) -> OptimConfig:
        """Optimizer settings."""
        return OptimConfig(
            optimizer=self.optimizer,
            lr=self.lr,
            schedule=self.schedule,
            warmup_steps=self.warmup_steps,
        )

    @property
    def batch_share(self) -> int:
        """Samples of a batch on one worker."""
        return self.batch_size // self.workers

    @property
    def num_parts(self) -> int:
        """Parts of a worker's share that are run one after another."""
        return self.batch_share // self.micro_batch_size if self.micro_batch_size else 1
