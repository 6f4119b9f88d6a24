//! Log lines to stderr, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Sends log lines to stderr. `filter` is a level or a list such as `info,logtier::archive=debug`;
/// one that does not parse is an error. A second call changes nothing.
pub fn init_logging(format: LogFormat, filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    // sqlx notes every statement at debug, object_store every attempt that it repeats, s3s every answer but a success
    // as an error; that is noise unless someone asks for it.
    let quiet = [("sqlx", "warn"), ("object_store", "warn"), ("s3s", "off")];
    let quiet = quiet.into_iter().filter(|(name, _)| !filter.contains(name));
    let filter = quiet.fold(filter.to_owned(), |filter, (name, level)| format!("{filter},{name}={level}"));
    let registry = tracing_subscriber::registry().with(EnvFilter::try_new(filter)?);
    let colours = std::io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let _ = match format {
        LogFormat::Text => registry.with(layer.with_target(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    Ok(())
}
