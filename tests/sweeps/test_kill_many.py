"""kill -9 at random moments of a pass over many images: the table that comes out is that of a run without."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from noisy_images import write_data

from tomebench.report.frames import read_csv
from tomebench.runs.store import Store

PROGRAM = Path(__file__).with_name("kill_program.py")
BATCH, R = 100, "0..8"
PACE = ["img_per_s_accuracy", "input_share"]


class Sweeps:
    """Runs of one sweep over images of 1 000 classes."""

    def __init__(self, root: Path, images: int) -> None:
        self.root, self.images = root, images
        self.batches = images // BATCH
        self.data = write_data(root, (i * 1000 // images for i in range(images)), pixels=4, size=32)

    def start(self, out: Path) -> Forked:
        flags = f"sweep --model test_vit --img-size 64 --r {R} --device cpu --batch-size {BATCH} --budget none \
            --threads 1 --workers 0 --quiet --out {out}".split()
        return Forked([str(PROGRAM), *flags, *self.data], self.root / "errors", {"EVALUATED": str(self.log(out))})

    def finish(self, out: Path) -> float:
        """Run to the end, which must be quiet and successful; returns the seconds it took."""
        began = time.monotonic()
        process = self.start(out)
        assert (process.wait(5500), process.said()) == (0, "")
        return time.monotonic() - began

    def kill(self, out: Path, batches: int, seconds: float) -> None:
        """Start it and kill it so long after it has begun so many more batches; it must not be done by then."""
        goal = self.evaluated(out).total() + batches
        process = self.start(out)
        while self.evaluated(out).total() < goal and process.code is None:
            time.sleep(0.01)
        if process.wait(seconds) is None:
            process.kill()
            assert process.code == -signal.SIGKILL
            return
        pytest.fail(f"it was done before it was killed often enough: exit {process.code}, {process.said()}")

    def log(self, out: Path) -> Path:
        return out.with_suffix(".log")

    def evaluated(self, out: Path) -> Counter[int]:
        """How often each batch was evaluated."""
        return Counter(map(int, self.log(out).read_text().split())) if self.log(out).exists() else Counter()


def results(out: Path, images: int) -> tuple[Any, ...]:
    with Store.read(out) as store:
        assert store.seen().tolist() == list(range(images))
        predictions = {
            key: (p.top1.tobytes(), p.in_top5.tobytes(), p.ties, p.nonfinite) for key, p in store.predictions().items()
        }
    assert len(predictions) == 9
    return predictions, read_csv(out / "table.csv").drop(columns=PACE).to_csv()


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> Sweeps:
    root = tmp_path_factory.mktemp("many")
    Forked([os.devnull], root / "errors").wait()  # the first one pays for what all of them import
    return Sweeps(root, 2_000)


@pytest.mark.slow  # a single kill of the whole program is in test_kill.py
@pytest.mark.parametrize(("kills", "images"), [(3, 2_000), (50, 10_000)])
def test_random_kills(tmp_path: Path, sweeps: Sweeps, kills: int, images: int) -> None:
    if images != sweeps.images:
        sweeps = Sweeps(tmp_path / "more", images)
    whole, out = sweeps.root / f"whole{kills}", sweeps.root / f"killed{kills}"
    alone = sweeps.finish(whole)
    with Store.read(whole) as store:
        working = sum(pace.seconds for pace in store.paces())
    random_, began = random.Random(kills), time.monotonic()
    for left in range(kills, 0, -1):
        to_do = sweeps.batches - len(sweeps.evaluated(out))
        if random_.random() < 0.2 or to_do < 2:  # while it still loads, or soon after
            sweeps.kill(out, 0, random_.uniform(0.0, 0.4 * (alone - working)))
        else:  # while it evaluates: so that all of them together leave something to do
            sweeps.kill(
                out, random_.randint(1, max(1, 2 * to_do // (left + 1))), random_.uniform(0.0, working / sweeps.batches)
            )
    sweeps.finish(out)
    took = time.monotonic() - began
    assert results(out, images) == results(whole, images)

    again = sweeps.evaluated(out) - sweeps.evaluated(whole)
    assert set(sweeps.evaluated(out)) == set(range(sweeps.batches))
    assert set(sweeps.evaluated(whole).values()) == {1}
    assert again.total() <= kills, "more than one batch was evaluated again for a kill"
    with Store.read(out) as store:
        sessions = len(store.sessions())
    assert sessions > kills / 4, "it was hardly ever killed at work"
    print(
        f"\n{kills} kills: {took:.0f} s instead of {alone:.0f} s, {(took - alone) / kills:.1f} s a kill, most of it to "
        f"start again ({alone - working:.1f} s); {again.total()} of {sweeps.batches} batches evaluated twice, "
        f"{sessions} sessions"
    )


def test_a_run_that_ends_by_itself_was_not_killed(
    sweeps: Sweeps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "start", lambda out: Forked([os.devnull], tmp_path / "errors"))
    with pytest.raises(pytest.fail.Exception, match="done before it was killed"):
        sweeps.kill(tmp_path / "run", 1, 5.0)


def test_results_tell_two_runs_apart(sweeps: Sweeps, tmp_path: Path) -> None:
    """The comparison above can fail."""
    out = tmp_path / "run"
    process = sweeps.start(out)
    process.kill()
    with pytest.raises(Exception, match="no run in"):
        results(out, sweeps.images)
