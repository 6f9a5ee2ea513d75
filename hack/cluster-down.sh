#!/bin/sh
# Deletes the cluster and everything that belongs to it. No cluster is no
# error. The work is done by "ctl cluster delete".
#
#   CLUSTER=coracle hack/cluster-down.sh
set -eu
cd "$(dirname "$0")/.."

as_root=''
if [ "$(id -u)" -ne 0 ]; then
	as_root='sudo --preserve-env=HOME,KUBECONFIG'
fi
[ -x bin/ctl ] || go build -o bin/ ./cmd/ctl
$as_root bin/ctl cluster delete "${CLUSTER:-coracle}" --ignore-not-found
