//! Logs to standard error, as JSON lines or as text.
//!
//! Standard output belongs to what a command prints. What is logged is chosen by the caller: nothing here can
//! tell a token from a name.

use serde::Deserialize;
use tracing_subscriber::{EnvFilter, filter::ParseError, util::TryInitError};
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Environment variable that overrides [`LogOptions::level`].
pub const LEVEL_VARIABLE: &str = "SEALPOST_LOG";

/// How to log; the `log` section of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// One level, or directives by target: `info,sealpost_relay=debug`.
    pub level: String,
    /// Form of a line.
    pub format: LogFormat,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for collectors.
    #[default]
    Json,
    /// For people.
    Text,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Json }
    }
}

/// Why logging could not be set up. A mistake in the configuration or the program: no retry helps.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is not one.
    #[error("log level {level:?}: {source}")]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Logging is set up already.
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

/// Sets up logging for the process, with the level of [`LEVEL_VARIABLE`] if that is set.
///
/// # Errors
/// See [`LogError`].
pub fn init_logs(options: &LogOptions) -> Result<(), LogError> {
    let level = std::env::var(LEVEL_VARIABLE).unwrap_or_else(|_| options.level.clone());
    let registry = tracing_subscriber::registry().with(filter(&level)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match options.format {
        LogFormat::Json => {
            registry.with(lines.json().flatten_event(true).with_span_list(false)).try_init()?;
        }
        LogFormat::Text => registry.with(lines.with_ansi(false)).try_init()?,
    }
    Ok(())
}

/// A level alone means this project's words: the storage library reports every flush at `info`.
fn quiet_engine(level: &str) -> String {
    if level.contains(['=', ',']) { level.to_owned() } else { format!("{level},fjall=warn,lsm_tree=warn") }
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder()
        .parse(quiet_engine(level))
        .map_err(|source| LogError::Level { level: level.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_and_directives_are_understood_and_nonsense_is_not() {
        assert!(filter("info").is_ok());
        assert!(filter("warn,sealpost_relay=debug").is_ok());
        assert!(matches!(filter("sealpost=loud"), Err(LogError::Level { .. })));
    }

    #[test]
    fn the_configuration_names_the_format_and_refuses_what_it_does_not_know() {
        let parsed: LogOptions = toml::from_str("level = \"debug\"\nformat = \"text\"").unwrap();
        assert_eq!(parsed, LogOptions { level: "debug".into(), format: LogFormat::Text });
        assert_eq!(toml::from_str::<LogOptions>("").unwrap(), LogOptions::default());
        assert!(toml::from_str::<LogOptions>("colour = true").is_err());
        assert!(toml::from_str::<LogOptions>("format = \"xml\"").is_err());
    }
}
