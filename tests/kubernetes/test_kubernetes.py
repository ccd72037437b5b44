"""Manifests of docker/kubernetes and of Argo, against schemas of Kubernetes and its operators."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

import embedmill
from embedmill.jobs.run_record import BUG
from embedmill.pipeline import errors
from embedmill.pipeline.config import load

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker/kubernetes"
SCHEMAS = Path(__file__).parent / "schemas"
OVERLAYS = ("minimal", "ray", "s3", "gpu")
ARGO = tuple(sorted((ROOT / "examples/schedules").glob("argo*.yaml")))
KUBERNETES = "kubernetes.json#/$defs/io.k8s.api"
# The schema of each kind.
KINDS = {
    "ConfigMap": f"{KUBERNETES}.core.v1.ConfigMap",
    "CronJob": f"{KUBERNETES}.batch.v1.CronJob",
    "Namespace": f"{KUBERNETES}.core.v1.Namespace",
    "NetworkPolicy": f"{KUBERNETES}.networking.v1.NetworkPolicy",
    "PersistentVolumeClaim": f"{KUBERNETES}.core.v1.PersistentVolumeClaim",
    "Role": f"{KUBERNETES}.rbac.v1.Role",
    "RoleBinding": f"{KUBERNETES}.rbac.v1.RoleBinding",
    "Secret": f"{KUBERNETES}.core.v1.Secret",
    "ServiceAccount": f"{KUBERNETES}.core.v1.ServiceAccount",
    "SparkApplication": "sparkapplication.json",
    "RayJob": "rayjob.json",
    "RayCronJob": "raycronjob.json",
    "CronWorkflow": "cronworkflow.json",
}


@cache
def registry() -> Registry[Any]:
    """All schemas by their file names."""
    found = {
        path.name: Resource.from_contents(
            json.loads(path.read_text(encoding="utf-8")), default_specification=DRAFT202012
        )
        for path in SCHEMAS.glob("*.json")
    }
    return Registry().with_resources(found.items())


def check(manifest: dict[str, Any]) -> None:
    """Raise jsonschema.ValidationError where a manifest is not of its kind's schema."""
    schema = {"$ref": KINDS[manifest["kind"]]}
    jsonschema.Draft202012Validator(schema, registry=registry()).validate(manifest)


def rendered(overlay: str) -> list[dict[str, Any]]:
    """The manifests of an overlay."""
    text = (FOLDER / "rendered" / f"{overlay}.yaml").read_text(encoding="utf-8")
    return list(yaml.safe_load_all(text))


def one(overlay: str, kind: str) -> dict[str, Any]:
    """The only manifest of this kind."""
    (found,) = (m for m in rendered(overlay) if m["kind"] == kind)
    return found


def pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Pod specs of a manifest, with those of Spark in the same form."""
    spec = manifest.get("spec", {})
    if manifest["kind"] == "CronJob":
        pod = spec["jobTemplate"]["spec"]["template"]
        return [{**pod["spec"], "labels": pod["metadata"]["labels"]}]
    if manifest["kind"] in ("RayJob", "RayCronJob"):
        spec = spec.get("jobTemplate", spec)
        cluster = spec["rayClusterSpec"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        found = [group["template"] for group in groups] + [spec["submitterPodTemplate"]]
        return [{**pod["spec"], "labels": pod["metadata"]["labels"]} for pod in found]
    if manifest["kind"] == "SparkApplication":
        return [
            {
                "labels": side["labels"],
                "securityContext": side["podSecurityContext"],
                "containers": [{**side, "resources": None}],
                "volumes": spec["volumes"],
            }
            for side in (spec["driver"], spec["executor"])
        ]
    return []


def restricted_pod(pod: dict[str, Any]) -> None:
    """What the `restricted` pod security standard wants of a pod."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_is_of_the_schemas_and_without_rights(overlay: str) -> None:
    manifests = rendered(overlay)
    found = 0
    for manifest in manifests:
        check(manifest)
        assert manifest["kind"] == "Namespace" or manifest["metadata"]["namespace"] == "embedmill"
        for pod in pods(manifest):
            found += 1
            assert pod["labels"]["app.kubernetes.io/part-of"] == "embedmill"  # the network's policy
            restricted_pod(pod)
            volumes = {volume["name"] for volume in pod["volumes"]}
            for container in pod["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"] is True
                mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
                assert set(mounts) <= volumes
                assert mounts["tmp"] == "/tmp"
                if container.get("name") != "ray-job-submitter":
                    assert ("mill" in mounts) == (overlay != "s3")
                resources = container["resources"]
                if resources is None:  # Spark makes them of these
                    assert {"cores", "coreRequest", "memory", "memoryOverhead"} <= set(container)
                else:
                    assert {"cpu", "memory"} <= set(resources["requests"])
                    assert resources["limits"]["memory"] == resources["requests"]["memory"]
    assert found == {"minimal": 1, "ray": 3}.get(overlay, 6)


def test_schemas_refuse_what_kubernetes_would() -> None:
    manifest = one("s3", "RayJob")
    manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["container"] = []
    with pytest.raises(jsonschema.ValidationError, match="container"):
        check(manifest)
    manifest = one("s3", "SparkApplication")
    manifest["spec"]["driver"]["core"] = 1
    with pytest.raises(jsonschema.ValidationError, match="core"):
        check(manifest)
    manifest = yaml.safe_load(ARGO[-1].read_text(encoding="utf-8"))
    manifest["spec"]["workflowSpec"]["templates"][1]["resource"]["successConditions"] = ""
    with pytest.raises(jsonschema.ValidationError, match="successConditions"):
        check(manifest)
    manifest = one("minimal", "CronJob")
    manifest["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"][
        "values"
    ] = ["2"]
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


def test_retries_end_at_codes_that_no_retry_helps() -> None:
    job = one("minimal", "CronJob")["spec"]["jobTemplate"]["spec"]
    rule = job["podFailurePolicy"]["rules"][0]
    classes = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
    never = {c.exit_code for c in classes if not c.retry and c is not errors.EmbedmillError} | {BUG}
    assert rule["action"] == "FailJob"
    assert set(rule["onExitCodes"]["values"]) == never
    assert (
        rule["onExitCodes"]["containerName"]
        == pods(one("minimal", "CronJob"))[0]["containers"][0]["name"]
    )
    assert job["backoffLimit"] > 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # what podFailurePolicy wants


def test_versions_and_paths_are_those_of_the_images() -> None:
    pins = dict(
        line.split("==", 1)
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    for overlay in ("s3", "gpu"):
        ray, spark = one(overlay, "RayJob")["spec"], one(overlay, "SparkApplication")["spec"]
        assert ray["rayClusterSpec"]["rayVersion"] == pins["ray"]
        assert ray["rayClusterSpec"]["authOptions"] == {"mode": "token"}
        assert spark["sparkVersion"].split(".")[:2] == pins["pyspark"].split(".")[:2]
        assert spark["image"] == f"embedmill-spark:{embedmill.__version__}"
        python = re.search(r"/lib/(python3\.\d+)/", spark["mainApplicationFile"])
        assert python is not None
        assert f"{python[1].replace('python', 'python:')}-slim" in dockerfile
        assert "ENTRYPOINT" in dockerfile
    worker = pods(one("gpu", "RayJob"))[1]
    assert worker["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_a_night_on_ray_has_the_cluster_of_a_training() -> None:
    night, training = one("ray", "RayCronJob")["spec"]["jobTemplate"], one("gpu", "RayJob")["spec"]
    assert night["activeDeadlineSeconds"] <= (24 - 3) * 3600  # then the date would be another
    cluster = training["rayClusterSpec"]
    workers = cluster["workerGroupSpecs"][0]["template"]["spec"]
    workers.pop("tolerations")
    workers["containers"][0]["resources"]["limits"].pop("nvidia.com/gpu")
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    # Data stages run beside the head, on Sail.
    head["image"] = f"embedmill-spark:{embedmill.__version__}"
    head["resources"] = {
        "requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"memory": "16Gi"},
    }  # fmt: skip
    plain = json.loads(json.dumps(training).replace("-cuda", ""))
    assert {**night, "entrypoint": ""} == {**plain, "entrypoint": ""}


@pytest.mark.parametrize("config", ["base/plays.toml", "overlays/s3/plays.toml"])
def test_configs_are_of_a_date(config: str) -> None:
    found = load(FOLDER / config, [], lambda _: None, ["ds=2026-11-22"])
    assert found.run.name == "plays-2026-11-22"
    assert (FOLDER / config).read_text() in {
        one(overlay, "ConfigMap")["data"]["plays.toml"] for overlay in OVERLAYS
    }


@pytest.mark.parametrize("path", ARGO, ids=lambda path: path.stem)
def test_argo_is_of_the_schemas(path: Path) -> None:
    for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        check(manifest)
        for template in manifest.get("spec", {}).get("workflowSpec", {}).get("templates", []):
            if "resource" in template:
                made = yaml.safe_load(template["resource"]["manifest"])
                check(made)
                for pod in pods(made):
                    restricted_pod(pod)
            elif "container" in template:
                restricted_pod(
                    {**manifest["spec"]["workflowSpec"], "containers": [template["container"]]}
                )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rendered_files_are_what_kustomize_makes(overlay: str) -> None:
    kubectl = shutil.which("kubectl")
    version = subprocess.run(
        [kubectl or "false", "version", "--client"], capture_output=True, text=True, check=False
    )
    if "Kustomize Version: v5" not in version.stdout:
        pytest.skip("no kubectl with kustomize 5")
    done = subprocess.run(
        [kubectl or "", "kustomize", str(FOLDER / "overlays" / overlay)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert list(yaml.safe_load_all(done.stdout)) == rendered(overlay)


def test_image_starts_what_spark_gives_its_pods(tmp_path: Path) -> None:
    script = ROOT / "docker/start-spark-on-kubernetes.sh"
    (tmp_path / "bin").mkdir()
    for name in ("java", "bin/spark-submit"):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (tmp_path / name).chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SPARK_HOME": str(tmp_path),
        "SPARK_DRIVER_BIND_ADDRESS": "10.0.0.7",
        # Variables of an executor's pod; options of Java keep their order beyond nine.
        "SPARK_JAVA_OPT_0": "-Da=1",
        "SPARK_JAVA_OPT_2": "-Db=with space",
        "SPARK_JAVA_OPT_10": "-Dc=3",
        "SPARK_EXECUTOR_MEMORY": "4g",
        "SPARK_CONF_DIR": "/opt/spark/conf",
        "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@driver:7078",
        "SPARK_EXECUTOR_ID": "1",
        "SPARK_EXECUTOR_CORES": "4",
        "SPARK_APPLICATION_ID": "spark-1",
        "SPARK_EXECUTOR_POD_IP": "10.0.0.8",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_EXECUTOR_POD_NAME": "exec-1",
    }

    def said(*words: str) -> list[str]:
        return subprocess.run(
            [script, *words], env=environment, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    assert said("driver", "--class", "x", "local:///all.py") == [
        *("--deploy-mode", "client", "--conf", "spark.driver.bindAddress=10.0.0.7"),
        *("--conf", "spark.executorEnv.SPARK_DRIVER_POD_IP=10.0.0.7"),
        *("--class", "x", "local:///all.py"),
    ]
    assert said("executor") == [
        *("-Da=1", "-Db=with space", "-Dc=3", "-Xms4g", "-Xmx4g"),
        *("-cp", f"/opt/spark/conf:{tmp_path}/jars/*"),
        "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend",
        *("--driver-url", "spark://CoarseGrainedScheduler@driver:7078", "--executor-id", "1"),
        *("--cores", "4", "--app-id", "spark-1", "--hostname", "10.0.0.8"),
        *("--resourceProfileId", "0", "--podName", "exec-1"),
    ]
    assert said("echo", "as it is") == ["as it is"]
