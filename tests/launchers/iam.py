"""What IAM would answer: as much of its evaluation as the policies of clusters/aws-iam.json use, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from arat_ray.launchers.aws_roles import policy
from tests.launchers.filled import CLUSTERS

VALUES = {
    "<your-region>": "us-west-2",
    "<your-account>": "123456789012",
    "<your-bucket>": "lab-results",
    "<your-security-group>": "sg-1",
    "<your-worker-types>": "g5.2xlarge,g6.2xlarge",
}


def listed(value: Any) -> list[str]:
    """IAM's way to write one or several."""
    return value if isinstance(value, list) else [value]


def is_allowed(kind: str, action: str, resource: str, context: Mapping[str, str] | None = None) -> bool:
    """Whether a role may do this, in a request that has these condition keys."""
    statements = policy(CLUSTERS / "aws-iam.json", kind, VALUES)["Statement"]
    return any(_grants(each, action, resource, context or {}) for each in statements)


def _grants(statement: dict[str, Any], action: str, resource: str, context: Mapping[str, str]) -> bool:
    assert statement["Effect"] == "Allow"
    return (
        action in listed(statement["Action"])
        and any(fnmatchcase(resource, each) for each in listed(statement["Resource"]))
        and all(_holds(operator, keys, context) for operator, keys in statement.get("Condition", {}).items())
    )


def _holds(operator: str, keys: dict[str, Any], context: Mapping[str, str]) -> bool:
    """A key that a request has not fulfils no condition, but for those that end in IfExists."""
    compare = {
        "StringEquals": lambda value, wanted: value == wanted,
        "StringLike": fnmatchcase,
        "ArnEquals": fnmatchcase,
    }[operator.removesuffix("IfExists")]
    return all(
        (key not in context and operator.endswith("IfExists"))
        or (key in context and any(compare(context[key], wanted) for wanted in listed(value)))
        for key, value in keys.items()
    )
