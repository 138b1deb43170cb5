"""Heartbeats between ranks: each one signals once a second, and a rank that falls silent or hangs ends the run.

There are three kinds of silence. A process without heartbeat for ``SILENCE`` seconds is dead or frozen. One whose work
makes no step for too long (``IDLE``, ``PATIENCE``, ``FIRST``) hangs, and reports so itself. When the store does not
answer, its machine or the network is gone.

Rank 0 listens to all others, which listen to rank 0 only and end when it ends: the store answers N queries, not N².
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
"""Seconds without heartbeat after which a rank counts as dead. torchrun takes up to 30 more to end a frozen one."""
BEAT = 1.0
"""Seconds between two heartbeats."""
START = 120.0
"""Seconds that a rank may take until its first heartbeat."""
GRACE = 15.0
"""Seconds that a rank has for ending by itself when another is lost; it may be in a long pass."""
IDLE = 20.0
"""Longest time in seconds between two steps of the work, where no other limit applies."""
PATIENCE = 30.0
"""Seconds that any pass may take; a longer one may take ten times as long as the longest pass before it."""
FIRST = 600.0
"""Seconds that the first pass may take, whose duration cannot be known, and one that has to be compiled."""
LOADING = 1800.0
"""Seconds that loading a model may take, which may include a download."""
AGAIN = "what was evaluated is kept; run the same command again"


class Channel:
    """The key-value store that the ranks share, seen from one of them.

    Args:
        store: a ``torch.distributed.Store``.
        rank: of this process.
    """

    def __init__(self, store: Any, rank: int) -> None:
        self._store, self._rank = store, rank
        self.answers = 0  # number of queries that the store has answered

    def has(self, key: str) -> bool:
        """Whether a key is set. Raises RankError if the store is gone, as all methods here."""
        with self._asked():
            return bool(self._store.check([key]))

    def get(self, key: str) -> bytes:
        """Value of a key that is set."""
        with self._asked():
            return bytes(self._store.get(key))

    def text(self, key: str) -> str:
        """Value of a key as text; empty if it is not set."""
        return self.get(key).decode() if self.has(key) else ""

    def take(self, key: str) -> str:
        """Value of a key that is set, which is then deleted."""
        value = self.get(key).decode()
        with self._asked():
            self._store.delete_key(key)
        return value

    def set(self, key: str, value: str) -> None:
        """Set a key for all ranks."""
        with self._asked():
            self._store.set(key, value)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # the base of torch's errors about connections
            reason = " ".join(str(error).split())[:120]
            raise RankError(f"rank {self._rank} has lost the others ({reason}); {AGAIN}") from error
        self.answers += 1


class Presence:
    """Sends the heartbeats of this process and watches those of its peers, in two threads until :meth:`end`.

    Args:
        channel: the shared store.
        rank: of this process.
        peers: ranks that it listens to.
        complaint: returns the error that :meth:`Ranks.check` would raise now; a process that does not end by itself is
            ended with it.
    """

    def __init__(
        self, channel: Channel, rank: int, peers: list[int], complaint: Callable[[], RankError | None]
    ) -> None:
        self.lost: dict[int, str] = {}
        """Lost ranks, each with the text of its loss."""
        self.broken: str | None = None
        """Why the store cannot be reached; None while it can."""
        self.hangs: str | None = None
        """Text saying that this process hangs; None while it does not."""
        self.ends = dict.fromkeys(peers, "")
        """Why each rank has ended, as far as is known; empty while it has not."""
        self._channel, self._rank, self._peers, self._complaint = channel, rank, peers, complaint
        self._heard = dict.fromkeys(peers, (0, ""))  # turns without a new heartbeat, and the last one
        self._idle, self._limit = 0, LOADING  # turns since the last step of the work, and seconds that one may take
        self._longest = 0.0  # seconds of the longest pass
        self._passed: set[str] = set()
        self._over = threading.Event()
        channel.set(f"who/{rank}", f"process {os.getpid()} on {socket.gethostname()}")
        channel.set(f"beat/{rank}", "0")  # at once: the process may die within the first second
        for run in (self._talk, self._watch):
            threading.Thread(target=run, daemon=True, name="ranks").start()

    def end(self) -> None:
        """Stop both threads."""
        self._over.set()

    def name(self, peer: int) -> str:
        """Name of a rank in messages."""
        return f"rank {peer} ({self._channel.text(f'who/{peer}') or 'never seen'})"

    def word(self, peer: int) -> str:
        """Last heartbeat of a rank, which changes every second."""
        return self._channel.text(f"beat/{peer}")

    def lose(self, peer: int, why: str) -> None:
        """Record that a rank is lost."""
        self.lost[peer] = f"{self.name(peer)} {why}"

    def goes_on(self) -> None:
        """Record that the work of this process has made a step."""
        self._idle = 0

    def loaded(self) -> None:
        """Set the limit of a step to ``IDLE``: the model is loaded."""
        self._limit = IDLE
        self.goes_on()

    @contextmanager
    def allow(self, seconds: float) -> Iterator[None]:
        """Context in which a step of the work may take this many seconds; a longer one counts as hanging."""
        before, self._limit = self._limit, seconds
        self.goes_on()
        try:
            yield
        finally:
            self._limit = before
            self.goes_on()

    @contextmanager
    def one_pass(self, name: str, *, compiles: bool = False) -> Iterator[None]:
        """Context of one pass of a model; its duration sets the limit for later ones.

        Args:
            name: of the variant.
            compiles: the first pass of each variant is compiled.
        """
        first = compiles and name not in self._passed
        self._passed.add(name)
        began = time.monotonic()
        with self.allow(FIRST if first or not self._longest else max(PATIENCE, 10 * self._longest)):
            yield
        if not first:
            self._longest = max(self._longest, time.monotonic() - began)

    def _talk(self) -> None:
        """Thread that sends and reads heartbeats; waits as long as the store takes to answer, maybe for ever."""
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
        """Read which ranks have ended, and why."""
        for peer in self._peers:
            self.ends[peer] = self._channel.text(f"end/{peer}")

    def listen(self) -> None:
        """Read all heartbeats once. Turns are counted, not seconds, which pass while a process is frozen."""
        self.listen_to_ends()
        for peer in self._peers:
            turns, last = self._heard[peer]
            word = self.word(peer)
            self._heard[peer] = (0, word) if word != last else (turns + 1, last)
            limit = SILENCE if last else START
            if (turns + 1) * BEAT > limit and word == last and not self.ends[peer]:
                self.lose(peer, f"has died or hangs: it was not heard of for {limit:.0f} s")

    def _watch(self) -> None:
        """Watchdog thread: it never queries the store, and ends this process where that does not end by itself."""
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
        """End a process that is stuck in a pass while the run is lost; only the batch in progress is lost with it."""
        error = self._complaint()
        if error is not None:
            if not error.quiet:
                print(f"tomebench: error: {error}", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(error.exit_code)
