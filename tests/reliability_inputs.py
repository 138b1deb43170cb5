"""What a measurement is made of, and what files, surroundings and callers may do to it: each promise with its tests."""

from __future__ import annotations

from reliability_cases import APP, DATABASE, DECODE, LOCK, SOURCE, WEIGHTS, Case

MADE, RANKS, STORED = "sweeps/test_made.py::", "ranks/test_ranks.py::", "runs/test_stored.py::"
READERS, WDS, HFDS = "datasets/test_readers.py::", "datasets/test_wds.py::", "datasets/test_hfds.py::"
TRUTH, CHECKS, LOADER = "datasets/test_truth.py::", "datasets/test_checks.py::", "datasets/test_loader.py::"
CACHE, CHECK, AGAIN = "datasets/test_cache.py::", "cli/test_cli_check.py::", "cli/test_cli_check_again.py::"
RULES, TARS = "datasets/test_rules.py::", "datasets/test_tar.py::"
AMBIENT, TESTBED, MUTATIONS = "test_ambient.py::", "measure/test_testbed.py::", "test_mutations.py::"
DIGEST, OWN = "models/test_digest.py::", "models/test_own_checkpoint.py::"
COMMANDS, MODULE = "cli/test_cli_commands.py::", "test_api_module.py::"
YAML = "sweeps/test_config.py::test_what_is_wrong_with_a_file_takes_one_line"
BOUNDED = f"{MUTATIONS}test_a_changed_file_is_read_or_refused_in_one_line"

IDENTITY = (
    Case(
        "other images under the same names between two sessions",
        "refused, names the first",
        (
            f"{MADE}test_images_that_were_replaced_between_two_sessions_are_named",
            f"{MADE}test_an_image_that_is_replaced_under_a_later_pass_is_named",
        ),
    ),
    Case(
        "other weights under the same name",
        "refused; incomparable to a gate, not worse",
        (
            f"{MADE}test_other_weights_under_the_same_name_are_refused",
            "sweeps/test_published_weights.py::test_another_state_of_a_repository_goes_into_no_table_of_the_first",
            f"{CHECK}test_what_changed_since_the_baseline_is_named_and_other_weights_and_files_are_not_compared",
        ),
    ),
    Case(
        "other code, another Pillow or torch",
        "another folder",
        (
            f"{MADE}test_other_code_and_libraries_take_another_folder",
            f"{MADE}test_the_digest_of_the_code_is_that_of_what_makes_numbers",
        ),
    ),
    Case(
        "a rank of other code or with other images",
        "ends before its images count, names the rank",
        (f"{RANKS}test_a_rank_of_other_code_or_files_is_named_before_it_counts",),
    ),
    Case(
        "a cache of a folder with files of the same names, sizes and times; a link or another user's file in it",
        "decoded again; refused",
        (
            f"{CACHE}test_an_image_file_that_changed_is_not_there",
            f"{CACHE}test_a_cached_image_is_compared_with_what_its_file_holds",
            f"{CACHE}test_what_somebody_else_laid_there_is_not_written_to",
            f"{READERS}test_files_of_the_same_size_and_time_have_stamps_of_their_own",
        ),
    ),
    Case(
        "a file of a Hugging Face data set that another one of the same time replaces, also while it is read",
        "what the files hold now; refused while they change",
        (
            f"{HFDS}test_a_parquet_file_that_another_one_of_the_same_time_replaces_is_read_anew",
            f"{HFDS}test_the_tables_of_earlier_states_are_removed_after_a_while",
            f"{HFDS}test_a_file_that_changes_while_it_is_read_is_refused",
        ),
    ),
    Case(
        "one image under two names",
        "refused, names both",
        (
            f"{READERS}test_an_image_that_is_there_twice_is_refused_with_both_names",
            f"{RULES}test_files_that_are_one_on_other_machines_are_refused",
        ),
    ),
    Case(
        "class folders whose names differ in capitals or the coding of accents only",
        "refused, names both, unless a list has them both; single letters are classes in both cases",
        (
            f"{RULES}test_class_folders_that_are_one_on_other_machines_are_refused",
            f"{READERS}test_letters_are_classes_of_their_own_in_both_cases",
        ),
    ),
    Case(
        "files of labels, checksums and shards that say two things",
        "refused with the line or the sample",
        (
            f"{TRUTH}test_a_solution_that_contradicts_itself",
            f"{CHECKS}test_a_manifest_of_something_else",
            f"{WDS}test_samples_without_a_true_label",
            f"{WDS}test_a_shard_beside_its_copy",
        ),
    ),
    Case(
        "an image, or a class folder, in the folder of another class; labels that a class id in the name contradicts",
        "refused, names the image and both classes; own classes are let alone",
        (
            f"{RULES}test_an_image_of_another_class_by_its_name_is_refused",
            f"{RULES}test_an_id_in_the_name_of_an_image_of_own_classes_says_nothing",
            f"{RULES}test_numbered_folders_and_files_are_looked_at_for_ids_in_names_too",
            f"{WDS}test_labels_that_the_names_contradict",
            f"{HFDS}test_shifted_labels_are_noticed_by_titles_and_by_file_names",
        ),
    ),
    Case(
        "a data set that names files outside of it",
        "refused",
        (
            f"{HFDS}test_a_row_that_names_a_file_elsewhere_is_refused",
            f"{HFDS}test_settings_that_name_files_elsewhere_are_refused",
        ),
    ),
    Case(
        "a folder with val and validation",
        "refused, says how to choose",
        ("datasets/test_imagenet.py::test_two_validation_parts_are_not_chosen_between",),
    ),
    Case(
        "a gate whose second measurement is of other code",
        "the verdict stays",
        (f"{AGAIN}test_only_the_same_code_on_the_same_machine_can_acquit",),
    ),
    Case(
        "a rank killed under torchrun --max-restarts",
        "the group that is started again goes on, same table",
        (f"{RANKS}test_a_group_that_torchrun_starts_again_goes_on",),
    ),
    Case(
        "run folder or store taken away while a sweep writes",
        "exit 5, one line",
        (f"{DATABASE}test_a_store_that_is_taken_away_ends_the_run",),
    ),
    Case(
        "images moved, copied or touched; weights saved again",
        "goes on",
        (
            f"{MADE}test_a_data_folder_may_be_copied_and_its_files_touched",
            f"{MADE}test_a_resaved_file_of_the_same_tensors_is_the_same_weights",
            f"{MADE}test_files_that_are_the_same_files_are_not_read_again",
        ),
    ),
    Case(
        "a run from before all that was kept",
        "reports, and is not added to",
        (f"{MADE}test_a_run_from_before_reports_and_is_not_added_to",),
    ),
    Case(
        "default dtype or device, autocast, inference mode, precision and switches of the caller",
        "as in a new process, and given back; a mode that cannot be left is refused",
        (
            f"{AMBIENT}test_it_is_as_in_a_new_process_and_given_back",
            f"{AMBIENT}test_weights_pixels_and_logits_are_those_of_a_new_process",
            f"{AMBIENT}test_rows_are_those_of_a_new_process",
            f"{AMBIENT}test_a_mode_that_cannot_be_set_aside_is_refused",
            f"{AMBIENT}test_the_younger_interface_of_precisions_is_set_aside_and_given_back",
        ),
    ),
    Case(
        "--compile where the compiler is switched off",
        "refused, names the variable",
        ("sweeps/test_run_modes.py::test_compiling_where_the_compiler_is_switched_off_is_refused",),
    ),
    Case(
        "a model of Python whose own class, function, setting or unsaved buffer was edited",
        "another model",
        (
            f"{DIGEST}test_an_edited_class_is_another_one",
            f"{DIGEST}test_another_function_of_a_layer_is_another_layer",
            f"{DIGEST}test_another_setting_of_a_layer_is_another_layer",
            f"{DIGEST}test_a_buffer_that_is_not_saved_is_a_tensor_of_the_model",
            f"{DIGEST}test_the_same_model_has_the_same_digests",
        ),
    ),
    Case(
        "parts of a sweep, or runs in one table, of other images under the same names",
        "no table of parts; named beside others",
        (
            f"{COMMANDS}test_parts_of_one_sweep_are_of_the_same_images_and_model",
            f"{COMMANDS}test_report_says_where_images_of_one_name_are_not_the_same",
            f"{MADE}test_the_origin_of_a_run_tells_it_from_one_of_other_images_or_weights",
        ),
    ),
    Case(
        "a checkpoint that is replaced while it is read, with two states, or one tensor in two shards",
        "refused",
        (
            f"{OWN}test_a_file_that_is_replaced_while_it_is_read_names_no_weights",
            f"{OWN}test_of_two_states_that_are_no_mean_of_another_none_is_taken",
            f"{OWN}test_shards_with_an_index",
        ),
    ),
    Case(
        "a checkpoint that states other preprocessing than its model has",
        "a line says so",
        (f"{OWN}test_preprocessing_that_a_checkpoint_states_is_not_passed_over_in_silence",),
    ),
    Case(
        "layers that nobody counts, recomputed activations, quantised tensors",
        "refused by name",
        (
            "backbones/test_timm_vit_refusals.py::test_a_model_with_something_added",
            f"{MODULE}test_a_model_that_computes_activations_anew_is_not_timed_as_one_that_keeps_them",
            f"{MODULE}test_a_quantised_model_is_refused_by_name",
        ),
    ),
    Case(
        "variables that take instructions from a CPU",
        "another testbed",
        (f"{TESTBED}test_variables_that_change_a_cpu_are_part_of_the_testbed",),
    ),
)

DOORS = (
    Case(
        "every kind of file is opened in one place",
        "a call elsewhere fails the tests",
        (f"{SOURCE}test_nobody_goes_round_the_doors_for_files", f"{SOURCE}test_a_way_round_a_door_is_found"),
    ),
    Case(
        "thousands of files of every kind, changed at random",
        "read, or one line; nothing else on stderr, 10 s and 2 GiB at most",
        (BOUNDED, f"{MUTATIONS}test_whole_files_are_read"),
    ),
    Case(
        "an image that starts a program, is thin, huge or of 16 bits",
        "named decoders only; refused by name, or the right pixels",
        (
            f"{DECODE}test_what_no_data_set_is_made_of_is_no_image",
            f"{DECODE}test_a_thin_image_is_refused_before_it_is_resized",
            f"{DECODE}test_a_file_larger_than_any_image_is_not_read",
            f"{DECODE}test_gray_of_sixteen_bits_is_scaled_to_eight",
            f"{DECODE}test_pixels_that_do_not_say_what_white_is_are_refused",
            f"{DECODE}test_a_damaged_tiff_is_one_line",
        ),
    ),
    Case(
        "images of every format that is decoded, in folders, tars and shards",
        "read, none is ignored for its name",
        (
            f"{RULES}test_all_readers_take_images_of_all_formats",
            f"{DECODE}test_names_end_as_those_of_all_formats_that_are_decoded",
            f"{DECODE}test_named_formats_are_read_by_content",
        ),
    ),
    Case(
        "links that wait where a lock or a report is to be written",
        "not followed",
        (f"{SOURCE}test_files_are_written_through_no_link", f"{LOCK}test_any_lock_file_can_be_taken_over"),
    ),
    Case(
        "a foreign journal, a log of another run or moment, links beside a store",
        "refused; nothing is removed",
        (
            f"{DATABASE}test_a_foreign_journal_is_refused_and_removes_nothing",
            f"{DATABASE}test_links_in_a_run_folder_are_not_followed",
            f"{DATABASE}test_a_file_and_a_log_of_two_moments_are_consistent_or_refused",
            f"{DATABASE}test_the_log_of_another_run_is_refused",
        ),
    ),
    Case(
        "a store whose checksums fit and whose values are nonsense",
        "one line, exit 2",
        (
            f"{STORED}test_a_value_that_no_sweep_writes_is_one_line",
            f"{STORED}test_any_change_of_a_value_is_refused_or_harmless",
        ),
    ),
    Case(
        "checkpoints with odd keys, tensors, shapes, two prefixes, a header of 90 MB",
        "one line naming the tensor, within seconds",
        (
            f"{WEIGHTS}test_tensors_that_hold_no_weights_are_named_with_what_they_are",
            f"{WEIGHTS}test_position_embeddings_of_any_shape_are_named",
            f"{WEIGHTS}test_one_tensor_of_another_code_base_beside_a_right_state_is_named",
            f"{WEIGHTS}test_a_header_that_no_model_has_is_not_read",
            "models/test_own_checkpoint.py::test_two_tensors_of_one_name_are_refused",
        ),
    ),
    Case("YAML with aliases, numbers of YAML 1.1, a pipe", "one line, YAML 1.2", (YAML,)),
    Case(
        "tars with a negative size or a member under 150 000 folders",
        "one line",
        (
            f"{TARS}test_a_member_of_negative_size_is_refused",
            f"{TARS}test_a_member_under_too_many_folders_is_refused_at_once",
        ),
    ),
    Case(
        "links, hard links, sparse files and devices in a tar",
        "refused, names the first; none is left out in silence",
        (
            f"{TARS}test_what_holds_no_bytes_of_its_own_is_refused",
            f"{TARS}test_a_link_that_a_later_file_takes_the_place_of_is_that_file",
        ),
    ),
    Case(
        "hidden files, and manifests from Windows or through a pipe",
        "the same rules in all readers",
        (
            f"{WDS}test_hidden_files_are_no_shards",
            f"{CHECKS}test_a_manifest_that_windows_wrote_says_the_same",
            f"{CHECKS}test_a_pipe_is_no_manifest",
        ),
    ),
    Case(
        "outputs that cannot be written",
        "said before anything is measured",
        (f"{CHECK}test_bad_input_is_one_line", "cli/test_cli_disk.py::test_a_read_only_folder_is_one_line"),
    ),
)

SURROUNDINGS = (
    Case(
        "little or read-only shared memory",
        "images are read in this process, and it is said",
        (f"{LOADER}test_without_room_for_batches_no_workers_are_started",),
    ),
    Case(
        "a TMPDIR too long for sockets",
        "one line that names it",
        (f"{LOADER}test_a_name_too_long_for_sockets_is_said",),
    ),
    Case(
        "a script without its guard",
        "the last line says what to write",
        (f"{LOADER}test_a_script_without_its_guard_is_named",),
    ),
    Case("a CPU quota of cgroup v1 or v2", "counted", (f"{TESTBED}test_usable_cpus_are_those_of_the_cgroup",)),
    Case(
        "workers that die, hang or are stopped",
        "read here once, then one line",
        (
            f"{LOADER}test_a_worker_that_dies_or_hangs_is_replaced_once",
            f"{LOADER}test_workers_that_die_again_end_the_pass_in_one_line",
        ),
    ),
    Case(
        "kill -9 of the resource tracker of Python",
        "the undisturbed table, nothing on stderr",
        (f"{LOADER}test_the_tracker_of_what_processes_share_may_be_killed",),
    ),
    Case(
        "a full disk under stderr",
        "all results, exit 0",
        (f"{APP}test_a_full_disk_under_stderr_loses_what_is_said_and_no_result",),
    ),
    Case(
        "ulimit -v",
        "one line that names it",
        (f"{APP}test_a_limit_of_the_address_space_is_named",),
    ),
    Case(
        "one slow cell of a run with values of an option",
        "exit 3, names the cell; measured again with all values",
        (
            f"{AGAIN}test_one_slow_cell_of_several_with_the_same_r_is_named",
            "gate/test_again.py::test_every_word_is_understood",
        ),
    ),
)
