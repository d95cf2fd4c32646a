"""The laws of plans and their differences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataplane.diff import apply, diff, invert, render
from dataplane.items import HOST, Addr, Item, Key, Neigh, Nexthop, NftTable, Route, Sysctl, plan
from dataplane.links import Veth

PLACES = st.sampled_from([HOST, "/run/netns/a", "/run/netns/b"])
LINKS = st.sampled_from(["rt1", "rt2", "eth0"])
MACS = st.sampled_from(["0a:58:00:00:00:01", "0a:58:00:00:00:02"])
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1"])
ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(Veth, LINKS, st.text(max_size=3), st.integers(1280, 1500), MACS, st.booleans()),
    st.builds(Addr, PLACES, LINKS, ADDRESSES.map("{}/32".format)),
    st.builds(Neigh, PLACES, LINKS, ADDRESSES, MACS),
    st.builds(Nexthop, st.integers(1, 3), ADDRESSES, LINKS, st.booleans()),
    st.builds(Route, PLACES, ADDRESSES.map("{}/32".format), LINKS, st.just(""), st.integers(0, 2)),
    st.builds(Sysctl, PLACES, st.sampled_from(["net/ipv4/ip_forward", "net/ipv4/conf/rt1/x"]), st.sampled_from("01")),
    st.builds(NftTable, st.just("inet"), st.just("routable"), st.text(max_size=3)),
)
PLANS: st.SearchStrategy[dict[Key, Item]] = st.lists(ITEMS, max_size=12).map(lambda items: plan(*items))


@given(PLANS, PLANS)
def test_applying_the_difference_gives_what_is_wanted(have: dict[Key, Item], want: dict[Key, Item]) -> None:
    """Whatever the two are."""
    assert apply(have, diff(have, want)) == want


@given(PLANS)
def test_nothing_differs_from_itself(have: dict[Key, Item]) -> None:
    """So a pass over what is as it should be does nothing."""
    assert diff(have, have) == []
    assert render(diff(have, have)) == ""


@given(PLANS, PLANS, st.integers(0, 30))
def test_undoing_any_prefix_gives_back_what_was(have: dict[Key, Item], want: dict[Key, Item], count: int) -> None:
    """A failure at any change can be undone."""
    changes = diff(have, want)[:count]
    assert apply(apply(have, changes), invert(changes)) == have


@given(PLANS, PLANS)
def test_the_order_makes_before_it_breaks(have: dict[Key, Item], want: dict[Key, Item]) -> None:
    """What appears or changes comes first and by rising rank, a link before what hangs on it; then removals, the
    other way round."""
    changes = diff(have, want)
    appearing = [change.item.rank for change in changes if change.new is not None]
    vanishing = [change.item.rank for change in changes if change.new is None]
    assert [change.new is None for change in changes] == [False] * len(appearing) + [True] * len(vanishing)
    assert appearing == sorted(appearing)
    assert vanishing == sorted(vanishing, reverse=True)


@given(PLANS, PLANS)
def test_every_difference_is_told_in_words(have: dict[Key, Item], want: dict[Key, Item]) -> None:
    """One line per object that is there and should not be, or the other way round."""
    lines = [change for change in diff(have, want) for one in change if one is not None]
    text = render(diff(have, want))
    assert sum(line.startswith(("+ ", "- ")) for line in text.split("\n")) >= len(lines)
