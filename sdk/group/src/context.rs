//! What all members agree on beside the tree: an extension of the MLS group context (RFC 9420 section 13.4), of a
//! type for private use.
//!
//! ```text
//! extension 0xF5EA = { 1: [+ device], 2: label, 3: slot id, 4: sequence offset }
//! ```
//! Devices are sorted, each once. The sequence that a commit of epoch n claims is the offset and n more.
//!
//! Beside it stands the `required_capabilities` extension (RFC 9420 section 11.1) that asks every member for it, and
//! nothing else.

use minicbor::{Decoder, Encoder};
use openmls::credentials::CredentialType;
use openmls::extensions::{
    Extension, ExtensionType, Extensions, RequiredCapabilitiesExtension, UnknownExtension,
};
use openmls::group::GroupContext;
use sealpost_wire::error::FormatError;
use sealpost_wire::id::{DeviceId, SlotId};
use sealpost_wire::limits::SLOT_SEQUENCE_MAX;

use crate::error::Refusal;
use crate::limits::{LABEL_BYTES_MAX, SEQUENCE_OFFSET_BELOW, STEWARDS_MAX};

/// The extension's type.
pub(crate) const EXTENSION_TYPE: u16 = 0xF5EA;
/// Bytes of the extension: stewards of 17 bytes each, the label, the slot and heads.
const EXTENSION_BYTES_MAX: usize = 17 * STEWARDS_MAX + LABEL_BYTES_MAX + 64;

/// The group's context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) stewards: Vec<DeviceId>,
    pub(crate) label: String,
    pub(crate) slot: SlotId,
    pub(crate) sequence_offset: u64,
}

impl Context {
    /// A context that can be written.
    pub(crate) fn new(
        mut stewards: Vec<DeviceId>,
        label: String,
        slot: SlotId,
        sequence_offset: u64,
    ) -> Result<Self, FormatError> {
        stewards.sort_unstable();
        stewards.dedup();
        let context = Self { stewards, label, slot, sequence_offset };
        context.check()?;
        Ok(context)
    }

    pub(crate) fn is_steward(&self, device: DeviceId) -> bool {
        self.stewards.binary_search(&device).is_ok()
    }

    /// The sequence that the commit of `epoch` claims.
    pub(crate) fn sequence(&self, epoch: u64) -> Option<u64> {
        self.sequence_offset.checked_add(epoch).filter(|sequence| *sequence <= SLOT_SEQUENCE_MAX)
    }

    /// The extensions of a group context: this one, and that members have to know it.
    pub(crate) fn extensions(&self) -> Result<Extensions<GroupContext>, FormatError> {
        let extension = Extension::Unknown(EXTENSION_TYPE, UnknownExtension(self.to_bytes()));
        let extensions = vec![Extension::RequiredCapabilities(required()), extension];
        Extensions::from_vec(extensions).map_err(|_| FormatError::WrongValue("context"))
    }

    /// Reads the context of a group. Another extension, or one too few, is refused.
    pub(crate) fn of(extensions: &Extensions<GroupContext>) -> Result<Self, Refusal> {
        let (mut context, mut asked) = (None, false);
        for extension in extensions.iter() {
            match extension {
                Extension::Unknown(EXTENSION_TYPE, UnknownExtension(bytes)) => {
                    context = Self::from_bytes(bytes);
                }
                Extension::RequiredCapabilities(capabilities) if *capabilities == required() => asked = true,
                _ => return Err(Refusal::Unsupported),
            }
        }
        context.filter(|_| asked).ok_or(Refusal::Unsupported)
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Encoder::new(Vec::new());
        let written = self.write(&mut writer);
        debug_assert!(written.is_ok(), "writing into memory cannot fail");
        writer.into_writer()
    }

    fn write(
        &self,
        writer: &mut Encoder<Vec<u8>>,
    ) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        writer.map(4)?.u8(1)?.array(self.stewards.len() as u64)?;
        for steward in &self.stewards {
            writer.bytes(steward.as_bytes())?;
        }
        writer.u8(2)?.str(&self.label)?.u8(3)?.bytes(self.slot.as_bytes())?;
        writer.u8(4)?.u64(self.sequence_offset)?;
        Ok(())
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > EXTENSION_BYTES_MAX {
            return None;
        }
        let context = Self::read(&mut Decoder::new(bytes)).ok()?;
        // What was read has one encoding: another one, or bytes behind it, is none.
        (context.check().is_ok() && context.to_bytes() == bytes).then_some(context)
    }

    fn read(reader: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        reader.map()?;
        reader.u8()?;
        let count = reader.array()?.unwrap_or_default();
        let mut stewards = Vec::new();
        for _ in 0..count.min(STEWARDS_MAX as u64) {
            stewards.push(DeviceId(id(reader)?));
        }
        reader.u8()?;
        let label = reader.str()?.to_owned();
        reader.u8()?;
        let slot = SlotId(id(reader)?);
        reader.u8()?;
        Ok(Self { stewards, label, slot, sequence_offset: reader.u64()? })
    }

    fn check(&self) -> Result<(), FormatError> {
        let sorted = self.stewards.is_sorted_by(|a, b| a < b);
        if self.stewards.is_empty() || self.stewards.len() > STEWARDS_MAX || !sorted {
            return Err(FormatError::WrongValue("stewards"));
        }
        if self.label.len() > LABEL_BYTES_MAX {
            return Err(FormatError::WrongValue("label"));
        }
        if self.sequence_offset >= SEQUENCE_OFFSET_BELOW {
            return Err(FormatError::WrongValue("sequence offset"));
        }
        Ok(())
    }
}

/// What every member must be able to do.
fn required() -> RequiredCapabilitiesExtension {
    let extension = ExtensionType::Unknown(EXTENSION_TYPE);
    RequiredCapabilitiesExtension::new(&[extension], &[], &[CredentialType::Basic])
}

fn id(reader: &mut Decoder<'_>) -> Result<[u8; 16], minicbor::decode::Error> {
    reader.bytes()?.try_into().map_err(|_| minicbor::decode::Error::message("an id has 16 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        let stewards = vec![DeviceId([2; 16]), DeviceId([1; 16]), DeviceId([2; 16])];
        Context::new(stewards, "Ward 3".into(), SlotId([9; 16]), 77).unwrap()
    }

    #[test]
    fn a_context_has_one_encoding() {
        let bytes = context().to_bytes();
        assert_eq!(Context::from_bytes(&bytes), Some(context()));
        assert_eq!(context().stewards, [DeviceId([1; 16]), DeviceId([2; 16])]);
        for at in 0..bytes.len() {
            assert_eq!(Context::from_bytes(&bytes[..at]), None, "cut at {at}");
        }
        assert_eq!(Context::from_bytes(&[&bytes[..], &[0]].concat()), None);
        let mut unsorted = context();
        unsorted.stewards.reverse();
        assert_eq!(Context::from_bytes(&unsorted.to_bytes()), None);
        let mut long = context();
        long.label = "x".repeat(65);
        assert_eq!(Context::from_bytes(&long.to_bytes()), None);
        let mut far = context();
        far.sequence_offset = SEQUENCE_OFFSET_BELOW;
        assert_eq!(Context::from_bytes(&far.to_bytes()), None);
        let empty = Context { stewards: Vec::new(), ..context() };
        assert_eq!(Context::from_bytes(&empty.to_bytes()), None);
    }

    #[test]
    fn only_the_two_extensions_make_a_context() {
        let ours = Extension::Unknown(EXTENSION_TYPE, UnknownExtension(context().to_bytes()));
        let required = || Extension::RequiredCapabilities(required());
        let weaker = RequiredCapabilitiesExtension::new(&[], &[], &[CredentialType::Basic]);
        let other = Extension::Unknown(0xF5EB, UnknownExtension(Vec::new()));
        let of = |list: Vec<Extension>| Context::of(&Extensions::from_vec(list).unwrap());
        assert_eq!(Context::of(&context().extensions().unwrap()), Ok(context()));
        assert_eq!(of(vec![ours.clone(), required()]), Ok(context()));
        for bad in [
            vec![],
            vec![ours.clone()],
            vec![required()],
            vec![ours.clone(), Extension::RequiredCapabilities(weaker)],
            vec![required(), other.clone()],
            vec![ours, required(), other],
        ] {
            assert_eq!(of(bad), Err(Refusal::Unsupported));
        }
    }

    #[test]
    fn sequences_end() {
        let mut context = context();
        assert_eq!(context.sequence(3), Some(80));
        context.sequence_offset = SEQUENCE_OFFSET_BELOW - 1;
        assert_eq!(context.sequence(SLOT_SEQUENCE_MAX), None);
        assert_eq!(context.sequence(u64::MAX), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            if let Some(context) = Context::from_bytes(&bytes) {
                proptest::prop_assert_eq!(context.to_bytes(), bytes);
            }
        }
    }
}
