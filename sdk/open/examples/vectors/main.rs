//! Writes the test vectors of `tests/vectors`: `cargo run -p sealpost-open --example vectors`.
//!
//! Everything in them follows from fixed seeds, so that the files are the same each time; a test compares
//! them.

mod chains;
mod device_sets;
mod device_structures;
mod exchanges;
mod forge;
mod look_ups;
mod members;
mod mls_frames;
mod negative;
mod outer_forms;
mod payloads;
mod positive;
mod sealed;
mod structures;
mod tenant_structures;
mod world;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors");
    for (file, vectors) in [("sealed.json", sealed::vectors()), ("structures.json", structures::vectors())] {
        let mut text = serde_json::to_string_pretty(&vectors)?;
        text.push('\n');
        std::fs::write(folder.join(file), text)?;
    }
    Ok(())
}
