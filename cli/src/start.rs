//! From the arguments to the exit status.

use std::{ffi::OsString, io::Write, process::ExitCode, time::Duration};

use clap::{Parser, error::ErrorKind};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

use crate::{Cli, Context, Failure, Status, usage, verbs};

/// How long work that blocks may take to clean up after a signal.
const GRACE: Duration = Duration::from_secs(2);

/// The program: parses the arguments, runs the command, and prints what went wrong.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        // `--help` and `--version` come this way too.
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        // docker, asked for nothing, says on stdout what it can do. (Of a command that is missing while a variable of
        // the environment gives a flag, clap says the latter.)
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
            ) =>
        {
            let _ = std::io::stdout().write_all(usage::help(&args).as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(error) => return end(&Err(usage::explain(&error, &args))),
    };
    start_logging(cli.globals.debug);
    // Fails only if there is one already, which then serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(&Err(Failure::new(format_args!("cannot start: {error}")))),
    };
    let context = Context::new(cli.globals.clone());
    let result = runtime.block_on(run_until_signal(&context, cli));
    // What still blocks after an interruption would otherwise be waited for without end.
    runtime.shutdown_timeout(GRACE);
    end(&result)
}

async fn run_until_signal(context: &Context, cli: Cli) -> Result<Status, Failure> {
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let stream = signal(kind).map_err(|error| Failure::new(format_args!("cannot start: {error}")))?;
        signals.push((kind, stream));
    }
    let [(_, interrupt), (_, terminate), (_, hangup)] = signals.as_mut_slice() else {
        return Err(Failure::new("cannot start"));
    };
    let received = tokio::select! {
        result = verbs::run(context, cli.verb) => return result,
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
        _ = hangup.recv() => SignalKind::hangup(),
    };
    context.interrupt();
    let status = 128 + u8::try_from(received.as_raw_value()).unwrap_or_default();
    Err(Failure::silent(Status(status)))
}

fn end(result: &Result<Status, Failure>) -> ExitCode {
    let status = match result {
        Ok(status) => *status,
        Err(failure) => {
            for message in &failure.messages {
                // Nobody is left to tell if this fails.
                let _ = writeln!(std::io::stderr(), "{message}");
            }
            failure.status
        }
    };
    ExitCode::from(status.0)
}

/// Warnings, or with `--debug` everything of ours; `RUST_LOG` has the last word.
fn start_logging(debug: bool) {
    let default = if debug { "info,larder=debug" } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
}
