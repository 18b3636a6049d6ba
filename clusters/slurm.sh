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
# Cost per hour: what your site charges for the nodes below (`sacct --format=JobID,Elapsed,AllocTRES` after a job); waiting
# in the queue costs nothing.
#
# To be filled in:
#   <your-partition>   sinfo --format='%P %G %l'  lists partitions with their GPUs and time limits
#   <your-account>     sacctmgr show associations user=$USER format=account
# To be adapted: nodes, GPUs, CPUs and time below. Results go to ./results, in a folder that all nodes mount.
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
#SBATCH --open-mode=append
#SBATCH --output=arat-ray-%j.log

set -euo pipefail
experiment=${1:?usage: sbatch clusters/slurm.sh EXPERIMENT.yaml}
export PATH=$HOME/venv/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0

# A token of this job's own, in a file that only its owner can read, in the folder that all nodes see.
umask 077
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$PWD/.ray-token.$SLURM_JOB_ID
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
python -c 'import secrets; print(secrets.token_hex(32), end="")' > "$RAY_AUTH_TOKEN_PATH"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname -I | awk '{print $1}')

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --kill-on-bad-exit=1 \
  ray symmetric-run --address "$address:6379" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --dashboard-host=127.0.0.1 -- \
  arat-ray tune "$experiment" --results results --resume --address "$address:6379"
