//! Messages of a group, encrypted and decrypted beside openmls on its own.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sealpost_group::{ContentKind, GroupContent, GroupSuite, MessageId, Processed};
use sealpost_wire::payload::MlsFrame;

use crate::cast::{Hospital, Participant, system_rng};
use crate::circle::Circle;
use crate::cores;
use crate::error::BenchError;
use crate::limits::bare_mls::BarePair;
use crate::report::{Row, Runs, per_second};
use crate::rows::Effort;
use crate::scene::Stage;

/// Messages of one run.
const MESSAGES: usize = 3000;
/// Messages in turn; as many are in one transaction.
const IN_TURN: usize = 50;
/// Bytes of a message's content.
const BYTES: usize = 1024;
/// What must be reached of openmls on its own.
const SHARE: f64 = 0.9;

/// Which half is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// From the content to the body of a frame.
    Encrypt,
    /// From a frame to the content.
    Decrypt,
}

/// Measures one half.
///
/// # Errors
/// [`BenchError::Cast`], [`BenchError::Miscounted`].
pub fn row(name: &'static str, half: Half, stage: &mut Stage, effort: Effort) -> Result<Row, BenchError> {
    let hospital = stage.cast.hospital();
    let [together, apart] = cores::run_on(cores::TESTED, || measure(hospital, half, effort))??;
    let ratio = together.ratio();
    let apart = apart.limit().zip(apart.ratio()).map(|(limit, ratio)| {
        let [least, greatest] = apart.spread();
        format!(
            "each in a transaction of its own, the group read from the store for it: {:.0} /s \
             [{least:.0} .. {greatest:.0}], bare {limit:.0} /s; ratio {ratio:.2}",
            apart.value()
        )
    });
    let outside = "the frame's signature and its box are not in it: see the rows of sealing and opening";
    Ok(Row {
        name,
        what: match half {
            Half::Encrypt => format!("messages of {BYTES} B encrypted to a group of 2, one core"),
            Half::Decrypt => format!("messages of {BYTES} B of a group of 2 decrypted, one core"),
        },
        value: together.value(),
        spread: together.spread(),
        unit: "/s",
        limit: together.limit(),
        limit_is: Some("openmls alone: same suite, primitives, padding, kind of store".to_owned()),
        ratio,
        budget: format!("at least {SHARE} x the limit, {IN_TURN} messages in a transaction"),
        holds: ratio.is_some_and(|ratio| ratio >= SHARE),
        notes: apart.into_iter().chain([outside.to_owned()]).collect(),
    })
}

/// Many messages in a transaction, and each in one of its own.
fn measure(hospital: &Hospital, half: Half, effort: Effort) -> Result<[Runs; 2], BenchError> {
    let mut pair = Pair::new(hospital)?;
    let rounds = effort.messages(MESSAGES).div_ceil(IN_TURN);
    let mut found = [Runs::default(), Runs::default()];
    for _ in 0..effort.runs {
        for (runs, together) in found.iter_mut().zip([true, false]) {
            let (mut ours, mut bare) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..rounds {
                let [by_us, by_openmls] = match half {
                    Half::Encrypt => pair.encrypt(together)?,
                    Half::Decrypt => pair.decrypt(together)?,
                };
                ours += by_us;
                bare += by_openmls;
            }
            runs.pair(per_second(rounds * IN_TURN, ours), per_second(rounds * IN_TURN, bare));
        }
    }
    Ok(found)
}

/// Two members of a group, and two of one of openmls alone.
struct Pair<'h> {
    hospital: &'h Hospital,
    circle: Circle<'h>,
    reader: Participant,
    content: GroupContent,
    bare: BarePair,
    plaintext: Vec<u8>,
}

impl<'h> Pair<'h> {
    fn new(hospital: &'h Hospital) -> Result<Self, BenchError> {
        let mut circle = Circle::new(hospital, GroupSuite::Classical)?;
        circle.grow(2)?;
        let reader = circle.reader.take().ok_or(BenchError::Ended)?;
        let credentials = [&circle.steward, &reader].map(|member| member.credential().to_bytes());
        let content = content(hospital)?;
        let plaintext = content.to_bytes().map_err(BenchError::cast("a message"))?.to_vec();
        Ok(Self { hospital, circle, reader, content, bare: BarePair::new(credentials)?, plaintext })
    }

    /// Some messages by one, and as many by the other. Returns how long each has taken.
    fn encrypt(&mut self, together: bool) -> Result<[Duration; 2], BenchError> {
        let start = Instant::now();
        if together {
            self.send(IN_TURN)?;
        } else {
            (0..IN_TURN).try_for_each(|_| self.send(1))?;
        }
        let ours = start.elapsed();
        let start = Instant::now();
        for _ in 0..IN_TURN {
            if !together {
                self.bare.reload_author()?;
            }
            black_box(self.bare.encrypt(black_box(&self.plaintext))?);
        }
        Ok([ours, start.elapsed()])
    }

    fn send(&mut self, count: usize) -> Result<(), BenchError> {
        let (group, content) = (self.circle.group(), &self.content);
        self.circle.steward.groups(self.hospital, |groups| {
            (0..count)
                .try_for_each(|_| groups.send(group, black_box(content)).map(|sent| drop(black_box(sent))))
        })
    }

    fn decrypt(&mut self, together: bool) -> Result<[Duration; 2], BenchError> {
        let (group, author) = (self.circle.group(), self.circle.steward.device());
        let content = &self.content;
        let frames: Vec<MlsFrame> = self.circle.steward.groups(self.hospital, |groups| {
            (0..IN_TURN).map(|_| groups.send(group, content).map(|sent| sent.frame)).collect()
        })?;
        let bodies: Vec<Vec<u8>> =
            (0..IN_TURN).map(|_| self.bare.encrypt(&self.plaintext)).collect::<Result<_, _>>()?;

        let mut read = 0;
        let start = Instant::now();
        for frames in frames.chunks(if together { IN_TURN } else { 1 }) {
            read += self.reader.groups(self.hospital, |groups| {
                let mut read = 0;
                for frame in frames {
                    let processed = black_box(groups.process(author, black_box(frame))?);
                    read += usize::from(matches!(processed, Processed::Message(_)));
                }
                Ok(read)
            })?;
        }
        let ours = start.elapsed();
        if read != IN_TURN {
            return Err(BenchError::Miscounted(format!("{read} of {IN_TURN} messages were read")));
        }
        let start = Instant::now();
        for body in &bodies {
            if !together {
                self.bare.reload_reader()?;
            }
            black_box(self.bare.decrypt(black_box(body))?);
        }
        Ok([ours, start.elapsed()])
    }
}

/// A text whose content is as long as is measured.
fn content(hospital: &Hospital) -> Result<GroupContent, BenchError> {
    let mut content = GroupContent {
        id: MessageId::random(&mut system_rng()),
        created: hospital.now(),
        kind: ContentKind::Text,
        text: "a".repeat(BYTES),
        about: None,
        quick_replies: Vec::new(),
    };
    let bytes = content.to_bytes().map_err(BenchError::cast("a message"))?.len();
    content.text.truncate(BYTES - (bytes - BYTES));
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_pairs_read_what_they_write() {
        let hospital = Hospital::new().expect("a hospital");
        let mut pair = Pair::new(&hospital).expect("two pairs");
        assert_eq!(pair.plaintext.len(), BYTES);
        for together in [true, false] {
            pair.encrypt(together).expect("messages");
            pair.decrypt(together).expect("messages that are read");
        }
        let body = pair.bare.encrypt(&pair.plaintext).expect("a message");
        // Those that were written and not read before it lie between.
        assert_eq!(pair.bare.decrypt(&body).expect("it is read"), BYTES);
    }
}
