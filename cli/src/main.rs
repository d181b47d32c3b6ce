//! larder: docker's image verbs on the layer store that the agent keeps.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    larder_cli::main(std::env::args_os())
}
