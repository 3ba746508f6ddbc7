use proptest::prelude::*;

use super::*;
use crate::config::keys::{Default, KEYS, Kind};

#[test]
#[expect(clippy::too_many_lines, reason = "every key has its line")]
fn later_sources_win_key_by_key_and_each_value_knows_its_origin() {
    let root = root(&[
        (
            "usr/lib/quorate/config.d/10-image.yaml",
            "cluster: image\nbucket: demo-quorate\nrole: worker\ntick: 1s\nprefix: a\n",
        ),
        (
            "usr/lib/quorate/config.d/90-image.yaml",
            "tick: 2s\netcd:\n  size: 1\n  zones: [eu-west-1a, eu-west-1b]\n",
        ),
        (
            "etc/quorate/config.d/10-site.yaml",
            "tick: 3s\n\netcd:\n  zones: [eu-west-1c]\nfounding:\n  patience: 90s\n",
        ),
        ("etc/quorate/config.d/20-site.yaml", "tick: 4s\n"),
        ("etc/quorate/config.d/.hidden.yaml", "tick: 9s\n"),
        ("etc/quorate/config.d/README", "tick: 9s\n"),
    ]);
    let user_data = b"#quorate-config\nlog: {level: debug}\ncluster: userdata\n";
    let tags = InstanceTags { cluster: Some("tagged".to_owned()), role: Some("control-plane".to_owned()) };
    let loaded = load(root.path(), Some(user_data), &tags).unwrap();
    let shown = show(&loaded, true).replace(&format!("{}/", root.path().display()), "/");
    insta::assert_snapshot!(shown, @r#"
    cluster: tagged                     # tag quorate:cluster
    bucket: demo-quorate                # /usr/lib/quorate/config.d/10-image.yaml:2
    prefix: a                           # /usr/lib/quorate/config.d/10-image.yaml:5
    role: control-plane                 # tag quorate:role
    etcd:
      size: 1                           # /usr/lib/quorate/config.d/90-image.yaml:3
      zones: [eu-west-1c]               # /etc/quorate/config.d/10-site.yaml:4
      binary: /usr/bin/etcd             # default
      heartbeatInterval: 100ms          # default
      electionTimeout: 1s               # default
      quota: 8GiB                       # default
      autoCompaction:
        mode: periodic                  # default
        retention: 1h                   # default
      snapshotCount: 10000              # default
      logLevel: info                    # default
      hashInterval: 1h                  # default
      defragment:
        minFree: 100MiB                 # default
        minShare: 50                    # default
      volume:
        source: tagged                  # default
        device: /dev/xvdf               # default
        filesystem: ext4                # default
        size: 20GiB                     # default
        type: gp3                       # default
        wait: 5m                        # default
        takeover: 15m                   # default
    kubernetes:
      controlPlane: static-pods         # default
      imageRepository: registry.k8s.io  # default
      kubelet:
        binary: /usr/bin/kubelet        # default
      kubeProxy:
        binary: /usr/bin/kube-proxy     # default
      serviceSubnet: "10.96.0.0/12"     # default
      podNetwork: other                 # default
      clusterDomain: cluster.local      # default
      componentEndpoint: local          # default
      readyPatience: 6m                 # default
      leaderElection:
        leaseDuration: 15s              # default
        renewDeadline: 10s              # default
        retryPeriod: 2s                 # default
      apiServer:
        shutdownDelay: 30s              # default
        goawayChance: 0.001             # default
        tlsMinVersion: VersionTLS12     # default
        auditLog:
          maxAge: 30                    # default
          maxBackups: 10                # default
          maxSize: 100                  # default
      nodeName: instance-id             # default
    founding:
      patience: 1m30s                   # /etc/quorate/config.d/10-site.yaml:6
    backups:
      snapshots: 15m                    # default
      changes: 5s                       # default
      rehearsal: 24h                    # default
      keepAll: 24h                      # default
      keepHourly: 168h                  # default
      keepDaily: 2160h                  # default
    recovery: automatic                 # default
    launch:
      patience: 30m                     # default
    leaving:
      hook: quorate-terminate           # default
      patience: 1h                      # default
      drain: 15m                        # default
      result: continue                  # default
      maintenance: leave                # default
      maintenanceLead: 30m              # default
      rebalance: cordon                 # default
    tick: 4s                            # /etc/quorate/config.d/20-site.yaml:1
    monitoring:
      listen: node                      # default
      port: 9907                        # default
      console: on                       # default
      cloudwatch: off                   # default
    log:
      level: debug                      # user data:2
    "#);
    assert_eq!(loaded.fragments.len(), 5);
}

#[test]
fn without_origins_only_yaml_is_shown() {
    let loaded =
        load(Path::new("/nonexistent"), Some(b"cluster: demo\nbucket: on.off\n"), &tagged("worker")).unwrap();
    insta::assert_snapshot!(show(&loaded, false), @r#"
    cluster: demo
    bucket: on.off
    prefix: ""
    role: worker
    etcd:
      size: 3
      binary: /usr/bin/etcd
      heartbeatInterval: 100ms
      electionTimeout: 1s
      quota: 8GiB
      autoCompaction:
        mode: periodic
        retention: 1h
      snapshotCount: 10000
      logLevel: info
      hashInterval: 1h
      defragment:
        minFree: 100MiB
        minShare: 50
      volume:
        source: tagged
        device: /dev/xvdf
        filesystem: ext4
        size: 20GiB
        type: gp3
        wait: 5m
        takeover: 15m
    kubernetes:
      controlPlane: static-pods
      imageRepository: registry.k8s.io
      kubelet:
        binary: /usr/bin/kubelet
      kubeProxy:
        binary: /usr/bin/kube-proxy
      serviceSubnet: "10.96.0.0/12"
      podNetwork: other
      clusterDomain: cluster.local
      componentEndpoint: local
      readyPatience: 6m
      leaderElection:
        leaseDuration: 15s
        renewDeadline: 10s
        retryPeriod: 2s
      apiServer:
        shutdownDelay: 30s
        goawayChance: 0.001
        tlsMinVersion: VersionTLS12
        auditLog:
          maxAge: 30
          maxBackups: 10
          maxSize: 100
      nodeName: instance-id
    founding:
      patience: 5m
    backups:
      snapshots: 15m
      changes: 5s
      rehearsal: 24h
      keepAll: 24h
      keepHourly: 168h
      keepDaily: 2160h
    recovery: automatic
    launch:
      patience: 30m
    leaving:
      hook: quorate-terminate
      patience: 1h
      drain: 15m
      result: continue
      maintenance: leave
      maintenanceLead: 30m
      rebalance: cordon
    tick: 10s
    monitoring:
      listen: node
      port: 9907
      console: on
      cloudwatch: off
    log:
      level: info
    "#);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one snapshot of every default")]
fn the_smallest_useful_file_is_a_cluster_and_a_bucket() {
    let settings = settings_of(b"cluster: demo\nbucket: demo-quorate\n");
    insta::assert_json_snapshot!(settings, @r#"
    {
      "cluster": "demo",
      "bucket": "demo-quorate",
      "prefix": "",
      "role": "control-plane",
      "region": null,
      "kmsKeyId": null,
      "groups": [],
      "etcd": {
        "size": 3,
        "zones": [],
        "binary": "/usr/bin/etcd",
        "heartbeatInterval": "100ms",
        "electionTimeout": "1s",
        "quota": "8GiB",
        "autoCompaction": {
          "mode": "periodic",
          "retention": "1h"
        },
        "snapshotCount": 10000,
        "logLevel": "info",
        "hashInterval": "1h",
        "defragment": {
          "minFree": "100MiB",
          "minShare": 50
        },
        "volume": {
          "source": "tagged",
          "device": "/dev/xvdf",
          "filesystem": "ext4",
          "size": "20GiB",
          "type": "gp3",
          "iops": null,
          "throughput": null,
          "kmsKeyId": null,
          "wait": "5m",
          "takeover": "15m"
        }
      },
      "kubernetes": {
        "controlPlane": "static-pods",
        "version": null,
        "imageRepository": "registry.k8s.io",
        "kubeletBinary": "/usr/bin/kubelet",
        "kubeProxyBinary": "/usr/bin/kube-proxy",
        "serviceSubnet": "10.96.0.0/12",
        "podSubnet": null,
        "podNetwork": "other",
        "clusterDomain": "cluster.local",
        "addons": [],
        "endpoint": null,
        "extraNames": [],
        "componentEndpoint": "local",
        "serviceAccountIssuer": null,
        "readyPatience": "6m",
        "leaderElection": {
          "leaseDuration": "15s",
          "renewDeadline": "10s",
          "retryPeriod": "2s"
        },
        "apiServer": {
          "shutdownDelay": "30s",
          "goawayChance": "0.001",
          "tlsMinVersion": "VersionTLS12",
          "auditLog": {
            "maxAge": 30,
            "maxBackups": 10,
            "maxSize": 100
          },
          "image": null,
          "extraArgs": [],
          "extraEnv": [],
          "extraVolumes": []
        },
        "controllerManager": {
          "image": null,
          "extraArgs": [],
          "extraEnv": [],
          "extraVolumes": []
        },
        "scheduler": {
          "config": null,
          "image": null,
          "extraArgs": [],
          "extraEnv": [],
          "extraVolumes": []
        },
        "nodeName": "instance-id",
        "nodeLabels": [],
        "nodeTaints": [],
        "kubelet": {
          "maxPods": null
        }
      },
      "founding": {
        "patience": "5m"
      },
      "backups": {
        "snapshots": "15m",
        "changes": "5s",
        "rehearsal": "24h",
        "keepAll": "24h",
        "keepHourly": "168h",
        "keepDaily": "2160h"
      },
      "recovery": "automatic",
      "launch": {
        "hook": null,
        "patience": "30m"
      },
      "leaving": {
        "hook": "quorate-terminate",
        "patience": "1h",
        "drain": "15m",
        "podGrace": null,
        "result": "continue",
        "maintenance": "leave",
        "maintenanceLead": "30m",
        "rebalance": "cordon"
      },
      "tick": "10s",
      "monitoring": {
        "listen": "node",
        "port": 9907,
        "console": "on",
        "cloudwatch": "off"
      },
      "log": {
        "level": "info"
      }
    }
    "#);
}

#[test]
fn empty_files_and_empty_sections_are_fine() {
    let root = root(&[
        ("etc/quorate/config.d/1.yaml", ""),
        ("etc/quorate/config.d/2.yaml", "# nothing\n"),
        ("etc/quorate/config.d/3.yaml", "---\n"),
        ("etc/quorate/config.d/4.yaml", "\u{feff}cluster: demo\nbucket: demo-quorate\netcd:\n  # size: 3\n"),
    ]);
    assert!(load(root.path(), None, &tagged("worker")).is_ok());
}

#[test]
fn an_empty_list_takes_back_an_earlier_one() {
    let root = root(&[
        ("usr/lib/quorate/config.d/1.yaml", "cluster: demo\nbucket: demo-quorate\ngroups: [a, b]\n"),
        ("etc/quorate/config.d/1.yaml", "groups: []\n"),
    ]);
    let loaded = load(root.path(), None, &tagged("worker")).unwrap();
    assert!(loaded.settings.groups.is_empty());
}

#[test]
fn revisions_can_be_kept_instead_of_time() {
    let settings = settings_of(
        b"cluster: demo\nbucket: demo-quorate\netcd: {autoCompaction: {mode: revision, retention: 5000}}\n",
    );
    assert_eq!(settings.etcd.auto_compaction, settings::AutoCompaction::Revision { retention: 5000 });
}

#[test]
fn aliases_are_values_like_others() {
    let settings =
        settings_of(b"cluster: demo\nbucket: demo-quorate\ntick: &t 7s\nfounding: {patience: *t}\n");
    assert_eq!(settings.tick, settings.founding.patience);
}

#[test]
fn settings_survive_being_recorded() {
    let settings = settings_of(b"cluster: demo\nbucket: demo-quorate\netcd: {zones: [eu-west-1a]}\n");
    let recorded = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&recorded).unwrap(), settings);
}

#[test]
fn a_recorded_value_that_breaks_its_rule_is_refused() {
    let settings = settings_of(b"cluster: demo\nbucket: demo-quorate\n");
    let recorded = serde_json::to_string(&settings).unwrap().replace("\"demo-quorate\"", "\"Demo\"");
    assert!(serde_json::from_str::<Settings>(&recorded).is_err());
}

#[test]
fn files_checked_by_themselves_may_be_a_part() {
    let root = root(&[
        ("part.yaml", "etcd:\n  heartbeatInterval: 400ms\n"),
        ("clash.yaml", "etcd:\n  electionTimeout: 1s\n"),
    ]);
    let [part, clash] = ["part.yaml", "clash.yaml"].map(|name| root.path().join(name));
    assert_eq!(check_files(std::slice::from_ref(&part), Completeness::Fragments).unwrap().len(), 1);
    assert!(check_files(&[part.clone(), clash], Completeness::Fragments).is_err());
    let errors = check_files(&[part], Completeness::Whole).unwrap_err();
    assert_eq!(errors.iter().count(), 4, "{errors}");
}

/// A value that the key takes, as it is written.
fn value_of(key: &'static keys::Key) -> BoxedStrategy<String> {
    match &key.kind {
        Kind::Choice(words) => proptest::sample::select(*words).prop_map(str::to_owned).boxed(),
        Kind::Count(numbers) => proptest::sample::select(*numbers).prop_map(|n| n.to_string()).boxed(),
        Kind::Integer { min, max, .. } => (*min..=*max).prop_map(|n| n.to_string()).boxed(),
        Kind::Duration { min, max } => (min.as_millis()..=max.as_millis())
            .prop_map(|millis| settings::TimeSpan::from_millis(millis).to_string())
            .boxed(),
        Kind::Size { min, max, step } => {
            let step = step.as_bytes();
            (min.as_bytes() / step..=max.as_bytes() / step)
                .prop_map(move |steps| settings::ByteSize::from_bytes(steps * step).to_string())
                .boxed()
        }
        Kind::Retention => Just("2h".to_owned()).boxed(),
        Kind::Document(rule) => Just(format!("'{}'", rule.example)).boxed(),
        Kind::Fraction { max, .. } => {
            let most = (max.to_string().parse::<f64>().unwrap() * 1e6).round();
            (0..=20_000_u32)
                .prop_filter("the range", move |millionths| f64::from(*millionths) <= most)
                .prop_map(|millionths| crate::config::values::Chance::from_millionths(millionths).to_string())
                .boxed()
        }
        // A pattern says too little of networks, images and flags to draw one from it.
        Kind::Text(rule) if key.path.starts_with("kubernetes.") => {
            Just(format!("'{}'", rule.example)).boxed()
        }
        Kind::List(rule) if key.path.starts_with("kubernetes.") => {
            Just(format!("['{}']", rule.example)).boxed()
        }
        Kind::Text(rule) => {
            let check = rule.check;
            proptest::string::string_regex(rule.pattern.trim_matches(['^', '$']))
                .unwrap()
                .prop_filter("the type's own rule", move |text| check(text).is_ok())
                .prop_map(|text| format!("'{}'", text.replace('\'', "''")))
                .boxed()
        }
        Kind::List(rule) => {
            let (check, identity) = (rule.check, rule.identity);
            let item = proptest::string::string_regex(rule.pattern.trim_matches(['^', '$']))
                .unwrap()
                .prop_filter("the type's own rule", move |text| check(text).is_ok());
            proptest::collection::btree_set(item, 0..4)
                .prop_map(move |mut items| {
                    let mut seen = std::collections::BTreeSet::new();
                    items.retain(|item| seen.insert(identity(item).to_owned()));
                    let items: Vec<String> =
                        items.iter().map(|item| format!("'{}'", item.replace('\'', "''"))).collect();
                    format!("[{}]", items.join(", "))
                })
                .boxed()
        }
    }
}

/// A flow-style document that sets some keys.
fn document() -> impl Strategy<Value = String> {
    let keys: Vec<_> = KEYS
        .iter()
        .map(|key| {
            let value = match key.default {
                Default::Required => value_of(key).prop_map(Some).boxed(),
                Default::Unset(_) | Default::Value(_) => {
                    proptest::option::weighted(0.3, value_of(key)).boxed()
                }
            };
            value.prop_map(move |value| (key.path, value))
        })
        .collect();
    keys.prop_map(|values| {
        let mut tree = serde_json::Map::new();
        for (path, value) in values {
            let Some(value) = value else { continue };
            let mut names: Vec<&str> = path.split('.').collect();
            let leaf = names.pop().unwrap();
            let section = names.iter().fold(&mut tree, |section, name| {
                section.entry(*name).or_insert_with(|| serde_json::json!({})).as_object_mut().unwrap()
            });
            section.insert(leaf.to_owned(), value.into());
        }
        format!("#quorate-config\n{}\n", flow(&tree))
    })
}

fn flow(tree: &serde_json::Map<String, serde_json::Value>) -> String {
    let entries: Vec<String> = tree
        .iter()
        .map(|(name, value)| match value {
            serde_json::Value::Object(section) => format!("{name}: {}", flow(section)),
            value => format!("{name}: {}", value.as_str().unwrap()),
        })
        .collect();
    format!("{{{}}}", entries.join(", "))
}

proptest! {
    #[test]
    fn what_is_shown_parses_back_to_the_same_settings(document in document()) {
        // Rules between keys may refuse the document; what is accepted must survive.
        if document.len() <= 16 * 1024
            && let Ok(loaded) = load(Path::new("/nonexistent"), Some(document.as_bytes()), &InstanceTags::default())
        {
            for with_origin in [false, true] {
                let shown = format!("#quorate-config\n{}", show(&loaded, with_origin));
                let again = load(Path::new("/nonexistent"), Some(shown.as_bytes()), &InstanceTags::default());
                prop_assert_eq!(&again.unwrap().settings, &loaded.settings);
            }
        }
    }

    #[test]
    fn a_value_that_its_key_takes_is_never_refused_for_itself(document in document()) {
        let fragment = Fragment { source: Source::UserData, text: document };
        let mut errors = Vec::new();
        inputs::read(&fragment, &mut errors);
        prop_assert!(errors.is_empty(), "{}", errors[0]);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[ -~\n]{0,200}|(\\PC|\n|\t){0,100}") {
        let mut errors = Vec::new();
        inputs::read(&Fragment { source: Source::UserData, text }, &mut errors);
    }
}
