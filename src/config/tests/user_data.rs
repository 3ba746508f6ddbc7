use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;
use crate::config::userdata::{UserData, read};

const BARE: &[u8] = b"#quorate-config\ncluster: demo\nbucket: demo-quorate\n";

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Base64 in lines of 76, as tools write it.
fn base64(data: &[u8]) -> Vec<u8> {
    STANDARD.encode(data).as_bytes().chunks(76).collect::<Vec<_>>().join(&b'\n')
}

/// A MIME message of parts, each with its headers.
fn mime(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut message = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\n".to_vec();
    for (headers, body) in parts {
        message.extend(format!("--b\r\n{headers}\r\n\r\n").as_bytes());
        message.extend(*body);
        message.extend(b"\r\n");
    }
    message.extend(b"--b--\r\n");
    message
}

fn part_type(rest: &str) -> String {
    format!("Content-Type: {PART_TYPE}{rest}")
}

fn taken(raw: &[u8]) -> UserData {
    let mut errors = Vec::new();
    let found = read(raw, &mut errors);
    assert!(errors.is_empty(), "{}", errors[0]);
    found
}

fn refused(raw: &[u8]) -> String {
    let mut errors = Vec::new();
    read(raw, &mut errors);
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn bare_yaml_is_taken_however_it_is_packed() {
    let packings = [
        BARE.to_vec(),
        gzip(BARE),
        base64(BARE),
        base64(&gzip(BARE)),
        gzip(&base64(BARE)),
        base64(&base64(&gzip(BARE))),
        [&b"\n\n"[..], BARE].concat(),
    ];
    for packed in packings {
        assert_eq!(settings_of(&packed).cluster.as_str(), "demo");
    }
}

#[test]
fn parts_are_taken_however_they_are_packed() {
    let header = part_type("");
    let coded = part_type("\r\nContent-Transfer-Encoding: base64");
    let quoted = part_type("; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable");
    let shouted = header.to_uppercase();
    let bodies: [(&str, Vec<u8>); 7] = [
        (&shouted, BARE.to_vec()),
        (&header, BARE.to_vec()),
        (&header, gzip(BARE)),
        (&header, base64(&gzip(BARE))),
        (&coded, base64(BARE)),
        (&coded, base64(&gzip(BARE))),
        (&quoted, b"cluster: d=65mo\r\nbucket: demo-=\r\nquorate\r\n".to_vec()),
    ];
    for (headers, body) in &bodies {
        let message = mime(&[("Content-Type: text/x-shellscript", b"#!/bin/sh\n"), (headers, body)]);
        for message in [message.clone(), gzip(&message), base64(&message), base64(&gzip(&message))] {
            assert_eq!(settings_of(&message).bucket.as_str(), "demo-quorate");
        }
    }
}

#[test]
fn several_parts_are_merged_in_order_and_named_by_number() {
    let header = part_type("");
    let message = mime(&[
        ("Content-Type: text/cloud-config", b"#cloud-config\n{}\n"),
        (&header, b"cluster: first\nbucket: demo-quorate\n"),
        ("Content-Type: text/plain", b"#quorate-config\ncluster: second\n"),
    ]);
    let loaded = load(Path::new("/nonexistent"), Some(&message), &tagged("worker")).unwrap();
    assert_eq!(loaded.settings.cluster.as_str(), "second");
    let origins: Vec<String> =
        loaded.origins.iter().take(2).map(|(_, _, origin)| origin.to_string()).collect();
    assert_eq!(origins, ["user data part 3:2", "user data part 2:2"]);
    assert_eq!(loaded.passed_over, [(Source::UserDataPart(1), "text/cloud-config".to_owned())]);
}

#[test]
fn a_nested_message_is_walked_through() {
    let inner = mime(&[("Content-Type: text/plain", b"hello"), (&part_type(""), BARE)]);
    let inner = String::from_utf8(inner).unwrap().replace("--b", "--c").replace("\"b\"", "\"c\"");
    let (headers, body) = inner.split_once("\r\n\r\n").unwrap();
    let found = taken(&mime(&[("Content-Type: text/x-shellscript", b"#!"), (headers, body.as_bytes())]));
    assert_eq!(found.fragments[0].source, Source::UserDataPart(3));
}

#[test]
fn a_message_of_one_part_needs_no_boundary() {
    let message = [part_type("").as_bytes(), b"\n\n", BARE].concat();
    assert_eq!(taken(&message).fragments[0].source, Source::UserData);
}

#[test]
fn a_document_without_header_is_known_by_any_of_our_keys() {
    for text in
        ["cluster: x\n", "# mine\n\n---\netcd:\n  size: 3\n", "clutser: x\nbucket: y\n", "\"tick\": 5s\r\n"]
    {
        assert_eq!(taken(text.as_bytes()).fragments.len(), 1, "{text:?}");
    }
}

#[test]
fn what_is_not_ours_is_passed_over_and_named() {
    for (text, first) in [
        ("#cloud-config\ncluster: not ours\n", "#cloud-config"),
        ("#!/bin/sh\ncluster: not ours\n", "#!/bin/sh"),
        ("#include\nhttps://example.com/\n", "#include"),
        ("## template: jinja\n#cloud-config\nrole: x\n", "## template: jinja"),
        ("<powershell>\nrole: x\n</powershell>", "<powershell>"),
        ("hello\n", "hello"),
        ("other:\n  cluster: indented\nclusters: x\nrole:x\n", "other:"),
    ] {
        let found = taken(text.as_bytes());
        assert_eq!(found.fragments, []);
        assert_eq!(found.passed_over, [(Source::UserData, first.to_owned())]);
    }
    // Not even unpacked, if it is not ours.
    let broken = mime(&[("Content-Type: text/plain\r\nContent-Transfer-Encoding: base64", b"!!!")]);
    assert_eq!(taken(&broken).fragments, []);
}

#[test]
fn absent_and_empty_user_data_say_nothing() {
    for raw in ["", "\n", "  \r\n\t"] {
        assert_eq!(taken(raw.as_bytes()), UserData::default());
    }
}

#[test]
fn sixteen_kilobytes_are_taken_and_one_more_is_not() {
    let mut raw = BARE.to_vec();
    raw.resize(16 * 1024, b'#');
    assert_eq!(taken(&raw).fragments.len(), 1);
    raw.push(b'#');
    insta::assert_snapshot!(refused(&raw), @r#"
    user data: found 16385 bytes, expected at most 16384
      hint: EC2 takes 16 KB at most: gzip it, or move settings to the image
    "#);
}

#[test]
fn what_unpacks_to_more_than_a_mebibyte_is_refused() {
    let fits = [BARE, &vec![b'#'; (1 << 20) - BARE.len()]].concat();
    assert_eq!(taken(&gzip(&fits)).fragments.len(), 1);
    insta::assert_snapshot!(refused(&gzip(&[&fits[..], b"#"].concat())), @r#"
    user data: found 1048577 bytes, expected at most 1048576
      hint: it unpacks to far more than any configuration
    "#);
}

#[test]
fn damaged_packing_is_refused_and_named() {
    let packed = gzip(BARE);
    insta::assert_snapshot!(refused(&packed[..packed.len() - 9]), @r#"
    user data: found gzip data that is truncated or damaged (incomplete deflate stream), expected whole gzip data
      hint: pack it again and compare the length with what arrived
    "#);
    insta::assert_snapshot!(refused(&packed[..2]), @r#"
    user data: found gzip data that is truncated or damaged (unexpected end of file), expected whole gzip data
      hint: pack it again and compare the length with what arrived
    "#);
    let mut flipped = packed.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 1;
    insta::assert_snapshot!(refused(&flipped), @r#"
    user data: found gzip data that is truncated or damaged (corrupt gzip stream does not have a matching checksum), expected whole gzip data
      hint: pack it again and compare the length with what arrived
    "#);
    insta::assert_snapshot!(refused(b"Y2x1c3RlcjogZGVtbwpidWNrZXQ6IGRlbW8K=\n"), @r#"
    user data: found base64 that does not decode (Invalid symbol 61, offset 36.), expected whole base64
      hint: encode it again, padding included, and compare the length with what arrived
    "#);
    insta::assert_snapshot!(refused(b"Y2x1c3RlcjogZGVtbwpidWNrZXQ6\nI?G\n"), @r#"
    user data: found base64 that does not decode (Invalid symbol 63, offset 29.), expected whole base64
      hint: encode it again, padding included, and compare the length with what arrived
    "#);
    insta::assert_snapshot!(refused(b"cluster: \xff\xfe\n"), @r#"
    user data: found byte 0xff at offset 9, expected UTF-8 text
      hint: save it in UTF-8; binary data has no place in configuration
    "#);
    let deep = (0..6).fold(BARE.to_vec(), |data, _| base64(&data));
    insta::assert_snapshot!(refused(&deep), @r#"
    user data: found more than 4 layers of gzip and base64, expected at most 4
      hint: pack it once
    "#);
}

#[test]
fn malformed_mime_is_refused_and_named() {
    let whole = mime(&[(&part_type(""), BARE)]);
    insta::assert_snapshot!(refused(&whole[..whole.len() - 5]), @r#"
    user data: found malformed MIME: no line `--b--`, expected such a line after the last part (was it cut off?)
      hint: see the example cloud-init/control-plane.mime
    "#);
    insta::assert_snapshot!(refused(b"Content-Type: multipart/mixed\n\n--b\n"), @r#"
    user data: found malformed MIME: a multi-part without a boundary, expected `boundary=…` in its Content-Type
      hint: see the example cloud-init/control-plane.mime
    "#);
    insta::assert_snapshot!(refused(b"Content-Type: multipart/mixed; boundary=b\n\nhello\n"), @r#"
    user data: found malformed MIME: no line `--b`, expected each part after such a line
      hint: see the example cloud-init/control-plane.mime
    "#);
    let no_blank = [part_type("").as_bytes(), b"\n", BARE].concat();
    insta::assert_snapshot!(refused(&no_blank), @r#"
    user data: found malformed MIME: `cluster` among the headers, expected a blank line before the body
      hint: see the example cloud-init/control-plane.mime
    "#);
}

#[test]
fn a_part_of_ours_that_is_damaged_is_refused_by_number() {
    let refused_part = |headers: &str, body: &[u8]| {
        refused(&mime(&[("Content-Type: text/cloud-config", b"{}"), (headers, body)]))
    };
    let coded = part_type("\r\nContent-Transfer-Encoding: base64");
    insta::assert_snapshot!(refused_part(&coded, b"clu$ter"), @r#"
    user data part 2: found base64 that does not decode (Invalid symbol 36, offset 3.), expected whole base64
      hint: encode it again, padding included, and compare the length with what arrived
    "#);
    insta::assert_snapshot!(refused_part(&part_type("\r\nContent-Transfer-Encoding: uuencode"), BARE), @r#"
    user data part 2: found malformed MIME: Content-Transfer-Encoding `uuencode`, expected `7bit`, `8bit`, `binary`, `base64` or `quoted-printable`
      hint: see the example cloud-init/control-plane.mime
    "#);
    insta::assert_snapshot!(refused_part(&part_type(""), b"cluster: \xff"), @r#"
    user data part 2: found byte 0xff at offset 9, expected UTF-8 text
      hint: save it in UTF-8; binary data has no place in configuration
    "#);
    insta::assert_snapshot!(refused_part(&part_type(""), &gzip(BARE)[..30]), @r#"
    user data part 2: found gzip data that is truncated or damaged (incomplete deflate stream), expected whole gzip data
      hint: pack it again and compare the length with what arrived
    "#);
    insta::assert_snapshot!(refused_part("Content-Type: application/x-quorate", BARE), @r#"
    user data part 2: found malformed MIME: a part of type `application/x-quorate`, expected `application/vnd.quorate.config+yaml`
      hint: see the example cloud-init/control-plane.mime
    "#);
    let message = mime(&[("Content-Type: text/plain", b""), (&part_type(""), b"a: 1\ntick: 1\n")]);
    insta::assert_snapshot!(errors_of(Path::new("/nonexistent"), Some(&message), &tagged("worker")), @r#"
    user data part 2:1:1: unknown key `a`
      hint: allowed at the top: `cluster`, `bucket`, `prefix`, `role`, `region`, `kmsKeyId`, `groups`, `etcd`, `kubernetes`, `founding`, `backups`, `recovery`, `launch`, `leaving`, `tick`, `monitoring`, `log`
    user data part 2:2:7: `tick` is the number `1`, expected a duration from 1s to 5m
      hint: give the unit: `1s` or `1ms`
    configuration: required key `cluster` is not set
      hint: set `cluster: NAME`, or tag the instance `quorate:cluster`
    configuration: required key `bucket` is not set
      hint: set `bucket` in /etc/quorate/config.d/*.yaml or in user data
    "#);
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..400)
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in bytes()) {
        for raw in [
            bytes.clone(),
            gzip(&bytes),
            base64(&bytes),
            [b"\x1f\x8b", &bytes[..]].concat(),
            [b"#quorate-config\n", &bytes[..]].concat(),
            [b"Content-Type: multipart/mixed; boundary=b\n", &bytes[..]].concat(),
            mime(&[(&part_type(""), &bytes)]),
        ] {
            let _ = load(Path::new("/nonexistent"), Some(&raw), &InstanceTags::default());
        }
    }

    #[test]
    fn a_message_cut_off_anywhere_never_panics_and_never_yields_half_a_document(cut in any::<prop::sample::Index>()) {
        let whole = mime(&[(&part_type(""), BARE), ("Content-Type: text/plain", b"x")]);
        let cut = &whole[..cut.index(whole.len() - 2)];
        let mut errors = Vec::new();
        let found = read(cut, &mut errors);
        prop_assert!(found.fragments.is_empty(), "{:?}", found.fragments);
    }
}
