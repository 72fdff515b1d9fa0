"""Loaded adapters: a byte budget, least recently used go first, never one that is in use."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from dreambooth3d.errors import RunError
from dreambooth3d.generate.generate import LoadedSubject
from serve.subjects import ServableSubject


class CacheFullError(RunError):
    """Every loaded adapter is in use and the next one does not fit beside them."""


@dataclass(eq=False)
class _Entry:
    loaded: LoadedSubject
    num_pins: int = 0


class AdapterCache:
    """Loads adapters on demand; a replaced adapter has another hash and is loaded anew.

    Args:
        load: from a folder to the backbone's device.
        max_bytes: budget of the weights, and of what is kept of reference views, when one more is
            loaded; that one comes beside it for a moment.
        on_look: told whether an adapter that was asked for was loaded already.
    """

    def __init__(
        self,
        load: Callable[[Path], LoadedSubject],
        *,
        max_bytes: int,
        on_look: Callable[[bool], None] | None = None,
    ) -> None:
        self._on_look = on_look
        self._load = load
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._lock = Lock()

    @property
    def num_bytes(self) -> int:
        """Memory of all loaded adapters."""
        return sum(entry.loaded.num_bytes for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    @contextmanager
    def pinned(self, subject: ServableSubject) -> Iterator[LoadedSubject]:
        """Yield the loaded adapter and keep it until the block ends.

        Raises:
            AdapterError, ArtifactError: it cannot be used on this backbone, or is damaged.
            CacheFullError: it fits only when adapters in use are given back.
        """
        entry = self._pin(subject)
        try:
            yield entry.loaded
        finally:
            with self._lock:
                entry.num_pins -= 1

    def _pin(self, subject: ServableSubject) -> _Entry:
        key = (subject.id, subject.card.key + subject.card.weights_sha256)
        with self._lock:
            entry = self._entries.get(key)
            if self._on_look is not None:
                self._on_look(entry is not None)
            if entry is None:
                entry = _Entry(self._load(subject.folder))
                self._make_room(entry.loaded.num_bytes, subject.id)
                self._entries[key] = entry
            self._entries.move_to_end(key)
            entry.num_pins += 1
            return entry

    def _make_room(self, num_bytes: int, name: str) -> None:
        for key in [key for key, entry in self._entries.items() if entry.num_pins == 0]:
            if self.num_bytes + num_bytes <= self._max_bytes:
                return
            del self._entries[key]
        # A single adapter above the budget is still served, alone: refusing it would never end.
        if self._entries and self.num_bytes + num_bytes > self._max_bytes:
            raise CacheFullError(
                f"adapters in use must fit in {self._max_bytes} bytes, got {name} with {num_bytes} "
                f"beside {self.num_bytes}; wait for a running batch or raise adapter_megabytes"
            )
