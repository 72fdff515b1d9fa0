"""What schemathesis makes up from `/openapi.json`; every answer must be a documented one."""

import json
import sys
from pathlib import Path

from benchmarks.commands import run_logged, scratch_folder
from benchmarks.serve_server import Server, serving
from benchmarks.serve_subjects import add_subjects

NUM_CASES = 2000
# Of each operation, in the phase that makes requests up; the other phases add their own.
_EXAMPLES = 110
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "allow_header_conformance",
)


def undocumented_answers(seed: int) -> float:
    """Requests, of at least 2,000, whose answer is a 5xx or not as `/openapi.json` says.

    Raises:
        ChildProcessError: there were fewer, or schemathesis could not finish.
    """
    # The default clip fits, so that jobs are accepted, run, canceled and deleted meanwhile.
    with serving(
        "serve-schemathesis", max_clip_tokens=1280, max_steps=20, max_trainings=1, subject_steps=1
    ) as server:
        add_subjects(server.home, 2, seed=seed)
        return float(_num_wrong(server, seed))


def _num_wrong(server: Server, seed: int) -> int:
    with scratch_folder() as folder:
        report = folder / "report.json"
        command = [
            str(Path(sys.executable).parent / "schemathesis"), "run",
            f"{server.url}/openapi.json", "--checks", ",".join(_CHECKS), "--seed", str(seed),
            "--max-examples", str(_EXAMPLES), "--continue-on-failure", "--no-color",
            "--report", "json", "--report-json-path", str(report),
        ]  # fmt: skip
        run_logged(command, log="serve-schemathesis-cases", cwd=folder)
        found = json.loads(report.read_text(encoding="utf-8"))
    cases = found["test_cases"]
    print(f"schemathesis: {cases}", file=sys.stderr, flush=True)
    if not found["complete"] or found["errors"] or cases["generated"] < NUM_CASES:
        raise ChildProcessError(
            f"schemathesis must ask at least {NUM_CASES} times, got {cases['generated']} and "
            f"{found['errors']}; see runs/proof/serve-schemathesis-cases.log"
        )
    return int(cases["with_failures"])
