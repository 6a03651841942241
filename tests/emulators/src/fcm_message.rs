//! The message of `messages:send`: which fields there are and what they may hold.
//!
//! Follows the REST reference of `projects.messages`. JSON names come in both spellings that Google's JSON
//! mapping takes (`collapse_key`, `collapseKey`). Blocks for other platforms (`apns`, `webpush`) are taken as
//! they are.

use serde_json::{Map, Value};

/// What is wrong with a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Path of the field, such as `message.android.ttl`.
    pub(crate) field: String,
    pub(crate) description: String,
    /// Refused by FCM itself, not already when the JSON was read.
    pub(crate) by_fcm: bool,
}

/// Checks a body; returns the device token it is for.
pub(crate) fn check(body: &[u8]) -> Result<String, Violation> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| syntax("", format!("Invalid JSON payload received. {error}")))?;
    let body = object(&body, "")?;
    known_fields(body, "", &["message", "validate_only", "validateOnly"])?;
    for name in ["validate_only", "validateOnly"] {
        boolean(body, "", name)?;
    }
    let message = body.get("message").ok_or_else(|| by_fcm("message", "Message is missing."))?;
    let message = object(message, "message")?;
    known_fields(message, "message", &MESSAGE_FIELDS)?;
    let token = check_target(message)?;
    let mut data_size = check_data(message, "message")?;
    if let Some(android) = message.get("android") {
        let android = object(android, "message.android")?;
        check_android(android)?;
        // Data of the platform goes before data of the message.
        data_size = data_size.max(check_data(android, "message.android")?);
    }
    if data_size + check_notification(message)? > MAX_PAYLOAD {
        return Err(by_fcm("message.data", "Android message is too big"));
    }
    Ok(token)
}

/// Exactly one of `token`, `topic` and `condition`; here it must be a token.
fn check_target(message: &Map<String, Value>) -> Result<String, Violation> {
    let targets = ["token", "topic", "condition"].iter().filter(|name| message.contains_key(**name)).count();
    if targets > 1 {
        return Err(syntax("message", "oneof field 'target' is already set.".to_owned()));
    }
    match string(message, "message", "token")? {
        None if targets == 0 => Err(by_fcm(
            "message",
            "Recipient of the message is not set. Exactly one of token, topic or condition",
        )),
        None => Err(by_fcm("message", "This emulator sends to device tokens only.")),
        Some(token) if token.is_empty() || token.len() > MAX_TOKEN || token.contains(char::is_whitespace) => {
            Err(by_fcm("message.token", "The registration token is not a valid FCM registration token"))
        }
        Some(token) => Ok(token.to_owned()),
    }
}

/// Strings under names that are not reserved; returns the size of keys and values.
fn check_data(parent: &Map<String, Value>, parent_field: &str) -> Result<usize, Violation> {
    let Some(data) = parent.get("data") else { return Ok(0) };
    let field = format!("{parent_field}.data");
    let mut size = 0;
    for (key, value) in object(data, &field)? {
        let Some(value) = value.as_str() else {
            let description = format!("Invalid value at '{field}[..].value' (TYPE_STRING), key {key:?}");
            return Err(syntax(&field, description));
        };
        let reserved = matches!(key.as_str(), "from" | "message_type")
            || ["google", "gcm"].iter().any(|prefix| key.starts_with(prefix));
        if reserved || key.is_empty() {
            return Err(by_fcm(&field, &format!("Invalid data payload key: {key}")));
        }
        size += key.len() + value.len();
    }
    Ok(size)
}

/// The size of what is shown.
fn check_notification(message: &Map<String, Value>) -> Result<usize, Violation> {
    let Some(notification) = message.get("notification") else { return Ok(0) };
    let notification = object(notification, "message.notification")?;
    known_fields(notification, "message.notification", &["title", "body", "image"])?;
    let mut size = 0;
    for name in ["title", "body", "image"] {
        size += string(notification, "message.notification", name)?.map_or(0, str::len);
    }
    Ok(size)
}

fn check_android(android: &Map<String, Value>) -> Result<(), Violation> {
    const FIELD: &str = "message.android";
    known_fields(android, FIELD, &ANDROID_FIELDS)?;
    for name in ["collapse_key", "collapseKey", "restricted_package_name", "restrictedPackageName"] {
        string(android, FIELD, name)?;
    }
    for name in ["direct_boot_ok", "directBootOk", "bandwidth_constrained_ok", "restricted_satellite_ok"] {
        boolean(android, FIELD, name)?;
    }
    if let Some(priority) = android.get("priority")
        && !priority.as_str().is_some_and(|name| PRIORITIES.contains(&name))
    {
        let description =
            format!("Invalid value at 'message.android.priority' (AndroidMessagePriority), {priority}");
        return Err(syntax("message.android.priority", description));
    }
    if let Some(ttl) = string(android, FIELD, "ttl")? {
        let seconds = duration_seconds(ttl).ok_or_else(|| {
            let description = format!("Invalid value at 'message.android.ttl' (Duration), {ttl:?}");
            syntax("message.android.ttl", description)
        })?;
        if seconds > MAX_TTL_S {
            return Err(by_fcm(
                "message.android.ttl",
                "Invalid TTL: it must be between 0 and 2419200 seconds",
            ));
        }
    }
    Ok(())
}

/// `google.protobuf.Duration` in JSON: seconds with up to nine decimal places and an `s`; rounded up.
fn duration_seconds(text: &str) -> Option<u64> {
    let number = text.strip_suffix('s')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let rounded_up = u64::from(fraction.bytes().any(|byte| byte != b'0'));
    whole.parse::<u64>().ok()?.checked_add(rounded_up)
}

fn object<'a>(value: &'a Value, field: &str) -> Result<&'a Map<String, Value>, Violation> {
    value
        .as_object()
        .ok_or_else(|| syntax(field, format!("Invalid value at '{field}': an object is expected")))
}

fn known_fields(object: &Map<String, Value>, field: &str, known: &[&str]) -> Result<(), Violation> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(syntax(
            field,
            format!(
                "Invalid JSON payload received. Unknown name \"{name}\" at '{field}': Cannot find field."
            ),
        )),
    }
}

fn string<'a>(object: &'a Map<String, Value>, field: &str, name: &str) -> Result<Option<&'a str>, Violation> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => {
            let field = format!("{field}.{name}");
            let description = format!("Invalid value at '{field}' (TYPE_STRING), {other}");
            Err(syntax(&field, description))
        }
    }
}

fn boolean(object: &Map<String, Value>, field: &str, name: &str) -> Result<(), Violation> {
    match object.get(name) {
        None | Some(Value::Null | Value::Bool(_)) => Ok(()),
        Some(other) => {
            let field = format!("{field}.{name}");
            let description = format!("Invalid value at '{field}' (TYPE_BOOL), {other}");
            Err(syntax(&field, description))
        }
    }
}

fn syntax(field: &str, description: String) -> Violation {
    Violation { field: field.to_owned(), description, by_fcm: false }
}

fn by_fcm(field: &str, description: &str) -> Violation {
    Violation { field: field.to_owned(), description: description.to_owned(), by_fcm: true }
}

const MESSAGE_FIELDS: [&str; 11] = [
    "name",
    "data",
    "notification",
    "android",
    "webpush",
    "apns",
    "fcm_options",
    "fcmOptions",
    "token",
    "topic",
    "condition",
];
const ANDROID_FIELDS: [&str; 15] = [
    "collapse_key",
    "collapseKey",
    "priority",
    "ttl",
    "restricted_package_name",
    "restrictedPackageName",
    "data",
    "notification",
    "fcm_options",
    "fcmOptions",
    "direct_boot_ok",
    "directBootOk",
    "bandwidth_constrained_ok",
    "restricted_satellite_ok",
    "remote_notification",
];
/// The reference writes capitals, its examples small letters; both are accepted.
const PRIORITIES: [&str; 4] = ["HIGH", "NORMAL", "high", "normal"];
const MAX_PAYLOAD: usize = 4096;
const MAX_TTL_S: u64 = 2_419_200;
const MAX_TOKEN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("0s", Some(0)),
            ("123s", Some(123)),
            ("2419200s", Some(2_419_200)),
            ("2419200.1s", Some(2_419_201)),
            ("3.000000000s", Some(3)),
            ("123", None),
            ("s", None),
            ("-1s", None),
            ("1.s", None),
            ("1m", None),
            ("1.0000000001s", None),
            ("99999999999999999999s", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(duration_seconds(text), seconds, "{text}");
        }
    }
}
