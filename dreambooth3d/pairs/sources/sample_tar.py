"""All that a tar of samples holds, in order: by its index where a sound one lies beside it."""

from collections.abc import Iterator
from dataclasses import dataclass

from dreambooth3d.artifacts.place import Place
from dreambooth3d.errors import InputError
from dreambooth3d.pairs.sources.tar_index import TarIndex, read_tar_index
from dreambooth3d.pairs.sources.tar_members import TarWalk
from dreambooth3d.pairs.sources.tar_samples import Needs, SampleWalk, TarSample
from dreambooth3d.vision.refusal import RefusedError


@dataclass(frozen=True, kw_only=True)
class SampleTar:
    """One tar.

    Attributes:
        place: of it.
        length: bytes, as listed.
        parts: extensions of everything a sample should have; one of each is enough.
    """

    place: Place
    length: int
    parts: tuple[frozenset[str], ...]

    def count(self) -> int | None:
        """Count the samples and the damage between them; None when that means to read it all.

        Raises:
            InputError: the tar cannot be read.
        """
        if self._index()[0] is None and not self._is_here:
            return None
        return sum(1 for _ in self.samples(needs=lambda _: False))

    def samples(self, *, needs: Needs) -> Iterator[TarSample]:
        """Yield what the tar holds; the same, but for the bytes, whatever is needed.

        With an index: its samples, each as it was packed or refused, then what lies behind them.
        Without one: what a walk finds. An index that cannot be used is refused at the end.

        Raises:
            InputError: the tar cannot be read.
        """
        index, problem = self._index()
        ordinal = 0
        try:
            for sample in self._found(index, needs):
                ordinal = sample.ordinal + 1
                yield sample
        except OSError as error:
            raise InputError(
                f"tar {self.place} must be readable, got: {error}; run the same command again"
            ) from error
        if problem is not None:
            yield TarSample(ordinal=ordinal, key="", problem=problem)

    @property
    def _is_here(self) -> bool:
        return self.place.local_path is not None

    def _index(self) -> tuple[TarIndex | None, RefusedError | None]:
        try:
            return read_tar_index(self.place), None
        except RefusedError as error:
            return None, error

    def _found(self, index: TarIndex | None, needs: Needs) -> Iterator[TarSample]:
        can_seek = self._is_here or index is not None
        keys: list[str] = []
        start = 0
        with self.place.open() if can_seek else self.place.stream() as file:
            if index is not None:
                wanted = frozenset[str]().union(*self.parts)
                yield from index.read(file, wanted, length=self.length, needs=needs)
                keys, start = [sample.key for sample in index.samples], index.end
            if start > self.length:
                # A cut is told by every sample it took.
                return
            walk = TarWalk(file, length=self.length, can_seek=can_seek, start=start)
            yield from SampleWalk(walk, self.parts, needs=needs, first=len(keys), taken=keys)
