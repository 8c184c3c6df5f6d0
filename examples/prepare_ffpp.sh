#!/usr/bin/env bash
# Data engineers: from FaceForensics++ in its official layout to shards of face clips with manifests and two split sets.
#
#   examples/prepare_ffpp.sh FaceForensics++/ ffpp/
#   LOCALIZER=mtcnn WORKERS=4 examples/prepare_ffpp.sh FaceForensics++/ ffpp/     # no GPU, no weights
#
# FaceForensics++/ holds original_sequences/ and manipulated_sequences/, or a part of them. The published lists are read
# from its dataset/splits/{train,val,test}.json and dataset/conversion_dict.json. Stop it at any time; start it
# again to resume: the result has the same bytes.
set -euo pipefail

source=${1:?usage: prepare_ffpp.sh SOURCE OUT}
out=${2:?usage: prepare_ffpp.sh SOURCE OUT}
localizer=${LOCALIZER:-retinaface-fan}
# 3 clips of 60 frames: the 180 frames of a video that the paper evaluates
how=(--dataset ffpp --localizer "$localizer" --split official --clips "${CLIPS:-3}" ${WORKERS:+--workers "$WORKERS"})

if [ "$localizer" != mtcnn ]; then # whose weights are in its package
    lps-prep weights fetch "$localizer"
fi

# What the job will make and cost. Nothing is processed yet.
lps-prep plan "$source" "$out" "${how[@]}"

lps-prep run "$source" "$out" "${how[@]}"
lps-prep status "$out"

# Look at it: clips by split and label, rejects by code.
lps-prep preview "$out" --to "${PREVIEW:-ffpp-preview.png}"

# The official lists put sequences of one recording on both sides. A second set over the same shards keeps them together;
# `lps-train ... --split-set group` reads it.
lps-prep split "$out" --rule group --name group
