//! APNs provider tokens: who may push, and how often the token may change.
//!
//! The checks follow Apple's "Establishing a token-based connection to APNs".

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderValue;
use serde::Deserialize;

use crate::apns::Reason;
use crate::jws::{Jws, PublicKey};
use crate::options::TokenUpdateScope;
use crate::world::lock;

/// The signing keys APNs knows, by key id.
pub(crate) struct SigningKeys {
    keys: HashMap<String, SigningKey>,
    /// `TokenUpdateScope::Team`, or else `Connection`.
    per_team: AtomicBool,
    /// With `TokenUpdateScope::Team`: the tokens each team has shown, on whatever connection.
    teams: Mutex<HashMap<String, TokenWindow>>,
}

/// One signing key.
pub(crate) struct SigningKey {
    pub(crate) team_id: String,
    pub(crate) topics: Vec<String>,
    pub(crate) public_key: PublicKey,
}

/// What a connection knows of its provider.
#[derive(Default)]
pub(crate) struct ProviderSession {
    /// Team and key of the first valid token: the connection is tied to them.
    tie: Option<Tie>,
    window: TokenWindow,
}

struct Tie {
    team_id: String,
    key_id: String,
}

/// A provider that has shown a valid token.
pub(crate) struct Authenticated<'a> {
    pub(crate) topics: &'a [String],
    /// This token tied the connection to its team.
    pub(crate) first: bool,
}

/// The last tokens seen, oldest first. More than one, because requests that were made with the token before
/// the last may still be on their way.
#[derive(Default)]
struct TokenWindow {
    tokens: VecDeque<SeenToken>,
}

#[derive(Clone)]
struct SeenToken {
    authorization: HeaderValue,
    issued_at: u64,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    iat: u64,
}

impl SigningKeys {
    /// Keys by their ids, and over what a token may change only every 20 minutes.
    pub(crate) fn new(keys: HashMap<String, SigningKey>, scope: TokenUpdateScope) -> Self {
        let per_team = AtomicBool::new(scope == TokenUpdateScope::Team);
        Self { keys, per_team, teams: Mutex::default() }
    }

    /// Changes the scope; what teams have shown before is forgotten.
    pub(crate) fn set_scope(&self, scope: TokenUpdateScope) {
        lock(&self.teams).clear();
        self.per_team.store(scope == TokenUpdateScope::Team, Ordering::Relaxed);
    }

    /// Checks the `authorization` header at a moment (epoch seconds).
    pub(crate) fn authenticate(
        &self,
        session: &mut ProviderSession,
        authorization: Option<&HeaderValue>,
        now: u64,
    ) -> Result<Authenticated<'_>, Reason> {
        let authorization = authorization.ok_or(Reason::MissingProviderToken)?;
        // The usual case: the token is the connection's, whose signature was verified before.
        if let Some(tie) = &session.tie
            && let Some(seen) = session.window.find(authorization)
            && let Some(key) = self.keys.get(&tie.key_id)
        {
            check_age(seen.issued_at, now)?;
            return Ok(Authenticated { topics: &key.topics, first: false });
        }
        self.authenticate_unseen(session, authorization, now)
    }

    fn authenticate_unseen(
        &self,
        session: &mut ProviderSession,
        authorization: &HeaderValue,
        now: u64,
    ) -> Result<Authenticated<'_>, Reason> {
        let text = authorization.to_str().map_err(|_| Reason::InvalidProviderToken)?;
        let token = bearer(text).ok_or(Reason::MissingProviderToken)?;
        let jws = Jws::<Claims>::parse(token).ok_or(Reason::InvalidProviderToken)?;
        let key_id = jws.header.kid.as_deref().unwrap_or_default();
        let key = self.keys.get(key_id).ok_or(Reason::InvalidProviderToken)?;
        if jws.header.alg != "ES256" || jws.claims.iss != key.team_id || !jws.is_signed_by(&key.public_key) {
            return Err(Reason::InvalidProviderToken);
        }
        check_age(jws.claims.iat, now)?;
        if let Some(tie) = &session.tie {
            if tie.team_id != key.team_id {
                return Err(Reason::InvalidProviderToken);
            }
            if tie.key_id != key_id {
                return Err(Reason::UnrelatedKeyIdInToken);
            }
        }

        let seen = SeenToken { authorization: authorization.clone(), issued_at: jws.claims.iat };
        if self.per_team.load(Ordering::Relaxed) {
            lock(&self.teams).entry(key.team_id.clone()).or_default().admit(seen.clone())?;
        }
        session.window.admit(seen)?;
        let first = session.tie.is_none();
        if first {
            session.tie = Some(Tie { team_id: key.team_id.clone(), key_id: key_id.to_owned() });
        }
        Ok(Authenticated { topics: &key.topics, first })
    }
}

impl TokenWindow {
    fn find(&self, authorization: &HeaderValue) -> Option<&SeenToken> {
        self.tokens.iter().rev().find(|seen| seen.authorization == *authorization)
    }

    /// Takes a token unless it follows the newest one too soon. Measured between the tokens' own times of
    /// issue, so that neither a late first use nor this machine's clock makes a difference.
    fn admit(&mut self, token: SeenToken) -> Result<(), Reason> {
        if self.find(&token.authorization).is_some() {
            return Ok(());
        }
        if let Some(newest) = self.tokens.back()
            && token.issued_at < newest.issued_at.saturating_add(MIN_UPDATE_INTERVAL_S)
        {
            return Err(Reason::TooManyProviderTokenUpdates);
        }
        self.tokens.push_back(token);
        if self.tokens.len() > WINDOW_TOKENS {
            self.tokens.pop_front();
        }
        Ok(())
    }
}

/// The token of a `Bearer` credential; the scheme's case does not matter (RFC 9110, section 11.1).
pub(crate) fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn check_age(issued_at: u64, now: u64) -> Result<(), Reason> {
    let too_old = issued_at.saturating_add(MAX_AGE_S) < now;
    let from_the_future = issued_at > now.saturating_add(MAX_AHEAD_S);
    if too_old || from_the_future { Err(Reason::ExpiredProviderToken) } else { Ok(()) }
}

const MIN_UPDATE_INTERVAL_S: u64 = 20 * 60;
const MAX_AGE_S: u64 = 60 * 60;
/// Apple names no tolerance; a minute covers honest clocks.
const MAX_AHEAD_S: u64 = 60;
const WINDOW_TOKENS: usize = 3;
