//! Numbers and addresses as text, without the machinery of `fmt` and `FromStr`: each request has several.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};

/// Appends a number in decimal digits.
pub fn push_decimal(out: &mut impl Write, number: u32) {
    // What is written to here takes all of it.
    let _ = out.write_all(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends an address as `std` prints it, an IPv6 one without brackets.
pub fn push_ip(out: &mut impl Write, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let mut text = [b'.'; 15];
            let mut end = 0;
            for (place, octet) in address.octets().into_iter().enumerate() {
                end += usize::from(place > 0);
                for (least, digit) in [(100, octet / 100), (10, octet / 10 % 10), (0, octet % 10)] {
                    if octet >= least {
                        text[end] = b'0' + digit;
                        end += 1;
                    }
                }
            }
            let _ = out.write_all(&text[..end]);
        }
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// Reads an IPv4 address as `std` reads it: four numbers up to 255, without leading zeros.
pub(super) fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let (mut place, mut digits) = (0, 0);
    for byte in text {
        match byte {
            b'0'..=b'9' if digits == 0 || octets[place] > 0 => {
                octets[place] = octets[place].checked_mul(10)?.checked_add(byte - b'0')?;
                digits += 1;
            }
            b'.' if digits > 0 && place < 3 => (place, digits) = (place + 1, 0),
            _ => return None,
        }
    }
    (place == 3 && digits > 0).then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ipv4_addresses_are_read_as_std_reads_them(text in "[0-3x]?[0-9]{0,3}(\\.(25[0-9]|[0-9]{0,4}|1?[0-9]?)){2,4}") {
            prop_assert_eq!(ipv4(text.as_bytes()), text.parse().ok());
        }
    }

    #[test]
    fn addresses_are_written_as_std_prints_them() {
        for text in ["0.0.0.0", "255.255.255.255", "192.0.2.1", "10.200.3.40", "::1", "2001:db8::7", "::ffff:192.0.2.1"]
        {
            let address: IpAddr = text.parse().expect("an address");
            let mut out = Vec::new();
            push_ip(&mut out, address);
            assert_eq!(String::from_utf8(out).expect("ascii"), address.to_string());
        }
    }
}
