"""What is installed beside this Python, as a CycloneDX 1.5 bill of materials.

    python docker/write_sbom.py sbom.json

Each distribution has name, version, licence, package URL and what it requires. Nothing is asked
of a network, and two runs in one environment write the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement


def main() -> None:
    """Write the file that the command line names."""
    Path(sys.argv[1]).write_text(json.dumps(bill_of_materials(), indent=1) + "\n", encoding="utf-8")


def bill_of_materials() -> dict[str, Any]:
    """The document: `components`, and the `dependencies` between them."""
    found = {canonical(one.name): one for one in distributions()}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": [component(found[name]) for name in sorted(found)],
        "dependencies": [
            {"ref": url_of(one), "dependsOn": [url_of(found[n]) for n in requirements(one, found)]}
            for _, one in sorted(found.items())
        ],
    }


def component(one: Distribution) -> dict[str, Any]:
    """A distribution as a component."""
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": url_of(one),
        "name": one.name,
        "version": one.version,
        "purl": url_of(one),
    }
    licence = one.metadata.get("License-Expression")
    text = licence or one.metadata.get("License") or ""
    if licence:
        made["licenses"] = [{"expression": licence}]
    elif text and "\n" not in text:  # some distributions give the whole text
        made["licenses"] = [{"license": {"name": text}}]
    return made


def requirements(one: Distribution, found: dict[str, Distribution]) -> list[str]:
    """Canonical names of what a distribution requires, of those that are installed."""
    needed = {canonical(r.name) for r in map(Requirement, one.requires or []) if applies(r)}
    return sorted(needed & found.keys())


def applies(requirement: Requirement) -> bool:
    """Whether a requirement holds here without any extra."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def canonical(name: str) -> str:
    """The name as the index has it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def url_of(one: Distribution) -> str:
    """The package URL."""
    return f"pkg:pypi/{canonical(one.name)}@{one.version}"


if __name__ == "__main__":
    main()
