"""Logging: one record is one line, and the lines of a request say what it is about."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netaddr import IPAddress

from agent.process import logs


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    """A record as a logger makes it, at a known time and with what is bound now."""
    made = logging.getLogger("agent.node").makeRecord(
        "agent.node", logging.INFO, __file__, 1, message, args, None, extra=extra
    )
    made.created = 1_767_323_045.678
    logs.Bind().filter(made)
    return made


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What the root logger writes to, and the root logger as it was afterwards."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    for one in handlers:
        root.removeHandler(one)
    yield io.StringIO()
    for one in root.handlers[:]:
        root.removeHandler(one)
    for one in handlers:
        root.addHandler(one)
    root.setLevel(level)


def test_text_reads_like_a_sentence_with_facts() -> None:
    """A text line is time, level, message and the facts as key=value."""
    line = logs.Text().format(record("address given", address=IPAddress("10.1.0.2"), seconds=0.25, free=None))
    assert line == "2026-01-02T03:04:05.678Z info address given address=10.1.0.2 seconds=0.25 free=null"


def test_json_carries_the_same_facts() -> None:
    """A JSON line is one object with the facts beside time, level, logger and message, numbers as numbers."""
    line = logs.Json().format(record("address %s", "given", address=IPAddress("10.1.0.2"), free=3, share=float("nan")))
    assert json.loads(line) == {
        "time": "2026-01-02T03:04:05.678Z",
        "level": "info",
        "logger": "agent.node",
        "message": "address given",
        "address": "10.1.0.2",
        "free": 3,
        "share": "nan",
    }


def test_every_line_of_a_request_says_what_it_is_about(stream: io.StringIO) -> None:
    """What is bound stands in lines of any logger inside the block, inner over outer, and in none after it."""
    logs.install("info", "text", logging.StreamHandler(stream))
    environment = {
        "CNI_COMMAND": b"ADD",
        "CNI_CONTAINERID": b"c1",
        "CNI_IFNAME": b"eth0",
        "CNI_ARGS": b"IgnoreUnknown=1;K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=shop;K8S_POD_UID=u",
    }
    with logs.bound(**logs.request(environment)):
        with logs.bound(attachment="net/c1/eth0"):
            logging.getLogger("ipam.store").info("saved", extra={"ms": 1})
        logging.getLogger("agent.serve.server").warning("answered")
    logging.getLogger("agent.serve.server").info("idle")
    assert [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()] == [
        "info saved verb=ADD container=c1 ifname=eth0 pod=shop/web-0 attachment=net/c1/eth0 ms=1",
        "warning answered verb=ADD container=c1 ifname=eth0 pod=shop/web-0",
        "info idle",
    ]


def test_threads_do_not_mix_their_requests(stream: io.StringIO) -> None:
    """Another thread's lines carry nothing of this one's request until it binds the same."""
    logs.install("info", "text", logging.StreamHandler(stream))

    def work(fields: dict[str, object]) -> None:
        logging.getLogger("x").info("plain")
        with logs.bound(**fields):
            logging.getLogger("x").info("handed over")

    with logs.bound(verb="ADD"):
        thread = threading.Thread(target=work, args=(dict(logs.current()),))
        thread.start()
        thread.join()
    assert [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()] == [
        "info plain",
        "info handed over verb=ADD",
    ]


def test_what_was_bound_is_unbound_after_a_failure() -> None:
    """An exception inside the block leaves nothing bound behind."""
    with pytest.raises(RuntimeError), logs.bound(verb="ADD"):
        raise RuntimeError
    assert logs.current() == {}


@pytest.mark.parametrize(
    ("arguments", "pod"),
    [
        ("", ""),
        ("IgnoreUnknown=1", ""),
        ("K8S_POD_NAME=p", "p"),
        ("K8S_POD_NAMESPACE=n", ""),
        ("K8S_POD_NAME=p;K8S_POD_NAMESPACE=n", "n/p"),
        (";;=;K8S_POD_NAMESPACE=n;K8S_POD_NAME=a=b", "n/a=b"),
    ],
)
def test_finds_the_pod_in_cni_args(arguments: str, pod: str) -> None:
    """The pod's namespace and name are found in CNI_ARGS in any order, and malformed arguments are no failure."""
    assert logs.pod(arguments) == pod


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("a\nlevel=error", '"a\\nlevel=error"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("a\u2028b", '"a\\u2028b"'),
        ("\udcff", '"\\\\udcff"'),
        (True, "true"),
    ],
)
def test_text_quotes_what_could_mislead(value: object, shown: str) -> None:
    """A value with spaces, quotes, control characters or anything beyond ASCII is quoted and escaped."""
    assert logs.Text().format(record("m", v=value)).partition(" v=")[2] == shown


def test_cuts_what_is_long() -> None:
    """A message and a value are cut at 4,096 characters, and the line says how long they were."""
    line = logs.Text().format(record("m" * 5000, v="x" * 6000))
    assert f'{"m" * 4096}... (5000 characters) v="{"x" * 4096}... (6000 characters)"' in line


@pytest.mark.parametrize("message", ["a\nb", "a verb=DEL", '"quoted"', "", "\x1b[2J", "ü"])
def test_text_quotes_a_message_that_could_mislead(message: str) -> None:
    """A message that contains a line, a field or a control sequence is quoted as JSON, and unchanged in it."""
    line = logs.Text().format(record("%s", message))
    assert json.loads(line.split(" ", 2)[2]) == message


anything = st.one_of(st.text(), st.text(st.characters(categories=["Cs", "Cc", "Zl", "Zp"])), st.integers(), st.floats())


@given(anything, st.dictionaries(st.from_regex(r"x_[a-z=\n ]*", fullmatch=True), anything, max_size=4))
def test_one_record_is_one_line_of_ascii(message: object, extra: dict[str, object]) -> None:
    """Whatever message and values are, each formatter writes one printable ASCII line, and JSON can be read again."""
    made = record("%s", message, **extra)
    for formatter in (logs.Text(), logs.Json()):
        line = formatter.format(made)
        assert line.isascii()
        assert line.isprintable()
        assert len(line.splitlines()) == 1
    assert set(json.loads(logs.Json().format(made))) == {"time", "level", "logger", "message", *extra}


@given(st.lists(st.tuples(st.from_regex(r"[a-z]{1,4}", fullmatch=True), st.text(max_size=20)), max_size=3))
def test_fields_of_a_text_line_can_be_read_again(pairs: list[tuple[str, str]]) -> None:
    """The facts of a text line can be told apart again without doubt: no value forges another field."""
    fields = {f"x_{key}": value for key, value in pairs}
    line = logs.Text().format(record("done", **fields))
    found = re.findall(r' (x_\w+)=("(?:[^"\\]|\\.)*"|\S+)', line.partition(" done")[2])
    assert {key: json.loads(text) if text[0] == '"' else text for key, text in found} == fields


def test_a_traceback_stays_on_its_line(stream: io.StringIO) -> None:
    """An exception's traceback is one escaped value of its record, in both forms, and is not cut."""
    for form in ("text", "json"):
        logs.install("info", form, logging.StreamHandler(stream))
        try:
            raise ValueError("x" * 5000)
        except ValueError:
            logging.getLogger("x").exception("a bug")
    text, line = stream.getvalue().splitlines()
    assert ' error a bug traceback="Traceback (most recent call last):\\n' in text
    assert json.loads(line)["traceback"].endswith("x" * 5000)


def test_fields_never_replace_what_a_line_is() -> None:
    """A fact called level or time does not displace the record's own."""
    found = json.loads(logs.Json().format(record("m", level="fake", time="fake")))
    assert (found["level"], found["level_"], found["time_"]) == ("info", "fake", "fake")


def test_lines_below_the_level_are_not_written(stream: io.StringIO) -> None:
    """The configured level is the least that is written."""
    logs.install("warning", "text", logging.StreamHandler(stream))
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud")
    assert stream.getvalue().endswith("Z warning loud\n")
    assert len(stream.getvalue().splitlines()) == 1


PACKAGES = ("agent", "backends", "cluster", "cni", "dataplane", "ipam")
RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def test_no_line_of_the_product_has_a_field_of_a_name_that_logging_keeps_for_itself() -> None:
    """Such a call raises KeyError instead of logging; every ``extra`` is written out, so that all can be looked at."""
    root = Path(__file__).parents[2]
    found, wrong = 0, []
    for file in (file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.keyword) or node.arg != "extra":
                continue
            found += 1
            keys = node.value.keys if isinstance(node.value, ast.Dict) else [None]
            names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
            if not RESERVED.isdisjoint(names) or not all(isinstance(name, str) for name in names):
                wrong.append(f"{file.relative_to(root)}:{node.value.lineno}: {ast.unparse(node.value)}")
    assert wrong == []
    assert found > 30


def test_a_stack_is_whole() -> None:
    """Whoever asks for one wants all of it, on one line."""
    made = record("here")
    made.stack_info = "Stack (most recent call last):\n" + "x" * (logs.VALUE_MAX + 1)
    assert json.loads(logs.Json().format(made))["stack"] == made.stack_info
    assert "\n" not in logs.Text().format(made)
