//! The address of a device at its provider.

use std::fmt;

use zeroize::Zeroizing;

/// A push token as the device's operating system gave it to the app: hexadecimal for APNs, an opaque registration
/// token for FCM. It is personal data: not shown by `Debug`, not in any log, zeroized when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct PushToken(Zeroizing<Box<str>>);

/// What is wrong with a push token. A retry does not help; the text never contains the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushTokenError {
    /// No characters, or more than [`PushToken::BYTES_MAX`].
    #[error("a push token has 1 to {} characters", PushToken::BYTES_MAX)]
    Length,
    /// A character that no provider uses.
    #[error("a push token has letters, digits and -_:.~%=+/ only")]
    Character,
}

impl PushToken {
    /// The longest token, in bytes. APNs has no fixed length (64 to 200 digits are seen), FCM gives about 160.
    pub const BYTES_MAX: usize = 1024;

    /// Takes a token.
    ///
    /// # Errors
    /// A token that is empty, too long, or has characters that would need escaping in a path or in JSON.
    pub fn new(token: impl Into<Box<str>>) -> Result<Self, PushTokenError> {
        let token = Zeroizing::new(token.into());
        if token.is_empty() || token.len() > Self::BYTES_MAX {
            return Err(PushTokenError::Length);
        }
        if !token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_:.~%=+/".contains(&b)) {
            return Err(PushTokenError::Character);
        }
        Ok(Self(token))
    }

    /// The token itself, for the request and for the encrypted column it is stored in.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PushToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushToken(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_bounded_and_need_no_escaping() {
        assert_eq!(PushToken::new(""), Err(PushTokenError::Length));
        assert_eq!(PushToken::new("a".repeat(1025)), Err(PushTokenError::Length));
        assert!(PushToken::new("a".repeat(1024)).is_ok());
        for bad in ["a b", "a\"b", "a\\b", "a\nb", "ä", "a?b", "a#b", "{}"] {
            assert_eq!(PushToken::new(bad), Err(PushTokenError::Character), "{bad:?}");
        }
        assert_eq!(PushToken::new("dQ:APA91b-_x").unwrap().expose(), "dQ:APA91b-_x");
    }

    #[test]
    fn debug_hides_the_token() {
        assert!(!format!("{:?}", PushToken::new("c0ffee").unwrap()).contains("c0ffee"));
    }
}
