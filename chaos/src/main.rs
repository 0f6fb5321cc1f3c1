//! Command line of the judges.
fn main() {}
