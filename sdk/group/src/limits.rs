//! Every count, size and duration that a group keeps to.

/// Members of a group.
pub const MEMBERS_MAX: usize = 500;
/// Members that one commit adds: a frame carries the device set of each.
pub const ADDS_PER_COMMIT_MAX: usize = SETS_PER_FRAME_MAX;
/// Stewards of a group.
pub const STEWARDS_MAX: usize = 64;
/// Bytes of a group's label.
pub const LABEL_BYTES_MAX: usize = 64;
/// Groups that one member keeps.
pub const GROUPS_MAX: usize = 1000;

/// Epochs before the current one whose messages can still be read.
pub const PAST_EPOCHS_MAX: usize = 5;
/// The keys of an epoch that is over are deleted after this long (seconds): 7 days.
pub const PAST_EPOCH_SECONDS_MAX: u64 = 7 * 86_400;
/// The newest messages of one author that can be read in any order, the newest of all among them.
pub const OUT_OF_ORDER_MAX: u32 = 20;
/// Messages of one author that may be missing before one that comes.
pub const FORWARD_DISTANCE_MAX: u32 = 1000;
/// A member updates its own leaf after this long (seconds): weekly.
pub const UPDATE_SECONDS: u64 = 7 * 86_400;
/// MLS messages are padded to multiples of this (bytes); the sealed box around them is padded anew.
pub const PADDING_BYTES: usize = 128;

/// Key packages that one call makes.
pub const KEY_PACKAGES_PER_BATCH_MAX: usize = 100;
/// Key packages whose private keys a member keeps.
pub const KEY_PACKAGES_KEPT_MAX: usize = 1000;
/// A key package is valid from this long before it was made (seconds), 28 days: a member whose clock runs behind can
/// still read the commit that uses it.
pub const KEY_PACKAGE_BACKDATE_SECONDS: u64 = 28 * 86_400;
/// A key package is valid for this long after it was made (seconds): 56 days.
pub const KEY_PACKAGE_LIFETIME_SECONDS: u64 = 56 * 86_400;
/// The longest range of a key package's lifetime that is accepted (seconds): 84 days and an hour.
pub const LIFETIME_RANGE_SECONDS_MAX: u64 = sealpost_wire::limits::KEY_PACKAGE_LIFETIME_SECONDS_MAX;

/// Bytes of the MLS message in a frame. What a sealed box holds is less: whoever seals the frames finds out before
/// anything is submitted, and discards the commit.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Device sets that one frame carries.
pub const SETS_PER_FRAME_MAX: usize = sealpost_wire::limits::MLS_SETS_MAX;
/// Bytes of a message's text.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Quick replies that a message offers.
pub const QUICK_REPLIES_MAX: usize = 8;
/// Bytes of the code of a quick reply.
pub const REPLY_CODE_BYTES_MAX: usize = 64;
/// Bytes of what a quick reply is shown as.
pub const REPLY_LABEL_BYTES_MAX: usize = 128;
/// Bytes of a message, all of it.
pub const CONTENT_BYTES_MAX: usize = 24 * 1024;

/// The slot's first sequence is a random number below this, so that a sequence tells no epoch.
pub const SEQUENCE_OFFSET_BELOW: u64 = 1 << 48;
