//! Escape sequences (HL7 v2.9 section 2.7).

use std::borrow::Cow;

use super::{Charset, Separators, WriteError};

/// Lines or columns that one formatting command may skip.
const SKIP_MAX: usize = 16;

/// A text with its escape sequences replaced. What is no sequence of the standard stays as it is: a sender
/// that forgot to escape a backslash loses nothing.
pub(super) fn decode<'t>(raw: &'t str, separators: &Separators, charset: Charset) -> Cow<'t, str> {
    let Some(escape) = separators.escape().filter(|escape| raw.contains(*escape)) else {
        return Cow::Borrowed(raw);
    };
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once(escape) {
        text.push_str(before);
        let sequence = after.split_once(escape);
        match sequence.and_then(|(body, rest)| Some((meaning(body, separators, charset)?, rest))) {
            Some((meaning, behind)) => {
                text.push_str(&meaning);
                rest = behind;
            }
            None => {
                text.push(escape);
                rest = after;
            }
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// A text with everything escaped that would otherwise structure the message.
pub(super) fn encode(text: &str, separators: Separators) -> Result<String, WriteError> {
    let mut raw = String::with_capacity(text.len());
    for c in text.chars() {
        let code = match c {
            _ if c == separators.field() => "F",
            _ if Some(c) == separators.component() => "S",
            _ if Some(c) == separators.subcomponent() => "T",
            _ if Some(c) == separators.repetition() => "R",
            _ if Some(c) == separators.escape() => "E",
            _ if Some(c) == separators.truncation() => "P",
            '\r' => "X0D",
            '\n' => ".br",
            _ => {
                raw.push(c);
                continue;
            }
        };
        let escape = separators.escape().ok_or(WriteError::NoEscape)?;
        raw.push(escape);
        raw.push_str(code);
        raw.push(escape);
    }
    Ok(raw)
}

/// What the sequence between two escape characters stands for; `None` if it is not one of the standard's.
fn meaning(body: &str, separators: &Separators, charset: Charset) -> Option<Cow<'static, str>> {
    let one = |c: Option<char>| c.map(|c| Cow::Owned(c.to_string()));
    match body {
        "F" => one(Some(separators.field())),
        "S" => one(separators.component()),
        "T" => one(separators.subcomponent()),
        "R" => one(separators.repetition()),
        "E" => one(separators.escape()),
        "P" => one(separators.truncation()),
        // Highlighting has no meaning in plain text.
        "H" | "N" => Some(Cow::Borrowed("")),
        _ => {
            if let Some(command) = body.strip_prefix('.') {
                formatting(command)
            } else {
                hexadecimal(body.strip_prefix('X')?, charset).map(Cow::Owned)
            }
        }
    }
}

/// Formatting commands of FT (section 2.7.6), as plain text.
fn formatting(command: &str) -> Option<Cow<'static, str>> {
    let (name, count) = command.split_at_checked(2)?;
    let count = if count.is_empty() { 1 } else { count.strip_prefix('+').unwrap_or(count).parse().ok()? };
    let skip = |text: &str| Cow::Owned(text.repeat(SKIP_MAX.min(count)));
    match name {
        "br" | "ce" => Some(Cow::Borrowed("\n")),
        "sp" => Some(skip("\n")),
        "sk" => Some(skip(" ")),
        "fi" | "nf" | "in" | "ti" => Some(Cow::Borrowed("")),
        _ => None,
    }
}

/// Bytes in the message's character set.
fn hexadecimal(digits: &str, charset: Charset) -> Option<String> {
    if digits.is_empty() {
        return None;
    }
    let bytes = data_encoding::HEXUPPER_PERMISSIVE.decode(digits.as_bytes()).ok()?;
    charset.decode_part(&bytes)
}
