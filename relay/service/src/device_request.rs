//! Signed requests of devices at the door of a server (RFC 9421): form, key, time, and each once.

mod nonce;

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Method, Uri};
use prometheus::{IntCounterVec, IntGauge};
use sealpost_wire::clock::UnixTime;
use sealpost_wire::http_signature::{RequestParts, SignatureError, SignatureHeaders, SignedRequest};
use sealpost_wire::key::RequestKey;

use self::nonce::{NonceError, NonceWindow};
use crate::config::PublicUrl;
use crate::problem::{ProblemCode, Refusal};
use crate::rates::Rates;
use crate::telemetry::{MetricError, Metrics};
use crate::tenants::Tenant;

/// Checks the signed requests that come to one server.
#[derive(Debug)]
pub struct DeviceDoor {
    authority: String,
    opens_at: UnixTime,
    nonces: Mutex<NonceWindow>,
    rates: Arc<Rates>,
    refused: IntCounterVec,
    nonces_shown: IntGauge,
}

impl DeviceDoor {
    /// The door of the server at `public_url`. It remembers what it has let in, but not over a restart: so it
    /// lets in nothing that was signed before `opens_at`. A server that may be restarted within a second
    /// passes the second after its start: in that of the start, its earlier life may have let the request in.
    /// `rates` is how often devices may ask.
    ///
    /// # Errors
    /// The metrics are registered already.
    pub fn new(
        public_url: &PublicUrl,
        opens_at: UnixTime,
        rates: Arc<Rates>,
        metrics: &Metrics,
    ) -> Result<Self, MetricError> {
        Ok(Self {
            authority: public_url.authority().to_owned(),
            opens_at,
            nonces: Mutex::new(NonceWindow::new(opens_at)),
            rates,
            refused: metrics.counters(
                "sealpost_device_requests_refused_total",
                "Signed requests of devices that were refused at the door.",
                &["reason"],
            )?,
            nonces_shown: metrics
                .gauge("sealpost_device_nonces", "Nonces of signed requests that are remembered.")?,
        })
    }

    /// Reads the signature of a request and checks its digest against `body`. Whose request it says it is
    /// tells which key to fetch; nothing is to be believed before [`Self::admit`].
    ///
    /// # Errors
    /// [`ProblemCode::MissingCredentials`], [`ProblemCode::InvalidCredentials`].
    pub fn read(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<SignedRequest, Refusal> {
        let signature = self.signature(headers)?;
        let read = SignedRequest::read(&self.parts(method, uri, body), &signature);
        read.map_err(|error| self.malformed(error))
    }

    /// Reads the signature of a request whose body has not come yet, so that a stranger's large body is never
    /// taken in: [`Self::admit`] comes next, and [`Self::check_body`] when the body is there.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_head(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<SignedRequest, Refusal> {
        let signature = self.signature(headers)?;
        let read = SignedRequest::read_head(&self.parts(method, uri, &[]), &signature);
        read.map_err(|error| self.malformed(error))
    }

    /// Checks that the body of a request is the one that was signed.
    ///
    /// # Errors
    /// [`ProblemCode::InvalidCredentials`].
    pub fn check_body(&self, request: &SignedRequest, body: &[u8]) -> Result<(), Refusal> {
        request.check_body(body).map_err(|error| self.malformed(error))
    }

    /// Lets a request in: signed by `key` (nothing for a device that is not known: the answer is that of a
    /// wrong signature), within the window, for the first time, by a device that its tenant has not revoked.
    ///
    /// # Errors
    /// [`ProblemCode::InvalidCredentials`], [`ProblemCode::Revoked`], [`ProblemCode::ClockSkew`] with the
    /// server's time, [`ProblemCode::Replayed`], [`ProblemCode::RateLimited`].
    pub fn admit(
        &self,
        request: &SignedRequest,
        tenant: &Tenant,
        key: Option<&RequestKey>,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let verified = match key {
            Some(key) if request.tenant == *tenant.id() => request.verify(key, now),
            _ => Err(SignatureError::BadSignature),
        };
        match verified {
            Ok(()) => {}
            Err(SignatureError::ClockSkew) => return Err(self.refuse(self.skewed(now), "clock_skew")),
            Err(_) => return Err(self.unknown()),
        }
        if tenant.state().trust.check_device(request.device).is_err() {
            return Err(self.refuse(ProblemCode::Revoked.into(), "revoked"));
        }
        let allowed = self.rates.device(tenant.id(), request.device);
        allowed.map_err(|refusal| self.refuse(refusal, "rate_limited"))?;
        let claimed = {
            let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
            let claimed = nonces.claim(request, now);
            self.nonces_shown.set(i64::try_from(nonces.len()).unwrap_or(i64::MAX));
            claimed
        };
        claimed.map_err(|error| match error {
            NonceError::BeforeOpening => self.refuse(self.skewed(now), "before_opening"),
            NonceError::Replayed => self.refuse(ProblemCode::Replayed.into(), "replayed"),
            NonceError::TooMany(seconds) => {
                self.refuse(Refusal::new(ProblemCode::RateLimited).retry_after(seconds), "too_many")
            }
            NonceError::Full => self.refuse(
                Refusal::new(ProblemCode::Unavailable).retry_after(nonce::BUCKET_SECONDS_SHORT),
                "full",
            ),
        })
    }

    /// The refusal of a request by a device or tenant that is not known: that of a wrong signature.
    #[must_use]
    pub fn unknown(&self) -> Refusal {
        let refusal = Refusal::new(ProblemCode::InvalidCredentials);
        self.refuse(refusal.detail(SignatureError::BadSignature.to_string()), "signature")
    }

    /// Lets go of what would be refused for its time. Requests do so as well; this is for when none come.
    pub fn forget(&self, now: UnixTime) {
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        nonces.forget(now);
        self.nonces_shown.set(i64::try_from(nonces.len()).unwrap_or(i64::MAX));
    }

    /// Refused for its time alone: the same request signed anew, by the server's time, will do.
    fn skewed(&self, now: UnixTime) -> Refusal {
        Refusal::new(ProblemCode::ClockSkew).server_time(now.max(self.opens_at))
    }

    fn signature(&self, headers: &HeaderMap) -> Result<SignatureHeaders, Refusal> {
        signature_headers(headers).map_err(|code| self.refuse(code.into(), "unsigned"))
    }

    fn parts<'a>(&'a self, method: &'a Method, uri: &'a Uri, body: &'a [u8]) -> RequestParts<'a> {
        RequestParts {
            method: method.as_str(),
            authority: &self.authority,
            path: uri.path(),
            query: uri.query(),
            body,
        }
    }

    fn malformed(&self, error: SignatureError) -> Refusal {
        let refusal = Refusal::new(ProblemCode::InvalidCredentials).detail(error.to_string());
        self.refuse(refusal, "malformed")
    }

    fn refuse(&self, refusal: Refusal, reason: &str) -> Refusal {
        self.refused.with_label_values(&[reason]).inc();
        refusal
    }
}

/// Whether a request shows a device's signature, or a part of one. `Content-Digest` alone is none: anybody
/// may send it (RFC 9530).
#[must_use]
pub fn is_signed(headers: &HeaderMap) -> bool {
    headers.contains_key(SIGNATURE_INPUT) || headers.contains_key(SIGNATURE)
}

const SIGNATURE_INPUT: &str = "signature-input";
const SIGNATURE: &str = "signature";

fn signature_headers(headers: &HeaderMap) -> Result<SignatureHeaders, ProblemCode> {
    let only = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => {
                value.to_str().map(str::to_owned).map_err(|_| ProblemCode::InvalidCredentials)
            }
            (None, _) => Err(ProblemCode::MissingCredentials),
            // Several would be joined into one list (RFC 9110 section 5.3), which has more than the one
            // member.
            (Some(_), Some(_)) => Err(ProblemCode::InvalidCredentials),
        }
    };
    Ok(SignatureHeaders {
        content_digest: only("content-digest")?,
        signature_input: only(SIGNATURE_INPUT)?,
        signature: only(SIGNATURE)?,
    })
}

#[cfg(test)]
mod tests;
