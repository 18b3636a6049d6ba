"""The token of a Ray that this machine starts: whoever has it can run code in that Ray, so nobody else may read it.

Ray writes one itself where it finds none, readable for everybody under the usual umask. So it is made before Ray looks.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

MODE, OURS = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
NAMED = "RAY_AUTH_TOKEN_PATH"
FILE = Path(".ray") / "auth_token"
"""In the home folder, where Ray looks (`ray._private.authentication`)."""
PLACES = f"{OURS}, the file that {NAMED} names, or ~/{FILE}"
"""Where to copy the token of another cluster to."""


def provide(warn: Callable[[str], None]) -> None:
    """See that there is a token which only this user can read, where Ray is to have one.

    `warn` hears of one that others can read. Without a home folder to write to, the token is in the environment of this
    process and of those that it starts.
    """
    if os.environ.get(MODE, "token").lower() != "token" or os.environ.get(OURS, "").strip():
        return
    named = os.environ.get(NAMED)
    path = Path(named).expanduser() if named else _home_file()
    try:
        if path is None:
            raise FileNotFoundError
        if not named and not path.exists():
            _create(path)
        if not path.read_text().strip():
            raise FileNotFoundError
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            warn(exposed(path))
    except (OSError, UnicodeDecodeError) as error:
        if named:
            reason = getattr(error, "strerror", None) or "it is empty"
            raise ValueError(f"{NAMED} names {named}, which cannot be read ({reason}); mend or unset it") from error
        os.environ[OURS] = secrets.token_hex(32)


def exposed(path: Path) -> str:
    """What to say about a token that others can read."""
    return (
        f"other users of this machine can read {path}, and with it run code in your Ray: `chmod 600 {path}`, or remove "
        "it where no cluster uses it, and the next start makes a new one"
    )


def _home_file() -> Path | None:
    home = os.environ.get("HOME")  # as Ray's own loader has it
    return Path(home) / FILE if home else None


def _create(path: Path) -> None:
    """A new token that nobody else could read at any moment, whole at once; an existing one stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(name, path)
        except FileExistsError:  # another process was first
            pass
        except OSError:  # a file system without hard links
            os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
