//! Everything that lies in the database, into the table: by several threads, for the order in which records are merged means
//! nothing. Writes nothing.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use aorta_proto::{Aor, Record};

use super::super::packed::Glossary;
use super::blocks::{self, Found, Held};
use super::database::{FORMER_RECORDS, Open, Trouble, guard};
use super::shelf::Shelf;
use super::{Loaded, Location};

/// Threads that read, where there are so many processors.
const READERS_MAX: usize = 4;

/// What was read of a volume, or of all.
#[derive(Debug, Default)]
struct Read {
    volume: u64,
    held: Held,
    latest_us: u64,
    /// Places of blocks with records of a newer aorta.
    newer: BTreeSet<u64>,
    last_place: Option<u64>,
}

impl Read {
    fn restore(&mut self, location: &Location, aor: &Aor, record: Record) {
        self.latest_us = self.latest_us.max(record.latest().map_or(0, |stamp| stamp.time_us));
        if !record.is_empty() {
            location.restore(aor, record);
        }
    }

    fn restore_found(&mut self, location: &Location, found: Found<'_>) -> bool {
        match found {
            Found::Record(aor, record) => {
                self.restore(location, &aor, record);
                true
            }
            Found::Packed(told, glossary) => {
                let latest_us = location.restore_told(told, glossary);
                self.latest_us = self.latest_us.max(latest_us.unwrap_or_default());
                latest_us.is_some()
            }
        }
    }

    fn add(&mut self, held: Held) {
        self.held.records += held.records;
        self.held.damaged += held.damaged;
        self.held.newer += held.newer;
    }
}

/// Reads everything into the table. What it makes dirty is what the table has and the database has not.
pub(super) fn load(open: &Open, location: &Location, loaded: &mut Loaded) -> Result<Shelf, Trouble> {
    let before = location.counts().aors;
    let mut shelf = Shelf::default();
    let former = if open.has_former_records() { vec![former_records(open, location)?] } else { Vec::new() };
    let volumes = volumes(open, location)?;
    for read in former.iter().chain(&volumes) {
        loaded.latest_us = loaded.latest_us.max(read.latest_us);
        loaded.damaged += read.held.damaged;
        loaded.newer += read.held.newer;
    }
    if !former.is_empty() {
        shelf.found(0, 0, BTreeSet::new(), None);
    }
    for read in volumes {
        shelf.found(read.volume, read.held.records, read.newer, read.last_place);
    }
    if loaded.damaged > 0 {
        shelf.wears_out();
    }
    let aors = location.counts().aors.saturating_sub(before);
    loaded.aors = usize::try_from(aors).unwrap_or(usize::MAX);
    Ok(shelf)
}

fn volumes(open: &Open, location: &Location) -> Result<Vec<Read>, Trouble> {
    let volumes = open.volumes();
    let next = AtomicUsize::new(0);
    let read_some = || {
        let mut read = Vec::new();
        while let Some(number) = volumes.get(next.fetch_add(1, Ordering::Relaxed)) {
            read.push(guard(|| volume(open, *number, location))?);
        }
        Ok(read)
    };
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let others = READERS_MAX.min(processors).min(volumes.len()).saturating_sub(1);
    thread::scope(|scope| {
        // One that cannot be started leaves its work to the others.
        let readers =
            (0..others).map(|_| thread::Builder::new().name("load".to_owned()).spawn_scoped(scope, read_some));
        let readers: Vec<_> = readers.flatten().collect();
        let mut read: Vec<Read> = read_some()?;
        for reader in readers {
            read.extend(reader.join().unwrap_or_else(|_| Err(Trouble::Damaged("a reader panicked".to_owned())))?);
        }
        Ok(read)
    })
}

fn volume(open: &Open, number: u64, location: &Location) -> Result<Read, Trouble> {
    let mut read = Read { volume: number, ..Read::default() };
    let mut glossary = Glossary::default();
    for block in open.blocks(number)? {
        let (place, block) = block?;
        let held = blocks::read(&block, &mut glossary, |found| read.restore_found(location, found));
        read.add(held);
        read.last_place = Some(place);
        read.newer.extend((held.newer > 0).then_some(place));
    }
    Ok(read)
}

/// What an aorta of long ago wrote, each record under its AoR.
fn former_records(open: &Open, location: &Location) -> Result<Read, Trouble> {
    guard(|| {
        let mut read = Read::default();
        for item in &open.database.open_tree(FORMER_RECORDS)? {
            let (name, value) = item?;
            match blocks::read_record(&name, &value) {
                Ok((aor, record)) => read.restore(location, &aor, record),
                Err(error) => read.held.note(error),
            }
        }
        Ok(read)
    })
}
