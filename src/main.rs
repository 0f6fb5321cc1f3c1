//! Arguments → configuration → node → exit code. Everything else is in the library.

use std::process::ExitCode;

/// Long-lived small blocks of many sizes: the system's allocator fragments under them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    aorta::cli::main()
}
