"""What ``make coverage`` prints, and the document that says what it need not print."""

from __future__ import annotations

from tests.unexecuted import NAMED, ROOT, Place, named, of_c, places, texts

SOURCE = """
try:
    two()
except OSError:
    # not on this day
    three()
    two()
"""


def test_lines_that_follow_each_other_are_one_place() -> None:
    """Whatever is between them that is no code; its text is that of the first of them."""
    assert list(places("a.py", SOURCE, [4, 6, 7], [2, 3])) == [Place("a.py", 4, 7, "except OSError:")]
    assert [one.text for one in places("a.py", SOURCE, [2, 4], [3, 6, 7])] == ["try:", "except OSError:"]
    assert [*map(str, places("a.py", SOURCE, [6], [7]))] == ["a.py:6: three()"]


def test_a_line_that_is_there_twice_is_known_with_the_one_before_it() -> None:
    """Else a reason for one would hide the other."""
    assert [one.text for one in places("a.py", SOURCE, [3, 7], [2, 6])] == ["try: two()", "three() two()"]


def test_a_line_of_c_that_one_build_executed_is_executed() -> None:
    """Each process that compiles has counts of its own."""
    head = "        -:    0:Source:relay.c\n        -:   17:text\n"
    once = head + "        3:   50:one\n    #####:   51:two\n    #####:   52:three\n"
    again = head + "    #####:   50:one\n       1*:   51:two\n    #####:   52:three\n"
    (place,) = of_c("cni/relay.c", [once, again])
    assert (place.first, place.last) == (52, 52)


def test_what_is_named_is_there() -> None:
    """The document names files and lines as they are now, each with a reason."""
    document = NAMED.read_text("utf-8")
    rows = [line for line in document.splitlines() if line.startswith("| `")]
    known = named(document)
    assert len(known) == len(rows)
    assert [row for row in rows if len(row.rstrip(" |").rpartition("|")[2].strip()) < 20] == []
    for file, text in known:
        assert text in texts((ROOT / file).read_text("utf-8")), f"{file} has no line {text}: correct docs/coverage.md"
