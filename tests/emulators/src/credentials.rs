//! The folder that a gateway is configured from: trust, credentials, and where everything is.
//!
//! | file | what |
//! |---|---|
//! | `ca.pem` | certificate to trust |
//! | `ca-key.pem` | its key; only the emulators need it |
//! | `apns-key.p8` | APNs signing key (PKCS#8, P-256), as Apple hands it out |
//! | `apns-key-<key id>.p8` | further signing keys |
//! | `fcm-service-account.json` | service account, as Google hands it out |
//! | `emulators.json` | ports, ids and file names |

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256};
use rcgen::{KeyPair, PKCS_RSA_SHA256, PublicKeyData, RsaKeySize};
use serde::{Deserialize, Serialize};

use crate::emulator::StartError;
use crate::entropy::random;
use crate::fcm::TOKEN_PATH;
use crate::jws::PublicKey;
use crate::oauth::ServiceAccount;
use crate::options::{ApnsKey, Options};
use crate::provider_token::SigningKey;
use crate::tls::Authority;

/// Where the emulators are and what they accept: the content of `emulators.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Certificate (PEM) that clients must trust.
    pub ca_file: PathBuf,
    /// The APNs emulator.
    pub apns: ApnsFacts,
    /// The FCM emulator.
    pub fcm: FcmFacts,
    /// Base URL of the control interface, without a slash at the end.
    pub control_url: String,
}

/// What a client of the APNs emulator needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApnsFacts {
    /// Base URL, without a slash at the end.
    pub url: String,
    /// Port in it.
    pub port: u16,
    /// `iss` of provider tokens.
    pub team_id: String,
    /// `kid` of provider tokens.
    pub key_id: String,
    /// Signing key (PKCS#8 PEM).
    pub key_file: PathBuf,
    /// Topics that the team may push to.
    pub topics: Vec<String>,
}

/// What a client of the FCM emulator needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FcmFacts {
    /// Base URL, without a slash at the end.
    pub url: String,
    /// Port in it.
    pub port: u16,
    /// Firebase project.
    pub project_id: String,
    /// Service account file.
    pub service_account_file: PathBuf,
    /// Token endpoint.
    pub token_uri: String,
}

/// What the emulators verify with: the public halves, and the authority's key.
pub(crate) struct Credentials {
    pub(crate) authority: Authority,
    pub(crate) signing_keys: Vec<(ApnsKey, SigningKey)>,
    pub(crate) service_account: ServiceAccount,
    pub(crate) manifest: Manifest,
}

/// Addresses that the emulators listen on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) apns: SocketAddr,
    pub(crate) fcm: SocketAddr,
    pub(crate) control: SocketAddr,
}

/// The service account file, as Google writes it.
#[derive(Serialize, Deserialize)]
struct ServiceAccountFile {
    #[serde(rename = "type")]
    kind: String,
    project_id: String,
    private_key_id: String,
    private_key: String,
    client_email: String,
    client_id: String,
    auth_uri: String,
    token_uri: String,
}

impl Credentials {
    /// Makes the files, keeping keys that are there already.
    pub(crate) fn prepare(options: &Options, addresses: Addresses) -> Result<Self, StartError> {
        let dir = &options.dir;
        fs::create_dir_all(dir).map_err(|source| StartError::Folder { path: dir.clone(), source })?;
        let ca_file = dir.join("ca.pem");
        let authority = authority(dir, &ca_file)?;

        let mut signing_keys = Vec::with_capacity(options.apns_keys.len());
        for (index, key) in options.apns_keys.iter().enumerate() {
            signing_keys.push((key.clone(), signing_key(&dir.join(key_file_name(index, key)), key)?));
        }
        let first = options.apns_keys.first().ok_or(StartError::NoKey)?;

        let fcm_url = format!("https://localhost:{}", addresses.fcm.port());
        let token_uri = format!("{fcm_url}{TOKEN_PATH}");
        let service_account_file = dir.join("fcm-service-account.json");
        let service_account = service_account(&service_account_file, &options.project_id, &token_uri)?;

        let manifest = Manifest {
            ca_file,
            apns: ApnsFacts {
                url: format!("https://localhost:{}", addresses.apns.port()),
                port: addresses.apns.port(),
                team_id: first.team_id.clone(),
                key_id: first.key_id.clone(),
                key_file: dir.join(key_file_name(0, first)),
                topics: first.topics.clone(),
            },
            fcm: FcmFacts {
                url: fcm_url,
                port: addresses.fcm.port(),
                project_id: options.project_id.clone(),
                service_account_file,
                token_uri,
            },
            control_url: format!("http://{}", addresses.control),
        };
        let text = serde_json::to_string_pretty(&manifest).map_err(StartError::Json)?;
        write(&dir.join("emulators.json"), &text)?;
        Ok(Self { authority, signing_keys, service_account, manifest })
    }
}

fn authority(dir: &Path, ca_file: &Path) -> Result<Authority, StartError> {
    let key = load_or_make(&dir.join("ca-key.pem"), || Ok(KeyPair::generate()?))?;
    if !ca_file.exists() {
        write(ca_file, &Authority::certificate_pem(&key)?)?;
    }
    Ok(Authority::new(key))
}

fn key_file_name(index: usize, key: &ApnsKey) -> String {
    if index == 0 { "apns-key.p8".to_owned() } else { format!("apns-key-{}.p8", key.key_id) }
}

fn signing_key(path: &Path, facts: &ApnsKey) -> Result<SigningKey, StartError> {
    let key = load_or_make(path, || Ok(KeyPair::generate()?))?;
    let public_key = PublicKey::new(&ECDSA_P256_SHA256_FIXED, key.der_bytes())
        .ok_or_else(|| StartError::WrongKey { path: path.to_owned() })?;
    Ok(SigningKey { team_id: facts.team_id.clone(), topics: facts.topics.clone(), public_key })
}

/// Takes the key from an existing file; the rest of the file is written anew, as the port may have changed.
fn service_account(path: &Path, project_id: &str, token_uri: &str) -> Result<ServiceAccount, StartError> {
    let wrong = || StartError::WrongKey { path: path.to_owned() };
    let (key, key_id) = match read(path)? {
        Some(text) => {
            let file: ServiceAccountFile = serde_json::from_str(&text).map_err(StartError::Json)?;
            (KeyPair::from_pem(&file.private_key).map_err(|_| wrong())?, file.private_key_id)
        }
        None => (KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?, random_hex()?),
    };
    let public_key = PublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.der_bytes()).ok_or_else(wrong)?;
    let client_email = format!("sealpost@{project_id}.iam.gserviceaccount.com");
    let file = ServiceAccountFile {
        kind: "service_account".to_owned(),
        project_id: project_id.to_owned(),
        private_key_id: key_id.clone(),
        private_key: key.serialize_pem(),
        client_email: client_email.clone(),
        client_id: "100000000000000000001".to_owned(),
        auth_uri: "https://accounts.google.com/o/oauth2/auth".to_owned(),
        token_uri: token_uri.to_owned(),
    };
    let text = serde_json::to_string_pretty(&file).map_err(StartError::Json)?;
    write(path, &text)?;
    Ok(ServiceAccount { client_email, key_id, public_key, token_uri: token_uri.to_owned() })
}

fn load_or_make(
    path: &Path,
    make: impl FnOnce() -> Result<KeyPair, StartError>,
) -> Result<KeyPair, StartError> {
    if let Some(pem) = read(path)? {
        return KeyPair::from_pem(&pem).map_err(|_| StartError::WrongKey { path: path.to_owned() });
    }
    let key = make()?;
    write(path, &key.serialize_pem())?;
    Ok(key)
}

fn random_hex() -> Result<String, StartError> {
    let bytes: [u8; 20] = random().map_err(|_| StartError::Randomness)?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

fn read(path: &Path) -> Result<Option<String>, StartError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StartError::Folder { path: path.to_owned(), source }),
    }
}

/// Writes a file that only its owner can read: most of them hold keys. Whoever reads it meanwhile sees the
/// old content or the new one.
fn write(path: &Path, text: &str) -> Result<(), StartError> {
    let new = path.with_extension("new");
    let written = || {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&new)?.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    };
    written().map_err(|source| StartError::Folder { path: path.to_owned(), source })
}
