//! What a command says: text for a person, or one JSON object on the last line.

use serde::Serialize;
use serde_json::json;

use crate::error::CliError;

/// Where a command's words go.
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// A line for a person; nothing with `--json`.
    pub(crate) fn say(&self, line: impl std::fmt::Display) {
        if !self.json {
            println!("{line}");
        }
    }

    /// The command's result: the last line with `--json`, nothing otherwise.
    pub(crate) fn result<T: Serialize>(&self, result: &T) {
        if self.json {
            println!("{}", json!(result));
        }
    }

    /// Why the command failed.
    pub(crate) fn error(&self, error: &CliError) {
        if self.json {
            println!("{}", json!({"error": {"code": error.code(), "message": error.to_string()}}));
        } else {
            eprintln!("sealpost: {error}");
        }
    }
}
