//! Problem documents (RFC 9457) with stable codes: what every door answers when it refuses.

use serde::{Deserialize, Serialize};

/// The media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A problem, as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:sealpost:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The stable code.
    pub code: String,
    /// A short sentence for a person; the same for every occurrence of the code.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong in this case; never a secret, never internal text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The server's time (seconds), with `clock_skew`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_time: Option<u64>,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $title:literal;)*) => {
        /// Every code that a server answers with. The table in `FORMAT.md` is checked against this.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemCode {
            $($(#[$doc])* $name,)*
        }

        impl ProblemCode {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The sentence for a person.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The body is not the JSON that the endpoint takes.
    MalformedBody = "malformed_body", 400, "The body is not what this endpoint takes";
    /// A path or query parameter is not of its form.
    MalformedParameter = "malformed_parameter", 400, "A parameter is not of its form";
    /// A signed structure in the body does not have its form or is not to be believed; `detail` has the code.
    InvalidStructure = "invalid_structure", 422, "A signed structure is not valid";
    /// A value is outside what is allowed.
    InvalidValue = "invalid_value", 422, "A value is outside what is allowed";
    /// The expiry is in the past or too far away.
    InvalidExpiry = "invalid_expiry", 422, "The expiry is in the past or too far away";
    /// No credentials.
    MissingCredentials = "missing_credentials", 401, "Credentials are missing";
    /// Credentials that are forged, expired, or for something else.
    InvalidCredentials = "invalid_credentials", 401, "Credentials are not valid";
    /// The time in the signature is outside the window; `server_time` helps to sign anew.
    ClockSkew = "clock_skew", 401, "The request's time is outside the window";
    /// A request or assertion that was seen before.
    Replayed = "replayed", 401, "The request was seen before";
    /// The client assertion was refused (RFC 6749 section 5.2).
    InvalidClient = "invalid_client", 401, "The client assertion was refused";
    /// The caller's role does not allow it.
    Forbidden = "forbidden", 403, "The caller may not do this";
    /// The sender or the device has been revoked.
    Revoked = "revoked", 403, "The sender or device has been revoked";
    /// The recipient has not agreed to this category.
    ConsentMissing = "consent_missing", 403, "The recipient has not agreed to this category";
    /// Nothing there, or it is another tenant's.
    NotFound = "not_found", 404, "There is nothing here";
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, "The method is not allowed here";
    /// The body did not come in time; the same request over a better connection will do.
    RequestTimeout = "request_timeout", 408, "The request did not come in time";
    /// The same id came with another content.
    Conflict = "conflict", 409, "The id was used with another content";
    /// The version moved on; fetch it and try again.
    VersionConflict = "version_conflict", 409, "The version has moved on";
    /// Another claim has the slot's place; process it and claim the next one.
    SlotConflict = "slot_conflict", 409, "Another claim has this place in the slot";
    /// The claim shows a capability for a slot that there is not.
    SlotUnknown = "slot_unknown", 409, "There is no such slot";
    /// The capability is not the one that the claim before asked for.
    SlotForbidden = "slot_forbidden", 403, "The capability is not the one that the slot asks for";
    /// The ticket was used, or its time is over.
    TicketUnavailable = "ticket_unavailable", 410, "The ticket was used or has expired";
    /// Older than what is kept.
    CursorGone = "cursor_gone", 410, "The cursor is older than what is kept";
    /// The body is larger than the endpoint takes.
    BodyTooLarge = "body_too_large", 413, "The body is too large";
    /// Not JSON.
    UnsupportedMediaType = "unsupported_media_type", 415, "The media type is not supported";
    /// More headers than are taken.
    HeadersTooLarge = "headers_too_large", 431, "The request has too many headers";
    /// Too many requests; `Retry-After` says when.
    RateLimited = "rate_limited", 429, "Too many requests";
    /// A fault of the server.
    Internal = "internal", 500, "The server failed";
    /// The server is busy or about to stop; the same request later will do.
    Unavailable = "unavailable", 503, "The server is busy; try again";
    /// The server is out of space; nothing was stored.
    OutOfSpace = "out_of_space", 507, "The server is out of space";
    /// The tenant's status is too old to go by.
    StatusStale = "status_stale", 503, "The tenant's status is too old";
}

impl ProblemCode {
    /// The problem document of this code.
    #[must_use]
    pub fn problem(self, detail: Option<String>) -> Problem {
        Problem {
            kind: format!("urn:sealpost:problem:{}", self.code()),
            code: self.code().to_owned(),
            title: self.title().to_owned(),
            status: self.status(),
            detail,
            server_time: None,
        }
    }
}
