#!/usr/bin/env bash
# The CUDA speed study: ViT-Ti/S/B/L at 224 and B at 384, bf16 and fp16, batch 64, 256 and 1, compiled and eager,
# inference and training, with CUDA graphs, and the attention routes beside each other. One run folder each under results/.
# Each run takes at most a quarter of an hour of rounds, and with --compile minutes before it: up to two days in all.
# Stopped and started again it goes on where it was: a run that reached its budget is only shown, one that was capped is
# timed for up to another quarter of an hour. What does not fit in memory, or has no kernel, is skipped.
#
# Not yet run on a GPU.
#
#   configs/speed_cuda.sh [PROGRAM]      PROGRAM is tomebench by default
#
#   FLAGS="--budget quick"               adds flags to every run
#   ONLY="vit_[sbl]_16_bf16_batch64_compiled"    makes the runs whose names match a pattern
set -u
program=${1:-tomebench}
configs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
said=$(mktemp)
trap 'rm -f "$said"' EXIT
measured=0 skipped=0 failed=0

run() { # name, flags
    local name=$1 code
    shift
    [[ $name =~ ${ONLY:-} ]] || return 0
    echo "== $name" >&2
    # shellcheck disable=SC2086 # PROGRAM and FLAGS are lists of words
    $program sweep --config "$configs/speed_cuda.yaml" --out "results/$name.keep" --quiet "$@" ${FLAGS:-} 2>"$said"
    code=$?
    cat "$said" >&2
    if [ $code -eq 0 ]; then
        measured=$((measured + 1))
    elif [ $code -eq 130 ]; then
        exit 130
    elif [ $code -eq 2 ] && grep -qE 'use a smaller --batch-size|has no kernel' "$said"; then
        skipped=$((skipped + 1))
    else
        failed=$((failed + 1))
        echo "   exit $code" >&2
    fi
}

for dtype in bf16 fp16; do
    for model in vit_b_16 vit_s_16 vit_l_16 vit_ti_16 vit_b_16_384; do
        for batch in 64 256 1; do
            base="cuda_${model}_${dtype}_batch${batch}"
            common=(--model "$model" --dtype "$dtype" --batch-size "$batch")
            run "${base}_compiled" "${common[@]}" --compile
            run "${base}_eager" "${common[@]}"
            run "${base}_train_compiled" "${common[@]}" --mode train --compile
            run "${base}_train_eager" "${common[@]}" --mode train
        done
        for batch in 1 64; do # where launching is what takes the time
            base="cuda_${model}_${dtype}_batch${batch}"
            run "${base}_graphs" --model "$model" --dtype "$dtype" --batch-size "$batch" --cuda-graphs
            run "${base}_compiled_graphs" --model "$model" --dtype "$dtype" --batch-size "$batch" --compile --cuda-graphs
        done
    done
    for route in sdpa efficient cudnn augmented triton matmul padded; do
        run "cuda_vit_b_16_${dtype}_batch64_attention_${route}" --model vit_b_16 --dtype "$dtype" --attention "$route" --compile
    done
done

echo "$measured runs measured, $skipped skipped (memory, or no kernel), $failed failed" >&2
[ $failed -eq 0 ] && [ $measured -gt 0 ]
