//! Texts and addresses as numbers, because the scoreboard holds nothing else. What is read
//! may be noise: the functions here make no panic of it, and no text that harms a terminal.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;

/// Stores eight bytes in a number; what has no room is cut.
pub(super) fn store_text(place: &[AtomicU64], text: &str) {
    let mut bytes = text.bytes();
    for number in place {
        let eight = std::array::from_fn(|_| bytes.next().unwrap_or(0));
        number.store(u64::from_le_bytes(eight), Relaxed);
    }
}

/// Loads a text. Each character can be printed, whatever the bytes are (see [`is_harmless`]).
pub(super) fn load_text(place: &[AtomicU64]) -> String {
    let bytes: Vec<u8> = place.iter().flat_map(|number| number.load(Relaxed).to_le_bytes()).collect();
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).chars().filter(|char| is_harmless(*char)).collect()
}

/// Is the character visible, and shown as itself and in its place? True for ASCII and the
/// Latin letters, which include "µ". False for control characters, those that turn the
/// text or take no room, and letters written from right to left.
fn is_harmless(char: char) -> bool {
    matches!(char, ' '..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{24f}')
}

/// Stores an address in three numbers. The first is the kind, the port, and the IPv4
/// address or the IPv6 scope; the others are an IPv6 address.
///
/// The writer must be the only one. For readers, which may come at any time, the first
/// number is cleared before the others change, and set after.
pub(super) fn store_address(place: &[AtomicU64; 3], address: Option<SocketAddr>) {
    let head = |kind: u64, port: u16, rest: u32| kind << 48 | u64::from(port) << 32 | u64::from(rest);
    match address {
        None => place[0].store(0, Relaxed),
        Some(SocketAddr::V4(v4)) => place[0].store(head(4, v4.port(), v4.ip().to_bits()), Relaxed),
        Some(SocketAddr::V6(v6)) => {
            place[0].store(0, Relaxed);
            fence(Release);
            let bits = v6.ip().to_bits();
            place[1].store((bits >> 64) as u64, Relaxed);
            place[2].store(bits as u64, Relaxed);
            place[0].store(head(6, v6.port(), v6.scope_id()), Release);
        }
    }
}

/// Loads an address. None: there is none, or it changes at this moment.
pub(super) fn load_address(place: &[AtomicU64; 3]) -> Option<SocketAddr> {
    let head = place[0].load(Relaxed);
    fence(Acquire);
    let (port, rest) = ((head >> 32) as u16, head as u32);
    match head >> 48 {
        4 => Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(rest)), port)),
        6 => {
            let bits = u128::from(place[1].load(Relaxed)) << 64 | u128::from(place[2].load(Relaxed));
            fence(Acquire);
            let whole = place[0].load(Relaxed) == head;
            whole.then(|| SocketAddrV6::new(Ipv6Addr::from_bits(bits), port, 0, rest).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place<const N: usize>() -> [AtomicU64; N] {
        std::array::from_fn(|_| AtomicU64::new(u64::MAX))
    }

    #[test]
    fn a_text_comes_back_cut_to_the_place_that_it_has() {
        let place: [_; 2] = place();
        for (text, back) in [("", ""), ("worker", "worker"), ("seventeen letters", "seventeen letter")] {
            store_text(&place, text);
            assert_eq!(load_text(&place), back);
        }
        store_text(&place, "a\x1b[31mé\n");
        assert_eq!(load_text(&place), "a[31mé");
        store_text(&place, "5µs\u{202e}\u{ad}א\u{fe0f}.");
        assert_eq!(load_text(&place), "5µs.");
    }

    #[test]
    fn an_address_comes_back() {
        let place: [_; 3] = place();
        for text in ["127.0.0.1:40312", "255.255.255.255:65535", "[::1]:7777", "[fe80::1%3]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            store_address(&place, Some(address));
            assert_eq!(load_address(&place), Some(address));
        }
        store_address(&place, None);
        assert_eq!(load_address(&place), None);
    }

    proptest! {
        #[test]
        fn noise_is_read_without_a_panic(numbers in prop::array::uniform16(any::<u64>())) {
            let place = numbers.map(AtomicU64::new);
            load_address(&[0, 1, 2].map(|at| AtomicU64::new(numbers[at])));
            prop_assert!(load_text(&place).chars().all(is_harmless));
        }
    }
}
