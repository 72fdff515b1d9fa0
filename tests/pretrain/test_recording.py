"""MLflow away at the end of a training: it ends well, and a server that comes later has all."""

import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from dreambooth3d.artifacts.pairs import PairCorpus
from dreambooth3d.model.backbone import load_backbone
from dreambooth3d.pairs.config import PairsConfig
from dreambooth3d.pretrain import job, planning
from dreambooth3d.pretrain.config import PretrainConfig
from dreambooth3d.pretrain.pretrain import PairExamples, train_adapter
from dreambooth3d.pretrain.publishing import manifest_sha256, publish_adapter
from dreambooth3d.pretrain.recording import MODEL, UnsentRuns
from dreambooth3d.runtime.system import SystemMetrics
from dreambooth3d.runtime.tracking import recording
from dreambooth3d.training.loop import Callbacks
from tests.pairs.corpora import build_here


def finished(config: PretrainConfig, corpus: Path, out: Path) -> Path:
    """A training that was published, and is in no MLflow."""
    found = PairCorpus.open(corpus)
    backbone = load_backbone(config.backbone)
    key, system = planning.key_of(config, corpus), SystemMetrics()
    adapter, result = train_adapter(
        config, backbone, PairExamples(found, backbone, 32), run_key=key, folder=None,
        callbacks=Callbacks(on_step=lambda progress: system.sample(progress.step)),
    )  # fmt: skip
    publish_adapter(
        config, adapter, result, [], out / key,
        corpus_sha256=manifest_sha256(found.place), system=system.points,
    )  # fmt: skip
    return out / key


@pytest.mark.slow
def test_a_server_that_starts_late_gets_everything(
    tmp_path: Path, miniature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = build_here(PairsConfig(samples=6, samples_per_shard=4, size=32), tmp_path)[0]
    out = tmp_path / "pretrain"
    configs = [
        PretrainConfig(
            backbone=str(miniature), strategy="single", steps=3, batch_size=2, rank=4, lr=1e-2,
            seed=seed,
        )
        for seed in (0, 1)
    ]  # fmt: skip
    first, second = (finished(config, corpus, out) for config in configs)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said: list[str] = []
    job.run(configs[0], corpus, out, report=said.append)
    assert "MLflow could not be written" in said[-1]
    job.run(replace(configs[0], log_every=7), corpus, out, report=said.append)
    assert [(key, told["log_every"]) for key, told in UnsentRuns(out).all()] == [(first.name, 1)]

    order = (
        sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{tmp_path / 'late.db'}",
        "--artifacts-destination", str(tmp_path / "late"),
    )  # fmt: skip
    server = subprocess.Popen(order, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = wait_for(uri)
        # Another training sends both.
        job.run(configs[1], corpus, out, report=said.append)
        assert list(UnsentRuns(out).all()) == []
        experiment = client.get_experiment_by_name("dreambooth3d-pretrain")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        assert {run.data.tags["artifact_key"] for run in runs} == {first.name, second.name}
        for run in runs:
            assert len(client.get_metric_history(run.info.run_id, "loss")) == 3
            cpu = client.get_metric_history(run.info.run_id, "system/cpu_utilization_percentage")
            assert [metric.step for metric in cpu] == [1, 2, 3]
            assert run.data.metrics["system/system_memory_usage_megabytes"] > 0
            sha256 = run.data.tags["pairs_manifest_sha256"]
            assert sha256 == manifest_sha256(PairCorpus.open(corpus).place)
        assert len(client.search_model_versions(f"name='{MODEL}'")) == 2
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("to http://me:secret@host: refused\nat length"),
        OperationalError("SELECT 1", {}, Exception("no answer")),
        PermissionError(13, "denied"),
    ],
)
def test_a_store_that_cannot_be_written_is_one_line_without_keys(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host")
    said: list[str] = []
    with recording(said.append):
        raise error
    assert len(said) == 1
    assert said[0].startswith("MLflow could not be written")
    assert "secret" not in said[0]
    assert "\n" not in said[0]


def wait_for(uri: str) -> MlflowClient:
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    for _ in range(120):
        try:
            client.search_experiments()
        except MlflowException:
            time.sleep(0.5)
        else:
            return client
    pytest.fail("mlflow server did not start")
