//! Request and response bodies. Servers refuse unknown fields; clients ignore them, so that servers may add
//! some.

pub mod keyserver;
pub mod relay;

use serde::{Deserialize, Serialize};

use crate::base64url::Base64Url;

/// `POST /v1/token` of either server, as a form (RFC 6749 section 4.4).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// `client_credentials`.
    pub grant_type: String,
    /// `urn:ietf:params:oauth:client-assertion-type:jwt-bearer`.
    pub client_assertion_type: String,
    /// The signed assertion.
    pub client_assertion: String,
    /// A role by its name (`sender`, `enroller`, `revoker`); all of the certificate's without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// The answer to a [`TokenRequest`] (RFC 6749 section 5.1).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenResponse {
    /// The token, for `Authorization: Bearer`.
    pub access_token: String,
    /// `bearer`.
    pub token_type: String,
    /// Seconds, at most 300.
    pub expires_in: u64,
    /// The roles granted, separated by spaces.
    pub scope: String,
}

/// `PUT` and `GET /v1/status` of either server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusBody {
    /// The signed tenant status.
    pub status: Base64Url,
}
