//! Reloads certificates while a service runs.

use std::{fmt, mem, sync::Arc, time::Duration};

use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_rustls::rustls::{ClientConfig, ServerConfig};
use tracing::{info, warn};

use super::config::TlsConfig;
use crate::ConfigError;

/// Interval between reads of the files. Contents are compared, not times: the files may be symbolic
/// links to a folder that is itself replaced, as in Kubernetes.
const INTERVAL: Duration = Duration::from_secs(1);

/// The TLS configuration of a server, and its files.
pub type ServerTls = Reloadable<ServerConfig>;
/// The TLS configuration of a client, and its files.
pub type ClientTls = Reloadable<ClientConfig>;

/// A TLS configuration, and the files from which it was built.
pub struct Reloadable<T: TlsConfig> {
    files: T::Files,
    contents: Arc<T::Contents>,
    config: Arc<T>,
}

// A derived implementation would require that the contents are Clone.
impl<T: TlsConfig> Clone for Reloadable<T> {
    fn clone(&self) -> Self {
        let (contents, config) = (Arc::clone(&self.contents), Arc::clone(&self.config));
        Self { files: self.files.clone(), contents, config }
    }
}

impl<T: TlsConfig> fmt::Debug for Reloadable<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(formatter)
    }
}

impl ServerTls {
    /// Whether clients must present a certificate.
    pub(super) fn is_mutual(&self) -> bool {
        self.files.ca.is_some()
    }
}

impl<T: TlsConfig> Reloadable<T> {
    pub(super) fn open(files: T::Files) -> Result<Self, ConfigError> {
        let contents = T::read(&files)?;
        let config = Arc::new(T::build(&contents)?);
        Ok(Self { files, contents: Arc::new(contents), config })
    }

    /// The configuration for new connections. While it is in use, a task reloads it when the files
    /// change.
    pub(super) fn follow(&self) -> watch::Receiver<Arc<T>> {
        let (latest, receiver) = watch::channel(Arc::clone(&self.config));
        tokio::spawn(reload(latest, self.files.clone(), Arc::clone(&self.contents)));
        receiver
    }
}

async fn reload<T: TlsConfig>(latest: watch::Sender<Arc<T>>, files: T::Files, mut seen: Arc<T::Contents>) {
    let mut changed = false;
    let mut last_error = None;
    loop {
        tokio::select! {
            () = latest.closed() => return,
            () = sleep(INTERVAL) => (),
        }
        let files = files.clone();
        // Fails only when the runtime ends.
        let Ok(read) = spawn_blocking(move || T::read(&files)).await else { return };
        let built = match read {
            // A certificate and its key may be written one after the other: wait until the contents
            // are stable.
            Ok(found) if found != *seen => {
                (seen, changed) = (Arc::new(found), true);
                continue;
            }
            Ok(_) if !mem::take(&mut changed) => {
                last_error = None;
                continue;
            }
            read => read.and_then(|found| T::build(&found)),
        };
        match built {
            Ok(config) => {
                info!("the certificate was reloaded");
                latest.send_replace(Arc::new(config));
                last_error = None;
            }
            Err(error) if last_error.as_ref() != Some(&error) => {
                warn!("{error}; the previous certificate remains in use");
                last_error = Some(error);
            }
            Err(_) => (),
        }
    }
}
