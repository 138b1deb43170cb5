"""Processes that share the pass over the images, as torchrun starts them: who does what, and who is still there.

Only predictions travel, a few kilobytes for a batch, so no collective and no backend is needed: the ranks talk through
the key-value store that torchrun gives all of them for their rendezvous, the same for CPUs and GPUs. Rank 0 alone
plans, times and writes; the others evaluate the batches that are theirs and hand over what they found.

Every rank says once a second that it is there, unless its model has been busy with one pass for far too long
(``PATIENCE``, ``FIRST``). Whoever is not heard of for ``SILENCE`` seconds ends the run on all of them.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

from tomebench.errors import Interrupted, RankError

SILENCE = 15.0
"""Seconds without a word after which a rank counts as dead. torchrun takes up to 30 more to end one that is frozen."""
BEAT = 1.0
"""Seconds between two words."""
START = 120.0
"""Seconds that a rank may take to say its first."""
GRACE = 15.0
"""Seconds that a rank whose peer is lost has for ending by itself, in which it may be busy with a long pass."""
PATIENCE = 30.0
"""Seconds that a pass may always take; a longer one may take ten times as long as the longest before it."""
FIRST = 600.0
"""Seconds that the first pass may take, before which nothing is known, and any that may have to be compiled."""
_POLL = 0.05
_STOPPED = "stopped"
"""What a process says that ends for no fault of its own."""
_AGAIN = "what was evaluated is kept; run the same command again"


@dataclass(frozen=True)
class Place:
    """Which of the processes this one is."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on this machine
    local_size: int = 1

    @classmethod
    def here(cls) -> Place:
        """As torchrun says it in the environment; alone without it."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        given = [os.environ.get(name, "") for name in names]
        if "MASTER_ADDR" not in os.environ or not all(map(str.isdecimal, given)) or int(given[1]) < 2:
            return cls()
        return cls(*map(int, given))


class Ranks:
    """This process and its peers; alone it does nothing and costs nothing. Leave it with ``with``.

    Args:
        place: which one this is.
        store: a ``torch.distributed.Store`` that all of them share; None for a process that is alone.
    """

    def __init__(self, place: Place, store: Any | None) -> None:
        self.place, self._store = place, store
        self._lost: dict[int, str] = {}  # ranks that are gone, and why we think so
        self._broken: str | None = None  # why the store cannot be reached
        self._heard = {peer: (time.monotonic() + START - SILENCE, b"") for peer in self.peers}  # when, what
        self._received = dict.fromkeys(self.peers, 0)
        self._sent = 0
        self._pass: tuple[float, float] | None = None  # when the running pass began, how long it may take
        self._longest = 0.0
        self._reason: RankError | None = None  # why this process ends although nothing is wrong with it
        self._over = threading.Event()
        if store is not None:
            store.set(f"who/{place.rank}", f"process {os.getpid()} on {socket.gethostname()}")
            store.set(f"beat/{place.rank}", "0")  # at once: it may be gone before the first second is over
            threading.Thread(target=self._beat, daemon=True, name="ranks").start()

    @classmethod
    def join(cls) -> Ranks:
        """Meet the other processes, if there are any.

        Raises:
            RankError: they cannot be met.
        """
        place = Place.here()
        if place.size == 1:
            return cls(place, None)
        from torch.distributed import PrefixStore, rendezvous  # type: ignore[attr-defined]

        try:
            store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=START)))
        except (RuntimeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:160]
            raise RankError(f"rank {place.rank} cannot meet the others ({reason}); start it with torchrun") from error
        return cls(place, PrefixStore("tomebench", store))

    @property
    def peers(self) -> list[int]:
        """All ranks but this one."""
        return [rank for rank in range(self.place.size) if rank != self.place.rank]

    @property
    def leads(self) -> bool:
        """This is rank 0, which plans, times and writes."""
        return self.place.rank == 0

    def share(self, indices: Sequence[int]) -> list[int]:
        """The batches that are this rank's: every ``size``-th."""
        return list(indices[self.place.rank :: self.place.size])

    def publish(self, plan: dict[str, Any]) -> None:
        """Let the others begin. JSON."""
        if self._store is not None:
            self._set("plan", json.dumps(plan, allow_nan=False))

    def plan(self, stop_if_asked: Callable[[], None]) -> dict[str, Any]:
        """What rank 0 has published, waiting for it: it may be timing for hours."""
        while not self._has("plan"):
            stop_if_asked()
            self.check()
            time.sleep(4 * _POLL)
        return dict(json.loads(self._get("plan")))

    def over(self) -> bool:
        """Rank 0 has all it needs."""
        return self._end(0) == "done"

    def send(self, message: str) -> None:
        """Hand something over to rank 0."""
        self._set(f"chunk/{self.place.rank}/{self._sent}", message)
        self._sent += 1

    def received(self) -> Iterator[str]:
        """What the others have handed over since the last call."""
        for peer in self.peers:
            while self._has(key := f"chunk/{peer}/{self._received[peer]}"):
                self._received[peer] += 1
                yield self._get(key, last=True).decode()

    @contextmanager
    def one_pass(self, *, compiles: bool = False) -> Iterator[None]:
        """Around one pass of a model: one that never ends counts as death, of which the others hear nothing more."""
        began = time.monotonic()
        self._pass = (began, max(FIRST if compiles or not self._longest else PATIENCE, 10 * self._longest))
        try:
            yield
        finally:
            self._pass = None
            self._longest = max(self._longest, time.monotonic() - began)

    def check(self, *, stopped_is_fine: bool = False) -> None:
        """Raise RankError if the run cannot go on: somebody is gone, has given up, or was stopped and may not be."""
        if self._store is None:
            return
        if self._broken:
            raise self._because(self._broken)
        if self._lost:
            reasons = "; ".join(f"{self._name(peer)} {why}" for peer, why in sorted(self._lost.items()))
            raise self._because(f"{reasons}; {_AGAIN}", quiet=self._quiet())
        for peer in self.peers:
            end = self._end(peer)
            if end in ("", "done"):
                continue
            if end == _STOPPED:
                if stopped_is_fine:
                    continue
                raise self._because(f"{self._name(peer)} was stopped; {_AGAIN}", quiet=self._quiet())
            if peer == 0:
                raise self._because(end, quiet=True)  # it has said so itself
            raise self._because(f"{self._name(peer)}: {end}", quiet=self._quiet())

    def explain(self, seconds: float = 4 * BEAT) -> None:
        """Why this process was told to stop: torchrun tells all of them when one is gone.

        Raises:
            RankError: somebody is gone. Otherwise everybody was asked to stop.
        """
        if self._store is None:
            return
        self._set(f"asked/{self.place.rank}", "to stop")
        words = {peer: self._word(peer) for peer in self.peers}
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check(stopped_is_fine=True)
            if all(self._end(peer) or self._has(f"asked/{peer}") for peer in self.peers):
                return
            time.sleep(_POLL)
        for peer in self.peers:
            if not self._end(peer) and not self._has(f"asked/{peer}") and self._word(peer) == words[peer]:
                self._lost[peer] = "has died or hangs"
        self.check(stopped_is_fine=True)

    def leave(self, why: str) -> None:
        """Tell the others that this process is done, or why it is not."""
        if self._store is None or self._over.is_set():
            return
        self._over.set()
        try:
            self._set(f"end/{self.place.rank}", why)
            # Without torchrun the store lives in rank 0, which must not go before the others have heard of it.
            deadline = time.monotonic() + 3 * BEAT
            while self.leads and why == "done" and time.monotonic() < deadline:
                if all(self._end(peer) for peer in self.peers):
                    break
                time.sleep(_POLL)
        except RankError:
            pass  # nobody is there to be told

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.leave("done")
        elif isinstance(error, Interrupted | GeneratorExit) or error is self._reason:
            self.leave(_STOPPED)
        else:
            self.leave(" ".join(str(error).split())[:500] or type(error).__name__)

    def _beat(self) -> None:
        """Say that this process is there and listen to the others, in a thread."""
        beats, alarm = 0, None
        while not self._over.wait(BEAT):
            try:
                if self._pass is None or time.monotonic() < sum(self._pass):
                    self._set(f"beat/{self.place.rank}", str(beats := beats + 1))
                self._listen()
            except RankError as error:
                self._broken = str(error)
            if self._lost or self._broken:
                alarm = alarm or time.monotonic()
                if time.monotonic() > alarm + GRACE:
                    self._end_at_once()

    def _listen(self) -> None:
        now = time.monotonic()
        for peer in self.peers:
            word = self._word(peer)
            if word != self._heard[peer][1]:
                self._heard[peer] = (now, word)
            elif now > self._heard[peer][0] + SILENCE and not self._end(peer):
                self._lost[peer] = f"has died or hangs: it was not heard of for {SILENCE:.0f} s"

    def _end_at_once(self) -> None:
        """End a process that is stuck in a pass while the run is lost. Only what is in progress is lost with it."""
        try:
            self.check()
        except RankError as error:
            if not error.quiet:
                print(f"tomebench: error: {error}", file=sys.stderr, flush=True)  # noqa: T201
            os._exit(error.exit_code)

    def _because(self, message: str, *, quiet: bool = False) -> RankError:
        """The error of a process that ends for what another one did, which the others need not hear of from it."""
        self._reason = RankError(message, quiet=quiet)
        return self._reason

    def _quiet(self) -> bool:
        """Somebody of a lower rank is there to say it."""
        return any(peer < self.place.rank and peer not in self._lost for peer in self.peers)

    def _name(self, peer: int) -> str:
        who = self._get(f"who/{peer}").decode() if self._has(f"who/{peer}") else "never seen"
        return f"rank {peer} ({who})"

    def _end(self, peer: int) -> str:
        return self._get(f"end/{peer}").decode() if self._has(f"end/{peer}") else ""

    def _word(self, peer: int) -> bytes:
        """The last that was heard of a rank; another one every second."""
        return self._get(f"beat/{peer}") if self._has(f"beat/{peer}") else b""

    def _has(self, key: str) -> bool:
        if self._store is None:
            return False
        with self._reached():
            return bool(self._store.check([key]))

    def _get(self, key: str, *, last: bool = False) -> bytes:
        """A value that is there; for the ``last`` time, since nobody needs it any more."""
        assert self._store is not None
        with self._reached():
            value = bytes(self._store.get(key))
            if last:
                self._store.delete_key(key)
            return value

    def _set(self, key: str, value: str) -> None:
        assert self._store is not None
        with self._reached():
            self._store.set(key, value)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """The store is asked; RankError if it is gone, with the process that holds it."""
        try:
            yield
        except RuntimeError as error:  # of which torch's errors about connections are kinds
            reason = " ".join(str(error).split())[:120]
            raise self._because(f"rank {self.place.rank} has lost the others ({reason}); {_AGAIN}") from error
