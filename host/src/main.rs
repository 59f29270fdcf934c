//! The binary: arguments and exit codes. Everything else is in the library.

mod cli;

use std::process::ExitCode;

/// Less contended than the system's allocator when many workers allocate at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
