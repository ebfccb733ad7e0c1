"""The catalogue: which sessions there are, what was said in them, what they hold; and erasure."""

from pathlib import Path
from typing import Any

import pytest

from strands_persql import ConflictError, LocalDatabase, NotFoundError
from strands_persql.admin import SessionAdmin, storing
from strands_persql.testing import ToolCall
from tests.contract.lived_in import PIXEL, new_agent, pinned, plain, summarized, trimmed
from tests.contract.test_upgrade import old, shapes
from tests.support.backends import FAST, Backend
from tests.support.conversation import Team, said, session, session_message, stored, user


def keeper(backend: Backend) -> SessionAdmin:
    """Look after a backend's sessions."""
    return SessionAdmin(backend.database, retry=FAST)


# -- sessions --------------------------------------------------------------------------------------


def test_sessions_are_listed_page_by_page(backend: Backend) -> None:
    """Pages in the order of ids have each session once, and the last one says so."""
    names = [f"s{number:02}" for number in range(25)]
    for name in names:
        stored(backend, "zero", session_id=name)
    backend.database.reset()
    looked, after, listed = keeper(backend), None, []
    while True:
        page = looked.list_sessions(limit=10, after=after)
        listed += [one.session_id for one in page.items]
        after = page.next
        if after is None:
            break

    assert listed == names
    assert backend.database.round_trips == 1 + 3  # the tables are looked at once


def test_tables_that_come_later_are_seen(backend: Backend) -> None:
    """A keeper that has looked before there were tables, or at old ones, sees what comes."""
    looked = keeper(backend)
    assert looked.list_sessions().items == []
    old(backend, "primary keys", "zero")
    assert looked.transcript("s", "a").items[0].turn == ""

    backend.agent(["hi"])("hello")

    assert [one.turn != "" for one in looked.transcript("s", "a").items] == [False, True, True]


def test_a_prefix_narrows_the_list(backend: Backend) -> None:
    """Only ids that begin as asked are listed, whatever letters they have."""
    for name in ("ada", "ada-1", "ada%", "ada\U0010ffff", "adb", "ÅDA", "a_a"):
        backend.repository().create_session(session(name))

    def names(starts_with: str) -> list[str]:
        page = keeper(backend).list_sessions(starts_with=starts_with)
        return [one.session_id for one in page.items]

    assert names("ada") == ["ada", "ada%", "ada-1", "ada\U0010ffff"]
    assert names("ada%") == ["ada%"]
    assert names("a_") == ["a_a"]
    assert names("zz") == []


def test_sessions_are_listed_by_activity(backend: Backend) -> None:
    """The latest activity comes first, over all pages; a session without agents counts as made."""
    repositories = {name: stored(backend, "zero", session_id=name) for name in "abcde"}
    repositories["b"].create_message("b", "a", session_message("late", 1))
    backend.repository().create_session(session("new"))
    looked, after, listed = keeper(backend), None, []
    while True:
        page = looked.list_sessions(limit=2, after=after, order="activity")
        listed += [one.session_id for one in page.items]
        after = page.next
        if after is None:
            break

    assert listed == ["new", "b", "e", "d", "c", "a"]
    with pytest.raises(ValueError, match="in the order of activity"):
        looked.list_sessions(after="b", order="activity")
    with pytest.raises(ValueError, match="limit=0"):
        looked.list_sessions(limit=0)


def test_messages_and_tokens_are_counted_where_asked(backend: Backend) -> None:
    """What models have used is the sum of what the messages say, in each session."""
    plain(backend.manager("s"))
    stored(backend, "zero", session_id="t")
    usage = '{"inputTokens":7,"outputTokens":2,"totalTokens":9,"cacheReadInputTokens":3}'
    backend.raw(
        "UPDATE strands_messages SET data = json_set(data, '$.message.metadata.usage', json(?))"
        " WHERE json_extract(data, '$.message.role') = 'assistant'",
        usage,
    )

    first, second = keeper(backend).list_sessions(counts=True).items

    assert first.contents is not None
    assert second.contents is not None
    assert (first.contents.messages, first.contents.turns) == (10, 4)
    tokens = first.contents.tokens
    assert (tokens.input, tokens.output, tokens.total, tokens.cache_read) == (35, 10, 45, 15)
    assert (second.contents.messages, second.contents.tokens.total) == (1, 0)
    assert second.contents.bytes > 100
    assert keeper(backend).list_sessions().items[0].contents is None


def test_a_session_says_who_is_in_it(backend: Backend) -> None:
    """A summary has the number of agents and teams, and when something was last stored."""
    plain(backend.manager("s"))
    backend.repository().create_multi_agent("s", Team(n=1))

    (found,) = keeper(backend).list_sessions().items

    times = backend.raw(
        "SELECT max(updated_at) AS at FROM strands_agents UNION ALL"
        " SELECT max(updated_at) FROM strands_messages"
    )
    newest = max(row["at"] for row in times)
    assert (found.agents, found.multi_agents, found.active_at) == (1, 1, newest)


# -- agents ----------------------------------------------------------------------------------------


def test_agents_say_what_they_work_with(backend: Backend) -> None:
    """An agent's summary has its state, its view, its newest message and whether it waits."""
    live = trimmed(backend.manager("s"))
    (agent,) = keeper(backend).list_agents("s", counts=True)

    assert (agent.agent_id, agent.newest_id, agent.waits) == ("a", 11, False)
    assert agent.view.is_plain
    assert agent.view.start == 12 - len(live.messages)
    assert agent.contents is not None
    assert agent.contents.messages == 12
    assert agent.conversation_manager == live.conversation_manager.get_state()

    pinned(backend.manager("t"))
    (agent,) = keeper(backend).list_agents("t")
    assert not agent.view.is_plain
    summarized(backend.manager("u"))
    assert keeper(backend).list_agents("u")[0].state == {}


def test_an_agent_that_cannot_be_read_is_listed(backend: Backend) -> None:
    """Damage in an agent's row or view hides neither the agent nor the others."""
    stored(backend, "zero", n=1)
    backend.raw("UPDATE strands_agents SET data = '{torn', view = '{torn'")

    (agent,) = keeper(backend).list_agents("s")

    assert (agent.agent_id, agent.state, agent.newest_id) == ("a", None, 0)


def test_what_is_not_there_is_an_error(backend: Backend) -> None:
    """A session or an agent that isn't there is said to be missing, by its name."""
    stored(backend, "zero")
    looked = keeper(backend)

    with pytest.raises(NotFoundError, match="session 'x' does not exist"):
        looked.list_agents("x")
    with pytest.raises(NotFoundError, match="agent 'b' does not exist in session 's'"):
        looked.transcript("s", "b")
    with pytest.raises(NotFoundError, match="session 'x'"):
        looked.measure("x")


def test_multi_agents_are_listed(backend: Backend) -> None:
    """Graphs and swarms come with their states, or without where these can't be read."""
    repository = stored(backend)
    repository.create_multi_agent("s", Team(n=1))
    repository.create_multi_agent("s", Team("zoo"))
    backend.raw("UPDATE strands_multi_agents SET data = '' WHERE multi_agent_id = 'zoo'")

    team, zoo = keeper(backend).list_multi_agents("s")

    assert (team.state, zoo.multi_agent_id, zoo.state) == ({"id": "team", "n": 1}, "zoo", None)


# -- transcripts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_transcript_is_read_page_by_page(backend: Backend, newest_first: bool) -> None:
    """Pages in either direction have each message once, and the last one says so."""
    stored(backend, *map(str, range(25)))
    looked = keeper(backend)
    after, read = None, []
    while True:
        page = looked.transcript("s", "a", limit=10, after=after, newest_first=newest_first)
        read += [one.message_id for one in page.items]
        after = page.next
        if after is None:
            break

    assert read == [*range(25)][:: -1 if newest_first else 1]
    beyond = looked.transcript("s", "a", after=20, newest_first=newest_first)
    assert len(beyond.items) == (20 if newest_first else 4)
    with pytest.raises(ValueError, match="limit=0"):
        looked.transcript("s", "a", limit=0)


def test_a_transcript_has_what_was_said_last(backend: Backend) -> None:
    """Redactions, bytes and turns are as they are, and no window hides a message."""
    plain(backend.manager("s"))

    page = keeper(backend).transcript("s", "a")

    assert said(one.message for one in page.items if one.message)[6] == "[gone]"
    redacted = [one for one in page.items if one.is_redacted]
    assert [one.message_id for one in redacted] == [6]
    image: Any = page.items[8].message
    assert image["content"][1]["image"]["source"]["bytes"] == PIXEL
    assert len({one.turn for one in page.items}) == 4


def test_a_transcript_goes_on_past_damage(backend: Backend) -> None:
    """A row that can't be read says why, in its place."""
    stored(backend, "zero", "one", "two")
    backend.raw("UPDATE strands_messages SET data = '{torn' WHERE message_id = 1")

    page = keeper(backend).transcript("s", "a")

    assert [one.message_id for one in page.items] == [0, 1, 2]
    assert "it is not valid JSON" in str(page.items[1].problem)
    assert page.items[1].message is None


@shapes
def test_old_tables_are_read_as_they_are(backend: Backend, shape: str) -> None:
    """The catalogue and transcripts read tables of 0.1 without altering them."""
    old(backend, shape, *"0123456789", removed=6)
    columns = "SELECT name FROM pragma_table_info('strands_messages')"
    before = backend.raw(columns)
    looked = keeper(backend)

    (found,) = looked.list_sessions(counts=True).items
    (agent,) = looked.list_agents("s")

    assert found.contents is not None
    assert (found.contents.messages, agent.newest_id) == (10, 9)
    assert agent.view.is_explicit is False
    assert said(one.message for one in looked.transcript("s", "a").items if one.message) == [
        *"0123456789"
    ]
    assert looked.measure().sessions == 1
    assert looked.list_multi_agents("s")[0].multi_agent_id == "team"
    assert backend.raw(columns) == before
    assert looked.missing_sql() != []
    looked.setup()
    assert looked.missing_sql() == []


# -- totals ----------------------------------------------------------------------------------------


def test_totals_are_sums_over_all_sessions(backend: Backend) -> None:
    """Messages, rows, writes, days and tools are counted over as many requests as it takes."""
    for number in range(60):
        stored(backend, *map(str, range(number % 4)), session_id=f"s{number:02}")
    agent = new_agent(backend.manager("tools"), [ToolCall("count"), ToolCall("count"), "done"])
    agent("go")
    told: list[int] = []

    totals = keeper(backend).measure(progress=told.append)

    assert (totals.sessions, totals.agents, totals.contents.messages) == (61, 61, 96)
    rows = sum(len(table) for table in backend.dump().values())
    writes = sum(row["version"] for table in backend.dump().values() for row in table)
    assert (totals.rows, totals.writes) == (rows, writes)
    assert totals.tools == {"count": 2}
    assert sum(messages for messages, _ in totals.days.values()) == 96
    assert totals.largest[0].session_id == "tools"
    assert len(totals.largest) == 10
    assert told == [50, 61]
    assert keeper(backend).measure("tools").contents.messages == 6
    assert keeper(backend).measure(starts_with="s0").sessions == 10


@pytest.mark.backends("http")
def test_a_page_reads_few_rows(backend: Backend) -> None:
    """The first page is one request that reads fewer than 200 rows, however many there are."""
    for number in range(60):
        stored(backend, "one", "two", session_id=f"s{number:03}")
    admin = keeper(backend)
    admin.list_sessions(limit=1)
    before = admin.stats()

    page = admin.list_sessions()

    after = admin.stats()
    assert len(page.items) == 40
    assert page.next == "s039"
    assert after.round_trips == before.round_trips + 1
    assert 40 < after.rows_read - before.rows_read <= 200


# -- erasure ---------------------------------------------------------------------------------------


def test_an_erased_session_is_gone(backend: Backend) -> None:
    """Every row of it goes, and what they were is said; its agents can store nothing any more."""
    agent = plain(backend.manager("s"))
    stored(backend, "zero", session_id="t")
    backend.repository().create_multi_agent("s", Team(n=1))
    bytes_before = keeper(backend).measure("s").contents.bytes

    erasure = keeper(backend).erase("s")

    rows = {table: count for table, count in erasure.rows.items() if count}
    assert rows == {"messages": 10, "agents": 1, "multi_agents": 1, "sessions": 1}
    assert erasure.bytes > bytes_before
    assert erasure.was_there
    assert {row["session_id"] for rows in backend.dump().values() for row in rows} == {"t"}
    with pytest.raises((NotFoundError, ConflictError)):
        agent("still there?")
    assert not keeper(backend).erase("s").was_there


def test_what_imports_have_left_of_a_session_is_erased(backend: Backend) -> None:
    """Messages of an interrupted import go with their session, and no other's."""
    stored(backend, "zero", session_id="s/t"[:1])
    for staged in ("import/0123456789abcdef/s", "import/0123456789abcdef/st"):
        backend.raw(
            "INSERT INTO strands_messages (session_id, agent_id, message_id) VALUES (?, 'a', 0)",
            staged,
        )

    erasure = keeper(backend).erase("s")

    assert erasure.staged == 1
    left = backend.raw("SELECT session_id FROM strands_messages")
    assert left == [{"session_id": "import/0123456789abcdef/st"}]
    assert storing.drop_staged(keeper(backend)._access, left[0]["session_id"]) == 1


def test_no_byte_of_an_erased_session_is_in_the_files(tmp_path: Path) -> None:
    """Neither the database's file nor its log holds a word, an id or a state of what was erased."""
    path = tmp_path / "agents.db"
    secret = "b1u3b3rry"  # noqa: S105 - a word to look for
    with LocalDatabase(path) as database:
        backend = Backend(database)
        for number in range(20):
            texts = [f"{secret} {index} " + "x" * 3_000 for index in range(20)]
            stored(backend, *texts, session_id=f"{secret}-{number}", word=secret)
        stored(backend, "kept", session_id="other")
        assert any(secret.encode() in one.read_bytes() for one in tmp_path.iterdir())

        erasures = [SessionAdmin(database).erase(f"{secret}-{number}") for number in range(20)]

        assert all(one.is_purged for one in erasures)
        for file in tmp_path.iterdir():
            assert secret.encode() not in file.read_bytes(), file
        page = SessionAdmin(database).transcript("other", "a")
        assert [one.message for one in page.items] == [user("kept")]


def test_a_file_that_is_in_use_is_said_not_to_be_purged(tmp_path: Path) -> None:
    """While another connection reads, what was erased may be in the files, and that is said."""
    with LocalDatabase(tmp_path / "agents.db", busy_timeout=0.05) as database:
        stored(Backend(database), "zero")
        import sqlite3  # noqa: PLC0415 - a connection beside the library

        reader = sqlite3.connect(tmp_path / "agents.db")
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM strands_messages").fetchone()

        erasure = SessionAdmin(database).erase("s")

        reader.close()
        assert erasure.is_purged is False
        assert SessionAdmin(database).erase("s").is_purged is True


def test_a_hosted_database_purges_its_pages_itself(backend: Backend) -> None:
    """Where the library can't reach the files, an erasure says that it doesn't know."""
    stored(backend, "zero")

    assert keeper(backend).erase("s").is_purged is None
