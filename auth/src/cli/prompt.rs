//! Asks for a new password, never on the command line, which everyone on the machine can see.

use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret, SecretString};

/// More than a password may have, so that one that is too long is refused and not cut.
const LONGEST_LINE: u64 = 4096;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub(super) enum PromptError {
    #[error("cannot read a password from standard input: {0}")]
    Read(#[from] io::Error),
    #[error("the two passwords differ")]
    Differ,
}

/// A new password: typed twice on a terminal, else one line of standard input.
pub(super) fn new_password(name: &str) -> Result<SecretString, PromptError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(read_line(stdin.lock())?);
    }
    let first = ask(&format!("New password of {name:?}: "))?;
    let second = ask("The same again: ")?;
    if first.expose_secret() == second.expose_secret() { Ok(first) } else { Err(PromptError::Differ) }
}

fn ask(question: &str) -> io::Result<SecretString> {
    let mut terminal = io::stderr();
    write!(terminal, "{question}")?;
    terminal.flush()?;
    let silence = Silence::begin()?;
    let answer = read_line(io::stdin().lock());
    drop(silence);
    writeln!(terminal)?;
    answer
}

fn read_line(input: impl BufRead) -> io::Result<SecretString> {
    let mut line = String::new();
    input.take(LONGEST_LINE).read_line(&mut line)?;
    let length =
        line.strip_suffix('\n').map_or(line.len(), |rest| rest.strip_suffix('\r').unwrap_or(rest).len());
    line.truncate(length);
    Ok(SecretString::from(line))
}

/// The terminal does not show what is typed as long as this lives.
struct Silence(Termios);

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // The shell restores it in any case.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line() {
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
