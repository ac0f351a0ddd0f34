//! Certificates that are replaced while a service runs.

use std::{fmt, mem, sync::Arc, time::Duration};

use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tracing::{info, warn};

use super::config::Side;
use crate::ConfigError;

/// How often the files are read. Contents are compared, not times: the files may be symbolic links to a folder that is itself
/// replaced, as in Kubernetes.
const EVERY: Duration = Duration::from_secs(1);

/// The files of a server's side of TLS.
pub type ServerTls = Reloadable<ServerConfig>;
/// The files of a client's side of TLS.
pub type ClientTls = Reloadable<ClientConfig>;

/// A side of TLS, and the files that it was made from.
pub struct Reloadable<T: Side> {
    files: T::Files,
    contents: Arc<T::Contents>,
    made: Arc<T>,
}

// Derived, it would require that the contents are Clone.
impl<T: Side> Clone for Reloadable<T> {
    fn clone(&self) -> Self {
        let (contents, made) = (Arc::clone(&self.contents), Arc::clone(&self.made));
        Self { files: self.files.clone(), contents, made }
    }
}

impl<T: Side> fmt::Debug for Reloadable<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(formatter)
    }
}

impl ServerTls {
    /// Whether clients must show a certificate.
    pub(super) fn is_mutual(&self) -> bool {
        self.files.ca.is_some()
    }
}

impl<T: Side> Reloadable<T> {
    pub(super) fn open(files: T::Files) -> Result<Self, ConfigError> {
        let contents = T::read(&files)?;
        let made = Arc::new(T::make(&contents)?);
        Ok(Self { files, contents: Arc::new(contents), made })
    }

    /// The configuration for new connections. While it is in use, a task reloads it when the files change.
    pub(super) fn follow(&self) -> watch::Receiver<Arc<T>> {
        let (latest, follower) = watch::channel(Arc::clone(&self.made));
        tokio::spawn(reload(latest, self.files.clone(), Arc::clone(&self.contents)));
        follower
    }
}

async fn reload<T: Side>(latest: watch::Sender<Arc<T>>, files: T::Files, mut seen: Arc<T::Contents>) {
    let mut changed = false;
    let mut throttle = None;
    loop {
        tokio::select! {
            () = latest.closed() => return,
            () = sleep(EVERY) => (),
        }
        let files = files.clone();
        // It fails only when the runtime ends.
        let Ok(read) = spawn_blocking(move || T::read(&files)).await else { return };
        let made = match read {
            // A certificate and its key may be written one after the other: wait until nothing changes any more.
            Ok(found) if found != *seen => {
                (seen, changed) = (Arc::new(found), true);
                continue;
            }
            Ok(_) if !mem::take(&mut changed) => continue,
            read => read.and_then(|found| T::make(&found)),
        };
        match made {
            Ok(made) => {
                info!("the certificate was replaced");
                latest.send_replace(Arc::new(made));
                throttle = None;
            }
            Err(refused) if throttle.as_ref() != Some(&refused) => {
                warn!("{refused}; what was in use before stays in use");
                throttle = Some(refused);
            }
            Err(_) => (),
        }
    }
}
