//! Both servers with a hospital on them, for a tool that is not written in Rust: `sealpost-doors COMMAND…` runs
//! the command once for each server, with `{url}` and `{token}` in its arguments replaced by the server's address
//! and by an access token of every role, and fails when it fails. Without a command it prints addresses and tokens,
//! and serves until standard input ends.

use std::io;
use std::process::{Command, ExitCode};

use sealpost_doors::stage::{ROLES, Stage};
use serde_json::json;

#[tokio::main]
async fn main() -> ExitCode {
    let command: Vec<String> = std::env::args().skip(1).collect();
    let stages = [Stage::relay().await, Stage::keyserver().await];
    let mut tokens = Vec::new();
    for stage in &stages {
        let every_role = ROLES.map(|(role, _)| role);
        tokens.push(stage.mary.token(&stage.server.base, "tester", &every_role, stage.now()).await);
    }
    let mut has_passed = true;
    if command.is_empty() {
        for (stage, token) in stages.iter().zip(&tokens) {
            println!("{}", json!({ "url": stage.server.base, "token": token }));
        }
        // Whatever comes, and however it ends.
        let _ = tokio::task::spawn_blocking(|| io::read_to_string(io::stdin())).await;
    }
    for (stage, token) in stages.iter().zip(&tokens).filter(|_| !command.is_empty()) {
        has_passed &= run(&command, &stage.server.base, token).await;
    }
    for stage in stages {
        stage.server.end().await;
    }
    if has_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(command: &[String], url: &str, token: &str) -> bool {
    let words = command.iter().map(|word| word.replace("{url}", url).replace("{token}", token));
    let words: Vec<String> = words.collect();
    let ran = tokio::task::spawn_blocking(move || Command::new(&words[0]).args(&words[1..]).status()).await;
    match ran.expect("the command is waited for") {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("{}: {error}", command[0]);
            false
        }
    }
}
