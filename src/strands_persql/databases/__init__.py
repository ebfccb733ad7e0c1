"""Databases that sessions can be kept in."""

from .local import LocalDatabase
from .protocol import Database, Result, Statement, Value
from .rest import RestClient, RestDatabase
from .rest_error import RestError

__all__ = [
    "Database",
    "LocalDatabase",
    "RestClient",
    "RestDatabase",
    "RestError",
    "Result",
    "Statement",
    "Value",
]
