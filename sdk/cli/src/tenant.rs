//! `sealpost tenant`.

use data_encoding::HEXLOWER;
use sealpost_sender::identity::{CertifiedKey, EnrollerIdentityFile, StorageKey};
use sealpost_wire::certificate::{Certificate, Purpose, Role};
use sealpost_wire::clock::{Clock as _, UnixTime};
use sealpost_wire::id::{CertificateId, SubjectId};
use sealpost_wire::key::{RequestKey, SigningKey};
use sealpost_wire::limits::CLOCK_SKEW_SECONDS_MAX;
use sealpost_wire::status::Revocation;
use serde_json::json;

use crate::arguments::TenantCommand;
use crate::edge::{self, SystemClock};
use crate::error::CliError;
use crate::home::{Home, Kind, Root};
use crate::output::Output;

/// The enroller that every tenant begins with.
const ENROLLER: &str = "enroller";

pub(crate) fn run(command: &TenantCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    match command {
        TenantCommand::Init { tenant, keyserver, relay, valid_days } => {
            let root = Root {
                tenant: tenant.clone(),
                key: SigningKey::generate(edge::rng().as_mut()),
                keyserver: server_url(keyserver)?,
                relay: server_url(relay)?,
            };
            init(&root, *valid_days, home, output)
        }
        TenantCommand::Show => show(home, output),
        TenantCommand::Revoke { devices, keys, compromised, enroller } => {
            if devices.is_empty() && keys.is_empty() {
                return Err(CliError::Usage("name what to revoke with --device or --key".to_owned()));
            }
            let reason = if *compromised { Revocation::Compromised } else { Revocation::Retired };
            let keys: Vec<_> = keys.iter().map(|key| (*key, reason)).collect();
            let status = home.enroller(enroller.as_deref())?.revoke(&keys, devices)?;
            output.say(format_args!(
                "Published status {}: {} keys and {} devices are revoked.",
                status.sequence,
                status.revoked_keys.len(),
                status.revoked_devices.len()
            ));
            output.result(&json!({
                "sequence": status.sequence,
                "revoked_keys": status.revoked_keys.iter().map(|(key, _)| key).collect::<Vec<_>>(),
                "revoked_devices": status.revoked_devices,
            }));
            Ok(())
        }
    }
}

fn init(root: &Root, valid_days: u32, home: &Home, output: &Output) -> Result<(), CliError> {
    if home.has_root() {
        let message = format!(
            "there is a tenant in {} already; name another folder with --home",
            home.folder().display()
        );
        return Err(CliError::state("tenant_exists", message));
    }
    let subject: SubjectId = ENROLLER.parse().map_err(|_| CliError::Usage("not a name".to_owned()))?;
    let enroller = EnrollerIdentityFile {
        tenant: root.tenant.clone(),
        root: root.key.verifying_key(),
        subject: subject.clone(),
        keyserver: root.keyserver.clone(),
        relay: root.relay.clone(),
        enrol: certify(root, &subject, Purpose::Enrol, &[], valid_days)?,
        request: certify(root, &subject, Purpose::Request, &[Role::Enroller, Role::Revoker], valid_days)?,
        revoke: certify(root, &subject, Purpose::Revoke, &[], valid_days)?,
        ticket_key: storage_key(),
    };
    enroller.write(&home.key_file(Kind::Enroller, ENROLLER)?)?;
    // Last: a home with a root is whole.
    home.write_root(root)?;
    let public = HEXLOWER.encode(root.key.verifying_key().as_bytes());
    output.say(format_args!("Made tenant {} in {}.", root.tenant, home.folder().display()));
    output.say("Add this to the configuration of the keyserver and of the relay:\n");
    output.say(format_args!("[[tenants]]\nid = \"{}\"\nroots = [\"{public}\"]\n", root.tenant));
    output.say("root.json signs everything this tenant trusts: keep it offline once your senders are made.");
    output.result(&json!({"tenant": root.tenant, "root": public, "home": home.folder()}));
    Ok(())
}

fn show(home: &Home, output: &Output) -> Result<(), CliError> {
    let root = home.root()?;
    let public = HEXLOWER.encode(root.key.verifying_key().as_bytes());
    output.say(format_args!("tenant     {}", root.tenant));
    output.say(format_args!("root       {public}"));
    output.say(format_args!("keyserver  {}", root.keyserver));
    output.say(format_args!("relay      {}", root.relay));
    let mut keys = Vec::new();
    for name in home.names(Kind::Enroller) {
        let file = EnrollerIdentityFile::read(&home.key_file(Kind::Enroller, &name)?)?;
        for (purpose, key) in [("enrol", &file.enrol), ("request", &file.request), ("revoke", &file.revoke)] {
            keys.push(json!({"name": name, "purpose": purpose, "key": key.key.verifying_key().key_id()}));
        }
    }
    for name in home.names(Kind::Sender) {
        let file = sealpost_sender::identity::SenderIdentityFile::read(&home.key_file(Kind::Sender, &name)?)?;
        for (purpose, key) in [("send", &file.send), ("request", &file.request)] {
            keys.push(json!({"name": name, "purpose": purpose, "key": key.key.verifying_key().key_id()}));
        }
    }
    for key in &keys {
        let text = |field: &str| key[field].as_str().unwrap_or_default().to_owned();
        output.say(format_args!("key        {}  {} {}", text("key"), text("name"), text("purpose")));
    }
    output.result(&json!({
        "tenant": root.tenant, "root": public, "keyserver": root.keyserver, "relay": root.relay, "keys": keys,
    }));
    Ok(())
}

/// A new key, certified by the root for one purpose.
pub(crate) fn certify(
    root: &Root,
    subject: &SubjectId,
    purpose: Purpose,
    roles: &[Role],
    valid_days: u32,
) -> Result<CertifiedKey, CliError> {
    let mut rng = edge::rng();
    let key = SigningKey::generate(rng.as_mut());
    let now: UnixTime = SystemClock.now();
    let certificate = Certificate {
        tenant: root.tenant.clone(),
        purpose,
        subject: subject.clone(),
        id: CertificateId::random(rng.as_mut()),
        key: RequestKey::Ed25519(key.verifying_key()),
        // Clocks that are a little behind take it too.
        not_before: now.minus(CLOCK_SKEW_SECONDS_MAX),
        not_after: now.plus(u64::from(valid_days) * 86_400),
        roles: roles.to_vec(),
    };
    Ok(CertifiedKey { certificate: certificate.sign(&root.key)?, key })
}

pub(crate) fn storage_key() -> StorageKey {
    let mut bytes = [0; 32];
    edge::rng().fill_bytes(&mut bytes);
    StorageKey::new(bytes)
}

fn server_url(text: &str) -> Result<String, CliError> {
    let url = text.trim_end_matches('/');
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['?', '#', ' ']) => Ok(url.to_owned()),
        _ => Err(CliError::Usage(format!("{text} is not the URL of a server: https://host[:port]"))),
    }
}
