"""What the ranks tell each other and who counts as gone, without processes: a dictionary is the store."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from tomebench.errors import Interrupted, RankError
from tomebench.ranks.group import Ranks
from tomebench.ranks.place import Place


class FakeStore(dict):  # type: ignore[type-arg]
    """As much of torch's store as the ranks use."""

    def set(self, key: str, value: str | bytes) -> None:
        self[key] = value.encode() if isinstance(value, str) else value

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)

    def get(self, key: str) -> bytes:  # type: ignore[override]
        return self[key]

    def delete_key(self, key: str) -> bool:
        return self.pop(key, None) is not None


def heard(ranks: Ranks) -> Ranks:
    """The same, having listened; by itself it does once a second."""
    ranks._presence.listen()
    return ranks


def two(store: FakeStore) -> tuple[Ranks, Ranks]:
    return Ranks(Place(0, 2), store), Ranks(Place(1, 2), store)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [0, 1, 7, 12])
def test_every_batch_belongs_to_one_rank(n: int, size: int) -> None:
    shares = [Ranks(Place(rank, size), None).share(range(3, 3 + n)) for rank in range(size)]
    assert sorted(index for share in shares for index in share) == list(range(3, 3 + n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_place_is_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert Place.here() == Place(0, 1, 0, 1)
    monkeypatch.setenv("MASTER_ADDR", "x")
    monkeypatch.setenv("RANK", "3")
    assert Place.here() == Place(0, 1, 0, 1)  # what is left over from another program
    monkeypatch.delenv("MASTER_ADDR")
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert Place.here() == Place(0, 1, 0, 1)  # some clusters set these two for every job
    for name, value in {"MASTER_ADDR": "x", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert Place.here() == Place(5, 8, 1, 4)


def test_messages_arrive_once_and_in_order() -> None:
    first, second = two(FakeStore())
    with first, second:
        for text in "abc":
            second.send(text)
        assert list(first.received()) == [(1, "a"), (1, "b"), (1, "c")]
        assert list(first.received()) == []
        second.send("d")
        assert list(first.received()) == [(1, "d")]
        first.publish({"remaining": [1]})
        assert second.assignment(lambda: None) == {"remaining": [1]}


def test_what_a_rank_fails_with_is_said_by_rank_0() -> None:
    first, second = two(FakeStore())
    second.leave("it finds other images")
    with pytest.raises(RankError, match=r"rank 1 \(process \d+ on .*\): it finds other images") as caught:
        heard(first).check()
    assert not caught.value.quiet
    first.leave("the disk is full")
    with pytest.raises(RankError) as caught:
        heard(second).check()
    assert caught.value.quiet


def test_everybody_was_asked_to_stop() -> None:
    first, second = two(FakeStore())
    second.__exit__(None, Interrupted("x"), None)
    first.explain()
    with pytest.raises(RankError, match=r"rank 1 .* was stopped; what was evaluated is kept"):
        heard(first).check()  # this process was not asked to stop, and cannot go on without the other
    first.leave("done")


def test_two_that_are_asked_to_stop_do_not_wait_for_each_other() -> None:
    first, second = two(FakeStore())
    patient = {"seconds": 600.0}
    for thread in (other := [threading.Thread(target=ranks.explain, kwargs=patient) for ranks in (first, second)]):
        thread.start()
    for thread in other:
        thread.join(300)
        assert not thread.is_alive()
    second.leave("done")
    first.leave("done")


def test_a_pass_that_never_ends_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BEAT": 0.02, "SILENCE": 0.3, "PATIENCE": 0.2, "FIRST": 1.0, "START": 1.0}.items():
        monkeypatch.setattr(f"tomebench.ranks.heartbeat.{name}", value)
    store = FakeStore()
    first, second = two(store)
    with second.one_pass("a"):
        time.sleep(0.15)
    first.check()
    began = time.monotonic()
    with second.one_pass("a"), pytest.raises(RankError, match=r"rank 1 .*: hangs: its work has not gone on"):
        first.assignment(first.check)  # which waits for one that nobody publishes
    assert time.monotonic() - began > 1.5  # ten times as long as the longest before would have been fine
    for ranks in (second, first):
        ranks.leave("done")


def check_until_it_raises(ranks: Ranks) -> None:
    """Ask again and again, since a busy machine takes its time; for a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ranks.check()
        time.sleep(0.01)


def test_asking_again_ends_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    monkeypatch.setattr("test_heartbeat.time.monotonic", lambda: 30.0 * len(asked))
    check_until_it_raises(SimpleNamespace(check=lambda: asked.append(None)))  # type: ignore[arg-type]
    assert len(asked) == 2


def test_a_store_that_is_gone_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tomebench.ranks.heartbeat.BEAT", 0.02)
    store = FakeStore()
    first, second = two(store)
    monkeypatch.setattr(
        store, "set", lambda *_: (_ for _ in ()).throw(RuntimeError("Connection\nreset")), raising=False
    )
    with pytest.raises(RankError, match=r"rank 0 has lost the others \(Connection reset\)"):
        check_until_it_raises(first)
    for ranks in (first, second):  # otherwise it ends this process, as it should
        ranks.leave("done")


def test_rank_0_waits_until_all_have_loaded() -> None:
    first, second = two(FakeStore())
    turns = iter(range(100))

    def loaded() -> None:
        if next(turns) == 2:
            second.meet(lambda: {"torch": "2"}, lambda: None)

    with first, second:
        first.meet(lambda: {"torch": "2"}, loaded)
        assert next(turns) > 2


def test_a_rank_that_would_round_another_way_is_refused_by_name() -> None:
    first, second = two(FakeStore())
    with second:
        second.meet(lambda: {"GPU": "A", "torch": "2.11", "timm": "1"}, lambda: None)
        with pytest.raises(
            RankError, match=r"^rank 1 \(process .*\) has another torch than rank 0 \(2\.11, not 2\.12\), which could"
        ):
            first.meet(lambda: {"GPU": "A", "torch": "2.12", "timm": "1"}, lambda: None)
    first.leave("done")


def test_a_rank_that_fails_before_rank_0_is_there_waits_to_be_heard() -> None:
    store = FakeStore()
    second = Ranks(Place(1, 2), store)
    leaving = threading.Thread(target=second.leave, args=["no such folder"])
    leaving.start()
    leaving.join(0.3)
    assert leaving.is_alive()
    first = Ranks(Place(0, 2), store)
    with pytest.raises(RankError, match="no such folder"):
        heard(first).check()
    leaving.join(300)
    assert not leaving.is_alive()
    first.leave("done")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BEAT": 0.02, "SILENCE": 0.2, "GRACE": 0.2}.items():
        monkeypatch.setattr(f"tomebench.ranks.heartbeat.{name}", value)


@pytest.mark.usefixtures("quick")
def test_a_store_that_never_answers_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended, codes = threading.Event(), []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()
        ranks._presence.end()  # for a real end there would be nothing more either

    monkeypatch.setattr("os._exit", end)
    store, thaw = FakeStore(), threading.Event()
    ranks = Ranks(Place(1, 2), store)
    time.sleep(0.1)
    assert not ended.is_set()
    check = store.check
    monkeypatch.setattr(store, "check", lambda keys: thaw.wait(600) and check(keys), raising=False)
    assert ended.wait(300)
    assert codes == [RankError.exit_code]
    assert "rank 1 has lost the others: the machine that torchrun makes them meet at has not" in capsys.readouterr().err
    thaw.set()
    ranks.leave("done")


@pytest.mark.usefixtures("quick")
def test_work_that_does_not_go_on_is_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread is alive, but nobody asks whether to stop: it hangs in reading, say."""
    for name, value in {"IDLE": 0.3, "GRACE": 60.0}.items():  # with less it would end this very process
        monkeypatch.setattr(f"tomebench.ranks.heartbeat.{name}", value)
    first, second = two(FakeStore())
    second.meet(lambda: {}, lambda: None)
    with second.allow(1.0):
        time.sleep(0.8)
    first.check()
    with pytest.raises(RankError, match=r"rank 1 \(process .*\): hangs: its work has not gone on for 0 s"):
        check_until_it_raises(first)
    second.leave("done")
    first.leave("done")


@pytest.mark.usefixtures("quick")
def test_only_the_first_pass_of_a_variant_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PATIENCE": 0.1, "FIRST": 9.0}.items():
        monkeypatch.setattr(f"tomebench.ranks.heartbeat.{name}", value)
    first, second = two(FakeStore())
    limits = []
    for name in ("a", "b", "a", "b", "a"):
        with second.one_pass(name, compiles=True):
            limits.append(second._presence._limit)
    assert limits[:3] == [9.0, 9.0, 9.0]  # of the third: nothing is known yet of a pass that is compiled already
    assert limits[3:] == [0.1, 0.1]
    for ranks in (second, first):
        ranks.leave("done")


def test_a_process_that_was_frozen_itself_takes_nobody_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns are counted and not the time, which goes on while everybody is suspended."""
    monkeypatch.setattr("tomebench.ranks.heartbeat.BEAT", 5.0)
    first, second = two(FakeStore())
    now = time.monotonic
    heard(first)  # what it has said so far
    monkeypatch.setattr(time, "monotonic", lambda: now() + 3600)
    for _ in range(2):
        heard(first).check()
    monkeypatch.setattr(time, "monotonic", now)
    for _ in range(2):  # at five seconds each, the fourth turn of silence
        heard(first)
    with pytest.raises(RankError, match="it was not heard of for 12 s"):
        first.check()
    for ranks in (second, first):
        ranks.leave("done")


def test_asking_whether_the_run_goes_on_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two(FakeStore())
    monkeypatch.setattr("tomebench.ranks.heartbeat.Channel.has", lambda *_: pytest.fail("it asked"))
    for _ in range(100):
        first.check()
    monkeypatch.undo()
    for ranks in (second, first):
        ranks.leave("done")


def test_ranks_listen_to_rank_0_which_listens_to_all() -> None:
    store = FakeStore()
    ranks = [Ranks(Place(rank, 3), store) for rank in range(3)]
    assert [list(each._presence.ends) for each in ranks] == [[1, 2], [0], [0]]
    for each in reversed(ranks):
        each.leave("done")


@pytest.mark.parametrize(
    ("place", "quiet", "quiet_without_0"),
    [
        (Place(0, 4, 0, 2), False, False),
        (Place(1, 4, 1, 2), True, False),  # the next one on the machine of rank 0
        (Place(2, 4, 0, 2), True, False),  # the first on the other machine
        (Place(3, 4, 1, 2), True, True),
        (Place(2, 4, 2, 4), True, True),
    ],
)
def test_one_process_of_a_machine_says_it(place: Place, quiet: bool, quiet_without_0: bool) -> None:
    ranks = Ranks(place, FakeStore())
    assert ranks._quiet() is quiet
    ranks._presence.lost[0] = "rank 0 has died"
    assert ranks._quiet() is quiet_without_0
    ranks.leave("stopped")
