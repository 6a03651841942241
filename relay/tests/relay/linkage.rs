//! The relay's claim: nothing that it links takes a device's decryption key.

use std::process::Command;

#[test]
fn the_relay_links_no_crate_that_opens_or_seals_messages() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "-p",
            "sealpost-relay",
            "-e",
            "normal,build",
            "--prefix",
            "none",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let names: Vec<String> = String::from_utf8(tree.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect();
    assert!(names.iter().any(|name| name == "sealpost-wire"), "the tree is not the relay's");
    for name in &names {
        let opens = ["sealpost-open", "sealpost-seal", "sealpost-device", "sealpost-sender", "x-wing"];
        let is_foreign = opens.contains(&name.as_str())
            || ["hpke", "openmls", "ml-kem", "x25519"].iter().any(|start| name.starts_with(start));
        assert!(!is_foreign, "{name} is linked");
    }
}
