//! The TCP socket under TLS, which can be read slowly or not at all, and end by a reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::outcome::Reading;

/// A TCP connection as TLS sees it.
pub(crate) struct Socket {
    tcp: TcpStream,
    orders: Arc<Orders>,
    /// With `Reading::BytesPerSecond`: what may still be read before the tick.
    allowance: usize,
    tick: Option<Pin<Box<Sleep>>>,
}

/// The handle by which the connection's task steers its socket.
#[derive(Clone)]
pub(crate) struct SocketHandle {
    orders: Arc<Orders>,
}

struct Orders {
    /// Bytes a second, or `USUAL`.
    rate: AtomicU64,
    reset: AtomicBool,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream) -> (Self, SocketHandle) {
        let orders = Arc::new(Orders { rate: AtomicU64::new(USUAL), reset: AtomicBool::new(false) });
        let handle = SocketHandle { orders: Arc::clone(&orders) };
        (Self { tcp, orders, allowance: 0, tick: None }, handle)
    }

    /// Reads at most the allowance, which each tick renews.
    fn poll_read_slowly(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        rate: u64,
    ) -> Poll<io::Result<()>> {
        while self.allowance == 0 {
            let tick = self.tick.get_or_insert_with(|| Box::pin(tokio::time::sleep(TICK)));
            ready!(tick.as_mut().poll(cx));
            tick.as_mut().reset(Instant::now() + TICK);
            self.allowance = usize::try_from(rate / TICKS_PER_SECOND).unwrap_or(SLOW_CHUNK).max(1);
        }
        let mut chunk = [0; SLOW_CHUNK];
        let size = self.allowance.min(buf.remaining()).min(SLOW_CHUNK);
        let mut part = ReadBuf::new(&mut chunk[..size]);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut part))?;
        self.allowance -= part.filled().len();
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl SocketHandle {
    /// Takes effect when the connection's task polls the socket next; so it is for that task to call.
    pub(crate) fn set_reading(&self, reading: Reading) {
        let rate = match reading {
            Reading::Usual => USUAL,
            Reading::Stopped => 0,
            Reading::BytesPerSecond(rate) => rate.into(),
        };
        self.orders.rate.store(rate, Ordering::Relaxed);
    }

    /// When the socket drops, the connection is reset instead of closed.
    pub(crate) fn reset_at_end(&self) {
        self.orders.reset.store(true, Ordering::Relaxed);
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.orders.rate.load(Ordering::Relaxed) {
            USUAL => Pin::new(&mut this.tcp).poll_read(cx, buf),
            // Whoever lets the reading go on wakes the task.
            0 => Poll::Pending,
            rate => this.poll_read_slowly(cx, buf, rate),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.orders.reset.load(Ordering::Relaxed)
            && let Err(error) = self.tcp.set_zero_linger()
        {
            tracing::debug!(%error, "the connection is closed instead of reset");
        }
    }
}

const USUAL: u64 = u64::MAX;
const TICKS_PER_SECOND: u64 = 10;
const TICK: Duration = Duration::from_millis(1000 / TICKS_PER_SECOND);
/// At most so much is read at once when reading slowly.
const SLOW_CHUNK: usize = 4096;
