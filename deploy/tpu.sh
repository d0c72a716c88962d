#!/bin/bash
# Runs on all hosts of a TPU slice and keeps running after this computer disconnects:
#   deploy/tpu.sh NAME ZONE configs/base.py /mnt/shared/runs/mine [flags]
# systemd runs it on each host and restarts it unless it finished (0) or must be fixed (1).
#   stop:  gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command="sudo systemctl stop dsaml_jax"
#   watch: gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=0 --command="journalctl -fu dsaml_jax"
set -euo pipefail

NAME=${1:?"the name of the TPU"}
ZONE=${2:?"its zone"}
CONFIG=${3:?"a config, e.g. configs/base.py"}
WORKDIR=${4:?"a folder that every host sees"}
shift 4

# Quoted here, because a shell on each host parses it again.
printf -v RUN '%q ' .venv/bin/python launch.py --config="$CONFIG" --workdir="$WORKDIR" \
    --coordinator=auto --stop_within=120 "$@"

gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="
    cd dsaml_jax && sudo systemd-run --unit=dsaml_jax --collect \
        --uid=\"\$(id -u)\" --working-directory=\"\$PWD\" \
        --property=Restart=on-failure --property=RestartSec=10 \
        --property=RestartPreventExitStatus=1 --property=TimeoutStopSec=300 \
        --property=StartLimitIntervalSec=6h --property=StartLimitBurst=20 \
        $RUN"
