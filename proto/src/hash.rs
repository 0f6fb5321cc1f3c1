//! 64-bit fingerprints kept in entries. Part of the law: every node computes the same, in every version.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

/// Fixed for ever: fingerprints lie in snapshots and travel between versions.
const CALL_ID_KEY: (u64, u64) = (0x616f_7274_612e_6361, 0x6c6c_2d69_642e_7631);
const URI_KEY: (u64, u64) = (0x616f_7274_612e_636f, 0x6e74_6163_742e_7631);

/// The fingerprint of a Call-ID: its bytes as they came (Call-IDs compare byte by byte, RFC 3261 §8.1.1.4).
#[must_use]
pub fn call_id_hash(call_id: &[u8]) -> u64 {
    keyed(CALL_ID_KEY, call_id)
}

/// The fingerprint of a Contact URI in the form of [`crate::uri::canonical_contact`].
#[must_use]
pub fn uri_hash(canonical: &[u8]) -> u64 {
    keyed(URI_KEY, canonical)
}

fn keyed((k0, k1): (u64, u64), bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(k0, k1);
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_never_change() {
        assert_eq!(call_id_hash(b"a84b4c76e66710@pc33.atlanta.com"), 14_521_097_564_049_697_388);
        assert_eq!(uri_hash(b"sip:alice@192.0.2.1:5060"), 4_172_897_894_749_204_259);
        assert_ne!(call_id_hash(b"x"), uri_hash(b"x"));
    }
}
