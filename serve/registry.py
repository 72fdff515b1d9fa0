"""Subjects of MLflow's registry: of each the version with the alias `serving`, in a folder.

Layout: `<root>/<subject>-v<version>/adapters/<subject>`, which `SubjectCatalog` reads as it reads
the batches of `personalize_batch`. A version that lost its alias loses its card at once and its
weights one look later: an engine that has read the card still finds them.
"""

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from dreambooth3d.artifacts.adapter import CARD_NAME, load_adapter
from dreambooth3d.artifacts.key import publish
from dreambooth3d.errors import ArtifactError, Dreambooth3dError, RunError
from dreambooth3d.runtime.tracking import SERVING_ALIAS
from serve.schema import is_subject_id
from serve.settings import ServeSettings
from serve.subjects import SubjectCatalog
from serve.trainings import is_uploaded_id

_logger = logging.getLogger(__name__)
_PREFIX = "dreambooth3d-"
# The 3Dapter is registered beside the subjects that are trained from it.
_PRETRAINED = "3dapter"
_KEY_TAG = "artifact_key"
_STOP_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Served:
    """A version of a registered adapter that is to be served."""

    subject: str
    version: str
    source: str
    key: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.subject}-v{self.version}"


class RegistryMirror:
    """Keeps a folder as the registry says.

    Args:
        uri: where the registry is; None as long as there is none.
        root: the folder.
        beside: subjects whose adapter is there already need no copy.
    """

    def __init__(
        self, uri: Callable[[], str | None], root: Path, *, beside: SubjectCatalog
    ) -> None:
        self._uri, self._root, self._beside = uri, root, beside
        # What was refused stays so until its alias moves.
        self._refused: set[str] = set()

    def sync(self) -> None:
        """Fetch what is new and remove what has lost its alias.

        Raises:
            MlflowException, OSError: the registry cannot be read; nothing is removed then.
        """
        uri = self._uri()
        if uri is None:
            return
        wanted = {served.name: served for served in _list_served(uri) if not self._has(served)}
        there = {path.name: path for path in self._root.glob("*") if not path.name.startswith(".")}
        for name, served in wanted.items():
            if name not in self._refused and not _card_of(self._root, served).is_file():
                self._fetch(served, uri)
        # The version before serves until its successor is there.
        awaited = {s.subject for s in wanted.values() if not _card_of(self._root, s).is_file()}
        for name in there.keys() - wanted.keys():
            if name.rpartition("-v")[0] not in awaited:
                _remove(there[name])

    def _has(self, served: Served) -> bool:
        found = self._beside.get(served.subject)
        return found is not None and found.card.key == served.key

    def _fetch(self, served: Served, uri: str) -> None:
        home = self._root / served.name
        shutil.rmtree(home, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="adapter-") as aside:
            found = Path(download_artifacts(served.source, dst_path=aside, tracking_uri=uri))
            try:
                card = load_adapter(found).card
                if card.kind != "subject" or card.subject != served.subject:
                    raise RunError(
                        f"a registered adapter must be of the subject in its model's name, got "
                        f"{card.subject} in {_PREFIX}{served.subject}; register it by its own name"
                    )
            except Dreambooth3dError as error:
                self._refused.add(served.name)
                _logger.warning("version %s is not served: %s", served.name, error)
                return
            with publish(home) as half:
                shutil.copytree(found, half / "adapters" / served.subject)
        _logger.info("subject %s: version %s is served", served.subject, served.version)


class RegistryWatch:
    """A thread that keeps the mirror of an application; see `RegistryMirror`."""

    def __init__(self, settings: ServeSettings) -> None:
        self._every_s = settings.registry_look_s
        self._mirror = RegistryMirror(
            lambda: registry_uri(settings),
            settings.registry_root,
            beside=SubjectCatalog(settings.subjects_root),
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="registry", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise a `RunError` when the thread has died."""
        if not self._stopping.is_set() and not self._thread.is_alive():
            raise RunError("the registry's thread must be running, got ended; restart it")

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join(_STOP_S)

    def _work(self) -> None:
        # A server that is away is found out in seconds, not minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        while True:
            try:
                self._mirror.sync()
            except (MlflowException, SQLAlchemyError, ArtifactError, OSError):
                _logger.exception("the registry cannot be read; its subjects stay as they are")
            if self._stopping.wait(self._every_s):
                return


def registry_uri(settings: ServeSettings) -> str | None:
    """Where the registry is: as set, else as MLflow's own variable says, else beside the runs."""
    embedded = Path(settings.runs) / "mlflow.db"
    named = settings.registry or os.environ.get("MLFLOW_TRACKING_URI")
    return named or (f"sqlite:///{embedded.absolute()}" if embedded.is_file() else None)


def _list_served(uri: str) -> Iterator[Served]:
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    token: str | None = None
    while True:
        page = client.search_registered_models(f"name LIKE '{_PREFIX}%'", page_token=token)
        for model in page:
            subject = str(model.name).removeprefix(_PREFIX)
            # Subjects that clients sent photos of belong to their owners alone.
            is_meant = is_subject_id(subject) and not is_uploaded_id(subject)
            is_meant &= subject != _PRETRAINED
            if is_meant and SERVING_ALIAS in model.aliases:
                yield _served(client, str(model.name), subject, model.aliases[SERVING_ALIAS])
        token = page.token
        if not token:
            return


def _served(client: MlflowClient, model: str, subject: str, version: str) -> Served:
    found = client.get_model_version(model, version)
    tags = client.get_run(found.run_id).data.tags if found.run_id else {}
    return Served(
        subject=subject,
        version=str(version),
        source=str(found.source),
        key=tags.get(_KEY_TAG, ""),
    )


def _card_of(root: Path, served: Served) -> Path:
    return root / served.name / "adapters" / served.subject / CARD_NAME


def _remove(home: Path) -> None:
    """Take the card away; a second time, with the card gone, the rest."""
    cards = list(home.glob(f"adapters/*/{CARD_NAME}"))
    for card in cards:
        card.unlink()
    if not cards:
        shutil.rmtree(home, ignore_errors=True)
