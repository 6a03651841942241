//! How the programs of a drill speak: lines on standard output for the drill, logs on standard error.

use std::io::{Read as _, Write as _};

/// Says a line. It goes out as one write, so that a kill cannot leave half of it.
///
/// # Errors
/// Nobody listens.
pub fn say(line: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes())?;
    stdout.flush()
}

/// Ends the process when its standard input ends: a drill that died leaves nobody behind.
pub fn end_with_stdin() {
    std::thread::spawn(|| {
        let mut nothing = Vec::new();
        // An error ends it too.
        let _read = std::io::stdin().read_to_end(&mut nothing);
        std::process::exit(0);
    });
}

/// Warnings of the libraries go to standard error.
pub fn log_to_stderr() {
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::WARN);
    subscriber.with_writer(std::io::stderr).with_ansi(false).init();
}
