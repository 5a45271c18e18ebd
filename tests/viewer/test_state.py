"""The address bar: what goes in comes out, and nothing that comes in breaks anything."""

from hypothesis import given
from hypothesis import strategies as st

from thermodl.record.format import NAME, is_run_name
from thermodl.viewer.state import AXES, LANGUAGES, ViewState

names = st.from_regex(NAME, fullmatch=True)
runs = names.filter(is_run_name) | st.text(min_size=1, max_size=40).filter(is_run_name)
groups = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=128)
states = st.builds(
    ViewState,
    run=st.just("") | runs,
    other=st.just("") | runs,
    axis=st.sampled_from(AXES),
    group=groups,
    results=st.just("") | names,
    lang=st.sampled_from(LANGUAGES),
)


@given(states)
def test_a_link_shows_another_reader_the_same_view(state):
    assert ViewState.from_query(state.to_query()) == state


anything = st.none() | st.integers() | st.text() | st.lists(st.text())
keys = st.sampled_from(["run", "other", "axis", "group", "results", "lang", "v"]) | st.text()


@given(st.dictionaries(keys, anything), st.text())
def test_a_bad_link_gives_a_valid_view(query, lang):
    state = ViewState.from_query(query, lang)
    assert state.axis in AXES
    assert state.lang in LANGUAGES
    assert all(not name or is_run_name(name) for name in (state.run, state.other))
    assert not state.results or NAME.fullmatch(state.results)
    assert ViewState.from_query(state.to_query()) == state


def test_a_link_of_another_version_gives_the_defaults():
    assert ViewState.from_query({"v": "2", "run": "good", "lang": "zh"}) == ViewState()
