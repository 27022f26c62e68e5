#!/usr/bin/env bash
# tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [ARGS…]: tools/train.py by srun.
# Set GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS as needed; GRES= on machines without GPUs.
# A run that is sent SIGTERM or SIGUSR1 saves and ends with status 75. Within a job of sbatch this script then puts the
# job back into the queue, so that it goes on by itself: sbatch --requeue --signal=USR1@120 … tools/slurm_train.sh … --resume
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
fi
partition=$1 job_name=$2 config=$3 work_dir=$4
shift 4
gres=${GRES-gpu:${GPUS_PER_NODE:-8}}

status=0
srun --partition="$partition" --job-name="$job_name" \
    ${gres:+--gres="$gres"} --ntasks="${GPUS:-8}" --ntasks-per-node="${GPUS_PER_NODE:-8}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$config" --work-dir "$work_dir" --launcher slurm "$@" || status=$?
if [ "$status" -eq 75 ] && [ -n "${SLURM_JOB_ID:-}" ] && [ "${SLURM_JOB_NAME:-}" != interactive ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
