//! One request and its answer, over whichever connection carries it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, StatusCode, header};
use tokio::time::{Instant, timeout_at};

use super::RETRY_AFTER_MAX;
use super::outcome::{Detail, Outcome, RetryClass};
use super::pool::{Ending, Lease, LinkId, Pool, Unavailable};

/// A provider's answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// At most [`BODY_BYTES_MAX`] of the body.
    pub(super) body: Bytes,
    pub(super) link: LinkId,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The deadline passed after the request was sent.
    Deadline,
    /// There was no stream for it.
    Unavailable(Unavailable),
    /// The provider refused to process it, on several connections.
    Refused(Detail),
    /// Several connections broke with the request on them.
    Cut(Detail),
    /// The provider reset the request's stream.
    Reset(Detail),
}

impl Pool {
    /// Sends a request and waits for the answer until `deadline`.
    ///
    /// What the provider did not process (GOAWAY, refused stream), and what a connection took with it, goes out
    /// again at once on another connection, [`SENDS_MAX`] times in all: a push is idempotent, so that one sent
    /// twice does no harm. `head` is asked for the same head again.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        deadline: Instant,
        body: &Bytes,
        head: impl Fn() -> Request<()>,
    ) -> Result<Answer, NoAnswer> {
        let mut sends = 0;
        loop {
            let mut lease = self.lease(deadline).await.map_err(NoAnswer::Unavailable)?;
            let failure = match send(&mut lease, head(), body.clone(), deadline).await {
                Ok(answer) => {
                    lease.ending = Ending::Answered;
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            // What did not even get out, because the connection was about to go, is no attempt.
            sends += u32::from(lease.ending != Ending::Unused);
            let is_connection = matches!(failure, NoAnswer::Refused(_) | NoAnswer::Cut(_));
            if is_connection {
                lease.ending = Ending::Broken;
            }
            if !is_connection || sends >= SENDS_MAX {
                return Err(failure);
            }
        }
    }
}

/// One attempt, on one connection.
async fn send(
    lease: &mut Lease,
    head: Request<()>,
    body: Bytes,
    deadline: Instant,
) -> Result<Answer, NoAnswer> {
    let (response, mut stream) = lease.sender.send_request(head, false).map_err(|error| {
        // Nothing was sent: this connection takes no new streams.
        NoAnswer::Refused(Detail::new(&error.to_string()))
    })?;
    lease.ending = Ending::Unanswered;
    // An error here means that the stream is gone already; the response says why.
    let _told_by_response = stream.send_data(body, true);
    let response = match timeout_at(deadline, response).await {
        Err(_elapsed) => return Err(NoAnswer::Deadline),
        Ok(response) => response.map_err(|error| from_stream_error(&error))?,
    };
    let (parts, body) = response.into_parts();
    let body = if body.is_end_stream() {
        Bytes::new()
    } else {
        match timeout_at(deadline, read_body(body)).await {
            Ok(Ok(body)) => body,
            // The status says it all.
            _ if parts.status.is_success() => Bytes::new(),
            // A refusal without its reason could be taken for another one.
            Ok(Err(error)) => return Err(from_stream_error(&error)),
            Err(_elapsed) => return Err(NoAnswer::Deadline),
        }
    };
    Ok(Answer { status: parts.status, headers: parts.headers, body, link: lease.link })
}

/// Reads at most [`BODY_BYTES_MAX`]; what is longer is cut off, and its parser refuses it.
async fn read_body(mut stream: RecvStream) -> Result<Bytes, h2::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        let room = BODY_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == BODY_BYTES_MAX {
            break;
        }
    }
    Ok(body.freeze())
}

fn from_stream_error(error: &h2::Error) -> NoAnswer {
    let detail = Detail::new(&error.to_string());
    let is_refused = error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
    // h2 gives the peer's GOAWAY as an error to the streams above its last-stream-id alone (RFC 9113 section 6.8);
    // those below it go on, and end with an I/O error if the connection goes first.
    let is_above_last_stream = error.is_go_away() && error.is_remote();
    if is_refused || is_above_last_stream {
        NoAnswer::Refused(detail)
    } else if error.is_reset() {
        NoAnswer::Reset(detail)
    } else {
        NoAnswer::Cut(detail)
    }
}

impl From<NoAnswer> for Outcome {
    fn from(no_answer: NoAnswer) -> Self {
        let (class, after, detail) = match no_answer {
            NoAnswer::Deadline => {
                (RetryClass::NoAnswer, Duration::ZERO, Detail::new("no answer before the deadline"))
            }
            NoAnswer::Unavailable(Unavailable::Busy) => {
                (RetryClass::Busy, Duration::ZERO, Detail::new("too many pushes wait for a connection"))
            }
            NoAnswer::Unavailable(Unavailable::NoStream) => {
                (RetryClass::NoAnswer, Duration::ZERO, Detail::new("no free stream before the deadline"))
            }
            NoAnswer::Unavailable(Unavailable::NoConnection { after, detail }) => {
                (RetryClass::Connection, after, detail)
            }
            NoAnswer::Refused(detail) => (RetryClass::GoAway, Duration::ZERO, detail),
            NoAnswer::Cut(detail) | NoAnswer::Reset(detail) => {
                (RetryClass::Connection, Duration::ZERO, detail)
            }
        };
        Self::Retry { after: after.max(RETRY_FIRST), class, detail }
    }
}

/// The answer's `Retry-After` (RFC 9110 section 10.2.3: seconds or a date), at most [`RETRY_AFTER_MAX`].
/// `now`: seconds since the Unix epoch.
pub(super) fn retry_after(headers: &HeaderMap, now: u64) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = value.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let now = std::time::UNIX_EPOCH + Duration::from_secs(now);
        httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// How often one push is sent before the caller hears that the connections fail.
const SENDS_MAX: u32 = 4;
/// The longest part of an answer that is read, in bytes. APNs sends about 50, FCM about 500.
const BODY_BYTES_MAX: usize = 16 << 10;
/// The first wait after a failure that is not the push's.
const RETRY_FIRST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, value.parse().unwrap());
        // 1994-11-06T08:49:07Z
        retry_after(&headers, 784_111_747)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO), "a date that has passed");
        assert_eq!(wait("18446744073709551615"), Some(RETRY_AFTER_MAX));
        for garbage in ["soon", "-1", "1.5", ""] {
            assert_eq!(wait(garbage), None, "{garbage:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), 0), None);
    }
}
