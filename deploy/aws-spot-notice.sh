#!/usr/bin/env bash
# Waits for AWS to announce that it takes this spot instance back, two minutes ahead, and drains the node.
#
#   nohup deploy/aws-spot-notice.sh > /tmp/aws-spot-notice.log 2>&1 &
set -euo pipefail

metadata=http://169.254.169.254/latest
here=$(dirname "$(readlink -f "$0")")

is_announced() {
    local token
    token=$(wget -qO- --method=PUT --header "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/api/token") || return 1
    wget -qO- --header "X-aws-ec2-metadata-token: $token" "$metadata/meta-data/spot/instance-action" > /dev/null
}

until is_announced; do
    sleep 5
done
exec "$here/drain.sh" 110
