//! Writes the small XML documents of AWS's answers.

use std::fmt::Display;

use quick_xml::escape::escape;

/// An XML document being written.
#[derive(Default)]
pub(super) struct Xml(String);

impl Xml {
    /// A document with one root.
    pub(super) fn document(root: &str, namespace: &str, content: impl FnOnce(&mut Xml)) -> String {
        let mut xml = Xml("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".into());
        if namespace.is_empty() {
            xml.push(&["<", root, ">"]);
        } else {
            xml.push(&["<", root, " xmlns=\"", namespace, "\">"]);
        }
        content(&mut xml);
        xml.push(&["</", root, ">"]);
        xml.0
    }

    /// An element with elements in it.
    pub(super) fn node(&mut self, name: &str, content: impl FnOnce(&mut Xml)) {
        self.push(&["<", name, ">"]);
        content(self);
        self.push(&["</", name, ">"]);
    }

    /// An element with text in it.
    pub(super) fn text(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        self.push(&["<", name, ">", &escape(&value), "</", name, ">"]);
    }

    /// An element with text in it, if there is any.
    pub(super) fn maybe(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    fn push(&mut self, parts: &[&str]) {
        self.0.extend(parts.iter().copied());
    }
}
