import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from serve import autoscaling
from serve.app import build
from serve.autoscaling import QueueLoad, QueuePolicy, autoscaling_of, desired_engines, read_load
from serve.jobs import JobTable
from serve.records import NewJob
from serve.settings import ServeSettings

CONFIG = Path(__file__).resolve().parents[2] / "serve" / "config.yaml"
WaitFor = Callable[[Callable[[], bool]], None]


def load(waiting: int, running: int = 0, age_s: float = 0.0) -> QueueLoad:
    return QueueLoad(waiting=waiting, running=running, age_s=age_s, read_at=time.monotonic())


@pytest.mark.parametrize(
    ("found", "current", "wanted"),
    [
        (load(0), 3, 0),
        (load(1), 0, 1),
        (load(0, running=1), 1, 1),
        (load(4), 1, 1),
        (load(5), 1, 2),
        (load(4, running=4), 1, 2),
        (load(40), 1, 10),
        # Few jobs of many shapes: what waits too long asks for one more, again and again.
        (load(1, age_s=31), 1, 2),
        (load(1, age_s=31), 2, 3),
        (load(40, age_s=31), 2, 10),
        (load(1, age_s=30), 1, 1),
        # Jobs that run are no reason to add engines, however long they take.
        (load(0, running=1, age_s=99), 1, 1),
    ],
)
def test_engines_follow_length_and_age_of_the_queue(
    found: QueueLoad, current: int, wanted: int
) -> None:
    assert desired_engines(found, current=current, jobs_each=4, max_age_s=30) == wanted


def context(target: int) -> Any:
    return SimpleNamespace(target_num_replicas=target, policy_state={"kept": 1})


def test_the_policy_answers_from_the_last_reading(deadline: WaitFor) -> None:
    policy = QueuePolicy({"max_batch": 4}, read=lambda: load(9))
    deadline(lambda: policy.load is not None)
    assert policy(context(1)) == (3, {"kept": 1})


def test_a_table_that_cannot_be_read_changes_nothing(
    tmp_path: Path, deadline: WaitFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    broken = QueuePolicy({"database": f"sqlite:///{tmp_path / 'file' / 'jobs.sqlite3'}"})
    assert broken(context(2))[0] == 2
    monkeypatch.setattr(autoscaling, "_STALE_S", 0.0)
    policy = QueuePolicy({}, read=lambda: load(99))
    deadline(lambda: policy.load is not None)
    assert policy(context(2))[0] == 2


def test_a_policy_that_is_replaced_stops_reading(
    deadline: WaitFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoscaling, "_LOOK_S", 0.01)
    before = set(threading.enumerate())
    policies = [QueuePolicy({}, read=lambda: load(1))]
    (watcher,) = set(threading.enumerate()) - before
    deadline(lambda: policies[0].load is not None)
    policies.clear()
    watcher.join(10)
    assert not watcher.is_alive()


def test_the_load_is_that_of_the_job_table(settings: ServeSettings, clock: Any) -> None:
    table = JobTable(settings.database_url, clock=clock)
    new = NewJob(request={}, request_hash="", batch_key="a", num_tokens=1, steps=1)
    for _ in range(3):
        table.submit(new, max_queued=9)
        clock.now += 10
    table.claim(max_jobs=1, max_tokens=9, lease_s=5)
    found = read_load(table)
    assert (found.waiting, found.running, found.age_s) == (2, 1, 20)


def test_serve_gets_bounds_delays_and_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert autoscaling_of(ServeSettings(engine_replicas=2)) is None
    settings = ServeSettings(engine_replicas=0, max_engine_replicas=3, scale_down_s=7, max_batch=2)
    config = autoscaling_of(settings)
    assert config is not None
    assert (config.min_replicas, config.initial_replicas, config.max_replicas) == (0, 1, 3)
    assert config.downscale_delay_s == 7
    made = config.policy.get_policy()(**config.policy.policy_kwargs, read=lambda: load(0))
    assert made._settings == settings
    monkeypatch.setenv("DREAMBOOTH3D_DATABASE", "postgresql+psycopg://me:secret@host/jobs")
    hidden = autoscaling_of(ServeSettings(max_engine_replicas=2))
    assert hidden is not None
    assert "secret" not in repr(hidden.policy.policy_kwargs)


def test_numbers_of_engines_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValidationError, match="max_engine_replicas must be at least 1"):
        ServeSettings(engine_replicas=0)
    with pytest.raises(ValidationError, match="at least engine_replicas, got 2 and 3"):
        ServeSettings(engine_replicas=3, max_engine_replicas=2)


def test_serve_deploy_takes_the_configuration() -> None:
    found = ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text(encoding="utf-8")))
    (application,) = found.applications
    assert application.import_path == "serve.app:build"
    assert found.http_options.host == "127.0.0.1"
    built = build(ServeSettings(**application.args))
    engine = built._bound_deployment.init_args[1]._bound_deployment
    autoscaled = engine._deployment_config.autoscaling_config
    assert autoscaled.max_replicas > autoscaled.min_replicas >= 1
    assert engine._deployment_config.graceful_shutdown_timeout_s > application.args["drain_s"]
