"""The jobs of a cluster: Ray's own client, with time limits and with errors in the user's words.

A job is one `arat-ray` command that runs on the head of the cluster, in a folder that was sent along.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from arat_ray.cluster.token import FILE, PLACES
from arat_ray.storage.address import without_login

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_DASHBOARD_ADDRESS", "RAY_ADDRESS")
CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Loggers of Ray that set their own level."""
CONNECT_S, ANSWER_S, UPLOAD_S = 5.0, 30.0, 600.0


class NoAnswerError(ValueError):
    """The job server does not answer now; it may later."""


class NotReadyError(NoAnswerError):
    """The head has only just started and cannot take jobs yet; nothing was submitted."""


def connect(address: str | None) -> Jobs:
    """The jobs of the cluster whose job server is at `address`, or at the one that the environment names.

    Raises ValueError, of which NoAnswerError is one, where there is none or where it wants another token.
    """
    if importlib.util.find_spec("aiohttp") is None:
        raise ValueError("jobs need Ray's job client: install arat-ray[cluster], or `uv run --extra cluster arat-ray`")
    for name in ("ray", *CHATTY):
        logging.getLogger(name).setLevel(logging.ERROR)
    server = job_server(address)
    os.environ[ADDRESS_VARIABLES[0]] = server  # Ray prefers its variables to the address that it is given
    found = token()
    try:
        return Jobs(server, headers={"Authorization": f"Bearer {found}"} if found else None)
    except AuthenticationError as error:  # RAY_AUTH_MODE=token, and no token
        raise ValueError(f"there is no token for the cluster; it is expected in {PLACES}") from error
    except (KeyError, RuntimeError, requests.JSONDecodeError) as error:
        raise ValueError(f"what answers at {server} is no job server of Ray; use the dashboard's address") from error


class Jobs(JobSubmissionClient):
    """Ray's client for jobs, in which no request waits for ever."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        limit = UPLOAD_S if method == "PUT" else ANSWER_S
        try:
            response = super()._do_request(method, endpoint, timeout=(CONNECT_S, limit), **options)
        except AuthenticationError as error:
            given = "another token than it was given" if "Authorization" in self._headers else "a token"
            raise ValueError(
                f"the cluster at {self._address} wants {given}; copy its token to one of: {PLACES}"
            ) from error
        except requests.RequestException as error:
            raise NoAnswerError(
                f"no job server answers at {self._address}; it is the dashboard of the cluster's head, "
                "http://HOST:8265, and often needs a tunnel: ssh -N -L 8265:127.0.0.1:8265 HEAD"
            ) from error
        status = response.status_code
        if status == 404 and endpoint.startswith("/api/jobs/"):
            name = endpoint.removeprefix("/api/jobs/").split("/")[0]
            raise ValueError(
                f"{self._address} knows no job {name!r} (any more); `arat-ray status` lists those it knows"
            )
        if status >= 400 and status != 404:
            said = (response.text.strip().splitlines() or [""])[-1]
            text = f"{self._address} answers {status} to {method} {endpoint}: {said}"
            if "No available agent" in said:
                raise NotReadyError(
                    f"{text} The agent that starts jobs does not run there: where another Ray runs on the head's "
                    "machine it has taken port 52365, so start the head with `--dashboard-agent-listen-port=0`"
                )
            raise NoAnswerError(text) if status >= 500 and method == "GET" else ValueError(text)
        return response

    def check_version(self) -> None:
        """Raises ValueError where the cluster runs another Ray than this machine, up to the patch number."""
        check_same_ray(here=ray.__version__, there=str(self._server_ray_version))


def check_same_ray(*, here: str, there: str) -> None:
    """Raises ValueError for versions that differ in more than the patch number."""
    if here.split(".")[:2] != there.split(".")[:2]:
        raise ValueError(
            f"the cluster runs Ray {there} and this machine Ray {here}; use the arat-ray of the cluster here, "
            "or install this one on its nodes"
        )


def job_server(address: str | None) -> str:
    """The URL of a job server: `address`, else what the environment names.

    Raises ValueError for none, and for what can be none.
    """
    named = next((os.environ[name] for name in ADDRESS_VARIABLES if os.environ.get(name)), None)
    address = address or named
    if not address:
        raise ValueError("which cluster? give --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS")
    url = (address if "://" in address else f"http://{address}").rstrip("/")
    if (open_url := without_login(url)) != url:
        raise ValueError(
            f"the address of a job server stands in commands and in the records of the cluster: write {open_url}, and "
            "put the login of a proxy into ~/.netrc"
        )
    if not is_job_server(url):
        raise ValueError(f"{address!r} is no address of a job server; write http://HOST:8265, the head's dashboard")
    return url


def is_job_server(address: str | None) -> bool:
    """Whether an address is the URL of a job server, and not that of a cluster to join."""
    if not address or not address.startswith(("http://", "https://")):
        return False
    parts = urlsplit(address)
    try:
        return bool(parts.hostname) and parts.port != 0 and parts.hostname != "auto"
    except ValueError:  # a port that is no number
        return False


def token() -> str | None:
    """The cluster's token, from where Ray looks for it too.

    Raises ValueError for a file that is named and cannot be read.
    """
    if given := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return given
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named or f"~/{FILE}").expanduser()
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        if not named:
            return None
        raise ValueError(f"RAY_AUTH_TOKEN_PATH names {path}, which is not there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the token in {path} cannot be read: {error}") from error
