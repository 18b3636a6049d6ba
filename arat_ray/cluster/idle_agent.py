"""In the place of the agent of Ray's dashboard, run as a script: Ray's node starts with one only, and ends with it.

It does nothing as long as its node lives. Ray's own imports for a second what nobody asks it for, and opens ports.
"""

import os
import signal
import time


def wait() -> None:
    """Until the node that has started this process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the driver
    node = int(os.environ["RAY_RAYLET_PID"])
    while os.getppid() == node:
        time.sleep(1)


if __name__ == "__main__":
    wait()
