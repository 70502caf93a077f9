//! The command line of `pg-sketch`.

#![forbid(unsafe_code)]

mod import;

use std::process::ExitCode;

use clap::Parser;

/// Tools for databases with pg_sketch.
#[derive(Parser)]
#[command(name = "pg-sketch", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Load a folder of photos, or those that a CSV file lists, into a table
    Import(import::Arguments),
}

fn main() -> ExitCode {
    let Command::Import(arguments) = Arguments::parse().command;
    match import::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
