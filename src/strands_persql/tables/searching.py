"""The full-text index, and statements on it: a row a text, found by words within scopes.

A scope is an indexed word of the row, so that a search within one costs no more than any other.
"""

import hashlib
from collections.abc import Iterable, Sequence

from strands_persql.databases.protocol import Statement
from strands_persql.tables.preconditions import Precondition
from strands_persql.tables.tables import Tables

_LEAST_OF_BEGINNING = 3  # characters
_SNIPPET_WORDS = 24
_SNIPPET_CHARACTERS = 400


def all_of(words: Sequence[str]) -> str:
    """Return the query for texts that have all of some beginnings of words.

    What so many words begin with that it says nothing is looked for as a word.
    """
    return " AND ".join(
        f'"{word}" *' if len(word) >= _LEAST_OF_BEGINNING else f'"{word}"'
        for word in (one.replace('"', '""') for one in words)
    )


def snippet(table: str, column: int) -> str:
    """Return the SQL for what a text says around the words that were looked for."""
    return f"""substr(snippet({table}, {column}, '', '', '…', {_SNIPPET_WORDS}),
        1, {_SNIPPET_CHARACTERS})"""


def score_of(rank: float) -> float:
    """Return a score between 0 and 1 for a rank, as Strands' own strategy does."""
    score = abs(float(rank))
    return score / (1.0 + score)


def create_index(tables: Tables) -> Statement:
    """Make the index, unless it is there.

    ``ref`` says what a text is of, and ``mark`` by what it is known to be the latest.
    """
    return tables.statement(
        """
        CREATE VIRTUAL TABLE IF NOT EXISTS {search} USING fts5(
            scope, ref UNINDEXED, mark UNINDEXED, content,
            tokenize = "unicode61 remove_diacritics 2"
        )
        """
    )


def scope_word(kind: str, name: str) -> str:
    """Return the word that a scope is in the index.

    Args:
        kind: A letter for the kind of scope.
        name: The scope's name.
    """
    return kind + hashlib.blake2b(name.encode(), digest_size=10).hexdigest()


def remove_text(tables: Tables, own: str, precondition: Precondition) -> Statement:
    """Take a text out of the index.

    Args:
        tables: The tables.
        own: The word of its own scope.
        precondition: The condition under which it is taken out.
    """
    return tables.statement(
        f"""
        DELETE FROM {{search}} WHERE {precondition.sql} AND rowid IN (
            SELECT rowid FROM {{search}} WHERE {{search}} MATCH :own
        )
        """,  # noqa: S608 - nothing but constants
        own=f"scope : {own}",
        **precondition.values,
    )


def add_text(
    tables: Tables,
    scopes: Sequence[str],
    ref: str,
    mark: str,
    content: str,
    precondition: Precondition,
) -> Statement:
    """Put a text into the index.

    Args:
        tables: The tables.
        scopes: The words of its scopes; the first one is its own.
        ref: What it is of.
        mark: By what it is known to be the latest.
        content: The text.
        precondition: The condition under which it is put there.
    """
    return tables.statement(
        f"""
        INSERT INTO {{search}} (scope, ref, mark, content)
        SELECT :scope, :ref, :mark, :content WHERE {precondition.sql}
        """,
        scope=" ".join(scopes),
        ref=ref,
        mark=mark,
        content=content,
        **precondition.values,
    )


def remove_texts(tables: Tables, own_scopes: Iterable[str]) -> Statement:
    """Take the texts of deleted values out of the index, found by their own scopes."""
    return tables.statement(
        """
        DELETE FROM {search} WHERE rowid IN (SELECT rowid FROM {search} WHERE {search} MATCH :own)
            AND NOT EXISTS (SELECT 1 FROM {objects} WHERE key = ref)
        """,
        own=f"scope : ({' OR '.join(own_scopes)})",
    )


def remove_folder(tables: Tables, folder: str) -> Statement:
    """Take all texts of a folder out of the index."""
    return tables.statement(
        """
        DELETE FROM {search} WHERE rowid IN (SELECT rowid FROM {search} WHERE {search} MATCH :own)
        """,
        own=f"scope : {scope_word('d', folder)}",
    )


def optimize(tables: Tables) -> Statement:
    """Write the index anew, without the words of texts that were taken out of it."""
    return tables.statement("INSERT INTO {search} ({search}) VALUES ('optimize')")


def search_texts(tables: Tables, words: Sequence[str], scope: str | None, limit: int) -> Statement:
    """Find values by all of some beginnings of words, the best first.

    Args:
        tables: The tables.
        words: The beginnings.
        scope: The word of the scope that they are in, or None for all.
        limit: The most to return.
    """
    query = f"content : ({all_of(words)})"
    return tables.statement(
        f"""
        SELECT ref, rank AS score,
            {snippet("{search}", 3)} AS snippet
        FROM {{search}}
        WHERE {{search}} MATCH :query AND rank MATCH 'bm25(0.0, 0.0, 0.0, 1.0)'
            AND EXISTS (SELECT 1 FROM {{objects}} WHERE key = ref AND digest = mark)
        ORDER BY rank LIMIT CAST(:limit AS INTEGER)
        """,  # noqa: S608 - nothing but constants
        query=query if scope is None else f"scope : {scope} AND {query}",
        limit=limit,
    )
