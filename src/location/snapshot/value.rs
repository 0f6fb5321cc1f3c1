//! A record as bytes of a snapshot, and back. Knows no database.
//!
//! `version (1) · check (8) · record`, the record in the same codec as in frames. The check is over the AoR and the record:
//! flipped bytes must not become a contact that nobody registered, nor one under another's name.

use std::hash::Hasher;

use aorta_proto::{Aor, Record};
use siphasher::sip::SipHasher13;

/// Written first in every value. A newer one is left alone: it belongs to a newer aorta.
const VERSION: u8 = 1;

/// The largest record that is read, bytes: thousands of times what a REGISTER may write, yet no decoder allocates more.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// Bytes of the check.
const CHECK_BYTES: usize = 8;

/// Turns the check into ours; not a secret.
const CHECK_KEY: &[u8; 16] = b"aorta snapshot/1";

/// Why a value could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Written by a newer aorta.
    #[error("version {0} is not known here")]
    Version(u8),
    /// Not what was written.
    #[error("damaged")]
    Damaged,
}

/// Appends the bytes of a record.
///
/// # Errors
/// Whatever the codec refuses: no record that a REGISTER can make. Then some bytes may have been appended.
pub fn encode(aor: &Aor, record: &Record, out: &mut Vec<u8>) -> Result<(), bincode::error::EncodeError> {
    out.push(VERSION);
    let check_at = out.len();
    out.extend_from_slice(&[0; CHECK_BYTES]);
    bincode::serde::encode_into_std_write(record, out, codec())?;
    if let Some((place, body)) = out.get_mut(check_at..).and_then(|rest| rest.split_first_chunk_mut::<CHECK_BYTES>()) {
        *place = check(aor, body).to_le_bytes();
    }
    Ok(())
}

/// The record of these bytes.
///
/// # Errors
/// [`ValueError`]: not what was written under this AoR, or by a newer version.
pub fn decode(aor: &Aor, bytes: &[u8]) -> Result<Record, ValueError> {
    let (&version, rest) = bytes.split_first().ok_or(ValueError::Damaged)?;
    if version != VERSION {
        return Err(ValueError::Version(version));
    }
    let (expected, body) = rest.split_first_chunk::<CHECK_BYTES>().ok_or(ValueError::Damaged)?;
    if u64::from_le_bytes(*expected) != check(aor, body) {
        return Err(ValueError::Damaged);
    }
    match bincode::serde::decode_from_slice(body, codec()) {
        Ok((record, used)) if used == body.len() => Ok(record),
        _ => Err(ValueError::Damaged),
    }
}

fn codec() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>()
}

fn check(aor: &Aor, body: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(CHECK_KEY);
    hasher.write(&(aor.as_str().len() as u64).to_le_bytes());
    hasher.write(aor.as_str().as_bytes());
    hasher.write(body);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{aor, entry};
    use super::*;

    fn encoded(aor: &Aor, record: &Record) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(aor, record, &mut bytes).unwrap();
        bytes
    }

    fn sample() -> Record {
        let mut record = Record::from(entry(1, 100, Some(60)));
        record.merge(&entry(2, 200, None).into());
        record
    }

    #[test]
    fn a_record_comes_back_and_every_damaged_byte_is_noticed() {
        let bytes = encoded(&aor(1), &sample());
        assert_eq!(decode(&aor(1), &bytes), Ok(sample()));
        assert_eq!(decode(&aor(2), &bytes), Err(ValueError::Damaged));
        for at in 1..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert_eq!(decode(&aor(1), &flipped), Err(ValueError::Damaged), "byte {at}");
            assert_eq!(decode(&aor(1), &bytes[..at]), Err(ValueError::Damaged), "cut at {at}");
        }
        assert_eq!(decode(&aor(1), &[]), Err(ValueError::Damaged));
        assert_eq!(decode(&aor(1), &[&bytes[..], &[0]].concat()), Err(ValueError::Damaged));
    }

    #[test]
    fn a_body_with_bytes_to_spare_or_absurd_lengths_is_damaged_though_its_check_is_right() {
        let body = bincode::serde::encode_to_vec(sample(), codec()).unwrap();
        for body in [[&body[..], &[0]].concat(), vec![0, 253, 255, 255, 255, 255, 255, 255, 255, 0]] {
            let bytes = [&[VERSION][..], &check(&aor(1), &body).to_le_bytes(), &body].concat();
            assert_eq!(decode(&aor(1), &bytes), Err(ValueError::Damaged));
        }
    }

    #[test]
    fn a_newer_version_is_not_damage() {
        let mut bytes = encoded(&aor(1), &sample());
        bytes[0] = 2;
        assert_eq!(decode(&aor(1), &bytes), Err(ValueError::Version(2)));
    }

    #[test]
    fn the_bytes_are_those_of_yesterday() {
        let bytes = encoded(&aor(2), &entry(2, 200, None).into());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "010b910aeb45b7b40e000110757369703a75403139322e302e322e32fc00c2eb0b0001fdfaf39cbe13b1ea1e01fd7ed4dc85543e0e2300"
        );
    }
}
