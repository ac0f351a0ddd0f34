//! The pool with real threads and hashes.

use std::{
    cell::RefCell,
    sync::mpsc::{self, RecvTimeoutError},
};

use futures::{FutureExt, future::join_all};
use tokio::sync::oneshot::Sender;

use super::{job_queue::MAX_CONSECUTIVE_KNOWN, *};

const PBKDF2: &str =
    "$pbkdf2-sha256$29000$gJDyHmPM2Tvn3JsTojQG4A$vkEjLpCIvOB7gNUm7pg4b7URm3vddGOYq612N.QN3bY";

fn hash_pool(threads: usize) -> PasswordHashPool {
    PasswordHashPool::new(threads, Cost::default()).unwrap()
}

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

/// Occupies a thread until the returned sender is dropped.
async fn occupy(hash_pool: &PasswordHashPool) -> Sender<()> {
    let (release, released) = oneshot::channel::<()>();
    let (start, started) = oneshot::channel();
    let hash_pool = hash_pool.clone();
    let job = async move {
        hash_pool
            .run(Priority::Unknown, move |_| Ok((start.send(()), released.blocking_recv().is_ok())))
            .await
            .map(drop)
    };
    tokio::spawn(job);
    started.await.unwrap();
    release
}

#[tokio::test]
async fn password_is_compared_with_either_kind_of_hash() {
    let hash_pool = hash_pool(1);
    let hash = hash_pool.hash(secret("pass\0word")).await.unwrap();
    let check = async |password: &str, stored: Option<&str>| {
        hash_pool.check(secret(password), stored.map(str::to_owned), Priority::Unknown).await.unwrap()
    };
    assert_eq!(check("pass\0word", Some(&hash)).await, PasswordCheck::Match { outdated: false });
    assert_eq!(check("pass", Some(&hash)).await, PasswordCheck::Mismatch);
    assert_eq!(check("admin", Some(PBKDF2)).await, PasswordCheck::Match { outdated: true });
    assert_eq!(check("Admin", Some(PBKDF2)).await, PasswordCheck::Mismatch);
    assert_eq!(check("pass\0word", None).await, PasswordCheck::Mismatch);
}

/// Earlier releases hashed a password as typed.
#[tokio::test]
async fn hash_of_any_normal_form_matches() {
    let hash_pool = hash_pool(1);
    let [composed, decomposed] = ["ren\u{e9}", "rene\u{301}"];
    let of_bytes = |password: &'static str| {
        hash_pool
            .run(Priority::Known, move |arena| argon2id::hash(password.as_bytes(), Cost::default(), arena))
    };
    let check = async |password: &str, stored: &str| {
        hash_pool.check(secret(password), Some(stored.to_owned()), Priority::Unknown).await.unwrap()
    };
    for (stored, outdated) in [
        (hash_pool.hash(secret(decomposed)).await.unwrap(), false),
        (of_bytes(composed).await.unwrap(), false),
        (of_bytes(decomposed).await.unwrap(), true),
    ] {
        for typed in [composed, decomposed] {
            assert_eq!(check(typed, &stored).await, PasswordCheck::Match { outdated });
        }
        assert_eq!(check("rene", &stored).await, PasswordCheck::Mismatch);
        assert_eq!(check("ren\u{e8}", &stored).await, PasswordCheck::Mismatch);
    }
}

#[tokio::test]
async fn hash_of_another_cost_is_outdated() {
    let hash = hash_pool(1).hash(secret("password")).await.unwrap();
    let dearer = PasswordHashPool::new(1, Cost::new(20 * 1024, 2).unwrap()).unwrap();
    let verdict = dearer.check(secret("password"), Some(hash), Priority::Unknown).await;
    assert_eq!(verdict, Ok(PasswordCheck::Match { outdated: true }));
    let anew = dearer.hash(secret("password")).await.unwrap();
    assert!(anew.starts_with("$argon2id$v=19$m=20480,t=2,p=1$"), "{anew}");
    let verdict = dearer.check(secret("password"), Some(anew.clone()), Priority::Unknown).await;
    assert_eq!(verdict, Ok(PasswordCheck::Match { outdated: false }));
    // It takes more memory than the arena of this pool retains.
    let verdict = hash_pool(1).check(secret("password"), Some(anew), Priority::Unknown).await;
    assert_eq!(verdict, Ok(PasswordCheck::Match { outdated: true }));
}

#[tokio::test]
async fn damaged_hash_is_an_internal_error() {
    for damaged in ["", "$argon2id$", "$pbkdf2-sha256$", "admin", &PBKDF2.replace("29000", "2900000000")] {
        let error = hash_pool(1)
            .check(secret("admin"), Some(damaged.to_owned()), Priority::Unknown)
            .await
            .unwrap_err();
        assert_eq!(error, Error::new(Reason::Internal, "internal error"));
    }
}

#[tokio::test]
async fn full_hash_queue_rejects_logins() {
    let hash_pool = hash_pool(1);
    let busy = occupy(&hash_pool).await;
    let mut waiting: Vec<_> =
        (0..QUEUED_PER_THREAD).map(|_| Box::pin(hash_pool.run(Priority::Unknown, |_| Ok(())))).collect();
    assert!(waiting.iter_mut().all(|check| check.now_or_never().is_none()));
    let error = hash_pool.check(secret("x"), None, Priority::Unknown).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Overloaded);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    drop(busy);
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    assert_eq!(
        hash_pool.check(secret("x"), None, Priority::Unknown).await,
        Ok(PasswordCheck::Mismatch),
        "accepted later"
    );
}

#[tokio::test]
async fn strangers_in_the_queue_do_not_reject_a_known_user() {
    let hash_pool = hash_pool(1);
    let busy = occupy(&hash_pool).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let hash = |priority, name| {
        let order = Arc::clone(&order);
        Box::pin(hash_pool.run(priority, move |_| {
            order.lock().push(name);
            Ok(())
        }))
    };
    let mut waiting: Vec<_> = (0..QUEUED_PER_THREAD).map(|_| hash(Priority::Unknown, "stranger")).collect();
    waiting.extend((0..MAX_CONSECUTIVE_KNOWN + 1).map(|_| hash(Priority::Known, "known")));
    assert!(waiting.iter_mut().all(|check| check.now_or_never().is_none()));
    assert!(hash(Priority::Unknown, "stranger").await.is_err());
    drop(busy);
    assert!(join_all(waiting).await.iter().all(Result::is_ok));
    // Known users have priority, and do not starve the others.
    let order = order.lock();
    assert_eq!(order.iter().position(|name| *name == "stranger"), Some(MAX_CONSECUTIVE_KNOWN));
    assert_eq!(order[MAX_CONSECUTIVE_KNOWN + 1], "known");
}

#[tokio::test]
async fn cancelled_logins_leave_the_hash_queue() {
    let hash_pool = hash_pool(1);
    let busy = occupy(&hash_pool).await;
    let mut gone: Vec<_> =
        (0..QUEUED_PER_THREAD).map(|_| Box::pin(hash_pool.run(Priority::Unknown, |_| Ok(())))).collect();
    assert!(gone.iter_mut().all(|check| check.now_or_never().is_none()));
    drop(gone);
    let mut next = Box::pin(hash_pool.check(secret("x"), None, Priority::Unknown));
    assert!((&mut next).now_or_never().is_none());
    drop(busy);
    assert_eq!(next.await, Ok(PasswordCheck::Mismatch));
}

#[tokio::test]
async fn cancelled_login_is_not_hashed() {
    let hash_pool = hash_pool(1);
    let busy = occupy(&hash_pool).await;
    let (hashed, reports) = mpsc::channel();
    let mut gone = Box::pin(
        hash_pool.run(Priority::Unknown, move |_| hashed.send(()).map_err(|failure| failure.to_string())),
    );
    assert!((&mut gone).now_or_never().is_none());
    drop((gone, busy));
    assert!(reports.recv().is_err());
}

#[tokio::test]
async fn thread_survives_a_panic() {
    let hash_pool = hash_pool(1);
    for _ in 0..3 {
        let failed = hash_pool.run::<()>(Priority::Unknown, |_| panic!("on purpose")).await.unwrap_err();
        assert_eq!(failed.reason(), Reason::Internal);
    }
    assert_eq!(hash_pool.check(secret("x"), None, Priority::Unknown).await, Ok(PasswordCheck::Mismatch));
}

#[test]
fn idle_arenas_are_freed_after_the_timeout() {
    let jobs = Arc::new(JobQueue::default());
    let shutdown = CloseOnDrop(Arc::clone(&jobs));
    let idle_timeout = Duration::from_millis(300);
    let threads = [(); 2].map(|()| {
        let jobs = Arc::clone(&jobs);
        thread::spawn(move || jobs.run(HashArena::new(64), idle_timeout))
    });
    let (sender, retained) = mpsc::channel();
    let hash = || {
        let sender = sender.clone();
        let job = move |arena: &mut HashArena| {
            let retained = arena.blocks();
            let _ = arena.with_blocks(64, |_| ());
            let _ = sender.send(retained);
        };
        let job = Job { work: Box::new(job), is_cancelled: Box::new(|| false) };
        assert!(jobs.push(job, Priority::Unknown, 4));
        retained.recv().unwrap()
    };
    assert_eq!(hash(), 0);
    // Any of the threads may execute the next job.
    while hash() == 0 {}
    // A thread may return its arena just after those of the others were freed.
    let is_freed = |_| {
        thread::sleep(2 * idle_timeout);
        hash() == 0
    };
    assert!((0..20).any(is_freed));
    drop(shutdown);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[tokio::test]
async fn threads_end_with_the_last_clone() {
    thread_local!(static AT_EXIT: RefCell<Option<mpsc::Sender<()>>> = const { RefCell::new(None) });
    let hash_pool = hash_pool(1);
    let (alive, end) = mpsc::channel();
    hash_pool.run(Priority::Unknown, move |_| Ok(AT_EXIT.replace(Some(alive)).is_none())).await.unwrap();
    let other = hash_pool.clone();
    drop(hash_pool);
    assert_eq!(end.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
    drop(other);
    assert_eq!(end.recv_timeout(Duration::from_secs(30)), Err(RecvTimeoutError::Disconnected));
}
