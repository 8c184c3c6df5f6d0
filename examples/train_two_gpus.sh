#!/usr/bin/env bash
# Trainers: all three stages on two GPUs, then both detectors evaluated on the test split.
#
#   examples/train_two_gpus.sh ffpp/ runs/
#   SPLIT_SET=group examples/train_two_gpus.sh ffpp/ runs/ --config bf16.toml --seed 1
#   PROCESSES=8 examples/train_two_gpus.sh ffpp/ runs/
#
# What follows the folders goes to every stage. Stop it at any time and start it again: finished stages are kept, and the
# one under way resumes from its last checkpoint. Without GPUs set [run] device = "cpu" in the --config file.
set -euo pipefail

usage='usage: train_two_gpus.sh DATA RUNS [OPTION of the stages]...'
data=(--data "${1:?$usage}" ${SPLIT_SET:+--split-set "$SPLIT_SET"})
runs=${2:?$usage}
shift 2
two=(torchrun --standalone --nproc-per-node "${PROCESSES:-2}" --no-python)

"${two[@]}" lps-train pretrain "$runs/pre" "${data[@]}" --init random "$@"
"${two[@]}" lps-train classify "$runs/cls" "${data[@]}" --init "$runs/pre/checkpoints/best.pt" "$@"
"${two[@]}" lps-train distill "$runs/ssd" "${data[@]}" --init "$runs/cls/checkpoints/best.pt" "$@"

# Evaluation takes one process. An evaluation that is there already is not made again.
for stage in cls ssd; do
    lps-train evaluate --checkpoint "$runs/$stage/checkpoints/best.pt" "${data[@]}" --split test --out "$runs/eval-$stage"
done
lps-train figure roc "$runs/figures" --scores "LPS=$runs/eval-cls" --scores "LPS_ssd=$runs/eval-ssd"
