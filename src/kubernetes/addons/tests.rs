//! What a file means, and the add-ons that are shipped.

use std::path::Path;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::inventory::{Entry, Inventory, addon_of, name_of};
use super::*;
use crate::config::{InstanceTags, load};

fn variables(kubernetes: &str) -> Variables {
    let text = format!("cluster: demo\nbucket: demo-quorate\nkubernetes: {kubernetes}\n");
    let tags = InstanceTags { cluster: None, role: Some("control-plane".to_owned()) };
    let settings = load(Path::new("/nonexistent"), Some(text.as_bytes()), &tags).unwrap().settings;
    let endpoint = "api.example.com".parse().unwrap();
    let region = "eu-west-1".parse().unwrap();
    Variables::of(&settings.cluster, &region, &settings.kubernetes, &endpoint)
}

fn name() -> AddonName {
    "dns".parse().unwrap()
}

fn parse(text: &str) -> Result<Addon, AddonError> {
    Addon::parse(&name(), text.as_bytes(), &variables("{podSubnet: 10.244.0.0/16}"))
}

fn titles(addon: &Addon) -> Vec<String> {
    addon.objects.iter().map(|object| object.key.to_string()).collect()
}

fn map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: a}}\n")
}

#[test]
fn documents_and_lists_become_objects_and_empty_ones_nothing() {
    let list = "---\n# nothing\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, \
                metadata: {name: b}}\n- apiVersion: v1\n  kind: List\n  items: [{apiVersion: v1, kind: Secret, \
                metadata: {name: c}}]\n---\n\n---\n";
    let addon = parse(&format!("{list}{}", map("a"))).unwrap();
    assert_eq!(titles(&addon), ["ConfigMap b", "Secret c", "ConfigMap a/a"]);
}

#[test]
fn what_others_need_is_applied_before_them_and_the_rest_in_the_files_order() {
    let object = |version: &str, kind: &str| {
        format!("---\n{{apiVersion: {version}, kind: {kind}, metadata: {{name: x}}}}\n")
    };
    let text: String = [
        object("example.com/v1", "Thing"),
        object("apps/v1", "Deployment"),
        object("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
        object("v1", "Service"),
        object("rbac.authorization.k8s.io/v1", "ClusterRole"),
        object("v1", "ConfigMap"),
        object("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        object("v1", "Namespace"),
    ]
    .concat();
    let expected = [
        "Namespace x",
        "CustomResourceDefinition x",
        "ClusterRole x",
        "ConfigMap x",
        "Thing x",
        "Deployment x",
        "Service x",
        "ValidatingWebhookConfiguration x",
    ];
    let addon = parse(&text).unwrap();
    assert_eq!(titles(&addon), expected);
    assert_eq!(parse(&text).unwrap().digest, addon.digest);
    let holds: Vec<String> = addon.holds().iter().map(ToString::to_string).collect();
    assert_eq!(holds, ["Namespace x", "CustomResourceDefinition x"]);
}

#[test]
fn every_object_says_which_add_on_it_is_of_and_keeps_its_own_manager() {
    let own = "---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: b\n  labels: \
               {app.kubernetes.io/managed-by: Helm, quorate/addon: another}\n";
    let addon = parse(&format!("{}{own}", map("a"))).unwrap();
    let labels: Vec<&Value> =
        addon.objects.iter().map(|object| &object.value["metadata"]["labels"]).collect();
    assert_eq!(
        labels,
        [
            &json!({ "app.kubernetes.io/managed-by": "quorate", "quorate/addon": "dns" }),
            &json!({ "app.kubernetes.io/managed-by": "Helm", "quorate/addon": "dns" }),
        ]
    );
}

#[test]
fn variables_are_replaced_in_texts_and_nothing_else_is() {
    let data = |text: &str| {
        let text = format!("{}data: {text}\n", map("a"));
        parse(&text).map(|addon| addon.objects[0].value["data"].clone())
    };
    let found =
        data("{a: 'x ${QUORATE_CLUSTER_NAME}/${QUORATE_REGION} y', b: [{c: '${QUORATE_CLUSTER_DNS}'}]}");
    assert_eq!(found.unwrap(), json!({ "a": "x demo/eu-west-1 y", "b": [{ "c": "10.96.0.10" }] }));
    let left = "${HOME} $QUORATE_REGION $(QUORATE_REGION) ${quorate_region}";
    assert_eq!(data(&format!("{{a: '{left}'}}")).unwrap()["a"], left);
    let keys = data("{'${QUORATE_REGION}': a, b: '${QUORATE_API_HOST}:${QUORATE_API_PORT}'}").unwrap();
    assert_eq!(keys, json!({ "${QUORATE_REGION}": "a", "b": "api.example.com:6443" }));
}

#[test]
fn a_variable_that_there_is_none_of_or_that_has_no_value_is_refused() {
    let with = |text: &str| format!("{}---\n{}data: {{a: '{text}'}}\n", map("a"), map("b"));
    let error = parse(&with("${QUORATE_CLUSTER}")).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "document 2 (line 5): there is no variable ${QUORATE_CLUSTER}; there are QUORATE_API_HOST"
        ),
        "{error}"
    );
    for name in variables("{}").names() {
        assert!(error.contains(name), "{name}: {error}");
    }
    assert!(matches!(parse(&with("${QUORATE_REGION")), Err(AddonError::UnknownVariable { .. })));
    let text = with("${QUORATE_POD_SUBNET}");
    let unset = Addon::parse(&name(), text.as_bytes(), &variables("{}")).unwrap_err().to_string();
    assert_eq!(
        unset,
        "document 2 (line 5): ${QUORATE_POD_SUBNET} has no value: `kubernetes.podSubnet` is not set"
    );
    let none = with("${QUORATE_CLUSTER_CIDR}");
    let none = Addon::parse(&name(), none.as_bytes(), &variables("{}")).unwrap();
    assert_eq!(none.objects[1].value["data"]["a"], "");
}

#[test]
fn every_variable_is_documented_and_no_other() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/addons.md");
    let page = std::fs::read_to_string(page).unwrap();
    let documented: BTreeSet<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `${QUORATE_"))
        .flat_map(|line| line.split("${").skip(1).filter_map(|rest| rest.split('}').next()))
        .collect();
    assert_eq!(documented, variables("{}").names().into_iter().collect());
}

#[test]
fn what_is_no_add_on_is_said_with_its_place() {
    let twice = format!("{}---\n{}", map("a"), map("a").replace("v1", "v1 # again"));
    for (text, expected) in [
        ("kind: ConfigMap\nmetadata: {name: a}\n", "document 1 (line 1): ConfigMap a has no apiVersion"),
        ("apiVersion: v1\nmetadata: {name: a}\n", "document 1 (line 1): a has no kind"),
        ("\napiVersion: v1\nkind: Pod\n", "document 1 (line 2): Pod has no metadata.name"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: ''}\n",
            "document 1 (line 1): Pod has no metadata.name",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: [b]}\n",
            "document 1 (line 1): Pod a has no map of labels in `metadata.labels`",
        ),
        ("apiVersion: v1\nkind: List\n", "document 1 (line 1): a List has no list of `items`"),
        ("- a\n", "document 1 (line 1): it is no object but a list"),
        ("---\nhello\n", "document 1 (line 2): it is no object but a single value"),
        (&twice, "document 2 (line 5): ConfigMap a/a is there already, in document 1 (line 1)"),
        ("# nothing\n", "there is no object in it"),
    ] {
        assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
    }
    for text in ["a: [\n", "a: 1\na: 2\n", "a: {{b}}\n  c\n"] {
        let error = parse(&format!("{}---\n{text}", map("a"))).unwrap_err();
        let AddonError::Syntax { line: Some(line), what } = error else { panic!("{text}: {error}") };
        assert!(line >= 5 && !what.contains('\n'), "line {line}: {what}");
    }
    assert_eq!(Addon::parse(&name(), b"\xff", &variables("{}")), Err(AddonError::Encoding));
}

#[test]
fn numbers_and_words_are_what_they_are_to_kubernetes() {
    let text = format!("{}data: {{mode: 0644, plain: 12, yes: yes, is: true, version: \"1.0\"}}\n", map("a"));
    let addon = parse(&text).unwrap();
    let expected = json!({ "mode": 420, "plain": 12, "yes": "yes", "is": true, "version": "1.0" });
    assert_eq!(addon.objects[0].value["data"], expected);
}

#[test]
fn the_digest_follows_what_the_objects_say_and_not_how_it_is_written() {
    let digest = |text: &str| parse(text).unwrap().digest;
    let written = "{kind: ConfigMap, metadata: {namespace: a, name: a}, apiVersion: v1}";
    assert_eq!(digest(&map("a")), digest(written));
    assert_ne!(digest(&map("a")), digest(&map("b")));
    let cluster = |kubernetes: &str| {
        let text = format!("{}data: {{a: '${{QUORATE_CLUSTER_DOMAIN}}'}}\n", map("a"));
        Addon::parse(&name(), text.as_bytes(), &variables(kubernetes)).unwrap().digest
    };
    assert_ne!(cluster("{}"), cluster("{clusterDomain: other.local}"));
}

fn entry(api_version: &str, name: &str) -> Entry {
    Entry {
        api_version: api_version.to_owned(),
        kind: "Thing".to_owned(),
        namespace: Some("a".to_owned()),
        name: name.to_owned(),
    }
}

#[test]
fn an_inventory_is_read_as_it_was_written_and_a_damaged_one_is_not() {
    let failure = crate::model::AddonFailure { digest: None, since: 1, at: 2, why: "no".to_owned() };
    let whole =
        Inventory { digest: Some("d".to_owned()), objects: vec![entry("v1", "x")], failure: Some(failure) };
    for inventory in [Inventory::default(), whole] {
        let map = inventory.write(&name(), Some("7".to_owned())).unwrap();
        assert_eq!(Inventory::read(&map).unwrap(), inventory);
        assert_eq!(addon_of(map.metadata.name.as_deref().unwrap()).unwrap(), name());
        let mut damaged = map.clone();
        damaged.data.as_mut().unwrap().insert("objects".to_owned(), "[".to_owned());
        let error = Inventory::read(&damaged).unwrap_err().to_string();
        assert!(error.contains(&name_of(&name())), "{error}");
        assert!(Inventory::read(&ConfigMap { data: None, ..map }).is_err(), "what is lost is not empty");
    }
    assert!(addon_of("quorate-addon-").is_err() && addon_of("dns").is_err());
}

#[test]
fn a_new_version_of_a_kind_is_the_same_object() {
    let (old, new) = (entry("example.com/v1beta1", "x"), entry("example.com/v1", "x"));
    let other = entry("example.org/v1", "x");
    let had = Inventory { objects: vec![old.clone(), other.clone()], ..Inventory::default() };
    assert_eq!(had.with(std::slice::from_ref(&new)).objects, [other.clone(), new.clone()]);
    assert_eq!(had.without(&[new]), std::slice::from_ref(&other));
    assert_eq!(had.without(&[]), [other, old], "what came last goes first");
}

/// The add-ons that are shipped.
fn shipped() -> Vec<(AddonName, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/addons");
    let mut found: Vec<(AddonName, Vec<u8>)> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().strip_suffix(ENDING).unwrap();
            (name.parse().unwrap(), std::fs::read(&path).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// Every field is one of the kind's own.
fn strict<K: DeserializeOwned + Serialize>(value: &Value) -> Result<(), String> {
    fn left(read: &Value, written: &Value, at: &str, out: &mut Vec<String>) {
        match (read, written) {
            (Value::Object(read), Value::Object(written)) => {
                for (key, value) in written {
                    match read.get(key) {
                        Some(read) => left(read, value, &format!("{at}/{key}"), out),
                        None => out.push(format!("{at}/{key}")),
                    }
                }
            }
            (Value::Array(read), Value::Array(written)) if read.len() == written.len() => {
                for (index, (read, written)) in read.iter().zip(written).enumerate() {
                    left(read, written, &format!("{at}/{index}"), out);
                }
            }
            (read, written) if read == written => {}
            _ => out.push(at.to_owned()),
        }
    }
    let read: K = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    left(&serde_json::to_value(&read).unwrap(), value, "", &mut out);
    if out.is_empty() { Ok(()) } else { Err(format!("not of its kind: {out:?}")) }
}

#[test]
fn the_shipped_add_ons_are_these_and_each_field_is_one_of_its_kind() {
    let names: Vec<String> = shipped().iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["aws-cloud-controller-manager", "aws-ebs-csi-driver", "bridge-cni", "coredns"]);
    for (name, bytes) in shipped() {
        let addon = Addon::parse(&name, &bytes, &variables("{podSubnet: 10.244.0.0/16}"));
        let addon = addon.unwrap_or_else(|error| panic!("{name}: {error}"));
        for object in &addon.objects {
            let value = &object.value;
            let fits = match object.key.kind.as_str() {
                "ServiceAccount" => strict::<ServiceAccount>(value),
                "ConfigMap" => strict::<ConfigMap>(value),
                "Service" => strict::<Service>(value),
                "ClusterRole" => strict::<ClusterRole>(value),
                "ClusterRoleBinding" => strict::<ClusterRoleBinding>(value),
                "Role" => strict::<Role>(value),
                "RoleBinding" => strict::<RoleBinding>(value),
                "Deployment" => strict::<Deployment>(value),
                "DaemonSet" => strict::<DaemonSet>(value),
                "PodDisruptionBudget" => strict::<PodDisruptionBudget>(value),
                "CSIDriver" => strict::<CSIDriver>(value),
                "StorageClass" => strict::<StorageClass>(value),
                other => panic!("{name}: no test knows {other}"),
            };
            fits.unwrap_or_else(|why| panic!("{name}: {}: {why}", object.key));
            assert!(!value.to_string().contains("${QUORATE"), "{name}: {}", object.key);
            assert!(
                !object.key.holds_others_data(),
                "{name}: {}: taking it away must leave nothing",
                object.key
            );
        }
    }
}

/// The pods that the shipped add-ons make.
fn pods() -> Vec<(String, Value)> {
    let mut pods = Vec::new();
    for (name, bytes) in shipped() {
        let addon = Addon::parse(&name, &bytes, &variables("{podSubnet: 10.244.0.0/16}")).unwrap();
        for object in addon.objects {
            if let Some(pod) = object.value.pointer("/spec/template/spec") {
                pods.push((object.key.to_string(), pod.clone()));
            }
        }
    }
    pods
}

#[test]
fn every_shipped_pod_is_bounded_confined_and_important() {
    // These do what only root can on a node.
    let root = ["DaemonSet kube-system/ebs-csi-node", "DaemonSet kube-system/bridge-cni"];
    assert_eq!(pods().len(), 5);
    for (title, pod) in pods() {
        assert!(pod["priorityClassName"].as_str().is_some_and(|name| name.starts_with("system-")), "{title}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{title}");
        assert_eq!(
            pod["securityContext"]["runAsNonRoot"] == true,
            !root.contains(&title.as_str()),
            "{title}"
        );
        let none = Vec::new();
        let all = ["initContainers", "containers"];
        let containers = all.iter().flat_map(|of| pod[*of].as_array().unwrap_or(&none));
        for container in containers {
            let what = format!("{title}: {}", container["name"]);
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{what}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{what}");
            let security = &container["securityContext"];
            let privileged = container["name"] == "ebs-plugin" && title.ends_with("ebs-csi-node");
            assert_eq!(security["privileged"] == true, privileged, "{what}");
            assert!(privileged || security["allowPrivilegeEscalation"] == false, "{what}");
            let image = container["image"].as_str().unwrap();
            assert!(
                ["registry.k8s.io/", "public.ecr.aws/"].iter().any(|from| image.starts_with(from)),
                "{what}"
            );
            assert!(!image.ends_with(":latest") && image.contains(':'), "{what}");
        }
    }
}

#[test]
fn the_cloud_controller_routes_pods_where_they_have_a_subnet_and_asks_its_own_node() {
    let (name, bytes) = shipped().remove(0);
    let args = |kubernetes: &str| {
        let addon = Addon::parse(&name, &bytes, &variables(kubernetes)).unwrap();
        let set = addon.objects.iter().find(|object| object.key.kind == "DaemonSet").unwrap().value.clone();
        let container = set["spec"]["template"]["spec"]["containers"][0].clone();
        assert_eq!(container["env"][0], json!({ "name": "KUBERNETES_SERVICE_HOST", "value": "127.0.0.1" }));
        container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap().to_owned()).collect()
    };
    let routed: Vec<String> = args("{podSubnet: 10.244.0.0/16}");
    let not: Vec<String> = args("{}");
    for (args, expected) in [
        (routed, ["--configure-cloud-routes=true", "--cluster-cidr=10.244.0.0/16", "--cluster-name=demo"]),
        (not, ["--configure-cloud-routes=false", "--cluster-cidr=", "--cluster-name=demo"]),
    ] {
        for flag in expected {
            assert!(args.iter().any(|arg| arg == flag), "{flag}: {args:?}");
        }
    }
}
