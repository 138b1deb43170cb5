#!/usr/bin/env bash
# What the rotation of merged tokens, and keys before or after it, do to the top-1 of the embedded rotary model.
#
#   configs/rope.sh OUT [FLAGS OF tomebench sweep]
#
# OUT/keep and OUT/mean: the two rotations, each with both keys, at five r in two schedules. OUT/compare.md: paired
# tests of all of them on the same images against the default. TOMEBENCH may be set.
set -euo pipefail

out=$1
shift
tomebench=${TOMEBENCH:-tomebench}

for rope in keep mean; do
    "$tomebench" sweep --model digits_rope --data digits --budget none --r 8,12,16,20,24 \
        --schedule constant,decreasing --metric k,k_rot --rope "$rope" --out "$out/$rope" "$@"
done
for schedule in constant decreasing; do
    "$tomebench" compare "$out/keep" "$out/mean" --tests --against "tome $schedule" --format markdown
done >"$out/compare.md"
