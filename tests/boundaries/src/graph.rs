//! The dependency graph, as `cargo metadata` gives it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// What the servers run on; other systems' own crates are left aside.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// A package of the graph.
#[derive(Clone, Debug, Deserialize)]
pub struct Package {
    /// Cargo's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, as an SPDX expression.
    pub license: Option<String>,
    /// Where it comes from; nothing for the workspace's own.
    pub source: Option<String>,
    /// What it asks for.
    pub dependencies: Vec<Declared>,
    /// Where its manifest is.
    pub manifest_path: String,
}

/// A dependency as a manifest declares it.
#[derive(Clone, Debug, Deserialize)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// `dev`, `build`, or nothing for a normal one.
    pub kind: Option<String>,
    /// Where it is in this workspace, if it is.
    pub path: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDependency>,
}

#[derive(Deserialize)]
struct NodeDependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// All packages, and who links whom.
#[derive(Clone, Debug)]
pub struct Graph {
    packages: BTreeMap<String, Package>,
    /// Normal and build dependencies.
    links: BTreeMap<String, Vec<String>>,
}

impl Graph {
    /// The graph of the workspace at `root`, by the lock file as it stands, for servers on Linux.
    pub fn of_workspace(root: &Path) -> Result<Self, String> {
        Self::from_json(&cargo(
            root,
            &["metadata", "--format-version", "1", "--locked", "--filter-platform", PLATFORM],
        )?)
    }

    /// The graph out of the JSON of `cargo metadata`.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let metadata: Metadata = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let links = metadata.resolve.nodes.into_iter().map(|node| {
            let linked = node.deps.into_iter().filter(|dependency| {
                dependency.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"))
            });
            (node.id, linked.map(|dependency| dependency.pkg).collect())
        });
        Ok(Self {
            links: links.collect(),
            packages: metadata.packages.into_iter().map(|package| (package.id.clone(), package)).collect(),
        })
    }

    /// Every package.
    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// The workspace's own packages.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages().filter(|package| package.source.is_none())
    }

    /// The names of all that `name` links, directly or not, in its normal and build dependencies.
    pub fn linked_by(&self, name: &str) -> Result<BTreeSet<&str>, String> {
        let start = self.members().find(|package| package.name == name);
        let start = start.ok_or_else(|| format!("there is no package {name}"))?;
        let mut seen = BTreeSet::from([start.id.as_str()]);
        let mut queue = VecDeque::from([start.id.as_str()]);
        while let Some(id) = queue.pop_front() {
            for next in self.links.get(id).into_iter().flatten() {
                if seen.insert(next) {
                    queue.push_back(next);
                }
            }
        }
        seen.remove(start.id.as_str());
        Ok(seen
            .into_iter()
            .filter_map(|id| self.packages.get(id))
            .map(|package| package.name.as_str())
            .collect())
    }

    /// Arrows between the workspace's packages that `allowed` does not have: `from -> to`. A package that `allowed` does
    /// not name may use none. Development dependencies are free.
    #[must_use]
    pub fn forbidden_arrows(&self, allowed: &BTreeMap<&str, &[&str]>) -> Vec<String> {
        let mut forbidden = Vec::new();
        for package in self.members() {
            let may_use = allowed.get(package.name.as_str()).copied().unwrap_or_default();
            for used in &package.dependencies {
                let counts = used.path.is_some() && used.kind.as_deref() != Some("dev");
                if counts && !may_use.contains(&used.name.as_str()) {
                    forbidden.push(format!("{} -> {}", package.name, used.name));
                }
            }
        }
        forbidden
    }

    /// Packages of the workspace that `name` depends on in any way, development included.
    #[must_use]
    pub fn members_used_by(&self, name: &str) -> Vec<&str> {
        let package = self.members().find(|package| package.name == name);
        let used = package.into_iter().flat_map(|package| &package.dependencies);
        used.filter(|used| used.path.is_some()).map(|used| used.name.as_str()).collect()
    }
}

/// The names of all packages that a build of the whole workspace compiles, tests left aside. `cargo metadata` also lists
/// what only a feature that is off would bring in.
pub fn compiled(root: &Path) -> Result<BTreeSet<String>, String> {
    let arguments = ["tree", "--workspace", "--edges", "normal,build", "--target", PLATFORM, "--locked"];
    let tree = cargo(root, &[&arguments[..], &["--prefix", "none", "--format", "{p}"]].concat())?;
    let lines = String::from_utf8_lossy(&tree).into_owned();
    Ok(lines.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn cargo(root: &Path, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output =
        Command::new(cargo).args(arguments).current_dir(root).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
