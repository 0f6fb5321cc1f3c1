//! From TOML text and `--set` arguments to known keys with plain values and places. Finds every syntax mistake and
//! unknown key; whether a value makes sense is not its matter.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::{self, Key, Kind};
use super::mistake::{Mistake, Place};

/// A value as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Whole(i64),
    Flag(bool),
    Text(String),
    List(Vec<Written>),
    Table(Vec<(String, Written)>),
    /// A float, a date, or a number beyond 64 bits, by the name of its type.
    Other(&'static str),
}

impl Value {
    /// What it is, for a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Whole(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Written {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// What was written for each known key, and the mistakes met on the way.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) written: BTreeMap<&'static str, Written>,
    pub(super) mistakes: Vec<Mistake>,
}

impl Source {
    /// Reads a whole file.
    pub(super) fn read_file(&mut self, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let lines = Lines::new(text);
        for error in errors {
            let place = error.span().map_or(Place::Default, |span| lines.place(span.start));
            let message = error.message().trim().replace('\n', ", ");
            self.mistake(place, "", format!("this is no TOML: {message}"), String::new());
        }
        self.read_table("", table.get_ref(), &lines);
    }

    fn read_table(&mut self, prefix: &str, table: &DeTable<'_>, lines: &Lines) {
        for (name, value) in table {
            if name.get_ref().is_empty() {
                continue; // the parser has said so already
            }
            let full =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            let place = lines.place(name.span().start);
            match (keys::find(&full), value.get_ref()) {
                (Some(key), _) => self.write(key, Written { value: plain(value, lines), place }),
                (None, DeValue::Table(inner)) => self.read_table(&full, inner, lines),
                (None, _) => self.unknown(place, &full),
            }
        }
    }

    /// Reads the `nth` (from 1) `--set` argument, `dotted.path=value`.
    pub(super) fn read_set(&mut self, nth: usize, argument: &str) {
        let place = Place::Set(nth);
        let Some((path, text)) = argument.split_once('=') else {
            let why = format!("'{argument}' has no '='");
            self.mistake(place, "", why, "write --set dotted.path=value".to_owned());
            return;
        };
        let (path, text) = (path.trim(), text.trim());
        let value = DeValue::parse(text)
            .map_or_else(|_| Value::Text(text.to_owned()), |value| plain(&value, &Lines::fixed(place)));
        let written = Written { value, place };
        if let Some(key) = keys::find(path) {
            self.write(key, written);
        } else if let Some((key, host)) = table_entry(path) {
            self.write(key, Written { value: Value::Table(vec![(host.to_owned(), written)]), place });
        } else {
            self.unknown(place, path);
        }
    }

    /// A later value replaces an earlier one; tables are joined.
    fn write(&mut self, key: &'static Key, mut written: Written) {
        if let (Value::Table(later), Some(Written { value: Value::Table(earlier), .. })) =
            (&mut written.value, self.written.get_mut(key.name))
        {
            earlier.retain(|(name, _)| !later.iter().any(|(other, _)| other == name));
            earlier.append(later);
            return;
        }
        self.written.insert(key.name, written);
    }

    fn unknown(&mut self, place: Place, name: &str) {
        if keys::is_section(name) {
            self.mistake(
                place,
                name,
                "this is a section, not a key".to_owned(),
                format!("write [{name}] and its keys below"),
            );
            return;
        }
        let way_out = match keys::nearest(name) {
            Some(key) if !key.name.contains('.') && name.ends_with(&format!(".{}", key.name)) => {
                format!("{} belongs above the first [section]", key.name)
            }
            Some(key) => format!("the nearest is {}", key.name),
            None => "`aorta config example` prints all keys".to_owned(),
        };
        self.mistake(place, name, "no such key".to_owned(), way_out);
    }

    pub(super) fn mistake(&mut self, place: Place, key: &str, why: String, way_out: String) {
        self.mistakes.push(Mistake { place, key: key.to_owned(), why, way_out });
    }
}

/// The table key that a dotted path leads into, and the rest of the path: hosts hold dots themselves.
fn table_entry(path: &str) -> Option<(&'static Key, &str)> {
    let tables = keys::KEYS.iter().filter(|key| key.kind == Kind::Table);
    tables.into_iter().find_map(|key| {
        let rest = path.strip_prefix(key.name)?.strip_prefix('.')?.trim_matches('"');
        (!rest.is_empty()).then_some((key, rest))
    })
}

fn plain(value: &Spanned<DeValue<'_>>, lines: &Lines) -> Value {
    let written =
        |value: &Spanned<DeValue<'_>>, at: usize| Written { value: plain(value, lines), place: lines.place(at) };
    match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Whole(number),
            Err(_) => Value::Other("a number beyond all bounds"),
        },
        DeValue::Float(_) => Value::Other("a number with a point"),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(list) => Value::List(list.iter().map(|item| written(item, item.span().start)).collect()),
        DeValue::Table(table) => Value::Table(
            table.iter().map(|(name, item)| (name.get_ref().to_string(), written(item, name.span().start))).collect(),
        ),
    }
}

/// Byte offset → line.
struct Lines {
    starts: Vec<usize>,
    fixed: Option<Place>,
}

impl Lines {
    fn new(text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1).collect();
        Self { starts, fixed: None }
    }

    fn fixed(place: Place) -> Self {
        Self { starts: Vec::new(), fixed: Some(place) }
    }

    fn place(&self, offset: usize) -> Place {
        self.fixed.unwrap_or_else(|| Place::Line(1 + self.starts.partition_point(|start| *start <= offset)))
    }
}
