"""Content beyond a row's size: stored apart in parts, whole again when it is read."""

import base64
import hashlib
from typing import Any

import pytest
from strands.types.session import SessionMessage

from strands_persql import PerSQLSessionRepository
from strands_persql.errors import CorruptRowError, TooLargeError
from strands_persql.testing import CountingDatabase, Redact
from tests.contract.agents import both
from tests.support.backends import Backend
from tests.support.conversation import (
    Team,
    in_database,
    listed,
    said,
    session_agent,
    session_message,
    stored,
    user,
)

REQUEST = 8_000_000
"""Bytes of parts that one request has."""


def noise(size: int, seed: str = "") -> bytes:
    """Make bytes that are the same each time, and compress to nothing shorter."""
    return hashlib.shake_256(seed.encode()).digest(size)


def text(size: int, seed: str = "") -> str:
    """Make a text of some characters that is found in nothing else."""
    return base64.b64encode(noise(size * 3 // 4 + 3, seed)).decode()[:size]


def image(size: int, seed: str = "") -> Any:
    """Make a block with an image."""
    return {"image": {"format": "png", "source": {"bytes": noise(size, seed)}}}


def message(*blocks: Any, message_id: int = 0) -> SessionMessage:
    """Make a record of a message of some blocks."""
    return SessionMessage.from_message({"role": "user", "content": [*blocks]}, message_id)


def contents(backend: Backend) -> list[tuple[int, int]]:
    """Tell how many parts each content has, and how many rows refer to it."""
    rows = backend.raw(
        "SELECT count(*) AS parts, max(uses) AS uses FROM strands_contents"
        " GROUP BY session_id, digest ORDER BY parts"
    )
    return [(int(row["parts"]), int(row["uses"])) for row in rows]


def reopened(backend: Backend, database: Any = None) -> PerSQLSessionRepository:
    """Open the session as another process would."""
    repository = backend.repository(database or backend.reopen())
    assert repository.read_session("s") is not None
    return repository


def blocks_of(repository: PerSQLSessionRepository, message_id: int = 0) -> Any:
    """Give the blocks of a stored message."""
    record = repository.read_message("s", "a", message_id)
    assert record is not None
    return record.to_message()["content"]


# -- what goes in comes out ------------------------------------------------------------------------


BLOCKS: dict[str, list[Any]] = {
    "bytes": [{"text": "look"}, image(1_500_000)],
    "text": [{"text": text(1_200_000)}],
    "text that isn't ASCII": [{"text": 'é\n"\\漢🎉' * 150_000}],
    "many strings": [{"text": text(30_000, str(n))} for n in range(80)],
    "many blocks": [{"text": f"{n}" * 90} for n in range(9_000)],
    "numbers in a result": [
        {"toolResult": {"toolUseId": "t", "status": "success", "content": [
            {"json": {"rows": [[n, n / 7, None] for n in range(90_000)]}}, {"text": text(400_000)},
        ]}},
    ],
    "what looks like ours": [{"text": '{"__persql__":{"' + text(400_000)}],
    "the same twice": [image(600_000), image(600_000)],
}  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_large_content_comes_back_whole(backend: Backend, name: str) -> None:
    """Whatever makes a message large, another process is given it as it was."""
    backend_repository = stored(backend)

    backend_repository.create_message("s", "a", message(*BLOCKS[name]))

    assert blocks_of(reopened(backend)) == BLOCKS[name]
    assert blocks_of(backend_repository) == BLOCKS[name]


@pytest.mark.parametrize("name", BLOCKS)
def test_rows_stay_small(backend: Backend, name: str) -> None:
    """No row takes more than 1 MB and some, whichever table it is in."""
    stored(backend).create_message("s", "a", message(*BLOCKS[name]))

    for table in ("messages", "contents"):
        rows = backend.raw(f"SELECT data FROM strands_{table}")
        assert max(len(row["data"].encode()) for row in rows) <= 1_000_000


def test_the_rest_of_a_row_is_read_by_sql(backend: Backend) -> None:
    """What isn't large is where it always was, for SQLite's JSON functions."""
    stored(backend).create_message("s", "a", message({"text": "look"}, image(900_000)))

    (row,) = backend.raw(
        "SELECT json_extract(data, '$.message.content[0].text') AS text,"
        " json_extract(data, '$.message.content[1].image.format') AS format,"
        " json_extract(data, '$.message_id') AS id FROM strands_messages"
    )

    assert row == {"text": "look", "format": "png", "id": 0}


def test_large_states_come_back_whole(backend: Backend) -> None:
    """The states of agents, graphs and swarms may be as large as messages."""
    repository = stored(backend, document=text(2_500_000), many={str(n): n for n in range(90_000)})
    repository.create_multi_agent("s", Team(results=[text(700_000, "1"), text(700_000, "2")]))
    repository.update_agent("s", session_agent(document=text(2_500_000), n=1))

    fresh = reopened(backend)

    agent = fresh.read_agent("s", "a")
    assert agent is not None
    assert agent.state == {"document": text(2_500_000), "n": 1}
    assert fresh.read_multi_agent("s", "team") == {
        "id": "team",
        "results": [text(700_000, "1"), text(700_000, "2")],
    }
    assert contents(backend) == [(1, 1), (1, 1), (3, 1)]


@both
def test_an_agent_is_restored_with_its_large_content(backend: Backend, commit: str) -> None:
    """Documents in prompts and in an agent's state survive a restart, in any kind of commit."""
    agent = backend.agent(["seen", "seen"], manager=backend.manager(commit=commit))
    agent.state.set("file", text(500_000))
    prompt: Any = [image(9_000_000), {"text": "What is it?"}]
    agent(prompt)
    agent("And now?")

    restored = backend.agent(manager=backend.manager())

    assert restored.messages == agent.messages
    assert restored.state.get() == agent.state.get()


@both
def test_large_messages_that_no_one_said_come_back(backend: Backend, commit: str) -> None:
    """A message that was put into memory alone is restored, however large it is."""
    agent = backend.agent(["a", "b", "c"], manager=backend.manager(commit=commit))
    agent("q")
    agent.messages.insert(0, {"role": "user", "content": [image(1_500_000), {"text": "put in"}]})
    agent("r")

    restored = backend.agent(manager=backend.manager())

    assert restored.messages == agent.messages
    (row,) = backend.raw("SELECT view FROM strands_agents")
    assert len(row["view"]) < 1_000
    del agent.messages[0]
    agent("s")
    assert contents(backend) == []


# -- what it costs ---------------------------------------------------------------------------------


def test_an_open_brings_what_fits_in_one_request(backend: Backend) -> None:
    """A session with some megabytes of content is opened in one request, as any other."""
    repository = stored(backend, n=text(400_000))
    for number in range(3):
        record = message(image(1_500_000, str(number)), message_id=number)
        repository.create_message("s", "a", record)
    database = CountingDatabase(backend.plain)

    fresh = reopened(backend, database)

    assert [blocks_of(fresh, n) for n in range(3)] == [[image(1_500_000, str(n))] for n in range(3)]
    assert database.round_trips == 1


def test_more_takes_as_few_requests_as_it_needs(backend: Backend) -> None:
    """What is beyond one request's bytes goes and comes in requests of that size."""
    repository = stored(backend)
    database = CountingDatabase(backend.plain)
    writer = reopened(backend, database)
    database.reset()

    writer.create_message("s", "a", message({"text": text(20_000_000)}))

    assert database.round_trips == 3
    database.reset()
    assert blocks_of(reopened(backend, database)) == [{"text": text(20_000_000)}]
    assert database.round_trips == 4
    assert listed(repository) == [text(20_000_000)]


def test_an_open_asks_for_content_where_there_was_some(backend: Backend) -> None:
    """Once a session is known to have content apart, an open brings what is new with its rows."""
    stored(backend, "Hi.")
    database = CountingDatabase(backend.reopen())
    repository = reopened(backend, database)
    trips = []
    for number in range(1, 4):
        for name in "ab":  # the second time nothing is new
            if name == "a":
                other = reopened(backend)
                new = message(image(900_000, str(number)), message_id=number)
                other.create_message("s", "a", new)
            database.reset()
            repository.read_session("s")
            trips.append(database.round_trips)
        found = repository.list_messages("s", "a")[-1]
        assert found.to_message()["content"] == [image(900_000, str(number))]
    assert trips == [2, 1, 1, 1, 1, 1]


def test_what_is_stored_is_not_sent_again(backend: Backend) -> None:
    """State that stays as it is doesn't go over the wire with each update of the rest."""
    stored(backend, document=text(1_500_000), n=0)
    database = CountingDatabase(backend.plain)
    repository = reopened(backend, database)
    assert repository.read_agent("s", "a") is not None
    database.reset()

    for number in range(3):
        repository.update_agent("s", session_agent(document=text(1_500_000), n=number))

    assert database.round_trips == 3
    sent = [statement for batch in database.log for statement in batch]
    assert max(len(str(one.get("params"))) for one in sent) < 10_000
    assert contents(backend) == [(2, 1)]


def test_a_session_has_a_content_once(backend: Backend) -> None:
    """An image that several rows refer to is stored once, and each of them counts."""
    repository = stored(backend, copy=base64.b64encode(noise(900_000)).decode())
    for number in range(3):
        record = message({"text": str(number)}, image(900_000), message_id=number)
        repository.create_message("s", "a", record)

    assert contents(backend) == [(2, 4)]


def test_another_session_has_its_own(backend: Backend) -> None:
    """Sessions share no content: one that is deleted takes nothing from others."""
    for session_id in ("s", "t"):
        stored(backend, session_id=session_id).create_message(
            session_id, "a", message(image(900_000))
        )

    backend.repository().delete_session("t")

    assert contents(backend) == [(2, 1)]
    assert blocks_of(reopened(backend)) == [image(900_000)]


# -- what goes -------------------------------------------------------------------------------------


def replaced(repository: PerSQLSessionRepository, message_id: int, *blocks: Any) -> None:
    """Replace what a stored message says."""
    record = repository.read_message("s", "a", message_id)
    assert record is not None
    record.message = {"role": "user", "content": [*blocks]}
    repository.update_message("s", "a", record)


def test_an_edit_takes_its_content_along(backend: Backend) -> None:
    """What an edit replaces is deleted, but for what another message still has."""
    repository = stored(backend)
    for number in range(2):
        record = message(image(900_000), image(600_000, str(number)), message_id=number)
        repository.create_message("s", "a", record)
    assert contents(backend) == [(1, 1), (1, 1), (2, 2)]

    replaced(repository, 0, {"text": "gone"})

    assert contents(backend) == [(1, 1), (2, 1)]
    assert blocks_of(reopened(backend), 1) == [image(900_000), image(600_000, "1")]
    replaced(repository, 1, image(600_000, "1"))
    assert contents(backend) == [(1, 1)]
    replaced(repository, 1, image(600_000, "2"))
    assert contents(backend) == [(1, 1)]
    assert blocks_of(reopened(backend), 1) == [image(600_000, "2")]


@both
def test_a_turn_that_moves_keeps_its_content(backend: Backend, commit: str) -> None:
    """A message whose id changes, because others came in between, has its content still."""
    manager = backend.manager(commit=commit)
    agent = backend.agent(["one"], manager=manager)
    agent("before")
    manager.append_message({"role": "user", "content": [image(900_000)]}, agent)
    backend.agent(["other"], manager=backend.manager())("in between")
    manager.append_message(user("later"), agent)
    manager.sync_agent(agent)

    assert contents(backend) == [(2, 1)]
    restored = backend.agent().messages
    assert [one["content"] for one in restored].count([image(900_000)]) == 1


@both
def test_a_redaction_takes_the_content_along(backend: Backend, commit: str) -> None:
    """A guardrail's redaction of a message with a document leaves nothing of that."""
    agent = backend.agent(
        ["ok", Redact("[redacted]"), "ok"], manager=backend.manager(commit=commit)
    )
    agent("harmless")
    agent("SECRET" + text(1_500_000))
    agent("harmless")

    assert "SECRET" not in str(backend.dump())
    assert contents(backend) == []
    assert in_database(backend)[2] == "[redacted]"


@pytest.mark.backends("file")
def test_no_byte_of_redacted_content_is_left_in_the_file(backend: Backend) -> None:
    """The parts of redacted content are overwritten, on the disk too."""
    repository = stored(backend)
    secret = text(2_500_000)
    repository.create_message("s", "a", message({"text": secret}))

    replaced(repository, 0, {"text": "[redacted]"})

    local: Any = backend.plain
    assert local.checkpoint()
    with open(local.path, "rb") as file:  # noqa: PTH123 - as it is on the disk
        data = file.read()
    assert not any(secret[at : at + 40].encode() in data for at in range(0, len(secret), 500))


def test_deleting_a_session_takes_its_content_along(backend: Backend) -> None:
    """Nothing of a deleted session is left, what an interrupted write left in it included."""
    repository = stored(backend, n=text(400_000))
    repository.create_message("s", "a", message(image(900_000)))
    backend.raw(
        "INSERT INTO strands_contents (session_id, digest, place, data) VALUES ('s', 'x', 0, 'y')"
    )

    repository.delete_session("s")

    assert all(not rows for rows in backend.dump().values())


# -- what can't be read ----------------------------------------------------------------------------


DAMAGES = {
    "a part is missing": "DELETE FROM strands_contents WHERE place = 1",
    "all parts are missing": "DELETE FROM strands_contents",
    "a part was altered": "UPDATE strands_contents SET data = replace(data, 'a', 'b')",
    "a part was cut": "UPDATE strands_contents SET data = substr(data, 1, 100)",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_row_whose_content_is_damaged_is_named(backend: Backend, name: str) -> None:
    """A message can't be read without its content; the error names it, others stay readable."""
    agent = backend.agent(["one", "three"])
    agent("zero")
    agent([image(1_500_000)])
    backend.raw(DAMAGES[name])

    fresh = reopened(backend)

    with pytest.raises(CorruptRowError, match="missing or was altered") as caught:
        fresh.read_message("s", "a", 2)
    assert caught.value.key == ("s", "a", 2)
    gone = "[A message that was here can't be read.]"
    assert said(backend.agent().messages) == ["zero", "one", gone, "three"]
    with pytest.raises(CorruptRowError):
        fresh.list_messages("s", "a")
    fresh.update_message("s", "a", session_message("two", 2))
    assert in_database(backend) == ["zero", "one", "two", "three"]


def test_a_damaged_list_of_contents_stops_nothing_else(backend: Backend) -> None:
    """A row whose list of contents isn't one can't be read, and can be deleted."""
    repository = stored(backend)
    repository.create_message("s", "a", message(image(900_000)))
    backend.raw("UPDATE strands_messages SET data = substr(data, 1, 30) || 'x' || substr(data, 31)")

    with pytest.raises(CorruptRowError):
        reopened(backend).read_message("s", "a", 0)
    backend.repository().delete_session("s")
    assert all(not rows for rows in backend.dump().values())


# -- limits ----------------------------------------------------------------------------------------


@pytest.mark.backends("file", "http")
def test_a_hundred_megabytes_are_stored(backend: Backend) -> None:
    """A message of 100 MB comes back byte for byte."""
    stored(backend).create_message("s", "a", message(image(100_000_000)))

    assert blocks_of(reopened(backend)) == [image(100_000_000)]


def test_databases_of_small_rows_hold_what_fits_in_them(backend: Backend) -> None:
    """Where no row can hold a part, what is beyond a row's size is refused."""

    class Narrow(CountingDatabase):
        @property
        def max_row_bytes(self) -> int | None:
            return 600_000

    stored(backend)
    narrow = Narrow(backend.plain)
    repository = reopened(backend, narrow)
    repository.create_message("s", "a", session_message(text(500_000), 0))
    assert blocks_of(reopened(backend)) == [{"text": text(500_000)}]
    narrow.reset()

    with pytest.raises(TooLargeError, match="600000"):
        repository.create_message("s", "a", session_message(text(600_000), 1))

    assert narrow.round_trips == 0
