"""examples/kuberay.yaml and examples/Dockerfile: what can be known of them without Kubernetes and without an engine."""

import os
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from lps.cli.prep.main import main
from tests.conftest import REPOSITORY
from tests.test_packaging import CONFIG

JOB = yaml.safe_load((REPOSITORY / "examples/kuberay.yaml").read_text())
SPEC = JOB["spec"]["rayClusterSpec"]
PODS = [group["template"]["spec"] for group in (SPEC["headGroupSpec"], *SPEC["workerGroupSpecs"])]
DOCKERFILE = (REPOSITORY / "examples/Dockerfile").read_text()
STEPS = [line.split(" ", 1) for line in DOCKERFILE.replace("\\\n", " ").splitlines() if line and line[0] != "#"]


def closed(schema: Any) -> Any:
    """Return a schema that takes no other fields than it names, as `kubectl apply` does by default."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def schema_of(definition: Any, version: str) -> Any:
    """Return the schema of a version in a CustomResourceDefinition; it takes no field that it does not name."""
    (found,) = [each for each in definition["spec"]["versions"] if each["name"] == version]
    return closed(found["schema"]["openAPIV3Schema"])


def test_the_job_fits_its_published_definition() -> None:
    """KubeRay's helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml: not ours to carry."""
    if not (path := os.environ.get("LPS_KUBERAY_CRD")):
        pytest.skip("LPS_KUBERAY_CRD names no ray.io_rayjobs.yaml")
    schema = schema_of(yaml.safe_load(Path(path).read_text()), JOB["apiVersion"].partition("/")[2])
    jsonschema.validate(JOB, schema)


def test_a_field_that_a_definition_lacks_is_found() -> None:
    spec = {"properties": {"entrypoint": {"type": "string"}}, "type": "object"}
    schema = {"properties": {"spec": spec, "metadata": {"type": "object"}}, "type": "object"}
    definition = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}
    found = schema_of(definition, "v1")
    jsonschema.validate({"metadata": {"name": "any"}, "spec": {"entrypoint": "lps-prep"}}, found)
    for wrong in ({"entrypoint": 1}, {"entryPoint": "lps-prep"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"spec": wrong}, found)


def test_the_entrypoint_is_a_command_that_there_is() -> None:
    program, command, *args = shlex.split(JOB["spec"]["entrypoint"])
    assert program == "lps-prep"
    asked = main.commands[command].make_context(command, args).params
    assert (asked["address"], asked["localizer"]) == ("auto", "mtcnn")
    cpus = [int(group["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]) * group["replicas"]
            for group in SPEC["workerGroupSpecs"]]  # fmt: skip
    assert asked["workers"] == sum(cpus), "a video for each CPU"


def test_pods_have_scratch_and_a_short_folder_for_ray_and_are_not_root() -> None:
    for pod in PODS:
        (container,) = pod["containers"]
        assert container["image"] == "IMAGE"
        env = {each["name"]: each["value"] for each in container["env"]}
        assert env["TMPDIR"] in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
        assert env["RAY_TMPDIR"] == "/tmp"
        assert pod["securityContext"]["runAsNonRoot"]
        assert f"--uid {pod['securityContext']['runAsUser']} " in DOCKERFILE


def test_one_ray_in_job_image_and_constraints() -> None:
    (tested,) = re.findall(r"^ray==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert SPEC["rayVersion"] == tested
    assert ["ARG", f"RAY={tested}"] in STEPS


def test_the_image_has_what_a_cluster_needs_and_no_root() -> None:
    words = [word for word, _ in STEPS]
    assert words[0] == "FROM"
    assert "-slim" in STEPS[0][1]
    assert words.index("USER") > max(k for k, (_, rest) in enumerate(STEPS) if "useradd" in rest)
    assert ["USER", "lps"] in STEPS
    (extras,) = re.findall(r"lps-prep\[([\w,]+)\]", DOCKERFILE)
    assert set(extras.split(",")) <= set(CONFIG["options.extras_require"])
    assert "libgl" not in " ".join(rest.lower() for word, rest in STEPS)
