"""What other engines left behind: lost leases, expired clips, folders that no job owns."""

import time

from serve.jobs import JobTable
from serve.results import ResultStore

_STRAYS_EVERY_S = 300.0


class Sweeper:
    """Run by every engine; a second one at the same time finds nothing left to do."""

    def __init__(self, jobs: JobTable, results: ResultStore, *, max_attempts: int) -> None:
        self._jobs = jobs
        self._results = results
        self._max_attempts = max_attempts
        self._strays_at = -_STRAYS_EVERY_S

    def run(self) -> None:
        """Sweep once; strays, which cost a look at every folder, only now and then."""
        self._jobs.expire_leases(max_attempts=self._max_attempts)
        for folder in self._jobs.take_expired_results():
            self._results.remove(folder)
        if time.monotonic() - self._strays_at >= _STRAYS_EVERY_S:
            self._strays_at = time.monotonic()
            self.remove_strays()

    def remove_strays(self) -> None:
        """Remove the folders of attempts that ended between their last write and their report."""
        for folder in self._results.folders():
            job = self._jobs.get(folder.rpartition("-")[0])
            is_needed = job is not None and (
                job.result_path == folder or job.status == "in_progress"
            )
            if not is_needed:
                self._results.remove(folder)
