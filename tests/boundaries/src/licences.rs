//! Licences of what is linked.

use spdx::{Expression, LicenseReq};

use crate::graph::Package;

/// Licences under which code may be linked: permissive ones, and the file-scoped MPL.
const ACCEPTED: [&str; 15] = [
    "0BSD",
    "Apache-2.0",
    "BSD-1-Clause",
    "BlueOak-1.0.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    // LLVM's old licence (MIT and 3-clause BSD in one), of libFuzzer.
    "NCSA",
    "Unicode-3.0",
    "Zlib",
];
const FILE_SCOPED: [&str; 1] = ["MPL-2.0"];

/// Why a package's licence is not accepted, if it is not.
#[must_use]
pub fn refusal(package: &Package) -> Option<String> {
    let Some(licence) = &package.license else { return Some(format!("{} names no licence", package.name)) };
    // An old way to write OR.
    let text = licence.replace('/', " OR ");
    let expression = match Expression::parse_mode(&text, spdx::ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("{}: {licence}: {}", package.name, error.reason)),
    };
    let accepted = expression.evaluate(|requirement: &LicenseReq| {
        let name = requirement.license.to_string();
        ACCEPTED.contains(&name.as_str()) || FILE_SCOPED.contains(&name.as_str())
    });
    (!accepted).then(|| format!("{}: {licence}", package.name))
}
