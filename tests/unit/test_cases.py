"""Inputs that once failed, each beside the tests that now hold it to its right value."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.conftest import ROOT

MEDIA = "tests/unit/media"

HELD: dict[str, list[str]] = {
    "ts-joined-reset.ts": [f"{MEDIA}/test_clock.py::test_halves_joined_over_a_jump_are_one_film"],
    "ts-joined-jump.ts": [f"{MEDIA}/test_clock.py::test_halves_joined_over_a_jump_are_one_film"],
    "stereo-out-of-phase.mp4": [f"{MEDIA}/test_audio.py::test_what_is_heard_in_the_source_is_heard_in_the_mono_audio"],
    "two-tracks-default-second.mkv": [f"{MEDIA}/test_tracks.py::test_the_audio_track_flagged_default_is_heard"],
    "thumbnail-track-first.mp4": [f"{MEDIA}/test_tracks.py::test_a_thumbnail_track_is_not_the_film"],
    "one-frame-8s-sound.mp4": [f"{MEDIA}/test_tracks.py::test_a_still_image_is_rejected_by_that_name"],
    "sound-format-changes.ts": [f"{MEDIA}/test_audio.py::test_audio_that_changes_its_form_is_heard_to_its_end_at_one_level"],
    "sound-mulaw-8k.mov": [f"{MEDIA}/test_audio.py::test_the_video_is_kept_whatever_the_audio_is"],
    "sound-after-1s-garbage.mp4": [
        f"{MEDIA}/test_audio.py::test_the_video_is_kept_whatever_the_audio_is",
        f"{MEDIA}/test_audio.py::test_the_recipe_says_how_much_of_the_audio_may_be_lost",
    ],
    "size-changes.ts": [f"{MEDIA}/test_damage.py::test_a_change_of_the_frame_size_is_noted"],
    "hevc-third-spoilt.mp4": [f"{MEDIA}/test_damage.py::test_slices_that_a_decoder_passes_over_with_a_warning_are_damage"],
    "cut-60.flv": [
        f"{MEDIA}/test_stated.py::test_a_header_that_states_more_than_there_is",
        f"{MEDIA}/test_stated.py::test_so_does_that_of_an_avi",
        f"{MEDIA}/test_stated.py::test_what_the_page_states_is_kept_and_held_against_what_is_found",
    ],
    "title-says-partial-file.mp4": [
        f"{MEDIA}/test_tracks.py::test_a_film_whose_title_speaks_of_a_partial_file_is_kept",
        f"{MEDIA}/test_log_lines.py::test_a_title_that_speaks_of_partial_files_is_a_title",
    ],
    "hflip-only.mp4": [
        f"{MEDIA}/test_tracks.py::test_a_mirrored_clip_has_no_rotation",
        f"{MEDIA}/test_tracks.py::test_rotation_is_what_the_display_matrix_says",
    ],
    "size-257x1.mp4": [f"{MEDIA}/test_tracks.py::test_a_video_of_one_line_is_too_small"],
    "animated.gif": [f"{MEDIA}/test_tracks.py::test_a_moving_image_is_a_clip"],
    "only-sound.mp4": [
        f"{MEDIA}/test_tracks.py::test_audio_alone_is_described",
        "tests/unit/media/test_audio_only.py::test_an_audio_file_gives_its_audio_and_no_video",
        "tests/unit/media/test_audio_only.py::test_audio_files_are_built_verified_opened_and_shown",
    ],
    "c09-p3-sdr.mp4": [
        "tests/unit/media/test_colour.py::test_a_saturated_p3_red_is_what_a_wide_gamut_display_shows",
        "tests/unit/media/test_colour.py::test_colours_are_at_most_four_levels_from_right_in_jpeg_and_mp4",
    ],
    "c15-untagged-portrait-1080x1920-bt709.mp4": [
        "tests/unit/media/test_colour.py::test_colours_are_at_most_four_levels_from_right_in_jpeg_and_mp4",
    ],
    "l01-counts-as-floats.csv": ["tests/unit/sources/test_list.py::test_a_list_is_read_as_it_stands"],
    "l03-one-odd-age-limit.csv": [
        "tests/unit/sources/test_list.py::test_a_cell_or_a_row_that_cannot_be_read_is_counted_once_and_the_others_are_read",
    ],
    "l11-header-spaces.csv": ["tests/unit/sources/test_list.py::test_a_list_is_read_as_it_stands"],
    "l17-lone-surrogate.jsonl": [
        "tests/unit/sources/test_list.py::test_a_cell_or_a_row_that_cannot_be_read_is_counted_once_and_the_others_are_read",
    ],
    "l18-huge-int.jsonl": ["tests/unit/sources/test_list.py::test_a_list_is_read_as_it_stands"],
    "l23-empty-dict.jsonl": [
        "tests/unit/sources/test_list.py::test_a_list_is_read_as_it_stands",
        "tests/unit/sources/test_list.py::test_what_a_list_holds_reaches_conditions_as_numbers_and_json_as_json",
    ],
    "l21-nan-in-json.jsonl": [
        "tests/unit/sources/test_list.py::test_what_a_list_holds_reaches_conditions_as_numbers_and_json_as_json",
    ],
    "l24-hashtags-by-pandas.csv": ["tests/unit/sources/test_list.py::test_a_list_is_read_as_it_stands"],
    "addresses as Path.as_uri() gives them": [
        "tests/unit/stages/test_fetch.py::test_a_file_address_is_percent_encoded_and_names_any_file",
    ],
    "h2-title-in-10th.jsonl": [
        "tests/parity/test_readers.py::test_hugging_face_datasets_never_drops_a_title_that_comes_late",
        "tests/parity/test_readers.py::test_every_json_member_has_every_key_in_layers_and_exports",
    ],
    "i4-not-adjacent.tar": [
        "tests/parity/test_index_webdataset.py::test_a_key_whose_members_are_not_adjacent_is_named_once_and_counted",
    ],
    "dup-chain": [
        "tests/unit/stages/test_duplicates.py::test_of_a_long_chain_only_clips_within_the_limit_of_one_that_stays_are_rejected",
        "tests/unit/stages/test_duplicates.py::test_what_stays_is_what_the_plain_rule_says",
    ],
    "README's depth through webdataset": [
        "tests/parity/test_snippets.py::test_the_first_snippet_of_the_readme_gives_the_values",
        "tests/parity/test_readers.py::test_depth_is_decoded_to_millimetres_and_nothing_else_is_touched",
    ],
    "joint tars with Hugging Face's datasets": [
        "tests/parity/test_readers.py::test_hugging_face_datasets_opens_the_folder_of_an_export_by_its_card",
        "tests/parity/test_snippets.py::test_the_readmes_hugging_face_snippet_gives_the_values",
    ],
    "an original and its mute copy": ["tests/unit/stages/test_duplicates.py::test_the_better_clip_stays_in_either_order"],
    "a folder with links, odd suffixes and a name that is not UTF-8": [
        "tests/unit/sources/test_folder.py::test_a_folder_gives_its_media_files_in_order_each_under_an_address_that_fetch_opens",
        "tests/unit/sources/test_folder.py::test_what_a_folder_skips_is_counted_by_kind",
    ],
    "a folder of titled clips through pipelines/sample.yaml": [
        "tests/unit/stages/test_filters.py::test_hashtags_are_asked_of_a_source_that_gives_them",
    ],
    "a report in a read-only working directory": [
        "tests/unit/test_commands.py::test_a_report_in_a_read_only_folder_is_one_line",
    ],
    "Ray's node agent killed": ["tests/fault/test_node_death.py::test_the_death_of_rays_own_processes_is_one_line"],
}  # fmt: skip


@cache
def functions_of(path: str) -> set[str]:
    return {node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("tests", HELD.values(), ids=HELD)
def test_an_input_that_once_failed_is_held_by_tests_that_are_there(tests: list[str]) -> None:
    named = [test.partition("::") for test in tests]
    assert named
    assert [f"{path}::{name}" for path, _, name in named if name not in functions_of(path)] == []
