#!/usr/bin/env bash
# Data engineers on Slurm: one `lps-prep run` on all nodes of an allocation, over a Ray that lives as long as the job.
#
#   sbatch --nodes=4 examples/prepare_slurm.sh /data/FaceForensics++ /data/ffpp --dataset ffpp --localizer mtcnn
#   sbatch --nodes=2 --gpus-per-node=1 examples/prepare_slurm.sh s3://in/ffpp s3://out/ffpp --dataset ffpp
#
# What follows the folders goes to `lps-prep run`. SOURCE, OUT, the weights and the environment with lps-prep[prep] must be at
# the same place on every node. One node needs none of this: `lps-prep run` starts a Ray of its own (docs/cluster.md).
# A job that was cancelled, requeued or ran out of time resumes when it is submitted again.
#
# Run in our tests: this text on one machine with two Ray nodes, with an `srun` and a `scontrol` that stand for Slurm's.
# Not run: Slurm itself, several machines, GPUs.
#SBATCH --job-name=lps-prep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

usage='usage: prepare_slurm.sh SOURCE OUT [OPTION of lps-prep run]...'
source=${1:?$usage}
out=${2:?$usage}
shift 2

# Ray's sockets lie below its temporary folder, and the path of a socket has 107 characters at most: too few for the TMPDIR
# of many sites. So Ray gets a short folder, and what is large (shards that are built, copies of remote videos, objects that
# do not fit the memory) goes to the scratch disk of each node.
export LPS_RAY_TMP=/tmp/lps-$SLURM_JOB_ID
export TMPDIR=${LOCAL_SCRATCH:-${TMPDIR:-/tmp}}/lps-$SLURM_JOB_ID-scratch

# Who can connect to a Ray can run code as its user, and others are on this network. Needs Ray 2.52 or newer.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
ip=$(getent ahostsv4 "$head" | awk 'NR == 1 { print $1 }')
case $ip in 127.*) ip=$(hostname -I | awk '{ print $1 }') ;; esac # as /etc/hosts of Debian has it
export LPS_RAY_IP=$ip LPS_RAY_PORT=$((20000 + SLURM_JOB_ID % 10000)) # two jobs on one node: two Rays
address=$LPS_RAY_IP:$LPS_RAY_PORT

# One task a node, the first of them the head; each ends its Ray and removes its folders. No `ray stop`: that would end the
# Rays of this user's other jobs on the node, too.
node='
  mkdir -p "$LPS_RAY_TMP" "$TMPDIR"
  trap "kill \$ray 2>/dev/null; wait \$ray; rm -rf \"$LPS_RAY_TMP\" \"$TMPDIR\"; exit 0" TERM EXIT
  how=(--block --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")
  how+=(--object-spilling-directory="$TMPDIR")
  if [ "$SLURM_PROCID" = 0 ]; then
    how+=(--head --node-ip-address="$LPS_RAY_IP" --port="$LPS_RAY_PORT" --include-dashboard=false --temp-dir="$LPS_RAY_TMP")
  else
    until (exec 3<>"/dev/tcp/$LPS_RAY_IP/$LPS_RAY_PORT") 2>/dev/null; do sleep 1; done
    how+=(--address="$LPS_RAY_IP:$LPS_RAY_PORT")
  fi
  ray start "${how[@]}" &
  ray=$!
  wait "$ray"'
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --overlap bash -c "$node" &
cluster=$!
trap 'kill "$cluster" 2>/dev/null; wait "$cluster" || true' EXIT

mkdir -p "$TMPDIR" # the driver, on the first node
until (exec 3<>"/dev/tcp/$LPS_RAY_IP/$LPS_RAY_PORT") 2>/dev/null; do
    kill -0 "$cluster" 2>/dev/null || { echo "Ray did not start: see above" >&2; exit 1; }
    sleep 1
done
python - "$address" "$SLURM_JOB_NUM_NODES" <<'PYTHON'
import sys
import time

import ray

address, n_nodes, until = sys.argv[1], int(sys.argv[2]), time.monotonic() + 600
ray.init(address, log_to_driver=False, logging_level="ERROR")
while (n := sum(node["Alive"] for node in ray.nodes())) < n_nodes:
    if time.monotonic() > until:
        sys.exit(f"only {n} of {n_nodes} nodes joined Ray at {address} within 10 minutes: see their lines above")
    time.sleep(1)
print(f"{n} nodes, {ray.cluster_resources().get('CPU', 0):.0f} CPUs, {ray.cluster_resources().get('GPU', 0):.0f} GPUs")
PYTHON

# In the background, since bash handles a signal (scancel, the end of the time) only after the command in the foreground.
lps-prep run "$source" "$out" "$@" --address "$address" &
driver=$!
trap 'kill -TERM "$driver"' TERM INT
code=0
wait "$driver" || code=$?
wait "$driver" || code=$? # the first wait ends at a signal
exit "$code"
