//! Whom limits count a connection or a request for: an address, or the network behind which one caller has as
//! many addresses as it likes.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// What reverse proxies name the addresses in that they speak for, the nearest last.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Addresses of [`FORWARDED_FOR`] that are looked at, from the end.
const FORWARDED_MAX: usize = 16;
/// What one customer of a network gets at least (RFC 6177): addresses in it are one caller.
const IPV6_PREFIX_BITS: u8 = 64;

/// A caller by its address: an IPv4 address, or the /64 network of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(IpAddr);

impl Peer {
    /// The caller at `address`.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(masked(IpAddr::V6(address), IPV6_PREFIX_BITS)),
            address => Self(address),
        }
    }

    /// The caller of a request that came from `address`: behind a proxy, the nearest address that is not one.
    /// What a proxy of this operator has not written itself is not believed.
    pub(super) fn of_request(address: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> Self {
        let is_proxy = |address: IpAddr| proxies.iter().any(|network| network.contains(address));
        let mut nearest = address;
        if !is_proxy(nearest) {
            return Self::of(nearest);
        }
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let named = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        for named in named.take(FORWARDED_MAX) {
            // Something that is no address stands where the proxy was to name its client: the proxy answers for it.
            let Ok(named) = named.trim().parse::<IpAddr>() else { break };
            nearest = named;
            if !is_proxy(nearest) {
                break;
            }
        }
        Self::of(nearest)
    }
}

/// Nobody in particular: requests that did not come over a connection of this server.
impl Default for Peer {
    fn default() -> Self {
        Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// An address or a network, as `10.0.0.1` or `10.0.0.0/8`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.bits) == self.address
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(one, bits)| (one, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| NetworkError)?;
        let network = Self { address, bits };
        if bits <= most && masked(address, bits) == address { Ok(network) } else { Err(NetworkError) }
    }
}

/// A text that is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a network is an address, or an address and its prefix such as 10.0.0.0/8")]
pub struct NetworkError;

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Connections that are open, by caller.
pub(super) struct Places {
    taken: Mutex<HashMap<Peer, usize>>,
    per_peer_max: usize,
}

/// A connection's place; given back when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    peer: Peer,
}

impl Places {
    pub(super) fn new(per_peer_max: usize) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), per_peer_max })
    }

    /// A place for one more connection of `peer`; nothing when it has as many as it may.
    pub(super) fn take(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(peer).or_default();
        if *count >= self.per_peer_max {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

/// `address` with all bits behind the first `bits` cleared.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    let bits = u32::from(bits);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_caller_is_an_ipv4_address_or_a_network_of_64_bits() {
        let same = |one: &str, other: &str| Peer::of(address(one)) == Peer::of(address(other));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("192.0.2.1", "::ffff:192.0.2.1"));
    }

    #[test]
    fn networks_are_read_as_they_are_written() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.1", "11.0.0.0"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::1", "::1", "::2"),
            ("127.0.0.1", "::ffff:127.0.0.1", "127.0.0.2"),
        ] {
            let network: Network = text.parse().unwrap();
            assert!(network.contains(address(inside)), "{text} {inside}");
            assert!(!network.contains(address(outside)), "{text} {outside}");
        }
        for bad in ["", "10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "proxy", "10.0.0.0/8/8"] {
            assert_eq!(bad.parse::<Network>(), Err(NetworkError), "{bad}");
        }
    }

    #[test]
    fn only_a_proxy_of_the_configuration_says_whom_it_speaks_for() {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let caller = |from: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            Peer::of_request(address(from), &headers, &proxies)
        };
        let is = |text: &str| Peer::of(address(text));
        assert_eq!(caller("203.0.113.9", &["192.0.2.1"]), is("203.0.113.9"), "a stranger's word");
        assert_eq!(caller("10.0.0.1", &["192.0.2.1"]), is("192.0.2.1"));
        assert_eq!(caller("10.0.0.1", &["198.51.100.7, 192.0.2.1, 10.9.9.9"]), is("192.0.2.1"));
        assert_eq!(caller("10.0.0.1", &["198.51.100.7", "192.0.2.1"]), is("192.0.2.1"));
        assert_eq!(caller("10.0.0.1", &[]), is("10.0.0.1"));
        assert_eq!(caller("10.0.0.1", &["192.0.2.1, unknown"]), is("10.0.0.1"));
    }

    #[test]
    fn a_place_is_given_back() {
        let places = Places::new(2);
        let (one, other) = (Peer::of(address("192.0.2.1")), Peer::of(address("192.0.2.2")));
        let held = [places.take(one).unwrap(), places.take(one).unwrap()];
        assert!(places.take(one).is_none());
        assert!(places.take(other).is_some());
        drop(held);
        assert!(places.take(one).is_some());
        assert!(places.taken.lock().unwrap().is_empty(), "nothing is remembered of who has gone");
    }
}
