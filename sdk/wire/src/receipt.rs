//! Receipts: a device's signed word about one box. The relay stores them, the sender verifies them.
//!
//! ```text
//! receipt    = COSE_Sign1 by the identity key, typ "sealpost-receipt-v1+cose", over
//!   [ "sealpost-receipt/1", tenant, transport id, device, SHA-256(sealed), state, prekey kind, device time ]
//! unopenable = COSE_Sign1 by the identity key, typ "sealpost-unopenable-v1+cose", over
//!   [ "sealpost-unopenable/1", tenant, transport id, device, SHA-256(sealed), reason, device time ]
//! state  = 3 fetched / 4 opened / 5 confirmed / 6 declined
//! prekey kind = 0 signed / 1 one-time / 2 unknown (fetched, before it was opened)
//! reason = the code of the error that opening gave
//! ```

use crate::cbor::{Reader, Writer};
use crate::clock::UnixTime;
use crate::delivery::DeliveryState;
use crate::error::{FormatError, TrustError};
use crate::id::{DeviceId, Digest, TenantId, TransportId};
use crate::key::{SigningKey, VerifyingKey};
use crate::limits::RECEIPT_BYTES_MAX;
use crate::prekey::PrekeyKind;
use crate::sign1::{self, Sign1, Signer};

const TYP_RECEIPT: &str = "sealpost-receipt-v1+cose";
const TYP_UNOPENABLE: &str = "sealpost-unopenable-v1+cose";
const LABEL_RECEIPT: &str = "sealpost-receipt/1";
const LABEL_UNOPENABLE: &str = "sealpost-unopenable/1";
const KIND_UNKNOWN: u64 = 2;
const REASON_BYTES_MAX: usize = 64;

/// What a device says happened to a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptStatement {
    /// It has stored the box.
    Fetched,
    /// It has opened the message, with a prekey of this kind.
    Opened(PrekeyKind),
    /// A person agreed.
    Confirmed(PrekeyKind),
    /// A person declined.
    Declined(PrekeyKind),
    /// It cannot open the box; the code says why.
    Unopenable(String),
}

impl ReceiptStatement {
    /// The delivery state that the statement brings about.
    #[must_use]
    pub const fn state(&self) -> DeliveryState {
        match self {
            Self::Fetched => DeliveryState::Fetched,
            Self::Opened(_) => DeliveryState::Opened,
            Self::Confirmed(_) => DeliveryState::Confirmed,
            Self::Declined(_) => DeliveryState::Declined,
            Self::Unopenable(_) => DeliveryState::Unopenable,
        }
    }
}

/// A device's word about one box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The tenant.
    pub tenant: TenantId,
    /// The submission.
    pub transport_id: TransportId,
    /// The device that speaks.
    pub device: DeviceId,
    /// SHA-256 of the sealed message.
    pub sealed: Digest,
    /// What it says.
    pub statement: ReceiptStatement,
    /// When, by the device's clock.
    pub time: UnixTime,
}

impl Receipt {
    /// The receipt's bytes, signed by the device's identity key.
    #[must_use]
    pub fn sign(&self, identity: &SigningKey) -> Vec<u8> {
        let (typ, label, length) = match self.statement {
            ReceiptStatement::Unopenable(_) => (TYP_UNOPENABLE, LABEL_UNOPENABLE, 7),
            _ => (TYP_RECEIPT, LABEL_RECEIPT, 8),
        };
        let mut writer = Writer::new();
        writer.array(length).text(label).text(self.tenant.as_str());
        writer
            .bytes(self.transport_id.as_bytes())
            .bytes(self.device.as_bytes())
            .bytes(self.sealed.as_bytes());
        match &self.statement {
            ReceiptStatement::Unopenable(reason) => {
                writer.text(reason);
            }
            statement => {
                let kind = match statement {
                    ReceiptStatement::Opened(kind)
                    | ReceiptStatement::Confirmed(kind)
                    | ReceiptStatement::Declined(kind) => kind.code(),
                    ReceiptStatement::Fetched | ReceiptStatement::Unopenable(_) => KIND_UNKNOWN,
                };
                writer.uint(u64::from(statement.state().code())).uint(kind);
            }
        }
        writer.uint(self.time.0);
        sign1::sign(identity, typ, Signer::Known, &writer.finish(), &[])
    }
}

/// A receipt that was read and not yet believed.
#[derive(Clone, Debug)]
pub struct SignedReceipt<'a> {
    signed: Sign1<'a>,
    claimed: Receipt,
}

impl<'a> SignedReceipt<'a> {
    /// Reads a receipt of either type.
    pub fn read(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let signed = Sign1::read_any(bytes, RECEIPT_BYTES_MAX)?;
        signed.check_known()?;
        let (label, length) = match signed.typ {
            TYP_RECEIPT => (LABEL_RECEIPT, 8),
            TYP_UNOPENABLE => (LABEL_UNOPENABLE, 7),
            _ => return Err(FormatError::WrongTyp),
        };
        let mut reader = Reader::new(signed.payload, RECEIPT_BYTES_MAX)?;
        reader.tuple(length)?;
        if reader.text("label", 64)? != label {
            return Err(FormatError::WrongValue("label"));
        }
        let tenant = reader.parsed("tenant")?;
        let transport_id = TransportId(reader.array("transport id")?);
        let device = DeviceId(reader.array("device")?);
        let sealed = Digest(reader.array("sealed")?);
        let statement = if label == LABEL_UNOPENABLE {
            let reason = reader.text("reason", REASON_BYTES_MAX)?;
            if !reason.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                return Err(FormatError::WrongValue("reason"));
            }
            ReceiptStatement::Unopenable(reason.to_owned())
        } else {
            let (state, kind) = (reader.uint()?, reader.uint()?);
            match state {
                3 if kind == KIND_UNKNOWN => ReceiptStatement::Fetched,
                4 => ReceiptStatement::Opened(PrekeyKind::from_code(kind)?),
                5 => ReceiptStatement::Confirmed(PrekeyKind::from_code(kind)?),
                6 => ReceiptStatement::Declined(PrekeyKind::from_code(kind)?),
                _ => return Err(FormatError::WrongValue("state")),
            }
        };
        let time = UnixTime(reader.uint()?);
        Ok(Self { signed, claimed: Receipt { tenant, transport_id, device, sealed, statement, time } })
    }

    /// The message that it says it is about: good for finding the delivery to verify it against.
    #[must_use]
    pub const fn claimed(&self) -> &Receipt {
        &self.claimed
    }

    /// The receipt, if `device` of `tenant` signed it.
    pub fn verify(
        self,
        tenant: &TenantId,
        device: DeviceId,
        identity: &VerifyingKey,
    ) -> Result<Receipt, TrustError> {
        self.signed.verify(identity, &[])?;
        if self.claimed.tenant != *tenant {
            return Err(TrustError::WrongTenant);
        }
        if self.claimed.device != device {
            return Err(TrustError::WrongDevice);
        }
        Ok(self.claimed)
    }
}
