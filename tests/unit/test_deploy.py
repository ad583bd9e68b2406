"""The recipes of `deploy/` are well formed and name what is there; none is run here, as there is no cloud."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT
from tests.unit.test_docs import parse

DEPLOY = ROOT / "deploy"
SCRIPTS = sorted(DEPLOY.glob("*.sh"))
RECIPES = sorted(path for path in DEPLOY.iterdir() if path.is_file())


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def loaded(name: str) -> Any:
    return yaml.safe_load(text_of(DEPLOY / name))


def ray_folder() -> Path:
    # Found and not imported: that takes a second.
    found = importlib.util.find_spec("ray")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one_that_bash_reads_and_that_may_be_run(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert script.stat().st_mode & 0o111 == 0o111
    assert text_of(script).startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in text_of(script)


@pytest.mark.parametrize("script", ["drain.sh", "slurm.sh"])
def test_a_script_without_its_arguments_says_what_they_are(script: str) -> None:
    done = subprocess.run(["bash", DEPLOY / script], capture_output=True, text=True)
    assert done.returncode != 0 and f"{script} " in done.stderr.partition("usage: ")[2]


def test_the_image_copies_what_is_there_and_has_the_uv_of_the_makefile() -> None:
    lines = text_of(DEPLOY / "Dockerfile").replace("\\\n", " ").splitlines()
    instructions = [line.split() for line in lines if line and not line.startswith("#")]
    known = {"FROM", "RUN", "WORKDIR", "COPY", "USER", "CMD"}
    assert instructions[0][0] == "FROM" and {words[0] for words in instructions} == known
    sources = [source for words in instructions if words[0] == "COPY" for source in words[1:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert {"vidal", "pipelines", "deploy", "pyproject.toml", "requirements.lock"} <= set(sources)
    versions = [re.search(rf"{word}(\S+)", text_of(ROOT / file)) for word, file in
                (("uv==", "deploy/Dockerfile"), ("UV_VERSION := ", "Makefile"))]  # fmt: skip
    assert len({found and found[1] for found in versions}) == 1


def test_the_cluster_of_ray_up_is_one_by_rays_own_schema() -> None:
    cluster = loaded("ray-up.yaml")
    jsonschema.validate(cluster, json.loads(text_of(ray_folder() / "autoscaler" / "ray-schema.json")))
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types and types[cluster["head_node_type"]]["resources"] == {"CPU": 0}
    provider = yaml.safe_load(text_of(ray_folder() / "autoscaler" / "aws" / "defaults.yaml"))
    assert set(cluster) <= {*provider, "worker_nodes"} and set(cluster["provider"]) <= {*provider["provider"]}
    assert sum(kind.get("max_workers", 0) for kind in types.values()) <= cluster["max_workers"]


# Of KubeRay's RayJob (ray.io/v1, release 1.7); every level of it that the recipe uses.
RAYJOB = {
    "spec": {"entrypoint", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit", "rayClusterSpec"},
    "cluster": {"rayVersion", "enableInTreeAutoscaling", "authOptions", "headGroupSpec", "workerGroupSpecs"},
    "head": {"rayStartParams", "template"},
    "group": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
    "pod": {"terminationGracePeriodSeconds", "containers", "volumes"},
    "container": {"name", "image", "envFrom", "resources", "volumeMounts", "lifecycle"},
}


def test_the_rayjob_has_the_fields_of_kuberays() -> None:
    job = loaded("rayjob.yaml")
    assert (job["apiVersion"], job["kind"], set(job)) == ("ray.io/v1", "RayJob", {"apiVersion", "kind", "metadata", "spec"})  # fmt: skip
    cluster = job["spec"]["rayClusterSpec"]
    assert set(job["spec"]) <= RAYJOB["spec"] and set(cluster) <= RAYJOB["cluster"]
    assert set(cluster["headGroupSpec"]) <= RAYJOB["head"]
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= RAYJOB["group"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert set(pod) <= RAYJOB["pod"]
        for container in pod["containers"]:
            assert set(container) <= RAYJOB["container"]
            mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
            assert mounted == {volume["name"] for volume in pod.get("volumes", ())}
    assert cluster["rayVersion"] == importlib.metadata.version("ray")


def test_a_pod_has_more_time_to_end_than_its_notice_says() -> None:
    for group in loaded("rayjob.yaml")["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
        notice, sleep = map(int, re.findall(r"(?:drain\.sh|sleep) (\d+)", command))
        assert notice <= sleep < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_command_of_vidals_and_every_file_that_a_recipe_names_is_there(recipe: Path) -> None:
    text = text_of(recipe).replace('"$recipe"', "r.yaml").replace('"$out"', "out").replace('"$address"', "auto")
    for command in re.findall(r"\bvidal build [^\"\n&]*", text):
        parse(shlex.join(shlex.split(command)))
    assert [name for name in re.findall(r"\bdeploy/([\w.-]+)", text) if not (DEPLOY / name).exists()] == []
