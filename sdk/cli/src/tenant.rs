//! `sealpost tenant`.

use data_encoding::HEXLOWER;
use sealpost_sender::identity::{CertifiedKey, EnrollerIdentityFile, StorageKey};
use sealpost_wire::certificate::{Certificate, Purpose, Role, SignedCertificate};
use sealpost_wire::clock::{Clock as _, UnixTime};
use sealpost_wire::id::{CertificateId, DeviceId, KeyId, SubjectId};
use sealpost_wire::key::{RequestKey, SigningKey, VerifyingKey};
use sealpost_wire::limits::{CLOCK_SKEW_SECONDS_MAX, URL_BYTES_MAX};
use sealpost_wire::status::{Revocation, TenantStatus};
use serde_json::{Value, json};

use crate::arguments::TenantCommand;
use crate::edge::{self, SystemClock};
use crate::error::CliError;
use crate::home::{Home, Kind, Root};
use crate::output::{Output, utc};

/// The enroller that every tenant begins with.
const ENROLLER: &str = "enroller";

pub(crate) fn run(command: &TenantCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    match command {
        TenantCommand::Init { tenant, keyserver, relay, valid_days } => {
            let root = Root {
                tenant: tenant.clone(),
                key: new_key(),
                keyserver: server_url(keyserver)?,
                relay: server_url(relay)?,
            };
            init(&root, *valid_days, home, output)
        }
        TenantCommand::Show => show(home, output),
        TenantCommand::Renew { valid_days, enroller } => {
            renew(*valid_days, enroller.as_deref(), home, output)
        }
        TenantCommand::Publish { enroller } => {
            match home.enroller(enroller.as_deref())?.publish_status()? {
                Some(status) => say_status(&status, output),
                None => {
                    output.say("Nothing was ever revoked: there is nothing to publish.");
                    output.result(&json!({"sequence": null}));
                }
            }
            Ok(())
        }
        TenantCommand::Revoke { devices, keys, senders, compromised, enroller } => {
            let keys = revoked_keys(keys, senders, *compromised, home)?;
            revoke(&keys, devices, enroller.as_deref(), home, output)
        }
    }
}

fn init(root: &Root, valid_days: u32, home: &Home, output: &Output) -> Result<(), CliError> {
    if home.has_root() || !home.names(Kind::Enroller).is_empty() {
        let message = format!(
            "there is a tenant in {} already; name another folder with --home",
            home.folder().display()
        );
        return Err(CliError::state("tenant_exists", message));
    }
    let subject: SubjectId = ENROLLER.parse().map_err(|_| CliError::Usage("not a name".to_owned()))?;
    let issuer = Issuer::new(root, &subject, valid_days);
    let enroller = EnrollerIdentityFile {
        tenant: root.tenant.clone(),
        root: root.key.verifying_key(),
        subject: subject.clone(),
        keyserver: root.keyserver.clone(),
        relay: root.relay.clone(),
        enrol: issuer.certify(new_key(), Purpose::Enrol, &[])?,
        request: issuer.certify(new_key(), Purpose::Request, ENROLLER_ROLES)?,
        revoke: issuer.certify(new_key(), Purpose::Revoke, &[])?,
        ticket_key: storage_key(),
    };
    // The root first: without it, what it certified would be all there is of the tenant.
    home.write_root(root)?;
    enroller.write(&home.key_file(Kind::Enroller, ENROLLER)?)?;
    let public = HEXLOWER.encode(root.key.verifying_key().as_bytes());
    output.say(format_args!("Made tenant {} in {}.", root.tenant, home.folder().display()));
    output.say("Add this to the configuration of the keyserver and of the relay:\n");
    output.say(format_args!("[[tenants]]\nid = \"{}\"\nroots = [\"{public}\"]\n", root.tenant));
    output.say("root.json signs everything this tenant trusts: keep it offline once your senders are made.");
    for url in [&root.keyserver, &root.relay] {
        if !is_protected(url) {
            output.say(format_args!(
                "{url} has no TLS: whoever is on the way can take access tokens and see who asks for whom."
            ));
        }
    }
    output.result(&json!({
        "tenant": root.tenant, "root": public, "home": home.folder(), "valid_until": issuer.until(),
    }));
    Ok(())
}

fn renew(valid_days: u32, name: Option<&str>, home: &Home, output: &Output) -> Result<(), CliError> {
    let root = home.root()?;
    let name = home.only(Kind::Enroller, name)?;
    let path = home.key_file(Kind::Enroller, &name)?;
    let mut file = EnrollerIdentityFile::read(&path)?;
    let subject = file.subject.clone();
    let issuer = Issuer::new(&root, &subject, valid_days);
    file.enrol = issuer.certify(file.enrol.key, Purpose::Enrol, &[])?;
    file.request = issuer.certify(file.request.key, Purpose::Request, ENROLLER_ROLES)?;
    file.revoke = issuer.certify(file.revoke.key, Purpose::Revoke, &[])?;
    file.write(&path)?;
    output.say(format_args!("The certificates of {name} are valid until {}.", utc(issuer.until())));
    output.result(&json!({"enroller": name, "keys": path, "valid_until": issuer.until()}));
    Ok(())
}

/// Works without the root, which should be elsewhere.
fn show(home: &Home, output: &Output) -> Result<(), CliError> {
    let enrollers = home.enroller_files()?;
    let (tenant, root_key, keyserver, relay) = match enrollers.first() {
        Some((_, file)) => (file.tenant.clone(), file.root, file.keyserver.clone(), file.relay.clone()),
        None => {
            let root = home.root()?;
            (root.tenant, root.key.verifying_key(), root.keyserver, root.relay)
        }
    };
    let mut keys = Vec::new();
    for (name, file) in &enrollers {
        let own = [("enrol", &file.enrol), ("request", &file.request), ("revoke", &file.revoke)];
        keys.extend(own.map(|(purpose, key)| (name.clone(), purpose, key.clone())));
    }
    for (name, file) in &home.sender_files()? {
        keys.extend(
            [("send", &file.send), ("request", &file.request)]
                .map(|(purpose, key)| (name.clone(), purpose, key.clone())),
        );
    }
    let public = HEXLOWER.encode(root_key.as_bytes());
    output.say(format_args!("tenant     {tenant}"));
    output.say(format_args!("root       {public}"));
    output.say(format_args!("keyserver  {keyserver}"));
    output.say(format_args!("relay      {relay}\n"));
    let mut rows = vec![["KEY", "OF", "FOR", "CERTIFIED UNTIL"].map(str::to_owned)];
    let mut listed: Vec<Value> = Vec::new();
    for (name, purpose, key) in keys {
        let (id, until) = (key.key.verifying_key().key_id(), certified_until(&key, root_key)?);
        rows.push([id.to_string(), name.clone(), purpose.to_owned(), utc(until)]);
        listed.push(json!({"name": name, "purpose": purpose, "key": id, "valid_until": until}));
    }
    output.table(&rows);
    let status = match enrollers.first() {
        Some((name, _)) => home.enroller(Some(name))?.status()?,
        None => None,
    };
    if let Some(status) = &status {
        output.say(format_args!("\nrevoked, as of {} (status {}):", utc(status.issued), status.sequence));
        status
            .revoked_keys
            .iter()
            .for_each(|(key, reason)| output.say(format_args!("key     {key}  {reason:?}")));
        status.revoked_devices.iter().for_each(|device| output.say(format_args!("device  {device}")));
    }
    output.result(&json!({
        "tenant": tenant, "root": public, "keyserver": keyserver, "relay": relay, "keys": listed,
        "status": status.as_ref().map(status_json),
    }));
    Ok(())
}

fn revoked_keys(
    keys: &[KeyId],
    senders: &[String],
    compromised: bool,
    home: &Home,
) -> Result<Vec<(KeyId, Revocation)>, CliError> {
    let mut all = keys.to_vec();
    let known = home.sender_files()?;
    for name in senders {
        let name = home.only(Kind::Sender, Some(name))?;
        let (_, file) = known
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| CliError::state("unknown_name", format!("there is no sender {name}")))?;
        all.extend([&file.send, &file.request].map(|key| key.key.verifying_key().key_id()));
    }
    let reason = if compromised { Revocation::Compromised } else { Revocation::Retired };
    Ok(all.into_iter().map(|key| (key, reason)).collect())
}

fn revoke(
    keys: &[(KeyId, Revocation)],
    devices: &[DeviceId],
    enroller: Option<&str>,
    home: &Home,
    output: &Output,
) -> Result<(), CliError> {
    if devices.is_empty() && keys.is_empty() {
        let message = "name what to revoke with --device, --key or --sender";
        return Err(CliError::Usage(message.to_owned()));
    }
    let status = home.enroller(enroller)?.revoke(keys, devices)?;
    say_status(&status, output);
    Ok(())
}

fn say_status(status: &TenantStatus, output: &Output) {
    let (keys, devices) = (status.revoked_keys.len(), status.revoked_devices.len());
    output.say(format_args!(
        "Published status {} of {}: {keys} keys and {devices} devices are revoked.",
        status.sequence,
        utc(status.issued)
    ));
    output.say("Run `sealpost tenant publish` at least daily: servers do not work with an old one.");
    output.result(&status_json(status));
}

fn status_json(status: &TenantStatus) -> Value {
    let keys: Vec<_> =
        status.revoked_keys.iter().map(|(key, reason)| json!({"key": key, "reason": reason})).collect();
    json!({
        "sequence": status.sequence, "issued": status.issued, "revoked_keys": keys,
        "revoked_devices": status.revoked_devices,
    })
}

/// What an enroller may ask of a server.
const ENROLLER_ROLES: &[Role] = &[Role::Enroller, Role::Revoker];

/// The tenant root, as it certifies the keys of one subject.
pub(crate) struct Issuer<'a> {
    root: &'a Root,
    subject: &'a SubjectId,
    from: UnixTime,
    until: UnixTime,
}

impl<'a> Issuer<'a> {
    pub(crate) fn new(root: &'a Root, subject: &'a SubjectId, valid_days: u32) -> Self {
        let now = SystemClock.now();
        // Clocks that are a little behind take it too.
        let from = now.minus(CLOCK_SKEW_SECONDS_MAX);
        Self { root, subject, from, until: now.plus(u64::from(valid_days) * 86_400) }
    }

    /// Until when the certificates are valid.
    pub(crate) const fn until(&self) -> UnixTime {
        self.until
    }

    /// `key`, certified for one purpose.
    pub(crate) fn certify(
        &self,
        key: SigningKey,
        purpose: Purpose,
        roles: &[Role],
    ) -> Result<CertifiedKey, CliError> {
        let certificate = Certificate {
            tenant: self.root.tenant.clone(),
            purpose,
            subject: self.subject.clone(),
            id: CertificateId::random(edge::rng().as_mut()),
            key: RequestKey::Ed25519(key.verifying_key()),
            not_before: self.from,
            not_after: self.until,
            roles: roles.to_vec(),
        };
        Ok(CertifiedKey { certificate: certificate.sign(&self.root.key)?, key })
    }
}

pub(crate) fn new_key() -> SigningKey {
    SigningKey::generate(edge::rng().as_mut())
}

pub(crate) fn storage_key() -> StorageKey {
    let mut bytes = [0; 32];
    edge::rng().fill_bytes(&mut bytes);
    StorageKey::new(bytes)
}

/// Until when the root's word for a key holds.
pub(crate) fn certified_until(key: &CertifiedKey, root: VerifyingKey) -> Result<UnixTime, CliError> {
    Ok(SignedCertificate::read(&key.certificate)?.verify(&[root])?.not_after)
}

/// The form in which clients sign a server's URL: scheme and authority, perhaps a path, nothing behind.
fn server_url(text: &str) -> Result<String, CliError> {
    let url = text.trim_end_matches('/');
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let is_plain = |host: &str| {
        !host.starts_with(['/', ':', '.'])
            && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@\\\"<>".contains(&byte))
    };
    match host {
        Some(host) if !host.is_empty() && is_plain(host) && url.len() <= URL_BYTES_MAX => Ok(url.to_owned()),
        _ => Err(CliError::Usage(format!("{text} is not the URL of a server: https://host[:port]"))),
    }
}

/// Whether nobody on the way can listen: by TLS, or because there is no way.
fn is_protected(url: &str) -> bool {
    let host = url.strip_prefix("http://").map(|host| host.split(['/']).next().unwrap_or_default());
    host.is_none_or(|host| {
        ["localhost", "127.0.0.1", "[::1]"].iter().any(|local| {
            host.strip_prefix(local).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_server_has_one_form() {
        for good in [
            "https://keys.example",
            "http://127.0.0.1:8081",
            "https://[::1]:443",
            "https://x.example/sealpost",
        ] {
            assert_eq!(server_url(good).expect("it is one"), good);
            assert_eq!(server_url(&format!("{good}/")).expect("it is one"), good);
        }
        let long = format!("https://{}.example", "x".repeat(URL_BYTES_MAX));
        for bad in [
            "keys.example",
            "https://",
            "ftp://x",
            "https://a b",
            "https://x?y",
            "https://x#y",
            "https://u@x",
            &long,
        ] {
            assert!(matches!(server_url(bad), Err(CliError::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn only_the_own_machine_does_without_tls() {
        for good in ["https://x.example", "http://localhost:8080", "http://127.0.0.1", "http://[::1]:1/x"] {
            assert!(is_protected(good), "{good}");
        }
        for bad in ["http://x.example", "http://localhost.example", "http://127.0.0.1.example:80"] {
            assert!(!is_protected(bad), "{bad}");
        }
    }
}
