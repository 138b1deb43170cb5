#!/usr/bin/env bash
# Every method off the shelf, and smaller inputs, on one model and set of images.
#
#   configs/every_method.sh OUT --model NAME --data DATA [FLAGS OF tomebench sweep]
#
# OUT/methods: all methods at r = 4, 8, 12, 16, the random ones with five seeds, with the time that choosing takes.
# OUT/inputs: the model as it is at smaller inputs. OUT/compare.md: both in one comparison.
# R, SIZES and TOMEBENCH may be set; the same command goes on where it was stopped.
set -euo pipefail

out=$1
shift
tomebench=${TOMEBENCH:-tomebench}
methods=tome,tome-drop,random-merge,random-prune,topk,evit,diffrate,pitome,mctf,representation-shift,tofu,dpc-knn
methods=$methods,kmeans,token-pooling,kmedoids,graph-cut,atc,greedy,zero-tprune,ats
sizes=${SIZES:-224,192,176,160}

"$tomebench" sweep "$@" --method "$methods" --option seeds=5 --option graph-cut.eigenvectors=0,16 \
    --r "${R:-0,4,8,12,16}" --selector \
    --img-size "${sizes%%,*}" --out "$out/methods"
"$tomebench" sweep "$@" --r 0 --img-size "$sizes" --out "$out/inputs"
"$tomebench" compare "$out/methods" "$out/inputs" --match drop=0.5 --match drop=1 --match tokens --pareto --tests \
    --format markdown >"$out/compare.md"
"$tomebench" compare "$out/methods" "$out/inputs"
