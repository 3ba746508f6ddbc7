use super::*;

#[test]
fn an_unknown_key_is_named_with_its_place_and_a_suggestion() {
    insta::assert_snapshot!(errors_in("etcd:\n  sise: 3\n"), @r#"
    /etc/quorate/config.d/20.yaml:2:3: unknown key `etcd.sise`
      hint: did you mean `etcd.size`?
    "#);
    insta::assert_snapshot!(errors_in("etcd:\n  volume:\n    fileSystem: xfs\n    kms_key_id: alias/a\n"), @r#"
    /etc/quorate/config.d/20.yaml:3:5: unknown key `etcd.volume.fileSystem`
      hint: did you mean `etcd.volume.filesystem`?
    /etc/quorate/config.d/20.yaml:4:5: unknown key `etcd.volume.kms_key_id`
      hint: did you mean `etcd.volume.kmsKeyId`?
    "#);
    insta::assert_snapshot!(errors_in("size: 3\nheartbeatInterval: 1s\n"), @r#"
    /etc/quorate/config.d/20.yaml:1:1: unknown key `size`
      hint: did you mean `etcd.size`? sections are nested: write `etcd: {size: …}`
    /etc/quorate/config.d/20.yaml:2:1: unknown key `heartbeatInterval`
      hint: did you mean `etcd.heartbeatInterval`? sections are nested: write `etcd: {heartbeatInterval: …}`
    "#);
    insta::assert_snapshot!(errors_in("etcd.size: 3\n"), @r#"
    /etc/quorate/config.d/20.yaml:1:1: unknown key `etcd.size`
      hint: sections are nested: write `etcd: {size: …}`
    "#);
    insta::assert_snapshot!(errors_in("founding:\n  quickly: 3\nworkers: {}\n"), @r#"
    /etc/quorate/config.d/20.yaml:2:3: unknown key `founding.quickly`
      hint: allowed in `founding`: `patience`
    /etc/quorate/config.d/20.yaml:3:1: unknown key `workers`
      hint: allowed at the top: `cluster`, `bucket`, `prefix`, `role`, `region`, `kmsKeyId`, `groups`, `etcd`, `kubernetes`, `founding`, `backups`, `recovery`, `launch`, `leaving`, `tick`, `monitoring`, `log`
    "#);
}

#[test]
fn a_wrong_type_says_what_was_found_and_what_was_expected() {
    insta::assert_snapshot!(errors_in(
        "cluster: 12\nbucket: [a]\netcd: 3\ntick: 10\nlog:\n  level: true\ngroups: demo\nfounding: []\n"
    ), @r#"
    /etc/quorate/config.d/20.yaml:1:10: `cluster` is the number `12`, expected text
      hint: write it in quotes
    /etc/quorate/config.d/20.yaml:2:9: `bucket` is a list, expected text
      hint: for example `demo-quorate`
    /etc/quorate/config.d/20.yaml:3:7: `etcd` is the number `3`, expected a section
      hint: keys of `etcd`: `size`, `zones`, `binary`, `heartbeatInterval`, `electionTimeout`, `quota`, `autoCompaction`, `snapshotCount`, `logLevel`, `hashInterval`, `defragment`, `volume`
    /etc/quorate/config.d/20.yaml:4:7: `tick` is the number `10`, expected a duration from 1s to 5m
      hint: give the unit: `10s` or `10ms`
    /etc/quorate/config.d/20.yaml:6:10: `log.level` is the truth value `true`, expected one of `error`, `warn`, `info`, `debug`, `trace`
    /etc/quorate/config.d/20.yaml:7:9: `groups` is the text `demo`, expected a list of texts
      hint: write `[demo-control-plane]`
    /etc/quorate/config.d/20.yaml:8:11: `founding` is a list, expected a section
      hint: keys of `founding`: `patience`
    "#);
    insta::assert_snapshot!(errors_in(
        "etcd:\n  size: \"3\"\n  quota: 8\n  snapshotCount: 1.5\n  zones: [1, {}]\n  logLevel:\n  volume:\n    iops: 010\n    size: {}\n"
    ), @r#"
    /etc/quorate/config.d/20.yaml:2:9: `etcd.size` is the text `3`, expected one of `1`, `3`, `5`
      hint: write the number without quotes, leading zeros and underscores
    /etc/quorate/config.d/20.yaml:3:10: `etcd.quota` is the number `8`, expected a size from 64MiB to 16GiB
      hint: give the unit: `8GiB`, `8MiB` or `8B`
    /etc/quorate/config.d/20.yaml:4:18: `etcd.snapshotCount` is the number `1.5`, expected a whole number from 100 to 1000000 (transactions)
    /etc/quorate/config.d/20.yaml:5:11: `etcd.zones[0]` is the number `1`, expected text
      hint: write it in quotes
    /etc/quorate/config.d/20.yaml:5:14: `etcd.zones[1]` is a section, expected text
      hint: for example `eu-west-1a`
    /etc/quorate/config.d/20.yaml:6:11: `etcd.logLevel` is empty, expected one of `debug`, `info`, `warn`, `error`
      hint: give one of `debug`, `info`, `warn`, `error`, or remove the line
    /etc/quorate/config.d/20.yaml:8:11: `etcd.volume.iops` is the text `010`, expected a whole number from 100 to 256000 (iops)
      hint: write the number without quotes, leading zeros and underscores
    /etc/quorate/config.d/20.yaml:9:11: `etcd.volume.size` is a section, expected a size from 1GiB to 16TiB in steps of 1GiB
      hint: for example `8GiB`
    "#);
    insta::assert_snapshot!(errors_in("- cluster\n"), @r#"
    /etc/quorate/config.d/20.yaml:1:1: `the document` is a list, expected keys with values
      hint: write `key: value`, one a line
    "#);
    insta::assert_snapshot!(errors_in("cluster\n"), @r#"
    /etc/quorate/config.d/20.yaml:1:1: `the document` is the text `cluster`, expected keys with values
      hint: write `key: value`, one a line
    "#);
}

#[test]
fn a_value_out_of_range_says_the_range() {
    insta::assert_snapshot!(errors_in(
        "etcd:\n  size: 2\n  heartbeatInterval: 9ms\n  electionTimeout: 51s\n  quota: 63MiB\n  snapshotCount: 99\n  autoCompaction:\n    retention: 1s\n  volume:\n    size: 1025MiB\n    iops: 99\n    throughput: 2001\n    wait: 0s\nfounding:\n  patience: 25h\ntick: 500ms\n"
    ), @r#"
    /etc/quorate/config.d/20.yaml:2:9: `etcd.size` is `2`, expected one of `1`, `3`, `5`
    /etc/quorate/config.d/20.yaml:3:22: `etcd.heartbeatInterval` is `9ms`, expected a duration from 10ms to 5s
    /etc/quorate/config.d/20.yaml:4:20: `etcd.electionTimeout` is `51s`, expected a duration from 50ms to 50s
    /etc/quorate/config.d/20.yaml:5:10: `etcd.quota` is `63MiB`, expected a size from 64MiB to 16GiB
    /etc/quorate/config.d/20.yaml:6:18: `etcd.snapshotCount` is `99`, expected a whole number from 100 to 1000000 (transactions)
    /etc/quorate/config.d/20.yaml:8:16: `etcd.autoCompaction.retention` is `1s`, expected a duration from 1m to 8760h, or a whole number of revisions from 100 to 1000000000
    /etc/quorate/config.d/20.yaml:10:11: `etcd.volume.size` is `1025MiB`, expected a size from 1GiB to 16TiB in steps of 1GiB
    /etc/quorate/config.d/20.yaml:11:11: `etcd.volume.iops` is `99`, expected a whole number from 100 to 256000 (iops)
    /etc/quorate/config.d/20.yaml:12:17: `etcd.volume.throughput` is `2001`, expected a whole number from 125 to 2000 (MiB/s)
    /etc/quorate/config.d/20.yaml:13:11: `etcd.volume.wait` is `0s`, expected a duration from 1s to 1h
    /etc/quorate/config.d/20.yaml:15:13: `founding.patience` is `25h`, expected a duration from 1s to 24h
    /etc/quorate/config.d/20.yaml:16:7: `tick` is `500ms`, expected a duration from 1s to 5m
    "#);
    insta::assert_snapshot!(errors_in("etcd:\n  size: -1\n  snapshotCount: 99999999999999999999\n  quota: 99999999999999TiB\n"), @r#"
    /etc/quorate/config.d/20.yaml:2:9: `etcd.size` is `-1`, expected one of `1`, `3`, `5`
    /etc/quorate/config.d/20.yaml:3:18: `etcd.snapshotCount` is the number `100000000000000000000`, expected a whole number from 100 to 1000000 (transactions)
    /etc/quorate/config.d/20.yaml:4:10: `etcd.quota` is `99999999999999TiB`, expected a size from 64MiB to 16GiB
      hint: write a number that fits 64 bits
    "#);
}

#[test]
fn a_value_that_breaks_its_rule_says_the_rule() {
    insta::assert_snapshot!(errors_in(
        "cluster: Demo\nbucket: my_bucket\nprefix: /a/\nrole: control-plan\nregion: Europe\nkmsKeyId: key\ngroups: [a, a, 'b c']\n"
    ), @r#"
    /etc/quorate/config.d/20.yaml:1:10: `cluster` is `Demo`, expected 1 to 40 lower-case letters, digits and hyphens, with no hyphen at either end
      hint: for example `demo`
    /etc/quorate/config.d/20.yaml:2:9: `bucket` is `my_bucket`, expected the name of an S3 bucket: 3 to 63 lower-case letters, digits, hyphens and single dots, a letter or digit at both ends, not an IP address, none of S3's reserved prefixes and suffixes
      hint: for example `demo-quorate`
    /etc/quorate/config.d/20.yaml:3:9: `prefix` is `/a/`, expected a key prefix of at most 256 letters, digits and `-_./`, with no empty, `.` or `..` segment and no slash at either end
      hint: for example `team-a/clusters`
    /etc/quorate/config.d/20.yaml:4:7: `role` is `control-plan`, expected one of `control-plane`, `worker`
      hint: did you mean `control-plane`?
    /etc/quorate/config.d/20.yaml:5:9: `region` is `Europe`, expected the name of a region, like `eu-west-1`
    /etc/quorate/config.d/20.yaml:6:11: `kmsKeyId` is `key`, expected a KMS key id, the ARN of a key or alias, or `alias/NAME`
      hint: for example `alias/quorate`
    /etc/quorate/config.d/20.yaml:7:13: `groups[1]` is `a`, expected each name once
      hint: remove the second one
    /etc/quorate/config.d/20.yaml:7:16: `groups[2]` is `b c`, expected the name of an Auto Scaling group: 1 to 255 printable ASCII characters, with no blank and no colon
      hint: for example `demo-control-plane`
    "#);
    insta::assert_snapshot!(errors_in(
        "etcd:\n  zones: [eu-west-1]\n  binary: etcd\n  heartbeatInterval: 100 ms\n  quota: 8GB\n  logLevel: warning\n  volume:\n    device: xvdf\n    filesystem: btrfs\n    type: gp4\n"
    ), @r#"
    /etc/quorate/config.d/20.yaml:2:11: `etcd.zones[0]` is `eu-west-1`, expected the name of an availability zone, like `eu-west-1a`
    /etc/quorate/config.d/20.yaml:3:11: `etcd.binary` is `etcd`, expected an absolute path in printable ASCII, with no blank and no empty, `.` or `..` segment
      hint: for example `/usr/bin/etcd`
    /etc/quorate/config.d/20.yaml:4:22: `etcd.heartbeatInterval` is `100 ms`, expected a duration from 10ms to 5s
      hint: write a duration like `250ms`, `5m` or `1h30m`
    /etc/quorate/config.d/20.yaml:5:10: `etcd.quota` is `8GB`, expected a size from 64MiB to 16GiB
      hint: write a size like `512MiB` or `8GiB`
    /etc/quorate/config.d/20.yaml:6:13: `etcd.logLevel` is `warning`, expected one of `debug`, `info`, `warn`, `error`
    /etc/quorate/config.d/20.yaml:8:13: `etcd.volume.device` is `xvdf`, expected a device below `/dev/`, like `/dev/xvdf`
    /etc/quorate/config.d/20.yaml:9:17: `etcd.volume.filesystem` is `btrfs`, expected one of `ext4`, `xfs`
    /etc/quorate/config.d/20.yaml:10:11: `etcd.volume.type` is `gp4`, expected one of `gp3`, `io2`, `io1`, `gp2`
      hint: did you mean `gp2`?
    "#);
}

#[test]
fn a_duplicate_key_is_an_error_wherever_it_stands() {
    insta::assert_snapshot!(errors_in("tick: 5s\nlog: {level: info}\ntick: 6s\netcd:\n  size: 3\n  size: 5\n"), @r#"
    /etc/quorate/config.d/20.yaml:3:1: duplicate key `tick`, first given in line 1
      hint: keep one of them
    /etc/quorate/config.d/20.yaml:6:3: duplicate key `etcd.size`, first given in line 5
      hint: keep one of them
    "#);
}

#[test]
fn text_that_is_not_yaml_is_named_with_its_place() {
    insta::assert_snapshot!(errors_in("cluster: demo\n bucket: x\n"), @r#"
    /etc/quorate/config.d/20.yaml:2:8: is not valid YAML: mapping values are not allowed in this context
      hint: mind indentation, colons and quotes; one document per source
    "#);
    insta::assert_snapshot!(errors_in("etcd: {size: 3\n"), @r#"
    /etc/quorate/config.d/20.yaml:1:7: is not valid YAML: unclosed bracket '{'
      hint: mind indentation, colons and quotes; one document per source
    "#);
    insta::assert_snapshot!(errors_in("tick: 5s\n---\ntick: 6s\n"), @r#"
    /etc/quorate/config.d/20.yaml:3:1: is not valid YAML: only single YAML document expected but multiple found
      hint: mind indentation, colons and quotes; one document per source
    "#);
    insta::assert_snapshot!(errors_in("a: *b\n"), @r#"
    /etc/quorate/config.d/20.yaml:1:4: is not valid YAML: reference to unknown value
      hint: mind indentation, colons and quotes; one document per source
    "#);
    insta::assert_snapshot!(errors_in(&format!("etcd: {}{}\n", "[".repeat(40), "]".repeat(40))), @r#"
    /etc/quorate/config.d/20.yaml:1:22: is not valid YAML: YAML document too large or too complex: limits breached: Depth { depth: 17 }
      hint: mind indentation, colons and quotes; one document per source
    "#);
    insta::assert_snapshot!(errors_in("tick: !seconds 5\n"), @r#"
    /etc/quorate/config.d/20.yaml:1:16: is not valid YAML: unsupported tag `!seconds`
      hint: mind indentation, colons and quotes; one document per source
    "#);
    insta::assert_snapshot!(errors_in("<<: {tick: 5s}\n"), @r#"
    /etc/quorate/config.d/20.yaml:1:1: unknown key `<<`
      hint: allowed at the top: `cluster`, `bucket`, `prefix`, `role`, `region`, `kmsKeyId`, `groups`, `etcd`, `kubernetes`, `founding`, `backups`, `recovery`, `launch`, `leaving`, `tick`, `monitoring`, `log`
    "#);
}

#[test]
fn values_that_do_not_go_together_are_refused_where_they_were_set() {
    insta::assert_snapshot!(errors_in("etcd:\n  heartbeatInterval: 300ms\n"), @r#"
    /etc/quorate/config.d/20.yaml:2:22: `etcd.electionTimeout` is 1s while `etcd.heartbeatInterval` is 300ms, expected at least 5 heartbeats: 1s500ms
      hint: raise the one or lower the other; ten heartbeats are usual
    "#);
    insta::assert_snapshot!(errors_in("etcd:\n  electionTimeout: 400ms\n"), @r#"
    /etc/quorate/config.d/20.yaml:2:20: `etcd.electionTimeout` is 400ms while `etcd.heartbeatInterval` is 100ms, expected at least 5 heartbeats: 500ms
      hint: raise the one or lower the other; ten heartbeats are usual
    "#);
    insta::assert_snapshot!(errors_in("etcd:\n  autoCompaction:\n    mode: revision\n"), @r#"
    /etc/quorate/config.d/20.yaml:3:11: `etcd.autoCompaction.retention` is 1h while `etcd.autoCompaction.mode` is revision, expected a number of revisions
      hint: for example `retention: 10000`
    "#);
    insta::assert_snapshot!(errors_in("etcd:\n  autoCompaction:\n    retention: 5000\n"), @r#"
    /etc/quorate/config.d/20.yaml:3:16: `etcd.autoCompaction.retention` is 5000 while `etcd.autoCompaction.mode` is periodic, expected a duration
      hint: for example `retention: 1h`
    "#);
    insta::assert_snapshot!(errors_in("region: eu-west-1\netcd:\n  zones: [eu-west-1a, eu-west-2a]\n"), @r#"
    /etc/quorate/config.d/20.yaml:3:10: `etcd.zones` is eu-west-2a while `region` is eu-west-1, expected zones of eu-west-1 only
      hint: a cluster lives in one region
    "#);
    insta::assert_snapshot!(errors_in("etcd:\n  volume: {source: created, size: 8GiB}\n"), @r#"
    /etc/quorate/config.d/20.yaml:2:35: `etcd.quota` is 8GiB while `etcd.volume.size` is 8GiB, expected less than the volume holds
      hint: leave room for the log, snapshots and defragmentation: twice the quota is usual
    "#);
}

#[test]
fn no_error_is_made_up_from_the_default_of_a_value_that_was_refused() {
    insta::assert_snapshot!(errors_in("etcd:\n  heartbeatInterval: 1s\n  electionTimeout: 5\n"), @r#"
    /etc/quorate/config.d/20.yaml:3:20: `etcd.electionTimeout` is the number `5`, expected a duration from 50ms to 50s
      hint: give the unit: `5s` or `5ms`
    "#);
    insta::assert_snapshot!(errors_in("etcd:\n  autoCompaction: {mode: revision, retention: 5}\n"), @"/etc/quorate/config.d/20.yaml:2:47: `etcd.autoCompaction.retention` is `5`, expected a duration from 1m to 8760h, or a whole number of revisions from 100 to 1000000000");
}

#[test]
fn a_volume_type_takes_only_what_ebs_gives_it() {
    let volume = |text: &str| errors_in(&format!("etcd:\n  volume: {{{text}}}\n"));
    insta::assert_snapshot!(volume("type: gp2, iops: 3000, throughput: 125"), @r#"
    /etc/quorate/config.d/20.yaml:2:29: `etcd.volume.iops` is 3000 while `etcd.volume.type` is gp2, expected no iops
      hint: remove it, or take type `gp3`
    /etc/quorate/config.d/20.yaml:2:47: `etcd.volume.throughput` is 125 while `etcd.volume.type` is gp2, expected no throughput
      hint: remove it, or take type `gp3`
    "#);
    insta::assert_snapshot!(volume("type: gp3, iops: 100"), @r#"
    /etc/quorate/config.d/20.yaml:2:29: `etcd.volume.iops` is 100 while `etcd.volume.type` is gp3, expected 3000 to 80000
      hint: take another type or number
    "#);
    insta::assert_snapshot!(volume("source: created, type: io2"), @r#"
    /etc/quorate/config.d/20.yaml:2:35: `etcd.volume.iops` is not set while `etcd.volume.type` is io2, expected a number of iops
      hint: set it, for example `iops: 3000`, or take type `gp3`
    "#);
    insta::assert_snapshot!(volume("type: io1, iops: 70000, size: 2GiB"), @r#"
    /etc/quorate/config.d/20.yaml:2:29: `etcd.volume.iops` is 70000 while `etcd.volume.type` is io1, expected 100 to 64000
      hint: take another type or number
    /etc/quorate/config.d/20.yaml:2:42: `etcd.volume.size` is 2GiB while `etcd.volume.type` is io1, expected at least 4GiB
      hint: enlarge it
    "#);
}

#[test]
fn what_nobody_set_is_named_with_where_to_set_it() {
    let empty = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(errors_of(empty.path(), None, &InstanceTags::default()), @r#"
    configuration: required key `cluster` is not set
      hint: set `cluster: NAME`, or tag the instance `quorate:cluster`
    configuration: required key `bucket` is not set
      hint: set `bucket` in /etc/quorate/config.d/*.yaml or in user data
    configuration: required key `role` is not set
      hint: tag the instance `quorate:role`: `control-plane` or `worker`
    "#);
}

#[test]
fn a_tag_is_checked_like_any_value() {
    let tags = InstanceTags { cluster: Some("Demo!".to_owned()), role: Some("workr".to_owned()) };
    let empty = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(errors_of(empty.path(), None, &tags), @r#"
    tag quorate:cluster: `cluster` is `Demo!`, expected 1 to 40 lower-case letters, digits and hyphens, with no hyphen at either end
      hint: for example `demo`
    tag quorate:role: `role` is `workr`, expected one of `control-plane`, `worker`
      hint: did you mean `worker`?
    configuration: required key `bucket` is not set
      hint: set `bucket` in /etc/quorate/config.d/*.yaml or in user data
    "#);
    let tags = InstanceTags { cluster: Some(String::new()), role: Some("3".to_owned()) };
    insta::assert_snapshot!(errors_of(empty.path(), None, &tags), @r#"
    tag quorate:cluster: `cluster` is ``, expected 1 to 40 lower-case letters, digits and hyphens, with no hyphen at either end
      hint: for example `demo`
    tag quorate:role: `role` is `3`, expected one of `control-plane`, `worker`
    configuration: required key `bucket` is not set
      hint: set `bucket` in /etc/quorate/config.d/*.yaml or in user data
    "#);
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
    insta::assert_snapshot!(errors_of(root.path(), Some(b"#quorate-config\nprefix: /\n"), &tags), @r#"
    /etc/quorate/config.d/30.yml: is not read: fragments are named `*.yaml`
      hint: rename it to end in `.yaml`, or remove it
    /usr/lib/quorate/config.d/10.yaml:1:1: unknown key `clutser`
      hint: did you mean `cluster`?
    /usr/lib/quorate/config.d/10.yaml:2:7: `tick` is `1h`, expected a duration from 1s to 5m
    /etc/quorate/config.d/20.yaml:1:10: is not valid YAML: unclosed bracket '['
      hint: mind indentation, colons and quotes; one document per source
    /etc/quorate/config.d/40.yaml:1:14: `etcd.size` is `4`, expected one of `1`, `3`, `5`
    user data:2:9: `prefix` is `/`, expected a key prefix of at most 256 letters, digits and `-_./`, with no empty, `.` or `..` segment and no slash at either end
      hint: for example `team-a/clusters`
    tag quorate:role: `role` is `boss`, expected one of `control-plane`, `worker`
    "#);
}

#[test]
fn a_file_that_is_no_text_or_too_long_or_no_file_is_named() {
    let root = root(&[("etc/quorate/config.d/dir.yaml/x", "")]);
    let directory = root.path().join("etc/quorate/config.d");
    std::fs::write(directory.join("binary.yaml"), b"cluster: \xff\n").unwrap();
    std::fs::write(directory.join("long.yaml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    insta::assert_snapshot!(errors_of(root.path(), None, &tagged("worker")), @r#"
    /etc/quorate/config.d/binary.yaml: found byte 0xff at offset 9, expected UTF-8 text
      hint: save it in UTF-8; binary data has no place in configuration
    /etc/quorate/config.d/dir.yaml: cannot be read: Is a directory (os error 21)
      hint: fragments are plain files in a directory
    /etc/quorate/config.d/long.yaml: found 1048577 bytes, expected at most 1048576
      hint: a fragment holds settings only
    "#);
    let missing = check_files(&["/nonexistent/a.yaml".into()], Completeness::Fragments).unwrap_err();
    insta::assert_snapshot!(missing, @r#"
    /nonexistent/a.yaml: cannot be read: No such file or directory (os error 2)
      hint: check the path
    "#);
}

#[test]
fn a_directory_that_is_a_file_is_named() {
    let root = root(&[("etc/quorate/config.d", "")]);
    insta::assert_snapshot!(errors_of(root.path(), None, &tagged("worker")), @r#"
    /etc/quorate/config.d: cannot be read: Not a directory (os error 20)
      hint: fragments are plain files in a directory
    "#);
}

#[test]
fn the_pods_network_and_their_number_go_together() {
    for (kubernetes, parts) in [
        (
            "{podNetwork: routed}",
            ["`kubernetes.podSubnet`", "not set while `kubernetes.podNetwork` is routed"],
        ),
        (
            "{podNetwork: vpc-cni, podSubnet: 10.244.0.0/16}",
            ["`kubernetes.podSubnet`", "10.244.0.0/16 while `kubernetes.podNetwork` is vpc-cni"],
        ),
        (
            "{podSubnet: 10.244.0.0/16, kubelet: {maxPods: 254}}",
            ["254 while `kubernetes.podSubnet` gives each node a /24", "at most 253"],
        ),
        (
            "{podSubnet: 10.244.0.0/16, kubelet: {maxPods: 62}, controllerManager: {extraArgs: [--node-cidr-mask-size=26]}}",
            ["62 while `kubernetes.podSubnet` gives each node a /26", "at most 61"],
        ),
        (
            "{nodeLabels: [node-role.kubernetes.io/worker=]}",
            ["`kubernetes.nodeLabels[0]` is `node-role.kubernetes.io/worker=`", "a kubelet is not let"],
        ),
    ] {
        let errors = errors_in(&format!("kubernetes: {kubernetes}\n"));
        for part in parts {
            assert!(errors.contains(part), "{part}: {errors}");
        }
    }
}
