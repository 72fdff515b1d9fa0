"""Models that look at pairs: of a pinned revision, run so that the answer is always the same."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from dreambooth3d.artifacts.key import content_hash
from dreambooth3d.errors import ArtifactError, ConfigError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
# Weights are read from safetensors alone: the older formats can run code when they are opened.
_FILES = ("*.json", "*.txt", "*.jinja", "*.model", "*.safetensors")


@dataclass(frozen=True, kw_only=True)
class PinnedModel:
    """A transformers model: a local folder, or a hub id at one commit.

    Attributes:
        source: the folder, or `owner/name` on the hub.
        revision: the commit, 40 hex digits; empty for a folder.
    """

    source: str
    revision: str = ""

    def __post_init__(self) -> None:
        if self.is_local:
            if self.revision:
                raise ConfigError(
                    f"revision must be empty for a local model, got {self.revision!r} with "
                    f"{self.source}; leave it out"
                )
        elif not _HUB_ID.fullmatch(self.source):
            raise ConfigError(
                "model must be a folder with config.json or a hub id 'owner/name', "
                f"got {self.source!r}; check the path"
            )
        elif not _COMMIT.fullmatch(self.revision):
            raise ConfigError(
                f"revision of {self.source} must be a commit of 40 hex digits, "
                f"got {self.revision!r}; take it from the history of its files on the hub"
            )

    @property
    def is_local(self) -> bool:
        """Whether the source is a folder on this machine."""
        return (Path(self.source) / "config.json").is_file()

    def folder(self) -> Path:
        """Return the folder of its files; those of the hub are downloaded the first time.

        Raises:
            ArtifactError: the hub does not have it or cannot be reached.
        """
        if self.is_local:
            return Path(self.source)
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            found = snapshot_download(
                self.source, revision=self.revision, allow_patterns=list(_FILES)
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise ArtifactError(
                f"model {self.source} at {self.revision} must be on this machine or reachable on "
                f"the hub, got {type(error).__name__}; download it first or point at its folder"
            ) from error
        return Path(found)

    def fingerprint(self) -> str:
        """Hash what decides its answers, 64 hex digits: the commit, or the files of a folder."""
        digest = hashlib.sha256()
        if not self.is_local:
            digest.update(f"{self.source}@{self.revision}".encode())
            return digest.hexdigest()
        folder = Path(self.source)
        for path in sorted({path for form in _FILES for path in folder.glob(form)}):
            digest.update(f"{path.name}\n{content_hash(path)}\n".encode())
        return digest.hexdigest()
