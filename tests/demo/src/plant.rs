//! Proof that the search finds something: a canary is put where it must not be, on purpose.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use clap::ValueEnum;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use serde::Serialize;

use crate::canary::Canary;
use crate::search::{Finding, Form};
use crate::site::Site;

/// A canary that was put where it must not be.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Planted {
    /// Which of the canaries.
    #[serde(skip)]
    text: usize,
    encoding: Encoding,
    place: Place,
}

impl Planted {
    /// One for each of `encodings` in each of `places`; each encoding has a canary of its own.
    pub(crate) fn all(encodings: &[Encoding], places: &[Place]) -> Vec<Self> {
        let of_encoding = |(text, encoding): (usize, &Encoding)| {
            let (text, encoding) = (text, *encoding);
            places.iter().map(move |place| Self { text, encoding, place: *place })
        };
        encodings.iter().enumerate().flat_map(of_encoding).collect()
    }

    /// Puts its canary where it must not be.
    pub(crate) fn plant(self, site: &Site, canaries: &[Canary]) -> io::Result<()> {
        let canary = canaries.get(self.text);
        let canary =
            canary.ok_or_else(|| io::Error::other("the result has fewer fields than there are encodings"))?;
        let written = self.encoding.write(&canary.text);
        match self.place {
            Place::Log => {
                append(&site.logs().join("relay.log"), &[b"planted: ", written.as_slice(), b"\n"].concat())
            }
            Place::Store => {
                let value = BASE64.encode(&[&[1, 0], written.as_slice(), &[0xFF]].concat());
                let row = serde_json::json!({ "keyspace": "planted", "key": "00", "value": value });
                append(&site.dumps().join("relay.ndjson"), format!("{row}\n").as_bytes())
            }
            Place::Push => {
                append(&site.pushes().join("planted.body"), &[&written, b"\n".as_slice()].concat())
            }
        }
    }

    /// Whether it is what was found, in the form in which it was written.
    pub(crate) fn is_found_by(&self, finding: &Finding) -> bool {
        self.explains(finding) && finding.form == self.encoding.form()
    }

    /// Whether it is the reason for a finding: a value of a store is found as it stands and decoded.
    pub(crate) fn explains(&self, finding: &Finding) -> bool {
        finding.text == self.text && finding.place.starts_with(self.place.shown())
    }
}

/// How a canary is written where it must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub(crate) enum Encoding {
    /// As it is.
    Raw,
    /// In lower case hexadecimal.
    Hex,
    /// In upper case hexadecimal.
    HexUpper,
    /// In UTF-16, little end first.
    Utf16Le,
    /// In UTF-16, big end first.
    Utf16Be,
    /// In base64, where a group of three bytes begins.
    Base64,
    /// In base64, one byte behind that.
    Base64At1,
    /// In base64, two bytes behind it.
    Base64At2,
    /// In base64url, where a group of three bytes begins.
    Base64url,
    /// In base64url, one byte behind that.
    Base64urlAt1,
    /// In base64url, two bytes behind it.
    Base64urlAt2,
}

/// Where a canary is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub(crate) enum Place {
    /// The relay's log.
    Log,
    /// A value of the relay's store, in the copy of the store that is searched.
    Store,
    /// The body of a push.
    Push,
}

impl Encoding {
    /// The form that the search must call it.
    const fn form(self) -> Form {
        match self {
            Self::Raw => Form::Raw,
            Self::Hex | Self::HexUpper => Form::Hex,
            Self::Utf16Le | Self::Utf16Be => Form::Utf16,
            Self::Base64
            | Self::Base64At1
            | Self::Base64At2
            | Self::Base64url
            | Self::Base64urlAt1
            | Self::Base64urlAt2 => Form::Base64,
        }
    }

    fn write(self, canary: &str) -> Vec<u8> {
        let utf16 = |bytes_of: fn(u16) -> [u8; 2]| canary.encode_utf16().flat_map(bytes_of).collect();
        let behind = |before: &str| format!("{before}{canary} and more");
        match self {
            Self::Raw => canary.into(),
            Self::Hex => HEXLOWER.encode(canary.as_bytes()).into(),
            Self::HexUpper => HEXUPPER.encode(canary.as_bytes()).into(),
            Self::Utf16Le => utf16(u16::to_le_bytes),
            Self::Utf16Be => utf16(u16::to_be_bytes),
            Self::Base64 => BASE64.encode(behind("").as_bytes()).into(),
            Self::Base64At1 => BASE64.encode(behind("1").as_bytes()).into(),
            Self::Base64At2 => BASE64.encode(behind("12").as_bytes()).into(),
            Self::Base64url => BASE64URL_NOPAD.encode(behind("").as_bytes()).into(),
            Self::Base64urlAt1 => BASE64URL_NOPAD.encode(behind("1").as_bytes()).into(),
            Self::Base64urlAt2 => BASE64URL_NOPAD.encode(behind("12").as_bytes()).into(),
        }
    }
}

impl Place {
    /// How the findings call it, at least in its beginning.
    const fn shown(self) -> &'static str {
        match self {
            Self::Log => "logs/relay.log",
            Self::Store => "dumps/relay.ndjson",
            Self::Push => "pushes/planted.body",
        }
    }
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(path)?.write_all(bytes)
}
