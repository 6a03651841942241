//! Key packages: made by the app, durable before they are uploaded, refilled when the keyserver says that few are left.

use std::time::Duration;

use sealpost_group::GroupSuite;
use sealpost_wire::api::keyserver::{KeyPackageCount, KeyPackageUpload, KeyPackagesStored};
use sealpost_wire::base64url::Base64Url;

use crate::Device;
use crate::error::DeviceError;
use crate::http::json;

/// Key packages that the keyserver is to hold for each suite.
const KEY_PACKAGES_TARGET: u32 = 30;
/// Below this many, new ones are made.
const KEY_PACKAGES_LOW: u32 = 15;
/// A new last resort is made when the old one ends in this time (seconds): 28 days.
const LAST_RESORT_SECONDS_MIN: u64 = 28 * 86_400;
/// What the keyserver is to be told: every earlier key package is void.
pub(crate) const VOID: &str = "key_packages_void";
/// After the keyserver has refused key packages, others are made in this time (seconds): a day.
const REFUSED_SECONDS: u64 = 86_400;
/// The counter of when that is (seconds).
const AGAIN: &str = "key_packages_again";

impl Device {
    /// Refills key packages and renews those of last resort, where the keyserver says that it is needed. `restored` if
    /// the keyserver has lost those that it had. Returns how many were uploaded.
    pub(crate) fn maintain_key_packages(
        &mut self,
        left: &[KeyPackageCount],
        restored: bool,
    ) -> Result<usize, DeviceError> {
        let mut uploaded = self.upload_key_packages()?;
        if self.make_key_packages(left, restored)? {
            uploaded += self.upload_key_packages()?;
        }
        Ok(uploaded)
    }

    fn make_key_packages(&mut self, left: &[KeyPackageCount], restored: bool) -> Result<bool, DeviceError> {
        self.group_work(|work| {
            work.groups(|groups| groups.forget_old_key_packages())?;
            if work.change.counter(AGAIN)?.cast_unsigned() > work.now.0 {
                return Ok(false);
            }
            let void = restored || work.change.counter(VOID)? != 0;
            let suites: Vec<GroupSuite> = work.own.member.suites().to_vec();
            let mut made_any = false;
            for suite in suites {
                let count = left.iter().find(|count| count.suite == suite.code()).filter(|_| !void);
                let lasts = work.now.plus(LAST_RESORT_SECONDS_MIN);
                let last_resort =
                    count.and_then(|count| count.last_resort_until).is_none_or(|until| until < lasts);
                let one_time = match count.map_or(0, |count| count.one_time) {
                    KEY_PACKAGES_LOW.. => 0,
                    few => KEY_PACKAGES_TARGET - few,
                };
                if one_time == 0 && !last_resort {
                    continue;
                }
                let (packages, resort) = work.groups(|groups| {
                    let packages = groups.make_key_packages(one_time as usize, suite, false)?;
                    let resort = groups.make_key_packages(usize::from(last_resort), suite, true)?;
                    Ok((packages, resort))
                })?;
                let upload = KeyPackageUpload {
                    suite: suite.code(),
                    packages: packages.into_iter().map(Base64Url).collect(),
                    last_resort: resort.into_iter().next().map(Base64Url),
                    replace: void,
                };
                work.change.insert_key_package_batch(&json(&upload)?)?;
                made_any = true;
            }
            work.change.set_counter(VOID, 0)?;
            Ok(made_any)
        })
    }

    fn upload_key_packages(&mut self) -> Result<usize, DeviceError> {
        let mut uploaded = 0;
        for (id, upload) in self.store.key_package_batches()? {
            let body: KeyPackageUpload =
                serde_json::from_slice(&upload).map_err(|_| DeviceError::Unreadable)?;
            let path = format!("/v1/devices/{}/key-packages", self.enrolled.device);
            let keyserver = self.enrolled.keyserver.clone();
            let stored: Result<KeyPackagesStored, _> =
                self.call("PUT", &keyserver, path, upload, Duration::ZERO);
            match stored {
                Ok(_) => uploaded += body.packages.len() + usize::from(body.last_resort.is_some()),
                Err(error) if error.is_temporary() => return Err(error),
                Err(error) => {
                    // The same bytes will never do: others are made in their place, but not with every call.
                    let again = self.clock.now().plus(REFUSED_SECONDS);
                    self.store.change(|change| {
                        change.delete_key_package_batch(id)?;
                        change.set_counter(AGAIN, again.0.cast_signed())?;
                        change.set_counter(VOID, 1)
                    })?;
                    return Err(error);
                }
            }
            self.store.change(|change| change.delete_key_package_batch(id))?;
        }
        Ok(uploaded)
    }
}
