//! Consent: what a recipient agreed to, by opaque category, and whether a look-up may go ahead.

use std::fmt;

use sealpost_wire::api::keyserver::Consent;
use sealpost_wire::clock::UnixTime;
use sealpost_wire::limits::{CATEGORY_BYTES_MAX, CLOCK_SKEW_SECONDS_MAX};
use serde::Deserialize;

/// Categories that one recipient has consents for.
pub const CATEGORIES_PER_RECIPIENT_MAX: usize = 256;
/// Bytes of who recorded a consent, and of how.
const NOTE_BYTES_MAX: usize = 64;

/// What a missing consent means to a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsentPolicy {
    /// Nothing is sent before the recipient has agreed.
    #[default]
    OptIn,
    /// Everything is sent until the recipient disagrees.
    OptOut,
}

impl ConsentPolicy {
    /// Whether a look-up may go ahead with what was recorded last.
    #[must_use]
    pub const fn allows(self, recorded: Option<&Consent>) -> bool {
        match (self, recorded) {
            (_, Some(consent)) => consent.granted,
            (Self::OptIn, None) => false,
            (Self::OptOut, None) => true,
        }
    }
}

/// Why a consent is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsentError {
    /// A text is empty, too long or has control characters; or the time lies ahead.
    #[error("the field {0} has a value that is not allowed")]
    Value(&'static str),
    /// A later word of the recipient is recorded already.
    #[error("a later consent is recorded")]
    Superseded,
}

/// A category code: opaque here, 1 to 64 of letters, digits and `-._:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Category(String);

impl Category {
    /// The category in `text`.
    ///
    /// # Errors
    /// [`ConsentError::Value`].
    pub fn parse(text: &str) -> Result<Self, ConsentError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if text.is_empty() || text.len() > CATEGORY_BYTES_MAX || !text.bytes().all(plain) {
            return Err(ConsentError::Value("category"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks what an enroller wants to record at `now`.
///
/// # Errors
/// [`ConsentError::Value`].
pub fn check(consent: &Consent, now: UnixTime) -> Result<(), ConsentError> {
    let plain =
        |text: &str| !text.is_empty() && text.len() <= NOTE_BYTES_MAX && !text.chars().any(char::is_control);
    if !plain(&consent.recorded_by) {
        return Err(ConsentError::Value("recorded_by"));
    }
    if !plain(&consent.method) {
        return Err(ConsentError::Value("method"));
    }
    if consent.given_at > now.plus(CLOCK_SKEW_SECONDS_MAX) {
        return Err(ConsentError::Value("given_at"));
    }
    Ok(())
}

/// Whether `new` may stand in place of `recorded`: a repeated request that comes late must not bring back
/// what the recipient has withdrawn since.
///
/// # Errors
/// [`ConsentError::Superseded`].
pub fn supersede(recorded: Option<&Consent>, new: &Consent) -> Result<(), ConsentError> {
    match recorded {
        Some(recorded) if recorded.given_at > new.given_at => Err(ConsentError::Superseded),
        // Both said in one second: the withdrawal stands.
        Some(recorded) if recorded.given_at == new.given_at && !recorded.granted && new.granted => {
            Err(ConsentError::Superseded)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consent(granted: bool, given_at: u64) -> Consent {
        Consent {
            granted,
            given_at: UnixTime(given_at),
            recorded_by: "portal".to_owned(),
            method: "portal".to_owned(),
            document: None,
        }
    }

    #[test]
    fn policies_differ_only_where_nothing_is_recorded() {
        for (recorded, opt_in, opt_out) in
            [(None, false, true), (Some(true), true, true), (Some(false), false, false)]
        {
            let recorded = recorded.map(|granted| consent(granted, 1));
            assert_eq!(ConsentPolicy::OptIn.allows(recorded.as_ref()), opt_in);
            assert_eq!(ConsentPolicy::OptOut.allows(recorded.as_ref()), opt_out);
        }
    }

    #[test]
    fn an_older_word_does_not_undo_a_newer_one() {
        let withdrawn = consent(false, 10);
        assert_eq!(supersede(Some(&withdrawn), &consent(true, 9)), Err(ConsentError::Superseded));
        assert_eq!(supersede(Some(&withdrawn), &consent(true, 10)), Err(ConsentError::Superseded));
        assert_eq!(supersede(Some(&withdrawn), &consent(true, 11)), Ok(()));
        assert_eq!(supersede(Some(&consent(true, 10)), &consent(false, 10)), Ok(()));
        assert_eq!(supersede(None, &consent(true, 1)), Ok(()));
    }

    #[test]
    fn texts_and_times_are_bounded() {
        let now = UnixTime(1000);
        assert_eq!(check(&consent(true, 1300), now), Ok(()));
        assert_eq!(check(&consent(true, 1301), now), Err(ConsentError::Value("given_at")));
        let by = |text: &str| check(&Consent { recorded_by: text.to_owned(), ..consent(true, 1) }, now);
        assert_eq!(by(&"x".repeat(64)), Ok(()));
        for bad in ["", "a\nb", &"x".repeat(65)] {
            assert_eq!(by(bad), Err(ConsentError::Value("recorded_by")), "{bad:?}");
        }
        for bad in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(Category::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Category::parse("lab-results.v2:stat").is_ok());
    }
}
