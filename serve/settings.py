"""What the operator chooses. Arguments win over `DREAMBOOTH3D_*` variables, those over defaults."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ENV_PREFIX = "DREAMBOOTH3D_"


def database_in_environment() -> bool:
    """Whether the job table's URL, which may hold a password, is given as a variable."""
    return bool(os.environ.get(f"{ENV_PREFIX}DATABASE"))


class ServeSettings(BaseModel):
    """Settings of one Serve application.

    Attributes:
        backbone: `tiny`, a diffusers folder or a hub id.
        runs: where `personalize/` is read and `serve/` (jobs, clips) is written.
        database: SQLAlchemy URL of the job table; empty is SQLite in `runs/serve`.
        registry: MLflow whose adapters with the alias `serving` are served beside those below
            `runs`, and before them; empty is `MLFLOW_TRACKING_URI`, else the store in `runs`.
        registry_look_s: pause between looks at it.
        reference_attention: which adapters are accepted; `any` never mixes the two in a batch.
        device: torch device of the engine.
        max_batch, max_batch_tokens: bounds of one batch, in clips and in latent tokens.
        max_clip_tokens: largest clip, in latent tokens; 0 is 16 times the backbone's default clip.
        max_steps: most denoising steps of a clip.
        max_queued: queued jobs before new ones get 429.
        adapter_megabytes: memory for loaded adapters.
        max_attempts: claims of one job before it fails.
        lease_s: a silent engine loses its jobs after this long.
        stall_s: an engine without a denoising step for this long is unhealthy.
        poll_s: pause between looks at an empty queue.
        keep_s: how long finished clips are kept.
        drain_s: how long a stopping engine may finish its batch; longer than a clip.
        pretrained: 3Dapter that uploaded subjects start from, a folder or `tiny`; empty
            trains them without references.
        subject_steps: updates of an uploaded subject; its task needs a core, or a GPU, beside those
            of the engines.
        max_trainings: uploaded subjects that may wait or train before new ones get 429.
        require_keys: `auto` asks for API keys unless the server listens on loopback alone.
        engine_replicas: engines, at least; 0, with a maximum, lets them go while nothing waits.
        max_engine_replicas: engines, at most; 0 keeps their number at `engine_replicas`.
        scale_up_age_s: a job that waits longer asks for one more engine.
        scale_down_s: engines are let go when fewer have been enough for this long.
        engine_cpus, engine_gpus: Ray resources of one engine.
        engine_threads: threads an engine computes with on a CPU; 0 is its share of the cores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = "tiny"
    runs: str = "runs"
    database: str = ""
    registry: str = ""
    registry_look_s: float = Field(default=10.0, gt=0)
    reference_attention: Literal["any", "joint", "isolated"] = "any"
    device: str = "cpu"
    max_batch: int = Field(default=8, ge=1)
    max_batch_tokens: int = Field(default=65_536, ge=1)
    max_clip_tokens: int = Field(default=0, ge=0)
    max_steps: int = Field(default=100, ge=1)
    max_queued: int = Field(default=1000, ge=1)
    adapter_megabytes: int = Field(default=2048, ge=1)
    max_attempts: int = Field(default=5, ge=1)
    lease_s: float = Field(default=20.0, gt=0)
    stall_s: float = Field(default=600.0, gt=0)
    poll_s: float = Field(default=0.02, gt=0)
    keep_s: float = Field(default=86_400.0, gt=0)
    drain_s: float = Field(default=120.0, ge=0)
    pretrained: str = "tiny"
    subject_steps: int = Field(default=400, ge=1)
    max_trainings: int = Field(default=16, ge=1)
    require_keys: Literal["auto", "always", "never"] = "auto"
    engine_replicas: int = Field(default=1, ge=0)
    max_engine_replicas: int = Field(default=0, ge=0)
    scale_up_age_s: float = Field(default=30.0, gt=0)
    scale_down_s: float = Field(default=300.0, gt=0)
    engine_cpus: float = Field(default=1.0, ge=0)
    engine_gpus: float = Field(default=0.0, ge=0)
    engine_threads: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_environment(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        found = {
            name: os.environ[ENV_PREFIX + name.upper()]
            for name in cls.model_fields
            if ENV_PREFIX + name.upper() in os.environ
        }
        return found | dict(given)

    @model_validator(mode="after")
    def _check_replicas(self) -> "ServeSettings":
        if self.engine_replicas == 0 == self.max_engine_replicas:
            raise ValueError(
                "max_engine_replicas must be at least 1 where engine_replicas is 0, got 0; "
                "without an engine no job ends"
            )
        if 0 < self.max_engine_replicas < self.engine_replicas:
            raise ValueError(
                f"max_engine_replicas must be at least engine_replicas, got "
                f"{self.max_engine_replicas} and {self.engine_replicas}; raise it, or leave it 0"
            )
        return self

    def absolute(self) -> "ServeSettings":
        """Resolve folders against the working directory; replicas may run in another one."""
        backbone = Path(self.backbone)
        is_folder = (backbone / "model_index.json").is_file()
        return self.model_copy(
            update={
                "runs": str(Path(self.runs).absolute()),
                "backbone": str(backbone.absolute()) if is_folder else self.backbone,
            }
        )

    @property
    def most_engines(self) -> int:
        """How many engines there may be at once."""
        return max(self.engine_replicas, self.max_engine_replicas)

    @property
    def subjects_root(self) -> Path:
        """Where `personalize_batch` leaves its batches."""
        return Path(self.runs) / "personalize"

    @property
    def uploaded_root(self) -> Path:
        """Where each uploaded subject has a folder of all that was made of it."""
        return Path(self.runs) / "serve" / "subjects"

    @property
    def registry_root(self) -> Path:
        """Where adapters of the registry are copied to."""
        return Path(self.runs) / "serve" / "registry"

    @property
    def subject_roots(self) -> tuple[Path, ...]:
        """Where the operator's subjects are; the first adapter of an id is served."""
        return self.registry_root, self.subjects_root

    @property
    def uploads_root(self) -> Path:
        """Where uploaded photos are kept until their subject is deleted."""
        return Path(self.runs) / "serve" / "uploads"

    @property
    def results_root(self) -> Path:
        """Where clips are written."""
        return Path(self.runs) / "serve" / "videos"

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the job table."""
        return self.database or f"sqlite:///{Path(self.runs) / 'serve' / 'jobs.sqlite3'}"
