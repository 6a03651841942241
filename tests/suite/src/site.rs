//! A site: a tenant with its keyserver, its relay and emulated providers, each a process with its own folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use sealpost_device::{Device, DeviceParts, EnrolOptions, FilePlatform};
use sealpost_emulators::Manifest;
use sealpost_sender::enroller::Enroller;
use sealpost_sender::identity::SenderIdentityFile;
use sealpost_sender::{Sender, SenderOptions};
use sealpost_service::clock::SystemClock;
use sealpost_wire::api::keyserver::Consent;
use sealpost_wire::api::relay::PushRegistration;
use sealpost_wire::id::{DeviceId, RecipientId};
use tempfile::TempDir;

use crate::process::built;
use crate::program::Program;
use crate::tap::Tap;
use crate::tenant::{Tenant, now, parts};
use crate::{Outcome, client::Client};

/// The category that recipients of a site have agreed to.
pub const CATEGORY: &str = "lab-result";
/// How long the keyserver and devices are asked to wait for each other.
const WAIT: Duration = Duration::from_secs(20);
/// Bytes of a log that are shown after a failure.
const LOG_TAIL_BYTES: usize = 2000;

/// A site that runs. Dropping it kills everything and removes its files.
pub struct Site {
    /// The hospital.
    pub tenant: Tenant,
    /// Its keyserver.
    pub keyserver: Program,
    /// Its relay.
    pub relay: Program,
    /// Who lets devices in.
    pub enroller: Enroller,
    /// Where the emulated providers are.
    pub providers: Manifest,
    emulators: Program,
    folder: TempDir,
}

/// A device of a site.
#[derive(Clone, Debug)]
pub struct Handset {
    /// Its id.
    pub id: DeviceId,
    /// Whose it is.
    pub recipient: RecipientId,
    /// Its database, in `state`, and what its platform keeps, in `platform`.
    pub folder: PathBuf,
}

impl Site {
    /// Makes and starts a site.
    ///
    /// # Errors
    /// A program is not built or does not get ready.
    pub fn start() -> Outcome<Self> {
        let folder = tempfile::tempdir()?;
        let base = folder.path();
        std::fs::create_dir(base.join("logs"))?;
        let (keyserver_tap, relay_tap) = (Tap::open()?, Tap::open()?);
        let tenant = Tenant::new("st-mary", keyserver_tap.url(), relay_tap.url())?;

        let mut emulators = emulators(base);
        let providers: Manifest = serde_json::from_str(&emulators.start()?)?;
        let mut keyserver =
            server("sealpost-keyserver", base, &keyserver_config(&tenant))?.behind(keyserver_tap);
        keyserver.start()?;
        let mut relay = server("sealpost-relay", base, &relay_config(&tenant, &providers))?.behind(relay_tap);
        relay.start()?;
        let enroller = Enroller::open(tenant.enroller("enrolment")?, &base.join("enroller"), parts())?;
        Ok(Self { tenant, keyserver, relay, enroller, providers, emulators, folder })
    }

    /// A folder for `name` in the site's.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where a program writes what it logs.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        log(self.folder.path(), name)
    }

    /// A new recipient, who has agreed to [`CATEGORY`].
    ///
    /// # Errors
    /// The keyserver's.
    pub fn recipient(&self) -> Outcome<RecipientId> {
        let recipient = RecipientId::random(&mut UnwrapErr(SysRng));
        self.enroller.put_consent(recipient, CATEGORY, &consent())?;
        Ok(recipient)
    }

    /// Lets a new device of `recipient` in, from ticket to mailbox, with a push token of one emulated
    /// provider.
    ///
    /// # Errors
    /// Any step's.
    pub fn enrol(&self, recipient: RecipientId, options: &EnrolOptions) -> Outcome<(Handset, Device)> {
        let (ticket, link) = self.enroller.new_ticket(recipient)?;
        let folder = self.path(&format!("device-{}", ticket.id));
        let mut device = Device::enrol(&folder.join("state"), &link, options, device_parts(&folder)?)?;
        let claim = self.enroller.claim(ticket.id, WAIT)?.ok_or("the claim came")?;
        assert_eq!(Some(&claim.code), device.code().as_ref(), "phone and portal show the same code");
        self.enroller.countersign(ticket.id, &claim.code)?;
        if !device.await_admission(WAIT)? {
            return Err("the device was not admitted".into());
        }
        device.register(Some(push_registration(device.id())))?;
        Ok((Handset { id: device.id(), recipient, folder }, device))
    }

    /// A sending system's identity, and an open outbox for it.
    ///
    /// # Errors
    /// Storage errors.
    pub fn sender(&self, subject: &str) -> Outcome<(SenderIdentityFile, Sender)> {
        let identity = self.tenant.sender(subject)?;
        let sender = self.open_sender(identity.clone(), SenderOptions::default())?;
        Ok((identity, sender))
    }

    /// The sender of `identity`, with its outbox in the site's folder.
    ///
    /// # Errors
    /// Storage errors.
    pub fn open_sender(&self, identity: SenderIdentityFile, options: SenderOptions) -> Outcome<Sender> {
        let folder = self.path(&format!("outbox-{}", identity.subject));
        Ok(Sender::open(identity, &folder, options, parts())?)
    }

    /// A client of the relay or the keyserver, under the `request` key of `identity`.
    #[must_use]
    pub fn client(&self, url: &str, identity: &SenderIdentityFile) -> Client {
        Client::new(url, &self.tenant.id, &identity.subject, identity.request.clone())
    }

    /// Ends both servers by SIGTERM and the emulators after them.
    ///
    /// # Errors
    /// One does not end well.
    pub fn stop(mut self) -> Outcome<()> {
        self.relay.terminate()?;
        self.keyserver.terminate()?;
        self.emulators.terminate()
    }

    /// The ends of all logs, to be shown after a failure.
    #[must_use]
    pub fn log_tails(&self) -> String {
        let entries = std::fs::read_dir(self.path("logs")).into_iter().flatten().flatten();
        let tail = |path: PathBuf| {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            let start = text.ceil_char_boundary(text.len().saturating_sub(LOG_TAIL_BYTES));
            format!("== {}\n{}\n", path.display(), &text[start..])
        };
        entries.map(|entry| tail(entry.path())).collect()
    }
}

impl Handset {
    /// The device, as its app opens it.
    ///
    /// # Errors
    /// Storage errors.
    pub fn open(&self) -> Outcome<Device> {
        Ok(Device::open(&self.folder.join("state"), device_parts(&self.folder)?)?)
    }
}

/// What a device in `folder` is built on.
///
/// # Errors
/// The folder cannot be made.
pub fn device_parts(folder: &Path) -> Outcome<DeviceParts> {
    Ok(DeviceParts {
        platform: Arc::new(FilePlatform::new(&folder.join("platform"))?),
        clock: Arc::new(SystemClock),
        rng: Box::new(UnwrapErr(SysRng)),
        roots: sealpost_device::ServerRoots::public(),
    })
}

/// A consent that is given now.
#[must_use]
pub fn consent() -> Consent {
    Consent {
        granted: true,
        given_at: now(),
        recorded_by: "registration".to_owned(),
        method: "paper".to_owned(),
        document: None,
    }
}

/// Every second device is an iPhone; tokens have the form and length of the provider's.
fn push_registration(device: DeviceId) -> PushRegistration {
    let id = device.as_bytes();
    if id[0].is_multiple_of(2) {
        PushRegistration {
            app: "st-mary-ios".to_owned(),
            token: HEXLOWER.encode(&[id, id].map(|id| *id).concat()),
        }
    } else {
        PushRegistration { app: "st-mary-android".to_owned(), token: format!("{device}:{}", "x".repeat(127)) }
    }
}

fn emulators(base: &Path) -> Program {
    let folder = base.join("emulators");
    let arguments = folder.clone();
    let command = move || {
        let mut command = Command::new(built("sealpost-emulators")?);
        command.arg("--json").arg("--dir").arg(&arguments);
        Ok(command)
    };
    Program::new("sealpost-emulators", folder, log(base, "sealpost-emulators"), command, |_| {})
}

fn server(name: &'static str, base: &Path, config: &str) -> Outcome<Program> {
    let folder = base.join(name);
    std::fs::create_dir(&folder)?;
    let file = folder.join("config.toml");
    std::fs::write(&file, config)?;
    let command = move || {
        let mut command = Command::new(built(name)?);
        command.arg("--config").arg(&file);
        Ok(command)
    };
    Ok(Program::new(name, folder, log(base, name), command, |_| {}))
}

fn log(base: &Path, name: &str) -> PathBuf {
    base.join("logs").join(format!("{name}.log"))
}

fn keyserver_config(tenant: &Tenant) -> String {
    let root = HEXLOWER.encode(tenant.root.verifying_key().as_bytes());
    format!(
        r#"
        listen = "127.0.0.1:0"
        public_url = "{}"
        data = "data"
        access_token_key_file = "access-token.key"
        [[tenants]]
        id = "{}"
        roots = ["{root}"]
        [http]
        announce_seconds = 0
        [log]
        format = "text"
        level = "warn"
        "#,
        tenant.keyserver, tenant.id
    )
}

fn relay_config(tenant: &Tenant, emulators: &Manifest) -> String {
    let root = HEXLOWER.encode(tenant.root.verifying_key().as_bytes());
    let (apns, fcm) = (&emulators.apns, &emulators.fcm);
    format!(
        r#"
        listen = "127.0.0.1:0"
        public_url = "{url}"
        data = "data"
        push_token_key_file = "push-token.key"
        access_token_key_file = "access-token.key"
        [[tenants]]
        id = "{id}"
        roots = ["{root}"]
        [[apps]]
        name = "st-mary-ios"
        tenant = "{id}"
        provider = "apns"
        endpoint = "{apns_url}"
        ca_file = {ca_file:?}
        team_id = "{team_id}"
        key_id = "{key_id}"
        key_file = {key_file:?}
        topic = "{topic}"
        [[apps]]
        name = "st-mary-android"
        tenant = "{id}"
        provider = "fcm"
        endpoint = "{fcm_url}"
        ca_file = {ca_file:?}
        service_account_file = {service_account:?}
        [http]
        announce_seconds = 0
        [log]
        format = "text"
        level = "warn"
        "#,
        url = tenant.relay,
        id = tenant.id,
        apns_url = apns.url,
        ca_file = emulators.ca_file,
        team_id = apns.team_id,
        key_id = apns.key_id,
        key_file = apns.key_file,
        topic = apns.topics.first().map_or("", String::as_str),
        fcm_url = fcm.url,
        service_account = fcm.service_account_file,
    )
}
