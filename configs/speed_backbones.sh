#!/usr/bin/env bash
# What merging costs on other backbones than a plain ViT of the same width: eager and compiled, beside the slicing ceiling.
#
#   configs/speed_backbones.sh OUT [FLAGS OF tomebench sweep]
#
# OUT/MODEL_eager and OUT/MODEL_compiled: ViT-B, DINOv3-B, EVA-02-B and SigLIP-B of timm, and DINOv2-B of transformers, with
# random weights. MODES, R and TOMEBENCH may be set; the same command goes on where it was stopped.
set -euo pipefail

out=$1
shift
tomebench=${TOMEBENCH:-tomebench}

# DINOv2-B as transformers has it, at 224 pixels: its settings alone, without weights.
mkdir -p "$out/settings/dinov2_base"
cat >"$out/settings/dinov2_base/config.json" <<'JSON'
{"architectures": ["Dinov2Model"], "model_type": "dinov2", "image_size": 224, "patch_size": 14}
JSON

for mode in ${MODES:-eager compiled}; do
    for model in vit_base_patch16_224 vit_base_patch16_dinov3 eva02_base_patch14_224 vit_base_patch16_siglip_224 \
        "hf/$out/settings/dinov2_base"; do
        [[ $mode == compiled ]] && flag=--compile || flag=--no-compile
        "$tomebench" sweep --model "$model" --r "${R:-4,8,13}" --ceiling $flag --out "$out/${model##*/}_$mode" "$@"
    done
done
