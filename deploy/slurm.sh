#!/bin/bash
# One process per GPU on NODES x 8 GPUs: sbatch deploy/slurm.sh configs/base.py /shared/runs/mine
#SBATCH --job-name=dsaml_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the end every process gets SIGTERM; the run saves and ends with 75.
#SBATCH --signal=TERM@120

CONFIG=${1:?"a config, e.g. configs/base.py"}
WORKDIR=${2:?"a folder that every node sees"}
shift 2

# "auto": JAX reads from Slurm's variables who takes part, and gives each process its own GPU.
srun --kill-on-bad-exit=0 .venv/bin/python launch.py \
    --config="$CONFIG" --workdir="$WORKDIR" --coordinator=auto "$@"
code=$?

if [ $code -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
