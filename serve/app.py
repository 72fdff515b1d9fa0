"""The Ray Serve application: `serve run serve.app:app`, or `serve.app:build max_batch=4`.

Deployments that share only the database. The ingress answers HTTP and never waits for a clip; the
trainer learns uploaded subjects; an engine replica holds the backbone and works in threads of its
own, so its event loop stays free for health checks.
"""

import asyncio
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException

from dreambooth3d.runtime.session import threads_for
from serve.access import is_loopback
from serve.autoscaling import autoscaling_of
from serve.engine import Engine
from serve.logs import log_as_json
from serve.registry import RegistryWatch
from serve.routes import make_api
from serve.services import open_services
from serve.settings import ServeSettings
from serve.trainer import Trainer

_READY_TIMEOUT_S = 5.0
# Ray kills a replica at the end of its grace; the engine needs some of it to give jobs back.
_GRACE_MARGIN_S = 10.0
_INGRESS_ONGOING = 256
_HEALTH_PERIOD_S = 10.0
_HEALTH_TIMEOUT_S = 30.0


class EngineReplica:
    """An engine, its health and its graceful end."""

    def __init__(self, settings: ServeSettings) -> None:
        log_as_json()
        self._drain_s = settings.drain_s
        # Ray gives an actor as many threads as whole CPUs it asks for, here one.
        torch.set_num_threads(settings.engine_threads or threads_for(settings.most_engines))
        self._engine = Engine(settings)
        self._engine.start()

    async def is_warm(self) -> bool:
        """Whether a first clip has gone through the backbone."""
        return self._engine.is_warm

    def check_health(self) -> None:
        """Raise when the engine's threads died or a step hangs; Ray then replaces the replica."""
        self._engine.check()

    async def __del__(self) -> None:
        """Finish the running batch, within limits, before the replica goes."""
        if hasattr(self, "_engine"):
            await asyncio.to_thread(self._engine.stop, drain_s=self._drain_s)


class TrainerReplica:
    """Trains uploaded subjects, and fetches those of the registry."""

    def __init__(self, settings: ServeSettings) -> None:
        log_as_json()
        self._trainer = Trainer(settings)
        self._registry = RegistryWatch(settings)

    def check_health(self) -> None:
        """Raise when a thread died; Ray then replaces the replica."""
        self._trainer.check()
        self._registry.check()

    async def __del__(self) -> None:
        """Give a running training back before the replica goes."""
        if hasattr(self, "_registry"):
            await asyncio.to_thread(self._trainer.stop)
            await asyncio.to_thread(self._registry.stop)


class Ingress:
    """The HTTP interface of one Serve application."""

    def __init__(self, settings: ServeSettings, engine: Any, _trainer: Any) -> None:
        log_as_json()
        self._engine = engine
        self._may_sleep = settings.engine_replicas == 0
        self._services = open_services(
            settings, self._is_ready, is_loopback=is_loopback(_http_host())
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the routes inside the replica."""
        return make_api(self._services)

    async def _is_ready(self) -> bool:
        if self._may_sleep:
            # A question would wake an engine; a job does.
            return True
        try:
            answer = self._engine.is_warm.remote()
            return bool(await asyncio.wait_for(_resolve(answer), _READY_TIMEOUT_S))
        except (TimeoutError, RayError, RayServeException):
            return False


def _http_host() -> str:
    """Address that Serve's proxies listen on; there is no public way to ask for it."""
    client = _get_global_client()
    return "" if client is None else str(client.http_config.host)


async def _resolve(answer: Any) -> bool:
    return bool(await answer)


def _number_of_engines(settings: ServeSettings) -> dict[str, Any]:
    autoscaling = autoscaling_of(settings)
    if autoscaling is None:
        return {"num_replicas": settings.engine_replicas}
    return {"autoscaling_config": autoscaling}


def build(args: ServeSettings) -> ray_serve.Application:
    """Wire ingress and engine; nothing is read from disk yet."""
    settings = args.absolute()
    engine = ray_serve.deployment(
        EngineReplica,
        name="engine",
        **_number_of_engines(settings),
        ray_actor_options={"num_cpus": settings.engine_cpus, "num_gpus": settings.engine_gpus},
        max_ongoing_requests=16,
        max_queued_requests=64,
        health_check_period_s=_HEALTH_PERIOD_S,
        health_check_timeout_s=_HEALTH_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=settings.drain_s + _GRACE_MARGIN_S,
    )
    trainer = ray_serve.deployment(
        TrainerReplica,
        name="trainer",
        ray_actor_options={"num_cpus": 0},
        health_check_period_s=_HEALTH_PERIOD_S,
        health_check_timeout_s=_HEALTH_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=2 * _GRACE_MARGIN_S,
    )
    ingress = ray_serve.deployment(
        ray_serve.ingress()(Ingress),
        name="ingress",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=_INGRESS_ONGOING,
        max_queued_requests=_INGRESS_ONGOING,
        health_check_period_s=_HEALTH_PERIOD_S,
        health_check_timeout_s=_HEALTH_TIMEOUT_S,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=_GRACE_MARGIN_S,
    )
    return ingress.bind(settings, engine.bind(settings), trainer.bind(settings))


app = build(ServeSettings())
