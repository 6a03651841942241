//! Accepts TLS connections and hands them to the protocol that was negotiated, unless they are to be received
//! otherwise.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::connection::{self, Exchange};
use crate::http1;
use crate::outcome::{GoAway, Reception};
use crate::socket::{Socket, SocketHandle};
use crate::tls::H2;
use crate::wire::goaway_frames;
use crate::world::Command;

/// Serves an emulated service until told to stop, then gives its connections a moment to finish.
pub(crate) async fn serve<E: Exchange>(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    exchange: Arc<E>,
    mut stop: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => {
                    connections.spawn(serve_connection(tcp, acceptor.clone(), Arc::clone(&exchange)));
                }
                Err(error) => {
                    // Out of descriptors, most likely: give connections time to end.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let goaway = Command::GoAway { debug_data: None };
    exchange.world().connections.command(exchange.provider(), &goaway);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    // What is left is aborted when the set drops.
    let _ = tokio::time::timeout(STOP_GRACE, all_ended).await;
}

/// Resolves when the emulators are to stop, or are gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn serve_connection<E: Exchange>(tcp: TcpStream, acceptor: TlsAcceptor, exchange: Arc<E>) {
    // Answers are small and must not wait for an acknowledgement (Nagle's algorithm).
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let (mut socket, handle) = Socket::new(tcp);
    let world = exchange.world();
    let reception = world.connection_faults.take(exchange.provider());
    match reception {
        Some(Reception::Reset) => return handle.reset_at_end(),
        Some(Reception::NoHandshake) => return discard(&mut socket).await,
        _ => {}
    }
    let mut tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    world.record.connection_opened(exchange.provider());
    let (_guard, commands) = world.connections.register(exchange.provider());
    let h2 = match tls.get_ref().1.alpn_protocol() {
        Some(protocol) => protocol == H2,
        // APNs serves clients that offer no protocol at all, as some libraries do.
        None => !exchange.speaks_http1(),
    };
    let mut window = None;
    match reception {
        Some(Reception::NoSettings) => return say_nothing(&mut tls, &handle, commands).await,
        Some(Reception::GoawayInsteadOfSettings(goaway)) if h2 => {
            let usual = exchange.goaway_debug_data();
            return turn_away(&mut tls, &goaway, usual.unwrap_or_default()).await;
        }
        Some(Reception::Window(octets)) => window = Some(octets),
        Some(Reception::Reading(reading)) => handle.set_reading(reading),
        _ => {}
    }
    if h2 {
        if let Err(error) = connection::serve(tls, handle, &*exchange, commands, window).await {
            tracing::debug!(%error, "HTTP/2 connection ended");
        }
    } else if let Err(error) = http1::serve(tls, &handle, &*exchange, commands).await {
        tracing::debug!(%error, "HTTP/1.1 connection ended");
    }
}

/// Reads until the peer closes, or has gone.
async fn discard<S: AsyncRead + Unpin>(io: &mut S) {
    let mut chunk = [0; 4096];
    while io.read(&mut chunk).await.is_ok_and(|read| read > 0) {}
}

/// Says nothing until the peer closes, or the control port has the connection ended.
async fn say_nothing<S: AsyncRead + Unpin>(
    io: &mut S,
    socket: &SocketHandle,
    mut commands: UnboundedReceiver<Command>,
) {
    let mut discarded = std::pin::pin!(discard(io));
    loop {
        tokio::select! {
            () = discarded.as_mut() => return,
            command = commands.recv() => match command {
                Some(Command::Cut { reset }) => {
                    if reset {
                        socket.reset_at_end();
                    }
                    return;
                }
                Some(_) => {}
                None => return,
            },
        }
    }
}

/// Sends GOAWAY in place of SETTINGS: no stream is processed.
async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S, goaway: &GoAway, usual: &str) {
    let debug_data = goaway.debug_data.as_deref().unwrap_or(usual);
    let frames: Vec<u8> = goaway_frames(goaway, debug_data.as_bytes(), 0).flatten().collect();
    let sent = async {
        io.write_all(&frames).await?;
        io.shutdown().await
    };
    match sent.await {
        // The peer must be able to read it before the socket goes, whatever it has sent meanwhile.
        Ok(()) => {
            let _ = tokio::time::timeout(LINGER, discard(io)).await;
        }
        Err(error) => tracing::debug!(%error, "GOAWAY could not be sent"),
    }
}

/// How long the peer may take to close a connection that was turned away.
const LINGER: Duration = Duration::from_secs(1);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const STOP_GRACE: Duration = Duration::from_secs(1);
