//! The binary: arguments and exit codes. Everything else is in the library.

mod allocator;
mod arenas;
mod cli;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

fn main() -> ExitCode {
    arenas::share();
    cli::main()
}
