//! `sealpost ticket`.

use std::time::Duration;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use sealpost_sender::enroller::{Claim, Countersigned, Enroller};
use sealpost_wire::api::keyserver::Consent;
use sealpost_wire::clock::Clock as _;
use sealpost_wire::id::{RecipientId, TicketId};
use serde_json::json;

use crate::arguments::{Approve, TicketCommand};
use crate::edge::{self, SystemClock};
use crate::error::CliError;
use crate::home::Home;
use crate::output::Output;

/// The longest that the keyserver is asked to wait at a time.
const WAIT_MAX: Duration = Duration::from_secs(30);

pub(crate) fn run(command: &TicketCommand, home: &Home, output: &Output) -> Result<(), CliError> {
    match command {
        TicketCommand::New { recipient, page, no_qr, wait, approve, consent, enroller } => {
            if wait.is_some() && *approve == Approve::Ask && !edge::has_terminal() {
                let message = "nobody is here to be asked: take `--approve auto`, or leave out --wait and run \
                               `sealpost ticket approve`";
                return Err(CliError::Usage(message.to_owned()));
            }
            let enroller = home.enroller(enroller.as_deref())?;
            let recipient = recipient.unwrap_or_else(|| RecipientId::random(edge::rng().as_mut()));
            for category in consent {
                let said = Consent {
                    granted: true,
                    given_at: SystemClock.now(),
                    recorded_by: "sealpost".to_owned(),
                    method: "portal".to_owned(),
                    document: None,
                };
                enroller.put_consent(recipient, category, &said)?;
            }
            let (ticket, link) = enroller.new_ticket(recipient)?;
            let url = link.to_url(page);
            output.say(format_args!("ticket     {}", ticket.id));
            output.say(format_args!("recipient  {recipient}"));
            output.say(format_args!("link       {url}"));
            if !no_qr && let Ok(code) = QrCode::new(&url) {
                output.say(code.render::<Dense1x2>().quiet_zone(true).build());
            }
            output.say("It lets one device in, within 15 minutes. Whoever has the link can claim it.");
            let made = json!({
                "ticket": ticket.id, "recipient": recipient, "expires_at": ticket.expires_at, "link": url,
            });
            match wait {
                Some(wait) => {
                    output.meanwhile(&made);
                    let done = await_and_approve(&enroller, ticket.id, *wait, *approve, output)?;
                    output
                        .result(&json!({"ticket": ticket.id, "recipient": recipient, "countersigned": done}));
                }
                None => output.result(&made),
            }
        }
        TicketCommand::List { enroller } => {
            let tickets = home.enroller(enroller.as_deref())?.tickets()?;
            let now = SystemClock.now();
            let mut rows = vec![["TICKET", "RECIPIENT", "MAY BE CLAIMED"].map(str::to_owned)];
            for ticket in &tickets {
                let left = ticket.expires_at.0.saturating_sub(now.0);
                let until = if left == 0 { "no more".to_owned() } else { format!("for {left} s") };
                rows.push([ticket.id.to_string(), ticket.recipient.to_string(), until]);
            }
            if tickets.is_empty() {
                output.say("No ticket is open.");
            } else {
                output.table(&rows);
            }
            output.result(&json!({"tickets": tickets}));
        }
        TicketCommand::Show { ticket, wait, enroller } => {
            let claim = await_claim(&home.enroller(enroller.as_deref())?, *ticket, *wait)?;
            match &claim {
                Some(claim) => say_claim(claim, output),
                None => output.say("No device has claimed it yet."),
            }
            output.result(&json!({"ticket": ticket, "claim": claim}));
        }
        TicketCommand::Approve { ticket, code, enroller } => {
            let code: String = code.chars().filter(|one| !matches!(one, ' ' | '-')).collect();
            let done = home.enroller(enroller.as_deref())?.countersign(*ticket, &code)?;
            say_countersigned(&done, output);
            output.result(&done);
        }
        TicketCommand::Close { ticket, enroller } => {
            home.enroller(enroller.as_deref())?.reject(*ticket)?;
            output.say("Closed: nobody is let in with it.");
            output.result(&json!({"ticket": ticket, "closed": true}));
        }
    }
    Ok(())
}

fn await_and_approve(
    enroller: &Enroller,
    ticket: TicketId,
    wait: Duration,
    approve: Approve,
    output: &Output,
) -> Result<Countersigned, CliError> {
    let claim = await_claim(enroller, ticket, wait)?;
    let claim = claim.ok_or_else(|| CliError::NotYet("no device has claimed the ticket yet".to_owned()))?;
    say_claim(&claim, output);
    let question = format!("Does the patient's device show {}?", claim.code);
    if approve == Approve::Ask && !edge::ask(&question) {
        // Another code means another device: somebody else has the link.
        enroller.reject(ticket)?;
        return Err(CliError::state("not_approved", "the device was not let in, and the ticket is closed"));
    }
    let done = enroller.countersign(ticket, &claim.code)?;
    say_countersigned(&done, output);
    Ok(done)
}

fn await_claim(enroller: &Enroller, ticket: TicketId, wait: Duration) -> Result<Option<Claim>, CliError> {
    let mut claim = enroller.claim(ticket, Duration::ZERO)?;
    let found = std::cell::RefCell::new(&mut claim);
    edge::until(
        wait,
        || Ok::<_, CliError>(found.borrow().is_some()),
        |left| {
            **found.borrow_mut() = enroller.claim(ticket, left.min(WAIT_MAX))?;
            Ok(())
        },
    )?;
    Ok(claim)
}

fn say_claim(claim: &Claim, output: &Output) {
    output.say(format_args!("device     {}", claim.device));
    output.say(format_args!("code       {}", claim.code));
}

fn say_countersigned(done: &Countersigned, output: &Output) {
    let Countersigned { device, recipient, version } = done;
    output.say(format_args!("Device {device} of {recipient} is in: version {version} of its device set."));
}
