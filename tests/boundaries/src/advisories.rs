//! Known faults of dependencies: the RustSec database, as a file that the project carries.

use std::collections::BTreeMap;

use semver::{Comparator, Op, Version, VersionReq};
use serde::Deserialize;

use crate::graph::Graph;

/// An entry of the database.
#[derive(Clone, Debug, Deserialize)]
pub struct Advisory {
    /// `RUSTSEC-…`.
    pub id: String,
    /// The crate.
    pub package: String,
    /// `vulnerability`, or what else it is (`unmaintained`, `unsound`, `notice`).
    pub kind: String,
    /// What it is about.
    pub title: String,
    /// Requirements that mended versions meet.
    pub patched: Vec<String>,
    /// Requirements that versions meet which never had it.
    pub unaffected: Vec<String>,
}

/// A package that has a known fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The advisory's id.
    pub id: String,
    /// Its kind.
    pub kind: String,
    /// Package, version and title, to be read by a person.
    pub what: String,
}

/// The database in `json`.
pub fn read(json: &[u8]) -> Result<Vec<Advisory>, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// The faults that packages of `graph` have.
pub fn hits(graph: &Graph, advisories: &[Advisory]) -> Result<Vec<Hit>, String> {
    let mut by_package: BTreeMap<&str, Vec<&Advisory>> = BTreeMap::new();
    for advisory in advisories {
        by_package.entry(&advisory.package).or_default().push(advisory);
    }
    let mut hits = Vec::new();
    for package in graph.packages().filter(|package| package.source.is_some()) {
        let version = Version::parse(&package.version).map_err(|error| error.to_string())?;
        for advisory in by_package.get(package.name.as_str()).into_iter().flatten() {
            if affects(advisory, &version)? {
                hits.push(Hit {
                    id: advisory.id.clone(),
                    kind: advisory.kind.clone(),
                    what: format!("{} {version}: {}", package.name, advisory.title),
                });
            }
        }
    }
    Ok(hits)
}

fn affects(advisory: &Advisory, version: &Version) -> Result<bool, String> {
    for requirement in advisory.patched.iter().chain(&advisory.unaffected) {
        let requirement =
            VersionReq::parse(requirement).map_err(|error| format!("{requirement}: {error}"))?;
        if requirement.comparators.iter().all(|comparator| meets(comparator, version)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Like Cargo's own rule, but with pre-releases in order: to Cargo `2.0.0-rc.1` does not meet `>=1.5`, here it does.
fn meets(comparator: &Comparator, version: &Version) -> bool {
    let bound = Version {
        major: comparator.major,
        minor: comparator.minor.unwrap_or(0),
        patch: comparator.patch.unwrap_or(0),
        pre: comparator.pre.clone(),
        build: semver::BuildMetadata::EMPTY,
    };
    match comparator.op {
        Op::Greater => *version > bound,
        Op::GreaterEq => *version >= bound,
        Op::Less => *version < bound,
        Op::LessEq => *version <= bound,
        _ => comparator.matches(version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_database_means_them() {
        let advisory = |patched: &[&str], unaffected: &[&str]| Advisory {
            id: "RUSTSEC-0000-0000".to_owned(),
            package: "example".to_owned(),
            kind: "vulnerability".to_owned(),
            title: "an example".to_owned(),
            patched: patched.iter().map(|text| (*text).to_owned()).collect(),
            unaffected: unaffected.iter().map(|text| (*text).to_owned()).collect(),
        };
        for (patched, unaffected, version, expected) in [
            (&[">= 1.2.3"][..], &[][..], "1.2.2", true),
            (&[">= 1.2.3"], &[], "1.2.3", false),
            (&["^1.1.9", ">= 2.0.1"], &[], "1.1.10", false),
            (&["^1.1.9", ">= 2.0.1"], &[], "2.0.0", true),
            (&[">= 2.0.0"], &["< 1.5.0"], "1.4.9", false),
            (&[">= 2.0.0"], &["< 1.5.0"], "1.5.0", true),
            (&[">= 1.5.0"], &[], "2.0.0-rc.1", false),
            (&[">= 2.0.0"], &[], "2.0.0-rc.1", true),
            (&[], &[], "9.9.9", true),
            (&[">=0.3.1, <0.4.0"], &[], "0.4.1", true),
        ] {
            let answer = affects(&advisory(patched, unaffected), &Version::parse(version).unwrap());
            assert_eq!(answer, Ok(expected), "{patched:?} {unaffected:?} {version}");
        }
    }
}
