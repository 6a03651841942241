//! Why bytes are refused: one enum for their form, one for the trust in them. Codes are stable; texts are
//! not.

/// Bytes that do not have the form that `FORMAT.md` draws. The same bytes will never do: no retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// More bytes than the structure may have; nothing of them was read.
    #[error("more than {0} bytes")]
    TooLarge(usize),
    /// The bytes end inside an item.
    #[error("the bytes end inside an item")]
    Truncated,
    /// Bytes follow the structure.
    #[error("bytes follow the end of the structure")]
    TrailingBytes,
    /// Not the deterministic encoding of RFC 8949 section 4.2.1: a longer head than needed, an indefinite
    /// length, map keys out of order or twice. In a key package, a longer length than needed.
    #[error("not the deterministic encoding")]
    NotDeterministic,
    /// Nested deeper than any structure here.
    #[error("nested too deep")]
    TooDeep,
    /// More items than any structure here.
    #[error("too many items")]
    TooManyItems,
    /// An item of another type, or a text that is not UTF-8.
    #[error("an item has the wrong type")]
    WrongType,
    /// A map key that is missing, unknown or in the wrong place.
    #[error("a field is missing or unknown")]
    WrongField,
    /// A value outside what its field allows.
    #[error("the field {0} has a value that is not allowed")]
    WrongValue(&'static str),
    /// The structure is of another type than asked for (COSE header `typ`, RFC 9596).
    #[error("a structure of another type")]
    WrongTyp,
    /// An algorithm that this version does not know.
    #[error("an unknown algorithm")]
    UnknownAlgorithm,
}

impl FormatError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::Truncated => "truncated",
            Self::TrailingBytes => "trailing_bytes",
            Self::NotDeterministic => "not_deterministic",
            Self::TooDeep => "too_deep",
            Self::TooManyItems => "too_many_items",
            Self::WrongType => "wrong_type",
            Self::WrongField => "wrong_field",
            Self::WrongValue(_) => "wrong_value",
            Self::WrongTyp => "wrong_typ",
            Self::UnknownAlgorithm => "unknown_algorithm",
        }
    }
}

/// A well-formed structure that must not be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The bytes do not have the form.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// No root of this tenant made the certificate.
    #[error("the certificate comes from no known root")]
    UnknownRoot,
    /// A signature does not verify.
    #[error("a signature does not verify")]
    BadSignature,
    /// The enrolment code does not verify: made without the ticket's secret.
    #[error("the enrolment code does not verify")]
    BadMac,
    /// Something belongs to another tenant.
    #[error("another tenant's")]
    WrongTenant,
    /// A certificate for another purpose.
    #[error("a certificate for another purpose")]
    WrongPurpose,
    /// Something belongs to another device.
    #[error("another device's")]
    WrongDevice,
    /// The certificate does not cover the time in question.
    #[error("the certificate has expired")]
    CertificateExpired,
    /// The certificate is not valid yet.
    #[error("the certificate is not valid yet")]
    CertificateNotYetValid,
    /// The tenant has revoked the key.
    #[error("the key was revoked")]
    KeyRevoked,
    /// The tenant has revoked the device.
    #[error("the device was revoked")]
    DeviceRevoked,
    /// A prekey that does not belong to its batch, its id or its device.
    #[error("the prekey is not the device's")]
    PrekeyMismatch,
    /// The prekey may not be sealed to any more.
    #[error("the prekey has expired")]
    PrekeyExpired,
    /// A lower version or sequence than was seen before.
    #[error("older than what was seen before")]
    Rollback,
}

impl TrustError {
    /// The stable code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Format(error) => error.code(),
            Self::UnknownRoot => "unknown_root",
            Self::BadSignature => "bad_signature",
            Self::BadMac => "bad_mac",
            Self::WrongTenant => "wrong_tenant",
            Self::WrongPurpose => "wrong_purpose",
            Self::WrongDevice => "wrong_device",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateNotYetValid => "certificate_not_yet_valid",
            Self::KeyRevoked => "key_revoked",
            Self::DeviceRevoked => "device_revoked",
            Self::PrekeyMismatch => "prekey_mismatch",
            Self::PrekeyExpired => "prekey_expired",
            Self::Rollback => "rollback",
        }
    }
}
