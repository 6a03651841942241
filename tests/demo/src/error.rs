//! Why the demo could not be shown.

/// Why the demo ended early. Each is one clear line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// Something is missing that whoever runs it has to provide. Exit code 2.
    #[error("{0}")]
    Missing(String),
    /// Something did not work. Exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl DemoError {
    /// What is missing, and why.
    pub(crate) fn missing(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::Missing(format!("{what}: {why}"))
    }

    /// What did not work, and why.
    pub(crate) fn failed(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{what}: {why}"))
    }

    /// The exit code of the program.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Missing(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}
