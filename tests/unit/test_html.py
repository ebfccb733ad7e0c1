"""The page of a session: safe whatever was said, and good to read in a real browser."""

import html
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from strands_persql.cli import html as page
from strands_persql.testing import ToolCall
from tests.contract.lived_in import PIXEL, new_agent, pinned, plain, trimmed
from tests.support.backends import Backend
from tests.support.conversation import Team, stored
from tests.unit.cli import Terminal, on_a_file

HOSTILE = [
    "<script>document.title = 'pwned'</script>",
    "<img src=x onerror=\"document.title='pwned'\">",
    '"><svg onload=document.title="pwned">',
    "</pre></article></main></style><script>document.title='pwned'</script>",
    "[click](javascript:document.title='pwned')",
    "[click](data:text/html,<script>alert(1)</script>)",
    "![track](https://example.org/track.png)",
    "<https://example.org/?a=\"onmouseover='x'>",
    "`<b>code</b>` **<i>bold</i>** | <u>x</u> |",
    "```html\n<script>document.title='pwned'</script>\n```",
    "&lt;script&gt; &#60;script&#62; \u202e\x00\x1b[2J",
    "<style>body { display: none }</style><!-- <base href=//example.org> -->",
]


class Seen(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words += data


def hostile_session(backend: Backend) -> None:
    """Store a session in which all is hostile that can be."""
    stored(backend, *HOSTILE, session_id="s<script>", agent_id="a<img src=x>", key=HOSTILE)
    backend.repository().create_multi_agent("s<script>", Team("<script>x", n=HOSTILE))
    result: Any = {"text": HOSTILE[0]}
    blocks = [
        {"toolUse": {"toolUseId": "1", "name": HOSTILE[1], "input": {HOSTILE[0]: HOSTILE[3]}}},
        {"image": {"format": "svg+xml", "source": {"bytes": b"<svg onload=alert(1)>"}}},
        {"image": {"format": 'png" onerror="x', "source": {"bytes": PIXEL}}},
        {"document": {"format": "pdf", "name": HOSTILE[0], "source": {"bytes": b"x"}}},
        {"reasoningContent": {"reasoningText": {"text": HOSTILE[1]}}},
        {"unheardOf": HOSTILE[0]},
    ]
    for number, (role, content) in enumerate(
        [
            ("assistant", blocks),
            ("user", [{"toolResult": {"toolUseId": "1", "content": [result, {"json": HOSTILE}]}}]),
            ('x" onclick="y', [{"text": "role"}]),
        ]
    ):
        backend.raw(
            "UPDATE strands_messages SET data = json_set(data, '$.message.role', ?,"
            " '$.message.content', json(?)) WHERE message_id = ?",
            role,
            _json(content),
            number,
        )
    backend.raw("UPDATE strands_messages SET data = '<script>' WHERE message_id = 3")


def _json(content: Any) -> str:
    from strands_persql.tables.encoding import to_json  # noqa: PLC0415 - how rows hold bytes

    return to_json(content, "blocks")


def written(terminal: Terminal, session_id: str, path: Path) -> str:
    """Write a session's page."""
    ran = terminal.run("show", session_id, "--html", str(path))
    assert ran.code == 0, ran.err
    return path.read_text("utf-8")


def test_no_markup_of_a_message_is_followed(tmp_path: Path) -> None:
    """Whatever was said, the page has our own tags alone, and loads nothing."""
    with on_a_file(tmp_path) as (terminal, backend):
        hostile_session(backend)
        text = written(terminal, "s<script>", tmp_path / "page.html")
    seen = Seen(text)

    assert not {"script", "svg", "iframe", "base", "object", "form", "b", "u"} & set(seen.tags)
    assert seen.tags.count("style") == 1
    for tag, name, value in seen.attributes:
        assert not name.startswith("on"), (tag, name)
        if name == "src":
            assert value.startswith("data:image/png;base64,"), value
        if name == "href":
            assert value.startswith("https://example.org"), value
    for said in ("<script>document.title = 'pwned'</script>", "[click](javascript:", "<u>x</u>"):
        assert said in html.unescape(seen.words), said
    assert not re.search("[\x00\x1b\u202e]", text)


def test_the_policy_lets_nothing_run_or_load(tmp_path: Path) -> None:
    """The page itself forbids scripts, and all that isn't in it."""
    with on_a_file(tmp_path) as (terminal, backend):
        plain(backend.manager("s"))
        text = written(terminal, "s", tmp_path / "page.html")
    policy = next(v for t, n, v in Seen(text).attributes if n == "content" and "default-src" in v)

    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy


def test_a_page_has_what_the_terminal_has(tmp_path: Path) -> None:
    """Roles, words, calls beside results, images, redactions, windows and states are there."""
    with on_a_file(tmp_path) as (terminal, backend):
        plain(backend.manager("s"))
        trimmed(backend.manager("t"))
        pinned(backend.manager("p"))
        words = Seen(written(terminal, "s", tmp_path / "s.html"))
        window = written(terminal, "t", tmp_path / "t.html")
        gap = written(terminal, "p", tmp_path / "p.html")

    assert "calls count" in " ".join(words.words.split())
    assert "#6 · redacted" in words.words
    assert words.tags.count("img") == 1
    assert "png image 1x1, 29 bytes" in words.words
    assert "naïve 🌍" in words.words
    assert window.count('class="user behind"') == 4
    assert "put in by hand" in gap


def test_a_call_without_a_result_is_seen(tmp_path: Path) -> None:
    """A call that nobody answered, and one that failed, say so."""
    with on_a_file(tmp_path) as (terminal, backend):
        agent = new_agent(backend.manager("s"), [ToolCall("missing", {"n": 1}), "done"])
        agent("go")
        assert '<div class="bad">' in written(terminal, "s", tmp_path / "page.html")
        backend.raw("DELETE FROM strands_messages WHERE message_id > 1")
        assert "has no result" in written(terminal, "s", tmp_path / "page.html")


def test_wide_values_have_lines_of_their_own() -> None:
    """A short input stands on one line, and a long one is spread out."""
    assert page._short_json({"a": 1}) == '{"a": 1}'
    assert page._short_json({"a": "x" * 100}).count("\n") == 2


# -- in a browser ----------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
in_a_browser = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium is installed (on Debian: apt install chromium)"
)


def browse(path: Path, *options: str) -> str:
    """Open a page in Chromium, and give what it has made of it."""
    ran = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--allow-file-access-from-files", "--virtual-time-budget=3000",
            f"--user-data-dir={path.parent / 'profile'}", *options, path.as_uri(),
        ],
        capture_output=True,
        check=False,
        timeout=100,
    )  # fmt: skip
    return ran.stdout.decode("utf-8", "replace")


MEASURE = """<!doctype html><meta charset="utf-8"><title>waiting</title>
<iframe id="page" src="page.html" style="width: {width}px; height: 800px; border: 0"></iframe>
<script>
window.onload = () => {{
  const page = document.getElementById("page").contentDocument;
  const style = page.defaultView.getComputedStyle(page.body);
  const images = [...page.images].filter(one => one.naturalWidth > 0).length;
  document.title = [page.title, page.documentElement.scrollWidth, style.backgroundColor,
    images, page.querySelectorAll("article").length].join("|");
}};
</script>"""


def measured(folder: Path, width: int, *options: str) -> list[str]:
    """Open a page in a frame of a width, and give its title, width, color, images and articles."""
    (folder / "frame.html").write_text(MEASURE.format(width=width), "utf-8")
    dom = browse(folder / "frame.html", "--dump-dom", *options)
    match = re.search("<title>(.*?)</title>", dom)
    assert match, dom
    return html.unescape(match[1]).split("|")


@in_a_browser
def test_a_browser_runs_nothing_of_a_page(tmp_path: Path) -> None:
    """In Chromium the page of a hostile session keeps its title, and all of its articles."""
    with on_a_file(tmp_path) as (terminal, backend):
        hostile_session(backend)
        written(terminal, "s<script>", tmp_path / "page.html")

    title, _, _, _, articles = measured(tmp_path, 800)

    assert (title, articles) == ("s<script>", str(len(HOSTILE) - 1))


@in_a_browser
@pytest.mark.parametrize("width", [320, 390, 1200])
def test_a_page_fits_its_window(tmp_path: Path, width: int) -> None:
    """Long words, tables and code of a page leave no need to scroll sideways, on a phone too."""
    wide = "w" * 400
    table = "| a | b | c |\n|---|---|---|\n" + f"| {'x' * 60} | {'y' * 60} | {'z' * 60} |"
    with on_a_file(tmp_path) as (terminal, backend):
        stored(backend, wide, table, f"```\n{wide}\n```", f"[{wide}](https://e.org/{wide})", k=wide)
        written(terminal, "s", tmp_path / "page.html")

    _, scrolled, _, _, _ = measured(tmp_path, width)

    assert int(scrolled) <= width


@in_a_browser
def test_a_page_is_light_and_dark(tmp_path: Path) -> None:
    """The page takes the reader's colors, and shows the images that are in it."""
    picture = bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63"
        "f8cfc0f01f00050001ff56c72f0d0000000049454e44ae426082"
    )
    with on_a_file(tmp_path) as (terminal, backend):
        agent = new_agent(backend.manager("s"), ["seen"])
        image: Any = {"image": {"format": "png", "source": {"bytes": picture}}}
        agent([{"text": "look"}, image])
        written(terminal, "s", tmp_path / "page.html")

    light = measured(tmp_path, 800, "--blink-settings=preferredColorScheme=1")
    dark = measured(tmp_path, 800, "--blink-settings=preferredColorScheme=0")

    assert (light[2], light[3]) == ("rgb(255, 255, 255)", "1")
    assert dark[2] == "rgb(22, 24, 28)"


@in_a_browser
def test_a_page_can_be_printed(tmp_path: Path) -> None:
    """Printed, a long result is there to its end: the pages grow with it."""

    def pages(lines: int) -> int:
        with on_a_file(tmp_path) as (terminal, backend):
            session_id = f"s{lines}"
            stored(backend, "```\n" + "line\n" * lines + "```", session_id=session_id)
            written(terminal, session_id, tmp_path / "page.html")
        browse(tmp_path / "page.html", f"--print-to-pdf={tmp_path / 'page.pdf'}")
        return len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "page.pdf").read_bytes()))

    assert pages(5) == 1
    assert pages(400) > 3
