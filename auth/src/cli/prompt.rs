//! Prompt for a new password. Passwords are not arguments, which all users of the machine can see.
//!
//! Not the crate `rpassword`: it would replace only [`NoEcho`], reads from the terminal and not
//! from standard input, and does not bound the line.

use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret, SecretString};

/// More than a password can have, so that one that is too long is rejected and not truncated.
const MAX_LINE_BYTES: u64 = 4096;

/// Why no password was read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PromptError {
    #[error("cannot read a password from standard input: {0}")]
    Read(#[from] io::Error),
    #[error("the two passwords differ")]
    Differ,
}

/// Reads a new password: typed twice on a terminal, otherwise a line of standard input.
pub(super) fn new_password(name: &str) -> Result<SecretString, PromptError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(read_line(stdin.lock())?);
    }
    let first = prompt(&format!("New password of {name:?}: "))?;
    let second = prompt("Repeat the password: ")?;
    if first.expose_secret() == second.expose_secret() { Ok(first) } else { Err(PromptError::Differ) }
}

fn prompt(text: &str) -> io::Result<SecretString> {
    let mut terminal = io::stderr();
    write!(terminal, "{text}")?;
    terminal.flush()?;
    let no_echo = NoEcho::set()?;
    let password = read_line(io::stdin().lock());
    drop(no_echo);
    writeln!(terminal)?;
    password
}

fn read_line(input: impl BufRead) -> io::Result<SecretString> {
    let mut line = String::new();
    input.take(MAX_LINE_BYTES).read_line(&mut line)?;
    let length =
        line.strip_suffix('\n').map_or(line.len(), |rest| rest.strip_suffix('\r').unwrap_or(rest).len());
    line.truncate(length);
    Ok(SecretString::from(line))
}

/// Disables the echo of the terminal until it is dropped.
struct NoEcho(Termios);

impl NoEcho {
    fn set() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut changed = before.clone();
        changed.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &changed)?;
        Ok(Self(before))
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        // A shell restores the echo in any case.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_one_line() {
        for (input, expected) in [
            ("secret", "secret"),
            ("secret\n", "secret"),
            ("secret\r\n", "secret"),
            (" with spaces \nanother line\n", " with spaces "),
            ("\n", ""),
            ("", ""),
        ] {
            assert_eq!(read_line(input.as_bytes()).unwrap().expose_secret(), expected, "{input:?}");
        }
        assert!(read_line(&b"\xff\n"[..]).is_err());
    }
}
