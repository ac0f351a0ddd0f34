//! Login throttling.

use std::time::Duration;

use muse_auth::Role;
use muse_proto::{Error, Reason, v1::LoginRequest};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::harness::{PASSWORD, Service, admin_ops, folder, listeners};

async fn login_from(service: &Service, address: &str, username: &str, password: &str) -> Result<(), Error> {
    let mut request =
        Request::new(LoginRequest { username: username.to_owned(), password: password.to_owned() });
    request.metadata_mut().insert("x-forwarded-for", address.parse().unwrap());
    service.auth().login(request).await.map(drop).map_err(|status| Error::from(&status))
}

/// Guesses until the address has to wait, and returns the number of guesses and the error.
async fn guess(service: &Service, address: &str, username: &str) -> (u32, Error) {
    for number in 0.. {
        let rejected = login_from(service, address, username, "a guess").await.unwrap_err();
        if rejected.reason() != Reason::BadCredentials {
            return (number, rejected);
        }
    }
    unreachable!()
}

#[tokio::test]
async fn guesser_is_throttled_and_a_known_user_is_not() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    assert_eq!(login_from(&service, "192.0.2.1", "admin", PASSWORD).await, Ok(()));

    let (guesses, rejected) = guess(&service, "192.0.2.66", "admin").await;
    assert_eq!((guesses, rejected.reason()), (20, Reason::TooManyAttempts));
    assert!(rejected.retry_after().is_some_and(|wait| wait.as_secs() >= 1), "{rejected:?}");
    // At that address neither the right password nor another name is accepted now.
    for name in ["admin", "another"] {
        let rejected = login_from(&service, "192.0.2.66", name, PASSWORD).await.unwrap_err();
        assert_eq!(rejected.reason(), Reason::TooManyAttempts);
    }
    assert_eq!(login_from(&service, "192.0.2.1", "admin", PASSWORD).await, Ok(()), "the user is known here");
    service.stop().await;
}

#[tokio::test]
async fn known_user_logs_in_beside_a_loop_at_the_same_address() {
    let (_folder, config) = folder();
    let operator = admin_ops(&config).await;
    let users = operator.users().unwrap();
    for name in ["admin", "bob", "maria"] {
        users.add(name, SecretString::from(PASSWORD), Role::User).await.unwrap();
    }
    operator.close().await;
    let service = Service::start(&config).await;
    assert_eq!(login_from(&service, "192.0.2.1", "bob", PASSWORD).await, Ok(()));

    let (mut checked, mut rejected) = (0, 0);
    let looping = async {
        loop {
            match login_from(&service, "192.0.2.1", "maria", "a guess").await.unwrap_err().reason() {
                Reason::BadCredentials => checked += 1,
                Reason::TooManyAttempts => {
                    rejected += 1;
                    // Otherwise the loop would take all of the processors.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
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
    assert!((20..25).contains(&checked) && rejected > 0, "{checked} checked, {rejected} rejected");
    service.stop().await;
}

#[tokio::test]
async fn unknown_name_is_throttled_like_a_known_one() {
    let (_folder, config) = folder();
    let service = Service::start(&config).await;
    let (guesses, rejected) = guess(&service, "192.0.2.66", "nobody").await;
    assert_eq!((guesses, rejected.reason()), (20, Reason::TooManyAttempts));
    service.stop().await;
}

#[tokio::test]
async fn burst_of_logins_does_not_delay_other_calls() {
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
    let reasons = outcomes.into_iter().filter_map(Result::err).map(|rejected| rejected.reason());
    let (overloaded, other): (Vec<_>, Vec<_>) = reasons.partition(|reason| *reason == Reason::Overloaded);
    assert!(!overloaded.is_empty(), "the queue has a bound");
    assert!(other.iter().all(|reason| *reason == Reason::TooManyAttempts), "{other:?}");
    assert!(service.login("admin", PASSWORD).await.is_ok(), "the service is available afterwards");
    service.stop().await;
}

#[tokio::test]
async fn default_password_from_another_machine_is_rejected() {
    let (_folder, mut config) = folder();
    config.admin_password = None;
    let service = Service::start(&config).await;
    assert_eq!(login_from(&service, "127.0.0.1", "admin", "admin").await, Ok(()));
    let rejected = login_from(&service, "192.0.2.1", "admin", "admin").await.unwrap_err();
    assert_eq!(rejected.reason(), Reason::BadCredentials);
    service.stop().await;

    config.exposed = true;
    let rejected = muse_auth::run(config, listeners().await, CancellationToken::new()).await.unwrap_err();
    assert!(rejected.to_string().contains("muse-auth user passwd admin"), "{rejected}");
}
