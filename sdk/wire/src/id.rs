//! Identifiers. Random ones are 16 bytes, shown as 32 lowercase hexadecimal digits; names are short and
//! plain.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::limits::NAME_BYTES_MAX;

/// Why a text is not an identifier. A retry cannot help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not exactly the lowercase hexadecimal digits that the identifier has.
    #[error("an id has {0} lowercase hexadecimal digits")]
    NotHex(usize),
    /// Not 1 to 32 of `a` to `z`, `0` to `9`, `-` and `.`, beginning with a letter or digit.
    #[error("a name has 1 to 32 of a-z, 0-9, '-' and '.', and begins with a letter or digit")]
    NotName,
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;
            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError::NotHex($length * 2))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| IdError::NotHex($length * 2))?;
                Self::try_from(bytes.as_slice())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        random_id!($(#[$doc])* $name, 16);
    };
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        bytes_id!($(#[$doc])* $name, $length);

        impl $name {
            /// A new random identifier.
            pub fn random<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
                let mut bytes = [0; $length];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }
        }
    };
}

random_id!(
    /// One submission of one sender: idempotency and delivery. Scoped by tenant and sender.
    TransportId
);
random_id!(
    /// What a person is told, inside the sealed payload: dedupe, resealing, recall and corrections.
    NotificationId
);
random_id!(
    /// A device, chosen by itself at enrolment.
    DeviceId
);
random_id!(
    /// A pseudonym for a patient or member of staff. Random, never derived from a record number.
    RecipientId
);
random_id!(
    /// A certificate.
    CertificateId
);
random_id!(
    /// An order (wipe) of a tenant.
    OrderId
);
random_id!(
    /// A slot at a relay, in which submissions are put in an order.
    SlotId
);
random_id!(
    /// A group of devices (RFC 9420). Only its members see it.
    GroupId, 32
);
bytes_id!(
    /// An enrolment ticket: derived from its secret, so that holder and keyserver name it alike.
    TicketId, 16
);
bytes_id!(
    /// A public signing key: the first 16 bytes of its SHA-256.
    KeyId, 16
);
bytes_id!(
    /// A prekey: the first 16 bytes of the SHA-256 of its public key.
    PrekeyId, 16
);
bytes_id!(
    /// A key package of MLS: its RefHash (RFC 9420 section 5.2).
    KeyPackageRef, 32
);
bytes_id!(
    /// A SHA-256 digest.
    Digest, 32
);

impl Digest {
    /// SHA-256 of `bytes` (FIPS 180-4).
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first 16 bytes, as the ids of keys are made.
    #[must_use]
    pub(crate) fn first_half(&self) -> [u8; 16] {
        let mut half = [0; 16];
        half.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        half
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_name(text) { Ok(Self(text.into())) } else { Err(IdError::NotName) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name_id!(
    /// A tenant: one hospital, one trust root.
    TenantId
);
name_id!(
    /// Who a certificate names within its tenant: a sending system, an enroller, a revoker.
    SubjectId
);

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= NAME_BYTES_MAX
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_text_form() {
        let id = TransportId([0xab; 16]);
        let text = "ab".repeat(16);
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse::<TransportId>(), Err(IdError::NotHex(32)));
        assert_eq!(text[..30].parse::<TransportId>(), Err(IdError::NotHex(32)));
        assert_eq!("".parse::<DeviceId>(), Err(IdError::NotHex(32)));
    }

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "st-mary", "lab.v2", &"x".repeat(32)] {
            assert!(good.parse::<TenantId>().is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "A", "a b", "ä", "a/b", &"x".repeat(33)] {
            assert_eq!(bad.parse::<TenantId>(), Err(IdError::NotName), "{bad}");
        }
    }
}
