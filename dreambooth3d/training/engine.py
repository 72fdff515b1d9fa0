"""What turns a loss into an update: one process, several with averaged gradients, or DeepSpeed.

All engines train the same numbers: the mean gradient over the global batch, clipped by its global
norm, over a list of fp32 parameters. State leaves an engine in one form that does not depend on the
engine or on the number of workers.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from dreambooth3d.errors import ArtifactError, ConfigError
from dreambooth3d.training.checkpoint import Checkpoint
from dreambooth3d.training.optim import ADAM_MOMENTS, NamedOptimizer, adamw, state_names
from dreambooth3d.training.settings import STRATEGIES, OptimConfig, Strategy


class Engine(Protocol):
    """One rank's view of a training."""

    rank: int
    world_size: int

    def update(self, batches: Sequence[Any], lr: float) -> tuple[float, float]:
        """One update from this rank's slice of the batch, in equal parts run one after another.

        Forward, backward, average over parts and ranks, clip, step; returns the mean loss of the
        slice and the gradient norm before clipping.
        """

    def mean(self, value: float) -> float:
        """Average a number over ranks."""

    def weights(self) -> dict[str, Tensor]:
        """Full trained weights by parameter name, fp32 on the CPU (a call for every rank)."""

    def optimizer_state(self) -> dict[str, Tensor]:
        """Full optimizer moments as `<moment>/<parameter>` (a call for every rank)."""


def trained_parameters(task: nn.Module) -> dict[str, nn.Parameter]:
    """Name every parameter that learns; a task without one is a mistake."""
    found = {name: p for name, p in task.named_parameters() if p.requires_grad}
    if not found:
        raise ConfigError("a training must have parameters that learn, got none; check `method`")
    return found


class TorchEngine:
    """Plain PyTorch: one process, or several that average gradients (`ddp`).

    Adapters are a small fraction of the model, so one flat all-reduce after the backward pass costs
    little and keeps the order of additions fixed. The functional forward needs no wrapper.
    """

    def __init__(
        self,
        task: nn.Module,
        optim: OptimConfig,
        *,
        precision: torch.dtype = torch.float32,
        resume: Checkpoint | None = None,
    ) -> None:
        self._task = task
        self._named = trained_parameters(task)
        load_trained(self._named, resume, optim)
        self._parameters = list(self._named.values())
        self._optim = optim
        self._optimizer = NamedOptimizer(optim, self._named)
        if resume is not None and resume.step:
            self._optimizer.restore(resume.optimizer, step=resume.step)
        self._precision = precision
        is_spread = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = torch.distributed.get_rank() if is_spread else 0
        self.world_size = torch.distributed.get_world_size() if is_spread else 1

    def update(self, batches: Sequence[Any], lr: float) -> tuple[float, float]:
        """Accumulate gradients, average, clip, step."""
        device = self._parameters[0].device.type
        losses = []
        for batch in batches:
            with autocast(device, self._precision):
                loss = cast(Tensor, self._task(batch))
            torch.autograd.backward(loss / len(batches))
            losses.append(float(loss.detach()))
        return sum(losses) / len(losses), self._step(lr)

    def _step(self, lr: float) -> float:
        for parameter in self._parameters:
            # A factor that cannot reach the output still counts: every engine sees a zero.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._average_gradients()
        norm = nn.utils.clip_grad_norm_(self._parameters, self._optim.max_grad_norm)
        self._optimizer.step(lr)
        return float(norm)

    def _average_gradients(self) -> None:
        if self.world_size == 1:
            return
        grads = [cast(Tensor, p.grad) for p in self._parameters]
        flat = torch.cat([g.flatten() for g in grads]) / self.world_size
        torch.distributed.all_reduce(flat)
        for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def mean(self, value: float) -> float:
        """Average a number over ranks."""
        return _mean_over_ranks(value, self.world_size, self._parameters[0].device)

    def weights(self) -> dict[str, Tensor]:
        """Copy the trained weights."""
        return {n: p.detach().cpu().float().clone() for n, p in self._named.items()}

    def optimizer_state(self) -> dict[str, Tensor]:
        """Copy the optimizer's state."""
        return self._optimizer.state()


class DeepSpeedEngine:
    """DeepSpeed ZeRO-2 or ZeRO-3 around the same task."""

    def __init__(
        self,
        task: nn.Module,
        optim: OptimConfig,
        *,
        stage: Literal[2, 3],
        batch_share: int,
        num_parts: int = 1,
        precision: torch.dtype = torch.float32,
        resume: Checkpoint | None = None,
    ) -> None:
        if optim.optimizer != "adamw":
            raise ConfigError(
                f"optimizer must be adamw with zero{stage}, got {optim.optimizer}: it needs whole "
                "matrices and DeepSpeed cuts them; use strategy ddp or single"
            )
        deepspeed = import_deepspeed()
        self._named = trained_parameters(task)
        # Before DeepSpeed copies parameters into its shards, so that every copy agrees.
        load_trained(self._named, resume, optim)
        self._parameters = list(self._named.values())
        self._precision = precision
        self._num_finished = 0 if resume is None else resume.step
        self._engine, *_ = deepspeed.initialize(
            model=task,
            model_parameters=self._parameters,
            optimizer=adamw(optim, self._parameters),
            config=deepspeed_config(
                optim,
                stage=stage,
                batch_share=batch_share,
                num_parts=num_parts,
                precision=precision,
            ),
        )
        self.rank = torch.distributed.get_rank()
        self.world_size = torch.distributed.get_world_size()
        self._restore_moments(resume)

    def update(self, batches: Sequence[Any], lr: float) -> tuple[float, float]:
        """DeepSpeed accumulates, averages and clips; it steps with the last part."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        losses = []
        for batch in batches:
            with autocast(self._engine.device.type, self._precision):
                loss = cast(Tensor, self._engine(batch))
            self._engine.backward(loss)
            self._engine.step()
            losses.append(float(loss.detach()))
        self._num_finished += 1
        norm = self._engine.get_global_grad_norm()
        assert norm is not None, "DeepSpeed tells it after every step"
        return sum(losses) / len(losses), float(norm)

    def mean(self, value: float) -> float:
        """Average a number over ranks."""
        return _mean_over_ranks(value, self.world_size, self._engine.device)

    def weights(self) -> dict[str, Tensor]:
        """Gather the fp32 master weights."""
        from deepspeed.utils import safe_get_full_fp32_param

        return {
            name: safe_get_full_fp32_param(p).detach().cpu().float().clone()
            for name, p in self._named.items()
        }

    def optimizer_state(self) -> dict[str, Tensor]:
        """Gather AdamW's moments from their shards; zeros before the first update."""
        from deepspeed.utils import (
            safe_get_full_fp32_param,
            safe_get_full_optimizer_state,
        )

        state: dict[str, Tensor] = {}
        has_moments = self._num_finished > 0
        for name, parameter in self._named.items():
            for moment in ADAM_MOMENTS:
                value = (
                    safe_get_full_optimizer_state(parameter, moment)
                    if has_moments
                    else torch.zeros_like(safe_get_full_fp32_param(parameter))
                )
                state[f"{moment}/{name}"] = value.detach().cpu().float().clone()
        return state

    def _restore_moments(self, resume: Checkpoint | None) -> None:
        """Put moments back into every rank's shard."""
        if resume is None or resume.step == 0:
            return
        from deepspeed.utils import safe_set_full_optimizer_state

        self._make_moments(resume.step)
        for name, parameter in self._named.items():
            for moment in ADAM_MOMENTS:
                value = resume.optimizer[f"{moment}/{name}"].to(parameter.device)
                safe_set_full_optimizer_state(parameter, value, moment)

    def _make_moments(self, step: int) -> None:
        """Give the sharded optimizer its state tensors, as its first update would.

        DeepSpeed links parameters to their moments at the first step only; a resumed training needs
        the link before it.
        """
        sharded = self._engine.optimizer
        shards = (
            sharded.fp32_partitioned_groups_flat
            if hasattr(sharded, "fp32_partitioned_groups_flat")
            else sharded.single_partition_of_fp32_groups
        )
        for shard in shards:
            sharded.optimizer.state[shard] = {
                "step": torch.tensor(float(step)),
                **{moment: torch.zeros_like(shard) for moment in ADAM_MOMENTS},
            }
        if hasattr(sharded, "_lazy_init_hp_params_optimizer_state"):
            sharded._lazy_init_hp_params_optimizer_state()


def import_deepspeed() -> ModuleType:
    """Import DeepSpeed; on CPUs without its shared-memory collectives.

    DeepSpeed would compile them at the first use, behind a lock file that outlives a killed process
    and makes every later training wait for ever. Gloo does the same work.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    if not torch.cuda.is_available():
        __compatible_ops__["deepspeed_shm_comm"] = False
    return cast(ModuleType, deepspeed)


def deepspeed_config(
    optim: OptimConfig,
    *,
    stage: Literal[2, 3],
    batch_share: int,
    num_parts: int,
    precision: torch.dtype,
) -> dict[str, Any]:
    """Build DeepSpeed's configuration; the optimizer object is given apart."""
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": False, "contiguous_gradients": True}
    if stage == 3:
        zero["stage3_param_persistence_threshold"] = 0
    return {
        "train_micro_batch_size_per_gpu": batch_share // num_parts,
        "gradient_accumulation_steps": num_parts,
        "gradient_clipping": optim.max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # DeepSpeed switches an outer autocast off unless it is told of it.
        "torch_autocast": {"enabled": precision == torch.bfloat16, "dtype": "bfloat16"},
        "steps_per_print": 10**9,
    }


def build_engine(
    strategy: Strategy,
    task: nn.Module,
    optim: OptimConfig,
    *,
    batch_share: int,
    num_parts: int = 1,
    precision: torch.dtype = torch.float32,
    resume: Checkpoint | None = None,
) -> Engine:
    """Build an engine by name, at the start or where a checkpoint ends.

    `batch_share` is the rows of a batch on this rank, which come in `num_parts` equal parts.
    """
    if strategy in ("single", "ddp"):
        return TorchEngine(task, optim, precision=precision, resume=resume)
    if strategy in ("zero2", "zero3"):
        return DeepSpeedEngine(
            task,
            optim,
            stage=2 if strategy == "zero2" else 3,
            batch_share=batch_share,
            num_parts=num_parts,
            precision=precision,
            resume=resume,
        )
    raise ConfigError(
        f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}; choose one"
    )


def autocast(device: str, precision: torch.dtype) -> AbstractContextManager[object]:
    """Mixed precision for bf16, nothing for fp32; adapters stay fp32 masters.

    Nothing on the meta device either: torch has none there, and operations are only counted.
    """
    if precision == torch.float32 or device == "meta":
        return nullcontext()
    return torch.autocast(device, dtype=precision)


def load_trained(
    named: Mapping[str, nn.Parameter], resume: Checkpoint | None, optim: OptimConfig
) -> None:
    """Copy a checkpoint's weights into a task.

    Raises:
        ArtifactError: it holds other parameters; a partly restored training would be silently
            wrong.
    """
    if resume is None:
        return
    state = state_names(optim, named)
    if set(resume.weights) != set(named) or set(resume.optimizer) != state:
        raise ArtifactError(
            "a checkpoint must hold the weights and moments of exactly the trained parameters, "
            "got other names; it belongs to another configuration, use another --out"
        )
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(resume.weights[name])


def _mean_over_ranks(value: float, world_size: int, device: torch.device) -> float:
    if world_size == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return float(total) / world_size
