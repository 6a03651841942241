//! Writes the seeds of every target into the corpus, beside what is there: after a format has changed.
//! `cargo run -p sealpost-fuzz --example seeds`

use std::error::Error;
use std::fs;

use sealpost_fuzz::{Target, seeds};
use sealpost_wire::id::Digest;

fn main() -> Result<(), Box<dyn Error>> {
    for (name, bytes) in seeds::all() {
        let target = Target::named(name).ok_or("a seed of no target")?;
        fs::create_dir_all(target.corpus())?;
        // The name that says its content, as libFuzzer's do.
        let name = Digest::of(&bytes).to_string();
        fs::write(target.corpus().join(&name[..40]), bytes)?;
    }
    Ok(())
}
