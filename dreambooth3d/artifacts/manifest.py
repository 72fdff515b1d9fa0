"""``manifest.json``: what a published folder is, what made it and from what.

No dates, no machine names, no absolute paths: the same input and config give the same bytes.
"""

from dataclasses import dataclass, field
from pathlib import Path

from dreambooth3d.artifacts.jsonfile import JsonValue as JsonValue
from dreambooth3d.artifacts.jsonfile import read_json, write_json
from dreambooth3d.errors import ArtifactError, ConfigError

MANIFEST_NAME = "manifest.json"
_FIELDS = ("stage", "key", "config", "parents", "outputs")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The record of one published folder.

    Attributes:
        stage: The stage that made it.
        key: See `artifact_key`; also the name of the folder.
        config: The versioned config fields, as given.
        parents: Keys of the artifacts it was made from.
        outputs: What the stage says about its files; paths in it are relative to the folder.
    """

    stage: str
    key: str
    config: dict[str, JsonValue] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    outputs: dict[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("stage", self.stage), ("key", self.key)):
            if not value:
                raise ConfigError(f"manifest {name} must be a name, got {value!r}; pass it")

    def to_json(self) -> dict[str, JsonValue]:
        """Return what the file holds."""
        return {
            "stage": self.stage,
            "key": self.key,
            "config": self.config,
            "parents": list(self.parents),
            "outputs": self.outputs,
        }

    def save(self, folder: Path) -> None:
        """Write ``folder/manifest.json``."""
        write_json(folder / MANIFEST_NAME, self.to_json())

    @classmethod
    def load(cls, folder: Path) -> "Manifest":
        """Read ``folder/manifest.json``; an `ArtifactError` names the file when it is unusable."""
        path = folder / MANIFEST_NAME
        return cls.from_json(read_json(path, what="manifest"), name=str(path))

    @classmethod
    def from_json(cls, found: dict[str, JsonValue], *, name: str) -> "Manifest":
        """Check what was read from the file `name`."""
        match found:
            case {
                "stage": str(stage),
                "key": str(key),
                "config": dict(config),
                "parents": list(parents),
                "outputs": dict(outputs),
            } if stage and key and all(isinstance(parent, str) for parent in parents):
                return cls(
                    stage=stage,
                    key=key,
                    config=config,
                    parents=tuple(str(parent) for parent in parents),
                    outputs=outputs,
                )
        raise ArtifactError(
            f"manifest must have the fields {', '.join(_FIELDS)}, "
            f"got {', '.join(sorted(found)) or 'none'} in {name}; make the folder again"
        )
