#!/bin/bash
# Purpose:  time of a block of ViT-B/16 and DeiT-Ti/16 at every number of tokens, on two CPU cores.
# Command:  bash configs/staircase.sh [OUT]
# Cost:     about four minutes each.
# Expect:   two files in OUT (results/staircases.keep) and two pictures in results/images; results/README.md says what they show.
set -eu
OUT=${1:-results/staircases.keep}
mkdir -p "$OUT"
for each in vit_b_16:2 deit_ti_16:8; do
    model=${each%:*}
    tomebench staircase --model "$model" --batch-size "${each#*:}" --device cpu --budget standard \
        --out "$OUT/$model.json" --figure "results/images/staircase_$model.png"
done
