"""Cluster: the only room that imports Ray."""

import os

ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",  # one heap for all threads of a worker: see fork_server._use_one_heap
    "OMP_WAIT_POLICY": "passive",  # of threads, the command line's too, which torch's OpenMP reads: docs/evaluation.md
    "RAY_AIR_NEW_OUTPUT": "0",  # the table of trials is our own
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # rows go to Parquet
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the study has its own
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # a study is resumed from its own tables and journal
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how soon rows of several workers arrive
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else a driver under `uv run` starts every worker with `uv run` again
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # at Ray's 15 a trial beside others' busy processes hardly trains
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "600",  # a busy machine takes its time
    "RAY_raylet_start_wait_time_s": "5",  # how long Ray looks for its node before `starting` looks whether it can come
}
for _name, _value in ENVIRONMENT.items():  # Ray reads some of its settings when it is imported
    os.environ.setdefault(_name, _value)
