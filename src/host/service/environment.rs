//! The file in which a unit finds its program's arguments.
//!
//! A unit has `ExecStart=PROGRAM $ARGS` and `EnvironmentFile=FILE`; the file has `ARGS="…"`. systemd reads the file's
//! quotes first, then splits the value into words, and reads the quotes in it. So a word that is not plain is quoted
//! twice. Source: systemd.exec(5), `EnvironmentFile=`; systemd.service(5), "Command lines".

/// An argument that can't be handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadArgument {
    /// systemd takes no control characters in variables.
    #[error("{0:?} has a control character")]
    ControlCharacter(String),
}

/// The file's text.
pub fn environment_file(variable: &str, arguments: &[String]) -> Result<String, BadArgument> {
    let mut value = String::new();
    for argument in arguments {
        if argument.chars().any(char::is_control) {
            return Err(BadArgument::ControlCharacter(argument.clone()));
        }
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str(&word(argument));
    }
    let mut text = format!("{variable}=\"");
    for character in value.chars() {
        if matches!(character, '"' | '\\' | '$' | '`') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push_str("\"\n");
    Ok(text)
}

/// An argument as a word of the value.
fn word(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%^~[]{}$*?!#&()<>|;`".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    let mut word = String::from("'");
    for character in argument.chars() {
        if matches!(character, '\'' | '\\') {
            word.push('\\');
        }
        word.push(character);
    }
    word.push('\'');
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        environment_file("ARGS", &arguments).unwrap()
    }

    #[test]
    fn plain_arguments_stay_readable() {
        assert_eq!(file(&["--config=/a/b.yaml", "--v=2"]), "ARGS=\"--config=/a/b.yaml --v=2\"\n");
        assert_eq!(file(&[]), "ARGS=\"\"\n");
    }

    #[test]
    fn what_splits_or_quotes_or_is_nothing_is_quoted_for_both_readers() {
        assert_eq!(file(&["a b"]), "ARGS=\"'a b'\"\n");
        assert_eq!(file(&[""]), "ARGS=\"''\"\n");
        assert_eq!(file(&["it's"]), "ARGS=\"'it\\\\'s'\"\n");
        assert_eq!(file(&[r#"a"b\c"#]), "ARGS=\"'a\\\"b\\\\\\\\c'\"\n");
        assert_eq!(file(&["$HOME"]), "ARGS=\"\\$HOME\"\n");
    }

    #[test]
    fn no_argument_starts_a_line_of_its_own() {
        let error = environment_file("ARGS", &["a\nLD_PRELOAD=b".to_owned()]).unwrap_err();
        assert_eq!(error, BadArgument::ControlCharacter("a\nLD_PRELOAD=b".to_owned()));
    }
}
