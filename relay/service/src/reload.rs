//! When a server reads its files anew: TLS certificates, credentials of push providers.
//!
//! ```text
//! SIGHUP, ask --> every ReloadRequests::next that waits, and the next call of those that are busy
//! ```
//! A reload changes what the files of the configuration hold, not the configuration itself.

use std::{fmt, future, io};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Asks every part of a server to read its files anew. Clones share it.
#[derive(Clone)]
pub struct Reload {
    asked: watch::Sender<u64>,
}

/// One part's view of a [`Reload`]: each request comes once, and several that come while the part is busy are
/// one.
pub struct ReloadRequests {
    asked: watch::Receiver<u64>,
}

impl Reload {
    /// A reload that only [`Reload::ask`] asks for.
    #[must_use]
    pub fn new() -> Self {
        Self { asked: watch::Sender::new(0) }
    }

    /// A reload that SIGHUP asks for. Called within a runtime; from then on the signal does not end the process.
    ///
    /// # Errors
    /// The signal cannot be listened to.
    pub fn on_signal() -> io::Result<Self> {
        let mut hang_up = signal(SignalKind::hangup())?;
        let reload = Self::new();
        let signalled = reload.clone();
        tokio::spawn(async move {
            while hang_up.recv().await.is_some() {
                tracing::info!(signal = "SIGHUP", "reading files anew");
                signalled.ask();
            }
        });
        Ok(reload)
    }

    /// Asks every part to read its files anew.
    pub fn ask(&self) {
        self.asked.send_modify(|requests| *requests = requests.wrapping_add(1));
    }

    /// What comes from now on.
    #[must_use]
    pub fn requests(&self) -> ReloadRequests {
        ReloadRequests { asked: self.asked.subscribe() }
    }
}

impl Default for Reload {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("requests", &*self.asked.borrow()).finish()
    }
}

impl ReloadRequests {
    /// Comes with the next request, at once if one came since the last call. Never when nobody is left to ask.
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) {
        if self.asked.changed().await.is_err() {
            future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for ReloadRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadRequests").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;

    #[tokio::test]
    async fn each_part_is_asked_once_and_a_busy_one_afterwards() {
        let reload = Reload::new();
        reload.ask();
        let (mut one, mut other) = (reload.requests(), reload.requests());
        assert!(tokio::time::timeout(AT_ONCE, one.next()).await.is_err(), "asked before it looked");
        reload.ask();
        one.next().await;
        reload.ask();
        reload.clone().ask();
        one.next().await;
        assert!(tokio::time::timeout(AT_ONCE, one.next()).await.is_err(), "two requests are one");
        other.next().await;
        assert!(tokio::time::timeout(AT_ONCE, other.next()).await.is_err());
        drop(reload);
        assert!(tokio::time::timeout(AT_ONCE, one.next()).await.is_err(), "nobody is left to ask");
    }

    #[tokio::test]
    async fn a_hang_up_asks_and_does_not_end_the_process() {
        let reload = Reload::on_signal().unwrap();
        let mut requests = reload.requests();
        for _ in 0..2 {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::HUP).unwrap();
            requests.next().await;
        }
    }
}
