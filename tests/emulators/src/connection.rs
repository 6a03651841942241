//! One HTTP/2 connection: takes requests, has them answered, delivers the answers as the fault table wishes.
//!
//! Everything usual happens inside the connection's own task, without a task per request: a request's body
//! has mostly arrived together with its headers. Answers made in one turn leave in one write.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::outcome::{GoAway, Outcome, RetryAfter};
use crate::socket::SocketHandle;
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
    /// This is the connection's last answer.
    pub(crate) goaway: Option<GoAway>,
}

/// How an answer is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Delivery {
    Now,
    After(Duration),
    /// Not at all; the stream stays open.
    Never,
    /// Without the second half of the body; the stream stays open.
    Half,
    /// Not at all; the connection is closed.
    Cut,
    /// Not at all; the connection is reset.
    Reset,
    /// Not at all; the stream is reset with this code.
    ResetStream(u32),
    /// The request is not processed: the connection has announced its end before.
    Unprocessed(GoAway),
}

impl Delivery {
    /// What the record calls it when there is no whole answer.
    pub(crate) fn failure(&self) -> Option<&'static str> {
        match self {
            Self::Now | Self::After(_) => None,
            Self::Never => Some("no_answer"),
            Self::Half => Some("half_answer"),
            Self::Cut => Some("cut_connection"),
            Self::Reset => Some("reset_connection"),
            Self::ResetStream(_) => Some("reset_stream"),
            Self::Unprocessed(_) => Some("unprocessed"),
        }
    }
}

impl Reply {
    pub(crate) fn new(status: StatusCode, body: Bytes) -> Self {
        let headers = Vec::new();
        Self { status, headers, body, delivery: Delivery::Now, max_streams: None, goaway: None }
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
        if let Some(body) = &outcome.body {
            self.body = Bytes::from(body.clone());
            if !body.starts_with(['{', '[']) {
                self.headers.retain(|(name, _)| name != header::CONTENT_TYPE);
                self.headers
                    .push((header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=UTF-8")));
            }
        }
        self.max_streams = outcome.max_streams;
        self.goaway.clone_from(&outcome.goaway);
        self.delivery = if outcome.cut_connection {
            Delivery::Cut
        } else if outcome.reset_connection {
            Delivery::Reset
        } else if outcome.no_answer {
            Delivery::Never
        } else if outcome.half_answer {
            Delivery::Half
        } else if let Some(code) = outcome.reset_stream {
            Delivery::ResetStream(code)
        } else if let Some(goaway) = &outcome.goaway_instead {
            Delivery::Unprocessed(goaway.clone())
        } else {
            outcome.delay().map_or(Delivery::Now, Delivery::After)
        };
    }

    /// Adds a `date` header (RFC 9110, section 6.6.1).
    pub(crate) fn date(&mut self, now_ms: u64) {
        let now = std::time::UNIX_EPOCH.checked_add(Duration::from_millis(now_ms));
        // A moment that no calendar has, set at the control port, gets no header.
        let text = now.filter(|_| now_ms < MAX_DATE_MS).map(httpdate::fmt_http_date);
        self.headers.extend(
            text.and_then(|text| HeaderValue::from_str(&text).ok()).map(|value| (header::DATE, value)),
        );
    }

    /// Status and headers, as a response without its body.
    pub(crate) fn take_head(&mut self) -> Response<()> {
        let mut head = Response::new(());
        *head.status_mut() = self.status;
        let headers = std::mem::take(&mut self.headers);
        head.headers_mut().extend(headers.into_iter().map(|(name, value)| (Some(name), value)));
        head
    }

    pub(crate) fn first_half(&self) -> Bytes {
        self.body.slice(..self.body.len() / 2)
    }

    /// The status that the client will see, if it sees one.
    pub(crate) fn recorded_status(&self) -> Option<u16> {
        match self.delivery {
            Delivery::Now | Delivery::After(_) | Delivery::Half => Some(self.status.as_u16()),
            _ => None,
        }
    }
}

/// Bodies are read up to here; every limit of the protocols is below.
pub(crate) const MAX_BODY: usize = 16 * 1024;

/// Serves a connection until it ends. `window`: octets of a body that may be under way on a stream.
pub(crate) async fn serve<E: Exchange, S>(
    io: S,
    socket: SocketHandle,
    exchange: &E,
    mut commands: UnboundedReceiver<Command>,
    window: Option<u32>,
) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (wire, handle) = wire::wrap(io, exchange.initial_streams());
    let mut builder = h2::server::Builder::new();
    builder.max_header_list_size(MAX_HEADER_LIST).initial_connection_window_size(CONNECTION_WINDOW);
    if let Some(window) = window {
        builder.initial_window_size(window);
    }
    let inner = builder.handshake(wire).await?;
    let mut connection = Connection {
        inner,
        wire: handle,
        socket,
        exchange,
        session: E::Session::default(),
        receiving: Vec::new(),
        unanswered: Vec::new(),
        half_sent: Vec::new(),
        decided: 0,
        last_stream: None,
        cut: false,
    };
    poll_fn(|cx| connection.poll(cx, &mut commands)).await?;
    if connection.last_stream.is_some() && !connection.cut {
        // The peer reads the GOAWAY and closes. If it does not, we do; at once would be too early, as bytes
        // that come in for a closed socket make the system throw away what the peer has not read yet.
        let _ = tokio::time::timeout(LINGER, poll_fn(|cx| connection.poll_lingering(cx))).await;
    }
    Ok(())
}

struct Connection<'a, E: Exchange, S> {
    inner: h2::server::Connection<Wire<S>, Bytes>,
    wire: WireHandle,
    socket: SocketHandle,
    exchange: &'a E,
    session: E::Session,
    /// Requests whose body has not arrived completely.
    receiving: Vec<Receiving>,
    /// Requests that get no answer: dropping them would reset their streams.
    unanswered: Vec<SendResponse<Bytes>>,
    /// Answers that stay without their end: dropping them would reset their streams.
    half_sent: Vec<SendStream<Bytes>>,
    /// The highest stream whose request was decided.
    decided: u32,
    /// After a GOAWAY of ours: streams above this one are not processed.
    last_stream: Option<u32>,
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
        if self.cut {
            return Poll::Ready(Ok(()));
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
            Poll::Pending if self.last_stream.is_some_and(|last| self.wire.is_done_up_to(last)) => {
                Poll::Ready(Ok(()))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Takes what the peer still sends, until it closes.
    fn poll_lingering(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.inner.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok((_, respond)))) => self.leave_unprocessed(respond),
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(()),
            }
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
            Command::Leave(goaway) => self.leave(&goaway),
            Command::Cut { reset } => self.cut(reset),
            Command::MaxStreams(max_streams) => self.wire.set_max_streams(max_streams),
            Command::Reading(reading) => self.socket.set_reading(reading),
        }
    }

    fn cut(&mut self, reset: bool) {
        if reset {
            self.socket.reset_at_end();
        }
        self.cut = true;
    }

    /// Announces the end. What was not decided by now is not processed.
    fn leave(&mut self, goaway: &GoAway) {
        if self.last_stream.is_some() {
            return;
        }
        let debug_data = goaway.debug_data.as_deref().or(self.exchange.goaway_debug_data());
        self.wire.send_goaway(goaway, debug_data.unwrap_or_default().as_bytes(), self.decided);
        self.last_stream = Some(self.decided);
        let (receiving, unprocessed) = std::mem::take(&mut self.receiving)
            .into_iter()
            .partition(|receiving| u32::from(receiving.respond.stream_id()) <= self.decided);
        self.receiving = receiving;
        for receiving in unprocessed {
            self.leave_unprocessed(receiving.respond);
        }
    }

    fn leave_unprocessed(&mut self, respond: SendResponse<Bytes>) {
        self.exchange.world().record.unprocessed_stream(self.exchange.provider());
        self.unanswered.push(respond);
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
        if self.last_stream.is_some_and(|last| u32::from(respond.stream_id()) > last) {
            return self.leave_unprocessed(respond);
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

    fn answer(&mut self, request: &Parts, body: Bytes, mut respond: SendResponse<Bytes>) {
        let mut reply = self.exchange.answer(&mut self.session, request, body);
        if let Delivery::Unprocessed(goaway) = &reply.delivery {
            self.leave(goaway);
            return self.leave_unprocessed(respond);
        }
        self.decided = self.decided.max(respond.stream_id().into());
        if let Some(max_streams) = reply.max_streams.take() {
            self.wire.set_max_streams(max_streams);
        }
        if let Some(goaway) = reply.goaway.take() {
            self.leave(&goaway);
        }
        match reply.delivery {
            Delivery::Now => send(respond, reply),
            Delivery::After(delay) => {
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    send(respond, reply);
                });
            }
            Delivery::Never | Delivery::Unprocessed(_) => self.unanswered.push(respond),
            Delivery::Half => self.half_sent.extend(send_half(respond, reply)),
            Delivery::Cut => self.cut(false),
            Delivery::Reset => self.cut(true),
            Delivery::ResetStream(code) => respond.send_reset(code.into()),
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
fn send(mut respond: SendResponse<Bytes>, mut reply: Reply) {
    let head = reply.take_head();
    let sent = if reply.body.is_empty() {
        respond.send_response(head, true).map(drop)
    } else {
        respond.send_response(head, false).and_then(|mut stream| stream.send_data(reply.body, true))
    };
    if let Err(error) = sent {
        tracing::debug!(%error, "the answer could not be sent");
    }
}

/// Sends an answer without the second half of its body. It fails as `send` does.
fn send_half(mut respond: SendResponse<Bytes>, mut reply: Reply) -> Option<SendStream<Bytes>> {
    let mut stream = respond.send_response(reply.take_head(), false).ok()?;
    stream.send_data(reply.first_half(), false).ok()?;
    Some(stream)
}

/// How long the peer may take to close a connection that has announced its end and has nothing more to say.
const LINGER: Duration = Duration::from_secs(1);
/// The end of the year 9999, the last one that a `date` header can name.
const MAX_DATE_MS: u64 = 253_402_300_800_000;
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// Room for the bodies of a thousand streams.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
