//! Numbers, times and addresses in few characters, for tables. The bounds that the functions
//! state hold for every value.

use std::net::SocketAddr;
use std::time::Duration;

/// At most five characters: `9.5s`, `4m05s`, `12m`, `3h10m`, `2d05h`.
pub fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if minutes == 0 => format!("{seconds}.{}s", time.subsec_millis() / 100),
        () if minutes < 10 => format!("{minutes}m{:02}s", seconds % 60),
        () if hours == 0 => format!("{minutes}m"),
        () if hours < 24 => format!("{hours}h{:02}m", minutes % 60),
        () if days < 100 => format!("{days}d{:02}h", hours % 24),
        () => format!("{}d", days.min(9_999)),
    }
}

/// At most six characters: `999999`, then `1.00M`, `10.0M`, `100M`, `1.00G`.
pub fn number(number: u64) -> String {
    if number < 1_000_000 {
        return number.to_string();
    }
    three_digits(number as f64, &[(1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P"), (1e18, "E")])
}

/// A number that may have a fraction: one digit of it where that says something.
pub fn fraction(number: f64) -> String {
    if number < 10.0 && number.fract() > 0.0 {
        format!("{number:.1}")
    } else {
        self::number(number.round() as u64)
    }
}

/// Three digits and a unit: `41.5 µs`, `2.10 ms`, `12.0 s`.
pub fn latency(time: Duration) -> String {
    three_digits(time.as_secs_f64(), &[(1e-6, " µs"), (1e-3, " ms"), (1.0, " s")])
}

/// The number in the first of these units in which it has three digits; otherwise in the last.
fn three_digits(number: f64, units: &[(f64, &str)]) -> String {
    // 999.5 would be rounded to a fourth digit.
    let fits = |(unit, _): &&(f64, &str)| number / unit < 999.5;
    let (unit, name) = units.iter().find(fits).unwrap_or(&units[units.len() - 1]);
    let number = number / unit;
    let digits = if number < 9.995 { 2 } else { usize::from(number < 99.95) };
    format!("{number:.digits$}{name}")
}

/// At most `width` characters: of a long address the middle is left out, so that
/// the port stays.
pub fn address(address: SocketAddr, width: usize) -> String {
    let text = address.to_string();
    if text.len() <= width {
        return text;
    }
    let port = format!("…{}:{}", if address.is_ipv6() { "]" } else { "" }, address.port());
    let start: String = text.chars().take(width.saturating_sub(port.chars().count())).collect();
    start + &port
}

/// A client in at most `width` characters; with the balancer through which it comes, if both
/// addresses have room.
pub fn client(client: SocketAddr, via: Option<SocketAddr>, width: usize) -> String {
    let both = via.map(|via| format!("{client} via {via}"));
    both.filter(|text| text.len() <= width).unwrap_or_else(|| address(client, width))
}

/// A bar, `width` characters long where `part` is `whole`; never none for something.
pub fn bar(part: f64, whole: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let share = if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 };
    let eighths = (share * (width * 8) as f64).round() as usize;
    let eighths = if part > 0.0 { eighths.max(1) } else { eighths };
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_numbers_addresses_and_bars_look_like_this() {
        let seconds = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(span(Duration::from_millis(9_540)), "9.5s");
        assert_eq!([seconds(59), seconds(245), seconds(720)], ["59.0s", "4m05s", "12m"]);
        assert_eq!([seconds(11_400), seconds(190_800)], ["3h10m", "2d05h"]);
        assert_eq!(number(999_999), "999999");
        assert_eq!([number(1_000_000), number(12_345_678), number(999_999_999)], ["1.00M", "12.3M", "1.00G"]);
        let long = "[2001:db8:1:2:3:4:5:6]:40312".parse().unwrap();
        assert_eq!(address(long, 21), "[2001:db8:1:2…]:40312");
        assert_eq!(address("127.0.0.1:40312".parse().unwrap(), 21), "127.0.0.1:40312");
        assert_eq!(address("192.168.100.100:65535".parse().unwrap(), 17), "192.168.10…:65535");
        let [one, other] = ["192.0.2.7:40312", "127.0.0.2:51000"].map(|address| address.parse().unwrap());
        assert_eq!(client(one, Some(other), 35), "192.0.2.7:40312 via 127.0.0.2:51000");
        assert_eq!([client(one, Some(other), 34), client(one, None, 34)], ["192.0.2.7:40312"; 2]);
        assert_eq!([fraction(0.0), fraction(2.0), fraction(2.25), fraction(12.7)], ["0", "2", "2.2", "13"]);
        let micros = |micros| latency(Duration::from_nanos((micros * 1e3) as u64));
        assert_eq!([micros(0.5), micros(41.46), micros(999.6)], ["0.50 µs", "41.5 µs", "1.00 ms"]);
        assert_eq!([micros(2_100.0), micros(150_000.0), micros(6.5e6)], ["2.10 ms", "150 ms", "6.50 s"]);
        assert_eq!([bar(5.0, 10.0, 8), bar(0.001, 10.0, 8), bar(0.0, 0.0, 8)], ["████", "▏", ""]);
    }

    proptest! {
        #[test]
        fn they_fit(any in any::<u64>(), seconds in any::<u64>(), part in any::<f64>(), whole in any::<f64>()) {
            prop_assert!(number(any).len() <= 6);
            prop_assert!(span(Duration::from_secs(seconds)).len() <= 5);
            prop_assert!(bar(part, whole, 10).chars().count() <= 10);
        }
    }
}
