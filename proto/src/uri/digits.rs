//! Numbers and addresses as text, without the machinery of `fmt`: each request writes several.

use std::io::Write;
use std::net::IpAddr;

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
                let mut buffer = itoa::Buffer::new();
                let digits = buffer.format(octet).as_bytes();
                text[end..end + digits.len()].copy_from_slice(digits);
                end += digits.len();
            }
            let _ = out.write_all(&text[..end]);
        }
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
