//! Keys and values of rows: every key starts with its tenant, every value with a version byte.

use sealpost_wire::id::TenantId;

/// Follows the tenant in a key. No tenant's name contains it, so no key of one begins like a key of another.
const SEPARATOR: u8 = 0;

/// The key `tenant | 0 | parts…`.
#[must_use]
pub fn tenant_key(tenant: &TenantId, parts: &[&[u8]]) -> Vec<u8> {
    let length = tenant.as_str().len() + 1 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut key = Vec::with_capacity(length);
    key.extend_from_slice(tenant.as_str().as_bytes());
    key.push(SEPARATOR);
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

/// What follows the tenant in a key, or nothing when the key is not the tenant's.
#[must_use]
pub fn after_tenant<'k>(key: &'k [u8], tenant: &TenantId) -> Option<&'k [u8]> {
    key.strip_prefix(tenant.as_str().as_bytes())?.strip_prefix(&[SEPARATOR])
}

/// The value `version | content`.
#[must_use]
pub fn versioned(version: u8, content: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + content.len());
    value.push(version);
    value.extend_from_slice(content);
    value
}

/// The content of a value of this version; nothing for another one, which an unnoticed change of format would
/// make.
#[must_use]
pub fn content(value: &[u8], version: u8) -> Option<&[u8]> {
    value.strip_prefix(&[version])
}
