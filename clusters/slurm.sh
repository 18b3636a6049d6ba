#!/bin/bash
# arat-ray under Slurm: one study in one batch job, Ray started by `ray symmetric-run` on its nodes.
#
#   uv build --wheel --clear
#   uv venv --python 3.11 ~/venv     # in a home that all nodes mount
#   VIRTUAL_ENV=~/venv uv pip install --constraints clusters/constraints.txt "ray[default,train,tune]==2.60.0" dist/*.whl
#   arat-ray cluster check clusters/slurm.sh --experiment search_spaces/layers.yaml
#   sbatch clusters/slurm.sh search_spaces/layers.yaml     # the same again goes on where a job was cut off
#   tail -f arat-ray-*.log
#
# At its time limit, and when a node is lost, the job goes back into the queue by itself, until the study has all its
# trials; `scancel` ends it.
#
# Cost per hour: what your site charges for the nodes below (`sacct --format=JobID,Elapsed,AllocTRES` after a job); waiting
# in the queue costs nothing.
#
# To be filled in:
#   <your-partition>   sinfo --format='%P %G %l'  lists partitions with their GPUs and time limits
#   <your-account>     sacctmgr show associations user=$USER format=account
# To be adapted: nodes, GPUs, CPUs and time below. Tables and checkpoints go to ./results: submit from a folder that all
# nodes mount.
#
#SBATCH --job-name=arat-ray
#SBATCH --partition=<your-partition>
#SBATCH --account=<your-account>
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --output=arat-ray-%j.log

set -euo pipefail
experiment=${1:?usage: sbatch clusters/slurm.sh EXPERIMENT.yaml}
export PATH=$HOME/venv/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0
export RAY_enable_metrics_collection=0 DASHBOARD_METRIC_PORT=70000  # no ports for metrics, which ask for no token
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300  # nodes that read Ray from a shared disk may take their time

# A token of this job's own, in a file that only its owner can read, in the folder that all nodes see. mktemp makes what
# was not there before, under names that nobody can know: what others put into a shared folder is never used.
umask 077
RAY_AUTH_TOKEN_PATH=$(mktemp "$PWD/.ray-token.$SLURM_JOB_ID.XXXXXXXXXX")
RAY_TMPDIR=$(mktemp --dry-run /tmp/ray-XXXXXXXXXX)  # each node makes it; stays where Ray failed, with its logs
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH RAY_TMPDIR
trap 'rm -f "${RAY_AUTH_TOKEN_PATH%.*}".*' EXIT  # those of this job's earlier starts as well
python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname -I | awk '{print $1}')

# Two minutes before its time limit the job goes back into the queue. Steps do not inherit --cpus-per-task (Slurm 22.05).
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --cpus-per-task="$SLURM_CPUS_PER_TASK" \
  --kill-on-bad-exit=1 bash -c 'mkdir -m 700 "$RAY_TMPDIR" && "$@" && rm -rf "$RAY_TMPDIR"' node \
  ray symmetric-run --address "$address:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --dashboard-host=127.0.0.1 -- \
  arat-ray tune "$experiment" --results results --resume --address "$address:6379" &
wait $!
