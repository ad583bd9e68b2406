#!/usr/bin/env bash
# A build on the nodes of a SLURM job, which is requeued before its time is up or when it is preempted.
#
#   sbatch deploy/slurm.sh shorts.yaml /shared/data/shorts
#
# The recipe, its source, the output and this folder are on a file system that every node has. `vidal` is on the PATH.
#SBATCH --job-name=vidal
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@180
set -euo pipefail

recipe=${1:?usage: sbatch deploy/slurm.sh RECIPE OUT}
out=${2:?usage: sbatch deploy/slurm.sh RECIPE OUT}
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
port=$((20000 + SLURM_JOB_ID % 20000))
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):$port

# Whoever reaches Ray's ports can run code, also another user of the nodes.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$PWD/.vidal-token-$SLURM_JOB_ID" RAY_USAGE_STATS_ENABLED=0
(umask 077 && head -c 32 /dev/urandom | base64 > "$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

start() {
    srun --overlap --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --nodelist="$1" \
        ray start "${@:2}" --num-cpus="$SLURM_CPUS_PER_TASK" --block &
}

start "$head" --head --node-ip-address="${address%:*}" --port="$port" --include-dashboard=false
timeout 120 bash -c 'until ray health-check --address "$1" > /dev/null 2>&1; do sleep 1; done' wait "$address"
for node in "${nodes[@]:1}"; do
    start "$node" --address="$address"
done

# This script runs on the first node, the head.
vidal build "$recipe" --out "$out" --ray-address "$address" &
build=$!

# All nodes go together, so nothing is drained: what is committed stays, and the next job does the rest.
requeue() {
    kill "$build"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap requeue TERM
wait "$build"
