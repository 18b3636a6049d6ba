"""In the place of Ray's `setup_worker`, run as a script: a fork of the driver's fork server becomes the worker.

    python -I -S worker_start.py SERVER SETUP_WORKER [flags] DEFAULT_WORKER arguments

Where the server does not answer, or the worker's environment asks for more than variables, Ray's own SETUP_WORKER takes
this process over. It must import nothing that takes time.
"""

import json
import os
import signal
import socket
import struct
import sys

CONTEXT = "--serialized-runtime-env-context="


def request(arguments: list[str]) -> dict[str, object] | None:
    """What a fork must know to become the worker; None where it cannot be a fork."""
    while arguments and arguments[0].startswith("-"):  # flags of Python itself
        arguments = arguments[1:]
    context = next((each.removeprefix(CONTEXT) for each in arguments if each.startswith(CONTEXT)), "{}")
    wanted = json.loads(context)
    variables = wanted.pop("env_vars", None) or {}
    if wanted.pop("py_executable", None) not in (None, sys.executable) or any(wanted.values()):
        return None
    if any("$" in value for value in variables.values()):  # Ray puts in what others say
        return None
    return {
        "arguments": [each for each in arguments if not each.startswith((CONTEXT, "--language="))],
        "environment": {**os.environ, **variables},
        "folder": os.getcwd(),
        "blocked": [int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    }


def forked(server: str, arguments: list[str]) -> bool:
    """Whether the server has forked the worker."""
    try:
        wanted = request(arguments)
        if wanted is None:
            return False
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(f"\0{server}")
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            _, user, _ = struct.unpack("3i", credentials)
            if user != os.geteuid():  # somebody else has taken the name of one that ended
                return False
            data = json.dumps(wanted).encode()
            socket.send_fds(connection, [struct.pack("<I", len(data))], [0, 1, 2])
            connection.sendall(data)
            return bool(connection.recv(16))
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    if not forked(sys.argv[1], sys.argv[3:]):
        os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
