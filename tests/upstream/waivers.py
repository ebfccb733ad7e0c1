"""Strands' tests that can't hold for ours, each with its reason.

A test that is listed here must fail: one that passes, and one that isn't there any more, fails
the run, so that the list never grows longer than it has to be.
"""

from dataclasses import dataclass
from typing import Literal

from packaging.specifiers import SpecifierSet

Kind = Literal["repository", "manager", "storage"]

_SESSION = "tests/strands/session/"
_REPOSITORY = _SESSION + "test_repository_session_manager.py"
_FILES = _SESSION + "test_file_session_manager.py"
_SYMLINKS = _SESSION + "test_file_session_manager_symlink_protection.py"
_SNAPSHOTS = _SESSION + "test_snapshot_session_manager.py"
_STORAGE = "tests/strands/storage/"

_OLD = "==1.42.*"
_NEW = ">1.42"


@dataclass(frozen=True)
class Tests:
    """Tests of one file.

    Args:
        file: The file.
        versions: The versions of Strands that have them; all, if empty.
        names: Their names, as pytest has them after ``::``; all parameters of a test are meant.
    """

    file: str
    versions: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Waiver:
    """One reason, and the tests that it is true of.

    Args:
        kinds: The kinds of suites in which they can't hold.
        reason: Why.
        tests: Which.
    """

    kinds: tuple[Kind, ...]
    reason: str
    tests: tuple[Tests, ...]


def _of(group: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{group}::test_{name}" for name in names)


_ON_ANY_REPOSITORY: tuple[Waiver, ...] = (
    Waiver(
        ("repository", "manager"),
        "its agent is a Mock whose interrupt state is a Mock, which is not valid JSON: Strands'"
        " FileSessionManager can't store it either",
        (
            Tests(
                _REPOSITORY,
                _OLD,
                (
                    "test_append_bidi_message",
                    "test_bidi_agent_no_conversation_manager",
                    "test_bidi_agent_unique_id_constraint",
                    "test_initialize_bidi_agent_creates_new",
                    "test_sync_bidi_agent",
                ),
            ),
        ),
    ),
    Waiver(
        ("repository",),
        "its agent is a Mock whose interrupt state is a Mock, which is not valid JSON: Strands'"
        " FileSessionManager can't store it either",
        (
            Tests(
                _REPOSITORY,
                _OLD,
                (
                    "test_initialize_bidi_agent_calls_read_agent_for_existing_session",
                    "test_initialize_bidi_agent_skips_read_agent_for_new_session",
                ),
            ),
        ),
    ),
)

_ON_OUR_MANAGER: tuple[Waiver, ...] = (
    Waiver(
        ("manager",),
        "its agent is a Mock whose interrupt state is a Mock, which is not valid JSON, and ours"
        " compares what it restores as JSON",
        (
            Tests(
                _REPOSITORY,
                _OLD,
                (
                    "test_bidi_agent_messages_with_offset_zero",
                    "test_initialize_bidi_agent_restores_existing",
                ),
            ),
        ),
    ),
    Waiver(
        ("storage",),
        "clear() is of Strands' storage in memory alone, not of its Storage",
        (
            Tests(
                _STORAGE + "test_in_memory_storage.py",
                _NEW,
                _of("TestInMemoryStorage", "clear", "namespace_clear_only_clears_prefix"),
            ),
        ),
    ),
    Waiver(
        ("manager",),
        "it counts or replaces calls of update_agent: ours stores an agent's state by a commit of"
        " its unit of work, in the same round trip as the messages",
        (
            Tests(
                _REPOSITORY,
                "",
                (
                    "test_sync_agent_calls_update_when_conversation_manager_state_changed",
                    "test_sync_agent_calls_update_when_internal_state_changed",
                    "test_sync_agent_calls_update_when_model_state_changed",
                    "test_sync_agent_calls_update_when_state_is_dirty",
                    "test_sync_agent_first_sync_always_updates",
                    "test_sync_agent_retries_on_failure",
                    "test_sync_agent_skips_update_when_state_not_dirty_and_internal_state_unchanged",
                    "test_sync_agent_tracks_version_after_successful_sync",
                ),
            ),
        ),
    ),
    Waiver(
        ("manager",),
        "it wants an update of the agent even where nothing has changed: ours writes nothing then",
        (Tests(_REPOSITORY, _NEW, ("test_sync_agent_with_bidi",)),),
    ),
    Waiver(
        ("manager",),
        "it reads the private _is_new_session, by which Strands' manager saves a read: ours reads"
        " a session, its agents and its graphs in the one round trip that opens it",
        (
            Tests(
                _REPOSITORY,
                "",
                (
                    "test_initialize_calls_read_agent_for_existing_session",
                    "test_initialize_multi_agent_calls_read_for_existing_session",
                    "test_initialize_multi_agent_skips_read_for_new_session",
                    "test_initialize_skips_read_agent_for_new_session",
                    "test_is_new_session_false_when_session_exists",
                    "test_is_new_session_true_when_session_created",
                ),
            ),
            Tests(
                _REPOSITORY,
                _OLD,
                (
                    "test_initialize_bidi_agent_calls_read_agent_for_existing_session",
                    "test_initialize_bidi_agent_skips_read_agent_for_new_session",
                ),
            ),
            Tests(
                _REPOSITORY,
                _NEW,
                (
                    "test_initialize_with_bidi_calls_read_agent_for_existing_session",
                    "test_initialize_with_bidi_skips_read_agent_for_new_session",
                ),
            ),
        ),
    ),
    Waiver(
        ("manager",),
        "it reads the private _held_records of Strands' manager",
        (Tests(_REPOSITORY, _NEW, ("test_prune_held_records_drops_removed_messages",)),),
    ),
    Waiver(
        ("manager",),
        "its repository is a MagicMock, and our manager works on a PerSQLSessionRepository",
        (
            Tests(
                "tests/strands/agent/test_agent_storage.py",
                _NEW,
                _of(
                    "TestRepositorySessionManagerWarnOnce",
                    "warns_only_once_across_instances",
                    "warns_when_agent_has_storage",
                    "warns_when_bidi_agent_has_storage",
                ),
            ),
        ),
    ),
    Waiver(
        ("manager",),
        "it expects the manager's constructor to create the session: ours creates it with its"
        " first agent, in the same round trip",
        (
            Tests(
                _REPOSITORY,
                "",
                ("test_init_creates_session_if_not_exists", "test_sync_multi_agent"),
            ),
            Tests(
                "tests/strands/test_tracking_id_history_invariant.py",
                _NEW,
                ("test_no_idless_messages_after_session_restore_repair",),
            ),
        ),
    ),
    Waiver(
        ("manager",),
        "it tests the files of Strands' manager: their names, their format and their permissions",
        (
            Tests(
                _FILES,
                "",
                (
                    "test__get_agent_path_invalid_agent_id",
                    "test__get_message_path_invalid_message_id",
                    "test__get_session_path_invalid_session_id",
                    "test_corrupted_json_file",
                    "test_create_agent",
                    "test_create_message",
                    "test_create_multi_agent",
                    "test_create_session",
                    "test_create_session_multi_agent_directory_structure",
                    "test_delete_session",
                    "test_permission_error_handling",
                ),
            ),
            Tests(_FILES, _NEW, ("test_message_durable_id_persists",)),
            Tests(
                _SYMLINKS,
                _NEW,
                (
                    "TestAtomicWrite::test_write_is_atomic",
                    "TestAtomicWrite::test_write_overwrites_existing",
                    "TestDefaultStorageDir::test_default_is_strands_sessions",
                    "TestDefaultStorageDir::test_default_not_in_tmp",
                    "TestDefaultStorageDir::test_default_under_home",
                    "TestDefaultStorageDir::test_storage_dir_permissions",
                    "TestSymlinkProtection::test_read_refuses_symlink_target",
                    "TestSymlinkProtection::test_symlink_attack_scenario",
                    "TestSymlinkProtection::test_write_cleans_up_on_failure",
                    "TestSymlinkProtection::test_write_refuses_symlink_target",
                    "TestSymlinkProtection::test_write_uses_unpredictable_temp",
                ),
            ),
        ),
    ),
)

_ON_OUR_STORAGE: tuple[Waiver, ...] = (
    Waiver(
        ("storage",),
        "it tests Strands' files: where they are, and what a file system refuses",
        (
            Tests(
                _STORAGE + "test_local_file_storage.py",
                _NEW,
                _of(
                    "TestLocalFileStorage",
                    "namespace_returns_local_file_storage",
                    "normpath_prevents_trailing_slash_in_namespace",
                    "read_error_raises_storage_error",
                    "write_atomic_cleanup_on_replace_failure",
                    "write_creates_directories",
                    "write_error_raises_storage_error",
                ),
            ),
        ),
    ),
    Waiver(
        ("storage",),
        "its storage is reached through a sandbox's file system; a database isn't",
        (
            Tests(
                _STORAGE + "test_local_file_storage.py",
                _NEW,
                _of(
                    "TestLocalFileStorage",
                    "delete_error_raises_storage_error",
                    "for_sandbox_drops_host_fs_strategy_with_warning",
                    "for_sandbox_preserves_search_strategy",
                    "for_sandbox_returns_new_if_different",
                    "for_sandbox_returns_self_if_same",
                    "list_error_raises_storage_error",
                    "namespace_preserves_for_sandbox",
                    "rejects_host_fs_strategy_with_sandbox",
                    "sandbox_binary_round_trip",
                    "sandbox_delete",
                    "sandbox_delete_missing_is_noop",
                    "sandbox_list",
                    "sandbox_list_nested",
                    "sandbox_write_skips_indexing",
                ),
            ),
        ),
    ),
    Waiver(
        ("storage",),
        "it tests the search strategy that indexes the files under a LocalFileStorage's base_dir",
        (
            Tests(
                _STORAGE + "search/test_bm25.py",
                _NEW,
                _of(
                    "TestBm25SearchStrategy",
                    "binary_non_utf8_data",
                    "close_closes_every_connection",
                    "close_releases_resources",
                    "concurrent_index_same_key",
                    "custom_db_path",
                    "empty_data",
                    "explicit_db_path_rejects_a_second_directory",
                    "handles_overwritten_entries",
                    "handles_subdirectories",
                    "indexes_and_returns_relevant_results",
                    "keeps_one_index_per_directory_when_storages_alternate",
                    "namespaced_storages_share_strategy_without_reopening",
                    "picks_up_newly_indexed_entries",
                    "returns_empty_for_stop_words_only_query",
                    "returns_empty_for_unrelated_queries",
                    "scores_are_normalized_between_0_and_1",
                    "search_after_close_and_reuse",
                    "skips_hidden_files",
                    "skips_reindex_for_unchanged_content",
                    "special_chars_in_content",
                ),
            ),
        ),
    ),
    Waiver(
        ("storage",),
        "its stash is in memory and is written into the snapshot for that reason: ours is durable",
        (
            Tests(
                _SNAPSHOTS,
                _NEW,
                _of(
                    "TestSnapshotStashIntegration",
                    "ephemeral_detection_survives_namespacing",
                    "immutable_snapshot_includes_stash",
                    "save_includes_inline_stash_for_ephemeral_storage",
                    "save_omits_stash_when_empty",
                ),
            ),
            Tests(
                "tests/strands/_context_manager/test_context_manager.py",
                _NEW,
                _of("TestStashIsDurable", "false_with_namespaced_in_memory_storage"),
            ),
        ),
    ),
    Waiver(
        ("storage",),
        "it puts a key without a value into the private dict of an InMemoryStorage",
        (
            Tests(
                _STORAGE + "search/test_keyword.py",
                _NEW,
                _of("TestKeywordSearch", "skips_keys_where_read_returns_none"),
            ),
        ),
    ),
)

WAIVERS = _ON_ANY_REPOSITORY + _ON_OUR_MANAGER + _ON_OUR_STORAGE


def reasons(kind: str, version: str) -> dict[str, str]:
    """Return the reason of each test that is waived on a version of Strands, by the test's id."""
    return {
        f"{tests.file}::{name}": waiver.reason
        for waiver in WAIVERS
        if kind in waiver.kinds
        for tests in waiver.tests
        if SpecifierSet(tests.versions, prereleases=True).contains(version)
        for name in tests.names
    }
