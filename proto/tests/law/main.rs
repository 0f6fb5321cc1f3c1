//! The merge law, as properties: in whatever order, pieces and repetitions copies of a record meet, they become one.
//! `proto/README.md` proves them and names each of these tests.

mod merge;
mod refresh;
mod samples;
mod time;
mod view;
