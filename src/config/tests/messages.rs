use super::*;

#[test]
fn an_unknown_key_is_named_with_its_place_and_a_suggestion() {
    insta::assert_snapshot!(errors_in("etcd:\n  sise: 3\n"), @"");
    insta::assert_snapshot!(errors_in("etcd:\n  volume:\n    fileSystem: xfs\n    kms_key_id: alias/a\n"), @"");
    insta::assert_snapshot!(errors_in("size: 3\nheartbeatInterval: 1s\n"), @"");
    insta::assert_snapshot!(errors_in("etcd.size: 3\n"), @"");
    insta::assert_snapshot!(errors_in("founding:\n  quickly: 3\nkubernetes: {}\n"), @"");
}

#[test]
fn a_wrong_type_says_what_was_found_and_what_was_expected() {
    insta::assert_snapshot!(errors_in(
        "cluster: 12\nbucket: [a]\netcd: 3\ntick: 10\nlog:\n  level: true\ngroups: demo\nfounding: []\n"
    ), @"");
    insta::assert_snapshot!(errors_in(
        "etcd:\n  size: \"3\"\n  quota: 8\n  snapshotCount: 1.5\n  zones: [1, {}]\n  logLevel:\n  volume:\n    iops: 010\n    size: {}\n"
    ), @"");
    insta::assert_snapshot!(errors_in("- cluster\n"), @"");
    insta::assert_snapshot!(errors_in("cluster\n"), @"");
}

#[test]
fn a_value_out_of_range_says_the_range() {
    insta::assert_snapshot!(errors_in(
        "etcd:\n  size: 2\n  heartbeatInterval: 9ms\n  electionTimeout: 51s\n  quota: 63MiB\n  snapshotCount: 99\n  autoCompaction:\n    retention: 1s\n  volume:\n    size: 1025MiB\n    iops: 99\n    throughput: 2001\n    wait: 0s\nfounding:\n  patience: 25h\ntick: 500ms\n"
    ), @"");
    insta::assert_snapshot!(errors_in("etcd:\n  size: -1\n  snapshotCount: 99999999999999999999\n  quota: 99999999999999TiB\n"), @"");
}

#[test]
fn a_value_that_breaks_its_rule_says_the_rule() {
    insta::assert_snapshot!(errors_in(
        "cluster: Demo\nbucket: my_bucket\nprefix: /a/\nrole: control-plan\nregion: Europe\nkmsKeyId: key\ngroups: [a, a, 'b c']\n"
    ), @"");
    insta::assert_snapshot!(errors_in(
        "etcd:\n  zones: [eu-west-1]\n  binary: etcd\n  heartbeatInterval: 100 ms\n  quota: 8GB\n  logLevel: warning\n  volume:\n    device: xvdf\n    filesystem: btrfs\n    type: gp4\n"
    ), @"");
}

#[test]
fn a_duplicate_key_is_an_error_wherever_it_stands() {
    insta::assert_snapshot!(errors_in("tick: 5s\nlog: {level: info}\ntick: 6s\netcd:\n  size: 3\n  size: 5\n"), @"");
}

#[test]
fn text_that_is_not_yaml_is_named_with_its_place() {
    insta::assert_snapshot!(errors_in("cluster: demo\n bucket: x\n"), @"");
    insta::assert_snapshot!(errors_in("etcd: {size: 3\n"), @"");
    insta::assert_snapshot!(errors_in("tick: 5s\n---\ntick: 6s\n"), @"");
    insta::assert_snapshot!(errors_in("a: *b\n"), @"");
    insta::assert_snapshot!(errors_in(&format!("etcd: {}{}\n", "[".repeat(40), "]".repeat(40))), @"");
    insta::assert_snapshot!(errors_in("tick: !seconds 5\n"), @"");
    insta::assert_snapshot!(errors_in("<<: {tick: 5s}\n"), @"");
}

#[test]
fn values_that_do_not_go_together_are_refused_where_they_were_set() {
    insta::assert_snapshot!(errors_in("etcd:\n  heartbeatInterval: 300ms\n"), @"");
    insta::assert_snapshot!(errors_in("etcd:\n  electionTimeout: 400ms\n"), @"");
    insta::assert_snapshot!(errors_in("etcd:\n  autoCompaction:\n    mode: revision\n"), @"");
    insta::assert_snapshot!(errors_in("etcd:\n  autoCompaction:\n    retention: 5000\n"), @"");
    insta::assert_snapshot!(errors_in("region: eu-west-1\netcd:\n  zones: [eu-west-1a, eu-west-2a]\n"), @"");
    insta::assert_snapshot!(errors_in("etcd:\n  volume: {source: created, size: 8GiB}\n"), @"");
}

#[test]
fn a_volume_type_takes_only_what_ebs_gives_it() {
    let volume = |text: &str| errors_in(&format!("etcd:\n  volume: {{{text}}}\n"));
    insta::assert_snapshot!(volume("type: gp2, iops: 3000, throughput: 125"), @"");
    insta::assert_snapshot!(volume("type: gp3, iops: 100"), @"");
    insta::assert_snapshot!(volume("source: created, type: io2"), @"");
    insta::assert_snapshot!(volume("type: io1, iops: 70000, size: 2GiB"), @"");
}

#[test]
fn what_nobody_set_is_named_with_where_to_set_it() {
    let empty = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(errors_of(empty.path(), None, &InstanceTags::default()), @"");
}

#[test]
fn a_tag_is_checked_like_any_value() {
    let tags = InstanceTags { cluster: Some("Demo!".to_owned()), role: Some("workr".to_owned()) };
    let empty = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(errors_of(empty.path(), None, &tags), @"");
    let tags = InstanceTags { cluster: Some(String::new()), role: Some("3".to_owned()) };
    insta::assert_snapshot!(errors_of(empty.path(), None, &tags), @"");
}

#[test]
fn all_errors_of_all_sources_are_reported_at_once() {
    let root = root(&[
        ("usr/lib/quorate/config.d/10.yaml", "clutser: demo\ntick: 1h\n"),
        ("etc/quorate/config.d/20.yaml", "cluster: [\n"),
        ("etc/quorate/config.d/30.yml", "cluster: demo\n"),
        ("etc/quorate/config.d/40.yaml", "etcd: {size: 4}\n"),
    ]);
    let tags = tagged("boss");
    insta::assert_snapshot!(errors_of(root.path(), Some(b"#quorate-config\nprefix: /\n"), &tags), @"");
}

#[test]
fn a_file_that_is_no_text_or_too_long_or_no_file_is_named() {
    let root = root(&[("etc/quorate/config.d/dir.yaml/x", "")]);
    let directory = root.path().join("etc/quorate/config.d");
    std::fs::write(directory.join("binary.yaml"), b"cluster: \xff\n").unwrap();
    std::fs::write(directory.join("long.yaml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    insta::assert_snapshot!(errors_of(root.path(), None, &tagged("worker")), @"");
    let missing = check_files(&["/nonexistent/a.yaml".into()], Completeness::Fragments).unwrap_err();
    insta::assert_snapshot!(missing, @"");
}

#[test]
fn a_directory_that_is_a_file_is_named() {
    let root = root(&[("etc/quorate/config.d", "")]);
    insta::assert_snapshot!(errors_of(root.path(), None, &tagged("worker")), @"");
}
