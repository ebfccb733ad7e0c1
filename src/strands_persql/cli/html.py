"""A session as one HTML page: nothing is loaded, nothing runs, and no markup in it is followed."""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from strands_persql.admin import AgentSummary, MultiAgentSummary
from strands_persql.admin.catalogue import describe_view
from strands_persql.admin.transcript import token_usage
from strands_persql.cli.parts import Part, Said, blocks_of, media_of, role_of
from strands_persql.cli.wording import as_json, counted, moment, printable

_LINE = 72  # characters
_SHOWN_IMAGES = {"png", "jpeg", "gif", "webp"}

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --faint: #667; --line: #d8dbe0;
  --user: #eef4ff; --call: #f6f4ee; --mark: #8a5a00; --bad: #b3261e; --link: #0b57d0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #16181c; --faint: #9aa0aa;
  --line: #343840; --user: #1d2736; --call: #23221d; --mark: #e0b050; --bad: #ff8a80;
  --link: #8ab4f8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 46rem; margin: 0 auto; padding: 1rem; }
h1, h2 { line-height: 1.25; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; }
header p, .note, .turn { color: var(--faint); font-size: .875rem; margin: .25rem 0; }
.turn { border-top: 1px solid var(--line); margin-top: 1.5rem; padding-top: .5rem; }
.view { color: var(--mark); font-size: .875rem; text-align: center; margin: 1rem 0; }
article { margin: .75rem 0; padding: .5rem .75rem; border-radius: .5rem; }
article.user { background: var(--user); }
article.behind { opacity: .65; }
article h1, article h2, article h3, h3 { font-size: 1.05rem; margin: .75rem 0 .25rem; }
article p, article ul, article ol { margin: .35rem 0; }
.role { font-weight: 600; font-size: .875rem; }
.role small { color: var(--faint); font-weight: 400; }
.call { background: var(--call); border-radius: .375rem; padding: .5rem .75rem; margin: .5rem 0; }
.bad { color: var(--bad); } .reasoning { color: var(--faint); font-style: italic; }
pre, code { font: .875em/1.45 ui-monospace, monospace; }
pre code { font-size: inherit; }
article pre { background: var(--call); border-radius: .375rem; padding: .5rem .75rem; }
article .call pre { padding: 0; }
pre { white-space: pre-wrap; margin: .5rem 0; max-height: 24rem; overflow: auto; }
img { max-width: 100%; height: auto; } a { color: var(--link); }
table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border: 1px solid var(--line); padding: .25rem .5rem; }
blockquote { margin: .5rem 0; padding-left: .75rem; border-left: 3px solid var(--line); }
@media print { main { max-width: none; } pre { max-height: none; overflow: visible; }
  article { break-inside: avoid-page; } article.behind { opacity: 1; } }
"""


def _policy() -> str:
    # The style's own digest: no other style applies, whatever finds its way into the page.
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'"


def _link_open(
    renderer: RendererHTML, tokens: list[Token], index: int, options: Any, environment: Any
) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return renderer.renderToken(tokens, index, options, environment)


def _markdown() -> MarkdownIt:
    # Markup within the text is shown as text, and images of it would be loaded from elsewhere.
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True})
    markdown.enable(["table", "strikethrough"]).disable("image")
    markdown.add_render_rule("link_open", _link_open)
    return markdown


_MARKDOWN = _markdown()


def beginning(session_id: str) -> str:
    """Return the page's beginning."""
    title = _text(session_id)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_policy())}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n"
    )


def end() -> str:
    """Return the page's end."""
    return "</main>\n</body>\n</html>\n"


def agent(summary: AgentSummary, said: Iterable[Said]) -> Iterator[str]:
    """Yield an agent's heading, its messages and its states."""
    yield f"<section>\n<header>\n<h2>{_text(summary.agent_id)}</h2>\n"
    yield (
        f"<p>created {_text(moment(summary.created_at))}, last active"
        f" {_text(moment(summary.active_at))} UTC</p>\n</header>\n"
    )
    for message in describe_view(summary.view):
        if isinstance(message, dict):
            yield '<p class="view">The agent works with a message that no one said:</p>\n'
            yield f'<article class="made">{"".join(map(_made, blocks_of(message)))}</article>\n'
    yield from _messages(said)
    for title, value in (
        ("State", summary.state),
        ("Conversation manager", summary.conversation_manager),
    ):
        if value:
            yield f"<h3>{title}</h3>\n<pre>{_text(as_json(value, indent=2))}</pre>\n"
    yield "</section>\n"


def multi_agent(one: MultiAgentSummary) -> str:
    """Return a graph or swarm with its state."""
    state = "its row can't be read" if one.state is None else as_json(one.state, indent=2)
    return (
        f"<section>\n<h2>{_text(one.multi_agent_id)}</h2>\n<pre>{_text(state)}</pre>\n</section>\n"
    )


def _messages(said: Iterable[Said]) -> Iterator[str]:
    in_view = True
    for one in said:
        if one.begins_turn:
            when = moment(one.entry.created_at, seconds=True)
            yield f'<p class="turn">{_text(when)}</p>\n'
        if one.in_view is not in_view:
            in_view = one.in_view
            words = (
                "The agent works with what follows."
                if in_view
                else "What follows lies behind: the agent no longer works with it."
            )
            yield f'<p class="view">{words}</p>\n'
        yield _message(one)


def _message(one: Said) -> str:
    entry = one.entry
    role = role_of(entry)
    kind = role if role in ("user", "assistant") else "other"
    notes = [f"#{entry.message_id}"]
    notes += ["redacted"] if entry.is_redacted else []
    total = token_usage(entry.message).get("totalTokens")
    notes += [counted(total, "token")] if isinstance(total, int) and total > 0 else []
    behind = "" if one.in_view else " behind"
    body = "".join(map(_part, one.parts))
    if entry.problem is not None:
        body += f'<p class="bad">{_text(entry.problem)}</p>'
    return (
        f'<article class="{kind}{behind}" id="m{entry.message_id}">\n'
        f'<div class="role">{_text(role)} <small>{_text(" · ".join(notes))}</small></div>\n'
        f"{body}\n</article>\n"
    )


def _made(block: Any) -> str:
    return _part(Part("text", str(block["text"])) if "text" in block else media_of(block))


def _part(part: Part) -> str:
    if part.kind == "text":
        return str(_MARKDOWN.render(printable(part.text)))
    if part.kind == "call":
        return _call(part)
    if part.kind == "reasoning":
        return f'<p class="reasoning">{_text(part.text)}</p>'
    if part.kind == "media":
        return _media(part)
    return f"<pre>{_text(as_json(part.value, indent=2))}</pre>"


def _call(part: Part) -> str:
    arguments = "" if part.value in (None, {}) else _short_json(part.value)
    shown = f"<pre>{_text(arguments)}</pre>" if arguments else ""
    if not part.is_answered:
        results = '<p class="view">has no result</p>'
    else:
        results = "".join(_result(one) for one in part.results) or '<p class="note">nothing</p>'
    bad = ' class="bad"' if part.is_error else ""
    return (
        f'<div class="call"><div><span class="note">calls</span> <code>{_text(part.name)}</code>'
        f"</div>{shown}<div{bad}>{results}</div></div>"
    )


def _short_json(value: Any) -> str:
    """Return JSON on one line where it has room there."""
    line = as_json(value)
    return line if len(line) <= _LINE else as_json(value, indent=2)


def _result(part: Part) -> str:
    return f"<pre>{_text(part.text)}</pre>" if part.kind == "text" else _part(part)


def _media(part: Part) -> str:
    words = _text(part.text)
    content = (part.value.get("source") or {}).get("bytes")
    kind = part.value.get("format")
    if part.name == "image" and kind in _SHOWN_IMAGES and isinstance(content, bytes):
        data = base64.b64encode(content).decode()
        image = f'<img alt="{words}" src="data:image/{kind};base64,{data}">'
        return f"<p>{image}<br><small>{words}</small></p>"
    return f'<p class="note">[{words}]</p>'


def _text(text: object) -> str:
    return escape(printable(text))
