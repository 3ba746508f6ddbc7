//! IAM's policies, evaluated: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>
//!
//! Only what the template uses. An element or an operator that is not known here fails: a policy that nobody can judge
//! is not to pass.

use std::collections::BTreeMap;

use quorate::lab::region::Authorization;
use serde_json::Value;

/// What comes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// No statement allows it.
    NotAllowed,
    /// A statement denies it.
    Denied,
}

/// The policies of a role, and those of the resources that it touches.
pub struct Policies {
    principal: String,
    of_role: Vec<Statement>,
    of_resources: Vec<Statement>,
}

struct Statement {
    denies: bool,
    /// Of a resource's policy alone.
    principals: Vec<String>,
    actions: Vec<String>,
    resources: Vec<String>,
    conditions: Vec<(Operator, String, Vec<String>)>,
}

#[derive(Clone, Copy)]
enum Operator {
    StringEquals,
    Bool,
}

impl Policies {
    pub fn new(principal: String, of_role: &[Value], of_resources: &[Value]) -> Self {
        let read = |documents: &[Value]| -> Vec<Statement> {
            documents.iter().flat_map(|document| statements(document).iter().map(Statement::read)).collect()
        };
        let (of_role, of_resources) = (read(of_role), read(of_resources));
        assert!(
            of_role.iter().all(|statement| statement.principals.is_empty()),
            "a role's policy names a principal"
        );
        // What a resource's policy allows is not known to be judged here.
        assert!(of_resources.iter().all(|statement| statement.denies && !statement.principals.is_empty()));
        Self { principal, of_role, of_resources }
    }

    pub fn judge(&self, asked: &Authorization) -> Verdict {
        let mine = |statement: &&Statement| {
            statement.principals.iter().any(|principal| principal == "*" || *principal == self.principal)
        };
        let all = self.of_role.iter().chain(self.of_resources.iter().filter(mine));
        let (mut allowed, mut denied) = (false, false);
        for statement in all.filter(|statement| statement.fits(asked)) {
            if statement.denies { denied = true } else { allowed = true }
        }
        match (denied, allowed) {
            (true, _) => Verdict::Denied,
            (false, true) => Verdict::Allowed,
            (false, false) => Verdict::NotAllowed,
        }
    }

    /// The actions that the role's statements allow, as they are written.
    pub fn allowed_actions(&self) -> Vec<String> {
        let allowing = self.of_role.iter().filter(|statement| !statement.denies);
        allowing.flat_map(|statement| statement.actions.clone()).collect()
    }
}

/// The statements of a document.
pub fn statements(document: &Value) -> &Vec<Value> {
    assert_eq!(document["Version"], "2012-10-17", "{document}");
    document["Statement"].as_array().unwrap()
}

impl Statement {
    fn read(statement: &Value) -> Self {
        let mut read = Self {
            denies: false,
            principals: Vec::new(),
            actions: Vec::new(),
            resources: Vec::new(),
            conditions: Vec::new(),
        };
        for (element, value) in statement.as_object().unwrap() {
            match element.as_str() {
                "Sid" => {}
                "Effect" => {
                    read.denies = ["Allow", "Deny"].iter().position(|known| value == known).unwrap() == 1;
                }
                "Principal" => read.principals = texts(value.get("AWS").unwrap_or(value)),
                "Action" => read.actions = texts(value),
                "Resource" => read.resources = texts(value),
                "Condition" => read.conditions = conditions(value),
                other => panic!("the element {other} is not known here: {statement}"),
            }
        }
        assert!(!read.actions.is_empty() && !read.resources.is_empty(), "{statement}");
        read
    }

    fn fits(&self, asked: &Authorization) -> bool {
        let action = asked.action.to_ascii_lowercase();
        let of_action =
            |pattern: &String| wildcard(pattern.to_ascii_lowercase().as_bytes(), action.as_bytes());
        // An action that knows no resources is asked of `*`, and only `*` covers it.
        let of_resource = |pattern: &String| wildcard(pattern.as_bytes(), asked.resource.as_bytes());
        self.actions.iter().any(of_action)
            && self.resources.iter().any(of_resource)
            && self
                .conditions
                .iter()
                .all(|(operator, key, values)| holds(*operator, asked.context.get(key), values))
    }
}

fn conditions(value: &Value) -> Vec<(Operator, String, Vec<String>)> {
    let mut found = Vec::new();
    for (name, keys) in value.as_object().unwrap() {
        let operator = match name.as_str() {
            "StringEquals" => Operator::StringEquals,
            "Bool" => Operator::Bool,
            other => panic!("the operator {other} is not known here"),
        };
        for (key, values) in keys.as_object().unwrap() {
            found.push((operator, key.clone(), texts(values)));
        }
    }
    found
}

/// A key that is not there fits neither operator.
fn holds(operator: Operator, found: Option<&String>, values: &[String]) -> bool {
    found.is_some_and(|found| match operator {
        Operator::StringEquals => values.contains(found),
        Operator::Bool => values.iter().any(|value| value.eq_ignore_ascii_case(found)),
    })
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(list) => list.iter().map(|text| text.as_str().unwrap().to_owned()).collect(),
        other => panic!("neither a text nor a list: {other}"),
    }
}

fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|n| wildcard(rest, &text[n..])),
        Some((p, rest)) => {
            text.split_first().is_some_and(|(t, tail)| (*p == b'?' || p == t) && wildcard(rest, tail))
        }
    }
}

/// A question of a role.
pub fn asked(role: &str, action: &str, resource: &str, context: &[(&str, &str)]) -> Authorization {
    let context: BTreeMap<String, String> =
        context.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Authorization { role: role.to_owned(), action: action.to_owned(), resource: resource.to_owned(), context }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policies(of_role: &Value, of_resources: &Value) -> Policies {
        let document = |statements: &Value| json!({"Version": "2012-10-17", "Statement": statements});
        Policies::new("arn:me".to_owned(), &[document(of_role)], &[document(of_resources)])
    }

    #[test]
    fn a_denial_counts_more_than_what_is_allowed_and_silence_is_no_permission() {
        let policies = policies(
            &json!([{"Effect": "Allow", "Action": "s3:Get*", "Resource": "arn:aws:s3:::b/*"}]),
            &json!([{"Effect": "Deny", "Principal": {"AWS": "arn:me"}, "Action": "s3:*", "Resource": "arn:aws:s3:::b/pki/*"},
                    {"Effect": "Deny", "Principal": {"AWS": "arn:other"}, "Action": "s3:*", "Resource": "*"}]),
        );
        let judge = |action, key| policies.judge(&asked("me", action, &format!("arn:aws:s3:::b/{key}"), &[]));
        assert_eq!(judge("s3:getobject", "x"), Verdict::Allowed);
        assert_eq!(judge("s3:GetObject", "pki/x"), Verdict::Denied);
        assert_eq!(judge("s3:PutObject", "x"), Verdict::NotAllowed);
    }

    #[test]
    fn a_condition_on_what_is_not_there_does_not_hold() {
        let policies = policies(
            &json!([{"Effect": "Allow", "Action": "a:b", "Resource": "*",
                     "Condition": {"StringEquals": {"aws:ResourceTag/c": ["x", "y"]}}}]),
            &json!([]),
        );
        let judge = |context: &[(&str, &str)]| policies.judge(&asked("me", "a:b", "r", context));
        assert_eq!(judge(&[("aws:ResourceTag/c", "y")]), Verdict::Allowed);
        assert_eq!(judge(&[("aws:ResourceTag/c", "z")]), Verdict::NotAllowed);
        assert_eq!(judge(&[]), Verdict::NotAllowed);
    }

    #[test]
    #[should_panic(expected = "the operator StringLike is not known here")]
    fn an_operator_that_nobody_can_judge_fails() {
        let condition = json!({"StringLike": {"s3:prefix": "x*"}});
        policies(
            &json!([{"Effect": "Allow", "Action": "a:b", "Resource": "*", "Condition": condition}]),
            &json!([]),
        );
    }

    #[test]
    #[should_panic(expected = "the element NotAction is not known here")]
    fn an_element_that_nobody_can_judge_fails() {
        policies(&json!([{"Effect": "Allow", "NotAction": "a:b", "Resource": "*"}]), &json!([]));
    }
}
