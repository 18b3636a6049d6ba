"""The shipped cluster files with their placeholders filled in, as they are and after a change for the worse."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CLUSTERS = ROOT / "clusters"
SHIPPED = ("aws.yaml", "gcp.yaml", "azure.yaml", "local.yaml", "kuberay.yaml", "slurm.sh")
VALUES = {
    "<your-region>": "us-west-2",
    "<your-zones>": "us-west-2a,us-west-2b",
    "<your-ami>": "ami-0123456789abcdef0",
    "<your-subnet>": "subnet-0123456789abcdef0",
    "<your-security-group>": "sg-0123456789abcdef0",
    "<your-bucket>": "lab-results",
    "<your-address>": "203.0.113.7",
    "<your-account>": "physics",
    "<your-project>": "robust-lab",
    "<your-image>": "projects/deeplearning-platform-release/global/images/base-1",
    "<your-public-key>": "ssh-ed25519 AAAA ubuntu",
    "<your-subscription>": "00000000-0000-0000-0000-000000000000",
    "<your-resource-group>": "arat-ray",
    "<your-jump-host>": "me@198.51.100.4",
    "<your-image-version>": "24.07.25",
    "<your-share>": "10.84.0.9:/results",
    "<your-user>": "ray",
    "<your-shared-folder>": "/shared/results",
    "<your-head>": "192.168.7.1",
    "<your-worker-1>": "192.168.7.2",
    "<your-worker-2>": "192.168.7.3",
    "<your-registry>": "registry.example.org/lab",
    "<your-results-claim>": "results",
    "<your-digest>": "0123456789abcdef" * 4,
    "<your-partition>": "gpu",
}


def filled(name: str) -> str:
    """The text of a shipped file, ready to use."""
    text = (CLUSTERS / name).read_text()
    for placeholder, value in VALUES.items():
        text = text.replace(placeholder, value)
    return text


def changed(name: str, old: str, new: str, *, times: int = 1) -> str:
    """The same with one thing changed, which must stand in it below the comments that it opens with."""
    head, separator, body = filled(name).partition("\n#SBATCH" if name.endswith(".sh") else "\n\n")
    body = separator + body
    assert old in body, f"{old!r} is not in {name}: this test changes nothing"
    return head + body.replace(old, new, times)
