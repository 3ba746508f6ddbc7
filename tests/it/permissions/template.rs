//! `packaging/cloudformation/cluster.yaml`, read and resolved as CloudFormation would, as far as the template goes:
//! a function that it does not use is not known here, and fails.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::docs::read;

pub const PATH: &str = "packaging/cloudformation/cluster.yaml";
pub const REGION: &str = "eu-west-1";
pub const ACCOUNT: &str = "123456789012";
/// The laboratory's.
pub const CLUSTER: &str = "demo";
pub const BUCKET: &str = "demo-quorate";
pub const KEY: &str = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555";

/// The template with values for its parameters.
pub struct Template {
    whole: Value,
    parameters: BTreeMap<String, Value>,
}

impl Template {
    /// For the laboratory's cluster, with these parameters beside the necessary ones.
    pub fn with(parameters: &[(&str, &str)]) -> Self {
        let whole = parse(&read(PATH));
        let mut values: BTreeMap<String, Value> = BTreeMap::new();
        for (name, parameter) in whole["Parameters"].as_object().unwrap() {
            let list = parameter["Type"] == "CommaDelimitedList"
                || parameter["Type"].as_str().unwrap().starts_with("List<");
            let given = [
                ("ClusterName", CLUSTER),
                ("Vpc", "vpc-1"),
                ("Subnets", "subnet-1,subnet-2,subnet-3"),
                ("Zones", "eu-west-1a,eu-west-1b,eu-west-1c"),
                ("Image", "ami-1"),
            ];
            let given = parameters.iter().chain(&given).find(|(given, _)| given == name);
            let value = match (given, &parameter["Default"]) {
                (Some((_, value)), _) => (*value).to_owned(),
                (None, Value::String(default)) => default.clone(),
                (None, Value::Number(default)) => default.to_string(),
                (None, other) => panic!("{name} has no value, and the default {other}"),
            };
            let value = if list { value.split(',').collect() } else { json!(value) };
            values.insert(name.clone(), value);
        }
        for (name, _) in parameters {
            assert!(values.contains_key(*name), "there is no parameter {name}");
        }
        Self { whole, parameters: values }
    }

    /// The names of the parameters.
    pub fn parameters() -> Vec<String> {
        parse(&read(PATH))["Parameters"].as_object().unwrap().keys().cloned().collect()
    }

    /// The resources that there are, resolved.
    pub fn resources(&self) -> BTreeMap<String, Value> {
        let all = self.whole["Resources"].as_object().unwrap();
        let there = all.iter().filter(|(_, resource)| match &resource["Condition"] {
            Value::Null => true,
            name => self.condition(name.as_str().unwrap()),
        });
        there.map(|(name, resource)| (name.clone(), self.resolve(resource).unwrap_or_default())).collect()
    }

    /// The properties of one resource.
    pub fn properties(&self, name: &str) -> Value {
        let resources = self.resources();
        let resource = resources.get(name).unwrap_or_else(|| panic!("there is no resource {name}"));
        resource["Properties"].clone()
    }

    /// All resources of a type, by name.
    pub fn of_type(&self, kind: &str) -> BTreeMap<String, Value> {
        let found = self.resources().into_iter().filter(|(_, resource)| resource["Type"] == kind);
        found.map(|(name, resource)| (name, resource["Properties"].clone())).collect()
    }

    fn condition(&self, name: &str) -> bool {
        self.truth(&self.whole["Conditions"][name])
    }

    fn truth(&self, condition: &Value) -> bool {
        let (function, argument) = single(condition).unwrap_or_else(|| panic!("no condition: {condition}"));
        match function {
            "Fn::Equals" => self.resolve(&argument[0]) == self.resolve(&argument[1]),
            "Fn::Not" => !self.truth(&argument[0]),
            other => panic!("a condition by {other} is not known here"),
        }
    }

    /// The value with all functions applied; `None` for what is not to be there.
    fn resolve(&self, value: &Value) -> Option<Value> {
        if let Some((function, argument)) = single(value) {
            match function {
                "Ref" => return self.reference(argument.as_str().unwrap()),
                "Fn::GetAtt" => return Some(json!(attribute(argument.as_str().unwrap()))),
                "Fn::If" => {
                    let holds = self.condition(argument[0].as_str().unwrap());
                    return self.resolve(&argument[if holds { 1 } else { 2 }]);
                }
                "Fn::Sub" => return Some(json!(self.substitute(argument))),
                "Fn::Base64" => return self.resolve(argument),
                "Fn::Join" => {
                    let parts = self.resolve(&argument[1]).unwrap();
                    let parts: Vec<&str> =
                        parts.as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
                    return Some(json!(parts.join(argument[0].as_str().unwrap())));
                }
                "Fn::Select" => {
                    let index = usize::try_from(argument[0].as_u64().unwrap()).unwrap();
                    return self.resolve(&argument[1]).map(|list| list[index].clone());
                }
                other => assert!(!other.starts_with("Fn::"), "{other} is not known here"),
            }
        }
        Some(match value {
            Value::Object(map) => {
                let there = map.iter().filter_map(|(key, value)| Some((key.clone(), self.resolve(value)?)));
                Value::Object(there.collect::<Map<_, _>>())
            }
            Value::Array(list) => list.iter().filter_map(|value| self.resolve(value)).collect(),
            other => other.clone(),
        })
    }

    fn reference(&self, name: &str) -> Option<Value> {
        if name == "AWS::NoValue" {
            return None;
        }
        let value = self.parameters.get(name).cloned();
        Some(value.unwrap_or_else(|| json!(reference(name))))
    }

    /// A text with `${…}`, or that and the values of some of them.
    fn substitute(&self, argument: &Value) -> String {
        let (text, own) = match argument {
            Value::Array(both) => (both[0].as_str().unwrap(), both[1].as_object().cloned().unwrap()),
            text => (text.as_str().unwrap(), Map::new()),
        };
        let mut parts = text.split("${");
        let mut result = parts.next().unwrap().to_owned();
        for part in parts {
            let (name, rest) = part.split_once('}').unwrap();
            let value = match own.get(name) {
                Some(value) => self.resolve(value).unwrap(),
                None if name.contains('.') => json!(attribute(name)),
                None => self.reference(name).unwrap(),
            };
            result += value.as_str().unwrap_or_else(|| panic!("{name} is no text: {value}"));
            result += rest;
        }
        result
    }
}

/// What pseudo parameters and resources are called.
fn reference(name: &str) -> String {
    match name {
        "AWS::Partition" => "aws",
        "AWS::Region" => REGION,
        "AWS::AccountId" => ACCOUNT,
        "Bucket" => BUCKET,
        other => {
            assert!(!other.starts_with("AWS::"), "{other} is not known here");
            other
        }
    }
    .to_owned()
}

fn attribute(path: &str) -> String {
    match path {
        "Bucket.Arn" => format!("arn:aws:s3:::{BUCKET}"),
        "Key.Arn" => KEY.to_owned(),
        "ControlPlaneRole.Arn" => role_arn("control-plane"),
        "WorkerRole.Arn" => role_arn("worker"),
        other => other.to_owned(),
    }
}

/// The ARN of a role, by the name that the laboratory gives it.
pub fn role_arn(role: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{role}")
}

/// An object with one key, which may be a function.
fn single(value: &Value) -> Option<(&str, &Value)> {
    let map = value.as_object().filter(|map| map.len() == 1)?;
    map.iter().next().map(|(key, value)| (key.as_str(), value))
}

/// YAML in which functions may be written as tags: `!Ref X` is `{"Ref": X}`.
fn parse(text: &str) -> Value {
    serde_saphyr::from_str(&written_out(text)).unwrap_or_else(|error| panic!("{PATH}: {error}"))
}

/// The same text with tags written out. A tag stands before a word, a quoted text or a list in brackets.
fn written_out(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['!', '#', '"']) {
        let (before, after) = rest.split_at(at);
        result += before;
        let starts = before.is_empty() || before.ends_with([' ', '[', '{', ',', '\n']);
        let length = match after.as_bytes()[0] {
            b'#' if starts => after.find('\n').unwrap_or(after.len()),
            b'"' if starts => quoted(after),
            b'!' if starts && after[1..].starts_with(|c: char| c.is_ascii_uppercase()) => {
                let (tag, _) = after[1..].split_once(' ').unwrap();
                let node = &after[tag.len() + 2..];
                let length = node_length(node);
                let name = if tag == "Ref" { tag.to_owned() } else { format!("Fn::{tag}") };
                result += &format!("{{\"{name}\": {}}}", written_out(&node[..length]));
                rest = &node[length..];
                continue;
            }
            _ => 1,
        };
        result += &after[..length];
        rest = &after[length..];
    }
    result + rest
}

/// How long a quoted text is, with its quotes.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    end.unwrap_or_else(|| panic!("a quote is not closed: {text:.40}")).0 + 1
}

fn node_length(node: &str) -> usize {
    match node.as_bytes()[0] {
        b'"' => quoted(node),
        b'[' => {
            let (mut depth, mut at) = (0, 0);
            loop {
                match node.as_bytes()[at] {
                    b'"' => at += quoted(&node[at..]) - 1,
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return at;
                }
            }
        }
        b'!' => {
            let tag = node.find(' ').unwrap() + 1;
            tag + node_length(&node[tag..])
        }
        _ => node.find([',', ']', '}', '\n']).unwrap_or(node.len()),
    }
}

#[test]
fn functions_are_read_as_tags_and_written_out() {
    let text = "a: !Ref X\nb: [!If [C, !Ref Why, \"!Z\"], 1] # !Ref no\nc: !Sub \"${X}, ]\"\nd: {e: !Not [!Equals [!Ref X, \"\"]]}\n";
    assert_eq!(
        parse(text),
        json!({
            "a": {"Ref": "X"},
            "b": [{"Fn::If": ["C", {"Ref": "Why"}, "!Z"]}, 1],
            "c": {"Fn::Sub": "${X}, ]"},
            "d": {"e": {"Fn::Not": [{"Fn::Equals": [{"Ref": "X"}, ""]}]}},
        })
    );
}
