//! Whose certificates a server may show.

use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// The certificate authorities that servers are believed by: the public ones, or a hospital's own and no other.
#[derive(Clone, Debug, Default)]
pub struct ServerRoots(Option<Arc<Vec<Certificate<'static>>>>);

/// A file of root certificates that has none, or something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("root certificates are PEM, one or more of them and nothing else")]
pub struct RootsError;

impl ServerRoots {
    /// Those of the public web, as Mozilla lists them.
    #[must_use]
    pub fn public() -> Self {
        Self::default()
    }

    /// The certificates in `pem` alone.
    ///
    /// # Errors
    /// [`RootsError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let certificates = parse_pem(pem).map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Ok(certificate),
            _ => Err(RootsError),
        });
        let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
        if certificates.is_empty() { Err(RootsError) } else { Ok(Self(Some(Arc::new(certificates)))) }
    }

    /// TLS that believes them, with post-quantum key exchange offered first.
    pub(crate) fn tls(&self) -> TlsConfig {
        let roots = self.0.clone().map_or(RootCerts::WebPki, RootCerts::Specific);
        TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused() {
        let key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        for bad in [&b""[..], b"not PEM", key, cut] {
            assert_eq!(ServerRoots::from_pem(bad).err(), Some(RootsError));
        }
        assert!(
            ServerRoots::from_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_ok()
        );
    }
}
