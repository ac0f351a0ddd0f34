//! The outbox of a stream: a queue of responses between the task that produces them and the
//! connection that sends them.
//!
//! A connection does not poll the body of a response while the flow-control window of its caller is
//! closed: code in `poll_next` does not run for a caller who has left without a reset, or who does
//! not read. Therefore the work of a stream is a task of its own, which can empty this queue and
//! end the stream however long the body is not polled.

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

/// What a response occupies of the limits of its stream until it is read.
pub(crate) type Permits = Vec<OwnedSemaphorePermit>;

/// The sending side, which belongs to the task of the stream.
#[derive(Debug)]
pub(crate) struct Outbox<T>(Arc<Mutex<OutboxQueue<T>>>);

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct OutboxQueue<T> {
    unread: VecDeque<(T, Permits)>,
    /// How the stream ends after the last response.
    end: Option<Result<(), Status>>,
    /// When a response was last read, or was pushed while none was unread.
    progress: Instant,
    /// The connection that waits for a response.
    reader: Option<Waker>,
}

impl<T> Outbox<T> {
    pub(crate) fn new() -> Self {
        let progress = Instant::now();
        Self(Arc::new(Mutex::new(OutboxQueue { unread: VecDeque::new(), end: None, progress, reader: None })))
    }

    /// Appends a response.
    pub(crate) fn push(&self, response: T, permits: Permits) {
        let mut queue = self.lock();
        if queue.unread.is_empty() {
            queue.progress = Instant::now();
        }
        queue.unread.push_back((response, permits));
        wake(queue);
    }

    /// Ends the stream after the unread responses.
    pub(crate) fn finish(&self, end: Result<(), Status>) {
        let mut queue = self.lock();
        queue.end.get_or_insert(end);
        wake(queue);
    }

    /// Ends the stream now and drops the unread responses.
    pub(crate) fn abort(&self, status: Status) {
        let mut queue = self.lock();
        let unread = std::mem::take(&mut queue.unread);
        queue.end = Some(Err(status));
        wake(queue);
        drop(unread);
    }

    /// Returns when responses have been unread for so long and none was read meanwhile.
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

    /// The receiving side. Dropping it aborts the task and releases `permit`.
    pub(crate) fn into_reader<P>(self, task: AbortHandle, permit: P) -> OutboxReader<T, P> {
        OutboxReader { outbox: self, task, _permit: permit }
    }

    fn lock(&self) -> MutexGuard<'_, OutboxQueue<T>> {
        // No code that holds it can panic halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake<T>(mut queue: MutexGuard<'_, OutboxQueue<T>>) {
    let reader = queue.reader.take();
    drop(queue);
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// The receiving side: the body of a stream's response.
#[derive(Debug)]
pub(crate) struct OutboxReader<T, P> {
    outbox: Outbox<T>,
    task: AbortHandle,
    /// What the stream occupies until its connection drops it.
    _permit: P,
}

impl<T, P: Unpin> Stream for OutboxReader<T, P> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queue = self.outbox.lock();
        if let Some((response, permits)) = queue.unread.pop_front() {
            queue.progress = Instant::now();
            drop(queue);
            drop(permits);
            return Poll::Ready(Some(Ok(response)));
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

impl<T, P> Drop for OutboxReader<T, P> {
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

    fn outbox() -> (Outbox<u32>, OutboxReader<u32, ()>) {
        let outbox = Outbox::new();
        let task = tokio::spawn(std::future::pending::<()>());
        let reader = outbox.clone().into_reader(task.abort_handle(), ());
        (outbox, reader)
    }

    #[tokio::test]
    async fn responses_precede_the_end() {
        let (outbox, mut reader) = outbox();
        assert!(reader.next().now_or_never().is_none());
        outbox.push(1, Vec::new());
        outbox.push(2, Vec::new());
        outbox.finish(Err(Status::unavailable("bye")));
        assert_eq!(reader.next().await.unwrap().unwrap(), 1);
        assert_eq!(reader.next().await.unwrap().unwrap(), 2);
        assert_eq!(reader.next().await.unwrap().unwrap_err().message(), "bye");
        assert!(reader.next().await.is_none());
    }

    #[tokio::test]
    async fn abort_drops_unread_responses_and_their_permits() {
        let (outbox, mut reader) = outbox();
        let room = Arc::new(tokio::sync::Semaphore::new(1));
        outbox.push(1, vec![Arc::clone(&room).try_acquire_owned().unwrap()]);
        outbox.finish(Ok(()));
        assert_eq!(room.available_permits(), 0);
        outbox.abort(Status::unauthenticated("revoked"));
        assert_eq!(room.available_permits(), 1);
        assert_eq!(reader.next().await.unwrap().unwrap_err().message(), "revoked");
    }

    #[tokio::test]
    async fn dropped_reader_aborts_the_task() {
        let outbox = Outbox::<u32>::new();
        let task = tokio::spawn(std::future::pending::<()>());
        drop(outbox.into_reader(task.abort_handle(), ()));
        assert!(task.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn reading_resets_the_timeout() {
        let (outbox, mut reader) = outbox();
        let timeout = Duration::from_millis(400);
        let unread = outbox.unread_for(timeout);
        let mut unread = std::pin::pin!(unread);
        for response in 0..3 {
            outbox.push(response, Vec::new());
        }
        for _ in 0..3 {
            assert!(tokio::time::timeout(timeout * 5 / 8, &mut unread).await.is_err());
            reader.next().await.unwrap().unwrap();
        }
        // Without unread responses the stream may be idle for any time.
        assert!(tokio::time::timeout(timeout * 3, &mut unread).await.is_err());
        outbox.push(3, Vec::new());
        let began = Instant::now();
        unread.await;
        assert!(began.elapsed() >= timeout / 2, "{:?}", began.elapsed());
    }
}
