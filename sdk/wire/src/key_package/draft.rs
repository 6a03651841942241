//! Writing key packages: for tools and tests that have no MLS library. The SDK has one, and its key packages come
//! from there.

use super::vector::{put_numbers, put_vector};
use super::{
    CREDENTIAL_BASIC, EXTENSION_LAST_RESORT, LABEL_KEY_PACKAGE, LABEL_LEAF_NODE, LEAF_SOURCE_KEY_PACKAGE,
    Lifetime, MlsSuite, VERSION_MLS10, sign_content,
};
use crate::key::SigningKey;

/// What a key package is to say, before it is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPackageDraft {
    /// The suite.
    pub suite: MlsSuite,
    /// The public key that a welcome is sealed to.
    pub init_key: Vec<u8>,
    /// The public key of the leaf in the group's tree.
    pub encryption_key: Vec<u8>,
    /// The identity of the BasicCredential: a member credential.
    pub credential: Vec<u8>,
    /// When it may be used.
    pub lifetime: Lifetime,
    /// Whether it may be used more than once.
    pub is_last_resort: bool,
}

impl KeyPackageDraft {
    /// The key package (RFC 9420 section 10), signed by the device's identity key.
    #[must_use]
    pub fn sign(&self, identity: &SigningKey) -> Vec<u8> {
        let mut package = Vec::new();
        package.extend_from_slice(&VERSION_MLS10.to_be_bytes());
        package.extend_from_slice(&self.suite.code().to_be_bytes());
        put_vector(&mut package, &self.init_key);
        package.extend_from_slice(&self.leaf(identity));
        let mut extensions = Vec::new();
        if self.is_last_resort {
            extensions.extend_from_slice(&EXTENSION_LAST_RESORT.to_be_bytes());
            put_vector(&mut extensions, &[]);
        }
        put_vector(&mut package, &extensions);
        let signature = identity.sign(&sign_content(LABEL_KEY_PACKAGE, &package));
        put_vector(&mut package, &signature);
        package
    }

    /// The leaf node (section 7.2).
    fn leaf(&self, identity: &SigningKey) -> Vec<u8> {
        let mut leaf = Vec::new();
        put_vector(&mut leaf, &self.encryption_key);
        put_vector(&mut leaf, identity.verifying_key().as_bytes());
        leaf.extend_from_slice(&CREDENTIAL_BASIC.to_be_bytes());
        put_vector(&mut leaf, &self.credential);
        // Capabilities: versions, suites, extensions, proposals, credentials.
        put_numbers(&mut leaf, &[VERSION_MLS10]);
        put_numbers(&mut leaf, &[self.suite.code()]);
        let extensions: &[u16] = if self.is_last_resort { &[EXTENSION_LAST_RESORT] } else { &[] };
        put_numbers(&mut leaf, extensions);
        put_numbers(&mut leaf, &[]);
        put_numbers(&mut leaf, &[CREDENTIAL_BASIC]);
        leaf.push(LEAF_SOURCE_KEY_PACKAGE);
        leaf.extend_from_slice(&self.lifetime.not_before.0.to_be_bytes());
        leaf.extend_from_slice(&self.lifetime.not_after.0.to_be_bytes());
        put_vector(&mut leaf, &[]);
        let signature = identity.sign(&sign_content(LABEL_LEAF_NODE, &leaf));
        put_vector(&mut leaf, &signature);
        leaf
    }
}
