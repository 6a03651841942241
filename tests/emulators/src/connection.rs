//! One HTTP/2 connection: takes requests, has them answered, delivers the answers as the fault table wishes.
//!
//! Everything usual happens inside the connection's own task, without a task per request: a request's body
//! has mostly arrived together with its headers. Answers made in one turn leave in one write.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::faults::{Outcome, RetryAfter};
use crate::wire::{self, Wire, WireHandle};
use crate::world::{Command, Provider, World};

/// An emulated service, as a connection sees it.
pub(crate) trait Exchange: Send + Sync + 'static {
    /// What the service remembers of one connection.
    type Session: Default + Send;

    fn provider(&self) -> Provider;

    fn world(&self) -> &World;

    /// MAX_CONCURRENT_STREAMS of a fresh connection.
    fn initial_streams(&self) -> u32;

    /// What a GOAWAY says, unless told otherwise.
    fn goaway_debug_data(&self) -> Option<&'static str>;

    /// Whether clients that do not speak HTTP/2 are served.
    fn speaks_http1(&self) -> bool {
        false
    }

    /// Checks a request, applies the fault table, records it, and says what to answer. The body is whole, or
    /// longer than `MAX_BODY` and cut there.
    fn answer(&self, session: &mut Self::Session, request: &Parts, body: Bytes) -> Reply;
}

/// An answer and the way it is delivered.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    pub(crate) delivery: Delivery,
    /// From now on the connection allows so many streams.
    pub(crate) max_streams: Option<u32>,
}

/// How an answer is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Now,
    After(Duration),
    /// Not at all; the stream stays open.
    Never,
    /// Not at all; the connection is closed.
    Cut,
}

impl Reply {
    pub(crate) fn new(status: StatusCode, body: Bytes) -> Self {
        Self { status, headers: Vec::new(), body, delivery: Delivery::Now, max_streams: None }
    }

    /// Sets what a chosen outcome says beside status and reason.
    pub(crate) fn apply(&mut self, outcome: &Outcome) {
        let retry_after = outcome.retry_after.as_ref().and_then(|retry_after| match retry_after {
            RetryAfter::Seconds(seconds) => Some(HeaderValue::from(*seconds)),
            RetryAfter::Text(text) => HeaderValue::from_str(text).ok(),
        });
        if let Some(value) = retry_after {
            self.headers.push((header::RETRY_AFTER, value));
        }
        self.delivery = if outcome.cut_connection {
            Delivery::Cut
        } else if outcome.no_answer {
            Delivery::Never
        } else {
            outcome.delay().map_or(Delivery::Now, Delivery::After)
        };
    }

    /// The status that the client will see, if it sees one.
    pub(crate) fn recorded_status(&self) -> Option<u16> {
        match self.delivery {
            Delivery::Now | Delivery::After(_) => Some(self.status.as_u16()),
            Delivery::Never | Delivery::Cut => None,
        }
    }
}

/// Bodies are read up to here; every limit of the protocols is below.
pub(crate) const MAX_BODY: usize = 16 * 1024;

/// Serves a connection until it ends.
pub(crate) async fn serve<E: Exchange, S>(
    io: S,
    exchange: &E,
    mut commands: UnboundedReceiver<Command>,
) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (wire, handle) = wire::wrap(io, exchange.initial_streams());
    let inner = h2::server::Builder::new()
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(wire)
        .await?;
    let mut connection = Connection {
        inner,
        wire: handle,
        exchange,
        session: E::Session::default(),
        receiving: Vec::new(),
        unanswered: Vec::new(),
        cut: false,
    };
    poll_fn(|cx| connection.poll(cx, &mut commands)).await
}

struct Connection<'a, E: Exchange, S> {
    inner: h2::server::Connection<Wire<S>, Bytes>,
    wire: WireHandle,
    exchange: &'a E,
    session: E::Session,
    /// Requests whose body has not arrived completely.
    receiving: Vec<Receiving>,
    /// Requests that get no answer: dropping them would reset their streams.
    unanswered: Vec<SendResponse<Bytes>>,
    /// The connection is to be closed without another word.
    cut: bool,
}

struct Receiving {
    request: Parts,
    body: RecvStream,
    received: BytesMut,
    respond: SendResponse<Bytes>,
}

impl<E: Exchange, S: AsyncRead + AsyncWrite + Unpin> Connection<'_, E, S> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        commands: &mut UnboundedReceiver<Command>,
    ) -> Poll<Result<(), h2::Error>> {
        while let Poll::Ready(Some(command)) = commands.poll_recv(cx) {
            self.obey(command);
        }
        self.wire.cork();
        loop {
            let accepted = match self.inner.poll_accept(cx) {
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(accepted)) => Some(accepted?),
                Poll::Pending => None,
            };
            let mut busy = self.poll_receiving(cx);
            if let Some((request, respond)) = accepted {
                self.accept(cx, request, respond);
                busy = true;
            }
            if self.cut {
                return Poll::Ready(Ok(()));
            }
            if !busy {
                break;
            }
        }
        self.unanswered.retain_mut(|respond| respond.poll_reset(cx).is_pending());

        // Everything that can be answered is: let it out.
        self.wire.uncork();
        match self.inner.poll_accept(cx) {
            Poll::Ready(None) => Poll::Ready(Ok(())),
            Poll::Ready(Some(accepted)) => {
                let (request, respond) = accepted?;
                self.accept(cx, request, respond);
                if self.cut {
                    return Poll::Ready(Ok(()));
                }
                // More came in meanwhile: take another turn after others had theirs.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::GoAway { debug_data } => {
                let debug_data = match debug_data {
                    Some(text) => Bytes::from(text),
                    None => Bytes::from_static(self.exchange.goaway_debug_data().unwrap_or("").as_bytes()),
                };
                self.wire.set_goaway_debug_data(debug_data);
                self.inner.graceful_shutdown();
            }
        }
    }

    fn accept(
        &mut self,
        cx: &mut Context<'_>,
        request: http::Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) {
        if self.wire.take_refused(respond.stream_id().into()) {
            self.exchange.world().record.refused_stream(self.exchange.provider());
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        let (request, body) = request.into_parts();
        let mut receiving = Receiving { request, body, received: BytesMut::new(), respond };
        match receiving.poll_body(cx) {
            Poll::Ready(Ok(body)) => self.answer(&receiving.request, body, receiving.respond),
            // The peer gave the request up.
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.receiving.push(receiving),
        }
    }

    /// Answers the requests that have arrived completely by now; false when there was none.
    fn poll_receiving(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        let mut index = 0;
        while let Some(receiving) = self.receiving.get_mut(index) {
            match receiving.poll_body(cx) {
                Poll::Pending => index += 1,
                Poll::Ready(body) => {
                    let receiving = self.receiving.swap_remove(index);
                    if let Ok(body) = body {
                        self.answer(&receiving.request, body, receiving.respond);
                    }
                    busy = true;
                }
            }
        }
        busy
    }

    fn answer(&mut self, request: &Parts, body: Bytes, respond: SendResponse<Bytes>) {
        let mut reply = self.exchange.answer(&mut self.session, request, body);
        if let Some(max_streams) = reply.max_streams.take() {
            self.wire.set_max_streams(max_streams);
        }
        match reply.delivery {
            Delivery::Now => send(respond, reply),
            Delivery::After(delay) => {
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    send(respond, reply);
                });
            }
            Delivery::Never => self.unanswered.push(respond),
            Delivery::Cut => self.cut = true,
        }
    }
}

impl Receiving {
    /// The whole body, or as much of it as proves that it is too long.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, h2::Error>> {
        loop {
            match self.body.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(self.received.split().freeze())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(Some(Ok(data))) => {
                    self.body.flow_control().release_capacity(data.len())?;
                    if self.received.is_empty() && self.body.is_end_stream() {
                        return Poll::Ready(Ok(data));
                    }
                    self.received.extend_from_slice(&data);
                    if self.received.len() > MAX_BODY {
                        return Poll::Ready(Ok(self.received.split().freeze()));
                    }
                }
            }
        }
    }
}

/// Sends an answer. It fails only when the peer has gone or has given the request up.
fn send(mut respond: SendResponse<Bytes>, reply: Reply) {
    let mut response = Response::new(());
    *response.status_mut() = reply.status;
    response.headers_mut().extend(reply.headers.into_iter().map(|(name, value)| (Some(name), value)));
    let sent = if reply.body.is_empty() {
        respond.send_response(response, true).map(drop)
    } else {
        respond.send_response(response, false).and_then(|mut stream| stream.send_data(reply.body, true))
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "the answer could not be sent");
    }
}

const MAX_HEADER_LIST: u32 = 16 * 1024;
/// Room for the bodies of a thousand streams.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
