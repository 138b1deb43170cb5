"""What can go wrong, in the order and the words of the reliability page: each with its outcome and its tests.

A test stands here as ``file::function``, the file without ``tests/``; all its parameters belong to it.
"""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    """One thing that can go wrong, or one promise."""

    text: str
    outcome: str
    tests: tuple[str, ...]


APP, BAD, CELLS = "cli/test_cli_app.py::", "cli/test_cli_bad_input.py::", "cli/test_cli_odd_cells.py::"
DISK, STOPPED, STRANGERS = "cli/test_cli_disk.py::", "cli/test_cli_stopped.py::", "cli/test_cli_untrusted.py::"
CHECK, INTERRUPT, SCREEN = "cli/test_cli_check.py::", "cli/test_cli_interrupt.py::", "cli/test_cli_console.py::"
DECODE, FOLDERS, IMAGES = "datasets/test_decode.py::", "datasets/test_imagenet.py::", "datasets/test_images.py::"
WEIGHTS, MODELS, R = "models/test_checkpoint.py::", "models/test_create.py::", "test_rspec.py::"
PROBE, COUNTS, SPEED = "measure/test_probe.py::", "measure/test_accuracy.py::", "measure/test_speed.py::"
RUN, STORE, DATABASE = "sweeps/test_run.py::", "runs/test_store.py::", "runs/test_database.py::"
LOCK, CONFIG, COLUMNS = "runs/test_lock.py::", "sweeps/test_config.py::", "runs/test_speed_columns.py::"
BASELINE, COMPARE, GATE = "gate/test_baseline_file.py::", "gate/test_compare.py::", "report/test_gate_reports.py::"
TABLES, WRITE, SHOWN = "report/test_report_tables.py::", "report/test_report_write.py::", "report/test_report_text.py::"
ESCAPE, SOURCE, KILL = "report/test_report_escape.py::", "test_security.py::", "sweeps/test_kill.py::"

WORKER_LOST = "datasets/test_loader.py::test_a_worker_that_dies_or_hangs_is_replaced_once"
WORKER_LOST_AGAIN = "datasets/test_loader.py::test_workers_that_die_again_end_the_pass_in_one_line"
WORKER_SILENT = "datasets/test_loader.py::test_images_that_never_come_end_the_pass_within_its_limit"
RANK_LOST = "ranks/test_ranks.py::test_a_rank_that_dies_or_freezes_is_named"
RANK_CHAIN = "ranks/test_ranks.py::test_other_numbers_of_processes_in_turn_resume_to_the_same_table"
BROKEN_BASELINE = f"{CHECK}test_a_broken_baseline_is_exit_4_and_red_in_every_report"
FLAT = f"{BAD}test_folders_that_are_no_data_set"
KINDS = f"{BAD}test_images_of_every_kind_are_counted_and_a_bomb_is_refused"
PATHS = (f"{BAD}test_paths_of_any_name_work", f"{FOLDERS}test_strange_names_are_opened", f"{STORE}test_any_folder_name")
NO_R = (f"{BAD}test_r_that_is_none", f"{R}test_refuses_in_one_line")
NO_DEVICE = f"{BAD}test_devices_and_dtypes_that_are_not_there"
NO_CLOCK = (
    f"{CELLS}test_a_clock_that_cannot_be_right_is_one_line",
    f"{SPEED}test_a_clock_that_cannot_be_right_is_an_error",
)
NO_YAML = (f"{BAD}test_yaml_that_says_something_else", f"{CONFIG}test_what_is_wrong_with_a_file_takes_one_line")
INERT = (
    f"{STRANGERS}test_a_name_in_a_table_is_inert_in_every_file_and_on_the_terminal",
    f"{STRANGERS}test_a_name_in_a_baseline_is_inert_in_a_workflow",
    f"{BAD}test_a_model_name_is_inert_on_the_terminal",
)
ALONE = f"{CELLS}test_a_cell_fails_alone_and_the_sweep_ends_with_exit_5"
STOP = f"{STOPPED}test_a_sweep_stopped_in_a_phase_goes_on_to_the_same_table"
FULL = f"{DISK}test_a_full_disk_at_any_commit_loses_nothing_that_was_committed"
ONE_LINE = "exit 2, one line"

CASES = (
    Case("data path missing", ONE_LINE, (FLAT, f"{FOLDERS}test_missing", f"{IMAGES}test_specs_that_lead_nowhere")),
    Case("flat folder", ONE_LINE, (FLAT, f"{FOLDERS}test_flat")),
    Case("missing class folders", "true labels, said", (f"{FOLDERS}test_labels_are_positions_in_the_full_list",)),
    Case("extra class folders", ONE_LINE, (FLAT, f"{FOLDERS}test_unknown_beside_known")),
    Case(
        "empty class folders",
        "said; exit 2 if all are",
        (FLAT, f"{FOLDERS}test_nothing_inside", f"{FOLDERS}test_what_is_left_out_is_said"),
    ),
    Case("numeric class folders", ONE_LINE, (FLAT, f"{FOLDERS}test_numbered_folders")),
    Case("truncated JPEG at every 10 %", ONE_LINE, (f"{BAD}test_a_jpeg_cut_at_any_tenth", f"{DECODE}test_truncated")),
    Case("0-byte", ONE_LINE, (f"{BAD}test_files_that_are_no_images", f"{DECODE}test_reasons")),
    Case("HTML as .JPEG", ONE_LINE, (f"{BAD}test_files_that_are_no_images", f"{DECODE}test_reasons")),
    Case("no permission", ONE_LINE, (f"{BAD}test_an_image_without_permission_is_named", f"{DECODE}test_no_permission")),
    Case(
        "bit flips with `--verify`",
        "found before anything is measured",
        ("datasets/test_checks.py::test_a_flipped_bit_is_caught_by_its_checksum_only",),
    ),
    Case("PNG as JPEG", "read by content", (KINDS, f"{DECODE}test_png_named_jpeg_is_read_by_content")),
    Case("CMYK", "as RGB", (KINDS, f"{DECODE}test_jpeg_modes_become_rgb")),
    Case("gray", "as RGB", (KINDS, f"{DECODE}test_jpeg_modes_become_rgb")),
    Case("palette", "as RGB", (KINDS, f"{DECODE}test_palette_with_transparent_colours_does_not_warn")),
    Case("alpha", "as RGB", (KINDS, f"{DECODE}test_png_named_jpeg_is_read_by_content")),
    Case("EXIF", "ignored", (KINDS, f"{DECODE}test_exif_orientation_is_ignored")),
    Case("1x1", "read", (KINDS, f"{DECODE}test_one_pixel")),
    Case("bomb", ONE_LINE, (KINDS, f"{DECODE}test_reasons")),
    Case("non-UTF-8 paths", "work", PATHS),
    Case("newline paths", "work", PATHS),
    Case("markup paths", "work, printed literally", PATHS),
    Case(
        "300-character paths",
        "work; exit 2, one line if that is a single name",
        (PATHS[0], f"{BAD}test_a_name_that_no_file_can_have_is_bad_input"),
    ),
    Case(
        "corrupt safetensors",
        ONE_LINE,
        (f"{BAD}test_a_safetensors_file_cut_or_changed_anywhere", f"{WEIGHTS}test_damaged_files_are_one_line"),
    ),
    Case(
        "pickle with a payload (never executed)",
        ONE_LINE,
        (
            f"{BAD}test_a_pickle_with_a_payload_is_never_executed",
            f"{BAD}test_refused_sees_a_payload_that_ran",
            f"{WEIGHTS}test_code_in_a_checkpoint_never_runs",
        ),
    ),
    Case(
        "wrong classes",
        ONE_LINE,
        (
            f"{BAD}test_weights_of_something_else",
            f"{BAD}test_models_that_cannot_be_used",
            f"{WEIGHTS}test_another_number_of_classes_is_said_so",
        ),
    ),
    Case(
        "missing keys", ONE_LINE, (f"{BAD}test_weights_of_something_else", f"{WEIGHTS}test_what_does_not_fit_is_named")
    ),
    Case(
        "not a ViT",
        ONE_LINE,
        (f"{BAD}test_a_model_that_is_no_vit", f"{WEIGHTS}test_a_model_that_is_no_vit_takes_no_vit_weights"),
    ),
    Case("r negative", ONE_LINE, NO_R),
    Case("r not a number", ONE_LINE, NO_R),
    Case("r reversed range", ONE_LINE, NO_R),
    Case("r empty", ONE_LINE, NO_R),
    Case("r duplicate", ONE_LINE, (*NO_R, f"{R}test_a_long_list_with_repeats_is_refused_quickly")),
    Case("r huge", ONE_LINE, NO_R),
    Case("dtype not available", ONE_LINE, (NO_DEVICE,)),
    Case("device not available", ONE_LINE, (NO_DEVICE, "measure/test_clock.py::test_a_missing_gpu_is_refused")),
    Case(
        "out of memory in the probe",
        "half the batch size",
        (
            f"{CELLS}test_a_batch_that_does_not_fit_is_halved_until_it_does",
            f"{PROBE}test_the_largest_power_of_two_that_fits",
        ),
    ),
    Case(
        "out of memory at every size",
        ONE_LINE,
        (f"{CELLS}test_without_room_for_one_image_there_is_no_batch_size", f"{PROBE}test_not_even_one_image"),
    ),
    Case("out of memory at one r", "that cell fails, exit 5", (ALONE, f"{RUN}test_a_cell_out_of_memory_fails_alone")),
    Case(
        "another RuntimeError is not retried",
        "exit 1 in the probe, 5 in a cell",
        (
            f"{CELLS}test_another_error_in_the_probe_is_not_tried_again",
            f"{CELLS}test_a_failure_is_not_retried_in_the_same_run",
            f"{PROBE}test_another_error_is_not_tried_again",
        ),
    ),
    Case(
        "non-finite logits at one r",
        "no accuracy, exit 5",
        (ALONE, f"{COUNTS}test_nonfinite_logits_are_counted_and_never_right"),
    ),
    Case(
        "constant logits",
        "ties are counted",
        (f"{CELLS}test_constant_logits_are_ties_and_are_counted", f"{COUNTS}test_constant_logits_are_all_ties"),
    ),
    Case("clock returning zero", ONE_LINE, NO_CLOCK),
    Case("clock returning negative", ONE_LINE, NO_CLOCK),
    Case(
        "clock returning constant",
        ONE_LINE,
        (
            NO_CLOCK[0],
            f"{CELLS}test_a_clock_that_stands_still_between_bursts_does_no_harm",
            f"{CELLS}test_a_clock_that_stands_still_for_the_whole_pipeline_is_one_line",
            f"{SPEED}test_a_clock_that_stands_still_is_an_error",
        ),
    ),
    Case(
        "1 to 5 rounds",
        "a median without an interval",
        (f"{CELLS}test_few_rounds_have_a_median_and_no_interval", f"{COLUMNS}test_under_six_rounds_no_interval"),
    ),
    Case(
        "kill -9 at random moments of a sweep over thousands of images, resumed to the identical table",
        "identical table",
        (
            "sweeps/test_kill_many.py::test_random_kills",
            f"{KILL}test_a_killed_sweep_resumes_to_the_result_of_an_undisturbed_one",
        ),
    ),
    Case(
        "database truncated",
        "exit 5, one line, untouched",
        (
            f"{DISK}test_a_store_cut_short_anywhere_is_refused_untouched",
            f"{DATABASE}test_a_truncated_store_is_never_read",
        ),
    ),
    Case(
        "database with flipped bytes",
        "exit 5, one line, or the same table",
        (
            f"{DISK}test_flipped_bytes_end_in_one_line_or_in_the_same_table",
            f"{DATABASE}test_flipped_bits_never_change_a_result",
        ),
    ),
    Case(
        "full disk at each write",
        "exit 5, one line, nothing lost",
        (
            FULL,
            f"{DISK}test_a_real_disk_that_is_full_again_and_again",
            f"{DISK}test_a_full_disk_at_any_file_of_a_report_leaves_the_earlier_ones",
            f"{DISK}test_a_full_disk_leaves_earlier_files_of_a_check",
            f"{DATABASE}test_a_full_disk_loses_nothing_that_was_committed",
            f"{BASELINE}test_a_baseline_that_cannot_be_written_leaves_the_old_one",
            f"{APP}test_a_full_disk_under_stdout_is_one_line",
        ),
    ),
    Case(
        "two writers",
        "exit 2, one line that names the first",
        (
            f"{DISK}test_a_second_writer_is_refused_and_names_the_first",
            f"{LOCK}test_the_second_process_names_the_first",
            f"{LOCK}test_never_two_at_once",
        ),
    ),
    Case(
        "stale lock",
        "taken over",
        (
            f"{DISK}test_the_lock_of_a_process_that_is_gone_is_taken_over",
            f"{LOCK}test_the_lock_of_a_dead_process_is_no_obstacle",
        ),
    ),
    Case("Ctrl-C in each phase", "exit 130, resumed to the same table", (STOP,)),
    Case("worker killed", "retried once in-process, then one line", (WORKER_LOST, WORKER_LOST_AGAIN)),
    Case("rank killed", "all stop, naming it", (RANK_LOST,)),
    Case(
        "rank hanging",
        "all stop, naming it",
        (RANK_LOST, "ranks/test_heartbeat.py::test_a_pass_that_never_ends_is_silence"),
    ),
    Case("world size changed on resume", "identical table", (RANK_CHAIN,)),
    Case(
        "baseline missing",
        "exit 4, one line",
        (f"{CHECK}test_bad_input_is_one_line", f"{BASELINE}test_files_that_are_no_baseline"),
    ),
    Case("baseline empty", "exit 4, one line", (BROKEN_BASELINE, f"{BASELINE}test_files_that_are_no_baseline")),
    Case(
        "baseline truncated",
        "exit 4, one line",
        (BROKEN_BASELINE, f"{BASELINE}test_a_file_cut_short_anywhere_is_refused"),
    ),
    Case("baseline newer", "exit 4, one line", (BROKEN_BASELINE, f"{BASELINE}test_files_that_are_no_baseline")),
    Case(
        "baseline from another configuration",
        "exit 4, incomparable",
        (
            f"{CHECK}test_other_data_and_other_models_are_exit_4",
            f"{COMPARE}test_other_settings_are_incomparable_where_they_matter",
        ),
    ),
    Case("baseline with NaN", "exit 4, one line", (BROKEN_BASELINE, f"{BASELINE}test_nan_logits_are_refused")),
    Case("baseline 200 MB", "exit 4, one line", (BROKEN_BASELINE, f"{BASELINE}test_a_file_over_the_cap_is_not_read")),
    Case("model name `=HYPERLINK(...)`", "inert", (*INERT, f"{TABLES}test_text_is_inert_in_csv")),
    Case("model name `a|b<script>`", "inert", (*INERT, f"{TABLES}test_a_markdown_table_keeps_its_shape")),
    Case("model name `::error::x`", "inert", (*INERT, f"{GATE}test_an_annotation_cannot_start_another")),
    Case("model name with escape codes", "inert", (*INERT, f"{SHOWN}test_names_are_inert_on_a_screen")),
    Case("names in csv", "inert", (INERT[0], f"{TABLES}test_text_is_inert_in_csv")),
    Case("names in markdown", "inert", (INERT[0], f"{WRITE}test_names_are_inert_in_the_summary")),
    # There is no html report; what stands in for it are the reports whose readers render html: markdown and JUnit.
    Case(
        "names in html",
        "inert (there is no html report: in the summary and in JUnit)",
        (f"{WRITE}test_names_are_inert_in_the_summary", f"{GATE}test_junit_validates_and_counts_right"),
    ),
    Case(
        "names in workflow output",
        "inert",
        (INERT[1], f"{GATE}test_a_summary_is_inert_markdown", f"{GATE}test_an_annotation_cannot_start_another"),
    ),
    Case("names in the terminal", "inert", (INERT[0], INERT[2], f"{SHOWN}test_names_are_inert_on_a_screen")),
    Case("YAML with unknown keys", ONE_LINE, NO_YAML),
    Case("YAML with `no`", ONE_LINE, NO_YAML),
    Case("YAML with `1e-3`", ONE_LINE, NO_YAML),
    Case("YAML with tabs", ONE_LINE, NO_YAML),
    Case("read-only results folder", "exit 5, one line", (f"{DISK}test_a_read_only_folder_is_one_line",)),
)
