"""Every file of cluster/ against the schema of what reads it."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml

from pipelines.recipes import RECIPES
from serve.settings import ServeSettings

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
# Of the custom resource definitions of KubeRay 1.7.0: closed, without descriptions.
SCHEMAS = json.loads(
    gzip.decompress((ROOT / "tests" / "data" / "kuberay-1.7.0-schemas.json.gz").read_bytes())
)
RAY_FILES = ("raycluster.yaml", "rayjob.yaml", "rayservice.yaml")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / "kuberay" / name).read_text(encoding="utf-8")))


def pods() -> Iterator[dict[str, Any]]:
    """Every pod's spec, of all manifests."""
    for name in (*RAY_FILES, "mlflow.yaml"):
        for document in documents(name):
            yield from (t["spec"] for t in _templates(document) if "containers" in t["spec"])


def _templates(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if isinstance(node.get("template"), dict):
            yield node["template"]
        for value in node.values():
            yield from _templates(value)
    elif isinstance(node, list):
        for value in node:
            yield from _templates(value)


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_manifests_fit_kuberays_schema(name: str) -> None:
    (document,) = documents(name)
    jsonschema.validate(document, SCHEMAS[document["kind"]])


def test_the_schema_refuses_a_misspelt_field() -> None:
    (document,) = documents("raycluster.yaml")
    document["spec"]["headGroupSpec"]["template"]["spec"]["contaniers"] = []
    with pytest.raises(jsonschema.ValidationError, match="contaniers"):
        jsonschema.validate(document, SCHEMAS["RayCluster"])


def test_the_tracking_servers_pod_fits_the_schema_of_pods() -> None:
    head = SCHEMAS["RayCluster"]["properties"]["spec"]["properties"]["headGroupSpec"]
    deployment, service = documents("mlflow.yaml")
    jsonschema.validate(deployment["spec"]["template"], head["properties"]["template"])
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_autoscaler_files_fit_rays_schema(cloud: str) -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    config = yaml.safe_load((CLUSTER / "autoscaler" / f"{cloud}.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)


def test_pods_run_without_rights_and_within_limits() -> None:
    found = list(pods())
    assert len(found) == 8
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])
            assert {mount["name"] for mount in container["volumeMounts"]} <= {
                volume["name"] for volume in pod["volumes"]
            }


def test_claims_exist_for_every_volume() -> None:
    claims = {claim["metadata"]["name"] for claim in documents("storage.yaml")}
    used = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods()
        for volume in pod["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert used == claims


def test_clusters_ask_for_a_token_and_for_this_ray() -> None:
    for name in RAY_FILES:
        text = (CLUSTER / "kuberay" / name).read_text(encoding="utf-8")
        assert "mode: token" in text
        assert f'rayVersion: "{ray.__version__}"' in text


def test_no_file_holds_a_secret() -> None:
    for path in CLUSTER.rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(password|token|secret)\s*[:=]\s*['\"]?[A-Za-z0-9+/]{12,}", text)


def test_commands_name_what_exists() -> None:
    (job,) = documents("rayjob.yaml")
    _, script, *options = job["spec"]["entrypoint"].split()
    assert (ROOT / script.removeprefix("/opt/dreambooth3d/")).is_file()
    assert options[options.index("--recipe") + 1] in RECIPES
    for script in re.findall(r"/opt/dreambooth3d/(\S+\.py)", (CLUSTER / "README.md").read_text()):
        assert (ROOT / script).is_file(), script


def test_the_served_application_takes_its_arguments() -> None:
    (service,) = documents("rayservice.yaml")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    module, _, name = application["import_path"].partition(":")
    assert f"def {name}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    settings = ServeSettings(**application["args"])
    # A pod must not be killed before its engine has given back its jobs.
    for pod in _templates(service):
        assert pod["spec"]["terminationGracePeriodSeconds"] > settings.drain_s
    assert service["spec"]["rayClusterDeletionDelaySeconds"] > settings.drain_s


def test_the_image_installs_the_lock_as_a_user_without_rights() -> None:
    lines = (CLUSTER / "Containerfile").read_text(encoding="utf-8").splitlines()
    installs = [line for line in lines if line.startswith("RUN pip install")]
    assert any("-r requirements.lock" in line for line in installs)
    assert "USER 1000" in lines
    assert lines.index("USER 1000") > max(lines.index(line) for line in installs)
