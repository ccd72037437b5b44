"""What Airflow's provider manager shows of this package: the entry point `apache_airflow_provider`.

Beside `embedmill.airflow` and not in it, as Airflow is not imported yet when it reads this.
"""

from __future__ import annotations

from typing import Any

__all__ = ["get_provider_info"]

_OPERATORS = ["embedmill.airflow.stage_operator", "embedmill.airflow.ray_operator"]


def get_provider_info() -> dict[str, Any]:
    """The provider's description, of the schema `provider_info.schema.json` of Airflow."""
    embedmill = "Embedmill"
    return {
        "package-name": "embedmill",
        "name": embedmill,
        "description": "Batch pipeline for embeddings: a task for each stage, and Ray jobs.",
        "integrations": [
            {
                "integration-name": embedmill,
                "external-doc-url": "https://pypi.org/project/embedmill/",
                "tags": ["software"],
            }
        ],
        "operators": [{"integration-name": embedmill, "python-modules": _OPERATORS}],
        "triggers": [
            {"integration-name": embedmill, "python-modules": ["embedmill.airflow.ray_operator"]}
        ],
    }
