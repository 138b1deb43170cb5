#!/usr/bin/env bash
# A first quarter of an hour on a GPU: does it run at all, what do the paper's claims come to on it, which suspected
# defects are real. Steps in order of worth; each has its own limit, log and exit code, and none can stop the next.
# All graphs of a sweep are compiled before anything is timed, which may take longer than the timing: so what is compiled has
# one r, and r = 8 and 13, the ceiling and what is measured twice (the A/A) are eager.
# Not yet run on a GPU. For a machine without network run "make gpu-wheels" beforehand and take .gpu-wheels along.
#
#   configs/gpu_quarter.sh [--dry-run] [--device cuda|cpu] [--out DIR] [--total SECONDS]
#
#   --dry-run            the same steps on a tiny model, in about a minute and a half; with --device cpu anywhere. Their
#                        limits are five times as long, since the machine may be busy with something else
#   --out DIR            where at most three files go: summary.txt, logs.tar.gz, runs.tar.gz
#                        [default: $OUT, else results/gpu_quarter]
#   --total SECONDS      after which no step is started any more [default: 540]
#
#   PYTHON=python3.12            the interpreter [default: .venv/bin/python where there is one, else python3]
#   ONLY="vit_b|probes"          makes only the steps whose names match a pattern
#   QUARTER_HANG=STEP            lets a step hang, with a limit of 3 s in a dry run
#   QUARTER_CRASH=STEP           lets a step crash
set -um
steps=( # name:seconds
    wheels:15 machine:30 tests:80 vit_b:45 vit_b_compiled:120 probes:75
    vit_s_compiled:70 graphs:20 routes:25 train:20 vit_b_again:40 # together 540
    vit_l_compiled:90 probes_rest:60 # in what the others left: what takes most compiling, and what was not reached
)

refuse() {
    echo "gpu_quarter: $1" >&2
    exit 2
}

here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
dry='' device=cuda total=540 out=${OUT:-$PWD/results/gpu_quarter}
while (($#)); do
    case $1 in
        --dry-run) dry=yes && shift && continue ;;
        --device | --out | --total) [ -n "${2:-}" ] || refuse "$1 needs a value" ;;
        *) refuse "unknown option $1; use --dry-run, --device, --out or --total" ;;
    esac
    case $1 in
        --device) device=$2 ;;
        --out) out=$2 ;;
        --total) total=$2 ;;
    esac
    shift 2
done
[[ $device == cuda || $device == cpu ]] || refuse "unknown device $device; use cuda or cpu"
[[ $total =~ ^[0-9]{1,6}$ ]] || refuse "--total is $total; give whole seconds"
total=$((10#$total))
[[ $out == /* ]] || out=$here/$out # as the caller means it
mkdir -p "$out" 2>/dev/null || refuse "cannot write to $out; use another --out"
[ -w "$out" ] || refuse "cannot write to $out; use another --out"
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
[[ $python != */* || $python == /* || $python == .venv/bin/python ]] || python=$here/$python
command -v "$python" >/dev/null || refuse "there is no $python; name an interpreter with PYTHON="

work=$(mktemp -d 2>/dev/null) || refuse "cannot make a temporary folder; set TMPDIR"
child='' watchdog='' running='' packed='' bad=0
mkdir "$work/logs" "$work/runs" "$work/site"
export PYTHONPATH=$work/site:$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 MPLBACKEND=Agg NO_COLOR=1 COLUMNS=200
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 # whatever else the machine has installed
[ "$device" = cuda ] || [ -z "$dry" ] || export OMP_NUM_THREADS=1 # a rehearsal need not have the machine to itself

end_child() { # the step with all that it started, and what watches over it
    [ -z "$child" ] || kill -KILL -- "-$child" "-$watchdog" 2>/dev/null
    child=''
}

pack() {
    [ -z "$packed" ] || return 0
    packed=yes
    trap '' INT TERM
    [ -z "$child" ] || record "$running" stopped - - 'by a signal'
    end_child
    rm -f "$out"/{summary.txt,logs.tar.gz,runs.tar.gz}
    if ! timeout -k 5 30 "$python" tests/gpu/summary.py "$work" "$out" "${steps[@]}"; then
        { echo "no summary could be written" && cat "$work/steps.tsv"; } >"$out/summary.txt"
        tar -czf "$out/logs.tar.gz" -C "$work" logs
    fi
    rm -rf "$work"
}
trap pack EXIT
trap 'exit 130' INT TERM

record() { # name, verdict, seconds, limit, reason
    local IFS=$'\t'
    echo "$*" >>"$work/steps.tsv"
    printf '%-16s %-12s %4s of %4s s  %s\n' "$@" >&2
    [[ $2 == ok || $2 == skipped ]] || bad=1
}

sweep() { # model, batch size, flags: makes the command
    local model=$1 batch=$2
    shift 2
    command=("$python" -m tomebench)
    if [ -n "$dry" ]; then
        model=test_vit command=("$python" tests/sweeps/sweep_program.py)
        ((batch == 1)) || batch=2
    fi
    command+=(sweep --model "$model" --batch-size "$batch" --device "$device" --dtype bf16 --budget quick --quiet)
    command+=(--out "$work/runs/$name" "$@")
}

prepare() { # name: makes the command, or says why there is none
    local name=$1 compile=(--compile) small=()
    [ "$device" = cuda ] || compile=() # takes minutes on a CPU, and the tests do it
    [ -z "$dry" ] || small=(--dry-run)
    case $name in
        wheels)
            compgen -G '.gpu-wheels/*.whl' >/dev/null || { reason='no .gpu-wheels: what is installed is used' && return; }
            command=("$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile
                --upgrade --target "$work/site" .gpu-wheels/*.whl)
            "$python" -m pip --version >/dev/null 2>&1 || # unpacked, as pip would
                command=(bash -c 'for wheel in "${@:2}"; do "$0" -m zipfile -e "$wheel" "$1" || exit; done'
                    "$python" "$work/site" .gpu-wheels/*.whl)
            ;;
        machine) command=("$python" tests/gpu/machine.py "$device") ;;
        tests) # one that hangs is interrupted, so that the rest is reported; a warning is no failure here
            mapfile -t files < <(grep -rlE --include='test_*.py' 'mark\.gpu|accelerator' tests)
            signal=INT
            command=("$python" -m pytest -m gpu -W default -p no:cacheprovider -v --durations 10 --tb short
                --junitxml "$work/logs/tests.xml" "${files[@]}")
            [ "$device" = cuda ] || command+=(-m 'not gpu' -k cpu_twin)
            ;;
        vit_b | vit_b_again) sweep vit_b_16 256 --r 0,8,13 --ceiling ;;
        vit_b_compiled) sweep vit_b_16 256 --r 0,13 "${compile[@]}" ;;
        probes) command=("$python" tests/gpu/probes.py "$device" --quick "${small[@]}") ;;
        probes_rest) command=("$python" tests/gpu/probes.py "$device" --after "$work/logs/probes.log" "${small[@]}") ;;
        vit_s_compiled) sweep vit_s_16 256 --r 0,13 "${compile[@]}" ;;
        vit_l_compiled) sweep vit_l_16 128 --r 0,8 "${compile[@]}" ;;
        graphs)
            [ "$device" = cuda ] || { reason='needs CUDA' && return; }
            sweep vit_b_16 1 --r 0,8,13 --cuda-graphs
            ;;
        routes) command=("$python" tests/gpu/routes.py "$device" "${small[@]}") ;;
        train) sweep deit_s_16 128 --r 0,13 --mode train ;;
    esac
}

run() { # name, limit
    local name=$1 limit=$2 command=() reason='' signal=TERM left=$((total - SECONDS)) begin=$SECONDS
    local code verdict
    if ! [[ $name =~ ${ONLY:-} ]]; then
        record "$name" skipped 0 "$limit" 'not asked for'
        return
    elif ((left <= 0)); then
        record "$name" 'not started' 0 "$limit" "the total of $total s is used up"
        return
    fi
    prepare "$name"
    [ -z "$dry" ] || limit=$((5 * limit))
    [ "$name" != "${QUARTER_CRASH:-}" ] || command=(bash -c 'kill -SEGV $$')
    if [ "$name" = "${QUARTER_HANG:-}" ]; then
        command=(sleep 1000)
        [ -z "$dry" ] || limit=3
    fi
    ((limit <= left)) || limit=$left
    if [ ${#command[@]} -eq 0 ]; then
        record "$name" skipped 0 "$limit" "$reason"
        return
    fi
    timeout -s "$signal" -k 5 "$limit" "${command[@]}" >"$work/logs/$name.log" 2>&1 </dev/null &
    child=$! running=$name
    (sleep $((limit + 10)) && kill -KILL "$child") 2>/dev/null & # a process that the driver holds cannot be killed
    watchdog=$!
    disown "$watchdog" # no word about its end
    wait "$child" 2>/dev/null
    code=$?
    end_child
    case $code in
        0) verdict=ok ;;
        124) verdict='timed out' ;;
        137) ((SECONDS - begin < limit)) && verdict=failed || verdict='timed out' ;;
        *) verdict=failed ;;
    esac
    record "$name" "$verdict" $((SECONDS - begin)) "$limit" "$([ $code -eq 0 ] || echo "exit code $code")"
}

for step in "${steps[@]}"; do
    run "${step%:*}" "${step#*:}"
done
pack
exit $bad
