//! A prekey's private half.

use std::fmt;

use rand_core::CryptoRng;
use sealpost_wire::id::PrekeyId;
use sealpost_wire::message::Suite;
use sealpost_wire::prekey::prekey_id;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::decryption;

/// A prekey's private half: 32 bytes, wiped when dropped. For the hybrid suite they are the seed of an X-Wing
/// key (draft-connolly-cfrg-xwing-kem section 5.2), for the classical one an X25519 private key (RFC 9180
/// section 7.1.2).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrekeyPrivate {
    #[zeroize(skip)]
    suite: Suite,
    #[zeroize(skip)]
    id: PrekeyId,
    seed: [u8; 32],
}

impl PrekeyPrivate {
    /// A new random key, and its public half (1216 or 32 bytes).
    pub fn generate<R: CryptoRng + ?Sized>(suite: Suite, rng: &mut R) -> (Self, Vec<u8>) {
        // The id follows from the seed, once there is one.
        let mut key = Self { suite, id: PrekeyId([0; 16]), seed: [0; 32] };
        rng.fill_bytes(&mut key.seed);
        let public = key.public_key();
        key.id = prekey_id(&public);
        (key, public)
    }

    /// The key out of a store that kept its suite, id and seed. A wrong id makes a key that opens nothing.
    #[must_use]
    pub const fn restore(suite: Suite, id: PrekeyId, seed: [u8; 32]) -> Self {
        Self { suite, id, seed }
    }

    /// The suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The prekey's id.
    #[must_use]
    pub const fn id(&self) -> PrekeyId {
        self.id
    }

    /// The seed. Whoever sees it can read: it goes into a protected store, nowhere else.
    #[must_use]
    pub const fn expose_seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The public half, computed anew.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        decryption::public_key(self.suite, &self.seed)
    }
}

impl fmt::Debug for PrekeyPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrekeyPrivate({:?} {})", self.suite, self.id)
    }
}
