//! The programs that the demo starts, built from this repository when they are not fresh.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::DemoError;

const RELAY: &str = "sealpost-relay";
const KEYSERVER: &str = "sealpost-keyserver";
const EMULATORS: &str = "sealpost-emulators";
const CLI: &str = "sealpost";

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) relay: PathBuf,
    pub(crate) keyserver: PathBuf,
    pub(crate) emulators: PathBuf,
    /// For a person who tries commands; nothing of the demo itself needs it.
    pub(crate) cli: Option<PathBuf>,
}

impl Programs {
    /// The programs in `folder`, built before; the command line too if it is asked for.
    pub(crate) fn find(folder: &Path, with_cli: bool) -> Result<Self, DemoError> {
        let folder = folder.canonicalize().map_err(|error| DemoError::missing(folder.display(), error))?;
        Self::of(|name| Some(folder.join(name)).filter(|path| path.is_file()), with_cli)
    }

    /// The programs of this repository. Cargo builds what is not fresh, and shows its progress on standard error.
    ///
    /// They are built as one selection with this program, so that all share one build of what they stand on.
    pub(crate) fn build(with_cli: bool) -> Result<Self, DemoError> {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        if !workspace.is_file() {
            return Err(DemoError::Missing(
                "the repository is not where this program was built; say where the programs are with --programs"
                    .to_owned(),
            ));
        }
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(&cargo);
        command.args(["build", "--message-format=json-render-diagnostics", "--manifest-path"]).arg(workspace);
        command.args(["--bin", RELAY, "--bin", KEYSERVER, "--bin", EMULATORS]);
        if with_cli {
            command.args(["--bin", CLI]);
        }
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        // What Cargo told this program about itself must not look like a change to the build scripts of others.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
                .iter()
                .any(|own| name.starts_with(own))
            {
                command.env_remove(&*name);
            }
        }
        let built = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let built =
            built.map_err(|error| DemoError::missing(format!("cannot run {}", cargo.display()), error))?;
        if !built.status.success() {
            return Err(DemoError::Missing("the programs cannot be built; Cargo says why above".to_owned()));
        }
        let executables = executables(&String::from_utf8_lossy(&built.stdout));
        Self::of(|name| executables.get(name).cloned(), with_cli)
    }

    fn of(find: impl Fn(&str) -> Option<PathBuf>, with_cli: bool) -> Result<Self, DemoError> {
        let found =
            |name| find(name).ok_or_else(|| DemoError::Missing(format!("the program {name} is missing")));
        Ok(Self {
            relay: found(RELAY)?,
            keyserver: found(KEYSERVER)?,
            emulators: found(EMULATORS)?,
            cli: with_cli.then(|| found(CLI)).transpose()?,
        })
    }
}

/// The executables in Cargo's messages, by name.
fn executables(messages: &str) -> BTreeMap<String, PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        target: Target,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter_map(|message| Some((message.target.name, message.executable?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_found_among_other_messages() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"kind":["lib"],"name":"serde"},"executable":null,"fresh":true}
            {"reason":"compiler-artifact","target":{"kind":["bin"],"name":"sealpost"},"executable":"/t/sealpost"}
            {"reason":"build-script-executed","package_id":"x"}
            not JSON
            {"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(found, BTreeMap::from([("sealpost".to_owned(), PathBuf::from("/t/sealpost"))]));
    }

    #[test]
    fn a_folder_without_the_programs_says_which_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let error = Programs::find(folder.path(), false).unwrap_err();
        assert_eq!(error.to_string(), "the program sealpost-relay is missing");
        assert!(matches!(error, DemoError::Missing(_)));
        assert!(Programs::find(&folder.path().join("none"), false).is_err());
    }
}
