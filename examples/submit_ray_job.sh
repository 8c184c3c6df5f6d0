#!/usr/bin/env bash
# Data engineers with a Ray cluster that runs already: hand one `lps-prep run` over to it, and follow it to its end.
#
#   examples/submit_ray_job.sh http://HEAD:8265 s3://in/ffpp s3://out/ffpp --dataset ffpp --localizer mtcnn --workers 128
#
# What follows the folders goes to `lps-prep run`. Here and on every node: pip install 'lps-prep[prep,s3,cluster]', of the same
# versions; SOURCE, OUT and the weights are reachable from every node. Ctrl-C ends the following, not the job:
# `ray job stop ID` does, and the next submission of the same command resumes. Its exit code is 0 if the job's is.
# A cluster that asks for a token: RAY_AUTH_MODE=token and ~/.ray/auth_token.
#
# Run in our tests where the extra `cluster` is installed (CI does not install it), on a `ray start --head` of one machine.
# Not run: a cluster of several machines.
set -euo pipefail

usage='usage: submit_ray_job.sh DASHBOARD SOURCE OUT [OPTION of lps-prep run]...'
dashboard=${1:?$usage}
source=${2:?$usage}
out=${3:?$usage}
shift 3

# One CPU is not taken from the job for its driver, which mostly waits. `--address auto` is the cluster that the job is on.
ray job submit --address "$dashboard" --submission-id "${JOB_ID:-lps-prep-$(date -u +%Y%m%dT%H%M%SZ)}" \
    -- lps-prep run "$source" "$out" "$@" --address auto
