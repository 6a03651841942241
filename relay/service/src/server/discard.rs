//! What a refused request was not read of: a server that closes a connection with unread bytes in it resets
//! it, and the client may never see the answer (RFC 9112 section 9.6). So the rest is read and thrown away
//! before the answer is sent, up to a bound of bytes and time.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::{StatusCode, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};

/// Bytes that are thrown away; more than the longest body of any route.
const DISCARD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Time for them to come.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// Answers once the body has been read, or thrown away. HTTP/2 has streams that end by themselves, and a
/// client that waits to be asked for its body (RFC 9110 section 10.1.1) has not sent any.
pub(super) async fn discard_rest(request: Request, next: Next) -> Response {
    let is_waiting = request.headers().contains_key(header::EXPECT);
    if request.version() >= Version::HTTP_2 || is_waiting || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = Arc::new(Mutex::new(Incoming { body, has_ended: false }));
    let shared = Body::new(Shared(body.clone()));
    let response = next.run(Request::from_parts(parts, shared)).await;
    if response.status() == StatusCode::REQUEST_TIMEOUT {
        // It has been waited for already.
        return response;
    }
    // Whether it all came or not: the answer is sent now.
    let _ = tokio::time::timeout(DISCARD_TIME_MAX, discard(Shared(body))).await;
    response
}

async fn discard(mut rest: Shared) {
    let mut left = DISCARD_BYTES_MAX;
    while let Some(Ok(frame)) = rest.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(fewer) => left = fewer,
            None => return,
        }
    }
}

/// A body that whoever answers reads first, and then the one that throws the rest away.
struct Shared(Arc<Mutex<Incoming>>);

struct Incoming {
    body: Body,
    has_ended: bool,
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut incoming = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if incoming.has_ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut incoming.body).poll_frame(context));
        incoming.has_ended = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let incoming = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        incoming.has_ended || incoming.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).body.size_hint()
    }
}
