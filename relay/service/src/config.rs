//! Configuration files: what both servers write the same way.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use rand_core::CryptoRng;
use sealpost_wire::id::TenantId;
use sealpost_wire::key::VerifyingKey;
use sealpost_wire::limits::URL_BYTES_MAX;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use url::Url;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of a configuration file.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Why a configuration cannot be used. An operator has to change something: no retry helps.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read or made.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not what a configuration looks like. The line is not quoted: it may hold a proxy's password.
    #[error("{}, line {line}: {why}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// A secret that others than its owner may read.
    #[error("{}: others may read this secret; change its mode to 0600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// A secret that is not 64 hexadecimal digits.
    #[error("{}: a key file holds 64 hexadecimal digits", path.display())]
    KeyForm {
        /// The file.
        path: PathBuf,
    },
    /// Two values contradict each other, or one is outside its range.
    #[error("{0}")]
    Value(String),
}

/// Reads the configuration at `path`, and the folder that its relative paths start from.
///
/// # Errors
/// See [`ConfigError`].
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<(T, PathBuf), ConfigError> {
    let failed = |source| ConfigError::File { path: path.into(), source };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(CONFIG_BYTES_MAX).read_to_string(&mut text))
        .map_err(failed)?;
    let config = toml::from_str(&text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ConfigError::Toml { path: path.into(), line, why: error.message().to_owned() }
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((config, folder.into()))
}

/// A tenant: who it is, and the roots that vouch for its keys.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantConfig {
    /// The tenant.
    pub id: TenantId,
    /// Its root keys; two while a successor takes over.
    pub roots: Vec<RootKey>,
}

/// Refuses tenants that are there twice, that have no root, or that share one: the roots are what separates
/// tenants.
///
/// # Errors
/// [`ConfigError::Value`].
pub fn check_tenants<'t>(
    tenants: impl IntoIterator<Item = (&'t TenantId, &'t [RootKey])>,
) -> Result<(), ConfigError> {
    let (mut ids, mut roots) = (Vec::new(), Vec::new());
    for (id, own) in tenants {
        if ids.contains(&id) {
            return Err(ConfigError::Value(format!("tenant {id} is there twice")));
        }
        if own.is_empty() {
            return Err(ConfigError::Value(format!("tenant {id} has no root key")));
        }
        for root in own {
            if roots.contains(&root) {
                return Err(ConfigError::Value(format!("the root {} is there twice", root.0.key_id())));
            }
            roots.push(root);
        }
        ids.push(id);
    }
    if ids.is_empty() { Err(ConfigError::Value("there is no tenant".to_owned())) } else { Ok(()) }
}

/// A tenant's root: the 64 hexadecimal digits of an Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootKey(pub VerifyingKey);

impl<'de> Deserialize<'de> for RootKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.to_ascii_lowercase().as_bytes()).ok();
        let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
        let bytes = bytes.ok_or_else(|| D::Error::custom("a root key has 64 hexadecimal digits"))?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| D::Error::custom("not an Ed25519 public key"))
    }
}

/// The address that clients reach a server by: scheme, host and port, nothing behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    /// Without a trailing slash.
    text: String,
    authority: String,
}

impl PublicUrl {
    /// The address of a server that nothing stands in front of, with `https` where TLS ends at the server itself.
    #[must_use]
    pub fn of_listener(address: SocketAddr, over_tls: bool) -> Self {
        let scheme = if over_tls { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        // Parsed as any other, so that the scheme's own port is left out; an address always makes a URL.
        Self::parse(&url).unwrap_or_else(|_| Self { text: url, authority: address.to_string() })
    }

    /// The address in `text`.
    ///
    /// # Errors
    /// [`ConfigError::Value`] when it is not `http` or `https`, or has a path, a query or credentials.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let refuse = || ConfigError::Value("public_url is https://host[:port], nothing behind it".to_owned());
        let url = Url::parse(text).ok().filter(|_| text.len() <= URL_BYTES_MAX).ok_or_else(refuse)?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || !bare || !anonymous {
            return Err(refuse());
        }
        let host = url.host_str().ok_or_else(refuse)?;
        // `Url` leaves the scheme's own port out, as RFC 9421 section 2.2.3 wants it.
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { text: format!("{}://{authority}", url.scheme()), authority })
    }

    /// The address, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host, and port unless it is the scheme's own: `@authority` in signed requests.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The token endpoint, which client assertions name as their audience.
    #[must_use]
    pub fn token_endpoint(&self) -> String {
        format!("{}/v1/token", self.text)
    }
}

impl<'de> Deserialize<'de> for PublicUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// 32 secret bytes of a server, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// The key with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A new random key.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut key = Self([0; 32]);
        rng.fill_bytes(&mut key.0);
        key
    }

    /// The bytes.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the key file at `path`: 64 hexadecimal digits, mode 0600. Makes it with a random key if it is
    /// not there.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read_or_create<R: CryptoRng + ?Sized>(path: &Path, rng: &mut R) -> Result<Self, ConfigError> {
        match Self::read(path) {
            Err(ConfigError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate(rng);
                key.create(path).map_err(|source| ConfigError::File { path: path.into(), source })?;
                Ok(key)
            }
            read => read,
        }
    }

    /// Reads the key file at `path`: 64 hexadecimal digits, mode 0600.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read_secret(path)?;
        let form = || ConfigError::KeyForm { path: path.into() };
        let bytes = Zeroizing::new(HEXLOWER.decode(text.trim_ascii()).map_err(|_| form())?);
        bytes.as_slice().try_into().map(Self).map_err(|_| form())
    }

    fn create(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let mut text = Zeroizing::new(HEXLOWER.encode(&self.0));
        text.push('\n');
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // The name too: a key that is gone after a power cut makes what it sealed unreadable.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// Bytes of a file that only its owner may read: a key file, or a provider's credentials.
///
/// # Errors
/// [`ConfigError::Exposed`] when group or others have any right to it, and what the system says.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    let failed = |source| ConfigError::File { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    // Asked of the open file, so that what is checked is what is read.
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(ConfigError::Exposed { path: path.into() });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(SECRET_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Bytes of a file of secrets; a service account's JSON has about 2400.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Makes the folder at `path`, for its owner only, if it is not there.
///
/// # Errors
/// [`ConfigError::File`].
pub fn create_private_folder(path: &Path) -> Result<(), ConfigError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| ConfigError::File { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use getrandom::{SysRng, rand_core::UnwrapErr};

    use super::*;

    #[test]
    fn a_missing_key_file_is_made_private_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        let made = SecretKey::read_or_create(&path, &mut UnwrapErr(SysRng)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let read = SecretKey::read_or_create(&path, &mut UnwrapErr(SysRng)).unwrap();
        assert_eq!(made.expose(), read.expose());
        assert_eq!(format!("{made:?}"), "SecretKey(…)");
    }

    #[test]
    fn exposed_and_malformed_key_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        fs::write(&path, "00".repeat(32)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(SecretKey::read(&path), Err(ConfigError::Exposed { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(SecretKey::read(&path).is_ok());
        for bad in ["", "00", &"00".repeat(33), &"zz".repeat(32)] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(SecretKey::read(&path), Err(ConfigError::KeyForm { .. })), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_its_text() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Sample {
            #[serde(rename = "proxy")]
            _proxy: String,
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sample.toml");
        for text in [
            "\n\nproxy = \"http://u:secret@proxy:1",
            "\n\nproxy = \"http://u:secret@proxy:1\" more",
            "\n\nproxi = \"http://u:secret@proxy:1\"",
        ] {
            fs::write(&path, text).unwrap();
            let error = load::<Sample>(&path).unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("line 3") && !shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn public_urls_are_an_origin() {
        for (text, authority) in [
            ("https://relay.example", "relay.example"),
            ("https://Relay.Example:443/", "relay.example"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("https://[::1]:8443", "[::1]:8443"),
        ] {
            assert_eq!(PublicUrl::parse(text).unwrap().authority(), authority, "{text}");
        }
        let url = PublicUrl::parse("https://relay.example/").unwrap();
        assert_eq!(url.token_endpoint(), "https://relay.example/v1/token");
        for (address, over_tls, url, authority) in [
            ("127.0.0.1:8080", false, "http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::1]:8443", true, "https://[::1]:8443", "[::1]:8443"),
            ("127.0.0.1:80", false, "http://127.0.0.1", "127.0.0.1"),
            ("[::1]:443", true, "https://[::1]", "[::1]"),
        ] {
            let local = PublicUrl::of_listener(address.parse().unwrap(), over_tls);
            assert_eq!((local.as_str(), local.authority()), (url, authority));
        }
        for bad in
            ["relay.example", "ftp://a", "https://a/b", "https://a?b", "https://u@a", "https://a#b", ""]
        {
            assert!(PublicUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tenants_do_not_share_a_root() {
        let key = |seed| RootKey(sealpost_wire::key::SigningKey::from_seed(&[seed; 32]).verifying_key());
        let (one, two): (TenantId, TenantId) = ("one".parse().unwrap(), "two".parse().unwrap());
        let check = |tenants: &[(&TenantId, &[RootKey])]| check_tenants(tenants.iter().copied());
        assert!(check(&[(&one, &[key(1)]), (&two, &[key(2), key(3)])]).is_ok());
        assert!(check(&[(&one, &[key(1)]), (&two, &[key(1)])]).is_err());
        assert!(check(&[(&one, &[key(1)]), (&one, &[key(2)])]).is_err());
        assert!(check(&[(&one, &[])]).is_err());
        assert!(check(&[]).is_err());
    }
}
