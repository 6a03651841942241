//! Every size, count and duration that the formats fix. A reader checks them before it decodes anything.

/// Bytes of a sealed message, all of it.
pub const SEALED_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the signed message inside a box.
pub const SIGNED_BYTES_MAX: usize = 224 * 1024;
/// Bytes of a certificate.
pub const CERTIFICATE_BYTES_MAX: usize = 400;
/// Bytes of a device record.
pub const RECORD_BYTES_MAX: usize = 1024;
/// Bytes of a record with the enrolment code around it.
pub const ENROLMENT_BYTES_MAX: usize = 1200;
/// Bytes of a device set.
pub const DEVICE_SET_BYTES_MAX: usize = 32 * 1024;
/// Devices in one set.
pub const DEVICES_PER_SET_MAX: usize = 16;
/// Revoked devices that a set remembers.
pub const REVOKED_PER_SET_MAX: usize = 64;
/// Bytes of an admission.
pub const ADMISSION_BYTES_MAX: usize = 2 * 1024;
/// Bytes of a mailbox statement.
pub const MAILBOX_STATEMENT_BYTES_MAX: usize = 1024;
/// Bytes of a member credential: an admission, a mailbox statement, and the heads around them.
pub const MEMBER_CREDENTIAL_BYTES_MAX: usize = ADMISSION_BYTES_MAX + MAILBOX_STATEMENT_BYTES_MAX + 64;
/// Device sets that one MLS frame carries.
pub const MLS_SETS_MAX: usize = 64;
/// Bytes of a prekey leaf (an X-Wing public key has 1216).
pub const PREKEY_LEAF_BYTES_MAX: usize = 1400;
/// Bytes of a signed prekey batch.
pub const PREKEY_BATCH_BYTES_MAX: usize = 512;
/// Leaves in one batch, and so the leaves that one upload carries.
pub const PREKEYS_PER_BATCH_MAX: usize = 128;
/// Bytes of a key package (two X-Wing public keys have 2432, a member credential up to 3136).
pub const KEY_PACKAGE_BYTES_MAX: usize = 6 * 1024;
/// One-time key packages that one upload carries; a last resort may come with them.
pub const KEY_PACKAGES_PER_UPLOAD_MAX: usize = 100;
/// Extensions of a key package, and of the leaf node in it.
pub const KEY_PACKAGE_EXTENSIONS_MAX: usize = 16;
/// Devices that one look-up of peers names.
pub const PEERS_PER_LOOK_UP_MAX: usize = 64;
/// Bytes of a tenant status.
pub const STATUS_BYTES_MAX: usize = 64 * 1024;
/// Revoked keys, and revoked devices, that one status names.
pub const STATUS_ENTRIES_MAX: usize = 1000;
/// Bytes of a receipt.
pub const RECEIPT_BYTES_MAX: usize = 512;
/// Bytes of an order.
pub const ORDER_BYTES_MAX: usize = 1024;
/// Depth of nested CBOR items.
pub const CBOR_DEPTH_MAX: usize = 6;
/// CBOR items in one structure.
pub const CBOR_ITEMS_MAX: usize = 4096;

/// A padded message is never shorter than this (bytes).
pub const PADDED_BYTES_MIN: usize = 1024;

/// A message lives at most this long (seconds): 30 days, as long as Apple stores a push.
pub const MESSAGE_LIFETIME_SECONDS_MAX: u64 = 30 * 86_400;
/// Clocks of a sender and of a device may differ by this much (seconds).
pub const CLOCK_SKEW_SECONDS_MAX: u64 = 300;
/// A signed request is accepted this long before and after its `created` (seconds).
pub const REQUEST_WINDOW_SECONDS: u64 = 60;
/// A ticket may be claimed for this long (seconds).
pub const TICKET_LIFETIME_SECONDS: u64 = 15 * 60;
/// A client assertion lives at most this long (seconds), as in SMART Backend Services.
pub const ASSERTION_LIFETIME_SECONDS_MAX: u64 = 300;
/// An access token lives at most this long (seconds).
pub const ACCESS_TOKEN_LIFETIME_SECONDS_MAX: u64 = 300;
/// A new signed prekey is made after this long (seconds): 7 days.
pub const SIGNED_PREKEY_ROTATION_SECONDS: u64 = 7 * 86_400;
/// A signed prekey may be sealed to for this long (seconds): 30 days.
pub const SIGNED_PREKEY_SEAL_SECONDS: u64 = 30 * 86_400;

/// The highest sequence number that a claim on a slot may name: the one behind it is still a number that every
/// reader of JSON keeps exactly.
pub const SLOT_SEQUENCE_MAX: u64 = (1 << 53) - 2;
/// A key package lives at most this long (seconds): 84 days, begun an hour earlier for clocks that differ.
pub const KEY_PACKAGE_LIFETIME_SECONDS_MAX: u64 = 84 * 86_400 + 3600;

/// Devices that one submission may name.
pub const BOXES_PER_MESSAGE_MAX: usize = 16;
/// Waiting boxes that one sync returns.
pub const BOXES_PER_SYNC_MAX: usize = 64;
/// Bytes of sealed messages that one sync returns; at least one box is returned whatever its size.
pub const SYNC_BOX_BYTES_MAX: usize = 512 * 1024;
/// Receipts that one sync carries.
pub const RECEIPTS_PER_SYNC_MAX: usize = 128;

/// Bytes of a tenant id or of a subject name.
pub const NAME_BYTES_MAX: usize = 32;
/// Bytes of an address of a server.
pub const URL_BYTES_MAX: usize = 256;
/// Bytes of a push token (Apple fixes no length; Google's have about 160).
pub const PUSH_TOKEN_BYTES_MAX: usize = 512;
/// Bytes of a category code.
pub const CATEGORY_BYTES_MAX: usize = 64;
/// Languages of one text.
pub const LANGUAGES_MAX: usize = 16;
/// Bytes of a language tag (RFC 5646).
pub const LANGUAGE_BYTES_MAX: usize = 35;
/// Bytes of a title.
pub const TITLE_BYTES_MAX: usize = 256;
/// Bytes of a body text.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Data parts of one notification.
pub const PARTS_MAX: usize = 16;
/// Bytes of one data part.
pub const PART_BYTES_MAX: usize = 192 * 1024;
/// Bytes of a media type (RFC 6838 bounds type and subtype to 127 each).
pub const MEDIA_TYPE_BYTES_MAX: usize = 255;
/// Quick replies of one notification.
pub const REPLIES_MAX: usize = 8;
/// Bytes of the code of a quick reply.
pub const REPLY_CODE_BYTES_MAX: usize = 64;
/// Attachments of one notification.
pub const ATTACHMENTS_MAX: usize = 16;
