import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreambooth3d.artifacts.adapter import CARD_NAME, load_adapter, save_adapter
from dreambooth3d.artifacts.clip import read_clip, read_clip_metadata
from dreambooth3d.artifacts.key import content_hash
from dreambooth3d.errors import RunError
from dreambooth3d.generate.generate import ClipRequest, generate_batch
from dreambooth3d.model.backbone import Backbone, read_card
from serve import engine as engine_module
from serve.engine import Engine
from serve.jobs import JobTable
from serve.orders import ClipRules, batch_key, resolve
from serve.records import Job, NewJob
from serve.results import CLIP_NAME, THUMBNAIL_NAME, ResultStore
from serve.schema import parse_create
from serve.settings import ServeSettings
from serve.subjects import SubjectCatalog

AddSubject = Callable[..., Path]
Submit = Callable[..., Job]
WaitFor = Callable[[Callable[[], bool]], None]
CLIP = {"num_frames": 5, "num_inference_steps": 3}


@pytest.fixture
def table(settings: ServeSettings) -> JobTable:
    return JobTable(settings.database_url)


@pytest.fixture
def engine(settings: ServeSettings, backbone: Backbone, table: JobTable) -> Engine:
    return Engine(settings, backbone=backbone, jobs=table)


@pytest.fixture
def submit(settings: ServeSettings, table: JobTable) -> Callable[..., Job]:
    rules = ClipRules.of(read_card(settings.backbone), settings)

    def send(**fields: Any) -> Job:
        asked = parse_create({"prompt": "a red car", "seed": 1, **CLIP, **fields})
        card = None
        if asked.subject:
            found = SubjectCatalog(settings.subjects_root).get(asked.subject)
            assert found is not None
            card = found.card
        order = resolve(asked, rules, card)
        new = NewJob(
            request=order.to_json(),
            request_hash=asked.content_hash,
            batch_key=batch_key(order, card),
            num_tokens=rules.num_tokens(order.num_frames, order.width, order.height),
            steps=order.num_steps,
        )
        return table.submit(new, max_queued=100)[0]

    return send


def read(table: JobTable, job: Job) -> Job:
    found = table.get(job.id)
    assert found is not None
    return found


def test_a_batch_of_different_subjects_becomes_clips(
    engine: Engine,
    table: JobTable,
    submit: Submit,
    add_subject: AddSubject,
    settings: ServeSettings,
) -> None:
    add_subject("mug", seed=1)
    add_subject("cup", seed=2)
    jobs = [
        submit(subject="mug", prompt="a video of a [sks mug] on a desk"),
        submit(subject="cup", prompt="a video of a sks mug on a beach"),
        submit(),
    ]
    assert engine.run_once() == 2
    assert engine.run_once() == 1
    assert engine.run_once() == 0
    done = [read(table, job) for job in jobs]
    assert [job.status for job in done] == ["completed"] * 3
    assert [job.batch_size for job in done] == [2, 2, 1]
    assert (done[0].step, done[0].steps, done[0].progress) == (3, 3, 100)
    assert set(done[0].stage_seconds) == {"queue", "load", "denoise", "decode", "write"}
    adapter = done[0].adapter
    assert adapter is not None
    # Two blocks of both adapters and the patch embeddings, less what the last block cannot use.
    assert adapter["layers_applied"] == adapter["layers_expected"] == 2 * (6 + 12) + 2 - 2 * 4
    assert done[2].adapter is None
    store = ResultStore(settings.results_root)
    path = store.path(done[0].result_path or "", CLIP_NAME)
    frames, fps = read_clip(path)
    assert (frames.shape, fps) == ((5, 32, 32, 3), 8)
    metadata = read_clip_metadata(path)
    assert (metadata["subject"], metadata["seed"], metadata["job"]) == ("mug", 1, jobs[0].id)
    assert metadata["adapter_sha256"] == adapter["sha256"]
    thumbnail = store.path(done[0].result_path or "", THUMBNAIL_NAME).read_bytes()
    assert thumbnail.startswith(b"\x89PNG")


def test_a_clip_is_the_same_alone_and_in_a_batch(
    engine: Engine,
    table: JobTable,
    submit: Submit,
    add_subject: AddSubject,
    settings: ServeSettings,
) -> None:
    add_subject("mug", seed=1)
    add_subject("cup", seed=2)
    alone = submit(subject="mug", seed=7)
    engine.run_once()
    beside = [submit(subject=name, seed=seed) for name, seed in (("cup", 5), ("mug", 7))]
    engine.run_once()
    store = ResultStore(settings.results_root)
    clips = [
        read_clip(store.path(read(table, job).result_path or "", CLIP_NAME))[0]
        for job in (alone, beside[1], beside[0])
    ]
    assert read(table, beside[1]).batch_size == 2
    assert np.abs(clips[0].astype(int) - clips[1].astype(int)).max() <= 1
    assert np.abs(clips[0].astype(int) - clips[2].astype(int)).max() > 1


def test_cancel_takes_effect_within_a_step_and_spares_the_neighbour(
    engine: Engine, table: JobTable, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [submit(seed=1), submit(seed=2)]
    kept: list[tuple[int, set[str]]] = []
    advance = table.advance

    def spy(token: str, ids: Sequence[str], *, step: int, **rest: Any) -> frozenset[str]:
        if step == 1:
            table.cancel(jobs[0].id)
        found = advance(token, ids, step=step, **rest)
        kept.append((step, set(found)))
        return found

    monkeypatch.setattr(table, "advance", spy)
    engine.run_once()
    assert kept[0] == (1, {jobs[1].id})
    assert [read(table, job).status for job in jobs] == ["canceled", "completed"]
    assert read(table, jobs[0]).step == 0


def test_one_bad_job_hurts_nobody(
    engine: Engine, table: JobTable, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [submit(seed=1), submit(seed=666), submit(seed=3)]
    sizes: list[int] = []

    def fragile(backbone: Backbone, requests: Sequence[ClipRequest], **rest: Any) -> Any:
        sizes.append(len(requests))
        if any(request.seed == 666 for request in requests):
            raise RuntimeError("boom at /secret/path")
        return generate_batch(backbone, requests, **rest)

    monkeypatch.setattr(engine_module, "generate_batch", fragile)
    assert engine.run_once() == 3
    assert sizes == [3, 1, 1, 1]
    assert [read(table, job).status for job in jobs] == ["completed", "failed", "completed"]
    failed = read(table, jobs[1])
    assert failed.error_code == "generation_failed"
    assert "secret" not in (failed.error_message or "")


def test_an_adapter_that_broke_meanwhile_fails_its_own_job_only(
    engine: Engine, table: JobTable, submit: Submit, add_subject: AddSubject
) -> None:
    folder = add_subject("mug")
    add_subject("cup", seed=2)
    jobs = [submit(subject="mug"), submit(subject="cup")]
    (folder / "subject.safetensors").write_bytes(b"broken")
    engine.run_once()
    assert [read(table, job).status for job in jobs] == ["failed", "completed"]
    failed = read(table, jobs[0])
    assert failed.error_code == "adapter_unusable"
    assert str(folder) not in (failed.error_message or "")


@pytest.mark.parametrize("harm", ["view", "nan"])
def test_whatever_is_wrong_with_an_adapter_stays_its_own(
    engine: Engine, table: JobTable, submit: Submit, add_subject: AddSubject, harm: str
) -> None:
    folder = add_subject("mug")
    add_subject("cup", seed=2)
    jobs = [submit(subject="cup"), submit(subject="mug"), submit(subject="cup")]
    adapter = load_adapter(folder)
    if harm == "nan":
        for value in adapter.weights["subject"].values():
            value.fill_(float("nan"))
        shutil.rmtree(folder)
        save_adapter(folder, adapter)
    else:
        view, card = folder / "references" / "001.png", folder / CARD_NAME
        before = content_hash(view)
        view.write_bytes(b"no picture")
        card.write_text(card.read_text().replace(before, content_hash(view)))
    assert engine.run_once() == 3
    assert [read(table, job).status for job in jobs] == ["completed", "failed", "completed"]
    assert read(table, jobs[1]).error_code == "adapter_unusable"


def test_a_full_disk_fails_the_job(
    engine: Engine, table: JobTable, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_fields: object) -> str:
        raise OSError("no space left")

    monkeypatch.setattr(ResultStore, "write", full)
    job = submit()
    engine.run_once()
    assert read(table, job).error_code == "storage_failed"


def test_a_result_nobody_owns_any_more_is_removed(
    engine: Engine,
    table: JobTable,
    submit: Submit,
    settings: ServeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = ResultStore.write

    def late(*args: Any, **fields: Any) -> str:
        table.delete(job.id)
        return write(*args, **fields)

    monkeypatch.setattr(ResultStore, "write", late)
    job = submit()
    engine.run_once()
    assert list(settings.results_root.iterdir()) == []


def test_threads_serve_then_drain_then_give_back(
    engine: Engine,
    table: JobTable,
    submit: Submit,
    deadline: WaitFor,
    settings: ServeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not engine.is_warm
    engine.start()
    job = submit()
    deadline(lambda: read(table, job).status == "completed")
    assert engine.is_warm
    engine.check()
    # A batch that does not end within the drain goes back and does not count as an attempt.
    entered = threading.Event()
    advance = table.advance

    def slow(*args: Any, **fields: Any) -> frozenset[str]:
        entered.set()
        time.sleep(0.3)
        return advance(*args, **fields)

    monkeypatch.setattr(table, "advance", slow)
    job = submit(num_inference_steps=50)
    entered.wait(10)
    engine.stop(drain_s=0.1)
    given_back = read(table, job)
    assert (given_back.status, given_back.attempts, given_back.step) == ("queued", 0, 0)


def test_a_dead_worker_and_a_hanging_step_are_unhealthy(
    engine: Engine,
    submit: Submit,
    backbone: Backbone,
    settings: ServeSettings,
    monkeypatch: pytest.MonkeyPatch,
    deadline: WaitFor,
) -> None:
    hangs = threading.Event()

    def hang(_backbone: Backbone, _requests: object, **rest: Any) -> list[None]:
        if "on_step" in rest:
            hangs.wait(10)
        return [None]

    monkeypatch.setattr(engine_module, "generate_batch", hang)
    quick = settings.model_copy(update={"stall_s": 0.05})
    stuck = Engine(quick, backbone=backbone)
    with pytest.raises(RunError, match="engine-worker ended"):
        stuck.check()
    stuck.start()
    submit()
    deadline(lambda: stuck._token is not None)
    time.sleep(0.1)
    with pytest.raises(RunError, match="denoising step must end within 0"):
        stuck.check()
    hangs.set()
    stuck.stop(drain_s=5)


def test_the_end_of_a_replica_lets_the_running_batch_finish(
    settings: ServeSettings, table: JobTable, submit: Submit, deadline: WaitFor
) -> None:
    from serve.app import EngineReplica

    replica = EngineReplica(settings.model_copy(update={"engine_threads": 1}))
    replica.check_health()
    running = submit(num_inference_steps=50)
    deadline(lambda: read(table, running).step > 0)
    waiting = submit(num_inference_steps=50)
    asyncio.run(replica.__del__())
    assert (read(table, running).status, read(table, running).attempts) == ("completed", 1)
    assert read(table, waiting).status == "queued"
