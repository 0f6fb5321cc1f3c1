//! The header lines of a message, found by their name. Knows no header's inside.

use std::ops::{Deref, Range};

use smallvec::SmallVec;

use super::Fault;
use super::lines::Name;

/// One header line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Which one.
    pub name: Name,
    /// Its value, trimmed.
    pub value: &'a [u8],
}

/// All headers of a message, in their order: a slice that knows where each name stands. Most requests have no more than
/// fit without an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers<'a> {
    lines: SmallVec<[Header<'a>; 24]>,
    /// By name: from the first header of that name to the last; empty if there is none.
    places: [Place; Name::COUNT],
}

/// Where headers of a name stand. As small as it can be: a request is moved with all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    start: u16,
    end: u16,
}

impl Place {
    fn range(self) -> Range<usize> {
        self.start.into()..self.end.into()
    }
}

impl<'a> Headers<'a> {
    /// No headers.
    pub(super) fn new() -> Self {
        Self { lines: SmallVec::new(), places: [Place::default(); Name::COUNT] }
    }

    /// Adds one, after the others.
    pub(super) fn push(&mut self, header: Header<'a>) {
        let at = self.lines.len() as u16;
        let place = &mut self.places[header.name as usize];
        let start = if place.end == 0 { at } else { place.start };
        *place = Place { start, end: at + 1 };
        self.lines.push(header);
    }

    /// The values of all headers of that name, in their order.
    pub fn all(&self, name: Name) -> impl Iterator<Item = &'a [u8]> + '_ {
        let between = &self.lines[self.places[name as usize].range()];
        between.iter().filter(move |header| header.name == name).map(|header| header.value)
    }

    /// The value of the first header of that name.
    #[must_use]
    pub fn first(&self, name: Name) -> Option<&'a [u8]> {
        Some(self.lines.get(self.places[name as usize].range())?.first()?.value)
    }

    /// The value of the only header of that name.
    pub(super) fn at_most_one(&self, name: Name, repeated: &'static str) -> Result<Option<&'a [u8]>, Fault> {
        // The first and the last of a range are of that name.
        if self.places[name as usize].range().len() > 1 { Err(Fault::bad(repeated)) } else { Ok(self.first(name)) }
    }
}

impl<'a> Deref for Headers<'a> {
    type Target = [Header<'a>];

    fn deref(&self) -> &[Header<'a>] {
        &self.lines
    }
}
