//! `GET /v1/events` as a stream of server-sent events (WHATWG HTML, section 9.2).
//!
//! ```text
//! retry: 2000                    once, at the start
//!
//! id: 42                         the event's id: `Last-Event-ID` of whoever comes back
//! data: {"id":42,…}              the event, as in the JSON answer
//!
//! :                              when nothing happens, so that both sides see that the other is there
//! ```
//! A stream ends when the relay drains, when its token expires or is revoked, and when its reader does not read:
//! whoever comes back misses nothing.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use hyper::body::Frame;
use sealpost_service::access::Access;
use sealpost_service::problem::{ProblemCode, Refusal};
use sealpost_wire::api::relay::Event;
use sealpost_wire::id::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::events::gone;
use crate::relay::Relay;
use crate::store::EventsAnswer;

/// The media type of a stream.
const MEDIA_TYPE: &str = "text/event-stream";
/// Where a reader that comes back says what it has read last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How long a reader that lost its stream waits before it comes back (milliseconds), and its first sign of life.
const OPENING: &str = "retry: 2000\n\n";
/// What says that nothing happens.
const HEARTBEAT: &[u8] = b":\n\n";
/// Events that are written at once: what one stream holds in memory.
const EVENTS_AT_ONCE: usize = 100;
/// After which a caller with too many streams may try again (seconds).
const RETRY_AFTER_SECONDS: u32 = 5;

/// Streams that are open, by tenant.
pub(crate) struct EventStreams(HashMap<TenantId, Arc<Semaphore>>);

impl EventStreams {
    /// So many streams for each of `tenants`.
    pub(crate) fn new<'t>(tenants: impl IntoIterator<Item = &'t TenantId>, each: usize) -> Self {
        let each = each.min(Semaphore::MAX_PERMITS);
        Self(tenants.into_iter().map(|tenant| (tenant.clone(), Arc::new(Semaphore::new(each)))).collect())
    }

    fn open(&self, tenant: &TenantId) -> Option<OwnedSemaphorePermit> {
        self.0.get(tenant)?.clone().try_acquire_owned().ok()
    }
}

/// Whether a request asks for a stream: of JSON and streams, the one that it names first.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let named = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let named = named.flat_map(|value| value.split(','));
    let named = named.map(|range| range.split(';').next().unwrap_or_default().trim());
    let known = ["application/json", MEDIA_TYPE];
    let mut known = named.filter(|name| known.iter().any(|known| known.eq_ignore_ascii_case(name)));
    known.next().is_some_and(|first| first.eq_ignore_ascii_case(MEDIA_TYPE))
}

/// Answers with the events behind `after`, for as long as the caller may read them.
pub(crate) fn open(relay: Arc<Relay>, caller: Arc<Access>, after: u64) -> Result<Response, Refusal> {
    // Told by a status: a reader that is told so does not come back with the same cursor.
    if let EventsAnswer::Gone { oldest } = relay.store.events(caller.tenant().id(), after, 1)? {
        return Err(gone(oldest));
    }
    let Some(permit) = relay.event_streams.open(caller.tenant().id()) else {
        let refusal = Refusal::new(ProblemCode::RateLimited).detail("the tenant has too many streams");
        return Err(refusal.retry_after(RETRY_AFTER_SECONDS));
    };
    // One piece waits to be written; the next is read from the store when it has been taken.
    let (pieces, read) = mpsc::channel(1);
    let stream = Stream { relay, caller, after, pieces };
    tokio::spawn(async move {
        stream.relay.metrics.event_streams.inc();
        stream.run().await;
        stream.relay.metrics.event_streams.dec();
        drop(permit);
    });
    let mut response = Body::new(Pieces(read)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    // Proxies that collect an answer before they pass it on are told not to.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// What a reader that comes back has read last.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    id.map(Some).ok_or_else(|| Refusal::new(ProblemCode::MalformedParameter).detail("Last-Event-ID"))
}

/// One reader's stream.
struct Stream {
    relay: Arc<Relay>,
    caller: Arc<Access>,
    after: u64,
    pieces: mpsc::Sender<Bytes>,
}

/// Why a stream ends. It is not told: the reader comes back, and is answered by what has become of it.
struct End;

impl Stream {
    async fn run(&self) {
        // Whatever ends it, the reader sees the end of the answer.
        let _ended = self.send_all().await;
    }

    async fn send_all(&self) -> Result<std::convert::Infallible, End> {
        let tenant = self.caller.tenant().id();
        let mut last = self.relay.store.last_event(tenant).ok_or(End)?;
        let mut after = self.after;
        self.send(Bytes::from_static(OPENING.as_bytes())).await?;
        loop {
            self.check()?;
            let page = match self.relay.store.events(tenant, after, EVENTS_AT_ONCE) {
                Ok(EventsAnswer::Page(page)) => page,
                // The reader was slower than events are forgotten.
                Ok(EventsAnswer::Gone { .. }) => return Err(End),
                Err(error) => {
                    tracing::error!(%error, "a stream of events cannot be read");
                    return Err(End);
                }
            };
            if !page.events.is_empty() {
                after = page.next;
                self.send(text_of(&page.events)?).await?;
                continue;
            }
            tokio::select! {
                biased;
                () = self.relay.shutdown.begun() => return Err(End),
                () = self.pieces.closed() => return Err(End),
                // The sender lives as long as the store.
                () = async { drop(last.wait_for(|last| *last > after).await) } => {}
                () = tokio::time::sleep(self.pause()) => {
                    self.check()?;
                    self.send(Bytes::from_static(HEARTBEAT)).await?;
                }
            }
        }
    }

    /// Until the next sign of life, or until the token expires.
    fn pause(&self) -> Duration {
        let left = self.caller.expires_at().0.saturating_sub(self.relay.clock.now().0);
        Duration::from_secs(left.min(self.relay.limits.events_heartbeat_seconds))
    }

    /// The same that a request would be asked.
    fn check(&self) -> Result<(), End> {
        let valid = self.relay.authority.check(&self.caller).is_ok();
        if valid && !self.relay.shutdown.is_draining() { Ok(()) } else { Err(End) }
    }

    async fn send(&self, piece: Bytes) -> Result<(), End> {
        let within = Duration::from_secs(self.relay.limits.events_reader_seconds_max);
        tokio::select! {
            biased;
            () = self.relay.shutdown.begun() => Err(End),
            sent = self.pieces.send_timeout(piece, within) => sent.map_err(|_| End),
        }
    }
}

/// Events as they are written.
fn text_of(events: &[Event]) -> Result<Bytes, End> {
    let mut text = String::new();
    for event in events {
        // JSON on one line: no line of it can be taken for another field.
        let json = serde_json::to_string(event).map_err(|_| End)?;
        // Writing into a string cannot fail.
        let _ = write!(text, "id: {}\ndata: {json}\n\n", event.id);
    }
    Ok(text.into())
}

/// The pieces of a stream, as a body.
struct Pieces(mpsc::Receiver<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_for_those_who_ask_for_it() {
        let accepts = |values: &[&'static str]| {
            let value = |value: &&'static str| (header::ACCEPT, HeaderValue::from_static(value));
            is_wanted(&HeaderMap::from_iter(values.iter().map(value)))
        };
        for wanted in [
            &["text/event-stream"][..],
            &["Text/Event-Stream; q=0.9"],
            &["text/event-stream, application/json"],
            &["*/*, text/event-stream"],
        ] {
            assert!(accepts(wanted), "{wanted:?}");
        }
        for not in
            [&[][..], &["*/*"], &["application/json"], &["application/json, text/event-stream"], &["text/*"]]
        {
            assert!(!accepts(not), "{not:?}");
        }
    }
}
