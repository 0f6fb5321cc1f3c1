//! Bytes written piece by piece where a request is read. `SmallVec` inserts a piece: two copies and a call each, however
//! short; here it is one copy, and each request has dozens of pieces.

use std::fmt;
use std::io::{self, Write};
use std::ops::Deref;

/// Bytes on the stack; on the heap once they are more than `ROOM`.
#[derive(Clone)]
pub struct StackBytes<const ROOM: usize>(Place<ROOM>);

#[derive(Clone)]
enum Place<const ROOM: usize> {
    Stack { bytes: [u8; ROOM], len: usize },
    Heap(Vec<u8>),
}

impl<const ROOM: usize> StackBytes<ROOM> {
    /// No bytes.
    #[must_use]
    pub fn new() -> Self {
        Self(Place::Stack { bytes: [0; ROOM], len: 0 })
    }

    /// Appends a piece.
    #[inline]
    pub fn extend_from_slice(&mut self, piece: &[u8]) {
        if let Place::Stack { bytes, len } = &mut self.0
            && let Some(room) = bytes[*len..].get_mut(..piece.len())
        {
            room.copy_from_slice(piece);
            *len += piece.len();
        } else {
            self.extend_on_heap(piece);
        }
    }

    #[cold]
    fn extend_on_heap(&mut self, piece: &[u8]) {
        match &mut self.0 {
            Place::Stack { bytes, len } => self.0 = Place::Heap([&bytes[..*len], piece].concat()),
            Place::Heap(bytes) => bytes.extend_from_slice(piece),
        }
    }

    /// Appends a byte.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.extend_from_slice(&[byte]);
    }

    /// Cuts off what is beyond `len_max`.
    pub fn truncate(&mut self, len_max: usize) {
        match &mut self.0 {
            Place::Stack { len, .. } => *len = len_max.min(*len),
            Place::Heap(bytes) => bytes.truncate(len_max),
        }
    }
}

impl<const ROOM: usize> Default for StackBytes<ROOM> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const ROOM: usize> Deref for StackBytes<ROOM> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Stack { bytes, len } => &bytes[..*len],
            Place::Heap(bytes) => bytes,
        }
    }
}

impl<const ROOM: usize> Extend<u8> for StackBytes<ROOM> {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        bytes.into_iter().for_each(|byte| self.push(byte));
    }
}

impl<const ROOM: usize> FromIterator<u8> for StackBytes<ROOM> {
    fn from_iter<T: IntoIterator<Item = u8>>(bytes: T) -> Self {
        let mut made = Self::new();
        made.extend(bytes);
        made
    }
}

impl<const ROOM: usize> Write for StackBytes<ROOM> {
    #[inline]
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(piece);
        Ok(piece.len())
    }

    #[inline]
    fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        self.extend_from_slice(piece);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<const ROOM: usize> PartialEq for StackBytes<ROOM> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<const ROOM: usize> Eq for StackBytes<ROOM> {}

impl<const ROOM: usize> PartialOrd for StackBytes<ROOM> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<const ROOM: usize> Ord for StackBytes<ROOM> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl<const ROOM: usize> fmt::Debug for StackBytes<ROOM> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_stand_one_after_the_other_on_the_stack_and_on_the_heap() {
        let mut bytes = StackBytes::<4>::new();
        let mut expected = Vec::new();
        for piece in ["ab", "", "cd", "", "e", "fgh"] {
            bytes.extend_from_slice(piece.as_bytes());
            expected.extend_from_slice(piece.as_bytes());
            assert_eq!(*bytes, *expected);
        }
        bytes.truncate(9);
        assert_eq!(&*bytes, b"abcdefgh");
        bytes.truncate(1);
        bytes.push(b'x');
        assert_eq!(bytes, b"ax".iter().copied().collect());
        let mut few = StackBytes::<4>::new();
        few.extend(*b"abc");
        few.truncate(1);
        assert_eq!(&*few, b"a");
    }
}
