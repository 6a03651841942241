//! Starting, steering and stopping the emulators from Rust.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::apns::Apns;
use crate::clock::ShiftedClock;
use crate::control;
use crate::credentials::{Addresses, Credentials, Manifest};
use crate::faults::{ConnectionFaults, FaultTable};
use crate::fcm::Fcm;
use crate::listener;
use crate::oauth::TokenEndpoint;
use crate::options::{Options, TokenUpdateScope};
use crate::outcome::{ConnectionFault, GoAway, Outcome, OutcomeError, Reading};
use crate::provider_token::SigningKeys;
use crate::record::{Counts, Push, Query, Recorder};
use crate::tls::{H2, HTTP_1_1};
use crate::world::{Command, Connections, Dates, Provider, World};

/// The emulators, running on the current tokio runtime. Dropping them closes everything at once.
pub struct Emulator {
    shared: Arc<Shared>,
    addresses: Addresses,
    stop: watch::Sender<bool>,
    listeners: JoinSet<()>,
}

/// What the control interface and the library interface both work on.
pub(crate) struct Shared {
    pub(crate) world: Arc<World>,
    pub(crate) apns: Arc<Apns>,
    pub(crate) oauth: Arc<TokenEndpoint>,
    pub(crate) manifest: Manifest,
}

/// Why the emulators did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Address taken or not ours; another port, or later, may do.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Address asked for.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The folder or a file in it cannot be written or read.
    #[error("cannot use {path}: {source}")]
    Folder {
        /// File or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A key file that is there holds something else. Remove it to have a new one made.
    #[error("{path} does not hold a key of the right kind")]
    WrongKey {
        /// The file.
        path: PathBuf,
    },
    /// `Options::apns_keys` is empty.
    #[error("APNs needs at least one signing key")]
    NoKey,
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS refused the certificate.
    #[error("cannot set TLS up: {0}")]
    Tls(#[from] rustls::Error),
    /// A file in the folder is not the JSON it should be.
    #[error("cannot read or write JSON: {0}")]
    Json(serde_json::Error),
    /// The system gave no random bytes.
    #[error("no randomness")]
    Randomness,
}

impl Emulator {
    /// Listens, writes the folder `options.dir` (see [`Manifest`]) and serves.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let (apns_listener, apns_address) = listen(options.listen, options.apns_port).await?;
        let (fcm_listener, fcm_address) = listen(options.listen, options.fcm_port).await?;
        let (control_listener, control_address) = listen(options.listen, options.control_port).await?;
        let addresses = Addresses { apns: apns_address, fcm: fcm_address, control: control_address };
        let credentials = Credentials::prepare(&options, addresses)?;

        let mut names = vec!["localhost".to_owned(), Ipv4Addr::LOCALHOST.to_string()];
        names.extend(options.extra_names);
        let apns_acceptor = credentials.authority.acceptor(&names, &[H2])?;
        let fcm_acceptor = credentials.authority.acceptor(&names, &[H2, HTTP_1_1])?;

        let world = Arc::new(World {
            clock: ShiftedClock::new(options.clock),
            faults: FaultTable::default(),
            connection_faults: ConnectionFaults::default(),
            dates: Dates::default(),
            record: Recorder::new(options.record_bodies),
            connections: Connections::default(),
        });
        let keys: HashMap<_, _> =
            credentials.signing_keys.into_iter().map(|(facts, key)| (facts.key_id, key)).collect();
        let keys = SigningKeys::new(keys, options.token_update_scope);
        let apns = Arc::new(Apns::new(Arc::clone(&world), keys, options.apns_max_streams));
        let oauth = Arc::new(TokenEndpoint::new(
            Arc::clone(&world),
            credentials.service_account,
            options.access_token_ttl,
        ));
        let fcm = Arc::new(Fcm::new(
            Arc::clone(&world),
            Arc::clone(&oauth),
            options.project_id,
            options.fcm_max_streams,
        ));
        let shared =
            Arc::new(Shared { world, apns: Arc::clone(&apns), oauth, manifest: credentials.manifest });

        let (stop, stopped) = watch::channel(false);
        let mut listeners = JoinSet::new();
        listeners.spawn(listener::serve(apns_listener, apns_acceptor, apns, stopped.clone()));
        listeners.spawn(listener::serve(fcm_listener, fcm_acceptor, fcm, stopped.clone()));
        listeners.spawn(control::serve(control_listener, Arc::clone(&shared), stopped));
        Ok(Self { shared, addresses, stop, listeners })
    }

    /// Where everything is, and with which credentials.
    pub fn manifest(&self) -> &Manifest {
        &self.shared.manifest
    }

    /// Address of the APNs emulator.
    pub fn apns_addr(&self) -> SocketAddr {
        self.addresses.apns
    }

    /// Address of the FCM emulator and its token endpoint.
    pub fn fcm_addr(&self) -> SocketAddr {
        self.addresses.fcm
    }

    /// Address of the control interface.
    pub fn control_addr(&self) -> SocketAddr {
        self.addresses.control
    }

    /// Chooses what happens to requests that pass the protocol's checks.
    ///
    /// # Errors
    /// See [`OutcomeError`].
    pub fn set_outcome(&self, outcome: Outcome) -> Result<(), OutcomeError> {
        self.shared.world.faults.add(outcome)
    }

    /// Usual answers again. Dead tokens stay dead.
    pub fn clear_outcomes(&self) {
        self.shared.world.faults.clear_outcomes();
    }

    /// Chooses how new connections are received.
    ///
    /// # Errors
    /// See [`OutcomeError`].
    pub fn set_connection_fault(&self, fault: ConnectionFault) -> Result<(), OutcomeError> {
        self.shared.world.connection_faults.add(fault)
    }

    /// New connections are received as usual again.
    pub fn clear_connection_faults(&self) {
        self.shared.world.connection_faults.clear();
    }

    /// Declares a device token dead since a moment (epoch milliseconds; now when absent).
    ///
    /// # Errors
    /// [`OutcomeError::Full`] when too many tokens are dead already.
    pub fn kill_token(
        &self,
        provider: Provider,
        token: &str,
        since_ms: Option<u64>,
    ) -> Result<(), OutcomeError> {
        let since_ms = since_ms.unwrap_or_else(|| self.shared.world.clock.now_ms());
        self.shared.world.faults.kill(provider, token, since_ms)
    }

    /// All device tokens live again.
    pub fn revive_tokens(&self) {
        self.shared.world.faults.clear_dead();
    }

    /// Registers an APNs token under a topic: it is refused under other topics from now on.
    pub fn register_token(&self, token: &str, topic: &str) {
        self.shared.apns.register(token, topic);
    }

    /// No FCM access token is known any more.
    pub fn revoke_access_tokens(&self) {
        self.shared.oauth.revoke_all();
    }

    /// Ends all connections of a provider gracefully; returns how many there were. `debug_data` replaces what
    /// the GOAWAY frame says.
    pub fn goaway(&self, provider: Provider, debug_data: Option<String>) -> usize {
        self.shared.goaway(provider, debug_data)
    }

    /// Sends GOAWAY frames on all connections of a provider at once: what is decided by now is still
    /// answered, what is not is not processed. Returns how many connections there were.
    ///
    /// # Errors
    /// See [`OutcomeError`].
    pub fn goaway_at_once(&self, provider: Provider, goaway: GoAway) -> Result<usize, OutcomeError> {
        goaway.check()?;
        Ok(self.shared.command(provider, &Command::Leave(goaway)))
    }

    /// Ends all connections of a provider without a word, closed or (TCP RST) reset; returns how many there
    /// were.
    pub fn cut_connections(&self, provider: Provider, reset: bool) -> usize {
        self.shared.command(provider, &Command::Cut { reset })
    }

    /// Announces a new MAX_CONCURRENT_STREAMS on all open connections of a provider; returns how many there
    /// were. Streams that are open stay open.
    pub fn set_max_streams(&self, provider: Provider, max_streams: u32) -> usize {
        self.shared.command(provider, &Command::MaxStreams(max_streams))
    }

    /// Reads all open connections of a provider like this from now on; returns how many there were.
    ///
    /// # Errors
    /// [`OutcomeError::Reading`].
    pub fn set_reading(&self, provider: Provider, reading: Reading) -> Result<usize, OutcomeError> {
        reading.check()?;
        Ok(self.shared.command(provider, &Command::Reading(reading)))
    }

    /// Over what a provider token may change only every 20 minutes; what was shown before is forgotten.
    pub fn set_token_update_scope(&self, scope: TokenUpdateScope) {
        self.shared.apns.set_token_update_scope(scope);
    }

    /// Whether answers of a provider carry a `date` header, which follows the emulators' clock. FCM and the
    /// token endpoint send it unless told otherwise, APNs only when told so.
    pub fn send_date(&self, provider: Provider, send: bool) {
        self.shared.world.dates.set(provider, send);
    }

    /// Answers by provider, status and reason.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// The recorded requests with a sequence number above `after`, oldest first.
    pub fn pushes(&self, after: u64) -> Vec<Push> {
        let query = Query { after, limit: usize::MAX, ..Query::default() };
        self.shared.world.record.page(&query).pushes
    }

    /// The next recorded request for a device token with a sequence number above `after`. Waits for it.
    pub async fn next_push(&self, token: &str, after: u64) -> Push {
        let query = Query { after, token: Some(token.to_owned()), limit: 1, ..Query::default() };
        loop {
            let page = self.shared.world.record.next_page(&query).await;
            if let Some(push) = page.pushes.into_iter().next() {
                return push;
            }
        }
    }

    /// Resolves when `count` requests to send a push (whatever the answer) came since the start or reset.
    pub async fn wait_for_count(&self, count: u64) {
        self.shared.world.record.wait_for_count(count).await;
    }

    /// Forgets requests and counts; numbers begin at 1 again.
    pub fn reset(&self) {
        self.shared.world.record.reset();
    }

    /// False: from now on requests are only counted.
    pub fn record_bodies(&self, keep: bool) {
        self.shared.world.record.set_keep(keep);
    }

    /// Moves the emulators' clock away from the one they were given.
    pub fn shift_clock(&self, shift_ms: i64) {
        self.shared.world.clock.set_shift_ms(shift_ms);
    }

    /// Takes no more connections, ends the open ones by GOAWAY, and returns when they have ended, or a second
    /// later.
    pub async fn stop(mut self) {
        // Nobody listening means that there is nothing left to stop.
        let _ = self.stop.send(true);
        while self.listeners.join_next().await.is_some() {}
    }
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = self.world.record.counts();
        counts.apns.connections_open = self.world.connections.open(Provider::Apns) as u64;
        counts.fcm.connections_open = self.world.connections.open(Provider::Fcm) as u64;
        counts
    }

    pub(crate) fn goaway(&self, provider: Provider, debug_data: Option<String>) -> usize {
        self.command(provider, &Command::GoAway { debug_data })
    }

    /// Gives all connections of a provider an order; returns how many there were.
    pub(crate) fn command(&self, provider: Provider, command: &Command) -> usize {
        // The token endpoint lives on FCM's connections.
        let provider = if provider == Provider::Oauth { Provider::Fcm } else { provider };
        self.world.connections.command(provider, command)
    }
}

async fn listen(ip: IpAddr, port: u16) -> Result<(TcpListener, SocketAddr), StartError> {
    let address = SocketAddr::new(ip, port);
    let error = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    Ok((listener, address))
}
