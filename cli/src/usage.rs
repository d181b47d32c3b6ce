//! Errors in what the user wrote, in docker's form.

use std::ffi::OsString;

use clap::{
    Command, CommandFactory, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{Cli, Failure, Status};

/// What to print instead of clap's own text: docker's, so that scripts and eyes that know it find what they look for.
pub(crate) fn explain(error: &Error, args: &[OsString]) -> Failure {
    let called = Called::new(args);
    let argument = text(error, ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if argument.starts_with("--") => {
            called.bad_flag(format_args!("unknown flag: {}", name_of(&argument)))
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            let short: String = argument.chars().skip(1).take(1).collect();
            called.bad_flag(format_args!("unknown shorthand flag: '{short}' in {argument}"))
        }
        ErrorKind::UnknownArgument => called.too_many(),
        ErrorKind::MissingRequiredArgument => called.too_few(),
        ErrorKind::InvalidSubcommand => {
            let path = &called.path;
            let name = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            Failure::new(format_args!(
                "larder: unknown command: {path} {name}\n\nRun '{path} --help' for more information"
            ))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => called.bad_value(error, name_of(&argument)),
        _ => {
            let plain = error.render().to_string();
            let message = plain.trim_start_matches("error: ").trim_end().to_owned();
            Failure { messages: vec![message], status: Status::BAD_FLAG }
        }
    }
}

/// The help of the command that the arguments lead to.
pub(crate) fn help(args: &[OsString]) -> String {
    Called::new(args).command.render_help().to_string()
}

fn text(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => Some(texts.join(" ")),
        _ => None,
    }
}

/// `--filter` of `--filter <NAME=VALUE>`.
fn name_of(argument: &str) -> &str {
    argument.split([' ', '=']).next().unwrap_or_default()
}

/// The command that the arguments lead to.
struct Called {
    command: Command,
    /// How it is called: `larder image prune`.
    path: String,
    usage: String,
}

impl Called {
    fn new(args: &[OsString]) -> Self {
        let mut root = Cli::command();
        root.build();
        let mut command: &Command = &root;
        let mut path = "larder".to_owned();
        let mut rest = args.iter().skip(1);
        while let Some(arg) = rest.next() {
            let text = arg.to_string_lossy();
            if text.starts_with('-') {
                let takes_value = command.get_arguments().any(|known| {
                    known.get_action().takes_values()
                        && known.get_long().is_some_and(|long| text.strip_prefix("--") == Some(long))
                });
                if takes_value {
                    rest.next();
                }
            } else if let Some(next) = command.find_subcommand(arg) {
                path = format!("{path} {}", next.get_name());
                command = next;
            } else {
                break;
            }
        }
        let mut command = command.clone();
        let usage = command.render_usage().to_string();
        let usage = usage.trim_start_matches("Usage:").trim().to_owned();
        Self { command, path, usage }
    }

    fn bad_flag(&self, message: std::fmt::Arguments<'_>) -> Failure {
        let Self { path, usage, .. } = self;
        Failure::bad_flag(format_args!(
            "{message}\n\nUsage:  {usage}\n\nRun '{path} --help' for more information"
        ))
    }

    fn bad_value(&self, error: &Error, flag: &str) -> Failure {
        let value = text(error, ContextKind::InvalidValue).unwrap_or_default();
        if value.is_empty() {
            return self.bad_flag(format_args!("flag needs an argument: {flag}"));
        }
        let why = match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
                format!("must be one of {}", valid.join(", "))
            }
            _ => std::error::Error::source(error).map(ToString::to_string).unwrap_or_default(),
        };
        let known = self
            .command
            .get_arguments()
            .find(|known| known.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long)));
        let flag = match known.and_then(clap::Arg::get_short) {
            Some(short) => format!("-{short}, {flag}"),
            None => flag.to_owned(),
        };
        self.bad_flag(format_args!("invalid argument {value:?} for {flag:?} flag: {why}"))
    }

    fn too_few(&self) -> Failure {
        let positionals: Vec<_> = self.command.get_positionals().collect();
        let needed = positionals.iter().filter(|positional| positional.is_required_set()).count().max(1);
        let more = positionals
            .last()
            .and_then(|positional| positional.get_num_args())
            .is_some_and(|range| range.max_values() > 1);
        let least = if more { "at least " } else { "" };
        self.wrong_number(&format!("requires {least}{}", arguments(needed)))
    }

    fn too_many(&self) -> Failure {
        match self.command.get_positionals().count() {
            0 => self.wrong_number("accepts no arguments"),
            most => {
                let required = self.command.get_positionals().all(clap::Arg::is_required_set);
                let at_most = if required { "" } else { "at most " };
                self.wrong_number(&format!("requires {at_most}{}", arguments(most)))
            }
        }
    }

    fn wrong_number(&self, problem: &str) -> Failure {
        let Self { path, usage, .. } = self;
        Failure::new(format_args!(
            "larder: '{path}' {problem}\n\nUsage:  {usage}\n\nSee '{path} --help' for more information"
        ))
    }
}

fn arguments(count: usize) -> String {
    if count == 1 { "1 argument".to_owned() } else { format!("{count} arguments") }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn explained(args: &[&str]) -> (u8, String) {
        let args: Vec<OsString> =
            std::iter::once("larder").chain(args.iter().copied()).map(Into::into).collect();
        let failure = explain(&Cli::try_parse_from(&args).unwrap_err(), &args);
        let text = failure.to_string();
        (failure.status.0, text.lines().next().unwrap_or_default().to_owned())
    }

    #[test]
    fn dockers_words_and_statuses() {
        for (args, status, message) in [
            (&["images", "--nope=1"][..], 125, "unknown flag: --nope"),
            (&["--store", "rm", "image", "ls", "-x"], 125, "unknown shorthand flag: 'x' in -x"),
            (
                &["images", "-f", "x"],
                125,
                "invalid argument \"x\" for \"-f, --filter\" flag: bad format of filter (expected name=value)",
            ),
            (
                &["df", "--output", "yaml"],
                125,
                "invalid argument \"yaml\" for \"--output\" flag: must be one of text, json",
            ),
            (&["images", "--format"], 125, "flag needs an argument: --format"),
            (&["images", "a", "b"], 1, "larder: 'larder images' requires at most 1 argument"),
            (&["image", "rmi"], 1, "larder: 'larder image rm' requires at least 1 argument"),
            (&["history"], 1, "larder: 'larder history' requires 1 argument"),
            (&["tag", "a"], 1, "larder: 'larder tag' requires 2 arguments"),
            (&["tag", "a", "b", "c"], 1, "larder: 'larder tag' requires 2 arguments"),
            (&["prune", "x"], 1, "larder: 'larder prune' accepts no arguments"),
            (&["image", "fly"], 1, "larder: unknown command: larder image fly"),
        ] {
            assert_eq!(explained(args), (status, message.to_owned()), "{args:?}");
        }
    }

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }
}
