//! Both servers and the emulators of Apple and Google, as they run, and what they leave behind.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::emulators::{Control, Manifest, Provider, Push};
use crate::error::DemoError;
use crate::hospital::{Hospital, Tenant};
use crate::process::{Output, Process, Processes};
use crate::programs::Programs;
use crate::screen::say;
use crate::site::Site;

/// The servers and the emulators.
pub(crate) struct Running<'d> {
    site: &'d Site,
    programs: &'d Programs,
    keyserver: Server,
    relay: Server,
    emulators: Process,
    control: Control,
    control_url: String,
}

struct Server {
    process: Process,
    url: String,
}

impl<'d> Running<'d> {
    /// Makes the hospital's tenant and starts everything.
    pub(crate) fn start(
        site: &'d Site,
        processes: &Processes,
        programs: &'d Programs,
    ) -> Result<(Self, Hospital), DemoError> {
        let logs = site.logs();
        let tenant = Tenant::create(&site.home())?;
        // The two that take time start side by side.
        let mut command = Command::new(&programs.emulators);
        command.arg("--json").arg("--dir").arg(site.providers());
        let emulators = processes.start("emulators", command, &logs, Output::Logged)?;
        let config = site.configure_keyserver(&tenant.root_hex())?;
        let keyserver = start_server("keyserver", &programs.keyserver, &config, processes, &logs)?;
        let manifest: Manifest = parse("the emulators", &emulators.first_line()?)?;
        let config = site.configure_relay(&tenant.root_hex(), &manifest)?;
        let relay = start_server("relay", &programs.relay, &config, processes, &logs)?;
        let keyserver = await_server(keyserver)?;
        let relay = await_server(relay)?;
        say(&format!(
            "Running    keyserver {}, relay {}, emulators of Apple {} and Google {}",
            keyserver.url, relay.url, manifest.apns.url, manifest.fcm.url
        ));
        let hospital = tenant.open(&keyserver.url, &relay.url)?;
        let control = Control::new(&manifest.control_url);
        let control_url = manifest.control_url;
        Ok((Self { site, programs, keyserver, relay, emulators, control, control_url }, hospital))
    }

    /// Where the relay is.
    pub(crate) fn relay_url(&self) -> &str {
        &self.relay.url
    }

    /// Where the emulators hand over what they were pushed.
    pub(crate) fn control_url(&self) -> &str {
        &self.control_url
    }

    /// Every push that the emulators saw.
    pub(crate) fn pushes(&self) -> Result<Vec<Push>, DemoError> {
        let pushes = self.control.all_pushes();
        pushes.map_err(|error| DemoError::failed("cannot ask the emulators what they saw", error))
    }

    /// What the relay counts, in Prometheus' text format.
    pub(crate) fn relay_metrics(&self) -> Result<String, DemoError> {
        self.relay.metrics("relay")
    }

    /// Writes down what the servers and providers know, into the folder of the run.
    pub(crate) fn write_down(&self) -> Result<(), DemoError> {
        for (name, server) in [("relay", &self.relay), ("keyserver", &self.keyserver)] {
            let path = self.site.metrics().join(format!("{name}.prom"));
            let written = fs::write(&path, server.metrics(name)?);
            written.map_err(|error| DemoError::failed(path.display(), error))?;
        }
        self.write_pushes()
    }

    /// Ends everything in good order, and prints the servers' stores row by row into the folder of the run.
    pub(crate) fn end(self) -> Result<(), DemoError> {
        for process in [&self.relay.process, &self.keyserver.process, &self.emulators] {
            process.ask_to_end();
        }
        for process in [&self.relay.process, &self.keyserver.process, &self.emulators] {
            process.await_end()?;
        }
        let site = self.site;
        dump(site, "relay", &self.programs.relay, &site.relay().join("relay.toml"))?;
        dump(site, "keyserver", &self.programs.keyserver, &site.keyserver().join("keyserver.toml"))
    }

    fn write_pushes(&self) -> Result<(), DemoError> {
        let folder = self.site.pushes();
        for push in self.pushes()? {
            let provider = match push.provider {
                Provider::Apns => "apns",
                Provider::Fcm => "fcm",
            };
            let name = folder.join(format!("{:04}-{provider}", push.sequence));
            let headers = serde_json::Value::Object(push.headers).to_string();
            fs::write(name.with_extension("body"), &push.body)
                .and_then(|()| fs::write(name.with_extension("headers"), headers))
                .map_err(|error| DemoError::failed(name.display(), error))?;
        }
        Ok(())
    }
}

impl Server {
    fn metrics(&self, name: &str) -> Result<String, DemoError> {
        let answer = ureq::get(format!("{}/metrics", self.url)).call();
        let text = answer.and_then(|mut answer| answer.body_mut().read_to_string());
        text.map_err(|error| DemoError::failed(format!("metrics of the {name}"), error))
    }
}

fn start_server(
    name: &str,
    program: &Path,
    config: &Path,
    processes: &Processes,
    logs: &Path,
) -> Result<Process, DemoError> {
    let mut command = Command::new(program);
    command.arg("--config").arg(config);
    processes.start(name, command, logs, Output::Logged)
}

fn await_server(process: Process) -> Result<Server, DemoError> {
    #[derive(Deserialize)]
    struct Ready {
        listening: String,
    }
    let ready: Ready = parse("a server", &process.first_line()?)?;
    Ok(Server { process, url: format!("http://{}", ready.listening) })
}

fn parse<T: serde::de::DeserializeOwned>(who: &str, line: &str) -> Result<T, DemoError> {
    let unexpected = |error| DemoError::failed(format!("{who} said something unexpected"), error);
    serde_json::from_str(line).map_err(unexpected)
}

/// Prints the store of a server that has ended into a file.
fn dump(site: &Site, name: &str, program: &Path, config: &Path) -> Result<(), DemoError> {
    let failed = |error: &dyn std::fmt::Display| DemoError::failed(format!("the store of the {name}"), error);
    let out = File::create(site.dumps().join(format!("{name}.ndjson"))).map_err(|error| failed(&error))?;
    let log = File::create(site.logs().join(format!("{name}-dump.log"))).map_err(|error| failed(&error))?;
    let mut command = Command::new(program);
    command.arg("dump").arg("--config").arg(config).stdin(Stdio::null()).stdout(out).stderr(log);
    let status = command.status().map_err(|error| failed(&error))?;
    if status.success() { Ok(()) } else { Err(failed(&format!("cannot be printed: {status}"))) }
}
