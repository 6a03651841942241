//! The one place where randomness comes from: ids and access tokens, which no test needs to foresee.

/// Random bytes.
///
/// # Errors
/// The system gave none.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    #[expect(clippy::disallowed_methods, reason = "this is the edge: nothing else here draws randomness")]
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
