//! Accepts TLS connections and hands them to the protocol that was negotiated.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::connection::{self, Exchange};
use crate::http1;
use crate::tls::H2;
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
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let world = exchange.world();
    world.record.connection_opened(exchange.provider());
    let (_guard, commands) = world.connections.register(exchange.provider());
    let h2 = tls.get_ref().1.alpn_protocol() == Some(H2);
    if h2 {
        if let Err(error) = connection::serve(tls, &*exchange, commands).await {
            tracing::debug!(%error, "HTTP/2 connection ended");
        }
    } else if exchange.speaks_http1() {
        if let Err(error) = http1::serve(tls, &*exchange, commands).await {
            tracing::debug!(%error, "HTTP/1.1 connection ended");
        }
    } else {
        tracing::debug!("the client does not speak HTTP/2");
    }
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const STOP_GRACE: Duration = Duration::from_secs(1);
