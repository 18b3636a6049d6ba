"""The cluster's key pair: its private half in a file here, its public half with AWS, and both of one pair."""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from arat_ray.launchers.aws_account import NAME, TAGS, Aws, PreparationStep, or_none

_OPENSSH = re.compile(r"-----BEGIN OPENSSH [P]RIVATE KEY-----(.*?)-----END OPENSSH", re.DOTALL)
_TAGGED = [{"ResourceType": "key-pair", "Tags": TAGS}]


def steps(aws: Aws, file: Path) -> Iterator[PreparationStep]:
    """What makes the pair, or gives AWS the public half of the file that is here.

    Raises ValueError where only one of both is there, and for a file that holds no key.
    """
    missing = ("InvalidKeyPair.NotFound",)
    there = or_none(missing, aws.ec2.describe_key_pairs, KeyNames=[NAME], IncludePublicKey=True)
    if there and not file.exists():
        raise ValueError(f"AWS has the key pair {NAME}, but {file} is not here: bring it, or begin anew with --destroy")
    if file.exists() and not there:
        raise ValueError(f"{file} is here, but AWS has no key pair {NAME}: move the file away, or choose another --key")
    if not there:
        yield PreparationStep(
            f"make the key pair {NAME}; its private half goes to {file}, readable for you alone",
            lambda: _make(aws, file),
        )
        return
    mine, theirs = public_half(file), _words(there["KeyPairs"][0].get("PublicKey", ""))
    if mine != theirs:
        yield PreparationStep(
            f"replace the key pair {NAME} of AWS, which is another than {file}, by the public half of that file",
            lambda: _replace(aws, " ".join(mine)),
        )
    if file.stat().st_mode & 0o077:
        yield PreparationStep(f"make {file} readable for you alone", lambda: file.chmod(0o600))


def public_half(file: Path) -> list[str]:
    """The kind and the public half of a private key. Raises ValueError where a file holds none that can be read."""
    try:
        text = file.read_text(encoding="ascii")
        found = _OPENSSH.search(text)
        if found is None:
            if "PRIVATE KEY-----" not in text:
                raise ValueError(f"{file}: holds no private key; choose another --key")
            return _by_ssh_keygen(file)
        blob = _fourth_string(base64.b64decode(found[1], validate=False))
        length = struct.unpack(">I", blob[:4])[0]
        return [blob[4 : 4 + length].decode("ascii"), base64.b64encode(blob).decode()]
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, binascii.Error, struct.error) as error:
        raise ValueError(f"{file}: holds no private key; choose another --key") from error


def _fourth_string(raw: bytes) -> bytes:
    """OpenSSH's format: a magic word, cipher, derivation and its options, how many keys, then the public half."""
    at = len(b"openssh-key-v1\0")
    for skipped in (0, 0, 0, 4):
        length = 0 if skipped else struct.unpack(">I", raw[at : at + 4])[0]
        at += 4 + length
    length = struct.unpack(">I", raw[at : at + 4])[0]
    return raw[at + 4 : at + 4 + length]


def _by_ssh_keygen(file: Path) -> list[str]:
    if (program := shutil.which("ssh-keygen")) is None:
        raise ValueError(f"{file}: ssh-keygen, which reads a key of this kind, is not installed")
    done = subprocess.run([program, "-y", "-P", "", "-f", file], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise ValueError(f"{file}: holds no private key that ssh can read; choose another --key ({said[:120]})")
    return _words(done.stdout)


def _words(public: str) -> list[str]:
    """`ssh-ed25519 AAAA... comment` without the comment."""
    return public.split()[:2]


def _make(aws: Aws, file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # before AWS makes what it shows once
    with ExitStack() as refused:
        refused.callback(file.unlink)
        with os.fdopen(descriptor, "w") as handle:
            made = aws.ec2.create_key_pair(KeyName=NAME, KeyType="ed25519", TagSpecifications=_TAGGED)
            handle.write(made["KeyMaterial"])
        refused.pop_all()


def _replace(aws: Aws, public: str) -> None:
    aws.ec2.delete_key_pair(KeyName=NAME)
    aws.ec2.import_key_pair(KeyName=NAME, PublicKeyMaterial=public.encode(), TagSpecifications=_TAGGED)
