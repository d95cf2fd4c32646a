"""Whatever nft and iptables say of other programs' rules: it is understood, or a failure says that it was not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPNetwork

from cni.errors import KernelRefused
from dataplane.forward import Chain, Forward
from dataplane.hooks import Hooks
from dataplane.items import NftTable
from dataplane.nft import Nft
from dataplane.program import Done, Program

NETWORKS = [IPNetwork("10.244.1.0/24"), IPNetwork("2001:db8::/64")]
leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
words = st.sampled_from(["drop", "counter", "match", "fib", "left", "flags", "saddr", "iif", "addr", "len", "prefix"])
anything = st.recursive(
    leaves | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
statements = st.one_of(
    anything,
    st.sampled_from([{"drop": None}, {"counter": {}}, "synproxy"]),
    st.fixed_dictionaries({"match": st.fixed_dictionaries({}, optional={"left": anything, "right": anything})}),
)
rules = st.fixed_dictionaries({}, optional={"expr": st.lists(statements, max_size=3) | anything, "handle": anything})
whole = st.fixed_dictionaries(
    {
        "family": st.sampled_from(["ip", "inet", "bridge"]),
        "table": st.sampled_from(["filter", "x"]),
        "name": st.sampled_from(["FORWARD", "c"]),
        "hook": st.sampled_from(["forward", "prerouting"]),
        "type": st.just("filter"),
        "policy": st.sampled_from(["drop", "accept"]),
    }
)
keys = st.sampled_from(["family", "table"])
damaged = st.builds(lambda chain, key, value: {**chain, key: value}, whole, keys, anything)
entries = st.one_of(
    st.fixed_dictionaries({"chain": whole | damaged}), st.fixed_dictionaries({"rule": rules | anything}), anything
)
answers = st.fixed_dictionaries({"nftables": st.lists(entries, max_size=4) | anything}) | anything


def saying(*answers: str) -> Program:
    """A program that says these, one after the other, and the last one for ever."""
    left = list(answers)

    def run(arguments: Sequence[str], text: str) -> Done:
        return Done(0, left.pop(0) if len(left) > 1 else left[0], "")

    return Program("nft", "nftables", run)


@given(st.lists(st.fixed_dictionaries({"chain": whole}), max_size=2), st.lists(answers, min_size=1, max_size=3))
def test_whatever_nft_lists_of_others_ends_nothing(chains: list[object], said: list[object]) -> None:
    """Whoever looks after the host's chains must not end with what stands in them."""
    texts = [json.dumps(one) for one in ({"nftables": chains}, *said)]
    hooks = Hooks(saying(*texts), lambda: None)
    forward = Forward(saying(*texts), {Chain(4, "nft"): saying(""), Chain(6, "nft"): saying("")}, lambda: None)
    for look in (lambda: hooks.look(NETWORKS, is_asymmetric=True), forward.look):
        try:
            look()
        except KernelRefused as failure:
            assert "answer cannot be read" in str(failure)


@given(answers)
def test_whatever_nft_lists_in_place_of_our_table(said: object) -> None:
    """It is read as something else than ours, or told."""
    nft = Nft(lambda arguments, text: Done(0, json.dumps(said), ""))
    try:
        found = nft.read("inet", "routable")
    except KernelRefused as failure:
        assert "answer cannot be read" in str(failure)
    else:
        assert found is None or isinstance(found, NftTable)


def test_a_rule_without_any_expression_passes_everything() -> None:
    """Who speaks to the kernel without nft can make one, and nft lists it without that key."""
    chain = {"family": "inet", "table": "x", "name": "c", "type": "filter", "policy": "accept"}
    rule = {"family": "inet", "table": "x", "chain": "c", "handle": 2}
    for hook in ("forward", "prerouting"):
        said = json.dumps({"nftables": [{"chain": {**chain, "hook": hook}}, {"rule": rule}]})
        assert Hooks(saying(said), lambda: 1).look(NETWORKS, is_asymmetric=True) == []


@pytest.mark.parametrize("words", ["hashlimit --hashlimit-name it's", 'recent --name "'])
def test_a_rule_of_others_that_no_shell_would_take(tmp_path: Path, words: str) -> None:
    """Some of iptables' modules print names as they are: such a rule is not ours, and what is around it is seen."""
    (tmp_path / "ip_tables_names").write_text("filter\n")
    chain = Chain(4, "legacy")
    ours = "-A FORWARD -s 10.1.0.0/24 -i rt+ -m comment --comment routable -j ACCEPT"
    said = f"-P FORWARD DROP\n-A FORWARD -m {words} -j DROP\n{ours}\n"
    seen = Forward(saying('{"nftables": []}'), {chain: saying(said)}, lambda: 1, tmp_path).look()
    assert seen.dropping == {chain}
    assert [str(one) for one in seen.accepts] == [f"accept from pods of 10.1.0.0/24 in {chain}"]


FORWARD = {"family": "inet", "table": "x", "name": "c", "type": "filter", "hook": "forward", "policy": "drop"}
CHAINS, NO_RULES = json.dumps({"nftables": [{"chain": FORWARD}]}), json.dumps({"nftables": []})


def test_a_chain_that_goes_before_its_rules_are_listed_drops_nothing() -> None:
    """The next look sees that it is gone; until then it has no rule."""
    answers = iter([Done(0, CHAINS, ""), Done(1, "", "No such file or directory"), Done(0, NO_RULES, "")])
    hooks = Hooks(Program("nft", "nftables", lambda arguments, text: next(answers)), lambda: 1)
    (found,) = hooks.look(NETWORKS, is_asymmetric=False)
    assert "chain c of table inet x drops" in str(found)


@pytest.mark.parametrize(
    ("right", "is_told"),
    [
        ("rt*", False),
        ({"prefix": {"addr": "10.0.0.0", "len": 8}}, True),
        ({"set": [{"prefix": {"addr": "10.0.0.0", "len": 8}}, {"prefix": {"addr": "2001:db8::", "len": 32}}]}, False),
        ({"prefix": {"addr": "everything", "len": 128}}, True),
    ],
)
def test_a_table_that_speaks_of_the_pods_is_somebodys_intention(right: object, is_told: bool) -> None:
    """By the names of their links, or by the ranges of every family that it sees."""
    rule = {"rule": {"expr": [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": right}}]}}
    hooks = Hooks(saying(CHAINS, NO_RULES, json.dumps({"nftables": [rule]})), lambda: 1)
    assert bool(hooks.look(NETWORKS, is_asymmetric=False)) is is_told


def test_a_table_that_nft_refuses_to_write_is_told() -> None:
    """In its own words."""
    answers = iter([Done(1, "", "Error: No such file or directory"), Done(1, "", "Error: Out of memory")])
    nft = Nft(lambda arguments, text: next(answers))
    with pytest.raises(KernelRefused, match="Out of memory"):
        nft.write(NftTable("inet", "routable", "table inet routable {}"))
