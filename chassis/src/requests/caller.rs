//! Who asks, as a class of few values.
//!
//! It is known only when the token has been checked, somewhere inside of what answers. So it is kept beside the task,
//! where whoever checks tokens notes it.

use std::cell::Cell;

use tokio::task_local;

task_local! {
    static CALLER: Cell<Caller>;
}

/// The class of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Nobody whose token was found good.
    Anonymous,
    /// A user.
    User,
    /// A user who was an admin when their token was made.
    Admin,
}

impl Caller {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// What `answer` gives, and who was noted to ask meanwhile.
    pub async fn of<T>(answer: impl Future<Output = T>) -> (T, Self) {
        CALLER.scope(Cell::new(Self::Anonymous), async { (answer.await, CALLER.with(Cell::get)) }).await
    }
}

/// Notes who asks, for the metrics of the request that this task answers, if it does.
pub fn note_caller(caller: Caller) {
    let _ = CALLER.try_with(|noted| noted.set(caller));
}
