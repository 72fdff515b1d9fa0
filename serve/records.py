"""What a job is, apart from how it is stored."""

from dataclasses import dataclass
from typing import Literal, get_args

from dreambooth3d.artifacts.jsonfile import JsonValue
from dreambooth3d.errors import Dreambooth3dError

Status = Literal["queued", "in_progress", "completed", "failed", "canceled"]
STATUSES: tuple[Status, ...] = get_args(Status)
LIVE: tuple[Status, ...] = ("queued", "in_progress")


class QueueFullError(Dreambooth3dError):
    """As many jobs are queued as the operator allows."""


class QuotaError(Dreambooth3dError):
    """An owner has as many unfinished jobs as its key allows."""


class IdempotencyError(Dreambooth3dError):
    """An idempotency key came back with another request."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What `submit` stores.

    Attributes:
        request: the resolved order, JSON.
        request_hash: of what the client sent; decides whether an idempotency key is a repeat.
        batch_key: jobs of equal key may share a batch.
        num_tokens: latent tokens of the clip.
        steps: denoising steps it will take.
    """

    request: dict[str, JsonValue]
    request_hash: str
    batch_key: str
    num_tokens: int
    steps: int
    idempotency_key: str | None = None
    owner: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row, as read. Times in Unix seconds; `number` grows with every submit."""

    number: int
    id: str
    owner: str
    idempotency_key: str | None
    request_hash: str
    request: dict[str, JsonValue]
    batch_key: str
    num_tokens: int
    status: Status
    progress: int
    step: int
    steps: int
    attempts: int
    lease_owner: str | None
    lease_expires: float | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    expires_at: float | None
    stage_seconds: dict[str, float]
    batch_size: int | None
    adapter: dict[str, JsonValue] | None
    result_path: str | None
    error_code: str | None
    error_message: str | None

    @property
    def is_live(self) -> bool:
        """Whether it can still change."""
        return self.status in LIVE


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Jobs of equal `batch_key` that one engine works on; `token` is its right to write them."""

    token: str
    jobs: tuple[Job, ...]
