//! Who submits or signs a message: a client of the tenant, whose key the tenant has certified, or a device, which the
//! tenant has admitted.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::admission::Admission;
use crate::certificate::Certificate;
use crate::id::{DeviceId, IdError, SubjectId};

/// Who wrote a message, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// A sender, by this certificate.
    Sender(Box<Certificate>),
    /// A device, by this admission.
    Device(Box<Admission>),
}

impl Author {
    /// The author's name, unique in the tenant.
    #[must_use]
    pub fn name(&self) -> AuthorName {
        match self {
            Self::Sender(certificate) => AuthorName::Sender(certificate.subject.clone()),
            Self::Device(admission) => AuthorName::Device(admission.record.device),
        }
    }
}

/// An author as one text: a client's name, as in `lab`, or `device:` and a device's id. No client's name has a
/// colon, so neither is ever taken for the other, whatever a client is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthorName {
    /// A sending system.
    Sender(SubjectId),
    /// A device.
    Device(DeviceId),
}

const DEVICE: &str = "device:";

impl AuthorName {
    /// The text.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Sender(subject) => Cow::Borrowed(subject.as_str()),
            Self::Device(device) => Cow::Owned(format!("{DEVICE}{device}")),
        }
    }
}

impl From<SubjectId> for AuthorName {
    fn from(subject: SubjectId) -> Self {
        Self::Sender(subject)
    }
}

impl From<DeviceId> for AuthorName {
    fn from(device: DeviceId) -> Self {
        Self::Device(device)
    }
}

impl fmt::Display for AuthorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sender(subject) => subject.fmt(f),
            Self::Device(device) => write!(f, "{DEVICE}{device}"),
        }
    }
}

impl FromStr for AuthorName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.strip_prefix(DEVICE) {
            Some(device) => device.parse().map(Self::Device),
            None => text.parse().map(Self::Sender),
        }
    }
}

impl Serialize for AuthorName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for AuthorName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_has_one_text_and_a_client_named_like_a_device_is_none() {
        let device = DeviceId([0xab; 16]);
        let like_a_device: SubjectId = device.to_string().parse().unwrap();
        let authors = [
            (AuthorName::from("lab".parse::<SubjectId>().unwrap()), "lab".to_owned()),
            (AuthorName::from("device".parse::<SubjectId>().unwrap()), "device".to_owned()),
            (AuthorName::from(like_a_device), "ab".repeat(16)),
            (AuthorName::from(device), format!("device:{}", "ab".repeat(16))),
        ];
        for (author, text) in authors {
            assert_eq!((author.to_string(), &*author.text()), (text.clone(), text.as_str()));
            assert_eq!(text.parse(), Ok(author.clone()));
            let json = serde_json::to_string(&author).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<AuthorName>(&json).unwrap(), author);
        }
        let upper = format!("device:{}", "AB".repeat(16));
        let twice = format!("device:device:{device}");
        for bad in ["", "device:", "device:lab", "lab:x", ":lab", "Device:lab", upper.as_str(), &twice] {
            assert!(bad.parse::<AuthorName>().is_err(), "{bad}");
        }
    }
}
