"""The command line: what it prints, what it asks, and how it ends."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from strands_persql import LocalDatabase, cli
from strands_persql.cli import output, wording
from strands_persql.cli.app import app
from strands_persql.tables.tables import KEYS
from strands_persql.testing import Redact, ToolCall
from tests.contract import test_upgrade
from tests.contract.lived_in import new_agent, pinned, plain, summarized, trimmed
from tests.support.conversation import Team, session, session_message, stored, user
from tests.unit.cli import Place, Terminal, on_a_file, on_the_engine

# -- list and stats --------------------------------------------------------------------------------


def test_sessions_are_listed(place: Place) -> None:
    """``list`` shows ids, agents and times, and counts where it is asked to."""
    terminal, backend = place
    plain(backend.manager("ada"))
    stored(backend, "zero", session_id="ben")

    short, long = terminal.run("list"), terminal.run("list", "--counts")

    assert re.search(r"^ada +1  \d{4}-\d\d-\d\d \d\d:\d\d$", short.out, re.MULTILINE)
    assert re.search(r"^ada .* 10 +0 +\d\.\d KB$", long.out, re.MULTILINE)
    assert (short.code, short.err) == (0, "")


def test_a_list_goes_on_where_it_ended(place: Place) -> None:
    """A page names how to go on, in text and in JSON, in either order."""
    terminal, backend = place
    for name in ("ada-1", "ada-2", "ben-1"):
        stored(backend, "zero", session_id=name)

    first = terminal.run("list", "--limit", "2")
    assert "go on with --after 'ada-2'" in first.out
    document = terminal.run("list", "ada", "-n", "1", "--sort", "activity", "--json").json
    assert [one["session_id"] for one in document["sessions"]] == ["ada-2"]
    rest = terminal.run("list", "ada", "--sort", "activity", "--after", document["next"], "--json")
    assert [one["session_id"] for one in rest.json["sessions"]] == ["ada-1"]
    assert rest.json["next"] is None


def test_an_empty_list_says_so(place: Place) -> None:
    """Where there is no session, nothing is printed but a note."""
    terminal, _ = place

    assert terminal.run("list").err == "There are no sessions.\n"
    assert terminal.run("list", "--json").json == {"sessions": [], "next": None}


def test_stats_draw_what_is_stored(place: Place) -> None:
    """``stats`` has sizes, days, tools and the largest sessions, within 80 columns."""
    terminal, backend = place
    plain(backend.manager("s"))
    stored(backend, "zero", session_id="t")

    ran = terminal.run("stats")

    assert re.search(r"^sessions  2 with 2 agents$", ran.out, re.MULTILINE)
    assert re.search(r"^messages  11 in 4 turns$", ran.out, re.MULTILINE)
    assert re.search(r"^count  █+ +2$", ran.out, re.MULTILINE)
    assert re.search(r"^\d{4}-\d\d-\d\d  █+  11 in 4 turns$", ran.out, re.MULTILINE)
    assert "This took 3 round trips" in ran.out
    assert "Tokens" not in ran.out
    document = terminal.run("stats", "s", "--json").json
    assert (document["sessions"], document["tools"]) == (1, {"count": 2})
    assert terminal.run("stats", "x").code == output.NOT_FOUND


def test_stats_have_tokens_where_messages_do(place: Place) -> None:
    """What models have used is summed up."""
    terminal, backend = place
    stored(backend, "zero")
    usage = '{"inputTokens":1200,"outputTokens":34,"totalTokens":1234,"cacheReadInputTokens":5}'
    backend.raw(
        "UPDATE strands_messages SET data = json_set(data, '$.message.metadata.usage', json(?))",
        usage,
    )

    ran = terminal.run("stats")

    assert "in     1,200, 5 of it from a cache" in ran.out
    assert "total  1,234" in ran.out
    assert "1,234 tokens" in terminal.run("show", "s").out


# -- show ------------------------------------------------------------------------------------------


def test_a_transcript_has_all_that_happened(place: Place) -> None:
    """Roles, words, calls beside results, images, redactions, turns and states are shown."""
    terminal, backend = place
    plain(backend.manager("s"))
    backend.repository().create_multi_agent("s", Team(n=1))

    ran = terminal.run("show", "s")

    text = re.sub(r"^.*turn [0-9a-f]{16} ─+$", "TURN", ran.out, flags=re.MULTILINE)
    assert text.count("TURN") == 4
    assert "    0  user\n       hello\n    1  assistant\n       hi\n" in text
    assert "  3-4  assistant\n       calls count\n         → 1\n" in text
    assert "    6  user  redacted\n       [gone]\n" in text
    assert 'what is "this"?\n       line two\n       [png image 1x1, 29 bytes]\n' in text
    assert "works with all messages" in text
    assert '"text": "naïve 🌍"' in text
    assert "graph or swarm team" in text
    assert ran.code == 0


def test_a_transcript_says_what_lies_behind(place: Place) -> None:
    """Where a window, a summary or a gap is, the lines of it are told apart."""
    terminal, backend = place
    trimmed(backend.manager("trimmed"))
    pinned(backend.manager("pinned"))
    summarized(backend.manager("summarized"))

    window = terminal.run("show", "trimmed").out
    assert "works with the messages 8 on" in window
    assert window.index("lies behind") < window.index("q0") < window.index("q3")
    assert window.index("q3") < window.index("the agent works with what follows")
    gap = terminal.run("show", "pinned").out
    assert "works with the messages 0 to 1, 6 on" in gap
    assert "it works with a message that no one said:\n    put in by hand\n" in gap
    assert "no one said:\n    all of it\n" in terminal.run("show", "summarized").out


def test_a_call_without_a_result_says_so(place: Place) -> None:
    """A turn that stopped in a tool, and a tool that failed, are seen to have."""
    terminal, backend = place
    agent = new_agent(backend.manager("s"), [ToolCall("missing", {"n": [1]}), "done"])
    agent("go")
    assert "calls missing(n=[1])\n         ✗ Unknown tool: missing" in terminal.run("show", "s").out
    backend.raw("DELETE FROM strands_messages WHERE message_id > 1")

    assert "calls missing(n=[1])\n         has no result\n" in terminal.run("show", "s").out


def test_the_end_of_a_transcript_is_enough(place: Place) -> None:
    """The last messages, or those behind one, are shown alone, in order."""
    terminal, backend = place
    stored(backend, *map(str, range(20)))

    def ids(*options: str) -> list[int]:
        (agent,) = terminal.run("show", "s", "--json", *options).json["agents"]
        return [one["message_id"] for one in agent["messages"]]

    assert ids() == [*range(20)]
    assert ids("--last", "3") == [17, 18, 19]
    assert ids("--after", "17") == [18, 19]
    assert ids("--last", "3", "--after", "18") == [19]


def test_agents_are_shown_one_after_the_other(place: Place) -> None:
    """A session of several agents shows each, or the one that was asked for."""
    terminal, backend = place
    stored(backend, "zero")
    other = backend.agent(["hello"], agent_id="b")
    other("who is there?")

    assert terminal.run("show", "s").out.index("s / a") < terminal.run("show", "s").out.index(
        "s / b"
    )
    assert "s / a" not in terminal.run("show", "s", "--agent", "b").out
    missing = terminal.run("show", "s", "--agent", "c")
    assert (missing.code, missing.out) == (output.NOT_FOUND, "")
    assert "there are 'a', 'b'" in missing.err


def test_messages_as_json_are_as_strands_stores_them(place: Place) -> None:
    """The JSON of a transcript has bytes as Strands encodes them, and what the agent works with."""
    terminal, backend = place
    pinned(backend.manager("s"))
    (agent,) = terminal.run("show", "s", "--json").json["agents"]
    assert agent["view"]["start"] == 6
    assert agent["view"]["before"][1] == [0, 1]
    plain(backend.manager("t"))

    (agent,) = terminal.run("show", "t", "--json").json["agents"]

    image = agent["messages"][8]["message"]["content"][1]["image"]
    assert image["source"]["bytes"]["__bytes_encoded__"] is True
    assert agent["messages"][6]["is_redacted"] is True


def test_nothing_in_a_message_moves_a_cursor(place: Place) -> None:
    """Escape sequences, markup and bidirectional overrides are shown, and not followed."""
    terminal, backend = place
    hostile = "\x1b[2J\x1b]0;pwned\x07 [bold red]x[/] <b>y</b> \u202e abc \r\n# not [link](x)\x9b1m"
    stored(backend, hostile, session_id="[red]s", agent_id="\x1b[31ma", key=hostile)
    stored(backend, "zero", session_id="t")
    backend.raw("UPDATE strands_messages SET data = '\x1b[2J' WHERE session_id = 't'")

    for command in (["list"], ["show", "[red]s"], ["show", "t"], ["stats"], ["check"]):
        ran = terminal.run(*command)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", ran.out + ran.err), command
    shown = terminal.run("show", "[red]s").out
    assert "[bold red]x[/] <b>y</b>" in shown
    assert "[red]s / ␛[31ma" in shown


def test_a_row_that_cannot_be_read_is_shown_in_its_place(place: Place) -> None:
    """Damage is said where it is, and the rest is shown."""
    terminal, backend = place
    stored(backend, "zero", "one", "two")
    backend.raw("UPDATE strands_messages SET data = '{torn' WHERE message_id = 1")

    out = terminal.run("show", "s").out

    assert "    1  unreadable\n" in out
    assert "two" in out


def test_a_session_without_agents_is_shown(place: Place) -> None:
    """A session that nobody has joined says so."""
    terminal, backend = place
    stored(backend)
    backend.raw("DELETE FROM strands_agents")

    assert "Session s has no agent." in terminal.run("show", "s").out


def test_old_tables_are_shown_as_they_are(shell: Place) -> None:
    """Sessions of 0.1 are listed and shown without altering their tables."""
    terminal, backend = shell
    test_upgrade.old(backend, "primary keys", *"0123456789", removed=6)
    columns = backend.raw("SELECT name FROM pragma_table_info('strands_messages')")

    assert "s         " in terminal.run("list").out
    assert "works with what its conversation manager has left it" in terminal.run("show", "s").out
    assert backend.raw("SELECT name FROM pragma_table_info('strands_messages')") == columns


# -- moving ----------------------------------------------------------------------------------------


def test_sessions_move_through_an_archive(place: Place, tmp_path: Path) -> None:
    """What is exported is imported again, whole, and said in one line."""
    terminal, backend = place
    for name in ("ada", "ben"):
        stored(backend, "zero", session_id=name)
    archive = str(tmp_path / "all.jsonl")
    assert terminal.run("export", archive).out == f"2 sessions with 2 messages to {archive}\n"
    (tmp_path / "x").mkdir()
    with on_a_file(tmp_path / "x") as (other, _):
        ran = other.run("import", archive)
        again = other.run("import", archive)

        assert ran.out.startswith("2 sessions with 2 messages to ")
        assert again.out == "2 sessions there already, and the same\n"
        assert other.run("show", "ada").out.count("zero") == 1


def test_an_archive_goes_through_a_pipe(shell: Place, tmp_path: Path) -> None:
    """``-`` is the standard output, and the standard input."""
    terminal, backend = shell
    stored(backend, "zero", session_id="ada")
    stored(backend, "zero", session_id="ben")

    archive = terminal.run("export", "-", "-s", "ada").out

    assert json.loads(archive.splitlines()[-1]) == {"type": "end_of_archive", "sessions": 1}
    (tmp_path / "y").mkdir()
    with on_a_file(tmp_path / "y") as (other, _):
        assert other.run("import", "-", stdin=archive).code == 0
        assert "ada" in other.run("list").out


def test_sessions_move_through_a_folder(shell: Place, tmp_path: Path) -> None:
    """A folder of Strands is written and read, whole or by sessions."""
    terminal, backend = shell
    pinned(backend.manager("s"))
    stored(backend, "zero", session_id="t")
    folder = str(tmp_path / "sessions")

    ran = terminal.run("export", folder, "--folder")

    assert "1 agent with messages in another order: s / a" in ran.out
    (tmp_path / "y").mkdir()
    with on_a_file(tmp_path / "y") as (other, _):
        assert "1 session with 1 message" in other.run("import", folder, "-s", "t").out


def test_nothing_is_overwritten_unasked(shell: Place, tmp_path: Path) -> None:
    """Files, folders and sessions that are there make a command fail, unless told otherwise."""
    terminal, backend = shell
    stored(backend, "zero")
    archive = tmp_path / "all.jsonl"
    terminal.run("export", str(archive))
    backend.repository().create_message("s", "a", session_message("one", 1))

    assert terminal.run("export", str(archive)).code == output.EXISTS
    assert terminal.run("export", str(archive), "--overwrite").code == output.USAGE
    assert terminal.run("import", str(archive)).code == output.EXISTS
    skipped = terminal.run("import", str(archive), "--existing", "skip")
    assert "1 session skipped, for their ids are taken: s" in skipped.out
    refused = terminal.run("import", str(archive), "--existing", "replace")
    assert (refused.code, "give --yes" in refused.err) == (output.USAGE, True)
    replaced = terminal.run("import", str(archive), "--existing", "replace", "--yes")
    assert "1 session replaced: s" in replaced.out
    assert terminal.run("export", str(archive), "--overwrite", "--yes").code == 0


def test_sessions_are_copied_between_databases(shell: Place, tmp_path: Path) -> None:
    """``migrate`` copies from a file, or from tables of another prefix."""
    terminal, backend = shell
    stored(backend, "zero")
    (tmp_path / "y").mkdir()
    with on_a_file(tmp_path / "y") as (other, _):
        ran = other.run("migrate", "--from-local", str(tmp_path / "agents.db"))
        assert "1 session with 1 message from " in ran.out
        assert "zero" in other.run("show", "s").out
    copied = terminal.run("migrate", "--prefix", "new_", "--json")
    assert copied.json["sessions"] == 1
    assert "zero" in terminal.run("show", "s", "--prefix", "new_").out
    assert terminal.run("migrate").code == output.USAGE


def test_wrong_combinations_are_refused(shell: Place, tmp_path: Path) -> None:
    """Options that don't go together are named, with exit code 2."""
    terminal, backend = shell
    stored(backend, "zero")
    archive = str(tmp_path / "all.jsonl")
    terminal.run("export", archive)

    for arguments in (
        ["import", archive, "-s", "s"],
        ["list", "--database", "acme/x"],
        ["list", "--limit", "0"],
        ["show"],
        ["nothing"],
    ):
        assert terminal.run(*arguments).code == output.USAGE, arguments


# -- looking after ---------------------------------------------------------------------------------


def test_tables_are_made(place: Place) -> None:
    """``setup`` makes what is missing, prints its SQL instead, and can be repeated."""
    terminal, backend = place
    backend.raw("SELECT 1")

    assert terminal.run("setup", "--dry-run").out.count("CREATE TABLE") == len(KEYS)
    assert "were made or brought up to date" in terminal.run("setup").out
    assert "are as they should be" in terminal.run("setup").out
    assert terminal.run("setup", "--json").json == {"sql": [], "was_run": False}


def test_a_token_that_may_not_make_tables_gets_the_sql(
    request: pytest.FixtureRequest, database_name: str
) -> None:
    """Where the tables can't be made, what would make them is printed for who may."""
    engine = request.getfixturevalue("engine")
    terminal = Terminal(
        ["--database", database_name],
        {"PERSQL_TOKEN": engine.token(role="readwrite"), "PERSQL_API_URL": engine.base_url},
    )

    ran = terminal.run("setup")

    assert ran.code == output.FAILED
    assert "CREATE TABLE IF NOT EXISTS strands_sessions" in ran.err
    assert engine.token(role="readwrite") not in ran.err + ran.out


def test_damage_is_named_and_repaired(place: Place) -> None:
    """``check`` says what it would do, does it when told to, and ends with what is left."""
    terminal, backend = place
    stored(backend, "zero", "one")
    assert terminal.run("check").out == "Everything is as it should be.\n"
    backend.raw("UPDATE strands_messages SET data = '{torn' WHERE message_id = 1")

    found = terminal.run("check")
    assert found.code == output.FOUND_DAMAGE
    assert "s / a / message 1  unreadable" in found.out
    assert "repair: delete the message's row" in found.out
    assert "1 thing found; --repair does 1 repair." in found.out
    assert terminal.run("check", "--repair").code == output.USAGE
    assert len(backend.raw("SELECT * FROM strands_messages")) == 2
    repaired = terminal.run("check", "--repair", "--yes")
    assert (repaired.code, "1 repair done; nothing is left." in repaired.out) == (0, True)
    assert terminal.run("check", "s", "--json").json == {"findings": [], "repaired": 0, "left": []}


def test_what_cannot_be_repaired_is_left(place: Place) -> None:
    """Where nothing can be done the exit code goes on to say so."""
    terminal, backend = place
    stored(backend, "zero")
    backend.raw("DELETE FROM strands_agents")

    document = terminal.run("check", "--repair", "--yes", "--json")

    assert document.code == output.FOUND_DAMAGE
    assert document.json["left"][0]["repair"] is None
    assert document.json["left"][0]["kind"] == "orphan"


@pytest.mark.parametrize("verb", ["delete", "erase"])
def test_sessions_are_removed_when_that_is_confirmed(place: Place, verb: str) -> None:
    """Nothing goes unasked; what went is said, and what wasn't there."""
    terminal, backend = place
    stored(backend, "zero", "one")

    assert terminal.run(verb, "s").code == output.USAGE
    ran = terminal.run(verb, "s", "t", "--yes")
    assert "s is gone, with 2 messages, 1 agent: " in ran.out
    assert "Session t is not there." in ran.err
    assert ran.code == output.NOT_FOUND
    assert backend.raw("SELECT * FROM strands_messages") == []
    document = terminal.run(verb, "s", "--yes", "--json")
    assert document.json["sessions"][0]["rows"]["messages"] == 0


def test_an_erasure_says_what_it_cannot_reach(place: Place) -> None:
    """On a hosted database the service's pages are its own; on a file nothing is left."""
    terminal, backend = place
    stored(backend, "zero")

    ran = terminal.run("erase", "s", "--yes")

    hosted = terminal.options[0] == "--database"
    assert ("Its service overwrites its pages" in ran.out) is hosted


# -- connections -----------------------------------------------------------------------------------


def test_a_database_must_be_named(tmp_path: Path) -> None:
    """Without one, with two, and without a token the command says what is missing."""
    terminal = Terminal([])
    nothing = terminal.run_plain("list")
    assert (nothing.code, "--local FILE" in nothing.err) == (output.USAGE, True)
    both = terminal.run_plain("list", "-l", str(tmp_path / "x"), "-d", "acme/x")
    assert (both.code, "not both" in both.err) == (output.USAGE, True)
    no_token = terminal.run_plain("list", "-d", "acme/x")
    assert (no_token.code, "PERSQL_TOKEN" in no_token.err) == (output.USAGE, True)


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A name that was mistyped is an error, and leaves no file."""
    ran = Terminal(["-l", str(tmp_path / "typo.db")]).run("list")

    assert ran.code == output.FAILED
    assert "typo.db isn't there" in ran.err
    assert [*tmp_path.iterdir()] == []


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    """Any other file is refused with a sentence, or in JSON."""
    path = tmp_path / "notes.txt"
    path.write_text("x" * 5_000)

    ran = Terminal(["-l", str(path)]).run("list", "--json")

    assert ran.code == output.FAILED
    assert ran.json["error"]["type"] == "DatabaseOpenError"


def test_the_environment_names_the_database(
    request: pytest.FixtureRequest, database_name: str
) -> None:
    """PERSQL_DATABASE is used where no option says otherwise."""
    engine = request.getfixturevalue("engine")
    with on_the_engine(engine, database_name) as (terminal, backend):
        stored(backend, "zero", session_id="here")
        terminal.environment["PERSQL_DATABASE"] = database_name
        assert "here" in terminal.run_plain("list").out


def test_a_token_is_nowhere_to_be_seen(request: pytest.FixtureRequest, database_name: str) -> None:
    """Neither an error nor a page has it, and no option takes it."""
    engine = request.getfixturevalue("engine")
    secret = "psql_live_s3cr3t"  # noqa: S105 - to be looked for
    terminal = Terminal(
        ["--database", database_name], {"PERSQL_TOKEN": secret, "PERSQL_API_URL": engine.base_url}
    )
    for arguments in (["list"], ["list", "--json"], ["setup"], ["show", "s"]):
        ran = terminal.run(*arguments)
        assert ran.code == output.FAILED
        assert "s3cr3t" not in ran.out + ran.err
    assert terminal.run("list", "--token", secret).code == output.USAGE
    assert not any("token" in option.lower() for option in _options())


def _options() -> list[str]:
    group: Any = typer.main.get_command(app)
    return [
        option
        for command in group.commands.values()
        for parameter in command.params
        for option in parameter.opts
    ]


# -- how it looks ----------------------------------------------------------------------------------


def test_each_command_explains_itself() -> None:
    """``--help`` has a sentence, examples, and a word on each option."""
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        text = Terminal([]).run_plain(name, "--help").out
        assert "Examples:" in text
        assert f"strands-persql {name} " in text
        assert "--local" in text
        for parameter in command.params:
            assert getattr(parameter, "help", "x"), (name, parameter.name)


def test_the_version_is_printed() -> None:
    """``--version`` names the program and the version."""
    assert re.match(r"strands-persql \d+\.\d+", Terminal([]).run_plain("--version").out)


def test_lines_keep_to_eighty_columns_and_have_no_color_in_a_pipe(shell: Place) -> None:
    """Through a pipe the output is plain text of the usual width."""
    terminal, backend = shell
    texts = ["word " * 60, "x" * 300, "| a | b |\n|---|---|\n| " + "y" * 90 + " | 2 |"]
    stored(backend, *texts, session_id="s" * 70)
    plain(backend.manager("t"))

    for command in (["list", "-c"], ["show", "s" * 70], ["show", "t"], ["stats"], ["check"]):
        out = terminal.run(*command).out
        assert "\x1b" not in out
        assert max(map(len, out.splitlines())) <= 80, command
        assert not re.search(r" +$", out, re.MULTILINE) or command[0] == "list"


def test_the_output_is_the_same_without_color(shell: Place) -> None:
    """NO_COLOR takes the colors, and nothing else."""
    _, backend = shell
    stored(backend, "**bold**")
    path = next(Path(str(backend.plain).split("'")[1]).parent.glob("agents.db"))

    colored = _in_a_terminal(["show", "s", "-l", str(path)], {})
    bare = _in_a_terminal(["show", "s", "-l", str(path)], {"NO_COLOR": "1"})

    assert "\x1b[" in colored
    assert not re.search("\x1b\\[[0-9;]*3[0-9]m", bare)
    strip = re.compile("\x1b\\[[0-9;?]*[a-zA-Z]")
    assert strip.sub("", bare) == strip.sub("", colored)


def _in_a_terminal(arguments: list[str], environment: dict[str, str], answer: str = "") -> str:
    """Run the command in a pseudo terminal, and give what it shows."""
    import pty  # noqa: PLC0415 - of Unix alone

    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "strands_persql", *arguments],
        stdin=child,
        stdout=child,
        stderr=child,
        env={**os.environ, "PAGER": "", "TERM": "xterm", "COLUMNS": "80", **environment},
    )
    os.close(child)
    shown = b""
    if answer:
        os.write(parent, answer.encode())
    while True:
        try:
            data = os.read(parent, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(parent)
    process.wait(30)
    return shown.decode() + f"\nexit {process.returncode}"


def test_a_person_is_asked(shell: Place) -> None:
    """In a terminal a question is asked, and a no changes nothing."""
    terminal, backend = shell
    stored(backend, "zero")

    declined = _in_a_terminal(["delete", "s", *terminal.options], {}, "n\n")
    assert "for good? [y/N]" in declined
    assert "Nothing was changed." in declined
    assert declined.endswith("exit 1")
    assert "is gone" in _in_a_terminal(["delete", "s", *terminal.options], {}, "y\n")


def test_long_output_goes_through_a_pager(shell: Place, tmp_path: Path) -> None:
    """In a terminal the user's pager gets the transcript, and may end before it does."""
    terminal, backend = shell
    stored(backend, *map(str, range(400)))
    seen = tmp_path / "seen"

    whole = _in_a_terminal(["show", "s", *terminal.options], {"PAGER": f"cat > {seen}"})
    assert whole.endswith("exit 0")
    assert "  399  user" in re.sub("\x1b\\[[0-9;]*m", "", seen.read_text())
    ended = _in_a_terminal(["show", "s", *terminal.options], {"PAGER": "head -1"})
    assert ended.endswith("exit 0")
    assert "Traceback" not in ended


def test_a_reader_that_has_seen_enough_is_no_error(shell: Place) -> None:
    """``| head`` ends the command without a word."""
    terminal, backend = shell
    stored(backend, *map(str, range(2_000)))
    command = f"{sys.executable} -m strands_persql show s {' '.join(terminal.options)} | head -3"

    ran = subprocess.run(
        ["sh", "-c", command],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert len(ran.stdout.splitlines()) == 3
    assert ran.stderr == ""


def test_a_session_is_followed(shell: Place) -> None:
    """What is said, moved and redacted later appears as it happens, until an interrupt."""
    terminal, backend = shell
    agent = new_agent(backend.manager("s"), ["one", ToolCall("count"), "two", Redact("[gone]")])
    agent("first")
    process = subprocess.Popen(
        [
            sys.executable, "-u", "-m", "strands_persql", "show", "s", "--follow",
            "--interval", "0.1", *terminal.options,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        _read_until(process, "one")
        agent("second")
        shown = _read_until(process, "two")
        assert "  3-4  assistant\n       calls count\n         → 1\n" in shown
        agent("a secret")
        assert "  user  redacted" in _read_until(process, "I can't talk about that.")
        repository = backend.repository()
        message = repository.read_message("s", "a", 0)
        assert message is not None
        message.redact_message = user("[also gone]")
        repository.update_message("s", "a", message)
        _read_until(process, "message 0 was redacted")
        backend.raw("UPDATE strands_messages SET message_id = 9 WHERE message_id = 7")
        _read_until(process, "message 7 is 9 now: its turn continued")
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        process.stdout.close()


def _read_until(process: "subprocess.Popen[str]", words: str) -> str:
    assert process.stdout is not None
    shown = ""
    while words not in shown:
        line = process.stdout.readline()
        assert line, shown
        shown += line
    return shown


def test_following_needs_one_agent(shell: Place) -> None:
    """With several agents the command asks which, and follows none."""
    terminal, backend = shell
    stored(backend, "zero")
    backend.agent(["hi"], agent_id="b")

    ran = terminal.run("show", "s", "--follow")

    assert ran.code == output.USAGE
    assert "choose an agent to follow" in ran.err


def test_the_extra_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without typer and rich the command says how to get them."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(SystemExit, match=r"pip install 'strands-persql\[cli\]'"):
        cli.main()


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_234, "1.2 KB"), (123_456, "123 KB"), (5e15, "5000 TB")],
)
def test_sizes_are_read_at_a_glance(count: float, words: str) -> None:
    """Bytes are in the unit that leaves few digits."""
    assert wording.size(int(count)) == words


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00.900000+00:00", ""),
        ("2026-01-01T00:00:00+00:00", "2026-01-01T00:00:59+00:00", "59 s"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:02:05+00:00", "2 min 5 s"),
        ("2026-01-01T00:00:00+02:00", "2026-01-01T01:00:00+00:00", "3 h 0 min"),
        ("soon", "2026-01-01T00:00:00+00:00", ""),
    ],
)
def test_times_between_are_in_words(first: str, last: str, words: str) -> None:
    """Whatever the zone, and nothing where a time isn't one."""
    assert wording.elapsed(first, last) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "expired"),
        (-5, "expired"),
        (1, "in 1 second"),
        (119, "in 119 seconds"),
        (120, "in 2 minutes"),
        (3_600, "in 1 hour"),
        (200_000, "in 2 days"),
    ],
)
def test_what_is_left_is_in_words(seconds: int, words: str) -> None:
    """The largest unit says enough."""
    assert wording.remaining(seconds) == words


def test_a_list_says_what_expires(shell: Place) -> None:
    """A column comes where some session expires, and in no other list."""
    terminal, backend = shell
    plain(backend.manager("ada"))
    assert "expires" not in terminal.run("list").out
    plain(backend.manager("ben", expires_after=30 * 86_400))
    shown = terminal.run("list").out
    assert re.search(r"^ben .* in (29|30) days$", shown, re.MULTILINE)
    assert re.search(r"^ada .*\d\d:\d\d *$", shown, re.MULTILINE)


def test_a_time_that_is_none_is_shown_as_it_is() -> None:
    """Rows may hold any text for a time."""
    assert wording.moment("yesterday") == "yesterday"
    assert wording.moment("2026-01-02T03:04:05+01:00", seconds=True) == "2026-01-02 02:04:05"
    assert wording.moment(None) == ""


def test_a_progress_bar_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long work is told of on the terminal, and only there."""
    from strands_persql.admin import CheckProgress, Progress  # noqa: PLC0415 - beside its words

    assert output._how_far(Progress("s", 2, 1_000, 0.5)) == ("2 sessions, 1,000 messages", 0.5)
    assert output._how_far(CheckProgress("s", 1, 1)) == ("s, 1 message", None)
    assert output._how_far(3) == ("3 sessions", None)
    printed = output.Output()
    with printed.progress("x") as tell:
        assert tell is None
    monkeypatch.setattr(printed, "errors", Console(force_terminal=True, file=open(os.devnull, "w")))  # noqa: SIM115, PTH123
    with printed.progress("x") as tell:
        assert tell is not None
        tell(Progress("s", 2, 1_000, 0.5))
    printed.errors.file.close()


def test_a_database_in_memory_is_no_place_for_commands() -> None:
    """The command line works on files; a database in memory has no other process."""
    with LocalDatabase() as database:
        assert database.path == ":memory:"
    assert Terminal(["-l", ":memory:"]).run("list").code == output.FAILED


def test_an_owner_narrows_every_command(shell: Place) -> None:
    """With --owner only that owner's sessions are there; migrate gives it one that had none."""
    terminal, backend = shell
    stored(backend, "nobody's", session_id="plain")
    repository = backend.repository()
    for owner in ("ada", "bob"):
        repository.for_owner(owner).create_session(session("main"))
    listed = terminal.run("list", "--json", "--owner", "ada").json["sessions"]
    assert [(one["session_id"], one["owner"]) for one in listed] == [("main", "ada")]
    everyone = [one["session_id"] for one in terminal.run("list", "--json").json["sessions"]]
    assert everyone == ["@ada~main", "@bob~main", "plain"]
    assert terminal.run("show", "plain", "--owner", "ada").code == 3
    assert terminal.run("migrate", "--session", "plain", "--owner", "ada").code == 0
    assert "nobody's" in terminal.run("show", "plain", "--owner", "ada").out
    assert terminal.run("migrate", "--from-owner", "ada", "--owner", "ada").code == 2
    assert terminal.run("delete", "main", "--owner", "ada", "--yes").code == 0
    assert repository.for_owner("bob").read_session("main") is not None
