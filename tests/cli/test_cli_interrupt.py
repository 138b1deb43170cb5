"""Signals, in a process of their own: the first asks, the second ends it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import sys, time
from tomebench.cli.interrupt import stop_on_signal
with stop_on_signal() as should_stop:
    print("ready", flush=True)
    deadline = time.monotonic() + 300
    while not should_stop() and time.monotonic() < deadline:
        time.sleep(0.01)
    print("asked" if should_stop() else "never asked", flush=True)
    while "stubborn" in sys.argv and time.monotonic() < deadline:
        time.sleep(0.01)
sys.exit(7)
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_asks(number):
    process = start()
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (7, "asked\n")
    assert err.strip() == "tomebench: stopping after the current burst or batch; once more to stop at once"


def test_the_second_signal_ends_the_process_at_once():
    process = start("stubborn")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 130  # by itself it would end with 7
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_a_sweep_begins_a_signal_ends_the_program_at_once(number):
    code = (
        "import time; from tomebench.cli import app; app.run = lambda _: print('ready', flush=True) or time.sleep(99); "
        "app.main(['sweep', '--model', 'm n'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == "tomebench: interrupted; what was done is kept. go on with: tomebench sweep --model 'm n'\n"


def test_the_handlers_are_put_back():
    from tomebench.cli.interrupt import stop_on_signal

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signal() as should_stop:
        assert signal.getsignal(signal.SIGINT) != before[0]
        assert not should_stop()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
