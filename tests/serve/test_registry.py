"""Subjects of a real MLflow store: SQLite and a folder of artifacts."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from dreambooth3d.model.backbone import Backbone
from dreambooth3d.runtime.tracking import RunRecord, Tracker
from serve.registry import RegistryMirror, RegistryWatch, registry_uri
from serve.settings import ServeSettings
from serve.subjects import SubjectCatalog
from tests.serve.served import CLIP, Served

AddSubject = Callable[..., Path]
WaitFor = Callable[[Callable[[], bool]], None]
OTHERS = "subject_" + "0" * 32


class Registry:
    """What `personalize_batch` records, and an operator's hand on the aliases."""

    def __init__(self, settings: ServeSettings, add_subject: AddSubject) -> None:
        self.runs, self._add = Path(settings.runs), add_subject
        self._tracker = Tracker(self.runs, "personalize")
        self.client = MlflowClient(tracking_uri=self._tracker.uri, registry_uri=self._tracker.uri)

    def register(self, name: str, *, model: str | None = None, seed: int = 1) -> None:
        """Record an adapter and leave no other copy of it."""
        folder = self._add(name, batch="elsewhere", seed=seed)
        self._tracker.record(
            RunRecord(
                name=name,
                params={},
                tags={"artifact_key": f"{seed:016x}"},
                folder=folder,
                model=f"dreambooth3d-{model or name}",
            )
        )
        shutil.rmtree(folder)

    def artifacts(self, name: str, version: str = "1") -> Path:
        """Where a version of an adapter lies."""
        source = self.client.get_model_version(f"dreambooth3d-{name}", version).source
        return Path(source.removeprefix("file://"))


@pytest.fixture
def registry(
    settings: ServeSettings, add_subject: AddSubject, monkeypatch: pytest.MonkeyPatch
) -> Registry:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Registry(settings, add_subject)


@pytest.fixture
def mirror(settings: ServeSettings) -> RegistryMirror:
    return RegistryMirror(
        lambda: registry_uri(settings),
        settings.registry_root,
        beside=SubjectCatalog(settings.subjects_root),
    )


def seeds(settings: ServeSettings) -> dict[str, int]:
    return {s.id: s.card.seed for s in SubjectCatalog(*settings.subject_roots).all()}


def test_without_a_registry_nothing_is_fetched(settings: ServeSettings) -> None:
    where = registry_uri(settings)
    RegistryMirror(lambda: where, settings.registry_root, beside=SubjectCatalog()).sync()
    assert where is None
    assert not settings.registry_root.exists()


def test_the_registry_is_named_by_settings_then_by_mlflow(
    settings: ServeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert registry_uri(settings) == "http://mlflow:5000"
    assert registry_uri(settings.model_copy(update={"registry": "sqlite:///x.db"})) == (
        "sqlite:///x.db"
    )


def test_the_serving_alias_says_what_is_served(
    settings: ServeSettings, registry: Registry, mirror: RegistryMirror, add_subject: AddSubject
) -> None:
    registry.register("mug")
    registry.register("cup", seed=2)
    mirror.sync()
    assert seeds(settings) == {"mug": 1, "cup": 2}
    registry.register("mug", seed=3)
    mirror.sync()
    assert seeds(settings) == {"mug": 3, "cup": 2}
    # A folder of the same subject gives way to what the alias names.
    add_subject("mug", batch="newer", seed=4)
    assert seeds(settings)["mug"] == 3
    registry.client.set_registered_model_alias("dreambooth3d-mug", "serving", "1")
    mirror.sync()
    assert seeds(settings)["mug"] == 1
    registry.client.delete_registered_model_alias("dreambooth3d-cup", "serving")
    mirror.sync()
    assert seeds(settings) == {"mug": 1}
    mirror.sync()
    assert [path.name for path in settings.registry_root.iterdir()] == ["mug-v1"]


def test_the_version_before_serves_until_its_successor_is_there(
    settings: ServeSettings, registry: Registry, mirror: RegistryMirror
) -> None:
    registry.register("mug")
    mirror.sync()
    registry.register("mug", seed=3)
    (registry.artifacts("mug", "2") / "subject.safetensors").write_bytes(b"half")
    for _ in range(3):
        mirror.sync()
        assert seeds(settings) == {"mug": 1}


def test_what_is_in_the_folder_already_is_not_copied(
    settings: ServeSettings, registry: Registry, mirror: RegistryMirror, add_subject: AddSubject
) -> None:
    registry.register("mug")
    add_subject("mug")
    mirror.sync()
    assert not settings.registry_root.exists()
    assert seeds(settings) == {"mug": 1}


def test_damaged_misnamed_and_clients_own_adapters_are_not_served(
    settings: ServeSettings,
    registry: Registry,
    mirror: RegistryMirror,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry.register("mug", model="cup")
    registry.register(OTHERS, seed=5)
    registry.register("pot", seed=6)
    registry.register("pan", seed=7)
    (registry.artifacts("pan") / "subject.safetensors").write_bytes(b"broken")
    mirror.sync()
    assert seeds(settings) == {"pot": 6}
    assert "pan-v1 is not served" in caplog.text
    assert "must be of the subject in its model's name, got mug" in caplog.text


def test_a_registry_that_is_away_leaves_its_subjects(
    settings: ServeSettings,
    registry: Registry,
    mirror: RegistryMirror,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry.register("mug")
    mirror.sync()
    (registry.runs / "mlflow.db").rename(registry.runs / "away.db")
    mirror.sync()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(MlflowException):
        mirror.sync()
    assert seeds(settings) == {"mug": 1}


def test_a_new_adapter_is_servable_without_a_restart_and_removed_while_in_use(
    settings: ServeSettings, backbone: Backbone, registry: Registry, deadline: WaitFor
) -> None:
    served = Served(settings, backbone)
    watch = RegistryWatch(settings.model_copy(update={"registry_look_s": 0.05}))
    http = served.http
    try:
        assert http.get("/v1/subjects/mug").status_code == 404
        registry.register("mug")
        deadline(lambda: http.get("/v1/subjects/mug").status_code == 200)
        served.engine.start()
        asked = CLIP | {"prompt": "a [sks mug]", "subject": "mug", "num_inference_steps": 60}
        video = http.post("/v1/videos", json=asked).headers["location"]
        deadline(lambda: http.get(video).json()["step"] > 0)
        registry.client.delete_registered_model("dreambooth3d-mug")
        deadline(lambda: http.get("/v1/subjects/mug").status_code == 404)
        assert http.get(video).json()["status"] == "in_progress"
        deadline(lambda: http.get(video).json()["status"] == "completed")
        assert http.post("/v1/videos", json=asked).status_code == 404
        watch.check()
    finally:
        served.engine.stop(drain_s=5)
        watch.stop()
