//! An HTTP/2 peer that does what a test's script says, and a token endpoint likewise.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// From 0, over all connections.
    pub(crate) number: usize,
    /// The connection's number, from 0.
    pub(crate) connection: usize,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What happens to a request.
pub(crate) enum Action {
    Answer(Response<String>),
    /// Taken, and never answered.
    Silence,
    /// Not processed: RST_STREAM REFUSED_STREAM.
    Refuse,
    /// RST_STREAM INTERNAL_ERROR.
    Reset,
    /// The connection is closed without a word.
    Cut,
}

/// An answer with a JSON body.
pub(crate) fn answer(status: u16, body: &str) -> Action {
    Action::Answer(Response::builder().status(status).body(body.to_owned()).unwrap())
}

/// An answer with `Retry-After`.
pub(crate) fn answer_after(status: u16, retry_after: &str, body: &str) -> Action {
    let response = Response::builder().status(status).header("retry-after", retry_after);
    Action::Answer(response.body(body.to_owned()).unwrap())
}

pub(crate) struct Peer {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    pub(crate) async fn start(script: impl Fn(&Received) -> Action + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            received: Arc::default(),
            connections: Arc::default(),
        };
        let (received, connections) = (Arc::clone(&peer.received), Arc::clone(&peer.connections));
        let script = Arc::new(script);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let connection = connections.fetch_add(1, Ordering::SeqCst);
                let (received, script) = (Arc::clone(&received), Arc::clone(&script));
                tokio::spawn(serve(stream, connection, received, script));
            }
        });
        peer
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve<S>(
    stream: tokio::net::TcpStream,
    connection: usize,
    received: Arc<Mutex<Vec<Received>>>,
    script: Arc<S>,
) where
    S: Fn(&Received) -> Action + Send + Sync + 'static,
{
    let Ok(mut http2) = h2::server::handshake(stream).await else { return };
    let cut = Arc::new(Notify::new());
    loop {
        let accepted = tokio::select! {
            accepted = http2.accept() => accepted,
            () = cut.notified() => return,
        };
        let Some(Ok((request, mut respond))) = accepted else { return };
        let (received, script, cut) = (Arc::clone(&received), Arc::clone(&script), Arc::clone(&cut));
        tokio::spawn(async move {
            let (parts, body) = request.into_parts();
            let Some(body) = read(body).await else { return };
            let request = {
                let mut received = received.lock().unwrap();
                let (path, headers) = (parts.uri.path().to_owned(), parts.headers);
                let number = received.len();
                received.push(Received { number, connection, path, headers, body });
                received[number].clone()
            };
            match script(&request) {
                Action::Answer(response) => {
                    let (parts, body) = response.into_parts();
                    let response = Response::from_parts(parts, ());
                    let Ok(mut stream) = respond.send_response(response, body.is_empty()) else { return };
                    if !body.is_empty() {
                        stream.send_data(body.into(), true).unwrap();
                    }
                }
                Action::Silence => std::future::pending().await,
                Action::Refuse => respond.send_reset(Reason::REFUSED_STREAM),
                Action::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
                Action::Cut => {
                    cut.notify_one();
                    // The stream lives as long as the connection: dropped here, it would be reset first.
                    std::future::pending::<()>().await;
                }
            }
        });
    }
}

async fn read(mut body: h2::RecvStream) -> Option<Bytes> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.ok()?;
        body.flow_control().release_capacity(chunk.len()).ok()?;
        bytes.extend_from_slice(&chunk);
    }
    Some(bytes.into())
}

/// A token endpoint over HTTP/1.1; its script gets the number of the request, from 0.
pub(crate) struct TokenEndpoint {
    pub(crate) uri: String,
    requests: Arc<AtomicUsize>,
}

impl TokenEndpoint {
    pub(crate) async fn start(
        script: impl Fn(usize) -> Option<Response<String>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/token", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let (count, script) = (Arc::clone(&requests), Arc::new(script));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (count, script) = (Arc::clone(&count), Arc::clone(&script));
                let service =
                    hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (count, script) = (Arc::clone(&count), Arc::clone(&script));
                        async move {
                            assert_eq!(request.uri().path(), "/token");
                            let form = request.into_body().collect().await.unwrap().to_bytes();
                            assert!(form.starts_with(
                            b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion="
                        ));
                            match script(count.fetch_add(1, Ordering::SeqCst)) {
                                Some(response) => Ok::<_, Infallible>(response.map(Full::<Bytes>::from)),
                                None => std::future::pending().await,
                            }
                        }
                    });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { uri, requests }
    }

    /// Gives the token `access-N` at request number N, valid for `expires_in` seconds.
    pub(crate) async fn granting(expires_in: u64) -> Self {
        Self::start(move |number| Some(grant(number, expires_in))).await
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

pub(crate) fn grant(number: usize, expires_in: u64) -> Response<String> {
    Response::new(format!(
        r#"{{"access_token":"access-{number}","expires_in":{expires_in},"token_type":"Bearer"}}"#
    ))
}
