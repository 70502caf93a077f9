//! The command line of `sketch-trainer`.

#![forbid(unsafe_code)]

mod commands;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Parser;

/// Trains and evaluates networks for pg_sketch.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if std::env::var_os("ORT_DISABLE_TELEMETRY").is_none() {
        return restart_without_telemetry();
    }
    match arguments.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// ONNX Runtime reads this variable when it is loaded, and a running program cannot safely set its own environment.
fn restart_without_telemetry() -> ExitCode {
    let program = std::env::current_exe().unwrap_or_else(|_| "sketch-trainer".into());
    let error = Command::new(program).args(std::env::args_os().skip(1)).env("ORT_DISABLE_TELEMETRY", "1").exec();
    eprintln!("error: could not restart without telemetry: {error}");
    ExitCode::FAILURE
}
