//! The arrows of the design, what may be linked, and the shape of the repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use sealpost_boundaries::graph::{self, Graph};
use sealpost_boundaries::{advisories, licences};
use serde_json::{Value, json};

/// Who may use whom, development dependencies left aside. What is not here is forbidden.
fn arrows() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("sealpost-wire", &[][..]),
        ("sealpost-seal", &["sealpost-wire"]),
        ("sealpost-open", &["sealpost-wire"]),
        ("sealpost-group", &["sealpost-wire"]),
        ("sealpost-sender", &["sealpost-seal", "sealpost-wire"]),
        // A member of a group is a device, and what it writes is sealed to the others.
        ("sealpost-device", &["sealpost-group", "sealpost-open", "sealpost-seal", "sealpost-wire"]),
        ("sealpost-connector", &["sealpost-sender", "sealpost-wire"]),
        ("sealpost-cli", &["sealpost-sender", "sealpost-device", "sealpost-connector", "sealpost-wire"]),
        ("sealpost-service", &["sealpost-wire"]),
        ("sealpost-relay", &["sealpost-service", "sealpost-wire"]),
        ("sealpost-keyserver", &["sealpost-service", "sealpost-wire"]),
        ("sealpost-emulators", &[]),
        ("sealpost-boundaries", &[]),
        ("sealpost-power", &[]),
        ("sealpost-power-shim", &["sealpost-power"]),
    ])
}

/// Tests, benches and the demo may use everything.
const FREE: [&str; 6] = [
    "sealpost-benches",
    "sealpost-demo",
    "sealpost-doors",
    "sealpost-fuzz",
    "sealpost-simulation",
    "sealpost-tests",
];

/// What opens or seals messages: none of it may be in a server.
const DECRYPTION: [&str; 10] = [
    "sealpost-open",
    "sealpost-seal",
    "sealpost-group",
    "hpke",
    "hpke-rs",
    "hpke-ng",
    "openmls",
    "x-wing",
    "ml-kem",
    "x25519-dalek",
];

/// What nothing may link: TLS and cryptography of a second kind, provider clients that do not serve.
const BANNED: [&str; 7] = ["openssl", "openssl-sys", "native-tls", "ring", "a2", "fcm", "reqwest"];

/// Known faults that are accepted, with the reason.
const ACCEPTED_ADVISORIES: [(&str, &str); 0] = [];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

fn workspace() -> Graph {
    Graph::of_workspace(&root()).expect("cargo metadata answers")
}

#[test]
fn arrows_point_as_the_design_says() {
    let graph = workspace();
    let mut allowed = arrows();
    let members: Vec<String> = graph.members().map(|package| package.name.clone()).collect();
    let all: Vec<&str> = members.iter().map(String::as_str).collect();
    for name in FREE {
        allowed.insert(name, &all);
    }
    for name in &all {
        assert!(allowed.contains_key(name), "{name} has no place in the design's arrows");
    }
    assert_eq!(graph.forbidden_arrows(&allowed), Vec::<String>::new());
    // Independent of product code in every way: they must be able to disagree with it.
    assert_eq!(graph.members_used_by("sealpost-emulators"), Vec::<&str>::new());
}

#[test]
fn the_servers_link_nothing_that_can_open_a_message() {
    let graph = workspace();
    for server in ["sealpost-relay", "sealpost-keyserver", "sealpost-service"] {
        let linked = graph.linked_by(server).expect("the server is a member");
        let found: Vec<_> = DECRYPTION.iter().filter(|name| linked.contains(**name)).collect();
        assert!(found.is_empty(), "{server} links {found:?}");
        assert!(linked.contains("sealpost-wire"), "the search looks at the wrong package");
    }
    let device = graph.linked_by("sealpost-device").expect("the device is a member");
    assert!(device.contains("hpke"), "the search would not find a decryption crate");
}

/// The checks above, on a graph in which someone has added what must not be added.
#[test]
fn an_arrow_against_the_design_is_found() {
    let package = |name: &str, uses: &[(&str, Option<&str>)]| {
        let dependencies: Vec<Value> = uses
            .iter()
            .map(|(used, kind)| json!({"name": used, "kind": kind, "path": format!("/{used}")}))
            .collect();
        json!({"id": name, "name": name, "version": "0.1.0", "license": "MIT", "source": null,
               "dependencies": dependencies, "manifest_path": ""})
    };
    let node = |name: &str, uses: &[(&str, Option<&str>)]| {
        let deps: Vec<Value> =
            uses.iter().map(|(used, kind)| json!({"pkg": used, "dep_kinds": [{"kind": kind}]})).collect();
        json!({"id": name, "deps": deps})
    };
    let relay = [("sealpost-service", None), ("sealpost-open", Some("dev"))];
    let service = [("sealpost-wire", None), ("middle", Some("build"))];
    let middle = [("sealpost-open", None)];
    let metadata = json!({
        "packages": [package("sealpost-relay", &relay), package("sealpost-service", &service),
                     package("middle", &middle), package("sealpost-open", &[]), package("sealpost-wire", &[])],
        "resolve": {"nodes": [node("sealpost-relay", &relay), node("sealpost-service", &service),
                              node("middle", &middle), node("sealpost-open", &[]), node("sealpost-wire", &[])]},
    });
    let graph = Graph::from_json(metadata.to_string().as_bytes()).expect("it is a graph");
    assert_eq!(graph.forbidden_arrows(&arrows()), ["middle -> sealpost-open", "sealpost-service -> middle"]);
    let linked = graph.linked_by("sealpost-relay").expect("it is there");
    assert_eq!(linked, BTreeSet::from(["middle", "sealpost-open", "sealpost-service", "sealpost-wire"]));
}

#[test]
fn nothing_banned_is_linked() {
    let compiled = graph::compiled(&root()).expect("cargo tree answers");
    assert!(compiled.contains("aws-lc-rs"), "the search looks at the wrong tree");
    let found: Vec<_> = BANNED.iter().filter(|name| compiled.contains(**name)).collect();
    assert!(found.is_empty(), "{found:?}");
    // It needs a C++ compiler and its tool only: a feature brings it in, on demand.
    assert!(!compiled.contains("libfuzzer-sys"), "an ordinary build compiles libFuzzer");
}

#[test]
fn every_licence_is_accepted() {
    let refused: Vec<_> = workspace().packages().filter_map(licences::refusal).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn no_dependency_has_a_known_vulnerability() {
    let database = fs::read(root().join("tests/data/advisories.json")).expect("the database is carried");
    let database = advisories::read(&database).expect("the database is readable");
    assert!(database.len() > 1000, "the database is not all there");
    let hits = advisories::hits(&workspace(), &database).expect("versions are readable");
    for hit in &hits {
        println!("{} {} {}", hit.kind, hit.id, hit.what);
    }
    let accepted = |id: &str| ACCEPTED_ADVISORIES.iter().any(|(known, _)| *known == id);
    let bad: Vec<_> = hits.iter().filter(|hit| hit.kind == "vulnerability" && !accepted(&hit.id)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// The top of the repository, as the design lays it out; tool configuration is in dot files.
#[test]
fn the_top_of_the_repository_is_laid_out_as_designed() {
    let designed = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "benches",
        "deploy",
        "keyserver",
        "relay",
        "sdk",
        "target",
        "tests",
    ];
    for entry in fs::read_dir(root()).expect("the root is readable") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || designed.contains(&name.as_str()), "{name} has no place at the top");
    }
}

#[test]
fn no_file_names_a_machine_or_a_registry() {
    // Put together here, so that this file does not hold them itself.
    let forbidden: Vec<String> =
        [["/wo", "rk/"], ["/ro", "ot/"], ["crates.", "io/api"], ["pypi.", "org"], ["npmjs.", "org"]]
            .iter()
            .chain(&[["index.crates.", "io"], ["deb.debian.", "org"], ["static.crates.", "io"]])
            .map(|parts| parts.concat())
            .collect();
    let mut searched = 0;
    let mut found = Vec::new();
    search(&root(), &mut |path, bytes| {
        searched += 1;
        let text = String::from_utf8_lossy(bytes);
        for word in &forbidden {
            if text.contains(word.as_str()) {
                found.push(format!("{}: {word}", path.display()));
            }
        }
    });
    assert!(searched > 50, "only {searched} files were searched");
    assert!(found.is_empty(), "{found:#?}");
}

/// Calls `look` with every file of the repository that is not made by a build.
fn search(folder: &Path, look: &mut impl FnMut(&Path, &[u8])) {
    let made = ["target", ".git", ".venv", "node_modules", "__pycache__"];
    for entry in fs::read_dir(folder).expect("a folder of the repository is readable").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if made.iter().any(|made| name == *made) {
            continue;
        }
        if path.is_dir() {
            search(&path, look);
        } else if let Ok(bytes) = fs::read(&path) {
            look(&path, &bytes);
        }
    }
}
