"""The group of ranks that share the evaluation of the images: distribution of batches, messages, lost ranks.

Only predictions travel, a few kilobytes per batch, so no collective and no backend is needed: the ranks communicate
through the key-value store that torchrun gives them for their rendezvous, the same for CPUs and GPUs. Rank 0 alone
times and writes the store; the others evaluate their share of the batches and send it the predictions.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

from tomebench.errors import Interrupted, RankError
from tomebench.identity import difference
from tomebench.ranks.heartbeat import AGAIN, BEAT, GRACE, START, Channel, Presence
from tomebench.ranks.place import Place

Work = TypeVar("Work")
_POLL = 0.05
_STOPPED = "stopped"
"""Message of a process that was asked to stop."""


class Ranks:
    """This process and its peers, as a context; without peers it does nothing.

    Args:
        place: rank of this process.
        store: a ``torch.distributed.Store`` that all of them share; None for a process without peers.
    """

    def __init__(self, place: Place, store: Any | None) -> None:
        self.place = place
        self._received = dict.fromkeys(self.peers, 0)
        self._sent = 0
        self._stage = 0
        self._left = False
        self._reason: RankError | None = None  # why this process ends, if the cause is another one
        self._channel: Channel | None = None
        if store is not None:
            self._channel = Channel(store, place.rank)
            heard = self.peers if self.leads else [0]
            self._presence = Presence(self._channel, place.rank, heard, self._lost)

    @classmethod
    def join(cls) -> Ranks:
        """Join the other processes of the group, if there are any.

        Raises:
            RankError: the rendezvous failed.
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
        # torchrun keeps its store when it restarts the processes, with the messages of the earlier ones.
        again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return cls(place, PrefixStore(f"tomebench/{again}", store))

    @property
    def peers(self) -> list[int]:
        """All ranks but this one."""
        return [rank for rank in range(self.place.size) if rank != self.place.rank]

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which times and writes."""
        return self.place.rank == 0

    def share(self, work: Sequence[Work]) -> list[Work]:
        """Share of this rank: every ``size``-th batch."""
        return list(work[self.place.rank :: self.place.size])

    def meet(self, facts: Callable[[], Mapping[str, str]], stop_if_asked: Callable[[], None]) -> None:
        """Report that this process has loaded; rank 0 waits for all others, since nothing else may run while it times.

        Args:
            facts: gives name and value of whatever decides the bits of a result, which must be equal in all ranks.
            stop_if_asked: raises when the sweep is to stop or cannot go on.

        Raises:
            RankError: facts of a rank differ from those of rank 0; raised in rank 0.
        """
        if self._channel is None:
            return
        self._presence.loaded()
        mine = dict(facts())
        self._channel.set(f"ready/{self.place.rank}", json.dumps(mine, allow_nan=False))
        if not self.leads:
            return
        self._wait(lambda: all(map(self._ready, self.peers)), stop_if_asked)
        for peer in self.peers:
            theirs = json.loads(self._channel.get(f"ready/{peer}"))
            if unlike := difference(mine, theirs):
                raise RankError(
                    f"{self._presence.name(peer)} has another {unlike.name} than rank 0 ({unlike.here}, not "
                    f"{unlike.there}), which could give other figures; give all processes the same"
                )

    def publish(self, assigned: Mapping[str, Any]) -> None:
        """Send the other ranks their assignment, as JSON, so that they begin."""
        if self._channel is not None:
            self._channel.set("plan", json.dumps(dict(assigned), allow_nan=False))

    def assignment(self, stop_if_asked: Callable[[], None]) -> dict[str, Any]:
        """Wait for the assignment that rank 0 publishes; it may be timing for hours."""
        assert self._channel is not None
        self._wait(lambda: self._has("plan"), stop_if_asked)
        return dict(json.loads(self._channel.get("plan")))

    def hand_out(self, work: Any) -> None:
        """Send the other ranks the work of the next stage, as JSON."""
        if self._channel is not None:
            self._channel.set(f"work/{self._stage}", json.dumps(work, allow_nan=False))
        self._stage += 1

    def handed_out(self) -> Iterator[Any]:
        """Work of the stages that rank 0 has handed out since the last call."""
        assert self._channel is not None
        while self._channel.has(key := f"work/{self._stage}"):
            self._stage += 1
            yield json.loads(self._channel.get(key))

    def over(self) -> bool:
        """Whether rank 0 has ended without an error: it needs nothing more."""
        return self._end(0) == "done"

    def send(self, message: str) -> None:
        """Send a message to rank 0."""
        assert self._channel is not None
        self._channel.set(f"chunk/{self.place.rank}/{self._sent}", message)
        self._sent += 1

    def received(self) -> Iterator[tuple[int, str]]:
        """Messages of the other ranks since the last call, each with its rank."""
        for peer in self.peers:
            while self._channel and self._channel.has(key := f"chunk/{peer}/{self._received[peer]}"):
                self._received[peer] += 1
                yield peer, self._channel.take(key)

    def one_pass(self, name: str, *, compiles: bool = False) -> AbstractContextManager[None]:
        """Context of one pass of a model: :meth:`Presence.one_pass`."""
        return self._presence.one_pass(name, compiles=compiles) if self._channel else nullcontext()

    def allow(self, seconds: float) -> AbstractContextManager[None]:
        """Context of work that may take so long between two calls of :meth:`check`: :meth:`Presence.allow`."""
        return self._presence.allow(seconds) if self._channel else nullcontext()

    def check(self, *, stopped_is_fine: bool = False) -> None:
        """Report that the work goes on. Asks the store nothing: what is known is up to a second old.

        Raises:
            RankError: another rank is lost, has failed, or was stopped without ``stopped_is_fine``.
        """
        if self._channel is None:
            return
        self._presence.goes_on()
        if lost := self._lost():
            raise lost
        for peer, end in self._presence.ends.items():
            if end in ("", "done") or (end == _STOPPED and stopped_is_fine):
                continue
            if end == _STOPPED:
                raise self._because(f"{self._presence.name(peer)} was stopped; {AGAIN}", quiet=self._quiet())
            if peer == 0:
                raise self._because(end, quiet=True)  # rank 0 reports its own error
            raise self._because(f"{self._presence.name(peer)}: {end}", quiet=self._quiet())

    def explain(self, seconds: float = 4 * BEAT) -> None:
        """Find out why this process was told to stop: torchrun stops all processes when one is lost.

        Raises:
            RankError: a rank is lost. Without it, all of them were asked to stop.
        """
        if self._channel is None:
            return
        self._channel.set(f"asked/{self.place.rank}", "to stop")
        heard = list(self._presence.ends)
        words = {peer: self._presence.word(peer) for peer in heard}
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._presence.listen_to_ends()
            self.check(stopped_is_fine=True)
            if all(map(self._stops, heard)):
                return
            time.sleep(_POLL)
        for peer in heard:
            if words[peer] and not self._stops(peer) and self._presence.word(peer) == words[peer]:
                self._presence.lose(peer, "has died or hangs")  # one that has not begun yet is just stopped
        self.check(stopped_is_fine=True)

    def leave(self, why: str) -> None:
        """Tell the others that this process ends, and why; "done" if without an error."""
        if self._channel is None or self._left:
            return
        self._left = True
        with suppress(RankError):  # the store is gone, and with it all others
            self._channel.set(f"end/{self.place.rank}", why)
            if self.leads and why == "done":
                # Without torchrun the store lives in rank 0, which must not end before the others have read it.
                self._linger(lambda: all(map(self._end, self.peers)), 3 * BEAT)
            elif why not in ("done", _STOPPED):
                # torchrun ends the others when this process ends; rank 0 reports the reason if it is given time to.
                self._linger(lambda: self._has("who/0"), GRACE)
        self._presence.end()  # last: until here the watchdog ends this process if the store hangs

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

    def _wait(self, done: Callable[[], bool], stop_if_asked: Callable[[], None]) -> None:
        while not done():
            stop_if_asked()
            time.sleep(4 * _POLL)

    def _linger(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            time.sleep(_POLL)

    def _lost(self) -> RankError | None:
        """The error of a lost rank or store, if there is one. Asks the store nothing."""
        if self._presence.broken:
            return self._because(self._presence.broken)
        if self._presence.hangs:  # or hung for a while
            return self._because(f"rank {self.place.rank} {self._presence.hangs}; {AGAIN}", quiet=not self.leads)
        if lost := sorted(self._presence.lost.items()):
            return self._because("; ".join([*(text for _, text in lost), AGAIN]), quiet=self._quiet())
        return None

    def _because(self, message: str, *, quiet: bool = False) -> RankError:
        """The error of a process that ends because of another one; it is not reported as a failure of its own."""
        self._reason = RankError(message, quiet=quiet)
        return self._reason

    def _quiet(self) -> bool:
        """Whether another process prints the error: rank 0, or if that is lost, the first other one of a machine."""
        beside_rank_0 = self.place.rank == self.place.local_rank
        return not self.leads and (0 not in self._presence.lost or self.place.local_rank > beside_rank_0)

    def _has(self, key: str) -> bool:
        return self._channel is not None and self._channel.has(key)

    def _ready(self, peer: int) -> bool:
        return self._has(f"ready/{peer}")

    def _end(self, peer: int) -> str:
        return self._channel.text(f"end/{peer}") if self._channel else ""

    def _stops(self, peer: int) -> bool:
        """Whether a rank has ended, or was asked to stop."""
        return bool(self._end(peer)) or self._has(f"asked/{peer}")
