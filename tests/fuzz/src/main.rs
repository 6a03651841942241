//! libFuzzer around one target, the one that `SEALPOST_FUZZ_TARGET` names. Arguments are libFuzzer's. It ends
//! when its standard input does: `cargo drill fuzz` holds the other end.
#![no_main]

use std::io::Read as _;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rustix::process::{Signal, getpid, kill_process};
use sealpost_fuzz::campaign::TARGET_VARIABLE;
use sealpost_fuzz::{TARGETS, Target};

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(init: start(), |bytes: &[u8]| {
    if let Some(target) = TARGET.get() {
        (target.check)(bytes);
    }
});

fn start() {
    let name = std::env::var(TARGET_VARIABLE).unwrap_or_default();
    let Some(target) = Target::named(&name) else {
        eprintln!("{TARGET_VARIABLE} names one of {:?}", TARGETS.map(|target| target.name));
        std::process::exit(2);
    };
    // Called once, before the first input.
    let _first = TARGET.set(target);
    std::thread::spawn(|| {
        let mut nothing = Vec::new();
        // An error ends it too.
        let _read = std::io::stdin().read_to_end(&mut nothing);
        // libFuzzer takes this signal as the wish to finish; an exit from here it would take for a finding.
        let _signalled = kill_process(getpid(), Signal::USR1);
    });
}
