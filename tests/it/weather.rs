//! Bad input and bad weather: what the agent says, and that it does nothing then which it should not.
//!
//! [`COVERED`] tells for each kind of misfortune which tests hold it; those that need a whole agent
//! or whole answers are here.

#![allow(clippy::unwrap_used, reason = "a check fails by panicking, in its helpers as well")]

mod aws;
mod etcd;
mod leaving;
mod metadata;
pub mod node;
pub mod sky;
mod volumes;
mod workers;

/// A misfortune, and where it is covered: a source file, and in it a test.
type Covered = (&'static str, &'static [(&'static str, &'static str)]);

const COVERED: &[Covered] = &[
    (
        "the metadata service is late",
        &[("tests/it/weather/metadata.rs", "a_metadata_service_that_is_late_is_asked_until_it_answers")],
    ),
    (
        "it is absent, or answers 401, 403, 404 or 5xx, or slowly",
        &[
            (
                "tests/it/weather/metadata.rs",
                "every_trouble_of_the_metadata_service_is_waited_for_by_its_name",
            ),
            (
                "tests/it/weather/etcd.rs",
                "an_agent_without_a_metadata_service_says_so_ends_when_asked_and_goes_on_when_it_is_back",
            ),
            ("src/aws/metadata/tests.rs", "each_status_has_its_name"),
            ("src/aws/metadata/tests.rs", "each_silence_has_its_name"),
            ("src/aws/metadata/tests.rs", "a_refused_token_is_replaced_once"),
        ],
    ),
    (
        "AWS throttles nearly every call",
        &[
            (
                "tests/it/weather/aws.rs",
                "lists_serve_again_while_aws_throttles_and_what_must_be_fresh_does_not",
            ),
            ("tests/it/weather/aws.rs", "a_look_is_made_whole_from_answers_that_never_come_together"),
            ("tests/it/weather/aws.rs", "a_refusal_is_said_at_once_whatever_was_told_before"),
            ("src/observe/kept.rs", "an_old_answer_does_not_serve_and_using_it_makes_it_no_younger"),
            ("src/aws/retries.rs", "a_worker_comes_down_to_one_attempt_a_call"),
            ("src/aws/retries.rs", "a_control_plane_s_quota_is_bounded_and_comes_back_with_time"),
            ("src/lab/drill/throttled.rs", "day"),
        ],
    ),
    (
        "tags are not published",
        &[
            ("tests/it/weather/metadata.rs", "tags_that_are_not_published_are_ec2_s_to_tell_and_waited_for"),
            (
                "tests/it/weather/metadata.rs",
                "one_question_without_an_answer_is_not_taken_for_something_that_is_not_set",
            ),
        ],
    ),
    (
        "user data are malformed, a truncated gzip, or of a wrong MIME type",
        &[
            ("tests/it/weather/metadata.rs", "user_data_that_can_not_be_used_halt_with_their_name_and_place"),
            ("tests/it/weather/metadata.rs", "a_part_of_another_type_is_not_ours_and_says_nothing"),
            ("src/config/tests/user_data.rs", "damaged_packing_is_refused_and_named"),
            ("src/config/tests/user_data.rs", "malformed_mime_is_refused_and_named"),
            ("src/config/tests/user_data.rs", "a_part_of_ours_that_is_damaged_is_refused_by_number"),
            ("src/config/tests/user_data.rs", "no_bytes_make_the_reader_panic"),
        ],
    ),
    (
        "user data have all their 16 KB, or more",
        &[
            ("tests/it/weather/metadata.rs", "user_data_of_all_their_sixteen_kilobytes_arrive_whole"),
            ("src/config/tests/user_data.rs", "sixteen_kilobytes_are_taken_and_one_more_is_not"),
        ],
    ),
    (
        "there is no such bucket",
        &[("tests/it/weather/aws.rs", "a_bucket_that_is_not_there_is_waited_for_and_said")],
    ),
    ("S3 denies access", &[("tests/it/weather/aws.rs", "access_denied_by_s3_says_what_to_allow")]),
    (
        "S3 fails amid an upload in parts, or gives no answer to its end",
        &[
            ("src/aws/objects/tests/uploads.rs", "a_part_that_fails_is_sent_again"),
            ("src/aws/objects/tests/uploads.rs", "a_lost_answer_to_an_end_that_took_effect_is_an_upload"),
            (
                "src/aws/objects/tests/uploads.rs",
                "an_upload_that_can_not_be_ended_says_that_its_parts_are_left",
            ),
            ("tests/it/contract/transfers.rs", "bad_weather_reaches_every_call_of_a_transfer"),
        ],
    ),
    (
        "S3 breaks off a body, or the object changes meanwhile",
        &[
            ("src/aws/objects/tests/downloads.rs", "a_body_that_breaks_off_is_continued_where_it_ended"),
            ("src/aws/objects/tests/downloads.rs", "a_body_is_never_continued_by_another_version"),
            (
                "tests/it/contract/transfers.rs",
                "an_upload_whose_end_was_not_answered_is_one_and_a_broken_download_goes_on",
            ),
        ],
    ),
    (
        "S3 rejects the clock",
        &[
            ("tests/it/weather/aws.rs", "a_clock_that_s3_refuses_is_said_to_be_wrong"),
            ("tests/it/weather/aws.rs", "a_clock_that_is_wrong_is_made_up_for_once_s3_has_told_the_time"),
        ],
    ),
    (
        "the charter can't be understood",
        &[("tests/it/weather/aws.rs", "a_charter_that_can_not_be_understood_is_unknown_and_never_absent")],
    ),
    (
        "EC2 throttles for minutes",
        &[
            ("tests/it/weather/aws.rs", "a_region_that_throttles_for_minutes_is_waited_out"),
            ("src/agent/tests.rs", "a_round_without_an_answer_does_not_begin_a_patience_anew"),
            ("src/agent/tests.rs", "a_change_is_told_once_and_every_look_is_written_down"),
        ],
    ),
    (
        "peers are in another region",
        &[("tests/it/weather/aws.rs", "a_cluster_of_another_region_is_refused_with_both_regions")],
    ),
    (
        "two free volumes are in the zone",
        &[("tests/it/weather/aws.rs", "of_two_free_volumes_neither_is_taken_and_both_are_named")],
    ),
    (
        "a volume holds foreign data, or a partition table",
        &[
            ("tests/it/weather/volumes.rs", "what_is_foreign_on_a_volume_is_named_and_nothing_is_written"),
            ("tests/it/disks.rs", "another_s_file_system_is_left_alone"),
            ("tests/it/disks.rs", "a_partition_table_is_left_alone"),
            ("tests/it/disks.rs", "bytes_that_nobody_knows_are_left_alone_at_head_and_tail"),
        ],
    ),
    (
        "a volume carries another cluster's stamp, or another slot's",
        &[("tests/it/weather/volumes.rs", "a_stamp_of_another_cluster_slot_or_volume_is_refused_with_both")],
    ),
    (
        "the file system is read-only",
        &[
            ("tests/it/weather/volumes.rs", "a_file_system_that_is_read_only_halts_and_is_not_written_to"),
            ("tests/it/disks.rs", "ext4_is_mounted_grown_seen_read_only_and_unmounted"),
        ],
    ),
    ("the disk is full", &[("tests/it/disks.rs", "a_full_disk_is_named_and_leaves_the_old_files_whole")]),
    (
        "etcd's program is missing",
        &[("tests/it/weather/etcd.rs", "a_missing_program_is_named_and_found_once_it_is_there")],
    ),
    ("it has a wrong version", &[("tests/it/weather/etcd.rs", "a_wrong_version_halts_until_it_is_replaced")]),
    (
        "it crashes at once",
        &[(
            "tests/it/weather/etcd.rs",
            "one_that_crashes_at_once_is_started_again_after_a_pause_and_its_last_words_are_told",
        )],
    ),
    ("its port is taken", &[("tests/it/weather/etcd.rs", "a_port_that_is_taken_is_the_reason_that_is_told")]),
    (
        "workers come before their cluster",
        &[
            ("tests/it/weather/workers.rs", "a_worker_without_a_cluster_waits_and_asks_nobody_but_s3"),
            ("tests/it/planner/worker.rs", "nothing_is_done_before_there_is_a_cluster"),
        ],
    ),
    (
        "what is published to workers is damaged, another cluster's, a later version's, or forbidden",
        &[(
            "tests/it/weather/workers.rs",
            "what_is_published_and_can_not_be_used_is_named_and_nothing_is_done",
        )],
    ),
    (
        "a bootstrap token ended while it was waited for",
        &[("tests/it/weather/workers.rs", "a_token_that_ended_is_not_used_and_the_next_one_is")],
    ),
    (
        "the load balancer's name does not resolve, or nobody answers there",
        &[
            ("tests/it/weather/workers.rs", "an_api_whose_name_does_not_resolve_is_said_until_it_does"),
            ("tests/it/planner/worker.rs", "what_the_api_does_not_answer_is_told"),
        ],
    ),
    (
        "the kubelet exits, or never registers",
        &[
            (
                "tests/it/weather/workers.rs",
                "a_kubelet_that_starts_and_exits_is_said_with_its_end_and_started_once_it_is_mended",
            ),
            ("tests/it/planner/worker.rs", "a_worker_joins_by_its_token_and_becomes_a_node"),
        ],
    ),
    (
        "a worker's time is not set",
        &[("tests/it/planner/worker.rs", "a_clock_that_is_not_set_is_waited_for_before_the_kubelet_asks")],
    ),
    (
        "a worker has another cluster's or another node's identity on its disk",
        &[
            ("tests/it/weather/workers.rs", "an_identity_of_another_cluster_is_set_aside_whole"),
            ("tests/it/planner/worker.rs", "the_identity_that_an_image_was_made_with_is_set_aside"),
        ],
    ),
    (
        "a departure can't be written down",
        &[("tests/it/weather/leaving.rs", "a_departure_that_can_not_be_written_down_has_begun_all_the_same")],
    ),
    (
        "the agent is killed after every single step, on one node and on all at once",
        &[("src/lab/drill/steps.rs", "crash_steps")],
    ),
];

#[test]
fn every_misfortune_has_the_tests_that_are_named() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (misfortune, tests) in COVERED {
        assert!(!tests.is_empty(), "{misfortune} is not covered");
        for (file, test) in *tests {
            let text = std::fs::read_to_string(root.join(file)).unwrap();
            assert!(text.contains(&format!("fn {test}(")), "{misfortune}: {file} has no {test}");
        }
    }
}
