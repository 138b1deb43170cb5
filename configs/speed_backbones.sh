#!/usr/bin/env bash
# What merging costs on other backbones than a plain ViT of the same width: eager and compiled, beside the slicing ceiling.
#
#   configs/speed_backbones.sh OUT [FLAGS OF tomebench sweep]
#
# OUT/MODEL and OUT/MODEL_compiled: ViT-B, DINOv3-B, EVA-02-B and SigLIP-B of timm, and DINOv2-B of transformers, with random
# weights. R and TOMEBENCH may be set; the same command goes on where it was stopped.
set -euo pipefail

out=$1
shift
tomebench=${TOMEBENCH:-tomebench}

# DINOv2-B as transformers has it, at 224 pixels: its settings alone, without weights.
mkdir -p "$out/settings/dinov2_base"
cat >"$out/settings/dinov2_base/config.json" <<'JSON'
{"architectures": ["Dinov2Model"], "model_type": "dinov2", "image_size": 224, "patch_size": 14}
JSON

for model in vit_base_patch16_224 vit_base_patch16_dinov3 eva02_base_patch14_224 vit_base_patch16_siglip_224 \
    "hf/$out/settings/dinov2_base"; do
    for mode in "" _compiled; do
        "$tomebench" sweep --model "$model" --r "${R:-0,8,16}" ${mode:+--compile} --out "$out/${model##*/}$mode" "$@"
    done
done
