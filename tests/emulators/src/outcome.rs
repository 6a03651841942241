//! What a test can choose: outcomes of requests, and how new connections are received.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::world::Provider;

/// A chosen outcome for requests to a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Which emulator it is for.
    pub provider: Provider,
    /// The device token it is for; absent: every token. A rule for one token goes before a rule for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// HTTP status of the answer, 200 when absent.
    #[serde(default = "status_ok")]
    pub status: u16,
    /// APNs `reason`, FCM `errorCode`, OAuth `error`; absent: the usual one of the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Value of a `retry-after` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<RetryAfter>,
    /// APNs 410: `timestamp` of the body, in epoch milliseconds; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_ms: Option<u64>,
    /// FCM: what `error.details` holds; absent: an `FcmError`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    /// The answer's body as it is, whatever the status: rubbish, half a JSON text, a proxy's HTML page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// How long the answer is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The request is taken and never answered.
    #[serde(default)]
    pub no_answer: bool,
    /// The answer's headers and the first half of its body are sent; the rest never comes.
    #[serde(default)]
    pub half_answer: bool,
    /// The connection is closed without an answer, and without a GOAWAY.
    #[serde(default)]
    pub cut_connection: bool,
    /// The connection is reset (TCP RST) without an answer.
    #[serde(default)]
    pub reset_connection: bool,
    /// The stream is reset with this error code (RFC 9113, section 7), e.g. 7 for REFUSED_STREAM; a
    /// connection without streams is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_stream: Option<u32>,
    /// The connection announces its end: this request is the last one that is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goaway: Option<GoAway>,
    /// The connection announces its end without processing this request: its stream and all later ones are
    /// above the last-stream-id. Such requests are neither recorded nor part of the total.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goaway_instead: Option<GoAway>,
    /// With the answer, MAX_CONCURRENT_STREAMS of the connection becomes this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_streams: Option<u32>,
    /// How many requests it applies to; absent: until cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// `retry-after`: seconds, or any text (an HTTP date, or rubbish).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RetryAfter {
    /// Delay in seconds.
    Seconds(u64),
    /// The header's value as it is.
    Text(String),
}

/// What `error.details` of an FCM error holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Details {
    /// There is no `details`.
    None,
    /// `FcmError` with the `errorCode`.
    FcmError,
    /// `google.rpc.ErrorInfo` with the `reason`, as Google's front end answers; no `FcmError`.
    ErrorInfo,
    /// `FcmError`, and `google.rpc.QuotaFailure` with what was used up.
    QuotaFailure,
    /// `google.rpc.BadRequest` with a field violation; no `FcmError`.
    BadRequest,
}

/// GOAWAY frames that are sent at once (RFC 9113, section 6.8), and then the end of the connection: what was
/// decided before is answered, what comes later is not processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoAway {
    /// How many follow each other. The last one says the true last-stream-id, those before it 2^31-1.
    #[serde(default = "one_frame")]
    pub frames: u8,
    /// Error code; 0 is NO_ERROR.
    #[serde(default)]
    pub error_code: u32,
    /// Debug data; absent: what the provider usually says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug_data: Option<String>,
}

/// What happens to new connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionFault {
    /// Whose connections: APNs or FCM (which the token endpoint shares).
    pub provider: Provider,
    /// How they are received.
    pub reception: Reception,
    /// How many connections it applies to; absent: until cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// How a new connection is received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reception {
    /// Reset (TCP RST) before the TLS handshake.
    Reset,
    /// The TLS handshake is never answered.
    NoHandshake,
    /// After the TLS handshake nothing is said any more.
    NoSettings,
    /// GOAWAY comes in place of SETTINGS, and the connection is closed.
    GoawayInsteadOfSettings(GoAway),
    /// So many octets of a request's body may be under way on a stream (SETTINGS_INITIAL_WINDOW_SIZE). With 0
    /// no body ever comes.
    Window(u32),
    /// The connection is read like this from the start of HTTP on.
    Reading(Reading),
}

/// How fast a connection's bytes are read. Those that are not read stay in the buffers of the two systems,
/// and then with the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// As they come.
    Usual,
    /// Not at all.
    Stopped,
    /// At most so many a second, at least 10.
    BytesPerSecond(u32),
}

/// Why a chosen outcome was not taken. Asking again does not help.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OutcomeError {
    /// Not a final HTTP status.
    #[error("status {0} is not between 200 and 599")]
    Status(u16),
    /// Longer than ten minutes.
    #[error("delay_ms is more than {MAX_DELAY_MS}")]
    Delay,
    /// A count of nothing.
    #[error("count is 0: leave it out, or say how many requests it is for")]
    Count,
    /// Not a header value.
    #[error("retry_after cannot be a header value")]
    RetryAfter,
    /// OAuth requests carry no device token.
    #[error("an outcome for oauth cannot name a token")]
    Token,
    /// More than one thing instead of an answer.
    #[error(
        "only one of no_answer, half_answer, cut_connection, reset_connection, reset_stream and \
         goaway_instead can happen"
    )]
    Contradiction,
    /// No frames, or more than anybody sends.
    #[error("frames is not between 1 and {MAX_GOAWAY_FRAMES}")]
    GoAway,
    /// The debug data would not fit a frame.
    #[error("debug_data is longer than {MAX_DEBUG_DATA} bytes")]
    DebugData,
    /// The token endpoint shares FCM's connections.
    #[error("only apns and fcm have connections")]
    Connections,
    /// A window larger than HTTP/2 knows.
    #[error("window is more than {MAX_WINDOW}")]
    Window,
    /// Too slow to be told from stopped.
    #[error("bytes_per_second is less than {MIN_BYTES_PER_SECOND}")]
    Reading,
    /// Too many rules.
    #[error("too many outcomes; clear some first")]
    Full,
}

impl Outcome {
    /// An outcome for every token, until cleared.
    pub fn new(provider: Provider, status: u16) -> Self {
        Self {
            provider,
            token: None,
            status,
            reason: None,
            retry_after: None,
            timestamp_ms: None,
            details: None,
            body: None,
            delay_ms: None,
            no_answer: false,
            half_answer: false,
            cut_connection: false,
            reset_connection: false,
            reset_stream: None,
            goaway: None,
            goaway_instead: None,
            max_streams: None,
            count: None,
        }
    }

    pub(crate) fn delay(&self) -> Option<Duration> {
        self.delay_ms.filter(|delay| *delay > 0).map(Duration::from_millis)
    }

    pub(crate) fn check(&self) -> Result<(), OutcomeError> {
        if !(200..=599).contains(&self.status) {
            return Err(OutcomeError::Status(self.status));
        }
        if self.delay_ms.is_some_and(|delay| delay > MAX_DELAY_MS) {
            return Err(OutcomeError::Delay);
        }
        if self.count == Some(0) {
            return Err(OutcomeError::Count);
        }
        if let Some(RetryAfter::Text(text)) = &self.retry_after
            && http::HeaderValue::from_str(text).is_err()
        {
            return Err(OutcomeError::RetryAfter);
        }
        if self.provider == Provider::Oauth && self.token.is_some() {
            return Err(OutcomeError::Token);
        }
        let instead = [
            self.no_answer,
            self.half_answer,
            self.cut_connection,
            self.reset_connection,
            self.reset_stream.is_some(),
            self.goaway_instead.is_some(),
        ];
        let both = self.goaway.is_some() && self.goaway_instead.is_some();
        if instead.into_iter().filter(|happens| *happens).count() > 1 || both {
            return Err(OutcomeError::Contradiction);
        }
        self.goaway.iter().chain(&self.goaway_instead).try_for_each(GoAway::check)
    }
}

impl Default for GoAway {
    /// One frame without an error, saying what the provider usually says.
    fn default() -> Self {
        Self { frames: one_frame(), error_code: 0, debug_data: None }
    }
}

impl GoAway {
    pub(crate) fn check(&self) -> Result<(), OutcomeError> {
        if !(1..=MAX_GOAWAY_FRAMES).contains(&self.frames) {
            return Err(OutcomeError::GoAway);
        }
        check_debug_data(self.debug_data.as_deref())
    }
}

/// Debug data must fit a frame of the usual size.
pub(crate) fn check_debug_data(debug_data: Option<&str>) -> Result<(), OutcomeError> {
    if debug_data.is_some_and(|text| text.len() > MAX_DEBUG_DATA) {
        return Err(OutcomeError::DebugData);
    }
    Ok(())
}

impl ConnectionFault {
    pub(crate) fn check(&self) -> Result<(), OutcomeError> {
        if self.provider == Provider::Oauth {
            return Err(OutcomeError::Connections);
        }
        if self.count == Some(0) {
            return Err(OutcomeError::Count);
        }
        match &self.reception {
            Reception::GoawayInsteadOfSettings(goaway) => goaway.check(),
            Reception::Window(window) if *window > MAX_WINDOW => Err(OutcomeError::Window),
            Reception::Reading(reading) => reading.check(),
            _ => Ok(()),
        }
    }
}

impl Reading {
    pub(crate) fn check(self) -> Result<(), OutcomeError> {
        match self {
            Self::BytesPerSecond(rate) if rate < MIN_BYTES_PER_SECOND => Err(OutcomeError::Reading),
            _ => Ok(()),
        }
    }
}

fn status_ok() -> u16 {
    200
}

fn one_frame() -> u8 {
    1
}

const MAX_DELAY_MS: u64 = 600_000;
const MAX_GOAWAY_FRAMES: u8 = 10;
/// A frame of 16 384 bytes, less the two numbers that stand before the debug data.
const MAX_DEBUG_DATA: usize = 16_384 - 8;
/// RFC 9113, section 6.5.2.
const MAX_WINDOW: u32 = (1 << 31) - 1;
const MIN_BYTES_PER_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_that_make_no_sense_are_refused() {
        let base = Outcome::new(Provider::Fcm, 503);
        let goaway = |goaway| Outcome { goaway: Some(goaway), ..base.clone() };
        let refusals = [
            (Outcome { status: 101, ..base.clone() }, OutcomeError::Status(101)),
            (Outcome { count: Some(0), ..base.clone() }, OutcomeError::Count),
            (Outcome { delay_ms: Some(MAX_DELAY_MS + 1), ..base.clone() }, OutcomeError::Delay),
            (
                Outcome { retry_after: Some(RetryAfter::Text("\n".into())), ..base.clone() },
                OutcomeError::RetryAfter,
            ),
            (Outcome { no_answer: true, reset_stream: Some(7), ..base.clone() }, OutcomeError::Contradiction),
            (
                Outcome { goaway_instead: Some(GoAway::default()), ..goaway(GoAway::default()) },
                OutcomeError::Contradiction,
            ),
            (goaway(GoAway { frames: 0, ..GoAway::default() }), OutcomeError::GoAway),
            (
                goaway(GoAway { debug_data: Some("x".repeat(MAX_DEBUG_DATA + 1)), ..GoAway::default() }),
                OutcomeError::DebugData,
            ),
            (
                Outcome { provider: Provider::Oauth, token: Some("t".into()), ..base.clone() },
                OutcomeError::Token,
            ),
        ];
        for (outcome, error) in refusals {
            assert_eq!(outcome.check(), Err(error));
        }
        let fault = |provider, reception| ConnectionFault { provider, reception, count: None };
        let refusals = [
            (fault(Provider::Oauth, Reception::Reset), OutcomeError::Connections),
            (fault(Provider::Apns, Reception::Window(1 << 31)), OutcomeError::Window),
            (fault(Provider::Apns, Reception::Reading(Reading::BytesPerSecond(0))), OutcomeError::Reading),
        ];
        for (fault, error) in refusals {
            assert_eq!(fault.check(), Err(error));
        }
    }
}
