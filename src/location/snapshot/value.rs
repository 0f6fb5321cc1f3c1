//! What lies on disk under one name: sealed, so that what is damaged is noticed. Knows no database.
//!
//! `version (1) · check (8) · body`, the check over the name and the body: flipped bytes must not become a contact that nobody
//! registered, nor one under another's name.
//!
//! | version | name | body |
//! |---|---|---|
//! | 1 | an AoR | its record, in the same codec as in frames |
//! | 2 | none | the records of a block as the table keeps them, and what their words mean (`blocks`) |

use std::hash::Hasher;

use aorta_proto::{Aor, Record};
use siphasher::sip::SipHasher13;

/// The version of a record. A newer one than is known here is left alone: it belongs to a newer aorta.
const RECORD: u8 = 1;

/// The version of the records of a block.
const PACKED: u8 = 2;

/// The largest record that is read, bytes: thousands of times what a REGISTER may write, yet no decoder allocates more.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// Bytes of the version and the check.
pub(super) const SEAL_BYTES: usize = 1 + 8;

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

/// A value whose seal is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sealed<'a> {
    /// What is known of the AoR that it lies under.
    Record(Record),
    /// The records of a block.
    Packed(&'a [u8]),
}

/// Appends the bytes of a record.
///
/// # Errors
/// Whatever the codec refuses: no record that a REGISTER can make. Then some bytes may have been appended.
pub fn encode(aor: &Aor, record: &Record, out: &mut Vec<u8>) -> Result<(), bincode::error::EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; SEAL_BYTES]);
    bincode::serde::encode_into_std_write(record, out, codec())?;
    seal(RECORD, aor.as_str().as_bytes(), out.get_mut(start..).unwrap_or_default());
    Ok(())
}

/// Seals the records of a block, which have left [`SEAL_BYTES`] in front of them.
pub(super) fn seal_packed(value: &mut [u8]) {
    seal(PACKED, &[], value);
}

fn seal(version: u8, name: &[u8], value: &mut [u8]) {
    if let Some(([kind, place @ ..], body)) = value.split_first_chunk_mut::<SEAL_BYTES>() {
        *kind = version;
        *place = check(name, body).to_le_bytes();
    }
}

/// The record of these bytes.
///
/// # Errors
/// [`ValueError`]: not what was written under this AoR, or by a newer version.
pub fn decode(aor: &Aor, bytes: &[u8]) -> Result<Record, ValueError> {
    match unseal(aor.as_str().as_bytes(), bytes)? {
        Sealed::Record(record) => Ok(record),
        Sealed::Packed(_) => Err(ValueError::Damaged),
    }
}

/// What a value holds.
///
/// # Errors
/// [`ValueError`]: not what was written under this name, or by a newer version.
pub(super) fn unseal<'a>(name: &[u8], value: &'a [u8]) -> Result<Sealed<'a>, ValueError> {
    let ([version, expected @ ..], body) = value.split_first_chunk::<SEAL_BYTES>().ok_or(ValueError::Damaged)?;
    if ![RECORD, PACKED].contains(version) {
        return Err(ValueError::Version(*version));
    }
    if u64::from_le_bytes(*expected) != check(name, body) {
        return Err(ValueError::Damaged);
    }
    if *version == PACKED {
        return Ok(Sealed::Packed(body));
    }
    match bincode::serde::decode_from_slice(body, codec()) {
        Ok((record, used)) if used == body.len() => Ok(Sealed::Record(record)),
        _ => Err(ValueError::Damaged),
    }
}

fn codec() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>()
}

fn check(name: &[u8], body: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(CHECK_KEY);
    hasher.write(&(name.len() as u64).to_le_bytes());
    hasher.write(name);
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
            let bytes = [&[RECORD][..], &check(aor(1).as_str().as_bytes(), &body).to_le_bytes(), &body].concat();
            assert_eq!(decode(&aor(1), &bytes), Err(ValueError::Damaged));
        }
    }

    #[test]
    fn a_newer_version_is_not_damage() {
        let mut bytes = encoded(&aor(1), &sample());
        bytes[0] = 3;
        assert_eq!(decode(&aor(1), &bytes), Err(ValueError::Version(3)));
        bytes[0] = PACKED;
        assert_eq!(decode(&aor(1), &bytes), Err(ValueError::Damaged));
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
