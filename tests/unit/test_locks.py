"""Locks per key."""

from __future__ import annotations

import threading

from agent.node.locks import KeyLocks

DEADLINE = 60.0


def held_by_another(locks: KeyLocks, key: str) -> tuple[threading.Thread, threading.Event]:
    """A thread that holds *key* until the event is set."""
    has_it, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with locks.hold(key):
            has_it.set()
            let_go.wait(DEADLINE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert has_it.wait(DEADLINE)
    return thread, let_go


def test_one_key_is_held_by_one_thread() -> None:
    """Who wants a key that is held waits until it is free."""
    locks = KeyLocks()
    thread, let_go = held_by_another(locks, "a")
    order: list[str] = []

    def second() -> None:
        with locks.hold("a"):
            order.append("second")

    waiting = threading.Thread(target=second)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive(), "the second thread did not wait"
    order.append("first")
    let_go.set()
    waiting.join(DEADLINE)
    thread.join(DEADLINE)
    assert order == ["first", "second"]


def test_different_keys_do_not_wait_for_each_other() -> None:
    """A key that is held keeps nobody from another one."""
    locks = KeyLocks()
    thread, let_go = held_by_another(locks, "a")
    with locks.hold("b"):
        assert len(locks) == 2
    let_go.set()
    thread.join(DEADLINE)


def test_a_held_key_is_not_waited_for_where_that_was_asked() -> None:
    """The body is told that it does not hold the key, and the holder is not disturbed."""
    locks = KeyLocks()
    thread, let_go = held_by_another(locks, "a")
    with locks.hold_if_free("a") as is_free:
        assert not is_free
    let_go.set()
    thread.join(DEADLINE)
    with locks.hold_if_free("a") as is_free, locks.hold_if_free("a") as again:
        assert is_free
        assert not again


def test_who_waits_for_the_holders_to_pass_is_told_if_they_do_not() -> None:
    """Those who come later are not waited for, and nobody is waited for for ever."""
    locks = KeyLocks()
    thread, let_go = held_by_another(locks, "a")
    assert not locks.let_pass(0.05)
    let_go.set()
    assert locks.let_pass(DEADLINE)
    thread.join(DEADLINE)
    assert locks.let_pass(0.0)


def test_a_key_that_nobody_wants_takes_no_memory() -> None:
    """After the last holder, even one that failed, nothing of the key is left."""
    locks = KeyLocks()
    try:
        with locks.hold("a"):
            raise KeyError
    except KeyError:
        pass
    with locks.hold_if_free("b"):
        pass
    assert len(locks) == 0
