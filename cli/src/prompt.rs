//! Questions on a terminal.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::Failure;

/// The longest secret that is read from stdin, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Asks for a line on the terminal that stdin is. With `secret`, what is typed is not shown.
pub(crate) async fn ask(question: String, secret: bool) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::response("cannot perform an interactive login from a non-TTY device"));
    }
    // Held here and not in the thread below: when a signal ends the command, this is dropped, and the terminal is
    // as it was.
    let hidden = secret.then(Hidden::new).transpose()?;
    let line = read_line(question).await?;
    drop(hidden);
    if secret {
        // The line break was not shown either.
        println!();
    }
    Ok(line)
}

async fn read_line(question: String) -> Result<String, Failure> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread that nobody waits for: a signal must end the program though it is still reading.
    std::thread::spawn(move || {
        let mut stdout = io::stdout();
        let asked = stdout.write_all(question.as_bytes()).and_then(|()| stdout.flush());
        let mut line = String::new();
        let read = asked.and_then(|()| io::stdin().lock().take(MAX_SECRET).read_line(&mut line));
        let _ = sender.send(read.map(|_| line));
    });
    let line = receiver.await.map_err(|_| Failure::new("interrupted"))?;
    let line = line.map_err(|error| Failure::new(format_args!("cannot read the answer: {error}")))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// A secret that is piped in: all of stdin, without the line break at its end.
pub(crate) async fn secret_from_stdin() -> Result<String, Failure> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = io::stdin().lock().take(MAX_SECRET).read_to_string(&mut text);
        let _ = sender.send(read.map(|_| text));
    });
    let text = receiver.await.map_err(|_| Failure::new("interrupted"))?;
    let text =
        text.map_err(|error| Failure::new(format_args!("cannot read the password from stdin: {error}")))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden(Termios);

impl Hidden {
    fn new() -> Result<Self, Failure> {
        let failed = |error: rustix::io::Errno| {
            Failure::new(format_args!("cannot keep the terminal from showing the password: {error}"))
        };
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &quiet).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
