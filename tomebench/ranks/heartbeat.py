"""Who of several processes is still there: every one says so once a second, and whoever falls silent ends the run.

Three kinds of silence end it. A process that is not heard of for ``SILENCE`` seconds is dead or frozen. One whose work
does not go on for far too long (``IDLE``, ``PATIENCE``, ``FIRST``) hangs, and says so itself. And when the store does
not answer, its machine or the network is gone, and nobody can be heard.

Rank 0 listens to all, the others to rank 0, which ends them by ending: the store has to answer N questions, not N².
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tomebench.errors import RankError

SILENCE = 12.0
"""Seconds without a word after which a rank counts as dead. torchrun takes up to 30 more to end one that is frozen."""
BEAT = 1.0
"""Seconds between two words."""
START = 120.0
"""Seconds that a rank may take to say its first."""
GRACE = 15.0
"""Seconds that a rank whose peer is lost has for ending by itself, in which it may be busy with a long pass."""
IDLE = 20.0
"""Seconds from one step of the work to the next, where nothing else is said."""
PATIENCE = 30.0
"""Seconds that a pass may always take; a longer one may take ten times as long as the longest before it."""
FIRST = 600.0
"""Seconds that the first pass may take, before which nothing is known, and one that has to be compiled."""
LOADING = 1800.0
"""Seconds that a model may take to load, which may be fetched first."""
AGAIN = "what was evaluated is kept; run the same command again"


class Channel:
    """The key-value store that the processes share.

    Args:
        store: a ``torch.distributed.Store``.
        rank: of this process.
    """

    def __init__(self, store: Any, rank: int) -> None:
        self._store, self._rank = store, rank
        self.answers = 0  # how often the store has answered

    def has(self, key: str) -> bool:
        """Somebody has set this key. RankError if the store is gone, here and below."""
        with self._asked():
            return bool(self._store.check([key]))

    def get(self, key: str) -> bytes:
        """The value of a key that is there."""
        with self._asked():
            return bytes(self._store.get(key))

    def text(self, key: str) -> str:
        """The value of a key; empty if it is not there."""
        return self.get(key).decode() if self.has(key) else ""

    def take(self, key: str) -> str:
        """The value of a key that is there and that nobody needs any more."""
        value = self.get(key).decode()
        with self._asked():
            self._store.delete_key(key)
        return value

    def set(self, key: str, value: str) -> None:
        """Let everybody see a value."""
        with self._asked():
            self._store.set(key, value)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of which torch's errors about connections are kinds
            reason = " ".join(str(error).split())[:120]
            raise RankError(f"rank {self._rank} has lost the others ({reason}); {AGAIN}") from error
        self.answers += 1


class Presence:
    """This process among its peers: it says that it is there, and hears who is not. Two threads until :meth:`end`.

    Args:
        channel: to the others.
        rank: of this process.
        peers: those it listens to.
        complaint: what :meth:`Ranks.check` would raise now, which ends a process that does not end by itself.
    """

    def __init__(
        self, channel: Channel, rank: int, peers: list[int], complaint: Callable[[], RankError | None]
    ) -> None:
        self.lost: dict[int, str] = {}
        """Ranks that are gone, and in words that they are."""
        self.broken: str | None = None
        """Why the store cannot be reached."""
        self.hangs: str | None = None
        """That this process does not go on, in words."""
        self.ends = dict.fromkeys(peers, "")
        """Why a rank has ended, as far as it was heard; empty while it has not."""
        self._channel, self._rank, self._peers, self._complaint = channel, rank, peers, complaint
        self._heard = dict.fromkeys(peers, (0, ""))  # for how many turns nothing new, and what was the last
        self._idle, self._limit = 0, LOADING  # turns since the work went on last, seconds that it may take
        self._longest = 0.0  # seconds of a pass
        self._passed: set[str] = set()
        self._over = threading.Event()
        channel.set(f"who/{rank}", f"process {os.getpid()} on {socket.gethostname()}")
        channel.set(f"beat/{rank}", "0")  # at once: it may be gone before the first second is over
        for run in (self._talk, self._watch):
            threading.Thread(target=run, daemon=True, name="ranks").start()

    def end(self) -> None:
        """Say and hear no more."""
        self._over.set()

    def name(self, peer: int) -> str:
        """A rank as messages call it."""
        return f"rank {peer} ({self._channel.text(f'who/{peer}') or 'never seen'})"

    def word(self, peer: int) -> str:
        """The last that was heard of a rank; another one every second."""
        return self._channel.text(f"beat/{peer}")

    def lose(self, peer: int, why: str) -> None:
        """A rank is gone."""
        self.lost[peer] = f"{self.name(peer)} {why}"

    def goes_on(self) -> None:
        """The work of this process has made a step."""
        self._idle = 0

    def loaded(self) -> None:
        """From here on a step takes no longer than ``IDLE``."""
        self._limit = IDLE
        self.goes_on()

    @contextmanager
    def allow(self, seconds: float) -> Iterator[None]:
        """Within it the work may take so long from one step to the next; what takes longer hangs."""
        before, self._limit = self._limit, seconds
        self.goes_on()
        try:
            yield
        finally:
            self._limit = before
            self.goes_on()

    @contextmanager
    def one_pass(self, name: str, *, compiles: bool = False) -> Iterator[None]:
        """Around one pass of a model, which tells how long the next may take.

        Args:
            name: of the variant.
            compiles: its first pass is compiled.
        """
        first = compiles and name not in self._passed
        self._passed.add(name)
        began = time.monotonic()
        with self.allow(FIRST if first or not self._longest else max(PATIENCE, 10 * self._longest)):
            yield
        if not first:
            self._longest = max(self._longest, time.monotonic() - began)

    def _talk(self) -> None:
        """The thread that speaks and listens. It waits as long as the store takes to answer, which may be for ever."""
        beats = 0
        while not self._over.wait(BEAT):
            self._idle += 1
            try:
                if self._idle * BEAT > self._limit and not self.hangs:
                    self.hangs = f"hangs: its work has not gone on for {self._limit:.0f} s"
                    self._channel.set(f"end/{self._rank}", f"{self.hangs}; {AGAIN}")
                self._channel.set(f"beat/{self._rank}", str(beats := beats + 1))
                self.listen()
            except RankError as error:
                self.broken = str(error)

    def listen_to_ends(self) -> None:
        """Hear who has ended."""
        for peer in self._peers:
            self.ends[peer] = self._channel.text(f"end/{peer}")

    def listen(self) -> None:
        """Hear the others once. Turns are counted and not the time, which goes on while a process is frozen."""
        self.listen_to_ends()
        for peer in self._peers:
            turns, last = self._heard[peer]
            word = self.word(peer)
            self._heard[peer] = (0, word) if word != last else (turns + 1, last)
            limit = SILENCE if last else START
            if (turns + 1) * BEAT > limit and word == last and not self.ends[peer]:
                self.lose(peer, f"has died or hangs: it was not heard of for {limit:.0f} s")

    def _watch(self) -> None:
        """The thread that never asks the store, and ends this process if it does not end by itself when it must."""
        answers, silent, alarm = 0, 0, 0
        while not self._over.wait(BEAT):
            silent = 0 if self._channel.answers != answers else silent + 1
            answers = self._channel.answers
            if silent * BEAT > SILENCE and not self.broken:
                self.broken = (
                    f"rank {self._rank} has lost the others: the machine that torchrun makes them meet at has not "
                    f"answered for {SILENCE:.0f} s; {AGAIN}"
                )
            alarm += bool(self.lost or self.broken or self.hangs)
            if alarm * BEAT > GRACE:
                self._end_at_once()

    def _end_at_once(self) -> None:
        """End a process that is stuck in a pass while the run is lost. Only what is in progress is lost with it."""
        error = self._complaint()
        if error is not None:
            if not error.quiet:
                print(f"tomebench: error: {error}", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(error.exit_code)
