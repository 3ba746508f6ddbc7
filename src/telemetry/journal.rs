//! The log: the journal under systemd, with tracing's fields kept as journal fields; readable
//! lines on standard error elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::io::IsTerminal;

use log::kv::{Error, Key, Source, Value, VisitSource};
use systemd_journal_logger::JournalLog;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// The target of events that are kept wherever there is a journal, even when a person runs the
/// program in a terminal: who was given what.
pub const NOTED: &str = "quorate::noted";

/// The journal's field for what kind of message it is.
const MESSAGE_ID: &str = "MESSAGE_ID";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The journal's socket can't be used.
    #[error("opening the journal")]
    Open(#[source] std::io::Error),
    /// There is a log already.
    #[error("setting up the log")]
    Install(#[source] TryInitError),
}

/// Changes how much is logged, once the configuration is known.
#[derive(Debug, Clone)]
pub struct LogLevel(reload::Handle<Targets, tracing_subscriber::Registry>);

impl LogLevel {
    /// Logs this level and what is more severe.
    pub fn set(&self, level: &str) {
        let Ok(level) = level.parse::<LevelFilter>() else {
            tracing::warn!(level, "this log level is not known");
            return;
        };
        if let Err(error) = self.0.modify(|filter| *filter = up_to(level)) {
            tracing::warn!(%error, "the log level can't be changed");
        }
    }
}

/// What is logged at a level. Libraries are not followed below `warn`: there they tell of each request
/// and its headers, and the metadata service's token is one of these.
fn up_to(level: LevelFilter) -> Targets {
    // kube tells every refused connection as an error, which whoever asked tells better.
    Targets::new()
        .with_target("quorate", level)
        .with_target("kube_client", LevelFilter::OFF)
        .with_default(level.min(LevelFilter::WARN))
}

/// Sets the log up: `info` and above until the configuration says otherwise.
pub fn install() -> Result<LogLevel, JournalError> {
    let (level, handle) = reload::Layer::new(up_to(LevelFilter::INFO));
    let registry = tracing_subscriber::registry().with(level);
    if systemd_journal_logger::connected_to_journal() {
        let journal = JournalLog::new().map_err(JournalError::Open)?;
        registry.with(JournalLayer { journal }).try_init().map_err(JournalError::Install)?;
    } else {
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false);
        let (journal, none) = match JournalLog::new() {
            Ok(journal) => (Some(JournalLayer { journal }.with_filter(filter_fn(is_noted))), None),
            Err(error) => (None, Some(error)),
        };
        registry.with(lines).with(journal).try_init().map_err(JournalError::Install)?;
        if let Some(error) = none {
            // In a container, or where the system's manager is another one.
            tracing::debug!(%error, "there is no journal beside standard error");
        }
    }
    Ok(LogLevel(handle))
}

fn is_noted(event: &Metadata<'_>) -> bool {
    event.target() == NOTED
}

/// Sends tracing's events to the journal, their fields and those of the spans around them as
/// journal fields `QUORATE_…`.
struct JournalLayer {
    journal: JournalLog,
}

/// Fields by their journal name.
#[derive(Debug, Default, Clone)]
struct Fields {
    message: String,
    fields: BTreeMap<String, String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else if field.name() == "message_id" {
            // The journal's own field: it leads to the catalogue.
            self.fields.insert(MESSAGE_ID.to_owned(), value);
        } else {
            let name = format!("QUORATE_{}", field.name().replace(['.', '-'], "_").to_uppercase());
            self.fields.insert(name, value);
        }
    }
}

impl Source for Fields {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        for (name, value) in &self.fields {
            visitor.visit_pair(Key::from_str(name), Value::from(value.as_str()))?;
        }
        Ok(())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JournalLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut all = Fields::default();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                all.fields.extend(fields.fields.clone());
            }
        }
        event.record(&mut all);
        let metadata = event.metadata();
        let message = readable(&all);
        let sent = self.journal.journal_send(
            &log::Record::builder()
                .level(level(*metadata.level()))
                .target(metadata.target())
                .file(metadata.file())
                .line(metadata.line())
                .key_values(&all)
                .args(format_args!("{message}"))
                .build(),
        );
        if sent.is_err() {
            // The journal is away for a moment, as when journald restarts; there is nobody to tell.
        }
    }
}

/// The message, and the fields behind it for who reads the journal without `-o verbose`.
fn readable(fields: &Fields) -> String {
    let mut text = fields.message.clone();
    for (name, value) in fields.fields.iter().filter(|(name, _)| *name != MESSAGE_ID) {
        let name = name.trim_start_matches("QUORATE_").to_lowercase();
        text.extend([" ", &name, "=", value]);
    }
    text
}

/// The level by which the event gets the journal's priority of the same name: the journal's logger
/// sends its own `Info` as notice (5) and `Debug` as info (6).
/// Source: `systemd_journal_logger::JournalLog`, "Standard fields".
fn level(level: Level) -> log::Level {
    match level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        Level::INFO => log::Level::Debug,
        Level::DEBUG | Level::TRACE => log::Level::Trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Keeps what an event's fields come to, as the journal's layer collects them.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Fields>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields);
        }
    }

    #[test]
    fn fields_become_journal_fields_and_stay_readable() {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry().with(kept.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(step = "format", attempt = 2, message_id = "0f", "done");
        });
        let kept = kept.0.lock().unwrap();
        assert_eq!(kept[0].fields["QUORATE_STEP"], "format");
        assert_eq!(kept[0].fields["QUORATE_ATTEMPT"], "2");
        assert_eq!(kept[0].fields["MESSAGE_ID"], "0f");
        assert_eq!(readable(&kept[0]), "done attempt=2 step=format");
    }

    #[test]
    fn what_is_noted_is_kept_at_every_level_that_a_verb_logs_at_and_nothing_else_is() {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry()
            .with(up_to(LevelFilter::INFO))
            .with(kept.clone().with_filter(filter_fn(is_noted)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: NOTED, user = "ada", "noted");
            tracing::error!("not noted");
        });
        let kept = kept.0.lock().unwrap();
        assert_eq!(kept.iter().map(readable).collect::<Vec<_>>(), ["noted user=ada"]);
    }

    #[test]
    fn what_libraries_tell_of_their_requests_is_never_logged() {
        for level in [LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::TRACE] {
            let filter = up_to(level);
            assert!(filter.would_enable("aws_smithy_runtime::client", &Level::WARN));
            assert!(!filter.would_enable("aws_smithy_runtime::client", &Level::INFO));
            assert!(filter.would_enable("quorate::agent", &level.into_level().unwrap()));
        }
        assert!(!up_to(LevelFilter::ERROR).would_enable("aws_smithy_runtime::client", &Level::WARN));
        assert!(!up_to(LevelFilter::INFO).would_enable("quorate::agent", &Level::DEBUG));
    }

    #[test]
    fn an_event_has_the_journal_s_priority_of_its_level() {
        // What systemd_journal_logger makes of its levels.
        let priority = |of: Level| match level(of) {
            log::Level::Error => 3,
            log::Level::Warn => 4,
            log::Level::Info => 5,
            log::Level::Debug => 6,
            log::Level::Trace => 7,
        };
        let levels = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];
        assert_eq!(levels.map(priority), [3, 4, 6, 7, 7]);
    }
}
