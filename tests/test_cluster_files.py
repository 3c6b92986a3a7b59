"""cluster.yaml and rayjob.yaml: what can be known of them without a cloud."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.core import TyperGroup
from typer.main import get_command

from metarl.cli.app import app
from metarl.config import load_config
from tests.distributed.ray_internals import validated

ROOT = Path(__file__).parents[1]
(RAY_VERSION,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
IN_IMAGE = "/home/ray/metarl/"


def document(name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / name).read_text())
    assert isinstance(content, dict)
    return content


@pytest.fixture
def cluster() -> dict[str, Any]:
    return document("cluster.yaml")


@pytest.fixture
def job() -> dict[str, Any]:
    return document("rayjob.yaml")


# --- cluster.yaml ------------------------------------------------------------------------------------


def test_ray_accepts_the_cluster_and_takes_its_head_and_workers_as_meant(cluster: dict[str, Any]) -> None:
    prepared = validated(cluster)
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert head["resources"]["GPU"] == 1
    assert head["max_workers"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    workers = prepared["available_node_types"]["rollouts"]
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert workers["min_workers"] == 0 < workers["max_workers"] <= prepared["max_workers"]


def test_ray_refuses_a_cluster_with_a_key_it_does_not_know(cluster: dict[str, Any]) -> None:
    cluster["hed_node_type"] = "learner"
    with pytest.raises(Exception, match="hed_node_type"):
        validated(cluster)


def test_every_node_has_the_pinned_ray_and_asks_for_the_token(cluster: dict[str, Any]) -> None:
    docker = cluster["docker"]
    for image in (docker["head_image"], docker["worker_image"]):
        assert image.startswith(f"rayproject/ray:{RAY_VERSION}-py311-")
    assert "--env RAY_AUTH_MODE=token" in docker["run_options"]
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in command for command in cluster["setup_commands"])
    assert "RAY_AUTH_TOKEN=" not in (ROOT / "cluster.yaml").read_text()


def test_the_dashboard_listens_on_loopback_alone_and_the_head_scales(cluster: dict[str, Any]) -> None:
    start = shlex.split(cluster["head_start_ray_commands"][-1])
    assert start[:3] == ["ray", "start", "--head"]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--dashboard-port=8265" in start
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start


def test_neither_runs_nor_hidden_files_go_to_the_nodes(cluster: dict[str, Any]) -> None:
    assert {".*", "runs/"} <= set(cluster["rsync_exclude"])
    assert cluster["file_mounts"]["~/metarl"] == "."


# --- rayjob.yaml -------------------------------------------------------------------------------------


def test_the_job_has_what_kuberay_requires(job: dict[str, Any]) -> None:
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert len(job["metadata"]["name"]) <= 47  # KubeRay's limit: names of pods are made from it
    spec = job["spec"]
    assert spec["entrypoint"]
    assert spec["ttlSecondsAfterFinished"] == 0 or spec["shutdownAfterJobFinishes"]
    assert isinstance(yaml.safe_load(spec["runtimeEnvYAML"]), dict)
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["name"]
        assert container["image"]
    for group in cluster["workerGroupSpecs"]:
        assert group["groupName"]
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    ports = {port["name"]: port["containerPort"] for port in groups[0]["template"]["spec"]["containers"][0]["ports"]}
    assert ports == {"gcs-server": 6379, "dashboard": 8265, "client": 10001}


def test_the_job_has_the_pinned_ray_and_asks_for_the_token(job: dict[str, Any]) -> None:
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == RAY_VERSION
    assert cluster["authOptions"] == {"mode": "token"}
    text = (ROOT / "rayjob.yaml").read_text()
    assert set(re.findall(r"rayproject/ray:([\d.]+)", text)) == {RAY_VERSION}
    assert set(re.findall(r"metarl:ray-([\d.]+\d)", text)) == {RAY_VERSION}


def test_the_jobs_command_is_one_that_trains_and_goes_on(job: dict[str, Any]) -> None:
    spec = job["spec"]
    program, command, *arguments = shlex.split(spec["entrypoint"])
    assert (program, command) == ("metarl", "train")
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    with group.commands["train"].make_context("train", arguments) as context:
        given = context.params
    assert given["resume"]
    assert given["address"] == "auto"
    config = str(given["config"])
    assert config.startswith(IN_IMAGE)
    settings = load_config(ROOT / config.removeprefix(IN_IMAGE), given["overrides"])
    head = spec["rayClusterSpec"]["headGroupSpec"]
    (container,) = head["template"]["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"] for volume in head["template"]["spec"]["volumes"]}
    assert mounts[str(Path(given["run_dir"]).parent)] in volumes
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    cpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    at_once = int(head["rayStartParams"]["num-cpus"])
    assert settings.executor.num_workers is not None
    assert at_once < settings.executor.num_workers <= at_once + group["maxReplicas"] * cpus
