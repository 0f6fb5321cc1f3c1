//! Arguments → configuration → node → exit code.
fn main() {}
