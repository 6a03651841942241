//! Sealing and opening, either suite, beside bare `hpke` with Ed25519.

use std::hint::black_box;
use std::time::{Duration, Instant};

use hpke::Kem;
use hpke::kem::{X25519HkdfSha256, XWing};
use sealpost_open::open;
use sealpost_wire::id::TransportId;
use sealpost_wire::message::{SealedMessage, Suite};
use sealpost_wire::payload::Notification;

use crate::cast::{Device, Hospital, system_rng};
use crate::cores;
use crate::error::BenchError;
use crate::limits::bare_crypto::Bare;
use crate::message::{context, lab_result, seal_one};
use crate::report::{Row, Runs, per_second};
use crate::rows::Effort;
use crate::scene::Stage;

/// Messages of one run.
const MESSAGES: usize = 3000;
/// What must be reached of bare `hpke` with Ed25519.
const SHARE: f64 = 0.85;
/// Bytes of the tag of ChaCha20-Poly1305.
const TAG_BYTES: usize = 16;

/// Which half is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Signing and sealing.
    Seal,
    /// Opening and verifying.
    Open,
}

/// Measures one half for one suite.
///
/// # Errors
/// [`BenchError::Cast`].
pub fn row(
    name: &'static str,
    half: Half,
    suite: Suite,
    stage: &mut Stage,
    effort: Effort,
) -> Result<Row, BenchError> {
    let hospital = stage.cast.hospital();
    let Measured { runs, notes } = cores::run_on(cores::TESTED, || match suite {
        Suite::Hybrid => measure::<XWing>(hospital, half, suite, effort),
        Suite::Classical => measure::<X25519HkdfSha256>(hospital, half, suite, effort),
    })??;
    let ratio = runs.ratio();
    Ok(Row {
        name,
        what: match half {
            Half::Seal => format!("messages signed and sealed, {suite:?}, one core"),
            Half::Open => format!("messages opened and the sender verified, {suite:?}, one core"),
        },
        value: runs.value(),
        spread: runs.spread(),
        unit: "/s",
        limit: runs.limit(),
        limit_is: Some("bare hpke and Ed25519 over as many bytes".to_owned()),
        ratio,
        budget: format!("at least {SHARE} x the limit"),
        holds: ratio.is_some_and(|ratio| ratio >= SHARE),
        notes,
    })
}

struct Measured {
    runs: Runs,
    notes: Vec<String>,
}

fn measure<K: Kem>(
    hospital: &Hospital,
    half: Half,
    suite: Suite,
    effort: Effort,
) -> Result<Measured, BenchError> {
    let setting = Setting::new(hospital, suite)?;
    let sealed = setting.seal()?;
    let parts = SealedMessage::read(&sealed).map_err(BenchError::cast("a box"))?;
    let associated_data = parts.associated_data(&context(hospital, &setting.device, setting.id));
    let bare = Bare::<K>::new(parts.ciphertext.len() - TAG_BYTES, associated_data.len());
    let (bare_sealed, private) = (bare.seal(), bare.private());
    let count = effort.messages(MESSAGES);
    let (mut runs, mut from_bytes) = (Runs::default(), Runs::default());
    for _ in 0..effort.runs {
        match half {
            Half::Seal => {
                let ours = || setting.seal().map(|sealed| drop(black_box(sealed)));
                let (ours, limit) = alternate(count, ours, || drop(black_box(bare.seal())))?;
                runs.pair(ours, limit);
            }
            Half::Open => {
                let ours = || setting.open(black_box(&sealed));
                let (ours, limit) = alternate(count, ours, || bare.open(&private, black_box(&bare_sealed)))?;
                runs.pair(ours, limit);
                let ours = || setting.open(black_box(&sealed));
                let stored = || bare.open(&bare.private(), black_box(&bare_sealed));
                let (ours, stored) = alternate(count, ours, stored)?;
                from_bytes.pair(ours, stored);
            }
        }
    }
    let stored = from_bytes.limit().zip(from_bytes.ratio()).map(|(stored, ratio)| {
        format!("bare, its private key made of 32 bytes each time, as on devices: {stored:.0} /s; ratio {ratio:.2}")
    });
    Ok(Measured { runs, notes: stored.into_iter().collect() })
}

/// Does both `count` times, a few of one and a few of the other in turn: what disturbs the machine disturbs
/// both alike. Returns both rates (a second).
fn alternate(
    count: usize,
    mut ours: impl FnMut() -> Result<(), BenchError>,
    mut limit: impl FnMut(),
) -> Result<(f64, f64), BenchError> {
    const IN_TURN: usize = 50;
    let (mut of_ours, mut of_limit) = (Duration::ZERO, Duration::ZERO);
    let rounds = count.div_ceil(IN_TURN);
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..IN_TURN {
            ours()?;
        }
        of_ours += start.elapsed();
        let start = Instant::now();
        for _ in 0..IN_TURN {
            limit();
        }
        of_limit += start.elapsed();
    }
    Ok((per_second(rounds * IN_TURN, of_ours), per_second(rounds * IN_TURN, of_limit)))
}

/// A device, and what is sealed to it.
struct Setting<'a> {
    hospital: &'a Hospital,
    device: Device,
    notification: Notification,
    id: TransportId,
    suite: Suite,
}

impl<'a> Setting<'a> {
    fn new(hospital: &'a Hospital, suite: Suite) -> Result<Self, BenchError> {
        Ok(Self {
            device: hospital.enrol(suite)?,
            notification: lab_result(hospital),
            id: TransportId::random(&mut system_rng()),
            hospital,
            suite,
        })
    }

    fn seal(&self) -> Result<Vec<u8>, BenchError> {
        Ok(seal_one(self.hospital, &self.device, self.id, &self.notification)?.bytes)
    }

    fn open(&self, sealed: &[u8]) -> Result<(), BenchError> {
        let context = context(self.hospital, &self.device, self.id);
        let key = self.hospital.private_prekey(self.suite);
        let message = open(sealed, &context, key, self.hospital.trust(), self.hospital.now());
        black_box(message.map_err(BenchError::cast("opening a box"))?);
        Ok(())
    }
}
