//! HTTP/1.1 for clients that fetch their access token that way.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::connection::{Delivery, Exchange, MAX_BODY};
use crate::socket::SocketHandle;
use crate::world::{Command, lock};

/// Serves a connection until it ends or is told to go away.
pub(crate) async fn serve<E: Exchange, S>(
    io: S,
    socket: &SocketHandle,
    exchange: &E,
    mut commands: UnboundedReceiver<Command>,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let session = Mutex::new(E::Session::default());
    let service = service_fn(|request| answer(exchange, socket, &session, request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            Some(command) = commands.recv() => match command {
                Command::GoAway { .. } | Command::Leave(_) => connection.as_mut().graceful_shutdown(),
                Command::Cut { reset } => {
                    if reset {
                        socket.reset_at_end();
                    }
                    return Ok(());
                }
                Command::Reading(reading) => socket.set_reading(reading),
                // There are no streams.
                Command::MaxStreams(_) => {}
            },
        }
    }
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error("the fault table wants the connection cut")]
    Cut,
    #[error("the body is too long or was cut off")]
    Body,
}

async fn answer<E: Exchange>(
    exchange: &E,
    socket: &SocketHandle,
    session: &Mutex<E::Session>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Unanswered> {
    let (request, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Unanswered::Body)?.to_bytes();
    let mut reply = exchange.answer(&mut lock(session), &request, body);
    let length = reply.body.len();
    match reply.delivery {
        Delivery::Now => {}
        Delivery::After(delay) => tokio::time::sleep(delay).await,
        Delivery::Never => std::future::pending().await,
        Delivery::Half => reply.body = reply.first_half(),
        Delivery::Reset => {
            socket.reset_at_end();
            return Err(Unanswered::Cut);
        }
        Delivery::Unprocessed(_) => {
            exchange.world().record.unprocessed_stream(exchange.provider());
            return Err(Unanswered::Cut);
        }
        Delivery::Cut | Delivery::ResetStream(_) => return Err(Unanswered::Cut),
    }
    let mut head = reply.take_head();
    if reply.goaway.is_some() {
        head.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let missing = length - reply.body.len();
    Ok(head.map(|()| Answer { data: reply.body, missing }))
}

/// The body of an answer, of which the end may never come.
struct Answer {
    data: Bytes,
    missing: usize,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.data)))));
        }
        // Nobody will wake the task for what is missing: that is the point.
        if self.missing > 0 { Poll::Pending } else { Poll::Ready(None) }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.data.len() + self.missing) as u64)
    }
}
