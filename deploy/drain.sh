#!/usr/bin/env bash
# Tells Ray that this node goes in SECONDS. Its workers finish the shards under way and start no others; what they do
# not finish in time is made again on another node.
#
#   deploy/drain.sh SECONDS [RAYLET_PID]
set -euo pipefail

seconds=${1:?usage: drain.sh SECONDS [RAYLET_PID]}
raylet=${2:-$(pgrep --oldest --exact raylet)}

of_raylet() { tr '\0' '\n' < "/proc/$raylet/cmdline" | sed -n "s/^--$1=//p"; }

exec ray drain-node --address "$(of_raylet gcs-address)" --node-id "$(of_raylet node_id)" \
    --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the node goes in $seconds s" \
    --deadline-remaining-seconds "$seconds"
