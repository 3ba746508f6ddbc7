//! Stage two, inputs: what fragments and tags say, key by key, each value checked on its own.
//!
//! Everything that is wrong is collected. No value is compared with another one here, and nothing is merged.

use super::errors::{ConfigError, Origin, Position, Problem, Source};
use super::fragments::Fragment;
use super::keys::{self, Key, Kind, TextRule};
use super::lookup;
use super::units::{ByteSize, TimeSpan};
use super::values::Chance;
use super::yaml::{self, Node, Yaml};

/// A checked value in its canonical form, which the type of its setting parses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// A text, number, duration or size.
    One(String),
    /// A list of texts.
    Many(Vec<String>),
}

/// One key set by one source.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub key: &'static Key,
    pub value: Value,
    pub origin: Origin,
}

/// Reads one fragment, adding what is wrong to `errors`.
pub(super) fn read(fragment: &Fragment, errors: &mut Vec<ConfigError>) -> Vec<Input> {
    let mut reader = Reader { source: &fragment.source, inputs: Vec::new(), errors };
    match yaml::parse(fragment) {
        Ok(Node { value: Yaml::Null, .. }) => {}
        Ok(Node { value: Yaml::Map(entries), .. }) => reader.section("", &entries),
        Ok(node) => {
            let problem = Problem::WrongType {
                key: "the document".to_owned(),
                found: node.value.describe(),
                expected: "keys with values".to_owned(),
            };
            let error = reader.error(&node, problem).hint("write `key: value`, one a line");
            reader.errors.push(error);
        }
        Err(error) => reader.errors.push(error),
    }
    reader.inputs
}

/// Reads an instance tag that sets the key of this path.
pub(super) fn read_tag(
    source: &Source,
    path: &str,
    text: &str,
    errors: &mut Vec<ConfigError>,
) -> Option<Input> {
    let key = lookup::find(path)?;
    let mut reader = Reader { source, inputs: Vec::new(), errors };
    let node = Node::new(
        Yaml::Text(text.to_owned()),
        serde_saphyr::Location::UNKNOWN,
        serde_saphyr::Location::UNKNOWN,
    );
    reader.leaf(key, &node);
    reader.inputs.pop()
}

struct Reader<'a> {
    source: &'a Source,
    inputs: Vec<Input>,
    errors: &'a mut Vec<ConfigError>,
}

impl Reader<'_> {
    fn origin(&self, position: Option<Position>) -> Origin {
        Origin { source: self.source.clone(), position }
    }

    fn error<T>(&self, at: &serde_saphyr::Spanned<T>, problem: Problem) -> ConfigError {
        ConfigError::new(self.origin(yaml::position(at.referenced)), problem)
    }

    fn section(&mut self, path: &str, entries: &[(serde_saphyr::Spanned<String>, Node)]) {
        for (index, (name, node)) in entries.iter().enumerate() {
            let full = lookup::join(path, &name.value);
            let shown = yaml::shorten(&full);
            if let Some((first, _)) = entries[..index].iter().find(|(earlier, _)| earlier.value == name.value)
            {
                let problem = Problem::DuplicateKey { key: shown, first_line: first.referenced.line() };
                let error = self.error(name, problem).hint("keep one of them");
                self.errors.push(error);
            } else if name.value.contains('.') || !lookup::children(path).contains(&name.value.as_str()) {
                let hint = lookup::suggest(path, &name.value);
                let error = self.error(name, Problem::UnknownKey { key: shown }).hint(hint);
                self.errors.push(error);
            } else if let Some(key) = lookup::find(&full) {
                self.leaf(key, node);
            } else {
                self.subsection(&full, node);
            }
        }
    }

    fn subsection(&mut self, path: &str, node: &Node) {
        match &node.value {
            Yaml::Map(entries) => self.section(path, entries),
            Yaml::Null => {}
            other => {
                let problem = Problem::WrongType {
                    key: path.to_owned(),
                    found: other.describe(),
                    expected: "a section".to_owned(),
                };
                let hint = format!("keys of `{path}`: {}", lookup::list(&lookup::children(path)));
                let error = self.error(node, problem).hint(hint);
                self.errors.push(error);
            }
        }
    }

    fn leaf(&mut self, key: &'static Key, node: &Node) {
        let value = match (&key.kind, &node.value) {
            (Kind::List(rule), Yaml::List(items)) => self.list(key, rule, items).map(Value::Many),
            (kind, value) => match scalar(key, kind, value) {
                Ok(text) => Some(Value::One(text)),
                Err((problem, hint)) => {
                    let mut error = self.error(node, problem);
                    error.hint = hint;
                    self.errors.push(error);
                    None
                }
            },
        };
        if let Some(value) = value {
            let origin = self.origin(yaml::position(node.referenced));
            self.inputs.push(Input { key, value, origin });
        }
    }

    fn list(&mut self, key: &'static Key, rule: &TextRule, items: &[Node]) -> Option<Vec<String>> {
        let mut texts: Vec<String> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{}[{index}]", key.path);
            let error = match text(&path, rule, &item.value) {
                Ok(text) if texts.iter().any(|known| (rule.identity)(known) == (rule.identity)(&text)) => {
                    let problem =
                        Problem::Invalid { key: path, value: text, expected: "each name once".to_owned() };
                    self.error(item, problem).hint("remove the second one")
                }
                Ok(text) => {
                    texts.push(text);
                    continue;
                }
                Err((problem, hint)) => ConfigError { hint, ..self.error(item, problem) },
            };
            self.errors.push(error);
        }
        (texts.len() == items.len()).then_some(texts)
    }
}

type Refusal = (Problem, Option<String>);

fn wrong_type(key: &str, value: &Yaml, expected: String, hint: Option<String>) -> Refusal {
    (Problem::WrongType { key: key.to_owned(), found: value.describe(), expected }, hint)
}

fn invalid(key: &str, value: &str, expected: String, hint: Option<String>) -> Refusal {
    (Problem::Invalid { key: key.to_owned(), value: yaml::shorten(value), expected }, hint)
}

/// The canonical text of a scalar.
fn scalar(key: &Key, kind: &Kind, value: &Yaml) -> Result<String, Refusal> {
    let path = key.path;
    if *value == Yaml::Null {
        let hint = format!("give {}, or remove the line", kind.expected());
        return Err(wrong_type(path, value, kind.expected(), Some(hint)));
    }
    match (kind, value) {
        (Kind::Text(rule) | Kind::Document(rule), value) => text(path, rule, value),
        (Kind::List(rule), value) => {
            let hint = format!("write `[{}]`", rule.example);
            Err(wrong_type(path, value, kind.expected(), Some(hint)))
        }
        (Kind::Choice(words), Yaml::Text(text)) => {
            if words.contains(&text.as_str()) {
                return Ok(text.clone());
            }
            let hint =
                lookup::closest(text, words.iter().copied()).map(|word| format!("did you mean `{word}`?"));
            Err(invalid(path, text, kind.expected(), hint))
        }
        (Kind::Count(numbers), Yaml::Integer(number)) => {
            if numbers.iter().any(|allowed| i128::from(*allowed) == *number) {
                return Ok(number.to_string());
            }
            Err(invalid(path, &number.to_string(), kind.expected(), None))
        }
        (Kind::Integer { min, max, .. }, Yaml::Integer(number)) => {
            if (i128::from(*min)..=i128::from(*max)).contains(number) {
                return Ok(number.to_string());
            }
            Err(invalid(path, &number.to_string(), kind.expected(), None))
        }
        (Kind::Duration { min, max }, Yaml::Text(text)) => duration(path, text, kind, (*min, *max)),
        (Kind::Size { min, max, step }, Yaml::Text(text)) => match text.parse::<ByteSize>() {
            Ok(size) if size < *min || size > *max || !size.as_bytes().is_multiple_of(step.as_bytes()) => {
                Err(invalid(path, text, kind.expected(), None))
            }
            Ok(size) => Ok(size.to_string()),
            Err(rule) => Err(invalid(path, text, kind.expected(), Some(format!("write {rule}")))),
        },
        // Rust prints the shortest decimals that mean the number.
        (Kind::Fraction { min, max }, Yaml::Float(number)) => {
            fraction(path, &number.to_string(), kind, (*min, *max))
        }
        (Kind::Fraction { min, max }, Yaml::Integer(number)) => {
            fraction(path, &number.to_string(), kind, (*min, *max))
        }
        (Kind::Fraction { .. }, Yaml::Text(text)) if text.parse::<f64>().is_ok() => {
            let hint = "write the number without quotes".to_owned();
            Err(wrong_type(path, value, kind.expected(), Some(hint)))
        }
        (Kind::Retention, Yaml::Text(text)) => duration(path, text, kind, keys::RETENTION_SPAN),
        (Kind::Retention, Yaml::Integer(number)) => {
            let (min, max) = keys::RETENTION_REVISIONS;
            if (i128::from(min)..=i128::from(max)).contains(number) {
                return Ok(number.to_string());
            }
            Err(invalid(path, &number.to_string(), kind.expected(), None))
        }
        (Kind::Duration { .. }, Yaml::Integer(number)) => {
            let hint = format!("give the unit: `{number}s` or `{number}ms`");
            Err(wrong_type(path, value, kind.expected(), Some(hint)))
        }
        (Kind::Size { .. }, Yaml::Integer(number)) => {
            let hint = format!("give the unit: `{number}GiB`, `{number}MiB` or `{number}B`");
            Err(wrong_type(path, value, kind.expected(), Some(hint)))
        }
        (Kind::Count(_) | Kind::Integer { .. }, Yaml::Text(text)) if text.parse::<u64>().is_ok() => {
            let hint = "write the number without quotes, leading zeros and underscores".to_owned();
            Err(wrong_type(path, value, kind.expected(), Some(hint)))
        }
        (
            Kind::Choice(_)
            | Kind::Count(_)
            | Kind::Integer { .. }
            | Kind::Duration { .. }
            | Kind::Size { .. }
            | Kind::Fraction { .. }
            | Kind::Retention,
            value,
        ) => {
            let hint = kind.example().map(|example| format!("for example `{example}`"));
            Err(wrong_type(path, value, kind.expected(), hint))
        }
    }
}

fn duration(path: &str, text: &str, kind: &Kind, range: (TimeSpan, TimeSpan)) -> Result<String, Refusal> {
    match text.parse::<TimeSpan>() {
        Ok(span) if span < range.0 || span > range.1 => Err(invalid(path, text, kind.expected(), None)),
        Ok(span) => Ok(span.to_string()),
        Err(rule) => Err(invalid(path, text, kind.expected(), Some(format!("write {rule}")))),
    }
}

fn fraction(path: &str, written: &str, kind: &Kind, range: (Chance, Chance)) -> Result<String, Refusal> {
    match written.parse::<Chance>() {
        Ok(chance) if (range.0..=range.1).contains(&chance) => Ok(chance.to_string()),
        Ok(_) | Err(_) => Err(invalid(path, written, kind.expected(), None)),
    }
}

fn text(path: &str, rule: &TextRule, value: &Yaml) -> Result<String, Refusal> {
    let example = format!("for example `{}`", rule.example);
    match value {
        Yaml::Text(text) => match (rule.check)(text) {
            Ok(()) => Ok(text.clone()),
            Err(expected) => {
                let hint = (!expected.contains(rule.example)).then_some(example);
                Err(invalid(path, text, expected, hint))
            }
        },
        Yaml::Integer(_) | Yaml::Bool(_) | Yaml::Float(_) => {
            Err(wrong_type(path, value, "text".to_owned(), Some("write it in quotes".to_owned())))
        }
        Yaml::Null | Yaml::List(_) | Yaml::Map(_) => {
            Err(wrong_type(path, value, "text".to_owned(), Some(example)))
        }
    }
}
