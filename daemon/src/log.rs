//! Logs on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere
    #[default]
    Auto,
    /// An object a line, for whatever collects logs
    Json,
    /// Lines for people
    Text,
}

impl LogFormat {
    /// Starts logging. `RUST_LOG` says what is logged, and `default` where that is not set or cannot be read.
    pub fn start(self, default: &str) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        let is_terminal = std::io::stderr().is_terminal();
        let is_text = match self {
            Self::Auto => is_terminal,
            Self::Json => false,
            Self::Text => true,
        };
        if is_text {
            logs.with_ansi(is_terminal).init();
        } else {
            // The span that is current says which object; a list of all around it would say it twice.
            logs.json().with_span_list(false).init();
        }
    }
}
