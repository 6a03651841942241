//! What an operator sees: probes, metrics, the configuration, the program itself.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use http::Method;
use sealpost_keyserver::config::Config;
use sealpost_wire::api::keyserver::TicketState;

use crate::client::{Call, Http};
use crate::world::{World, consent, consent_path, recipient};

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/keyserver.toml");

#[tokio::test]
async fn restarts_keep_everything() {
    let mut world = World::new().await;
    let recipient = recipient();
    let device = world.enrolled_device(recipient, 3).await;
    let waiting = world.pending_device().await;
    world.consent(recipient, true).await;
    world.put_status(world.tenant.status(1, world.now(), &[], &[])).await.expect::<serde_json::Value>(200);
    let before = world.look_up(recipient).await;
    world.restart().await;
    let after = world.look_up(recipient).await;
    assert_eq!((after.set, after.status), (before.set, before.status));
    assert_eq!(after.devices[0].signed, before.devices[0].signed);
    assert_ne!(after.devices[0].one_time, before.devices[0].one_time);
    assert_eq!(device.state(&world).await.prekeys[0].one_time, 1);
    let ticket = format!("/v1/tickets/{}", waiting.secret.ticket_id());
    let state: TicketState = world.get(&world.tenant.enroller, &ticket).await.expect(200);
    assert_eq!(state.enrolments.len(), 1);
    assert_eq!(world.admit(recipient, &waiting).await.status, 200);
}

#[tokio::test]
async fn acts_are_audited_densely_and_hold_ids_only() {
    let mut world = World::new().await;
    let recipient = recipient();
    let device = world.enrolled_device(recipient, 1).await;
    world.try_look_up(recipient, true).await.expect_problem("consent_missing");
    world.consent(recipient, true).await;
    world.look_up(recipient).await;
    world.try_look_up(crate::world::recipient(), true).await.expect_problem("not_found");
    world.stop().await;
    let rows = world.read_store().await.audit(&world.tenant.id);
    assert!(rows.iter().map(|(sequence, _)| *sequence).eq(1..=rows.len() as u64));
    let acts: Vec<_> =
        rows.iter().map(|(_, row)| format!("{:?} {} {}", row.act, row.who, row.outcome)).collect();
    let by_device = format!("device:{}", device.id);
    assert_eq!(
        acts,
        [
            "TokenIssued client:portal done".to_owned(),
            "TicketMade client:portal done".to_owned(),
            format!("TicketClaimed {by_device} done"),
            "DeviceSetPut client:portal done".to_owned(),
            format!("PrekeysPut {by_device} done"),
            "TokenIssued client:lab done".to_owned(),
            "LookedUp client:lab consent_missing".to_owned(),
            "ConsentPut client:portal done".to_owned(),
            "LookedUp client:lab done".to_owned(),
        ]
    );
    let set = &rows[3].1.objects;
    assert_eq!(
        (set["recipient"].as_str(), set["added"].as_str()),
        (recipient.to_string().as_str(), device.id.to_string().as_str())
    );
}

#[tokio::test]
async fn metrics_are_well_named_and_bounded() {
    let world = World::new().await;
    let count = async || {
        let answer = world.http.get("/metrics").await;
        assert_eq!(answer.status, 200);
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
        let text = String::from_utf8(answer.body).unwrap();
        (text.lines().filter(|line| !line.starts_with('#')).count(), text)
    };
    let traffic = async || {
        let recipient = recipient();
        world.enrolled_device(recipient, 1).await;
        world.try_look_up(recipient, true).await;
        world.put(&world.tenant.enroller, &consent_path(recipient, "lab"), &consent(true, world.now())).await;
        for path in [format!("/v1/{recipient}"), format!("/{recipient}?x={recipient}")] {
            world.http.get(&path).await.expect_problem("not_found");
        }
        let strange = Method::from_bytes(format!("M{recipient}").as_bytes()).unwrap();
        assert!(world.http.send(Call::new(strange, "/v1/status")).await.status.is_client_error());
    };
    traffic().await;
    count().await;
    let (before, _) = count().await;
    traffic().await;
    traffic().await;
    let (after, text) = count().await;
    assert_eq!(after, before, "new ids and paths make no new series");
    for name in [
        "sealpost_http_requests_total",
        "sealpost_keyserver_look_ups_total",
        "sealpost_keyserver_ticket_claims_total",
        "sealpost_store_commands_total",
        "sealpost_token_requests_total",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
    assert!(text.contains("sealpost_tenant_status_age_seconds{tenant=\"st-mary\"} -1"));
    assert!(text.contains("route=\"/v1/recipients/{recipient}/look-up\""));
    world
        .put_status(world.tenant.status(1, world.now().minus(5), &[], &[]))
        .await
        .expect::<serde_json::Value>(200);
    let (_, text) = count().await;
    assert!(text.contains("sealpost_tenant_status_age_seconds{tenant=\"st-mary\"} 5"));
}

#[tokio::test]
async fn draining_ends_waits_and_says_so() {
    let mut world = World::with("[http]\nannounce_seconds = 30\n").await;
    assert_eq!(world.http.get("/healthz").await.status, 200);
    assert_eq!(world.http.get("/readyz").await.status, 200);
    let secret = world.ticket().await;
    let path = format!("/v1/tickets/{}?wait=60", secret.ticket_id());
    let (state, ()) = tokio::join!(world.get(&world.tenant.enroller, &path), async {
        tokio::task::yield_now().await;
        world.shutdown().begin();
    });
    let state: TicketState = state.expect(200);
    assert!(state.enrolments.is_empty(), "the wait ended with nothing");
    assert_eq!(world.http.get("/readyz").await.status, 503);
    assert_eq!(world.http.get("/healthz").await.status, 200);
    world.shutdown().hurry();
    world.stop().await;
}

#[test]
fn the_sample_configuration_is_good_and_complete() {
    let config = Config::load(SAMPLE.as_ref()).unwrap();
    assert_eq!(config.tenants.len(), 1);
    let text = std::fs::read_to_string(SAMPLE).unwrap();
    let value: toml::Table = toml::from_str(&text).unwrap();
    let keys = |table: &str| value[table].as_table().unwrap().keys().cloned().collect::<Vec<_>>();
    // A key that is not in the sample is one that no operator finds; defaults are shown as they are.
    assert_eq!(
        keys("limits"),
        [
            "expiry_seconds",
            "key_packages_max",
            "one_time_prekeys_max",
            "remembered_key_packages_max",
            "remembered_prekeys_max",
            "ticket_kept_seconds"
        ]
    );
    assert_eq!(config.limits, sealpost_keyserver::config::Limits::default());
    assert_eq!(keys("http").len(), 14);
    assert_eq!(config.http, sealpost_service::server::HttpOptions::default());
    assert_eq!(keys("rates"), ["client", "device", "stranger", "tenant"]);
    assert_eq!(config.rates, sealpost_service::rates::RateOptions::default());
    assert_eq!(keys("key_package_rates"), ["caller", "recipient"]);
    assert_eq!(config.key_package_rates, sealpost_keyserver::config::KeyPackageRates::default());
    assert_eq!(keys("log"), ["format", "level"]);
}

#[test]
fn bad_configurations_are_refused() {
    let good = std::fs::read_to_string(SAMPLE).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keyserver.toml");
    let refused = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        std::fs::write(&file, good.replacen(from, to, 1)).unwrap();
        Config::load(&file).unwrap_err().to_string()
    };
    for (from, to, because) in [
        ("[limits]", "[limits]\nunknown = 1", "unknown field"),
        ("consent = \"opt-in\"", "consent = \"maybe\"", "unknown variant"),
        ("roots = [\"", "roots = [\"00", "64 hexadecimal digits"),
        ("id = \"st-mary\"", "id = \"St Mary\"", "a name has"),
        ("public_url = \"https://", "public_url = \"ftp://", "public_url"),
        ("request_seconds_max = 75", "request_seconds_max = 60", "request_seconds_max"),
        ("one_time_prekeys_max = 256", "one_time_prekeys_max = 1", "limits on prekeys"),
        ("\nkey_packages_max = 256", "\nkey_packages_max = 100", "limits on key packages"),
        ("recipient = { requests = 60,", "recipient = { requests = 0,", "nonzero"),
        ("connections_max = 4096", "connections_max = 0", "nobody"),
        ("expiry_seconds = 10", "expiry_seconds = 0", "expiry_seconds"),
    ] {
        let error = refused(from, to);
        assert!(error.contains(because), "{to}: {error}");
    }
}

/// The program, stopped when it is dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(config: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealpost-keyserver"));
    command.arg("--config").arg(config).stderr(Stdio::null());
    command
}

#[tokio::test]
async fn the_program_announces_itself_serves_and_ends_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("keyserver.toml");
    let root = sealpost_wire::key::SigningKey::from_seed(&[1; 32]).verifying_key();
    let root = data_encoding::HEXLOWER.encode(root.as_bytes());
    let text = format!(
        "listen = \"127.0.0.1:0\"\ndata = \"store\"\naccess_token_key_file = \"token.key\"\n\
         [[tenants]]\nid = \"st-mary\"\nroots = [\"{root}\"]\n[http]\nannounce_seconds = 0\n"
    );
    std::fs::write(&config, &text).unwrap();
    assert!(program(&config).arg("--check").status().unwrap().success());
    assert!(!folder.path().join("store").exists(), "a check touches nothing");

    for _ in 0..2 {
        let mut running = Program(program(&config).stdout(Stdio::piped()).spawn().unwrap());
        let mut stdout = BufReader::new(running.0.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let http = Http::new(&format!("http://{}", line["listening"].as_str().unwrap()));
        assert_eq!(http.get("/readyz").await.status, 200);
        let second = program(&config).output().unwrap();
        assert!(!second.status.success(), "the store is in use");
        let pid = rustix::process::Pid::from_child(&running.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(running.0.wait().unwrap().success());
        line_is_all(&mut stdout);
    }
    std::fs::write(&config, text.replace("data =", "date =")).unwrap();
    let refused = program(&config).arg("--check").stderr(Stdio::piped()).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8(refused.stderr).unwrap().contains("date"));
}

fn line_is_all(stdout: &mut impl std::io::Read) {
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
}
