#!/bin/bash
# One process on each of two nodes, for all of its eight GPUs:
#   sbatch deploy/slurm.sh configs/base.py /shared/runs/mine
# With --ntasks-per-node=8 each process takes one GPU; other numbers divide them evenly.
#SBATCH --job-name=dsaml_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=256G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the end every process gets SIGTERM; the run saves and ends with 75.
#SBATCH --signal=TERM@120

CONFIG=${1:?"a config, e.g. configs/base.py"}
WORKDIR=${2:?"a folder that every node sees"}
shift 2

# How often the job is requeued at most; 0 for never.
REQUEUE_AT_MOST=${REQUEUE_AT_MOST:-100}

# "auto": JAX finds the processes in Slurm's variables. If one fails, the others exit by themselves
# with the same code; srun returns the highest.
srun --kill-on-bad-exit=0 .venv/bin/python launch.py \
    --config="$CONFIG" --workdir="$WORKDIR" --coordinator=auto --stop_within=60 "$@"
code=$?

# 75: stopped, or another process was lost. 134, 137, 143: aborted, killed, terminated. The same
# command resumes after all of these; 1 means that something must be fixed first.
case $code in
75 | 134 | 137 | 143)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt "$REQUEUE_AT_MOST" ]; then
        scontrol requeue "$SLURM_JOB_ID"
    else
        echo "Ended with $code, after $REQUEUE_AT_MOST restarts: not requeued." >&2
    fi
    ;;
esac
exit $code
