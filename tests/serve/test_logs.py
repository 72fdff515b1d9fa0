import json
import logging

from serve.logs import JsonFormatter
from serve.meters import queue_page


def test_a_log_line_is_json_with_its_job() -> None:
    record = logging.LogRecord("serve.engine", logging.INFO, "", 1, "job %s: done", ("v",), None)
    record.job = "v"
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["message"], line["job"]) == ("info", "job v: done", "v")


def test_the_state_of_the_queue_is_in_prometheus_form() -> None:
    page = queue_page({"queued": 2, "failed": 0}, 1.5)
    assert 'dreambooth3d_jobs{status="queued"} 2\n' in page
    assert page.endswith("dreambooth3d_queue_age_seconds 1.500\n")
