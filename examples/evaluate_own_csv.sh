#!/usr/bin/env bash
# Scores a checkpoint on a table of your own (video,query,start,end) and writes the report:
#
#     examples/evaluate_own_csv.sh own.csv VIDEOS CHECKPOINT OUTPUT [further arguments of lmms-eval]
set -euo pipefail
annotations=$1 videos=$2 checkpoint=$3 output=$4
shift 4

TIMELENS_CUSTOM_ANNOTATIONS=$annotations TIMELENS_CUSTOM_VIDEOS=$videos lmms-eval \
    --model timelens --model_args "pretrained=$checkpoint" \
    --tasks timelens_custom --log_samples --output_path "$output" "$@"

timelens score "$output"/*/*_samples_timelens_custom.jsonl
timelens report "$output" -o "$output/report.html" --videos "$videos"
