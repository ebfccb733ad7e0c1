"""Several writers of one session: merged where it may be, refused where asked, never lost."""

from collections import Counter
from functools import partial
from typing import Any

import pytest
from strands.types.session import Session, SessionAgent

from strands_persql import AlreadyExistsError, ConflictError, PerSQLSessionRepository
from strands_persql.testing import Redact, ScriptedModel, ToolCall
from tests.support.backends import Backend
from tests.support.conversation import (
    count,
    ids_in_database,
    in_database,
    listed,
    said,
    session,
    session_agent,
    session_message,
    state_in_database,
    stored,
    user,
)
from tests.support.racing import race


def read(repository: Any, agent_id: str = "a") -> Any:
    """Open the session and read the agent."""
    repository.read_session("s")
    return repository.read_agent("s", agent_id)


@pytest.mark.guarantee(number=6)
def test_changes_of_two_writers_are_both_kept(backend: Backend) -> None:
    """Keys that one side changed keep its change; what the merge brought in is on the object."""
    stored(backend, same=0, ours=0, theirs=0, deep={"ours": 0, "theirs": 0})
    one, two = backend.repository(), backend.repository()
    ours, theirs = read(one), read(two)
    theirs.state.update(theirs=1, new=1)
    theirs.state["deep"]["theirs"] = 1
    two.update_agent("s", theirs)
    ours.state.update(ours=1)
    ours.state["deep"]["ours"] = 1
    one.update_agent("s", ours)
    expected = {"same": 0, "ours": 1, "theirs": 1, "new": 1, "deep": {"ours": 1, "theirs": 1}}
    assert state_in_database(backend) == expected
    assert ours.state == expected


@pytest.mark.guarantee(number=6)
def test_deletions_of_two_writers_are_both_kept(backend: Backend) -> None:
    """A key that one side deleted stays deleted, if the other left it alone."""
    stored(backend, a=1, b=2, c=3)
    one, two = backend.repository(), backend.repository()
    ours, theirs = read(one), read(two)
    del theirs.state["a"]
    two.update_agent("s", theirs)
    del ours.state["b"]
    one.update_agent("s", ours)
    assert state_in_database(backend) == {"c": 3}
    assert ours.state == {"c": 3}


@pytest.mark.guarantee(number=6)
def test_where_both_changed_one_key_ours_stands(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """The later writer's value stands, lists whole, and the log names the keys."""
    stored(backend, deep={"items": [1]}, agreed=0)
    one, two = backend.repository(), backend.repository()
    ours, theirs = read(one), read(two)
    theirs.state.update(deep={"items": [1, 2]}, agreed=1)
    two.update_agent("s", theirs)
    ours.state.update(deep={"items": [1, 3]}, agreed=1)
    one.update_agent("s", ours)
    assert state_in_database(backend) == {"deep": {"items": [1, 3]}, "agreed": 1}
    assert "deep.items" in caplog.text
    assert "agreed" not in caplog.text


@pytest.mark.guarantee(number=5)
def test_a_merge_costs_one_more_round_trip(backend: Backend) -> None:
    """A lost race costs one round trip more: the found row comes back with the refusal."""
    stored(backend, n=0)
    one, two = backend.repository(), backend.repository()
    ours, theirs = read(one), read(two)
    two.update_agent("s", theirs)
    ours.state["n"] = 1
    backend.database.reset()
    one.update_agent("s", ours)
    assert backend.database.round_trips == 2
    assert one.stats().conflicts == 1


@pytest.mark.guarantee(number=5)
def test_versions_grow_by_one_for_each_applied_write(backend: Backend) -> None:
    """Merged writes leave no gap in the versions."""
    stored(backend)
    repositories = [backend.repository() for _ in range(3)]
    agents = [read(repository) for repository in repositories]
    for number in range(4):
        for index, (repository, agent) in enumerate(zip(repositories, agents, strict=True)):
            agent.state[f"k{index}"] = number
            repository.update_agent("s", agent)
    assert backend.raw("SELECT version FROM strands_agents") == [{"version": 13}]
    assert state_in_database(backend) == {"k0": 3, "k1": 3, "k2": 3}


@pytest.mark.guarantee(number=5)
def test_two_objects_of_one_repository_are_two_writers(backend: Backend) -> None:
    """Agents read twice through one repository keep each its own base, whatever the cache has."""
    repository = stored(backend, a=0, b=0)
    repository.read_session("s")
    one, two = repository.read_agent("s", "a"), repository.read_agent("s", "a")
    assert one is not None
    assert two is not None
    one.state["a"] = 1
    repository.update_agent("s", one)
    two.state["b"] = 1
    repository.update_agent("s", two)
    assert state_in_database(backend) == {"a": 1, "b": 1}


def test_a_merged_key_is_not_deleted_by_who_never_saw_it(backend: Backend) -> None:
    """A writer that makes its records anew deletes no key that a merge brought in."""
    repository = stored(backend, mine=0)
    other = backend.repository()
    theirs = read(other)
    theirs.state["theirs"] = 1
    other.update_agent("s", theirs)
    for number in range(1, 4):
        repository.update_agent("s", session_agent(mine=number))
    assert state_in_database(backend) == {"mine": 3, "theirs": 1}


@pytest.mark.guarantee(number=7)
def test_a_stale_update_is_refused_where_asked(backend: Backend) -> None:
    """With ``on_conflict="raise"`` the second writer gets both sides and nothing is stored."""
    stored(backend, n=0)
    strict, other = backend.repository(on_conflict="raise"), backend.repository()
    ours, theirs = read(strict), read(other)
    theirs.state["n"] = 1
    other.update_agent("s", theirs)
    ours.state["n"] = 2
    with pytest.raises(ConflictError) as caught:
        strict.update_agent("s", ours)
    error = caught.value
    assert (error.session_id, error.agent_id) == ("s", "a")
    assert (error.expected_version, error.found_version) == (1, 2)
    assert (error.ours["state"], error.found["state"]) == ({"n": 2}, {"n": 1})
    assert state_in_database(backend) == {"n": 1}


def test_a_conflict_can_be_resolved_by_reading_again(backend: Backend) -> None:
    """After a conflict, a new read and update work."""
    stored(backend, n=0)
    strict, other = backend.repository(on_conflict="raise"), backend.repository()
    ours, theirs = read(strict), read(other)
    other.update_agent("s", theirs)
    with pytest.raises(ConflictError):
        strict.update_agent("s", ours)
    ours = read(strict)
    ours.state["n"] = 5
    strict.update_agent("s", ours)
    assert state_in_database(backend) == {"n": 5}


def test_a_stale_message_update_is_refused_where_asked(backend: Backend) -> None:
    """With ``on_conflict="raise"`` a message that another writer changed raises with both sides."""
    stored(backend, "zero")
    strict, other = backend.repository(on_conflict="raise"), backend.repository()
    ours, theirs = strict.read_message("s", "a", 0), other.read_message("s", "a", 0)
    assert ours is not None
    assert theirs is not None
    theirs.message = user("theirs")
    other.update_message("s", "a", theirs)
    ours.message = user("ours")
    with pytest.raises(ConflictError) as caught:
        strict.update_message("s", "a", ours)
    assert (caught.value.expected_version, caught.value.found_version) == (1, 2)
    assert caught.value.ours is not None
    assert in_database(backend) == ["theirs"]


@pytest.mark.guarantee(number=8)
def test_a_redaction_wins_over_a_later_stale_update(backend: Backend) -> None:
    """Who updates a message without having seen its redaction doesn't bring the text back."""
    stored(backend, "secret")
    one, two = backend.repository(), backend.repository()
    redacting, stale = one.read_message("s", "a", 0), two.read_message("s", "a", 0)
    assert redacting is not None
    assert stale is not None
    redacting.redact_message = user("[gone]")
    one.update_message("s", "a", redacting)
    stale.message = user("secret, more of it")
    two.update_message("s", "a", stale)
    assert in_database(backend) == ["[gone]"]
    assert said([stale.to_message()]) == ["[gone]"]


@pytest.mark.guarantee(number=8)
def test_a_redaction_wins_over_an_earlier_update(backend: Backend) -> None:
    """A redaction by a stale writer is applied to what another has made of the message."""
    stored(backend, "secret")
    one, two = backend.repository(), backend.repository()
    redacting, other = one.read_message("s", "a", 0), two.read_message("s", "a", 0)
    assert redacting is not None
    assert other is not None
    other.message = user("secret, more of it")
    two.update_message("s", "a", other)
    redacting.redact_message = user("[gone]")
    one.update_message("s", "a", redacting)
    assert in_database(backend) == ["[gone]"]


def test_a_redaction_wins_over_an_update_made_anew(backend: Backend) -> None:
    """A record made from scratch, by who has the text still cached, doesn't undo a redaction."""
    stored(backend, "secret")
    one, two = backend.repository(), backend.repository()
    two.read_session("s")
    redacting = one.read_message("s", "a", 0)
    assert redacting is not None
    redacting.redact_message = user("[gone]")
    one.update_message("s", "a", redacting)
    two.update_message("s", "a", session_message("secret", 0))
    assert in_database(backend) == ["[gone]"]


@pytest.mark.guarantee(number=2)
def test_messages_of_two_writers_are_all_kept(backend: Backend) -> None:
    """Writers that count alone get each a free id, in their order, and learn it."""
    stored(backend)
    one, two = backend.repository(), backend.repository()
    for index in range(5):
        for name, repository in (("one", one), ("two", two)):
            repository.create_message("s", "a", session_message(f"{name} {index}", index))
    texts = in_database(backend)
    assert ids_in_database(backend) == list(range(10))
    for name in ("one", "two"):
        mine = [text for text in texts if text.startswith(name)]
        assert mine == [f"{name} {index}" for index in range(5)]


@pytest.mark.guarantee(number=3)
def test_a_warm_agent_goes_on_with_anothers_turn(backend: Backend) -> None:
    """What another writer said meanwhile is given to the model, and stands in memory."""
    warm, other = backend.agent(["w1", "w2"]), None
    warm("q1")
    other = backend.agent(["o1"])
    other("q2")
    warm("q3")
    assert isinstance(warm.model, ScriptedModel)
    assert said(warm.model.calls[-1]) == ["q1", "w1", "q2", "o1", "q3"]
    assert said(warm.messages) == ["q1", "w1", "q2", "o1", "q3", "w2"]
    assert in_database(backend) == said(warm.messages)


@pytest.mark.guarantee(number=3)
@pytest.mark.parametrize("commit", ["message", "turn"])
def test_writers_that_take_turns_agree(backend: Backend, commit: str) -> None:
    """Warm agents that take turns have all turns once, in order, in the database and memory."""
    agents = [
        backend.agent([f"{name}{n}" for n in range(4)], manager=backend.manager(commit=commit))
        for name in "xyz"
    ]
    expected = []
    for turn in range(4):
        for name, agent in zip("xyz", agents, strict=True):
            agent(f"{name}? {turn}")
            expected += [f"{name}? {turn}", f"{name}{turn}"]
    assert in_database(backend) == expected
    assert said(agents[-1].messages)[-2:] == expected[-2:]
    for agent in agents:
        seen = said(agent.messages)
        assert len(seen) == len(set(seen))
        assert seen == expected[: len(seen)] or commit == "turn"


def test_the_agents_of_one_repository_take_turns(backend: Backend) -> None:
    """The same holds for two managers that share a repository and its cache."""
    repository = backend.repository()
    one = backend.agent(["a1", "a2"], manager=backend.manager(repository=repository))
    two = backend.agent(["b1", "b2"], manager=backend.manager(repository=repository))
    for turn in (1, 2):
        one(f"qa{turn}")
        two(f"qb{turn}")
    expected = ["qa1", "a1", "qb1", "b1", "qa2", "a2", "qb2", "b2"]
    assert in_database(backend) == expected
    assert said(two.messages) == expected
    repository.read_session("s")
    assert listed(repository) == expected


@pytest.mark.guarantee(number=6)
@pytest.mark.parametrize("commit", ["message", "turn"])
def test_states_of_two_agents_are_merged(backend: Backend, commit: str) -> None:
    """Keys that two warm agents set are both stored, and each learns the other's in its turn."""
    one = backend.agent(["1", "2"], manager=backend.manager(commit=commit))
    two = backend.agent(["1", "2"], manager=backend.manager(commit=commit))
    one.state.set("one", 1)
    one("q")
    two.state.set("two", 2)
    two("q")
    assert state_in_database(backend) == {"one": 1, "two": 2}
    assert two.state.get() == {"one": 1, "two": 2}
    one.state.set("more", 3)
    one("q")
    assert one.state.get() == state_in_database(backend) == {"one": 1, "two": 2, "more": 3}


def test_what_is_brought_in_spares_what_isnt_stored_yet(backend: Backend) -> None:
    """An append that learns of another's state drops no change that the agent hasn't synced."""
    manager = backend.manager()
    agent = backend.agent(manager=manager)
    agent.state.set("old", 0)
    manager.sync_agent(agent)
    other = backend.agent(["hi"])
    other.state.set("theirs", 2)
    other("q")
    agent.state.set("mine", 1)
    agent.state.delete("old")
    manager.append_message(user("x"), agent)
    manager.sync_agent(agent)
    assert agent.state.get() == {"mine": 1, "theirs": 2}
    assert state_in_database(backend) == {"mine": 1, "theirs": 2}


@pytest.mark.guarantee(number=3)
@pytest.mark.parametrize("commit", ["message", "turn"])
def test_two_turns_at_once_are_kept_whole(backend: Backend, commit: str) -> None:
    """Turns that run within each other stand one behind the other, each in one block."""
    inner = backend.agent(
        [ToolCall("count"), "inner done"], manager=backend.manager(commit=commit), tools=[count]
    )

    def replies(_: Any) -> Any:
        step = len(outer_model.calls)
        if step == 1:
            return ToolCall("count")
        if step == 2:
            inner("inner?")
            return "outer done"
        return "later"

    outer_model = ScriptedModel(replies)
    outer = backend.agent(manager=backend.manager(commit=commit), tools=[count])
    outer.model = outer_model
    outer("outer?")
    blocks = [
        ["inner?", "call count", "result", "inner done"],
        ["outer?", "call count", "result", "outer done"],
    ]
    texts = [text.split(" 1")[0].split(" 2")[0].strip() for text in in_database(backend)]
    assert [texts[:4], texts[4:]] == blocks
    ids = ids_in_database(backend)
    assert ids == list(range(ids[0], ids[0] + 8))
    outer("again?")
    heard = said(outer.messages)
    assert sorted(heard) == sorted(in_database(backend))
    assert len(heard) == 10


@pytest.mark.guarantee(number=7)
def test_a_fenced_manager_writes_nothing_more(backend: Backend) -> None:
    """After its conflict a manager under ``raise`` refuses messages, state and redactions."""
    strict = backend.manager(on_conflict="raise")
    agent = backend.agent(["1", "2", "3"], manager=strict)
    agent("q1")
    backend.agent(["other"])("q2")
    with pytest.raises(ConflictError) as caught:
        agent("q3")
    assert (caught.value.session_id, caught.value.agent_id) == ("s", "a")
    before = backend.dump()
    agent.state.set("n", 1)
    calls: list[Any] = [
        lambda: agent("q4"),
        lambda: strict.append_message(user("x"), agent),
        lambda: strict.sync_agent(agent),
        lambda: strict.redact_latest_message(user("x"), agent),
    ]
    for call in calls:
        with pytest.raises(ConflictError):
            call()
    strict.close()
    assert backend.dump() == before
    assert in_database(backend) == ["q1", "1", "q2", "other"]


@pytest.mark.guarantee(number=7)
def test_a_fenced_sessions_next_manager_goes_on(backend: Backend) -> None:
    """After a conflict a new manager of the same repository opens and writes."""
    repository = backend.repository(on_conflict="raise")
    agent = backend.agent(["1"], manager=backend.manager(repository=repository))
    agent("q1")
    backend.agent(["other"])("q2")
    with pytest.raises(ConflictError):
        agent("q3")
    fresh = backend.agent(["fine"], manager=backend.manager(repository=repository))
    fresh("q3")
    assert in_database(backend) == ["q1", "1", "q2", "other", "q3", "fine"]


@pytest.mark.guarantee(number=7)
@pytest.mark.guarantee(number=9)
def test_a_conflict_under_turn_stores_nothing_of_the_turn(backend: Backend) -> None:
    """With ``commit="turn"`` and ``raise`` a lost turn leaves neither messages nor state."""
    strict = backend.manager(on_conflict="raise", commit="turn")
    agent = backend.agent(["1", "2"], manager=strict)
    agent("q1")
    backend.agent(["other"])("q2")
    agent.state.set("lost", 1)
    with pytest.raises(ConflictError):
        agent("q3")
    assert in_database(backend) == ["q1", "1", "q2", "other"]
    assert state_in_database(backend) == {}


@pytest.mark.guarantee(number=8)
def test_a_redaction_of_a_moved_turn_finds_its_message(backend: Backend) -> None:
    """A guardrail that redacts after another writer came in redacts its own user's message."""
    other = backend.agent(["other"])

    def replies(_: Any) -> Any:
        other("between")
        return Redact("[gone]")

    agent = backend.agent()
    agent.model = ScriptedModel(replies)
    agent("secret")
    expected = ["between", "other", "[gone]", "I can't talk about that."]
    assert in_database(backend) == expected


@pytest.mark.guarantee(number=8)
def test_a_redaction_reaches_a_warm_agent(backend: Backend) -> None:
    """What another writer redacted is not given to a warm agent's model again."""
    manager = backend.manager()
    first = backend.agent(manager=manager)
    first.messages.append(user("secret"))
    manager.append_message(first.messages[0], first)
    warm = backend.agent(["fine"])
    assert said(warm.messages) == ["secret"]
    first.messages[0] = user("[gone]")
    manager.redact_latest_message(first.messages[0], first)
    warm("next")
    assert isinstance(warm.model, ScriptedModel)
    assert said(warm.model.calls[0]) == ["[gone]", "next"]
    assert in_database(backend) == ["[gone]", "next", "fine"]


@pytest.mark.guarantee(number=11)
def test_of_racing_creators_one_creates(backend: Backend) -> None:
    """Two managers that start the same new agent end with one agent and both go on."""
    managers = [backend.manager() for _ in range(2)]
    agents = [backend.agent(["hi"], manager=manager) for manager in managers]
    for number, agent in enumerate(agents):
        agent(f"q{number}")
    assert in_database(backend) == ["q0", "hi", "q1", "hi"]
    assert len(backend.dump()["sessions"]) == len(backend.dump()["agents"]) == 1


def test_of_racing_writers_one_wins_each_version(backend: Backend) -> None:
    """Of conditional writers at a barrier exactly one is told that it won, each time."""
    stored(backend, n=0)
    racers = []
    for number in range(4):
        repository = backend.repository(backend.reopen(), on_conflict="raise")
        agent = read(repository)
        agent.state["n"] = number
        racers.append(partial(repository.update_agent, "s", agent))
    outcomes = [type(outcome) for outcome in race(racers)]
    assert Counter(outcomes) == {type(None): 1, ConflictError: 3}
    assert backend.raw("SELECT version FROM strands_agents") == [{"version": 2}]


def test_racing_merges_lose_nothing(backend: Backend) -> None:
    """Threads that update one agent's state each keep all of their own keys."""
    stored(backend)

    def write(name: str, repository: PerSQLSessionRepository, agent: SessionAgent) -> None:
        for number in range(5):
            agent.state[f"{name}{number}"] = number
            repository.update_agent("s", agent)

    repositories = [backend.repository(backend.reopen()) for _ in "abcd"]
    racers = [
        partial(write, name, repository, read(repository))
        for name, repository in zip("abcd", repositories, strict=True)
    ]
    assert race(racers) == [None] * 4
    assert len(state_in_database(backend)) == 4 * 5
    assert backend.raw("SELECT version FROM strands_agents") == [{"version": 21}]


def test_racing_creations_of_a_session_have_one_winner(backend: Backend) -> None:
    """Of threads that create one session one succeeds and the others are told that it exists."""
    repositories = [backend.repository(backend.reopen()) for _ in range(4)]
    outcomes = race([partial(one.create_session, session()) for one in repositories])
    assert Counter(map(type, outcomes)) == {Session: 1, AlreadyExistsError: 3}
