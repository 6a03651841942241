//! The folder that holds a tenant's keys and what its systems keep.
//!
//! ```text
//! root.json                    the tenant root: keep it offline once senders and enrollers are made
//! enrollers/NAME.json, NAME/   an enroller's keys, and its tickets
//! senders/NAME.json, NAME/     a sender's keys, and its outbox
//! quarantine/                  results that were not sent
//! policy.toml                  which categories go into groups, if any
//! ```

use std::path::{Path, PathBuf};

use sealpost_sender::enroller::Enroller;
use sealpost_sender::identity::{EnrollerIdentityFile, SenderIdentityFile};
use sealpost_sender::{Sender, SenderOptions, make_private_folder, read_private, write_private};
use sealpost_wire::base64url::Base64Url;
use sealpost_wire::id::TenantId;
use sealpost_wire::key::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::edge::sender_parts;
use crate::error::CliError;

/// The folder.
pub(crate) struct Home {
    folder: PathBuf,
    ca_file: Option<PathBuf>,
}

/// The tenant root and where the tenant's servers are.
pub(crate) struct Root {
    pub(crate) tenant: TenantId,
    pub(crate) key: SigningKey,
    pub(crate) keyserver: String,
    pub(crate) relay: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootFile {
    tenant: TenantId,
    seed: Base64Url,
    keyserver: String,
    relay: String,
}

impl Home {
    pub(crate) const fn new(folder: PathBuf, ca_file: Option<PathBuf>) -> Self {
        Self { folder, ca_file }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Root certificates of the servers, if not the public ones.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    fn root_path(&self) -> PathBuf {
        self.folder.join("root.json")
    }

    /// Whether there is a tenant here.
    pub(crate) fn has_root(&self) -> bool {
        self.root_path().exists()
    }

    pub(crate) fn root(&self) -> Result<Root, CliError> {
        let path = self.root_path();
        if !path.exists() {
            let message = format!(
                "there is no tenant root at {}: bring it back from where it is kept, or make a tenant with \
                 `sealpost tenant init`",
                path.display()
            );
            return Err(CliError::state("no_tenant", message));
        }
        let malformed =
            || CliError::state("malformed_root", format!("{} is not a tenant root", path.display()));
        let file: RootFile = serde_json::from_slice(&read_private(&path)?).map_err(|_| malformed())?;
        let seed: [u8; 32] = file.seed.as_ref().try_into().map_err(|_| malformed())?;
        Ok(Root {
            tenant: file.tenant,
            key: SigningKey::from_seed(&seed),
            keyserver: file.keyserver,
            relay: file.relay,
        })
    }

    pub(crate) fn write_root(&self, root: &Root) -> Result<(), CliError> {
        make_private_folder(&self.folder)?;
        let file = RootFile {
            tenant: root.tenant.clone(),
            seed: Base64Url(root.key.seed().to_vec()),
            keyserver: root.keyserver.clone(),
            relay: root.relay.clone(),
        };
        let text = Zeroizing::new(serde_json::json!(file).to_string());
        Ok(write_private(&self.root_path(), text.as_bytes())?)
    }

    /// The names of all senders, or of all enrollers.
    pub(crate) fn names(&self, kind: Kind) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.join(kind.folder())).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".json").map(str::to_owned)
        });
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    /// The keys of all enrollers, by name.
    pub(crate) fn enroller_files(&self) -> Result<Vec<(String, EnrollerIdentityFile)>, CliError> {
        let read = |name: String| {
            Ok((name.clone(), EnrollerIdentityFile::read(&self.key_file(Kind::Enroller, &name)?)?))
        };
        self.names(Kind::Enroller).into_iter().map(read).collect()
    }

    /// The keys of all senders, by name.
    pub(crate) fn sender_files(&self) -> Result<Vec<(String, SenderIdentityFile)>, CliError> {
        let read = |name: String| {
            Ok((name.clone(), SenderIdentityFile::read(&self.key_file(Kind::Sender, &name)?)?))
        };
        self.names(Kind::Sender).into_iter().map(read).collect()
    }

    /// The key file of a sender or an enroller, whether it is there or not.
    pub(crate) fn key_file(&self, kind: Kind, name: &str) -> Result<PathBuf, CliError> {
        let folder = self.folder.join(kind.folder());
        make_private_folder(&folder)?;
        Ok(folder.join(format!("{name}.json")))
    }

    /// A sender: the one named, or the only one.
    pub(crate) fn sender(&self, name: Option<&str>) -> Result<Sender, CliError> {
        let name = self.only(Kind::Sender, name)?;
        let folder = self.folder.join(Kind::Sender.folder());
        let identity = SenderIdentityFile::read(&folder.join(format!("{name}.json")))?;
        Ok(Sender::open(
            identity,
            &folder.join(name),
            SenderOptions::default(),
            sender_parts(self.ca_file.as_deref())?,
        )?)
    }

    /// The enroller: the one named, or the only one.
    pub(crate) fn enroller(&self, name: Option<&str>) -> Result<Enroller, CliError> {
        let name = self.only(Kind::Enroller, name)?;
        let folder = self.folder.join(Kind::Enroller.folder());
        let identity = EnrollerIdentityFile::read(&folder.join(format!("{name}.json")))?;
        Ok(Enroller::open(identity, &folder.join(name), sender_parts(self.ca_file.as_deref())?)?)
    }

    /// The name given, if there is one like it, or the only one.
    pub(crate) fn only(&self, kind: Kind, name: Option<&str>) -> Result<String, CliError> {
        let names = self.names(kind);
        let word = kind.word();
        match (name, names.as_slice()) {
            (Some(name), _) if names.iter().any(|known| known == name) => Ok(name.to_owned()),
            (Some(name), _) => Err(CliError::state(
                "unknown_name",
                format!(
                    "there is no {word} {name} in {} (there are: {})",
                    self.folder.display(),
                    names.join(", ")
                ),
            )),
            (None, [only]) => Ok(only.clone()),
            (None, []) => {
                let message = format!(
                    "there is no {word} in {}: see `sealpost {} --help`",
                    self.folder.display(),
                    kind.help()
                );
                Err(CliError::state("no_name", message))
            }
            (None, several) => {
                let message = format!("name one of the {word}s with --{word}: {}", several.join(", "));
                Err(CliError::Usage(message))
            }
        }
    }
}

/// Who has a key file.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Sender,
    Enroller,
}

impl Kind {
    const fn folder(self) -> &'static str {
        match self {
            Self::Sender => "senders",
            Self::Enroller => "enrollers",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Enroller => "enroller",
        }
    }

    const fn help(self) -> &'static str {
        match self {
            Self::Sender => "sender add",
            Self::Enroller => "tenant init",
        }
    }
}
