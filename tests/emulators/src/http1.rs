//! HTTP/1.1 for clients that fetch their access token that way.

use std::sync::Mutex;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::connection::{Delivery, Exchange, MAX_BODY};
use crate::world::{Command, lock};

/// Serves a connection until it ends or is told to go away.
pub(crate) async fn serve<E: Exchange, S>(
    io: S,
    exchange: &E,
    mut commands: UnboundedReceiver<Command>,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let session = Mutex::new(E::Session::default());
    let service = service_fn(|request| answer(exchange, &session, request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended,
            Some(Command::GoAway { .. }) = commands.recv() => connection.as_mut().graceful_shutdown(),
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
    session: &Mutex<E::Session>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Unanswered> {
    let (request, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Unanswered::Body)?.to_bytes();
    let reply = exchange.answer(&mut lock(session), &request, body);
    match reply.delivery {
        Delivery::Now => {}
        Delivery::After(delay) => tokio::time::sleep(delay).await,
        Delivery::Never => std::future::pending().await,
        Delivery::Cut => return Err(Unanswered::Cut),
    }
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    response.headers_mut().extend(reply.headers.into_iter().map(|(name, value)| (Some(name), value)));
    Ok(response)
}
