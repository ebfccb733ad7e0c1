"""Many sessions from one web process: answers are streamed, and no request blocks another.

Run it with `python docs/examples/web.py`. Strands brings all that it needs (Starlette and uvicorn;
for FastAPI the functions stay as they are). Then, as often as you like, and in many sessions::

    curl -N localhost:8000/sessions/ada -d "My favourite city is Lisbon."
    curl -N localhost:8000/sessions/ada -d "What did I tell you?"
    curl localhost:8000/stats

The sessions are in `agents.db`, or where AGENTS_DB says. With PERSQL_TOKEN and PERSQL_DATABASE in
the environment they are in that hosted database.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import asdict
from weakref import WeakValueDictionary

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from strands import Agent
from strands.types.content import Messages

from strands_persql import (
    Database,
    LocalDatabase,
    OutcomeUnknownError,
    PerSQLSessionManager,
    PerSQLSessionRepository,
    RestClient,
    RetryPolicy,
    UnavailableError,
)
from strands_persql.testing import Reply, ScriptedModel

logger = logging.getLogger("web")

# -- one repository, and so one cache and one pool of connections, for all requests ----------------

# A client is waiting for each answer: better tell it soon that the database is unavailable.
RETRY = RetryPolicy(budget=5.0)


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Open the database when the process begins, and close it when it ends."""
    with contextlib.ExitStack() as stack:
        if token := os.environ.get("PERSQL_TOKEN"):
            client = stack.enter_context(RestClient(token))
            database: Database = client.database(os.environ["PERSQL_DATABASE"])
        else:
            path = os.environ.get("AGENTS_DB", "agents.db")
            database = stack.enter_context(LocalDatabase(path))
        app.state.repository = PerSQLSessionRepository(database, retry=RETRY)
        # Sessions in use, so that one session's requests queue here. Other processes' need no
        # queue: their turns are kept whole, one after the other.
        app.state.locks = WeakValueDictionary[str, asyncio.Lock]()
        yield


# -- what is served --------------------------------------------------------------------------------

MAX_PROMPT_BYTES = 100_000
RETRY_AFTER_S = 5
SESSION_ID = re.compile(r"[A-Za-z0-9.@_-]{1,64}")


async def chat(request: Request) -> Response:
    """Stream the agent's answer to the request's body, as it comes, in server-sent events."""
    session_id = request.path_params["session_id"]
    if not SESSION_ID.fullmatch(session_id):
        raise HTTPException(400, "a session's id has 1 to 64 letters, digits and any of .@_-")
    turn = take_turn(request.app, session_id, await read_prompt(request))
    # The session is opened before the answer begins: what may be wrong decides its status.
    await anext(turn)
    return StreamingResponse(turn, media_type="text/event-stream")


async def unavailable(_: Request, error: Exception) -> Response:
    """Ask the client to come back: the database can't be reached now."""
    logger.warning("the database is unavailable: %s", error)
    return PlainTextResponse(
        "the database is unavailable, try again", 503, headers={"Retry-After": str(RETRY_AFTER_S)}
    )


async def read_prompt(request: Request) -> str:
    """Read the request's body as text, and no more of it than a prompt may have."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_PROMPT_BYTES:
            raise HTTPException(413, f"a prompt has at most {MAX_PROMPT_BYTES:,} bytes")
    try:
        prompt = body.decode()
    except UnicodeDecodeError:
        raise HTTPException(400, "a prompt is text in UTF-8") from None
    if not prompt.strip():
        raise HTTPException(400, "a prompt says something")
    return prompt


async def take_turn(app: Starlette, session_id: str, prompt: str) -> AsyncGenerator[str, None]:
    """Open the session, with one small request or none, and let its agent answer.

    Yields nothing of use when it is open, then the answer's events.
    """
    async with (
        app.state.locks.setdefault(session_id, asyncio.Lock()),
        await PerSQLSessionManager.open(session_id, repository=app.state.repository) as session,
    ):
        # A new session's first agent is stored while it is made: not in the event loop, then.
        agent = await asyncio.to_thread(make_agent, session)
        yield ""
        try:
            async for event in agent.stream_async(prompt):
                if "data" in event:
                    yield f"data: {json.dumps(event['data'])}\n\n"
        except Exception:  # the status is sent: all that is left is to say that there is no more
            logger.exception("a turn failed")
            yield "event: error\ndata: null\n\n"
            return
    yield "event: done\ndata: null\n\n"


async def stats(request: Request) -> Response:
    """Tell what the repository has done so far."""
    return JSONResponse(asdict(request.app.state.repository.stats()))


# -- the agent, which is yours ---------------------------------------------------------------------


def make_agent(session: PerSQLSessionManager) -> Agent:
    """Make an agent that continues a session. Take a real model here."""
    return Agent(model=ScriptedModel(answer), session_manager=session, callback_handler=None)


def answer(messages: Messages) -> Reply:
    """Tell what the user has said before."""
    said = [
        block["text"]
        for message in messages
        if message["role"] == "user"
        for block in message["content"]
        if "text" in block
    ]
    return "So far you have told me: " + " ".join(said[:-1]) if said[:-1] else "I am listening."


app = Starlette(
    routes=[
        Route("/sessions/{session_id}", chat, methods=["POST"]),
        Route("/stats", stats),
    ],
    exception_handlers={UnavailableError: unavailable, OutcomeUnknownError: unavailable},
    lifespan=lifespan,
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, port=parser.parse_args().port)
