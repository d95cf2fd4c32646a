"""How often one object may be repaired."""

from __future__ import annotations

from agent.limiter import Limiter


def test_a_burst_is_allowed_and_then_one_waits_for_the_period() -> None:
    """The sixth repair within a minute waits until the first is a minute old."""
    limiter = Limiter(5, 60.0, 5.0)
    assert [limiter.allow("a", float(second)) for second in range(6)] == [True] * 5 + [False]
    assert not limiter.allow("a", 59.9)
    assert limiter.allow("a", 60.0)
    assert not limiter.allow("a", 60.5)


def test_objects_are_counted_apart() -> None:
    """One that is fought over does not keep another from being repaired."""
    limiter = Limiter(1, 60.0, 5.0)
    assert limiter.allow("a", 0.0)
    assert not limiter.allow("a", 1.0)
    assert limiter.allow("b", 1.0)


def test_what_is_fought_over_is_named_until_it_has_had_peace() -> None:
    """An object that used up its burst is reported; after a whole period without a repair it is forgotten."""
    limiter = Limiter(2, 60.0, 5.0)
    limiter.allow("a", 0.0)
    limiter.allow("b", 0.0)
    limiter.allow("b", 10.0)
    assert limiter.fought_over(11.0) == ["b"]
    assert limiter.fought_over(60.0) == []
    assert limiter.fought_over(70.0) == []
    assert limiter.allow("b", 70.0)
    assert limiter.fought_over(70.0) == []


def test_what_was_refused_is_tried_again_soon() -> None:
    """Once for each time that it was refused: what is undone by somebody has to wait."""
    limiter = Limiter(2, 60.0, 5.0)
    for second in (0.0, 1.0):
        assert limiter.allow("a", second)
        limiter.refuse("a", second)
    assert not limiter.allow("a", 5.9)
    assert limiter.allow("a", 6.0)
    limiter.refuse("a", 6.0)
    assert not limiter.allow("a", 10.9)
    assert limiter.allow("a", 11.0)
    assert not limiter.allow("a", 17.0)
    assert limiter.fought_over(17.0) == ["a"]


def test_what_was_made_after_it_was_refused_was_not_fought_over() -> None:
    """Nobody undid it, however often it was tried."""
    limiter = Limiter(2, 60.0, 5.0)
    for second in (0.0, 1.0):
        assert limiter.allow("a", second)
        limiter.refuse("a", second)
    assert limiter.allow("a", 6.0)
    limiter.made("a")
    assert limiter.fought_over(6.0) == []
    assert limiter.allow("a", 7.0)
    limiter.made("a")
    assert limiter.allow("a", 8.0)
    limiter.made("a")
    assert limiter.fought_over(8.0) == ["a"]
