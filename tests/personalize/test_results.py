"""The table and the page of a batch; MLflow without a second run, and who serves."""

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from PIL import Image

from dreambooth3d.artifacts.subject import Problem
from dreambooth3d.personalize.config import PersonalizeConfig
from dreambooth3d.personalize.outcome import Outcome, invalid
from dreambooth3d.personalize.results import write_results
from dreambooth3d.runtime.tracking import RunRecord, Tracker, recording

READY = Outcome(
    subject="mug", status="kept", key="k", method="joint", steps=40, first_loss=0.5, last_loss=0.25,
    seconds=12.0, cost_seconds=12.0, identity_before=0.5, identity_after=0.75, best_step=30,
    adapter="adapters/mug", sha256="abcdef0123456789",
)  # fmt: skip
FAILED = replace(
    READY, subject="vase", status="failed", steps=0, last_loss=None, identity_before=None,
    identity_after=None, adapter="", sha256="", error="<script>alert(1)</script> is no picture",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("references/001.png", "samples/step-000030.png"):
        path = tmp_path / "adapters/mug" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (200, 30, 30)).save(path)
    write_results(tmp_path, [READY, FAILED])
    return tmp_path


def test_both_tables_say_the_same(folder: Path) -> None:
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    with (folder / "results.csv").open(encoding="utf-8") as file:
        texts = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ready", "failed"]
    assert rows[0]["identity_after"] == 0.75
    assert rows[1]["identity_after"] is None
    assert [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows] == texts


def test_the_page_shows_totals_failures_and_pictures_and_obeys_nobody(folder: Path) -> None:
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert page.index("Without an adapter") < page.index("<table>")
    assert "<dd>+0.250</dd>" in page
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert "default-src 'none'" in page
    assert len(re.findall(r"script-src 'sha256-[A-Za-z0-9+/=]+'", page)) == 1
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_photos_that_are_no_views_and_damaged_pictures_are_told(folder: Path) -> None:
    (folder / "adapters/mug/samples/step-000030.png").write_bytes(b"half")
    write_results(folder, [replace(READY, refused="3.jpg: <nothing> stands out")])
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "not used: 3.jpg: &lt;nothing&gt; stands out" in page
    assert '<span class="failed">damaged</span>' in page
    assert page.count("data:image/jpeg;base64,") == 1


def test_rows_that_were_left_out_are_told(tmp_path: Path) -> None:
    problems = [
        Problem(row=3, line=4, field=field, sentence=f"{field} must be words")
        for field in ("class_noun", "trigger")
    ]
    told = invalid(PersonalizeConfig(), problems)
    write_results(tmp_path, [FAILED, *told])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<h1>1 subjects</h1>" in page
    assert "<b>row 3</b> (invalid): field class_noun: class_noun must be words; field" in page
    row = pq.read_table(tmp_path / "results.parquet").to_pylist()[1]
    assert (row["status"], row["attempts"]) == ("invalid", 0)


def record(key: str, score: float | None, folder: Path | None = None) -> RunRecord:
    return RunRecord(
        name="mug", params={"steps": 4}, tags={"artifact_key": key}, curves={"loss": [1.0, 0.5]},
        folder=folder, model="dreambooth3d-mug", score=score,
    )  # fmt: skip


def test_a_run_that_was_ended_early_is_gone_on_with(tmp_path: Path, folder: Path) -> None:
    tracker = Tracker(tmp_path / "store", "some")
    begun = tracker.start("mug", {"artifact_key": "a"})
    assert tracker.find({"artifact_key": "a"}) is None
    adapter = folder / "adapters" / "mug"
    for _ in range(2):
        assert tracker.record(record("a", 0.5, adapter), unique=("artifact_key",)) == begun
    assert tracker.find({"artifact_key": "a"}) == begun
    client = MlflowClient(tracker.uri, registry_uri=tracker.uri)
    assert len(client.search_model_versions("name = 'dreambooth3d-mug'")) == 1
    assert len(client.get_metric_history(begun, "loss")) == 2
    # A later failure is a run of its own.
    failure = replace(record("a", None), is_failed=True, model=None)
    failed = tracker.record(failure, unique=("artifact_key",))
    assert tracker.record(failure, unique=("artifact_key",)) == failed != begun
    assert tracker.find({"artifact_key": "a"}) == begun


def test_serving_moves_only_to_what_is_not_worse(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path / "store", "some")
    client = MlflowClient(tracker.uri, registry_uri=tracker.uri)
    serving = []
    scores = {"z": None, "a": 0.5, "b": 0.4, "c": 0.5, "d": None, "e": 0.1}
    for key, score in scores.items():
        tracker.record(record(key, score), unique=("artifact_key",))
        version = client.get_model_version_by_alias("dreambooth3d-mug", "serving")
        serving.append(client.get_run(version.run_id).data.tags["artifact_key"])
    assert serving == ["z", "a", "a", "c", "c", "c"]


def test_a_store_that_mlflow_cannot_open_stops_no_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for uri in ("mysql://me:secret@host/runs", "http://[bad"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        said: list[str] = []
        with recording(said.append):
            Tracker(tmp_path, "some")
        assert "MLFLOW_TRACKING_URI must be one that MLflow opens here" in said[0]
        assert "secret" not in said[0]


@pytest.mark.slow
def test_a_real_server_takes_runs_artifacts_and_models(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--port", address.rpartition(":")[2],
         "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}", "--workers", "1",
         "--artifacts-destination", str(tmp_path / "artifacts")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        _wait_for(address)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        tracker = Tracker(tmp_path / "unused", "some")
        adapter = folder / "adapters" / "mug"
        runs = [
            tracker.record(record(key, score, adapter), unique=("artifact_key",))
            for key, score in (("a", 0.5), ("b", 0.4), ("a", 0.5))
        ]
        assert runs[0] == runs[2] != runs[1]
        client = MlflowClient(address, registry_uri=address)
        serving = client.get_model_version_by_alias("dreambooth3d-mug", "serving")
        assert serving.run_id == runs[0]
        assert {f.path for f in client.list_artifacts(runs[0], "adapter")} == {
            "adapter/references", "adapter/samples",
        }  # fmt: skip
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def _wait_for(address: str) -> None:
    for _ in range(240):
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
                assert answer.status == 200
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"no MLflow server came up at {address}")
