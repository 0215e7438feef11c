import json
from dataclasses import replace

import pytest

from csmae_hf.app.state import MOST_RESULTS, Search, Session

FULL = Search(
    tile="a b&c=d",
    sensor="s1",
    archive_sensor="s2",
    k=7,
    where="country = 'Côte d''Ivoire' and season in ('Fall')",
    like=("x", "y z"),
    unlike=("w",),
    collected=("x", "y z", "old"),
    include_self=True,
)


def test_a_link_holds_the_whole_search():
    assert Search.from_url(FULL.to_url()) == FULL


def test_a_file_holds_the_whole_search_and_the_embed_of_an_upload():
    uploaded = FULL.by_upload("mine.tif", [0.1, -2.5e-8], "s2")
    assert Search.from_json(uploaded.to_json()) == uploaded


@pytest.mark.parametrize("url", ["k=0", "k=many", f"k={MOST_RESULTS + 1}"])
def test_a_broken_link_says_what_is_wrong(url):
    with pytest.raises(ValueError, match="link cannot be read"):
        Search.from_url(url)


@pytest.mark.parametrize(
    "change",
    [
        {"k": "12"},
        {"k": True},
        {"like": "abc"},
        {"tile": 3},
        {"embed": ["x"]},
        {"embed": [float("nan")]},
        {"format": "other"},
        {"version": 2},
        {"stranger": 1},
    ],
)
def test_a_file_of_anything_else_is_refused(change):
    held = {**json.loads(FULL.to_json()), **change}
    with pytest.raises(ValueError, match="no saved search"):
        Search.from_json(json.dumps(held))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000])
def test_what_is_no_json_of_ours_is_refused(text):
    with pytest.raises(ValueError, match="no saved search"):
        Search.from_json(text)


def test_marking_again_takes_the_mark_off_and_the_other_mark_replaces_it():
    search = Search(tile="q").judged("a", "like")
    assert (search.like, search.collected) == (("a",), ("a",))
    assert search.judged("a", "like") == Search(tile="q")
    other = search.judged("a", "unlike")
    assert (other.like, other.unlike, other.collected) == ((), ("a",), ())


def test_another_query_begins_without_marks_but_keeps_what_was_collected():
    search = Search(tile="q").judged("a", "like").judged("b", "unlike").by_tile("p")
    assert (search.like, search.unlike, search.collected) == ((), (), ("a",))


def test_each_step_can_be_undone_back_to_the_first_search():
    first = Search(tile="q", sensor="s1")
    states = [Session(Search(), Search()).searched(first)]
    states.append(states[-1].marked("a", "like"))
    states.append(states[-1].searched(states[-1].current))
    states.append(states[-1].searched(replace(states[-1].current, k=3)))
    session = states[-1]
    for before in reversed(states[:-1]):
        session = session.undone()
        assert (session.current, session.shown) == (before.current, before.shown)
    assert session.undone() == session


def test_marks_wait_for_the_next_search():
    session = Session().searched(Search(tile="q")).marked("a", "like")
    assert session.shown.like == ()
    assert session.searched(session.current).shown.like == ("a",)


def test_the_same_search_again_is_no_step():
    session = Session().searched(Search(tile="q"))
    assert session.searched(Search(tile="q")) is session
