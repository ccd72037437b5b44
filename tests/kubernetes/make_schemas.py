"""Writes schemas/*.json anew from the packages that carry them; schemas/README.md says which.

    pip download --no-deps kubernetes-validate==1.37.0 kubeflow-spark-api==2.4.0 hera==7.1.0
    python make_schemas.py FOLDER_OF_WHEELS   # needs pydantic; hera needs requests

`rayjob.json` is written by hand, as no package carries it.
"""

from __future__ import annotations

import importlib
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "schemas"
CORE = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict/_definitions.json"
# What manifests of docker/kubernetes are made of.
KINDS = (
    "io.k8s.api.batch.v1.CronJob",
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.Namespace",
    "io.k8s.api.core.v1.PersistentVolumeClaim",
    "io.k8s.api.core.v1.PodTemplateSpec",
    "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.networking.v1.NetworkPolicy",
    "io.k8s.api.rbac.v1.Role",
    "io.k8s.api.rbac.v1.RoleBinding",
)
# Words that neither check nor lead to anything.
_WORDS = ("description", "title", "default", "x-kubernetes-group-version-kind")


def bare(schema: Any, *, inside_properties: bool = False) -> Any:
    """A schema without descriptions; keys that are names of properties stay."""
    if isinstance(schema, dict):
        return {
            key: bare(value, inside_properties=key in ("properties", "$defs"))
            for key, value in schema.items()
            if inside_properties or not (key in _WORDS or key.startswith("x-kubernetes-"))
        }
    return [bare(value) for value in schema] if isinstance(schema, list) else schema


def references(schema: Any) -> set[str]:
    """Names of the definitions that a schema refers to."""
    found: set[str] = set()
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            found.add(schema["$ref"].rsplit("/", 1)[-1])
        for value in schema.values():
            found |= references(value)
    elif isinstance(schema, list):
        for value in schema:
            found |= references(value)
    return found


def reached(definitions: dict[str, Any], wanted: set[str]) -> dict[str, Any]:
    """Definitions that are wanted, and those that they refer to."""
    found: dict[str, Any] = {}
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = definitions[name]
            wanted |= references(definitions[name])
    return dict(sorted(found.items()))


def core(wheels: Path) -> dict[str, Any]:
    """Kubernetes' own kinds; unknown fields are errors."""
    (wheel,) = wheels.glob("kubernetes_validate-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        definitions = json.loads(archive.read(CORE))["$defs"]
    text = json.dumps(bare(reached(definitions, set(KINDS))))
    return {"$defs": json.loads(text.replace("/api/_definitions.json#/$defs/", "#/$defs/"))}


def closed(schema: Any) -> Any:
    """A schema of pydantic in which unknown fields are errors, and null is no value."""
    if isinstance(schema, list):
        return [closed(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    if "actual_instance" in schema.get("properties", {}):
        return {"type": ["number", "string"]}  # a quantity, or a number or name of a port
    if schema.get("type") == "object" and "properties" in schema:
        schema = {**schema, "additionalProperties": False}
    options = schema.get("anyOf")
    if options and {"type": "null"} in options:
        left = [one for one in options if one != {"type": "null"}]
        schema = left[0] if len(left) == 1 else {**schema, "anyOf": left}
    return {key: closed(value) for key, value in schema.items()}


def model(wheels: Path, wheel: str, module: str, name: str) -> dict[str, Any]:
    """A model of a package as a schema.

    Args:
        wheels: folder of wheels.
        wheel: beginning of the wheel's name.
        module: where the model is.
        name: of the model.
    """
    (path,) = wheels.glob(f"{wheel}-*.whl")
    sys.path.insert(0, str(path))
    found = getattr(importlib.import_module(module), name).model_json_schema(by_alias=True)
    return dict(closed(bare(found)))


def main(wheels: Path) -> None:
    """Write all schemas."""
    made = {
        "kubernetes": core(wheels),
        "sparkapplication": model(
            wheels,
            "kubeflow_spark_api",
            "kubeflow_spark_api.models.spark_v1beta2_spark_application",
            "SparkV1beta2SparkApplication",
        ),
        "cronworkflow": model(
            wheels, "hera", "hera.workflows.models.io.argoproj.workflow.v1alpha1", "CronWorkflow"
        ),
    }
    for name, schema in made.items():
        text = json.dumps(schema, separators=(",", ":"), sort_keys=True)
        (HERE / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        print(name, len(text))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
