//! HTTP proxies on the way to a provider: a tunnel by CONNECT (RFC 9110, section 9.3.6). TLS goes through it
//! from end to end: a proxy learns which server is spoken to, and nothing of what is said.

use std::fmt;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tokio::net::TcpStream;
use url::Url;
use zeroize::Zeroizing;

use super::endpoint::EndpointError;

/// A proxy as configured: `http://[user:password@]host:port`, the parts before `@` percent-encoded. It holds
/// a password, so it is never shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct ProxyUrl(Zeroizing<String>);

impl ProxyUrl {
    /// Takes the text as it is; what is wrong with it is told when a client is made.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(Zeroizing::new(url.into()))
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxyUrl(…)")
    }
}

/// A proxy, ready to be used.
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// `Basic` credentials (RFC 7617).
    authorization: Option<HeaderValue>,
}

/// Why a proxy opened no tunnel. A retry may help with each. None of them shows the credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the server's name cannot be asked for: {0}")]
    Target(#[from] http::Error),
}

impl Proxy {
    /// The errors do not quote the URL.
    pub(super) fn parse(url: &ProxyUrl) -> Result<Self, EndpointError> {
        let url = Url::parse(&url.0).map_err(|_| EndpointError::Proxy)?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        // The port is part of what an operator has to know: proxies have no usual one.
        let (Some(host), Some(port), "http", true) =
            (url.host(), url.port_or_known_default(), url.scheme(), is_bare)
        else {
            return Err(EndpointError::Proxy);
        };
        let host = match host {
            url::Host::Domain(name) => name.to_owned(),
            url::Host::Ipv4(address) => address.to_string(),
            url::Host::Ipv6(address) => address.to_string(),
        };
        Ok(Self { host, port, authorization: authorization(&url)? })
    }

    /// Has the proxy connect a stream to `host:port`.
    pub(super) async fn tunnel(
        &self,
        stream: TcpStream,
        host: &str,
        port: u16,
    ) -> Result<TokioIo<hyper::upgrade::Upgraded>, ProxyError> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let target = format!("{host}:{port}");
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(Uri::builder().authority(target.as_str()).build()?)
            .header(header::HOST, target.as_str());
        if let Some(authorization) = &self.authorization {
            request = request.header(header::PROXY_AUTHORIZATION, authorization);
        }
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(ANSWER_BYTES_MAX)
            .max_headers(ANSWER_HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        // Ends with the tunnel, or when the sender is dropped with this future.
        tokio::spawn(connection.with_upgrades());
        let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        if !answer.status().is_success() {
            return Err(ProxyError::Refused(answer.status()));
        }
        Ok(TokioIo::new(hyper::upgrade::on(answer).await?))
    }
}

fn authorization(url: &Url) -> Result<Option<HeaderValue>, EndpointError> {
    let Some(password) = url.password().or((!url.username().is_empty()).then_some("")) else {
        return Ok(None);
    };
    let user = Zeroizing::new(percent_decode_str(url.username()).collect::<Vec<u8>>());
    if user.contains(&b':') {
        // RFC 7617 could not tell where it ends.
        return Err(EndpointError::Proxy);
    }
    let password = Zeroizing::new(percent_decode_str(password).collect::<Vec<u8>>());
    let pair = Zeroizing::new([&user[..], b":", &password].concat());
    let text = Zeroizing::new(format!("Basic {}", BASE64.encode(&pair)));
    let mut value = HeaderValue::from_str(&text).map_err(|_| EndpointError::Proxy)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// The longest head of a proxy's answer, in bytes. The least that the HTTP library takes.
const ANSWER_BYTES_MAX: usize = 8192;
const ANSWER_HEADERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Proxy, EndpointError> {
        Proxy::parse(&ProxyUrl::new(url))
    }

    #[test]
    fn credentials_are_decoded_and_sent_as_basic() {
        let authorization = |url| parse(url).unwrap().authorization;
        assert_eq!(authorization("http://proxy:3128"), None);
        // RFC 7617, section 2.
        let aladdin = authorization("http://Aladdin:open%20sesame@proxy:3128").unwrap();
        assert_eq!(aladdin, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(authorization("http://user@proxy:1").unwrap(), "Basic dXNlcjo=");
        assert_eq!(authorization("http://u:a%3Ab%2f@proxy:1").unwrap(), "Basic dTphOmIv");
        let proxy = parse("http://[::1]:3128/").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("::1", 3128));
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_a_word_of_it() {
        for bad in [
            "",
            "proxy:3128",
            "https://u:secret@proxy:3128",
            "socks5://u:secret@proxy:3128",
            "http://u:secret@proxy:3128/path",
            "http://u:secret@proxy:3128?query",
            "http://a%3Ab:secret@proxy:3128",
            "http://u:secret@proxy:99999",
        ] {
            let error = parse(bad).err().expect(bad);
            assert!(!format!("{error} {error:?}").contains("secret"), "{bad}");
        }
        assert!(!format!("{:?}", ProxyUrl::new("http://u:secret@proxy:1")).contains("secret"));
    }
}
