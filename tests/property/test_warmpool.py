"""The warm pool's policy: pods first, few calls, nothing in use is touched, and never to and fro."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ipam import warmpool
from ipam.warmpool import PREFIX_SIZE, Assign, Chunk, Create, Delete, Pool, Pooled, Targets, Unassign

DELAY = 60.0


@st.composite
def chunks(draw: st.DrawFn, name: str) -> Chunk:
    size = draw(st.sampled_from([1, PREFIX_SIZE]))
    used = draw(st.integers(0, size))
    cooling = draw(st.integers(0, size - used))
    is_empty = not used and not cooling
    return Chunk(name, size, used, cooling, draw(st.sampled_from([0.0, DELAY - 1, DELAY, 5000.0])) if is_empty else 0.0)


@st.composite
def interfaces(draw: st.DrawFn, name: str) -> Pooled:
    slots = draw(st.integers(1, 8))
    count = draw(st.integers(0, slots))
    return Pooled(name, slots, tuple(draw(chunks(f"{name}/{one}")) for one in range(count)), name == "eni-0")


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    count = draw(st.integers(1, 4))
    return Pool(
        tuple(draw(interfaces(f"eni-{one}")) for one in range(count)),
        waiting=draw(st.sampled_from([0, 0, 1, 5, 40, 300])),
        coming=draw(st.sampled_from([0, 0, 1, 16])),
        slots_of_new=draw(st.integers(1, 8)),
        interfaces_left=draw(st.integers(0, 3)),
        has_prefixes=draw(st.booleans()),
    )


TARGETS = st.builds(
    Targets,
    is_prefix_mode=st.booleans(),
    warm_addresses=st.none() | st.integers(0, 40),
    minimum_addresses=st.none() | st.integers(0, 60),
    warm_prefixes=st.integers(0, 3),
    warm_interfaces=st.integers(0, 1),
    delay=st.just(DELAY),
    largest_size=st.sampled_from([0, 0, 4 * PREFIX_SIZE]),
)


FULL_OF_SINGLES = Pooled("eni-0", 7, tuple(Chunk(f"{n}", 1, cooling=n > 1) for n in range(6)), is_fixed=True)


def done(pool: Pool, actions: list[warmpool.Action]) -> Pool:
    """The pool once the actions have been done: the model of a cloud that refuses nothing."""
    found = {one.name: one for one in pool.interfaces}
    left = pool.interfaces_left
    for number, action in enumerate(actions):
        if isinstance(action, Assign):
            one = found[action.interface]
            more = tuple(Chunk(f"new-{number}-{index}", action.size) for index in range(action.chunks))
            found[one.name] = replace(one, chunks=one.chunks + more)
        elif isinstance(action, Create):
            more = tuple(Chunk(f"new-{number}-{index}", action.size) for index in range(action.chunks))
            found[f"new-{number}"] = Pooled(f"new-{number}", pool.slots_of_new, more)
            left -= 1
        elif isinstance(action, Unassign):
            one = found[action.interface]
            kept = tuple(chunk for chunk in one.chunks if chunk.name not in action.chunks)
            found[one.name] = replace(one, chunks=kept)
        else:
            del found[action.interface]
            left += 1
    return replace(pool, interfaces=tuple(found.values()), interfaces_left=left)


@example(Pool((FULL_OF_SINGLES, Pooled("eni-1", 1)), slots_of_new=1), Targets(warm_prefixes=3, delay=DELAY))
@example(
    Pool((Pooled("eni-0", 1, (Chunk("a", 1),), is_fixed=True),), slots_of_new=1),
    Targets(warm_prefixes=0, warm_interfaces=1, delay=DELAY),
)
@settings(max_examples=600)
@given(pool=pools(), targets=TARGETS)
def test_it_comes_to_rest(pool: Pool, targets: Targets) -> None:
    """Growing and shrinking never take turns without end: who has grown grows again only so that an interface can go
    in the turn after, or in the stead of what has gone in the turn before, since there are prefixes again. At rest no
    interface is left whose warm addresses the others have room for."""
    for _ in range(2):
        turns: list[set[type]] = []
        while (found := warmpool.actions(pool, targets)) and len(turns) < 3 * len(pool.interfaces) + 4:
            turns.append({type(action) for action in found})
            pool = done(pool, found)
        assert found == []
        for before, turn, after in zip(turns, turns[1:], [*turns[2:], set()], strict=False):
            assert not turn & {Assign, Create} or before & {Unassign, Delete} or Delete in after
        pool = later(pool)
    if not pool.waiting and not pool.coming and (pool.has_prefixes or not targets.is_prefix_mode):
        assert not any(is_dispensable(one, pool, targets) for one in pool.interfaces)


def later(pool: Pool) -> Pool:
    """The pool when the delay has passed."""
    return replace(
        pool,
        interfaces=tuple(
            replace(one, chunks=tuple(replace(chunk, idle=5000.0 * chunk.is_empty) for chunk in one.chunks))
            for one in pool.interfaces
        ),
    )


def is_dispensable(interface: Pooled, pool: Pool, targets: Targets) -> bool:
    """Whether the others could hold all that this one does, and none of it is used."""
    is_idle = all(chunk.is_empty and chunk.idle >= targets.delay for chunk in interface.chunks)
    rest = [one for one in pool.interfaces if one is not interface]
    size = PREFIX_SIZE if targets.is_prefix_mode else 1
    room = sum(one.room for one in rest if one.used or one.is_fixed) * size
    return is_idle and not interface.is_fixed and sum(chunk.size for chunk in interface.chunks) <= room


@settings(max_examples=600)
@given(pool=pools(), targets=TARGETS)
def test_limits_hold_and_nothing_in_use_is_touched(pool: Pool, targets: Targets) -> None:
    """Slots and interfaces; what is used or cools down, or has not been idle for long, stays; so does the first one."""
    actions = warmpool.actions(pool, targets)
    after = done(pool, actions)
    assert after.interfaces_left >= 0
    assert all(interface.room >= 0 for interface in after.interfaces)
    kept = {chunk.name for chunk in after.chunks}
    gone = [chunk for chunk in pool.chunks if chunk.name not in kept]
    assert all(chunk.is_empty and chunk.idle >= targets.delay for chunk in gone)
    assert any(interface.is_fixed for interface in after.interfaces)


@settings(max_examples=600)
@given(pool=pools(), targets=TARGETS)
def test_pods_that_wait_come_first_in_few_calls(pool: Pool, targets: Targets) -> None:
    """They get addresses as far as there is room anywhere; nothing is given back meanwhile; one call per interface."""
    actions = warmpool.actions(pool, targets)
    after = done(pool, actions)
    growing = [action for action in actions if isinstance(action, Assign | Create)]
    kept = {chunk.name for chunk in after.chunks}
    if growing:
        assert all(chunk.name in kept for chunk in pool.chunks)
    assert len(growing) <= len(pool.interfaces) + pool.interfaces_left
    assert len({action.interface for action in actions if isinstance(action, Assign)}) == sum(
        isinstance(action, Assign) for action in actions
    )
    if pool.waiting:
        assert not any(isinstance(action, Unassign | Delete) for action in actions)
        is_full = all(not interface.room for interface in after.interfaces) and not after.interfaces_left
        assert is_full or after.free + pool.coming >= pool.waiting


@settings(max_examples=300)
@given(pool=pools(), targets=TARGETS)
def test_what_is_given_back_is_not_missed(pool: Pool, targets: Targets) -> None:
    """Fewer addresses than wanted are never left by it: the minimum holds, and the warm ones."""
    actions = warmpool.actions(pool, targets)
    if any(isinstance(action, Unassign | Delete) for action in actions):
        after = done(pool, actions)
        assert after.free >= (targets.warm_addresses or 0)
        assert after.used + after.free >= (targets.minimum_addresses or 0)


FIRST = Pooled("eni-0", 5, (Chunk("a", 16, used=3),), is_fixed=True)


def test_prefixes_have_the_size_that_is_wanted() -> None:
    """Clouds differ in it; what is smaller stood in for one, and goes when there are some."""
    nic = Pooled("nic0", 150, (Chunk("a", 16, idle=61),), is_fixed=True)
    targets = Targets(warm_prefixes=2, prefix_size=64)
    assert warmpool.actions(Pool((nic,)), targets) == [Assign("nic0", 2, 64)]
    full = replace(nic, chunks=(*nic.chunks, Chunk("b", 64), Chunk("c", 64)))
    assert warmpool.actions(Pool((full,)), targets) == [Unassign("nic0", ("a",))]


def test_chunks_grow_where_it_is_slots_that_run_out() -> None:
    """As long as those that are left can double what there is, they stay small; never larger than is wanted."""
    targets = Targets(warm_prefixes=1, largest_size=64)
    used = tuple(Chunk(str(number), 16, used=16) for number in range(8))
    roomy, tight, full = (Pool((Pooled("nic0", slots, used, is_fixed=True),)) for slots in (150, 12, 9))
    assert warmpool.actions(roomy, targets) == [Assign("nic0", 1, 16)]
    assert warmpool.actions(tight, targets) == [Assign("nic0", 1, 64)]
    assert warmpool.actions(full, targets) == [Assign("nic0", 1, 64)]
    assert warmpool.capacity(10, Targets()) == 160
    assert warmpool.capacity(10, targets) == 16 * 5 + 32 + 4 * 64
    assert warmpool.capacity(10, replace(targets, largest_size=256)) > 600


def test_a_burst_is_one_call() -> None:
    """Forty pods: three prefixes in one call, and one more that is warm."""
    pool = Pool((FIRST,), waiting=40, slots_of_new=5, interfaces_left=2)
    assert warmpool.actions(pool, Targets(warm_prefixes=1)) == [Assign("eni-0", 3, 16)]
    assert warmpool.actions(pool, Targets(warm_prefixes=2)) == [Assign("eni-0", 4, 16)]


def test_more_than_one_interface_can_hold() -> None:
    """The room of what is there first; then interfaces that have their share from the start."""
    pool = Pool((FIRST,), waiting=200, slots_of_new=5, interfaces_left=3)
    answer = warmpool.actions(pool, Targets(warm_prefixes=0))
    assert answer == [Assign("eni-0", 4, 16), Create(5, 16), Create(3, 16)]


def test_without_prefixes_single_addresses_for_now() -> None:
    """And prefixes again as soon as these can be had: nothing is remembered."""
    pool = Pool((FIRST,), waiting=15, has_prefixes=False)
    assert warmpool.actions(pool, Targets(warm_prefixes=0)) == [Assign("eni-0", 2, 1)]
    again = replace(pool, has_prefixes=True)
    assert warmpool.actions(again, Targets(warm_prefixes=0)) == [Assign("eni-0", 1, 16)]


def test_what_is_under_way_is_not_asked_for_again() -> None:
    """A slow call is followed by no second one."""
    pool = Pool((FIRST,), waiting=20, coming=16)
    assert warmpool.actions(pool, Targets(warm_prefixes=0)) == []


def test_idle_chunks_go_and_with_the_last_the_interface() -> None:
    """The least used interface first, after the delay; a warm prefix stays."""
    idle = Chunk("i", 16, idle=61)
    second = Pooled("eni-1", 5, (replace(idle, name="x"), replace(idle, name="y")))
    third = Pooled("eni-2", 5, (replace(idle, name="z"), Chunk("u", 16, used=1)))
    pool = Pool((FIRST, second, third), slots_of_new=5, interfaces_left=1)
    assert warmpool.actions(pool, Targets(warm_prefixes=1)) == [Delete("eni-1")]
    assert warmpool.actions(pool, Targets(warm_prefixes=0)) == [Delete("eni-1"), Unassign("eni-2", ("z",))]
    assert warmpool.actions(pool, Targets(warm_prefixes=1, delay=62)) == []


def test_no_interface_stays_for_warm_addresses_that_others_have_room_for() -> None:
    """Found in the demo: what the first one had idled longer and went, and the second was kept for one warm address."""
    first = Pooled("eni-0", 5, is_fixed=True)
    second = Pooled("eni-1", 5, (Chunk("x", 1, idle=61),))
    pool = Pool((first, second), slots_of_new=5, interfaces_left=1)
    targets = Targets(is_prefix_mode=False, warm_addresses=1)
    assert warmpool.actions(pool, targets) == [Assign("eni-0", 1, 1)]
    moved = replace(pool, interfaces=(replace(first, chunks=(Chunk("y", 1),)), second))
    assert warmpool.actions(moved, targets) == [Delete("eni-1")]
    assert warmpool.actions(replace(pool, waiting=1), targets) == [Assign("eni-0", 1, 1)]  # a pod comes first
    assert warmpool.actions(replace(pool, interfaces=(replace(first, slots=0), second)), targets) == []


def test_minimum_and_warm_addresses() -> None:
    """As MINIMUM_IP_TARGET and WARM_IP_TARGET: they stand in for warm prefixes."""
    pool = Pool((Pooled("eni-0", 14, tuple(Chunk(f"{one}", 1, used=1) for one in range(4)), is_fixed=True),))
    targets = Targets(is_prefix_mode=False, warm_addresses=2, minimum_addresses=10)
    assert warmpool.actions(pool, targets) == [Assign("eni-0", 6, 1)]
    assert warmpool.actions(pool, replace(targets, minimum_addresses=None)) == [Assign("eni-0", 2, 1)]


def test_why_no_more_can_be_had_is_told_in_numbers() -> None:
    """Which limit it is, for the error that a pod gets."""
    full = replace(FIRST, slots=1)
    text = warmpool.shortfall(Pool((full,), waiting=20, interfaces_left=0), 3, 3)
    assert text == "3 of 16 addresses in use, 1 of 1 slots taken, 3 of 3 interfaces attached"


def test_a_negative_target_is_refused() -> None:
    """By name."""
    with pytest.raises(ValueError, match="warm_prefixes is -1"):
        Targets(warm_prefixes=-1)
