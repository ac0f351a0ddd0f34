//! The answers of a stream between the task that makes them and the connection that sends them.
//!
//! A connection does not poll the body of an answer while its caller's window is closed: nothing that is done in `poll_next`
//! happens for a caller who has left without a reset, or who does not read. So the work of a stream is a task of its own,
//! and this queue is what both share: the task can empty it and end the stream however long the body is not polled.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::Stream;
use tokio::{
    sync::OwnedSemaphorePermit,
    task::AbortHandle,
    time::{Instant, sleep_until},
};
use tonic::Status;

/// What an answer occupies of its stream's bounds until it is read.
pub(crate) type Permits = Vec<OwnedSemaphorePermit>;

/// The sending side, which belongs to the stream's task.
#[derive(Debug)]
pub(crate) struct Outbox<T>(Arc<Mutex<Queue<T>>>);

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Queue<T> {
    unread: VecDeque<(T, Permits)>,
    /// How the stream ends after the last answer.
    end: Option<Result<(), Status>>,
    /// When an answer was last read, or came while none was unread.
    progress: Instant,
    /// The connection that waits for an answer.
    reader: Option<Waker>,
}

impl<T> Outbox<T> {
    pub(crate) fn new() -> Self {
        let progress = Instant::now();
        Self(Arc::new(Mutex::new(Queue { unread: VecDeque::new(), end: None, progress, reader: None })))
    }

    /// Appends an answer.
    pub(crate) fn push(&self, answer: T, permits: Permits) {
        let mut queue = self.lock();
        if queue.unread.is_empty() {
            queue.progress = Instant::now();
        }
        queue.unread.push_back((answer, permits));
        wake(queue);
    }

    /// Ends the stream after the answers that are unread.
    pub(crate) fn finish(&self, end: Result<(), Status>) {
        let mut queue = self.lock();
        queue.end.get_or_insert(end);
        wake(queue);
    }

    /// Ends the stream now and drops the answers that are unread.
    pub(crate) fn abort(&self, status: Status) {
        let mut queue = self.lock();
        let unread = std::mem::take(&mut queue.unread);
        queue.end = Some(Err(status));
        wake(queue);
        drop(unread);
    }

    /// Returns when answers have been unread for so long and none was read meanwhile.
    pub(crate) async fn unread_for(&self, timeout: Duration) {
        loop {
            let (progress, is_empty) = {
                let queue = self.lock();
                (queue.progress, queue.unread.is_empty())
            };
            let now = Instant::now();
            if is_empty {
                sleep_until(now + timeout).await;
            } else if now < progress + timeout {
                sleep_until(progress + timeout).await;
            } else {
                return;
            }
        }
    }

    /// The receiving side. The task is aborted when that is dropped.
    pub(crate) fn answers<S>(self, task: AbortHandle, slot: S) -> Answers<T, S> {
        Answers { outbox: self, task, _slot: slot }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        // No code that holds it can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake<T>(mut queue: MutexGuard<'_, Queue<T>>) {
    let reader = queue.reader.take();
    drop(queue);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// The body of a stream's answer.
#[derive(Debug)]
pub(crate) struct Answers<T, S> {
    outbox: Outbox<T>,
    task: AbortHandle,
    /// What the stream occupies until its connection has forgotten it.
    _slot: S,
}

impl<T, S: Unpin> Stream for Answers<T, S> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queue = self.outbox.lock();
        if let Some((answer, permits)) = queue.unread.pop_front() {
            queue.progress = Instant::now();
            drop(queue);
            drop(permits);
            return Poll::Ready(Some(Ok(answer)));
        }
        match queue.end.replace(Ok(())) {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(status)) => Poll::Ready(Some(Err(status))),
            None => {
                queue.end = None;
                queue.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T, S> Drop for Answers<T, S> {
    fn drop(&mut self) {
        self.task.abort();
        let unread = std::mem::take(&mut self.outbox.lock().unread);
        drop(unread);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn outbox() -> (Outbox<u32>, Answers<u32, ()>) {
        let outbox = Outbox::new();
        let task = tokio::spawn(std::future::pending::<()>());
        let answers = outbox.clone().answers(task.abort_handle(), ());
        (outbox, answers)
    }

    #[tokio::test]
    async fn answers_come_before_the_end() {
        let (outbox, mut answers) = outbox();
        assert!(answers.next().now_or_never().is_none());
        outbox.push(1, Vec::new());
        outbox.push(2, Vec::new());
        outbox.finish(Err(Status::unavailable("bye")));
        assert_eq!(answers.next().await.unwrap().unwrap(), 1);
        assert_eq!(answers.next().await.unwrap().unwrap(), 2);
        assert_eq!(answers.next().await.unwrap().unwrap_err().message(), "bye");
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn abort_drops_unread_answers_and_their_permits() {
        let (outbox, mut answers) = outbox();
        let room = Arc::new(tokio::sync::Semaphore::new(1));
        outbox.push(1, vec![Arc::clone(&room).try_acquire_owned().unwrap()]);
        outbox.finish(Ok(()));
        assert_eq!(room.available_permits(), 0);
        outbox.abort(Status::unauthenticated("revoked"));
        assert_eq!(room.available_permits(), 1);
        assert_eq!(answers.next().await.unwrap().unwrap_err().message(), "revoked");
    }

    #[tokio::test]
    async fn dropped_answers_abort_the_task() {
        let outbox = Outbox::<u32>::new();
        let task = tokio::spawn(std::future::pending::<()>());
        drop(outbox.answers(task.abort_handle(), ()));
        assert!(task.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn reading_resets_the_timeout() {
        let (outbox, mut answers) = outbox();
        let timeout = Duration::from_millis(400);
        let unread = outbox.unread_for(timeout);
        let mut unread = std::pin::pin!(unread);
        for answer in 0..3 {
            outbox.push(answer, Vec::new());
        }
        for _ in 0..3 {
            assert!(tokio::time::timeout(timeout * 5 / 8, &mut unread).await.is_err());
            answers.next().await.unwrap().unwrap();
        }
        // Nothing is unread: the stream is idle for as long as it likes.
        assert!(tokio::time::timeout(timeout * 3, &mut unread).await.is_err());
        outbox.push(3, Vec::new());
        let began = Instant::now();
        unread.await;
        assert!(began.elapsed() >= timeout / 2, "{:?}", began.elapsed());
    }
}
