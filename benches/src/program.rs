//! The program under test, built as an operator would build it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::BenchError;

const RELAY: &str = "sealpost-relay";

/// Builds the relay's release and returns where it is. Cargo shows its progress on standard error.
///
/// The relay is built alone: a build of the whole workspace would give its libraries the features that other
/// programs ask for.
///
/// # Errors
/// [`BenchError::Relay`] when Cargo cannot build it.
pub fn build_relay() -> Result<PathBuf, BenchError> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.args(["build", "--quiet", "--release", "--package", RELAY, "--bin", RELAY]);
    command.args(["--message-format=json-render-diagnostics", "--manifest-path"]).arg(workspace);
    // What Cargo told this program about itself must not look like a change to the build scripts of others.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
            .iter()
            .any(|own| text.starts_with(own))
        {
            command.env_remove(&name);
        }
    }
    let built = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let built = built.map_err(BenchError::io("running cargo"))?;
    if !built.status.success() {
        return Err(BenchError::Relay("it cannot be built; Cargo says why above".to_owned()));
    }
    executable(&String::from_utf8_lossy(&built.stdout), RELAY)
        .ok_or_else(|| BenchError::Relay("Cargo does not say where it is".to_owned()))
}

/// The executable `name` in Cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        target: Target,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    artifacts.filter(|message| message.target.name == name).find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_found_among_other_messages() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"kind":["lib"],"name":"sealpost-relay"},"executable":null}
            {"reason":"compiler-artifact","target":{"name":"other"},"executable":"/target/other"}
            {"reason":"compiler-artifact","target":{"name":"sealpost-relay"},"executable":"/target/it"}
            {"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "sealpost-relay"), Some(PathBuf::from("/target/it")));
        assert_eq!(executable(messages, "sealpost-keyserver"), None);
    }
}
