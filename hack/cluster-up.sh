#!/bin/sh
# Builds the programs and the demo's images, installs what the machine lacks,
# and creates the cluster, or starts it when it exists. The work is done by
# "ctl cluster create".
#
#   CLUSTER=coracle NODES=3 hack/cluster-up.sh [further flags of ctl cluster create]
set -eu
cd "$(dirname "$0")/.."

cluster=${CLUSTER:-coracle}
as_root=''
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "A cluster of real nodes needs root, and there is no sudo: run this as root" >&2
		exit 1
	fi
	# HOME and KUBECONFIG stay the user's, so that the context lands there.
	as_root='sudo --preserve-env=HOME,KUBECONFIG'
fi

$as_root hack/install-packages
make -s build
go run ./hack/images --out bin/images
$as_root bin/ctl cluster create "$cluster" --nodes "${NODES:-3}" --images bin/images --ensure "$@"

cat <<NEXT

Try next:
  kubectl get nodes
  bin/ctl run hello --image=busybox --restart=Never -- echo hello
  bin/ctl apply -f manifests/examples/demo
  hack/cluster-down.sh
NEXT
