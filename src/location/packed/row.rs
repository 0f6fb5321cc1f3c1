//! Packed records in a row, and what their words mean: as disks and links carry them. Knows neither.
//!
//! `length (4) · record` for each, 0 (4), [`Glossary`]; lengths little-endian.

use super::Glossary;

/// Bytes of the length of a record.
const LENGTH_BYTES: usize = 4;

/// Appends a record, as [`super::Packed::told`] gives it.
pub(in crate::location) fn push(told: &[u8], out: &mut Vec<u8>) {
    // A record has far less than 4 GiB.
    out.extend_from_slice(&u32::try_from(told.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(told);
}

/// What a record takes in a row, with this glossary at its end, bytes.
pub(in crate::location) fn bytes(told: &[u8], glossary: &[u8]) -> usize {
    LENGTH_BYTES + told.len() + LENGTH_BYTES + glossary.len()
}

/// Appends what ends a row: its glossary.
pub(in crate::location) fn end(glossary: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.extend_from_slice(glossary);
}

/// The first record of a row, and what follows; the end of a row has none.
pub(in crate::location) fn next(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = row.split_first_chunk::<LENGTH_BYTES>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 { None } else { rest.split_at_checked(length) }
}

/// Gives every record of a whole row to `found`, with what its words mean. `None` when it is no row; nothing was given then.
/// `glossary` is memory that is used again.
pub(in crate::location) fn read(
    row: &[u8],
    glossary: &mut Glossary,
    mut found: impl FnMut(&[u8], (&mut Glossary, &[u8])),
) -> Option<()> {
    let mut rest = row;
    while let Some((_, after)) = next(rest) {
        rest = after;
    }
    let (_, explained) = rest.split_first_chunk().filter(|(end, _)| **end == [0; LENGTH_BYTES])?;
    glossary.read(explained)?;
    rest = row;
    while let Some((record, after)) = next(rest) {
        rest = after;
        found(record, (&mut *glossary, explained));
    }
    Some(())
}
