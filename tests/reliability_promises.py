"""What is promised of storage, errors, security and figures, in the order and the words of the reliability page."""

from __future__ import annotations

from reliability_cases import (
    ALONE,
    APP,
    BAD,
    BASELINE,
    BROKEN_BASELINE,
    CHECK,
    CONFIG,
    DATABASE,
    DISK,
    FULL,
    GATE,
    INTERRUPT,
    KILL,
    LOCK,
    MODELS,
    ONE_LINE,
    PATHS,
    RANK_CHAIN,
    RANK_LOST,
    RUN,
    SCREEN,
    SOURCE,
    STOP,
    STOPPED,
    STORE,
    STRANGERS,
    TABLES,
    WEIGHTS,
    WORKER_LOST,
    WORKER_LOST_AGAIN,
    WORKER_SILENT,
    WRITE,
    Case,
)

COMMANDS = "cli/test_cli_commands.py::"
OVERHEAD = "measure/test_harness_overhead.py::"

STORAGE = (
    Case(
        "`results/<name>/run.sqlite` is the truth",
        "everything comes back as it was put",
        (f"{STORE}test_everything_comes_back", f"{STORE}test_any_value_comes_back"),
    ),
    Case(
        "Everything else in the folder is derived and can be rebuilt by `tomebench report`",
        "the same bytes",
        (f"{DISK}test_everything_but_the_store_is_derived_and_comes_back_bit_by_bit",),
    ),
    Case(
        "written to a temporary file and renamed",
        "all the new files or all the earlier ones",
        (
            f"{DISK}test_a_full_disk_at_any_file_of_a_report_leaves_the_earlier_ones",
            f"{WRITE}test_a_full_disk_leaves_earlier_files_as_they_were",
            f"{WRITE}test_all_files_are_written_and_read_back",
        ),
    ),
    Case(
        "A transaction per completed burst round and per evaluated chunk: a kill loses at most the unit in progress",
        "everything acknowledged is there",
        (
            FULL,
            f"{DATABASE}test_a_killed_writer_loses_nothing_it_acknowledged",
            f"{DATABASE}test_an_interrupted_commit_leaves_nothing",
            f"{KILL}test_a_killed_sweep_resumes_to_the_result_of_an_undisturbed_one",
        ),
    ),
    Case(
        "The same configuration on the same `--out` resumes",
        "exit 0, nothing measured again",
        (f"{RUN}test_the_same_command_again_measures_nothing_again", f"{STORE}test_the_same_settings_go_on"),
    ),
    Case(
        "A different one is refused with the list of differing fields",
        ONE_LINE,
        (
            f"{DISK}test_other_settings_are_refused_with_the_list_of_what_differs",
            f"{STORE}test_other_settings_are_refused_and_listed",
        ),
    ),
    Case(
        "Resume redoes nothing that was committed; predictions and accuracy are identical",
        "identical table",
        (STOP, FULL, f"{RUN}test_a_stopped_sweep_goes_on_where_it_was"),
    ),
    Case(
        "Timing rounds carry their session, with a fresh warm-up",
        "sessions 1 and 2, warmed up twice",
        (f"{STOPPED}test_a_resumed_sweep_warms_up_anew_and_its_rounds_carry_their_session",),
    ),
    Case(
        "Two processes on one directory: the second stops at once, naming the first",
        ONE_LINE,
        (
            f"{DISK}test_a_second_writer_is_refused_and_names_the_first",
            f"{LOCK}test_the_second_process_names_the_first",
        ),
    ),
    Case(
        "Schema version stored; newer is refused with what to do",
        "exit 2, untouched",
        (f"{DATABASE}test_a_newer_store_is_refused_untouched",),
    ),
    Case(
        "Older is migrated on a copy",
        "the old file stays",
        (
            "runs/test_migration.py::test_going_on_migrates_a_copy_and_keeps_the_old_store",
            "runs/test_migration.py::test_reading_an_older_store_leaves_it_as_it_is",
        ),
    ),
    Case(
        "Free space is checked at the start",
        "exit 5, one line",
        (
            f"{DISK}test_too_little_space_is_refused_before_anything_is_measured",
            f"{DATABASE}test_little_free_space_is_refused",
        ),
    ),
    Case("A full disk ends with one clear line, nothing committed lost", "exit 5, one line", (FULL,)),
    Case(
        "Ctrl-C or SIGTERM: finish the burst or chunk (<= 2 s), flush, print the resume command",
        "exit 130",
        (
            STOP,
            f"{STOPPED}test_a_signal_after_the_last_measurement_still_writes_the_report",
            f"{INTERRUPT}test_the_first_signal_only_asks",
            f"{INTERRUPT}test_before_a_sweep_begins_a_signal_ends_the_program_at_once",
        ),
    ),
    Case("Twice: at once", "exit 130", (f"{INTERRUPT}test_the_second_signal_ends_the_process_at_once",)),
    Case(
        "Out of memory at some r: that cell fails, batch size is not changed, the sweep goes on",
        "exit 5",
        (
            ALONE,
            f"{RUN}test_a_cell_out_of_memory_fails_alone",
            f"{COMMANDS}test_exit_5_if_a_cell_could_not_be_measured",
        ),
    ),
    Case(
        "A dead or hanging data worker: retried once in-process, then a clear error",
        ONE_LINE,
        (WORKER_LOST, WORKER_LOST_AGAIN, WORKER_SILENT),
    ),
    Case(
        "A dead or hanging rank: all stop within a minute, naming it",
        "one line",
        (
            RANK_LOST,
            "ranks/test_heartbeat.py::test_work_that_does_not_go_on_is_silence",
            "ranks/test_heartbeat.py::test_a_pass_that_never_ends_is_silence",
            "ranks/test_heartbeat.py::test_a_store_that_never_answers_ends_the_process",
        ),
    ),
    Case(
        "JSON is written with `allow_nan=False`",
        "an error, never a NaN",
        (
            f"{SOURCE}test_the_source_has_none_of_it",
            f"{TABLES}test_json_never_holds_nan",
            f"{STORE}test_no_not_a_number_is_ever_stored",
            f"{SCREEN}test_json_refuses_what_is_no_number",
            "test_schema.py::test_what_is_not_a_number_has_no_json",
        ),
    ),
    Case(
        "Missing is null",
        "null, never 0",
        (
            f"{COMMANDS}test_json_is_one_object_and_nothing_else",
            "test_schema.py::test_what_is_not_measured_is_none_and_never_zero",
        ),
    ),
)

ERRORS = (
    Case(
        "Bad input gets one line on stderr: what is wrong, and what to do; the documented exit code, no traceback",
        "one line, exit code of the error",
        (
            f"{APP}test_bad_usage_is_one_line_and_exit_2",
            f"{APP}test_every_error_is_one_line_with_its_exit_code",
            f"{APP}test_the_help_names_every_command_and_exit_code",
            "test_errors.py::test_exit_code",
        ),
    ),
    Case(
        "`--traceback` shows it", "a traceback above the line", (f"{APP}test_traceback_shows_where_an_error_came_from",)
    ),
    Case(
        "Earlier results stay byte-identical",
        "the same bytes",
        (
            f"{BAD}test_folders_that_are_no_data_set",
            f"{BAD}test_weights_of_something_else",
            f"{BAD}test_r_that_is_none",
            f"{BAD}test_yaml_that_says_something_else",
            f"{DISK}test_refused_can_fail",
        ),
    ),
    Case(
        "Paths and names are printed literally (`runs/[r=8]/x` must not lose its bracket)",
        "as they are",
        (
            PATHS[0],
            f"{SCREEN}test_data_is_printed_literally",
            f"{COMMANDS}test_a_sweep_ends_with_its_table_and_what_makes_it_complete",
            f"{APP}test_bad_usage_is_one_line_and_exit_2",
        ),
    ),
)

SECURITY = (
    Case(
        "Checkpoints: `.safetensors`; `.pth` only through `torch.load(weights_only=True)` on torch >= 2.10",
        "nothing is executed",
        (
            f"{BAD}test_a_pickle_with_a_payload_is_never_executed",
            f"{WEIGHTS}test_code_in_a_checkpoint_never_runs",
            f"{SOURCE}test_the_source_has_none_of_it",
            f"{SOURCE}test_torch_is_new_enough_for_weights_only",
        ),
    ),
    Case("No flag to weaken it", "no such flag", (f"{SOURCE}test_no_flag_weakens_it",)),
    Case(
        "No `trust_remote_code`, no pickled class maps",
        "not in the source",
        (f"{SOURCE}test_the_source_has_none_of_it", f"{SOURCE}test_violations_are_found"),
    ),
    Case(
        "`yaml.safe_load` and a strict schema",
        ONE_LINE,
        (
            f"{SOURCE}test_the_strict_loader_is_a_safe_one",
            f"{SOURCE}test_the_source_has_none_of_it",
            f"{CONFIG}test_what_is_wrong_with_a_file_takes_one_line",
        ),
    ),
    Case(
        "Archives are read member by member, never extracted to paths they name",
        "tars are read in place; extracting is not in the source",
        (
            f"{SOURCE}test_the_source_has_none_of_it",
            "datasets/test_tar.py::test_what_holds_no_bytes_of_its_own_is_refused",
        ),
    ),
    Case(
        "The network is used only to fetch weights the user named",
        "no connection",
        (
            f"{STRANGERS}test_what_needs_no_weights_from_elsewhere_asks_no_network",
            f"{SOURCE}test_the_source_has_none_of_it",
        ),
    ),
    Case(
        "`--offline` (and HF_HUB_OFFLINE) refuses with the file it would need",
        ONE_LINE,
        (
            f"{BAD}test_offline_names_the_file_that_it_would_need",
            f"{MODELS}test_offline_refuses_weights_that_are_not_in_the_cache",
        ),
    ),
    Case(
        "CSV cells that start with = + - @ and are text get a leading apostrophe",
        "never a formula",
        (
            "report/test_report_escape.py::test_formulas_are_guarded",
            "report/test_report_escape.py::test_guard_and_unguard_are_a_pair",
            f"{TABLES}test_text_is_inert_in_csv",
            f"{TABLES}test_csv_numbers_are_exact_and_untouched",
        ),
    ),
    # There is no html report.
    Case(
        "html is escaped; markdown pipes and newlines are escaped",
        "inert",
        ("report/test_report_escape.py::test_markdown", f"{TABLES}test_a_markdown_table_keeps_its_shape"),
    ),
    Case(
        "A baseline from a pull request is untrusted: size and depth caps, schema validation",
        "exit 4, one line",
        (
            BROKEN_BASELINE,
            f"{BASELINE}test_a_file_over_the_cap_is_not_read",
            f"{BASELINE}test_files_that_are_no_baseline",
            f"{BASELINE}test_values_that_cannot_be_are_refused",
            f"{CHECK}test_settings_in_a_baseline_that_cannot_be_used_are_its_fault",
            f"{GATE}test_a_gate_that_compared_nothing_is_red_everywhere",
        ),
    ),
)

FIGURES = (
    Case(
        "50 000 small images x 9 r under 200 random kills: identical predictions and table",
        "identical with 2 000 images and 3 kills, and with 10 000 and 50; both are slow tests",
        ("sweeps/test_kill_many.py::test_random_kills",),
    ),
    Case(
        "torchrun 1 -> 2 -> 3 ranks: identical",
        "identical",
        ("ranks/test_ranks.py::test_any_number_of_processes_gives_the_same_bits", RANK_CHAIN),
    ),
    Case(
        "Journal of a million bursts opens in under 10 s",
        "<= 10 s",
        ("runs/test_scale.py::test_a_million_bursts_open_in_under_ten_seconds",),
    ),
    Case(
        "Harness overhead <= 0.5 % of burst time",
        "<= 0.5 %",
        (
            f"{OVERHEAD}test_between_bursts_next_to_nothing_is_lost",
            f"{OVERHEAD}test_in_a_burst_the_clock_costs_next_to_nothing",
            f"{OVERHEAD}test_the_way_to_the_model_costs_next_to_nothing_of_the_smallest_pass_there_is",
        ),
    ),
    Case("Preflight of 50 000 files <= 2 s", "<= 2 s", ("datasets/test_preflight.py::test_preflight_of_50_000_files",)),
    Case(
        "`--help` <= 0.4 s",
        "<= 0.4 s, no torch",
        (f"{APP}test_help_imports_nothing_heavy", f"{APP}test_help_is_there_within_four_tenths_of_a_second"),
    ),
)
