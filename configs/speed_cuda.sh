#!/usr/bin/env bash
# The CUDA speed study: ViT-Ti/S/B/L at 224 and B at 384, bf16 and fp16, batch 1, 64 and 256, compiled and eager,
# inference and training, and the attention routes beside each other. One run folder each under results/.
# A run that is done is only shown again, so the script may be stopped and started. What does not fit in memory is skipped. 154 runs, each at most a
# quarter of an hour of rounds and with --compile minutes before it: up to two days, or FLAGS="--budget quick".
#
#   configs/speed_cuda.sh [PROGRAM]      PROGRAM is tomebench by default; FLAGS="--budget quick" adds flags to every run
set -u
program=${1:-tomebench}
configs=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
failed=0
skipped=0

run() { # name, flags
    local name=$1 code
    shift
    echo "== $name" >&2
    # shellcheck disable=SC2086 # FLAGS is a list of words
    $program sweep --config "$configs/speed_cuda.yaml" --out "results/$name.keep" --quiet "$@" ${FLAGS:-}
    code=$?
    case $code in
        0) ;;
        130) exit 130 ;;
        2 | 5) skipped=$((skipped + 1)); echo "   skipped, see above" >&2 ;;
        *) failed=$((failed + 1)); echo "   exit $code, see above" >&2 ;;
    esac
}

for dtype in bf16 fp16; do
    for model in vit_ti_16 vit_s_16 vit_b_16 vit_l_16 vit_b_16_384; do
        for batch in 1 64 256; do
            base="cuda_${model}_${dtype}_batch${batch}"
            common=(--model "$model" --dtype "$dtype" --batch-size "$batch")
            run "${base}_compiled" "${common[@]}" --compile
            run "${base}_eager" "${common[@]}"
            run "${base}_train_compiled" "${common[@]}" --mode train --compile
            run "${base}_train_eager" "${common[@]}" --mode train
        done
        run "cuda_${model}_${dtype}_batch1_graphs" --model "$model" --dtype "$dtype" --batch-size 1 --cuda-graphs
        run "cuda_${model}_${dtype}_batch1_compiled_graphs" --model "$model" --dtype "$dtype" --batch-size 1 --compile --cuda-graphs
    done
    for route in sdpa efficient cudnn augmented triton matmul padded; do
        run "cuda_vit_b_16_${dtype}_batch64_attention_${route}" --model vit_b_16 --dtype "$dtype" --attention "$route" --compile
    done
done

echo "$skipped runs could not be measured (memory, or a kernel the GPU lacks), $failed failed" >&2
[ "$failed" -eq 0 ]
