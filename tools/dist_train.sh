#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [ARGS…]: tools/train.py in a process for each GPU, by torchrun.
# GPUS is the number of processes of a machine; without GPUs they share its cores. On several machines set NNODES,
# NODE_RANK, MASTER_ADDR and PORT on each. MAX_RESTARTS=N … --resume goes on by itself after a killed process, N times.
set -euo pipefail
if [ $# -lt 2 ]; then
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
fi
positional=("$1") gpus=$2
shift 2

if [[ $gpus =~ ^[1-9][0-9]*$ ]]; then  # torchrun would take one thread each
    cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((cores > gpus ? cores / gpus : 1))}"
fi
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$gpus" \
    --max_restarts="${MAX_RESTARTS:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    "$(dirname "$0")/train.py" "${positional[@]}" --launcher pytorch "$@"
