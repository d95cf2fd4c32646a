"""How often one object may be repaired."""

from __future__ import annotations

from agent.keep.limiter import Limiter


def repaired(limiter: Limiter, key: str, now: float) -> bool:
    """Whether it may be, and then it is."""
    if is_allowed := limiter.allow(key, now):
        limiter.made(key, now)
    return is_allowed


def test_a_burst_is_allowed_and_then_one_waits_for_the_period() -> None:
    """The sixth repair within a minute waits until the first is a minute old."""
    limiter = Limiter(5, 60.0, 5.0)
    assert [repaired(limiter, "a", float(second)) for second in range(6)] == [True] * 5 + [False]
    assert not repaired(limiter, "a", 59.9)
    assert repaired(limiter, "a", 60.0)
    assert not repaired(limiter, "a", 60.5)


def test_objects_are_counted_apart() -> None:
    """One that is fought over does not keep another from being repaired."""
    limiter = Limiter(1, 60.0, 5.0)
    assert repaired(limiter, "a", 0.0)
    assert not repaired(limiter, "a", 1.0)
    assert repaired(limiter, "b", 1.0)


def test_what_is_fought_over_is_named_until_it_has_had_peace() -> None:
    """An object that used up its burst is reported; after a whole period without a repair it is forgotten."""
    limiter = Limiter(2, 60.0, 5.0)
    repaired(limiter, "a", 0.0)
    repaired(limiter, "b", 0.0)
    repaired(limiter, "b", 10.0)
    assert limiter.fought_over(11.0) == ["b"]
    assert limiter.fought_over(60.0) == []
    assert limiter.fought_over(70.0) == []
    assert repaired(limiter, "b", 70.0)
    assert limiter.fought_over(70.0) == []


def test_what_was_refused_is_tried_again_soon() -> None:
    """Once for each time that it was refused; when it is made, nobody had undone it, however often it was tried."""
    limiter = Limiter(2, 60.0, 5.0)
    for second in (0.0, 1.0):
        assert limiter.allow("a", second)
        limiter.refuse("a", second)
    assert not limiter.allow("a", 5.9)
    assert limiter.allow("a", 6.0)
    limiter.refuse("a", 6.0)
    assert limiter.fought_over(6.0) == ["a"]
    assert not limiter.allow("a", 10.9)
    assert repaired(limiter, "a", 11.0)
    assert limiter.fought_over(11.0) == []
    assert repaired(limiter, "a", 12.0)
    assert not limiter.allow("a", 18.0)
    assert limiter.fought_over(18.0) == ["a"]


def test_what_is_not_tried_uses_nothing_up() -> None:
    """As an address whose link could not be made: it comes with the link."""
    limiter = Limiter(2, 60.0, 5.0)
    assert [limiter.allow("a", float(second)) for second in range(5)] == [True] * 5
    assert limiter.fought_over(5.0) == []
