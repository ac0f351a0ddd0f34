//! What becomes of those who guess passwords.

use std::time::Duration;

use muse_auth::Role;
use muse_proto::{Error, Reason, v1::LoginRequest};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::harness::{PASSWORD, Service, folder, listeners, maintenance};

async fn login_from(service: &Service, address: &str, username: &str, password: &str) -> Result<(), Error> {
    let mut request =
        Request::new(LoginRequest { username: username.to_owned(), password: password.to_owned() });
    request.metadata_mut().insert("x-forwarded-for", address.parse().unwrap());
    service.auth().login(request).await.map(drop).map_err(|status| Error::from(&status))
}

/// Guesses until it is told to wait, and returns how often that was and what it was told.
async fn guess(service: &Service, address: &str, username: &str) -> (u32, Error) {
    for number in 0.. {
        let refused = login_from(service, address, username, "a guess").await.unwrap_err();
        if refused.reason() != Reason::BadCredentials {
            return (number, refused);
        }
    }
    unreachable!()
}

#[tokio::test]
async fn who_guesses_has_to_wait_and_others_get_in() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    assert_eq!(login_from(&service, "192.0.2.1", "admin", PASSWORD).await, Ok(()));

    let (guesses, refused) = guess(&service, "192.0.2.66", "admin").await;
    assert_eq!((guesses, refused.reason()), (20, Reason::TooManyAttempts));
    assert!(refused.retry_after().is_some_and(|wait| wait.as_secs() >= 1), "{refused:?}");
    // Now not even the right password helps, there; and no other name does.
    for name in ["admin", "another"] {
        let refused = login_from(&service, "192.0.2.66", name, PASSWORD).await.unwrap_err();
        assert_eq!(refused.reason(), Reason::TooManyAttempts);
    }
    assert_eq!(login_from(&service, "192.0.2.1", "admin", PASSWORD).await, Ok(()), "the user is known here");
    service.stop().await;
}

#[tokio::test]
async fn known_user_logs_in_beside_a_loop_at_the_same_address() {
    let (_folder, config) = folder();
    let operator = maintenance(&config).await;
    let users = operator.users().unwrap();
    for name in ["admin", "bob", "maria"] {
        users.add(name, SecretString::from(PASSWORD), Role::User).await.unwrap();
    }
    operator.close().await;
    let service = Service::start(&config).await;
    assert_eq!(login_from(&service, "192.0.2.1", "bob", PASSWORD).await, Ok(()));

    let (mut checked, mut refused) = (0, 0);
    let looping = async {
        loop {
            match login_from(&service, "192.0.2.1", "maria", "a guess").await.unwrap_err().reason() {
                Reason::BadCredentials => checked += 1,
                Reason::TooManyAttempts => refused += 1,
                other => panic!("{other:?}"),
            }
        }
    };
    let bob = async {
        for _ in 0..20 {
            assert_eq!(login_from(&service, "192.0.2.1", "bob", PASSWORD).await, Ok(()));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        () = looping => unreachable!(),
        () = bob => (),
    }
    assert!((20..25).contains(&checked) && refused > 0, "{checked} checked, {refused} refused");
    service.stop().await;
}

#[tokio::test]
async fn unknown_names_are_treated_alike() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (guesses, refused) = guess(&service, "192.0.2.66", "nobody").await;
    assert_eq!((guesses, refused.reason()), (20, Reason::TooManyAttempts));
    service.stop().await;
}

#[tokio::test]
async fn a_burst_of_logins_does_not_hold_up_other_calls() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (_, refresh) = service.tokens().await;
    let burst = futures::future::join_all((0..300).map(|number| {
        let service = &service;
        async move { login_from(service, &format!("10.0.0.{}", number % 250), "admin", PASSWORD).await }
    }));
    let others = async {
        for _ in 0..20 {
            service.refresh(&refresh).await.unwrap();
        }
    };
    let (outcomes, ()) = tokio::join!(burst, others);
    let reasons = outcomes.into_iter().filter_map(Result::err).map(|refused| refused.reason());
    let (overloaded, other): (Vec<_>, Vec<_>) = reasons.partition(|reason| *reason == Reason::Overloaded);
    assert!(!overloaded.is_empty(), "the queue has a bound");
    assert!(other.iter().all(|reason| *reason == Reason::TooManyAttempts), "{other:?}");
    assert!(service.login("admin", PASSWORD).await.is_ok(), "and then it goes on");
    service.stop().await;
}

#[tokio::test]
async fn the_default_password_is_for_this_machine_alone() {
    let (_folder, mut config) = folder();
    config.admin_password = None;
    let service = Service::start(&config).await;
    assert_eq!(login_from(&service, "127.0.0.1", "admin", "admin").await, Ok(()));
    let refused = login_from(&service, "192.0.2.1", "admin", "admin").await.unwrap_err();
    assert_eq!(refused.reason(), Reason::BadCredentials);
    service.stop().await;

    config.exposed = true;
    let refused = muse_auth::run(config, listeners().await, CancellationToken::new()).await.unwrap_err();
    assert!(refused.to_string().contains("muse-auth user passwd admin"), "{refused}");
}
